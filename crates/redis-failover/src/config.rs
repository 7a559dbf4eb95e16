//! The settings of one node: what they are, and when they fit together.
//!
//! A [`Config`] is built in code by a host that embeds the library, or read from a file
//! ([`Config::from_file`]), or from flags, environment and file by the program
//! (the feature `cli`). All ways end in the same validated struct.
//!
//! `settings` names every setting once, for all sources; `file` reads TOML; `draft` lays the
//! sources over each other; `error` says where a wrong value was written.
//!
//! Not here: the rules of one group and what contradicts within them, which are
//! [`failover_core::policy`].

mod codis;
mod draft;
mod error;
mod file;
mod hooks;
mod journal;
mod listen;
mod outer;
mod raft;
mod settings;
#[cfg(test)]
mod tests;
mod value;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::Path;
use std::time::Duration;

use failover_core::addr::Addr;
use failover_core::policy::{GROUP_NAME_BYTES_MAX, GROUPS_MAX, INSTANCES_PER_GROUP_MAX, Policy};

pub use codis::{CodisConfig, GroupSet, XcodisConfig};
pub(crate) use draft::{Draft, Given, Password};
pub use error::{ConfigError, Origin};
pub(crate) use file::read as read_file;
pub use hooks::{ScriptLimits, Scripts, WEBHOOKS_MAX, WebhookConfig};
pub use journal::JournalConfig;
pub use listen::ListenAddr;
pub use outer::{EtcdConfig, ZkConfig};
pub use raft::RaftConfig;
pub use secrecy::{ExposeSecret, SecretString};
#[cfg(feature = "cli")]
pub(crate) use settings::SECTIONS;
pub(crate) use settings::Setting;
pub(crate) use value::Value;

/// Longest `failover_timeout`: a longer one would be a setting that never acts.
const FAILOVER_TIMEOUT_MAX: Duration = Duration::from_secs(86_400);

/// Everything that one node is told at its start.
///
/// The default is what runs without file, environment and flags. `Debug` shows no password.
///
/// ```
/// use redis_failover::config::Config;
///
/// let config = Config {
///     addr: None,
///     masters: vec!["redis-1.example:6379".parse()?],
///     ..Config::default()
/// };
/// config.validate()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct Config {
    /// Where HTTP is served; `None`: not at all, which is the default without the feature `http`.
    pub addr: Option<ListenAddr>,
    /// The name of this node in views, history and logs. With any other broker than `none` it is the address of the
    /// node, whatever is written here.
    pub node: String,
    /// Masters to guard under [`Config::policy`], each the first address of a group that is named
    /// after it.
    pub masters: Vec<Addr>,
    /// Whether the masters that an earlier run recorded are kept beside `masters`.
    pub masters_state: SavedState,
    /// Groups with a name, or with rules or credentials of their own.
    pub groups: Vec<GroupConfig>,
    /// The rules of every group that has none of its own.
    pub policy: Policy,
    /// How instances are logged in to, where a group has no credentials of its own.
    pub credentials: Credentials,
    /// What is run when something happens to a group that has no scripts of its own.
    pub scripts: Scripts,
    /// What holds for all scripts.
    pub script_limits: ScriptLimits,
    /// Services that are told by HTTP what happens.
    pub webhooks: Vec<WebhookConfig>,
    /// xcodis, whose proxies are told of new masters.
    pub xcodis: XcodisConfig,
    /// codis, whose dashboard is told of new masters.
    pub codis: CodisConfig,
    /// How nodes agree.
    pub broker: BrokerKind,
    /// What all nodes know and nobody else; `None`: nodes do not prove to each other who they are.
    pub cluster_secret: Option<SecretString>,
    /// Whether nodes may do without a secret where others can reach them.
    pub cluster_open: bool,
    /// What the broker `raft` needs; any other takes the address in it alone.
    pub raft: RaftConfig,
    /// What the broker `zk` needs; any other ignores it.
    pub zk: ZkConfig,
    /// What the broker `etcd` needs; any other ignores it.
    pub etcd: EtcdConfig,
    /// What is logged, and how.
    pub log: LogConfig,
    /// Whether everything is written down, to be gone through again.
    pub journal: JournalConfig,
}

/// One group that was given more than its master's address.
#[derive(Clone, Debug)]
pub struct GroupConfig {
    /// Stable name, see [`check_group_name`].
    pub name: String,
    /// The master, or any instance that leads to it.
    pub master: Addr,
    /// Replicas to know before the master is asked, so that a group whose master is already dead
    /// can be repaired.
    pub replicas: Vec<Addr>,
    /// Instead of [`Config::credentials`].
    pub credentials: Option<Credentials>,
    /// Instead of [`Config::policy`].
    pub policy: Option<Policy>,
    /// Instead of [`Config::scripts`].
    pub scripts: Option<Scripts>,
}

/// How an instance is logged in to.
#[derive(Clone, Debug, Default)]
pub struct Credentials {
    /// ACL user; `None`: the default user.
    pub user: Option<String>,
    /// `None`: no login.
    pub password: Option<SecretString>,
}

/// What happens to what an earlier run saved.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SavedState {
    /// It is kept, and what is configured is added.
    #[default]
    Existing,
    /// It is dropped, and what is configured replaces it.
    New,
}

/// How nodes agree.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BrokerKind {
    /// One node decides alone, and nothing outlasts it.
    #[default]
    None,
    /// The Raft that is built in.
    Raft,
    /// A ZooKeeper ensemble.
    Zk,
    /// An etcd cluster.
    Etcd,
}

/// What is logged, and how.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LogConfig {
    /// The least important messages that are still logged.
    pub level: LogLevel,
    /// How a message is written.
    pub format: LogFormat,
}

/// How important a message must be to be logged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogLevel {
    /// A person has to act.
    Error,
    /// Something is wrong that the program handles.
    Warn,
    /// What was seen, decided and done.
    #[default]
    Info,
    /// Why it was decided.
    Debug,
    /// Every event.
    Trace,
}

/// How a log message is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// A line for people.
    #[default]
    Text,
    /// A JSON object a line, for programs.
    Json,
}

/// What is wrong, in which group and by which settings, so that a position can be looked up.
pub(crate) struct Problem {
    pub(crate) group: Option<usize>,
    pub(crate) keys: Vec<&'static str>,
    pub(crate) message: String,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            addr: cfg!(feature = "http").then(|| ListenAddr::any(11000)),
            node: "local".to_owned(),
            masters: Vec::new(),
            masters_state: SavedState::default(),
            groups: Vec::new(),
            policy: Policy::default(),
            credentials: Credentials::default(),
            scripts: Scripts::default(),
            script_limits: ScriptLimits::default(),
            webhooks: Vec::new(),
            xcodis: XcodisConfig::default(),
            codis: CodisConfig::default(),
            broker: BrokerKind::default(),
            cluster_secret: None,
            cluster_open: false,
            raft: RaftConfig::default(),
            zk: ZkConfig::default(),
            etcd: EtcdConfig::default(),
            log: LogConfig::default(),
            journal: JournalConfig::default(),
        }
    }
}

impl Config {
    /// Reads a TOML file over the defaults, without looking at flags or environment.
    ///
    /// # Errors
    /// When the file cannot be read, or with the line and column of what is wrong in it.
    pub fn from_file(path: &Path) -> Result<Self, ConfigError> {
        let mut draft = Draft::default();
        draft.add_file(read_file(path)?)?;
        draft.finish()
    }

    /// Checks the settings against each other, and that scripts are there and executable.
    ///
    /// # Errors
    /// A sentence that names the setting, its value and what it must be.
    pub fn validate(&self) -> Result<(), ConfigError> {
        self.check().map_err(|problem| ConfigError::Invalid(problem.message))
    }

    /// The rules of the group of that name.
    pub fn policy_of(&self, group: &str) -> &Policy {
        self.group(group).and_then(|group| group.policy.as_ref()).unwrap_or(&self.policy)
    }

    /// How the instances of the group of that name are logged in to.
    pub fn credentials_of(&self, group: &str) -> &Credentials {
        self.group(group).and_then(|group| group.credentials.as_ref()).unwrap_or(&self.credentials)
    }

    /// Every group to register at the start: the bare masters, then the named groups.
    pub fn all_groups(&self) -> impl Iterator<Item = GroupConfig> + '_ {
        let bare = |master: &Addr| GroupConfig::new(&master.to_string(), master.clone());
        self.masters.iter().map(bare).chain(self.groups.iter().cloned())
    }

    fn group(&self, name: &str) -> Option<&GroupConfig> {
        self.groups.iter().find(|group| group.name == name)
    }

    /// What [`Config::validate`] checks, with what is needed to find where it was written.
    pub(crate) fn check(&self) -> Result<(), Problem> {
        if self.addr.is_some() && !cfg!(feature = "http") {
            return Err(Problem {
                group: None,
                keys: vec!["addr"],
                message: "addr is set, but this build serves no HTTP: it lacks the feature http"
                    .to_owned(),
            });
        }
        self.check_broker()?;
        self.check_policy(&self.policy).map_err(|message| Problem::of_policy(None, message))?;
        for (index, group) in self.groups.iter().enumerate() {
            let Some(policy) = &group.policy else {
                continue;
            };
            self.check_policy(policy).map_err(|message| {
                Problem::of_policy(Some(index), format!("group \"{}\": {message}", group.name))
            })?;
        }
        self.check_hooks()?;
        self.check_codis()?;
        self.check_instances()
    }

    /// Works out what follows from other settings; doing it again changes nothing.
    pub(crate) fn settle(&mut self) {
        let longest = match self.broker {
            BrokerKind::None => return,
            BrokerKind::Raft => self.raft.command_timeout_max(),
            BrokerKind::Zk => self.zk.command_timeout_max(),
            BrokerKind::Etcd => self.etcd.command_timeout_max(),
        };
        if let Some(addr) = &self.raft.addr {
            self.node = addr.to_string();
            let cluster = &mut self.raft.cluster;
            if !cluster.is_empty() && !cluster.contains(addr) {
                cluster.push(addr.clone());
            }
        }
        let own = self.groups.iter_mut().filter_map(|group| group.policy.as_mut());
        for policy in own.chain([&mut self.policy]) {
            policy.command_timeout = policy.command_timeout.min(longest);
        }
    }

    fn check_broker(&self) -> Result<(), Problem> {
        match self.broker {
            BrokerKind::None => Ok(()),
            BrokerKind::Raft => self.raft.check(self.cluster_secret.is_some() || self.cluster_open),
            BrokerKind::Zk => self.zk.check().and_then(|()| self.check_name()),
            BrokerKind::Etcd => self.etcd.check().and_then(|()| self.check_name()),
        }
    }

    /// A node that shares a store is named by its address for the others, else by the one of its HTTP.
    fn check_name(&self) -> Result<(), Problem> {
        let problem = |message| {
            Err(Problem { group: None, keys: vec!["node_addr", "raft_addr", "addr"], message })
        };
        match &self.raft.addr {
            Some(addr) if raft::is_any(addr) => problem(format!(
                "node_addr is {addr}, but it is also told to the other nodes, who cannot connect to that: write the \
                 address or name under which they reach this one"
            )),
            None if self.addr.is_none() => problem(
                "a node without HTTP (addr is empty) has no name that it keeps: give it a node_addr".to_owned(),
            ),
            Some(_) | None => Ok(()),
        }
    }

    fn check_policy(&self, policy: &Policy) -> Result<(), String> {
        policy.validate()?;
        if policy.failover_timeout > FAILOVER_TIMEOUT_MAX {
            return Err("failover_timeout must be at most one day".to_owned());
        }
        match self.voters() {
            Some(voters) => policy.quorum_of(voters).map(|_| ()),
            None => Ok(()),
        }
    }

    /// How many nodes vote, as far as that can be known from the settings.
    fn voters(&self) -> Option<usize> {
        match self.broker {
            BrokerKind::None => Some(1),
            BrokerKind::Raft => self.raft.voters(),
            BrokerKind::Zk | BrokerKind::Etcd => None,
        }
    }

    /// One name is one group, and one address is in one group.
    fn check_instances(&self) -> Result<(), Problem> {
        let count = self.masters.len() + self.groups.len();
        if count > GROUPS_MAX {
            return Err(Problem::of_masters(format!(
                "masters and groups are {count}, but one node guards at most {GROUPS_MAX}"
            )));
        }
        let mut names = BTreeSet::new();
        let mut owners = BTreeMap::new();
        for master in &self.masters {
            let name = master.to_string();
            if !names.insert(name.clone()) {
                return Err(Problem::of_masters(format!("masters has {master} twice")));
            }
            owners.insert(master, name);
        }
        for (index, group) in self.groups.iter().enumerate() {
            let name = &group.name;
            let problem = |key, why: String| Problem {
                group: Some(index),
                // A group without a name is named after its master.
                keys: vec![key, "master"],
                message: format!("group \"{name}\": {why}"),
            };
            check_group_name(name).map_err(|why| problem("name", why))?;
            if !names.insert(name.clone()) {
                return Err(problem("name", "there is another group of this name".to_owned()));
            }
            if group.replicas.len() >= INSTANCES_PER_GROUP_MAX {
                let why = format!("a group has at most {INSTANCES_PER_GROUP_MAX} instances");
                return Err(problem("replicas", why));
            }
            let master = [("master", &group.master)].into_iter();
            for (key, addr) in master.chain(group.replicas.iter().map(|addr| ("replicas", addr))) {
                if let Some(owner) = owners.insert(addr, name.clone()) {
                    let why = if owner == *name {
                        format!("{addr} is written twice")
                    } else {
                        format!("{addr} is already an instance of the group \"{owner}\"")
                    };
                    return Err(problem(key, why));
                }
            }
        }
        for (index, group) in self.groups.iter().enumerate() {
            let name = &group.name;
            let owner = name.parse().ok().and_then(|addr: Addr| owners.get(&addr));
            if let Some(owner) = owner.filter(|owner| *owner != name) {
                return Err(Problem {
                    group: Some(index),
                    keys: vec!["name"],
                    message: format!(
                        "group \"{name}\": the name is the address of an instance of the group \
                         \"{owner}\""
                    ),
                });
            }
        }
        Ok(())
    }
}

impl GroupConfig {
    /// A group under the rules and credentials of the whole config, with no replica known.
    pub fn new(name: &str, master: Addr) -> Self {
        Self {
            name: name.to_owned(),
            master,
            replicas: Vec::new(),
            credentials: None,
            policy: None,
            scripts: None,
        }
    }
}

impl Problem {
    /// A policy names its settings in its sentence: that is how their place is found.
    fn of_policy(group: Option<usize>, message: String) -> Self {
        let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
        let keys = message
            .split(|c| !is_word(c))
            .filter_map(|word| Setting::of_key(word).map(|setting| setting.key))
            .collect();
        Self { group, keys, message }
    }

    fn of_masters(message: String) -> Self {
        Self { group: None, keys: vec!["masters"], message }
    }
}

impl fmt::Display for BrokerKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "none",
            Self::Raft => "raft",
            Self::Zk => "zk",
            Self::Etcd => "etcd",
        })
    }
}

/// Whether a text can name a group: it is a path segment in HTTP and an item of comma-separated
/// lists.
///
/// # Errors
/// A sentence that says what the name must be.
pub fn check_group_name(name: &str) -> Result<(), String> {
    if name.is_empty() {
        return Err("the name is empty".to_owned());
    }
    if name.len() > GROUP_NAME_BYTES_MAX {
        return Err(format!("the name is longer than {GROUP_NAME_BYTES_MAX} bytes"));
    }
    let bad = |c: char| matches!(c, ',' | '/') || c.is_whitespace() || c.is_control();
    if name.chars().any(bad) {
        return Err("the name has a comma, a slash, a space or a control character".to_owned());
    }
    if matches!(name, "." | "..") {
        return Err("the name means a directory in a path".to_owned());
    }
    Ok(())
}
