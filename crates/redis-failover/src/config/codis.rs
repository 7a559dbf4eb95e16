//! What the proxies in front of Redis need that are told of a new master: those of xcodis through ZooKeeper, those of
//! codis through its dashboard.

use std::collections::BTreeSet;
use std::time::Duration;

use failover_core::addr::Addr;
use failover_core::node::GroupName;

use super::outer::{check_path, check_servers, check_session, path, with_port};
use super::value::{Fault, Value};
use super::{Config, Problem, check_group_name};

/// Where xcodis has its products; its own programs know no other place.
const XCODIS_PATH: &str = "/zk/codis";
const ZK_PORT: u16 = 2181;
const SESSION_MIN: Duration = Duration::from_secs(1);
/// Longest of the times that are waited for somebody else: the next group waits meanwhile.
const WAIT_MAX: Duration = Duration::from_secs(600);
/// Longest name of a product, in bytes; it is part of a path.
const PRODUCT_BYTES_MAX: usize = 128;

/// Of which groups something is told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum GroupSet {
    /// Of none: it is off.
    #[default]
    None,
    /// Of every group, also of those that are added later.
    All,
    /// Of these, by name.
    Named(BTreeSet<String>),
}

/// xcodis, whose proxies learn of a new master from ZooKeeper. Off while [`XcodisConfig::groups`] is [`GroupSet::None`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct XcodisConfig {
    /// The servers of the ZooKeeper of xcodis, as they are written: `host` or `host:port`.
    pub addr: Vec<String>,
    /// The name of the product: everything of it is below `<zk_path>/db_<product>`.
    pub product: String,
    /// The node below which the products are; `None`: `/zk/codis`.
    pub zk_path: Option<String>,
    /// The groups whose masters stand in xcodis. A failover of one that xcodis does not know is vetoed.
    pub groups: GroupSet,
    /// After so long without a sign of this node ZooKeeper forgets it, and others may take its lock away.
    pub session_timeout: Duration,
    /// How long the lock of the product is waited for until that is tried again later.
    pub lock_timeout: Duration,
    /// How long the proxies have to say that they know the new master. One that did not is told to exit.
    pub ack_timeout: Duration,
}

/// codis 3, whose dashboard tells its proxies of a new master. Off while [`CodisConfig::groups`] is [`GroupSet::None`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CodisConfig {
    /// Where the dashboard is, its `admin_addr`.
    pub dashboard: Option<Addr>,
    /// The name of the product, its `product_name`.
    pub product: String,
    /// The groups whose masters stand in codis.
    pub groups: GroupSet,
    /// How long the dashboard may take for one answer: it tells all proxies before it gives one.
    pub timeout: Duration,
}

impl GroupSet {
    pub(super) fn of(value: &Value) -> Result<Self, Fault> {
        let names: BTreeSet<String> = value.texts()?.into_iter().collect();
        if names.is_empty() {
            return Ok(Self::None);
        }
        if names.contains("all") {
            let only = names.len() == 1;
            return if only { Ok(Self::All) } else { Err(Fault::new("\"all\" stands alone")) };
        }
        for name in &names {
            check_group_name(name).map_err(|why| Fault::new(format!("\"{name}\": {why}")))?;
        }
        Ok(Self::Named(names))
    }

    /// Whether the group is one of them.
    pub(crate) fn contains(&self, group: &GroupName) -> bool {
        match self {
            Self::None => false,
            Self::All => true,
            Self::Named(names) => names.contains(group.as_str()),
        }
    }

    pub(crate) fn is_none(&self) -> bool {
        *self == Self::None
    }
}

impl Default for XcodisConfig {
    fn default() -> Self {
        Self {
            addr: Vec::new(),
            product: String::new(),
            zk_path: None,
            groups: GroupSet::None,
            session_timeout: Duration::from_secs(4),
            lock_timeout: Duration::from_secs(30),
            ack_timeout: Duration::from_secs(30),
        }
    }
}

impl Default for CodisConfig {
    fn default() -> Self {
        Self {
            dashboard: None,
            product: String::new(),
            groups: GroupSet::None,
            timeout: Duration::from_secs(10),
        }
    }
}

impl XcodisConfig {
    /// The servers, each with a port.
    pub(crate) fn servers(&self) -> Vec<String> {
        self.addr.iter().map(|addr| with_port(addr, ZK_PORT)).collect()
    }

    /// The node of the product.
    pub(crate) fn base(&self) -> String {
        format!("{}/db_{}", path(self.zk_path.as_deref(), XCODIS_PATH), self.product)
    }

    fn check(&self) -> Result<(), Problem> {
        let begun =
            [("xcodis_addr", !self.addr.is_empty()), ("xcodis_product", !self.product.is_empty())];
        if !check_whole("xcodis", &self.groups, &begun)? {
            return Ok(());
        }
        check_servers("xcodis_addr", &self.addr)?;
        check_product("xcodis_product", &self.product)?;
        check_path("xcodis_zk_path", &path(self.zk_path.as_deref(), XCODIS_PATH))?;
        check_session("xcodis_session_timeout_ms", self.session_timeout, SESSION_MIN)?;
        check_wait("xcodis_lock_timeout_ms", self.lock_timeout)?;
        check_wait("xcodis_ack_timeout_ms", self.ack_timeout)
    }
}

impl CodisConfig {
    fn check(&self) -> Result<(), Problem> {
        let begun = [
            ("codis_dashboard", self.dashboard.is_some()),
            ("codis_product", !self.product.is_empty()),
        ];
        if !check_whole("codis", &self.groups, &begun)? {
            return Ok(());
        }
        check_product("codis_product", &self.product)?;
        check_wait("codis_timeout_ms", self.timeout)
    }
}

impl Config {
    pub(super) fn check_codis(&self) -> Result<(), Problem> {
        self.xcodis.check()?;
        self.codis.check()
    }
}

/// Whether it is on. What is given by half was meant to be on, and would do nothing.
fn check_whole(
    name: &str,
    groups: &GroupSet,
    begun: &[(&'static str, bool)],
) -> Result<bool, Problem> {
    let (given, missing): (Vec<_>, Vec<_>) = begun.iter().partition(|(_, given)| *given);
    let groups_key = if name == "xcodis" { "xcodis_groups" } else { "codis_groups" };
    if groups.is_none() {
        let Some((key, _)) = given.first() else { return Ok(false) };
        return problem(
            &[key],
            format!(
                "{key} is given, but {groups_key} names no group, so that nothing would be told: write \"all\", or the \
                 names of the groups"
            ),
        );
    }
    match missing.first() {
        Some((key, _)) => {
            problem(&[groups_key], format!("{groups_key} is given, but {key} is missing"))
        }
        None => Ok(true),
    }
}

fn check_product(key: &'static str, product: &str) -> Result<(), Problem> {
    let bad = |c: char| c == '/' || c.is_whitespace() || c.is_control();
    if product.len() > PRODUCT_BYTES_MAX || product.contains(bad) {
        return problem(
            &[key],
            format!(
                "{key} is {product:?}, but the name of a product has at most {PRODUCT_BYTES_MAX} bytes and neither \
                 slashes nor spaces"
            ),
        );
    }
    Ok(())
}

fn check_wait(key: &'static str, time: Duration) -> Result<(), Problem> {
    if !time.is_zero() && time <= WAIT_MAX {
        return Ok(());
    }
    let ms = |time: Duration| time.as_secs_f64() * 1000.0;
    problem(
        &[key],
        format!("{key} is {}, but must be more than 0 and at most {}", ms(time), ms(WAIT_MAX)),
    )
}

fn problem<T>(keys: &[&'static str], message: String) -> Result<T, Problem> {
    Err(Problem { group: None, keys: keys.to_vec(), message })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole() -> XcodisConfig {
        XcodisConfig {
            addr: vec!["zk-1".to_owned()],
            product: "test".to_owned(),
            groups: GroupSet::All,
            ..XcodisConfig::default()
        }
    }

    #[test]
    fn a_product_is_where_xcodis_has_it() {
        assert_eq!(whole().base(), "/zk/codis/db_test");
        let elsewhere = XcodisConfig { zk_path: Some("/other/".to_owned()), ..whole() };
        assert_eq!(elsewhere.base(), "/other/db_test");
        assert_eq!(whole().servers(), ["zk-1:2181"]);
    }

    #[test]
    fn nothing_is_off_and_half_is_a_mistake() {
        assert!(XcodisConfig::default().check().is_ok() && CodisConfig::default().check().is_ok());
        assert!(whole().check().is_ok());
        let wrong = [
            (XcodisConfig { groups: GroupSet::None, ..whole() }, "xcodis_groups names no group"),
            (XcodisConfig { addr: Vec::new(), ..whole() }, "xcodis_addr is missing"),
            (XcodisConfig { product: String::new(), ..whole() }, "xcodis_product is missing"),
            (XcodisConfig { product: "a/b".to_owned(), ..whole() }, "slashes"),
            (XcodisConfig { addr: vec!["a b".to_owned()], ..whole() }, "xcodis_addr"),
            (XcodisConfig { zk_path: Some("zk".to_owned()), ..whole() }, "must begin with /"),
            (XcodisConfig { ack_timeout: Duration::ZERO, ..whole() }, "xcodis_ack_timeout_ms"),
        ];
        for (config, words) in wrong {
            let problem = config.check().expect_err(words);
            assert!(problem.message.contains(words), "{}", problem.message);
        }
        let codis = CodisConfig { product: "p".to_owned(), ..CodisConfig::default() };
        let problem = codis.check().expect_err("it names no group");
        assert!(problem.message.starts_with("codis_product is given"), "{}", problem.message);
        let codis = CodisConfig { groups: GroupSet::All, ..codis };
        let problem = codis.check().expect_err("it has no dashboard");
        assert!(
            problem.message.contains("codis_dashboard is missing")
                && problem.keys == ["codis_groups"],
            "{}",
            problem.message
        );
    }
}
