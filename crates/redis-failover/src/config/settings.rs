//! Every setting, once: its names, its help and how its value is understood. Flags, environment,
//! file and `--help` are all made from this table.

use failover_core::policy::{AcrossLocations, Fencing, OnFailedFailover, Policy};

use super::draft::{Late, Login};
use super::value::{Fault, Value, parse_address, store};
use super::{BrokerKind, Config, GroupSet, LogFormat, LogLevel, Scripts};

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
    /// A script, of all groups or of one.
    Scripts(fn(&mut Scripts, &Value) -> Result<(), Fault>),
    /// Something of the whole node that is worked out when every source was read.
    Late(fn(&mut Late, &Value) -> Result<(), Fault>),
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
        Setting::new("journal_file", "FILE",
            "file for all that happens and is done, which can be replayed",
            Set::Config(|config, value| store(&mut config.journal.file, value.path()))),
        Setting::new("journal_max_mb", "MB", "how long that file may get [default: 1024]",
            Set::Config(|config, value| {
                store(&mut config.journal.bytes_max, value.whole().map(|mb| mb.saturating_mul(1 << 20)))
            })),
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
    ("What is run when something happens", &[
        Setting::new("before_failover_script", "FILE", "asked before a failover; may veto it",
            Set::Scripts(|scripts, value| store(&mut scripts.before_failover, value.path()))),
        Setting::new("client_reconfig_script", "FILE", "told of a new master, as by Sentinel",
            Set::Scripts(|scripts, value| store(&mut scripts.client_reconfig, value.path()))),
        Setting::new("notification_script", "FILE", "told of everything, as by Sentinel",
            Set::Scripts(|scripts, value| store(&mut scripts.notification, value.path()))),
        Setting::new("script_timeout", "S", "how long a script may run [default: 60]",
            Set::Config(|config, value| store(&mut config.script_limits.timeout, value.seconds()))),
        Setting::new("script_retry_delay", "S",
            "the first pause until a failed script is run again [default: 30]",
            Set::Config(|config, value| {
                store(&mut config.script_limits.retry_delay, value.seconds())
            })),
        Setting::new("script_env", "LIST",
            "environment variables that scripts are given, beside PATH and the like",
            Set::Config(|config, value| store(&mut config.script_limits.env, value.texts()))),
    ]),
    ("Proxies that are told of a new master", &[
        Setting::new("xcodis_addr", "LIST", "ZooKeeper servers of xcodis, separated by commas",
            Set::Config(|config, value| store(&mut config.xcodis.addr, value.texts()))).in_table("xcodis", "addr"),
        Setting::new("xcodis_product", "NAME", "its product",
            Set::Config(|config, value| store(&mut config.xcodis.product, value.text().map(str::to_owned)))).in_table("xcodis", "product"),
        Setting::new("xcodis_groups", "LIST", "groups of which it is told, or all [default: none]",
            Set::Config(|config, value| store(&mut config.xcodis.groups, GroupSet::of(value)))).in_table("xcodis", "groups"),
        Setting::new("xcodis_zk_path", "PATH", "where xcodis has its products [default: /zk/codis]",
            Set::Config(|config, value| store(&mut config.xcodis.zk_path, value.optional()))).in_table("xcodis", "zk_path"),
        Setting::new("xcodis_session_timeout_ms", "MS",
            "after so long without a sign of this node its lock may be taken away [default: 4000]",
            Set::Config(|config, value| store(&mut config.xcodis.session_timeout, value.millis()))).in_table("xcodis", "session_timeout_ms"),
        Setting::new("xcodis_lock_timeout_ms", "MS",
            "how long its lock is waited for until that is tried again [default: 30000]",
            Set::Config(|config, value| store(&mut config.xcodis.lock_timeout, value.millis()))).in_table("xcodis", "lock_timeout_ms"),
        Setting::new("xcodis_ack_timeout_ms", "MS",
            "how long a proxy has to follow until it is told to exit [default: 30000]",
            Set::Config(|config, value| store(&mut config.xcodis.ack_timeout, value.millis()))).in_table("xcodis", "ack_timeout_ms"),
        Setting::new("codis_dashboard", "ADDR", "the dashboard of codis",
            Set::Config(|config, value| store(&mut config.codis.dashboard, value.addr().map(Some)))).in_table("codis", "dashboard"),
        Setting::new("codis_product", "NAME", "its product",
            Set::Config(|config, value| store(&mut config.codis.product, value.text().map(str::to_owned)))).in_table("codis", "product"),
        Setting::new("codis_groups", "LIST", "groups of which it is told, or all [default: none]",
            Set::Config(|config, value| store(&mut config.codis.groups, GroupSet::of(value)))).in_table("codis", "groups"),
        Setting::new("codis_timeout_ms", "MS", "how long it may take for one answer [default: 10000]",
            Set::Config(|config, value| store(&mut config.codis.timeout, value.millis()))).in_table("codis", "timeout_ms"),
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
        matches!(self.set, Set::Policy(_) | Set::Login(_) | Set::Scripts(_))
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
