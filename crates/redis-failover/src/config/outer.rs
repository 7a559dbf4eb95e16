//! What the brokers need that run apart from this program, and when it fits together.

use std::time::Duration;

use secrecy::SecretString;

use super::Problem;

/// Where the original put everything in ZooKeeper.
const ZK_BASE: &str = "/zk/redis/failover";
/// What all keys in etcd begin with.
const ETCD_PREFIX: &str = "/redis/failover";
/// Shortest and longest time after which a node that is not heard of has lost its place.
const SESSION_MIN: Duration = Duration::from_secs(1);
const SESSION_MAX: Duration = Duration::from_secs(60);
/// etcd counts in seconds and grants no less.
const LEASE_MIN: Duration = Duration::from_secs(2);
/// This part of a session is between the end of the leader's own lease and the moment when another one can lead.
const MARGIN_PART: u32 = 8;
const ZK_PORT: u16 = 2181;
const ETCD_PORT: u16 = 2379;

/// What the broker `zk` needs.
#[derive(Clone, Debug)]
pub struct ZkConfig {
    /// The servers of the ensemble, as they are written: `host` or `host:port`.
    pub addr: Vec<String>,
    /// The node below which everything is stored; `None`: where the original did.
    pub base_dir: Option<String>,
    /// How long a node that is not heard of keeps its place. The servers grant between 2 and 20 of their ticks.
    pub session_timeout: Duration,
    /// The user of a login (`digest`), which also is who may change what is stored; `None`: anybody may.
    pub user: Option<String>,
    /// Its password.
    pub password: Option<SecretString>,
}

/// What the broker `etcd` needs.
#[derive(Clone, Debug)]
pub struct EtcdConfig {
    /// The servers of the cluster, as they are written: `host`, `host:port` or `http://host:port`.
    pub addr: Vec<String>,
    /// What all keys begin with; `None`: `/redis/failover`.
    pub prefix: Option<String>,
    /// How long a node that is not heard of keeps its place, in whole seconds.
    pub lease_ttl: Duration,
    /// The user of a login; `None`: there is none.
    pub user: Option<String>,
    /// Its password.
    pub password: Option<SecretString>,
}

impl Default for ZkConfig {
    fn default() -> Self {
        Self {
            addr: Vec::new(),
            base_dir: None,
            session_timeout: Duration::from_secs(4),
            user: None,
            password: None,
        }
    }
}

impl Default for EtcdConfig {
    fn default() -> Self {
        Self {
            addr: Vec::new(),
            prefix: None,
            lease_ttl: Duration::from_secs(3),
            user: None,
            password: None,
        }
    }
}

impl ZkConfig {
    /// The servers, each with a port.
    pub(crate) fn servers(&self) -> Vec<String> {
        self.addr.iter().map(|addr| with_port(addr, ZK_PORT)).collect()
    }

    /// The node below which everything is stored.
    pub(crate) fn base(&self) -> String {
        path(self.base_dir.as_deref(), ZK_BASE)
    }

    pub(super) fn command_timeout_max(&self) -> Duration {
        self.session_timeout / MARGIN_PART
    }

    pub(crate) fn check(&self) -> Result<(), Problem> {
        if self.addr.is_empty() {
            return problem(
                &["zk_addr", "broker"],
                "the broker \"zk\" needs zk_addr, the servers of the ensemble".to_owned(),
            );
        }
        check_servers("zk_addr", &self.addr)?;
        check_path("zk_path", &self.base())?;
        check_session("zk_session_timeout_ms", self.session_timeout, SESSION_MIN)?;
        check_login(["zk_user", "zk_password"], self.user.as_deref(), self.password.is_some())?;
        match &self.user {
            Some(user) if user.contains(':') => {
                problem(&["zk_user"], "zk_user has a colon, which ends it for ZooKeeper".to_owned())
            }
            Some(_) | None => Ok(()),
        }
    }
}

impl EtcdConfig {
    /// The servers, each with a port.
    pub(crate) fn servers(&self) -> Vec<String> {
        let bare = |addr: &String| {
            let addr = addr.trim_start_matches("http://").trim_end_matches('/');
            with_port(addr, ETCD_PORT)
        };
        self.addr.iter().map(bare).collect()
    }

    /// What all keys begin with.
    pub(crate) fn prefix(&self) -> String {
        path(self.prefix.as_deref(), ETCD_PREFIX)
    }

    pub(super) fn command_timeout_max(&self) -> Duration {
        self.lease_ttl / MARGIN_PART
    }

    pub(crate) fn check(&self) -> Result<(), Problem> {
        if self.addr.is_empty() {
            return problem(
                &["etcd_addr", "broker"],
                "the broker \"etcd\" needs etcd_addr, the servers of the cluster".to_owned(),
            );
        }
        if let Some(addr) = self.addr.iter().find(|addr| addr.starts_with("https://")) {
            return problem(
                &["etcd_addr"],
                format!(
                    "etcd_addr has {addr}, but TLS to etcd is not built: give it an http:// address"
                ),
            );
        }
        check_servers("etcd_addr", &self.servers())?;
        check_path("etcd_prefix", &self.prefix())?;
        check_session("etcd_lease_ttl_ms", self.lease_ttl, LEASE_MIN)?;
        check_login(["etcd_user", "etcd_password"], self.user.as_deref(), self.password.is_some())
    }
}

pub(super) fn with_port(addr: &str, port: u16) -> String {
    // An IPv6 address without brackets is colons all over.
    let has_port = addr.rsplit_once(':').is_some_and(|(host, port)| {
        let is_number = !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
        is_number && (host.ends_with(']') || !host.contains(':'))
    });
    match (has_port, addr.contains(':') && !addr.starts_with('[')) {
        (true, _) => addr.to_owned(),
        (false, true) => format!("[{addr}]:{port}"),
        (false, false) => format!("{addr}:{port}"),
    }
}

pub(super) fn path(given: Option<&str>, default: &str) -> String {
    given.filter(|path| !path.is_empty()).unwrap_or(default).trim_end_matches('/').to_owned()
}

fn problem<T>(keys: &[&'static str], message: String) -> Result<T, Problem> {
    Err(Problem { group: None, keys: keys.to_vec(), message })
}

pub(super) fn check_servers(key: &'static str, servers: &[String]) -> Result<(), Problem> {
    let bad = |server: &&String| {
        server.is_empty() || server.contains(|c: char| c.is_whitespace() || "/,@".contains(c))
    };
    match servers.iter().find(bad) {
        Some(server) => {
            problem(&[key], format!("{key} has \"{server}\", which is no host or host:port"))
        }
        None => Ok(()),
    }
}

pub(super) fn check_path(key: &'static str, path: &str) -> Result<(), Problem> {
    let bad = |part: &str| {
        part.is_empty() || matches!(part, "." | "..") || part.contains(|c: char| c.is_control())
    };
    let Some(parts) = path.strip_prefix('/').filter(|parts| !parts.is_empty()) else {
        return problem(
            &[key],
            format!("{key} is \"{path}\", but must begin with / and name a place"),
        );
    };
    if parts.split('/').any(bad) {
        return problem(&[key], format!("{key} is \"{path}\", which has an empty or strange part"));
    }
    if key.ends_with("zk_path") && parts.split('/').next() == Some("zookeeper") {
        return problem(&[key], format!("{key} is \"{path}\", but /zookeeper is ZooKeeper's own"));
    }
    Ok(())
}

pub(super) fn check_session(
    key: &'static str,
    time: Duration,
    min: Duration,
) -> Result<(), Problem> {
    if (min..=SESSION_MAX).contains(&time) {
        return Ok(());
    }
    let ms = |time: Duration| time.as_secs_f64() * 1000.0;
    problem(
        &[key],
        format!("{key} is {}, but must be between {} and {}", ms(time), ms(min), ms(SESSION_MAX)),
    )
}

fn check_login(
    [user_key, password_key]: [&'static str; 2],
    user: Option<&str>,
    has_password: bool,
) -> Result<(), Problem> {
    match (user, has_password) {
        (Some(_), false) => problem(
            &[user_key],
            format!("{user_key} is given without {password_key} or {password_key}_file"),
        ),
        (None, true) => problem(
            &[password_key, user_key],
            format!("{password_key} is given without {user_key}"),
        ),
        (Some(_), true) | (None, false) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_get_their_port() {
        let zk = |addr: &str| ZkConfig { addr: vec![addr.to_owned()], ..ZkConfig::default() };
        for (given, wanted) in [
            ("a", "a:2181"),
            ("a:1", "a:1"),
            ("10.0.0.1", "10.0.0.1:2181"),
            ("[::1]", "[::1]:2181"),
            ("[::1]:7", "[::1]:7"),
            ("::1", "[::1]:2181"),
        ] {
            assert_eq!(zk(given).servers(), [wanted], "{given}");
        }
        let etcd = EtcdConfig { addr: vec!["http://a:1/".to_owned()], ..EtcdConfig::default() };
        assert_eq!(etcd.servers(), ["a:1"]);
    }

    #[test]
    fn what_does_not_fit_is_named() {
        let zk = ZkConfig { addr: vec!["a".to_owned()], ..ZkConfig::default() };
        assert!(zk.check().is_ok());
        let wrong = [
            (ZkConfig { addr: Vec::new(), ..zk.clone() }, "zk_addr"),
            (ZkConfig { addr: vec!["a/b".to_owned()], ..zk.clone() }, "zk_addr"),
            (ZkConfig { base_dir: Some("zk".to_owned()), ..zk.clone() }, "zk_path"),
            (ZkConfig { base_dir: Some("/a//b".to_owned()), ..zk.clone() }, "zk_path"),
            (ZkConfig { base_dir: Some("/zookeeper/a".to_owned()), ..zk.clone() }, "zk_path"),
            (
                ZkConfig { session_timeout: Duration::from_millis(10), ..zk.clone() },
                "zk_session_timeout_ms",
            ),
            (ZkConfig { user: Some("u".to_owned()), ..zk.clone() }, "zk_password"),
        ];
        for (config, word) in wrong {
            let problem = config.check().expect_err(word);
            assert!(problem.message.contains(word), "{}", problem.message);
        }
        let etcd = EtcdConfig { addr: vec!["https://a".to_owned()], ..EtcdConfig::default() };
        let problem = etcd.check().expect_err("TLS");
        assert!(problem.message.contains("TLS"), "{}", problem.message);
    }
}
