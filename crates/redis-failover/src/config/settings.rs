//! Every setting, once: its names, its help and how its value is understood. Flags, environment,
//! file and `--help` are all made from this table.

use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use failover_core::addr::Addr;
use failover_core::policy::{AcrossLocations, Fencing, OnFailedFailover, Policy};
use failover_core::record::Rule;
use secrecy::SecretString;

use super::draft::{Late, Login, Password};
use super::{BrokerKind, Config, ConfigError, LogFormat, LogLevel, Origin, SavedState};

/// One setting.
pub(crate) struct Setting {
    /// The flag, and with `REDIS_FAILOVER_` before it in upper case the environment variable.
    pub(crate) key: &'static str,
    /// Its table in the file, empty at the top, and its key there.
    pub(crate) table: &'static str,
    pub(crate) name: &'static str,
    /// What stands for the value in the help.
    pub(crate) shown: &'static str,
    pub(crate) help: &'static str,
    /// A password on a command line is seen by everyone on that machine.
    pub(crate) is_flag: bool,
    pub(crate) set: Set,
}

/// What a setting changes.
#[derive(Clone, Copy)]
pub(crate) enum Set {
    /// Something of the whole node.
    Config(fn(&mut Config, &Value) -> Result<(), Fault>),
    /// A rule, of all groups or of one.
    Policy(fn(&mut Policy, &Value) -> Result<(), Fault>),
    /// How to log in, to all groups or to one.
    Login(fn(&mut Login, &Value) -> Result<(), Fault>),
    /// Something of the whole node that is worked out when every source was read.
    Late(fn(&mut Late, &Value) -> Result<(), Fault>),
}

/// A value as its source wrote it. It may be a password, so it cannot be printed.
pub(crate) enum Value {
    /// From a flag or the environment, which know no types.
    Word(String),
    /// From the file, in quotes.
    Text(String),
    Integer(i64),
    Float(f64),
    Switch(bool),
    List(Vec<(Self, Origin)>),
    /// What no setting takes, in words.
    Other(&'static str),
}

/// Why a value is refused, and where if that is more exact than the place of the whole value.
pub(crate) struct Fault {
    message: String,
    origin: Option<Origin>,
}

/// All settings in the order of the help, under its headings.
// A table: one line each for the names, the help and the value where that is possible.
#[rustfmt::skip]
pub(crate) static SECTIONS: &[(&str, &[Setting])] = &[
    ("This node", &[
        Setting::new("addr", "ADDR", "HTTP listen address, \"\" for no HTTP [default: :11000]",
            Set::Config(|config, value| {
                let text = value.text()?;
                config.addr = match text {
                    "" => None,
                    text => Some(parse_address(text)?),
                };
                Ok(())
            })),
        Setting::new("log_level", "LEVEL", "error, warn, info, debug or trace [default: info]",
            Set::Config(|config, value| store(&mut config.log.level, value.choice(&[
                ("error", LogLevel::Error), ("warn", LogLevel::Warn), ("info", LogLevel::Info),
                ("debug", LogLevel::Debug), ("trace", LogLevel::Trace),
            ])))),
        Setting::new("log_format", "FORMAT", "text or json [default: text]",
            Set::Config(|config, value| store(&mut config.log.format, value.choice(&[
                ("text", LogFormat::Text), ("json", LogFormat::Json),
            ])))),
    ]),
    ("What is guarded", &[
        Setting::new("masters", "LIST", "masters to guard, separated by commas",
            Set::Config(|config, value| store(&mut config.masters, value.addrs()))),
        Setting::new("masters_state", "STATE",
            "existing: keep the masters of an earlier run; new: forget them [default: existing]",
            Set::Config(|config, value| store(&mut config.masters_state, value.saved_state()))),
        Setting::new("redis_user", "USER", "ACL user of the instances",
            Set::Login(|login, value| {
                let user = value.text()?;
                login.user = (!user.is_empty()).then(|| user.to_owned());
                Ok(())
            })),
        Setting::new("redis_password", "PASSWORD", "password of the instances",
            Set::Login(|login, value| store(&mut login.password, value.password())))
            .not_a_flag(),
        Setting::new("redis_password_file", "FILE", "file with the password of the instances",
            Set::Login(|login, value| store(&mut login.password, value.password_file()))),
    ]),
    ("When a master is down", &[
        Setting::new("check_interval", "MS", "how often an instance is asked [default: 1000]",
            Set::Policy(|policy, value| store(&mut policy.check_interval, value.millis()))),
        Setting::new("max_down_time", "S",
            "how long a master may be silent until it counts as down [default: 3]",
            Set::Policy(|policy, value| store(&mut policy.max_down_time, value.seconds()))),
        Setting::new("crash_down_time", "S",
            "how long it must refuse connections until it counts as down [default: 0]",
            Set::Policy(|policy, value| store(&mut policy.crash_down_time, value.seconds()))),
        Setting::new("quorum", "N",
            "how many nodes must see it down, 0 for a majority [default: 0]",
            Set::Policy(|policy, value| store(&mut policy.quorum, value.count()))),
    ]),
    ("How it is replaced", &[
        Setting::new("parallel_syncs", "N",
            "how many replicas are repointed at a time [default: 1]",
            Set::Policy(|policy, value| store(&mut policy.parallel_syncs, value.count()))),
        Setting::new("max_lag_bytes", "BYTES",
            "how far behind a promoted replica may be, 0 for no limit [default: 0]",
            Set::Policy(|policy, value| store(&mut policy.max_lag_bytes, value.whole()))),
        Setting::new("failover_timeout", "S",
            "bound of one failover, and wait until the next try [default: 60]",
            Set::Policy(|policy, value| store(&mut policy.failover_timeout, value.seconds()))),
        Setting::new("on_failed_failover", "CHOICE",
            "halt: wait for an operator; retry: try again [default: halt]",
            Set::Policy(|policy, value| store(&mut policy.on_failed_failover, value.choice(&[
                ("halt", OnFailedFailover::Halt), ("retry", OnFailedFailover::Retry),
            ])))),
        Setting::new("failover_across_locations", "CHOICE",
            "allow, deny, or last: promote elsewhere after equals [default: allow]",
            Set::Policy(|policy, value| store(&mut policy.across_locations, value.choice(&[
                ("allow", AcrossLocations::Allow), ("deny", AcrossLocations::Deny),
                ("last", AcrossLocations::Last),
            ])))),
        Setting::new("fencing", "CHOICE",
            "none, or min-replicas: old masters take no writes [default: none]",
            Set::Policy(|policy, value| store(&mut policy.fencing, value.choice(&[
                ("none", Fencing::None), ("min-replicas", Fencing::MinReplicas),
            ])))),
        Setting::new("cooldown", "S",
            "how long after a failover a silent master is not replaced [default: 30]",
            Set::Policy(|policy, value| store(&mut policy.cooldown, value.seconds()))),
        Setting::new("before_failover_timeout_ms", "MS",
            "how long all before-failover handlers may take [default: 1000]",
            Set::Policy(|policy, value| {
                store(&mut policy.before_failover_timeout, value.millis())
            })),
    ]),
    ("How nodes agree", &[
        Setting::new("broker", "BROKER",
            "none, raft, zk or etcd [default: by raft_addr, zk_addr or etcd_addr, else none]",
            Set::Config(|config, value| store(&mut config.broker, value.choice(&[
                ("none", BrokerKind::None), ("raft", BrokerKind::Raft), ("zk", BrokerKind::Zk),
                ("etcd", BrokerKind::Etcd),
            ])))),
        Setting::new("node_addr", "ADDR", "address of this node for other nodes",
            Set::Late(|late, value| store(&mut late.node_addr, value.addr().map(Some)))),
        Setting::new("cluster_secret", "SECRET", "what all nodes know and nobody else",
            Set::Late(|late, value| store(&mut late.secret, value.password())))
            .not_a_flag(),
        Setting::new("cluster_secret_file", "FILE", "file with what all nodes know and nobody else",
            Set::Late(|late, value| store(&mut late.secret, value.password_file()))),
        Setting::new("cluster_open", "BOOL",
            "true: nodes need no secret, also where others reach them [default: false]",
            Set::Config(|config, value| store(&mut config.cluster_open, value.switch()))),
        Setting::new("raft_addr", "ADDR", "the same as node_addr",
            Set::Config(|config, value| store(&mut config.raft.addr, value.addr().map(Some))))
            .in_table("raft", "addr"),
        Setting::new("raft_data_dir", "DIR", "where the record is stored",
            Set::Config(|config, value| store(&mut config.raft.data_dir, value.path())))
            .in_table("raft", "data_dir"),
        Setting::new("raft_log_dir", "DIR", "where Raft's own messages go",
            Set::Config(|config, value| store(&mut config.raft.log_dir, value.path())))
            .in_table("raft", "log_dir"),
        Setting::new("raft_cluster", "LIST", "addresses of all nodes, separated by commas",
            Set::Config(|config, value| store(&mut config.raft.cluster, value.addrs())))
            .in_table("raft", "cluster"),
        Setting::new("raft_cluster_state", "STATE",
            "existing: keep the members of an earlier run; new: forget them [default: existing]",
            Set::Config(|config, value| {
                store(&mut config.raft.cluster_state, value.saved_state())
            }))
            .in_table("raft", "cluster_state"),
        Setting::new("raft_heartbeat_ms", "MS",
            "how often the leader shows that it is there [default: 50]",
            Set::Config(|config, value| store(&mut config.raft.heartbeat, value.millis())))
            .in_table("raft", "heartbeat_ms"),
        Setting::new("raft_election_min_ms", "MS",
            "how long a leader must be silent until another is elected, at least [default: 150]",
            Set::Config(|config, value| store(&mut config.raft.election_min, value.millis())))
            .in_table("raft", "election_min_ms"),
        Setting::new("raft_election_max_ms", "MS", "and at most [default: 300]",
            Set::Config(|config, value| store(&mut config.raft.election_max, value.millis())))
            .in_table("raft", "election_max_ms"),
        Setting::new("zk_addr", "LIST", "ZooKeeper servers, separated by commas",
            Set::Config(|config, value| store(&mut config.zk.addr, value.texts())))
            .in_table("zk", "addr"),
        Setting::new("zk_path", "PATH", "base directory in ZooKeeper [default: /zk/redis/failover]",
            Set::Config(|config, value| {
                store(&mut config.zk.base_dir, value.text().map(|text| Some(text.to_owned())))
            }))
            .in_table("zk", "base_dir"),
        Setting::new("zk_session_timeout_ms", "MS",
            "how long a node that is not heard of keeps its place [default: 4000]",
            Set::Config(|config, value| store(&mut config.zk.session_timeout, value.millis()))).in_table("zk", "session_timeout_ms"),
        Setting::new("zk_user", "USER", "user of the login to ZooKeeper (digest)",
            Set::Config(|config, value| store(&mut config.zk.user, value.optional()))).in_table("zk", "user"),
        Setting::new("zk_password", "PASSWORD", "its password",
            Set::Late(|late, value| store(&mut late.zk_password, value.password()))).in_table("zk", "password").not_a_flag(),
        Setting::new("zk_password_file", "FILE", "file with its password",
            Set::Late(|late, value| store(&mut late.zk_password, value.password_file()))).in_table("zk", "password_file"),
        Setting::new("etcd_addr", "LIST", "etcd servers, separated by commas",
            Set::Config(|config, value| store(&mut config.etcd.addr, value.texts()))).in_table("etcd", "addr"),
        Setting::new("etcd_prefix", "PREFIX", "what all keys in etcd begin with [default: /redis/failover]",
            Set::Config(|config, value| store(&mut config.etcd.prefix, value.optional()))).in_table("etcd", "prefix"),
        Setting::new("etcd_lease_ttl_ms", "MS",
            "how long a node that is not heard of keeps its place [default: 3000]",
            Set::Config(|config, value| store(&mut config.etcd.lease_ttl, value.millis()))).in_table("etcd", "lease_ttl_ms"),
        Setting::new("etcd_user", "USER", "user of the login to etcd",
            Set::Config(|config, value| store(&mut config.etcd.user, value.optional()))).in_table("etcd", "user"),
        Setting::new("etcd_password", "PASSWORD", "its password",
            Set::Late(|late, value| store(&mut late.etcd_password, value.password()))).in_table("etcd", "password").not_a_flag(),
        Setting::new("etcd_password_file", "FILE", "file with its password",
            Set::Late(|late, value| store(&mut late.etcd_password, value.password_file()))).in_table("etcd", "password_file"),
    ]),
];

impl Setting {
    const fn new(key: &'static str, shown: &'static str, help: &'static str, set: Set) -> Self {
        Self { key, table: "", name: key, shown, help, is_flag: true, set }
    }

    const fn in_table(self, table: &'static str, name: &'static str) -> Self {
        Self { table, name, ..self }
    }

    const fn not_a_flag(self) -> Self {
        Self { is_flag: false, ..self }
    }

    /// All settings.
    pub(crate) fn all() -> impl Iterator<Item = &'static Self> {
        SECTIONS.iter().flat_map(|(_, settings)| *settings)
    }

    /// By the name of its flag.
    pub(crate) fn of_key(key: &str) -> Option<&'static Self> {
        Self::all().find(|setting| setting.key == key)
    }

    /// By its table and key in the file.
    pub(crate) fn in_file(table: &str, name: &str) -> Option<&'static Self> {
        // A later version of the original knows the password by this name.
        let name = match (table, name) {
            ("", "password") => "redis_password",
            (_, name) => name,
        };
        Self::all().find(|setting| setting.table == table && setting.name == name)
    }

    /// Whether the file has a table of that name.
    pub(crate) fn is_table(name: &str) -> bool {
        Self::all().any(|setting| !setting.table.is_empty() && setting.table == name)
    }

    /// Whether a `[[group]]` can have its own.
    pub(crate) fn is_per_group(&self) -> bool {
        matches!(self.set, Set::Policy(_) | Set::Login(_))
    }

    /// Whether an empty text is a value (or a mistake to report), not the absence of one.
    pub(crate) fn takes_empty(&self) -> bool {
        self.key == "addr" || matches!(self.set, Set::Policy(_))
    }

    /// The name of the environment variable.
    pub(crate) fn environment(&self) -> String {
        format!("REDIS_FAILOVER_{}", self.key.to_ascii_uppercase())
    }
}

impl Fault {
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), origin: None }
    }

    /// As an error of the setting with that key, at its own place, else at that of the whole
    /// value. A place in a file does not name the setting, so the sentence does.
    pub(crate) fn of(self, key: &str, origin: &Origin) -> ConfigError {
        let origin = self.origin.as_ref().unwrap_or(origin);
        match origin {
            Origin::File { .. } => origin.error(format!("{key}: {}", self.message)),
            Origin::Environment { .. } | Origin::Flag { .. } => origin.error(self.message),
        }
    }
}

impl Value {
    pub(crate) fn is_empty_text(&self) -> bool {
        match self {
            Self::Word(text) | Self::Text(text) => text.is_empty(),
            Self::Integer(_)
            | Self::Float(_)
            | Self::Switch(_)
            | Self::List(_)
            | Self::Other(_) => false,
        }
    }

    pub(crate) fn text(&self) -> Result<&str, Fault> {
        match self {
            Self::Word(text) | Self::Text(text) => Ok(text),
            Self::Integer(_)
            | Self::Float(_)
            | Self::Switch(_)
            | Self::List(_)
            | Self::Other(_) => Err(self.expected("a text in quotes")),
        }
    }

    /// A text; an empty one takes an earlier source's away.
    fn optional(&self) -> Result<Option<String>, Fault> {
        self.text().map(|text| (!text.is_empty()).then(|| text.to_owned()))
    }

    pub(crate) fn addr(&self) -> Result<Addr, Fault> {
        parse_address(self.text()?)
    }

    pub(crate) fn addrs(&self) -> Result<Vec<Addr>, Fault> {
        self.list(parse_address)
    }

    fn texts(&self) -> Result<Vec<String>, Fault> {
        self.list(|text| Ok(text.to_owned()))
    }

    /// An empty one takes an earlier source's away.
    fn password(&self) -> Result<Password, Fault> {
        self.text().map(|text| match text {
            "" => Password::None,
            text => Password::Text(SecretString::from(text)),
        })
    }

    fn password_file(&self) -> Result<Password, Fault> {
        self.text().map(|text| match text {
            "" => Password::None,
            path => Password::File(path.into()),
        })
    }

    fn switch(&self) -> Result<bool, Fault> {
        match self {
            Self::Switch(on) => Ok(*on),
            Self::Word(text) => match text.as_str() {
                "true" => Ok(true),
                "false" => Ok(false),
                _ => Err(Fault::new(format!("\"{text}\" is neither true nor false"))),
            },
            Self::Text(_) | Self::Integer(_) | Self::Float(_) | Self::List(_) | Self::Other(_) => {
                Err(self.expected("true or false, without quotes"))
            }
        }
    }

    /// A rule on the promotion of an instance.
    pub(crate) fn rule(&self) -> Result<Rule, Fault> {
        let rules = [Rule::Never, Rule::Prefer, Rule::PreferNot];
        self.choice(&rules.map(|rule| (rule.name(), rule)))
    }

    /// A priority as servers have it.
    pub(crate) fn priority(&self) -> Result<u32, Fault> {
        let number = self.whole()?;
        u32::try_from(number).map_err(|_| Fault::new(format!("{number} is too large")))
    }

    fn path(&self) -> Result<Option<PathBuf>, Fault> {
        self.text().map(|text| Some(text.into()))
    }

    /// An array of texts, or one text with commas.
    fn list<T>(&self, one: impl Fn(&str) -> Result<T, Fault>) -> Result<Vec<T>, Fault> {
        match self {
            Self::Word(text) | Self::Text(text) => {
                text.split(',').map(str::trim).filter(|item| !item.is_empty()).map(one).collect()
            }
            Self::List(items) => items
                .iter()
                .map(|(item, origin)| {
                    item.text()
                        .and_then(|text| one(text.trim()))
                        .map_err(|fault| Fault { origin: Some(origin.clone()), ..fault })
                })
                .collect(),
            Self::Integer(_) | Self::Float(_) | Self::Switch(_) | Self::Other(_) => {
                Err(self.expected("an array of texts"))
            }
        }
    }

    fn saved_state(&self) -> Result<SavedState, Fault> {
        self.choice(&[("existing", SavedState::Existing), ("new", SavedState::New)])
    }

    fn choice<T: Copy>(&self, choices: &[(&str, T)]) -> Result<T, Fault> {
        let text = self.text()?;
        let chosen = choices.iter().find(|(name, _)| *name == text);
        chosen.map(|(_, choice)| *choice).ok_or_else(|| {
            let names: Vec<_> = choices.iter().map(|(name, _)| *name).collect();
            let (last, others) = names.split_last().expect("no setting is without choices");
            Fault::new(format!("\"{text}\" is unknown: it must be {} or {last}", others.join(", ")))
        })
    }

    fn seconds(&self) -> Result<Duration, Fault> {
        self.duration(1.0)
    }

    fn millis(&self) -> Result<Duration, Fault> {
        self.duration(1000.0)
    }

    fn duration(&self, units_per_second: f64) -> Result<Duration, Fault> {
        let number = self.number()?;
        Duration::try_from_secs_f64(number / units_per_second)
            .map_err(|_| Fault::new(format!("{number} is no time: it must be at least 0")))
    }

    fn number(&self) -> Result<f64, Fault> {
        match self {
            Self::Word(text) => {
                text.parse().map_err(|_| Fault::new(format!("\"{text}\" is not a number")))
            }
            // Beyond 2^53 it is rounded, which no setting comes near.
            Self::Integer(number) => Ok(*number as f64),
            Self::Float(number) => Ok(*number),
            Self::Text(_) | Self::Switch(_) | Self::List(_) | Self::Other(_) => {
                Err(self.expected("a number without quotes"))
            }
        }
    }

    fn whole(&self) -> Result<u64, Fault> {
        let refused = |number: &dyn std::fmt::Display| {
            Fault::new(format!("\"{number}\" is not a whole number of at least 0"))
        };
        match self {
            Self::Word(text) => text.parse().map_err(|_| refused(text)),
            Self::Integer(number) => u64::try_from(*number).map_err(|_| refused(number)),
            Self::Float(number) => Err(refused(number)),
            Self::Text(_) | Self::Switch(_) | Self::List(_) | Self::Other(_) => {
                Err(self.expected("a whole number without quotes"))
            }
        }
    }

    fn count(&self) -> Result<usize, Fault> {
        let number = self.whole()?;
        usize::try_from(number).map_err(|_| Fault::new(format!("{number} is too large")))
    }

    /// Says what a value is without repeating it.
    fn expected(&self, what: &str) -> Fault {
        let is = match self {
            Self::Word(_) | Self::Text(_) => "a text",
            Self::Integer(_) | Self::Float(_) => "a number",
            Self::Switch(_) => "true or false",
            Self::List(_) => "an array",
            Self::Other(is) => is,
        };
        Fault::new(format!("this is {is}, but must be {what}"))
    }
}

fn store<T>(place: &mut T, value: Result<T, Fault>) -> Result<(), Fault> {
    *place = value?;
    Ok(())
}

/// Refuses a URL with a login before it is repeated in a message.
fn parse_address<T: FromStr<Err: std::fmt::Display>>(text: &str) -> Result<T, Fault> {
    if text.contains('@') {
        return Err(Fault::new(
            "an address has no login in it: write host:port, and the login as redis_user and \
             redis_password",
        ));
    }
    text.parse().map_err(|error| Fault::new(format!("{error}")))
}
