//! Lays the sources over each other, the later above the earlier, and remembers where each value
//! came from, so that a contradiction between two of them still has a place.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use failover_core::addr::Addr;
use failover_core::policy::InstancePolicy;
use secrecy::SecretString;

use super::settings::Set;
use super::value::Fault;
use super::{
    BrokerKind, Config, ConfigError, Credentials, GroupConfig, Origin, Problem, Setting, Value,
    WebhookConfig,
};

/// Longer than any password that Redis could be given by hand: a bound for what is read.
const PASSWORD_FILE_BYTES_MAX: u64 = 64 * 1024;

/// One value of one source.
pub(crate) struct Given {
    pub(crate) setting: &'static Setting,
    pub(crate) value: Value,
    pub(crate) origin: Origin,
}

/// One `[[group]]`, as far as it can be understood before the other sources are read.
pub(crate) struct GivenGroup {
    pub(crate) origin: Origin,
    /// Where `name`, `master` and `replicas` are.
    pub(crate) origins: BTreeMap<&'static str, Origin>,
    pub(crate) name: Option<String>,
    pub(crate) master: Addr,
    pub(crate) replicas: Vec<Addr>,
    pub(crate) given: Vec<Given>,
    /// What is set of single instances.
    pub(crate) instances: BTreeMap<Addr, InstancePolicy>,
}

/// One `[[webhook]]`, before a file with its secret is read.
pub(crate) struct GivenWebhook {
    pub(crate) origin: Origin,
    pub(crate) webhook: WebhookConfig,
    pub(crate) secret: Password,
}

/// A config file, taken apart.
pub(crate) struct GivenFile {
    pub(crate) given: Vec<Given>,
    pub(crate) groups: Vec<GivenGroup>,
    pub(crate) webhooks: Vec<GivenWebhook>,
}

/// How to log in, before a password file is read.
#[derive(Clone, Default)]
pub(crate) struct Login {
    pub(crate) user: Option<String>,
    pub(crate) password: Password,
}

#[derive(Clone, Default)]
pub(crate) enum Password {
    #[default]
    None,
    Text(SecretString),
    File(PathBuf),
}

/// What becomes part of the config only when every source was read.
#[derive(Default)]
pub(crate) struct Late {
    pub(crate) node_addr: Option<Addr>,
    pub(crate) secret: Password,
    pub(crate) zk_password: Password,
    pub(crate) etcd_password: Password,
}

/// A config while its sources are read.
#[derive(Default)]
pub(crate) struct Draft {
    config: Config,
    login: Login,
    late: Late,
    origins: BTreeMap<&'static str, Origin>,
    groups: Vec<GivenGroup>,
    webhooks: Vec<GivenWebhook>,
}

impl Draft {
    /// Lays a file over what is there.
    pub(crate) fn add_file(&mut self, file: GivenFile) -> Result<(), ConfigError> {
        self.add(file.given)?;
        self.groups.extend(file.groups);
        self.webhooks.extend(file.webhooks);
        Ok(())
    }

    /// Lays the values of one source over what is there. An empty text leaves a setting as it is,
    /// as the original's flags do; only `addr` has a meaning for it.
    pub(crate) fn add(&mut self, mut source: Vec<Given>) -> Result<(), ConfigError> {
        source.retain(|given| !given.value.is_empty_text() || given.setting.takes_empty());
        refuse_two_passwords(&source)?;
        for Given { setting, value, origin } in source {
            match setting.set {
                Set::Config(set) => set(&mut self.config, &value),
                Set::Policy(set) => set(&mut self.config.policy, &value),
                Set::Login(set) => set(&mut self.login, &value),
                Set::Scripts(set) => set(&mut self.config.scripts, &value),
                Set::Late(set) => set(&mut self.late, &value),
            }
            .map_err(|fault| fault.of(setting.name, &origin))?;
            self.origins.insert(setting.key, origin);
        }
        Ok(())
    }

    /// Works out what depends on several settings, and checks the whole.
    pub(crate) fn finish(mut self) -> Result<Config, ConfigError> {
        self.config.policy.max_loading_time = self.config.policy.max_down_time;
        self.infer_broker()?;
        self.settle_node_addr()?;
        self.config.credentials = self.login.read(&self.origins, None)?;
        let origin = self.origins.get("cluster_secret_file");
        self.config.cluster_secret = self.late.secret.read("secret", origin)?;
        for GivenWebhook { origin, mut webhook, secret } in std::mem::take(&mut self.webhooks) {
            webhook.secret = secret.read("secret", Some(&origin))?;
            self.config.webhooks.push(webhook);
            self.origins.entry("webhook").or_insert(origin);
        }
        let origin = |key| self.origins.get(key);
        self.config.zk.password =
            self.late.zk_password.read("password", origin("zk_password_file"))?;
        self.config.etcd.password =
            self.late.etcd_password.read("password", origin("etcd_password_file"))?;
        let mut origins = Vec::new();
        for group in std::mem::take(&mut self.groups) {
            let (group, its_origins, origin) =
                group.build(&self.config, &self.login, &self.origins)?;
            self.config.groups.push(group);
            origins.push((its_origins, origin));
        }
        match self.config.check() {
            Ok(()) => {
                self.config.settle();
                Ok(self.config)
            }
            Err(problem) => Err(locate(problem, &self.origins, &origins)),
        }
    }

    /// The original's documents start Raft without naming the broker. Two of them without a
    /// choice between them are a contradiction, never a silent single node.
    fn infer_broker(&mut self) -> Result<(), ConfigError> {
        if self.origins.contains_key("broker") {
            return Ok(());
        }
        let given = [
            (self.config.raft.addr.is_some(), BrokerKind::Raft, "raft_addr"),
            (!self.config.zk.addr.is_empty(), BrokerKind::Zk, "zk_addr"),
            (!self.config.etcd.addr.is_empty(), BrokerKind::Etcd, "etcd_addr"),
        ];
        let mut given = given.into_iter().filter(|(is_given, _, _)| *is_given);
        let Some((_, kind, key)) = given.next() else {
            // Nodes have an address with every broker; it chooses Raft only where nothing else is chosen.
            let is_node = self.late.node_addr.is_some();
            self.config.broker = if is_node { BrokerKind::Raft } else { BrokerKind::None };
            return Ok(());
        };
        self.config.broker = kind;
        if let Some((_, other, other_key)) = given.next() {
            let message = format!(
                "{key} and {other_key} are both given, but no broker is chosen between \"{kind}\" and \"{other}\""
            );
            return Err(match self.origins.get(other_key) {
                Some(origin) => origin.error(message),
                None => ConfigError::Invalid(message),
            });
        }
        Ok(())
    }

    /// One address under two names; where both are given they must be the same.
    fn settle_node_addr(&mut self) -> Result<(), ConfigError> {
        let Some(node_addr) = self.late.node_addr.take() else {
            return Ok(());
        };
        match &self.config.raft.addr {
            Some(raft_addr) if *raft_addr != node_addr => {
                let message = format!(
                    "node_addr is {node_addr} and raft_addr is {raft_addr}, but they are two names of one address"
                );
                Err(match self.origins.get("node_addr") {
                    Some(origin) => origin.error(message),
                    None => ConfigError::Invalid(message),
                })
            }
            Some(_) | None => {
                self.config.raft.addr = Some(node_addr);
                Ok(())
            }
        }
    }
}

impl GivenGroup {
    /// Its overrides over the final rules and login of the whole.
    fn build(
        mut self,
        whole: &Config,
        login: &Login,
        outer: &BTreeMap<&'static str, Origin>,
    ) -> Result<(GroupConfig, BTreeMap<&'static str, Origin>, Origin), ConfigError> {
        refuse_two_passwords(&self.given)?;
        // An empty password takes the inherited one away, never one that is given beside it.
        self.given.sort_by_key(|given| !given.value.is_empty_text());
        let mut origins = self.origins;
        let mut own_policy = None;
        let mut own_login = None;
        let mut own_scripts = None;
        let policy = &whole.policy;
        for given in self.given {
            let value = &given.value;
            match given.setting.set {
                Set::Policy(set) => set(own_policy.get_or_insert_with(|| policy.clone()), value),
                Set::Login(set) => set(own_login.get_or_insert_with(|| login.clone()), value),
                Set::Scripts(set) => {
                    set(own_scripts.get_or_insert_with(|| whole.scripts.clone()), value)
                }
                Set::Config(_) | Set::Late(_) => {
                    Err(Fault::new("this is set for the whole node, not a group"))
                }
            }
            .map_err(|fault| fault.of(given.setting.name, &given.origin))?;
            origins.insert(given.setting.key, given.origin);
        }
        if !self.instances.is_empty() {
            own_policy.get_or_insert_with(|| policy.clone()).instances = self.instances;
        }
        if let Some(policy) = &mut own_policy {
            policy.max_loading_time = policy.max_down_time;
        }
        let group = GroupConfig {
            name: self.name.unwrap_or_else(|| self.master.to_string()),
            master: self.master,
            replicas: self.replicas,
            credentials: own_login.map(|login| login.read(outer, Some(&origins))).transpose()?,
            policy: own_policy,
            scripts: own_scripts,
        };
        Ok((group, origins, self.origin))
    }
}

impl Login {
    fn read(
        &self,
        outer: &BTreeMap<&'static str, Origin>,
        own: Option<&BTreeMap<&'static str, Origin>>,
    ) -> Result<Credentials, ConfigError> {
        let key = "redis_password_file";
        let origin = own.and_then(|own| own.get(key)).or_else(|| outer.get(key));
        let password = self.password.read("password", origin)?;
        Ok(Credentials { user: self.user.clone(), password })
    }
}

impl Password {
    /// What was given, or what its file has; `what` it is in the words of an error.
    pub(crate) fn read(
        &self,
        what: &str,
        origin: Option<&Origin>,
    ) -> Result<Option<SecretString>, ConfigError> {
        match self {
            Self::None => Ok(None),
            Self::Text(text) => Ok(Some(text.clone())),
            Self::File(path) => {
                read_password(path, what).map(Some).map_err(|message| match origin {
                    Some(origin) => origin.error(message),
                    None => ConfigError::Invalid(message),
                })
            }
        }
    }
}

/// Which of two passwords of one source is meant cannot be known; a later source replaces an
/// earlier one's, whichever way each is given.
fn refuse_two_passwords(source: &[Given]) -> Result<(), ConfigError> {
    let has =
        |key| source.iter().find(|given| given.setting.key == key && !given.value.is_empty_text());
    for (text, file) in [
        ("redis_password", "redis_password_file"),
        ("cluster_secret", "cluster_secret_file"),
        ("zk_password", "zk_password_file"),
        ("etcd_password", "etcd_password_file"),
    ] {
        if let (Some(_), Some(given)) = (has(text), has(file)) {
            return Err(given.origin.error(format!("{text} and {file} are both given")));
        }
    }
    Ok(())
}

fn read_password(path: &Path, what: &str) -> Result<SecretString, String> {
    let fail = |why: &str| format!("the {what} file {} {why}", path.display());
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(PASSWORD_FILE_BYTES_MAX + 1).read_to_end(&mut bytes))
        .map_err(|error| fail(&format!("cannot be read: {error}")))?;
    if bytes.len() as u64 > PASSWORD_FILE_BYTES_MAX {
        return Err(fail("is longer than 64 KiB"));
    }
    let mut text = String::from_utf8(bytes).map_err(|_| fail("is not UTF-8"))?;
    // Editors and `echo` end a file with a newline that is no part of the password.
    if text.ends_with('\n') {
        text.pop();
        if text.ends_with('\r') {
            text.pop();
        }
    }
    if text.is_empty() {
        return Err(fail("is empty"));
    }
    Ok(SecretString::from(text))
}

/// The first of the settings concerned that somebody wrote is the place; a default has none.
fn locate(
    problem: Problem,
    outer: &BTreeMap<&'static str, Origin>,
    groups: &[(BTreeMap<&'static str, Origin>, Origin)],
) -> ConfigError {
    let group = problem.group.and_then(|index| groups.get(index));
    let find = |origins: &BTreeMap<_, Origin>| {
        problem.keys.iter().find_map(|key| origins.get(key).cloned())
    };
    let origin = group
        .and_then(|(own, _)| find(own))
        .or_else(|| group.map(|(_, header)| header.clone()))
        .or_else(|| find(outer));
    match origin {
        Some(origin) => origin.error(problem.message),
        None => ConfigError::Invalid(problem.message),
    }
}
