//! What one server answered, as plain data. Each item may be missing, because a server may refuse it or not know it; a rule
//! that needs what is missing says nothing.
//!
//! Passwords are kept only to be compared, and nothing here prints them.

use std::collections::BTreeMap;
use std::time::Duration;

use failover_core::event::Health;
use failover_core::instance::Facts;
use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest as _, Sha256};

use crate::redis::{self, Frame, ServerInfo, Version, Words, fields};

/// How much of a setting is kept. The longest that a rule reads has about a hundred characters.
const SETTING_CHARS_MAX: usize = 1000;

/// What is asked with `CONFIG GET`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Parameter {
    AnnounceIp,
    AppendOnly,
    BacklogSize,
    Bind,
    Databases,
    DisklessLoad,
    IgnoreMaxmemory,
    KeyspaceEvents,
    MasterAuth,
    MasterUser,
    MaxClients,
    MaxMemory,
    MaxMemoryPolicy,
    MinReplicas,
    MinReplicasMaxLag,
    OutputBufferLimit,
    PingPeriod,
    ProtectedMode,
    ReadOnly,
    ReplTimeout,
    RequirePass,
    Save,
    ServeStaleData,
    StopWritesOnError,
}

impl Parameter {
    pub(super) const ALL: [Self; 24] = [
        Self::AnnounceIp,
        Self::AppendOnly,
        Self::BacklogSize,
        Self::Bind,
        Self::Databases,
        Self::DisklessLoad,
        Self::IgnoreMaxmemory,
        Self::KeyspaceEvents,
        Self::MasterAuth,
        Self::MasterUser,
        Self::MaxClients,
        Self::MaxMemory,
        Self::MaxMemoryPolicy,
        Self::MinReplicas,
        Self::MinReplicasMaxLag,
        Self::OutputBufferLimit,
        Self::PingPeriod,
        Self::ProtectedMode,
        Self::ReadOnly,
        Self::ReplTimeout,
        Self::RequirePass,
        Self::Save,
        Self::ServeStaleData,
        Self::StopWritesOnError,
    ];

    fn modern(self) -> &'static str {
        match self {
            Self::AnnounceIp => "replica-announce-ip",
            Self::AppendOnly => "appendonly",
            Self::BacklogSize => "repl-backlog-size",
            Self::Bind => "bind",
            Self::Databases => "databases",
            Self::DisklessLoad => "repl-diskless-load",
            Self::IgnoreMaxmemory => "replica-ignore-maxmemory",
            Self::KeyspaceEvents => "notify-keyspace-events",
            Self::MasterAuth => "masterauth",
            Self::MasterUser => "masteruser",
            Self::MaxClients => "maxclients",
            Self::MaxMemory => "maxmemory",
            Self::MaxMemoryPolicy => "maxmemory-policy",
            Self::MinReplicas => "min-replicas-to-write",
            Self::MinReplicasMaxLag => "min-replicas-max-lag",
            Self::OutputBufferLimit => "client-output-buffer-limit",
            Self::PingPeriod => "repl-ping-replica-period",
            Self::ProtectedMode => "protected-mode",
            Self::ReadOnly => "replica-read-only",
            Self::ReplTimeout => "repl-timeout",
            Self::RequirePass => "requirepass",
            Self::Save => "save",
            Self::ServeStaleData => "replica-serve-stale-data",
            Self::StopWritesOnError => "stop-writes-on-bgsave-error",
        }
    }

    /// Its name in the server's words.
    pub(super) fn name(self, words: &Words) -> String {
        self.modern().replace("replica", words.replica)
    }

    fn is_password(self) -> bool {
        matches!(self, Self::MasterAuth | Self::RequirePass)
    }
}

/// What the program's own user must be allowed to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Right {
    Ping,
    Info,
    Follow,
    Rewrite,
    Transaction,
    Execute,
    CutClients,
    PauseWrites,
    ResumeWrites,
    /// Only where the program fences by settings.
    Configure,
}

impl Right {
    pub(super) const ALL: [Self; 10] = [
        Self::Ping,
        Self::Info,
        Self::Follow,
        Self::Rewrite,
        Self::Transaction,
        Self::Execute,
        Self::CutClients,
        Self::PauseWrites,
        Self::ResumeWrites,
        Self::Configure,
    ];

    /// A command that needs it, in the words of the server.
    pub(super) fn command(self, words: &Words) -> Vec<&'static str> {
        match self {
            Self::Ping => vec!["PING"],
            Self::Info => vec!["INFO", "replication"],
            Self::Follow => vec![words.replicaof, "NO", "ONE"],
            Self::Rewrite => vec!["CONFIG", "REWRITE"],
            Self::Transaction => vec!["MULTI"],
            Self::Execute => vec!["EXEC"],
            Self::CutClients => vec!["CLIENT", "KILL", "TYPE", "normal"],
            Self::PauseWrites => vec!["CLIENT", "PAUSE", "1", "WRITE"],
            Self::ResumeWrites => vec!["CLIENT", "UNPAUSE"],
            Self::Configure => vec!["CONFIG", "SET", "min-replicas-to-write", "0"],
        }
    }

    /// How it is granted.
    pub(super) fn grant(self, words: &Words) -> String {
        match self {
            Self::Ping => "+ping".to_owned(),
            Self::Info => "+info".to_owned(),
            Self::Follow => format!("+{}", words.replicaof.to_ascii_lowercase()),
            Self::Rewrite => "+config|rewrite".to_owned(),
            Self::Transaction => "+multi".to_owned(),
            Self::Execute => "+exec".to_owned(),
            Self::CutClients => "+client|kill".to_owned(),
            Self::PauseWrites => "+client|pause".to_owned(),
            Self::ResumeWrites => "+client|unpause".to_owned(),
            Self::Configure => "+config|set".to_owned(),
        }
    }
}

/// Whether the program may send a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Allowed {
    Yes,
    No,
    /// The server has no command of that name: it was renamed.
    Unknown,
}

/// What is asked, for saying what was not answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Topic {
    Info,
    Settings,
    Subscribers,
    Rights,
    Accounts,
}

impl Topic {
    /// The question, and the right that it takes.
    pub(super) fn words(self) -> (&'static str, &'static str) {
        match self {
            Self::Info => ("INFO", "+info"),
            Self::Settings => ("CONFIG GET", "+config|get"),
            Self::Subscribers => ("PUBSUB NUMSUB", "+pubsub|numsub"),
            Self::Rights => ("ACL DRYRUN", "+acl|dryrun"),
            Self::Accounts => ("ACL GETUSER", "+acl|getuser"),
        }
    }
}

/// A user of the server, as far as logging in goes. It has no `Debug`, because hashes of passwords are secrets too.
#[derive(Clone)]
pub(super) struct Account {
    enabled: bool,
    without_password: bool,
    /// In hexadecimal digits.
    sha256: Vec<SecretString>,
}

impl Account {
    /// Reads the answer to `ACL GETUSER`; `None` when there is no such user, or when it cannot be read.
    pub(super) fn read(frame: &Frame) -> Option<Self> {
        let Frame::Array(items) = frame else { return None };
        let list = |name: &[u8]| {
            let at = items.iter().step_by(2).position(|item| item.text() == Some(name))?;
            match items.get(at * 2 + 1) {
                Some(Frame::Array(values) | Frame::Set(values)) => {
                    Some(values.iter().filter_map(text).collect::<Vec<_>>())
                }
                Some(_) | None => None,
            }
        };
        let flags = list(b"flags")?;
        let has = |flag: &str| flags.iter().any(|known| known == flag);
        Some(Self {
            enabled: has("on"),
            without_password: has("nopass"),
            sha256: list(b"passwords")?.into_iter().map(SecretString::from).collect(),
        })
    }

    /// Whether somebody who sends no login at all is this user.
    pub(super) fn needs_no_password(&self) -> bool {
        self.enabled && self.without_password
    }

    /// Whether this password is one of its own. A user without a password takes any, but the default user refuses a
    /// password that is sent without a name.
    pub(super) fn lets_in(&self, password: &SecretString, named: bool) -> bool {
        if !self.enabled {
            return false;
        }
        if self.without_password {
            return named;
        }
        let hash = Sha256::digest(password.expose_secret());
        let hex: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
        self.sha256.iter().any(|known| known.expose_secret().eq_ignore_ascii_case(&hex))
    }
}

/// By how much the history of a master grew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Growth {
    pub(super) bytes: u64,
    pub(super) within: Duration,
}

impl Growth {
    pub(super) fn bytes_per_sec(self) -> f64 {
        // Beyond 2^53 it is rounded, which no network comes near.
        self.bytes as f64 / self.within.as_secs_f64().max(0.001)
    }
}

/// What a server answered.
pub(super) struct Answers {
    pub(super) health: Health,
    pub(super) facts: Option<Facts>,
    pub(super) server: Option<ServerInfo>,
    /// Whether it was reached without leaving this machine.
    pub(super) by_loopback: bool,
    pub(super) info: BTreeMap<String, String>,
    pub(super) settings: BTreeMap<Parameter, String>,
    pub(super) passwords: BTreeMap<Parameter, SecretString>,
    pub(super) hello_subscribers: Option<u64>,
    pub(super) rights: BTreeMap<Right, Allowed>,
    /// By name; `None`: it has no such user.
    pub(super) accounts: BTreeMap<String, Option<Account>>,
    /// Of a master that was asked twice.
    pub(super) growth: Option<Growth>,
    /// What was not answered, and why not: a sentence.
    pub(super) unanswered: BTreeMap<Topic, String>,
}

impl Answers {
    /// Of a server that greeted us and was not asked anything yet.
    pub(super) fn new(health: Health, facts: Option<Facts>, server: Option<ServerInfo>) -> Self {
        Self {
            health,
            facts,
            server,
            by_loopback: false,
            info: BTreeMap::new(),
            settings: BTreeMap::new(),
            passwords: BTreeMap::new(),
            hello_subscribers: None,
            rights: BTreeMap::new(),
            accounts: BTreeMap::new(),
            growth: None,
            unanswered: BTreeMap::new(),
        }
    }

    /// What the server understands. One that does not say what it is is taken for a new one.
    pub(super) fn words(&self) -> Words {
        let newest = Version::new(u16::MAX, 0, 0);
        let of_newest = || Words::of(failover_core::instance::Flavor::Redis, newest);
        self.server.as_ref().map_or_else(of_newest, ServerInfo::words)
    }

    pub(super) fn is_replica(&self) -> bool {
        self.facts.as_ref().is_some_and(|facts| !facts.is_master())
    }

    pub(super) fn text(&self, parameter: Parameter) -> Option<&str> {
        self.settings.get(&parameter).map(String::as_str)
    }

    pub(super) fn number(&self, parameter: Parameter) -> Option<u64> {
        self.text(parameter)?.parse().ok()
    }

    pub(super) fn is(&self, parameter: Parameter, value: &str) -> bool {
        self.text(parameter).is_some_and(|set| set.eq_ignore_ascii_case(value))
    }

    /// Its name in the server's own words.
    pub(super) fn name(&self, parameter: Parameter) -> String {
        parameter.name(&self.words())
    }

    pub(super) fn info_text(&self, field: &str) -> Option<&str> {
        self.info.get(field).map(String::as_str)
    }

    pub(super) fn info_number(&self, field: &str) -> Option<u64> {
        self.info_text(field)?.parse().ok()
    }

    /// Whether the default user needs no password; `None` when that is not known. An empty `requirepass` alone does
    /// not tell, since the user may have been given a password otherwise.
    pub(super) fn is_open(&self) -> Option<bool> {
        if let Some(Some(account)) = self.accounts.get("default") {
            return Some(account.needs_no_password());
        }
        let set = self.passwords.get(&Parameter::RequirePass)?;
        if !set.expose_secret().is_empty() {
            return Some(false);
        }
        // Before Redis 6 there was no other way to have one.
        let old = self.server.as_ref().is_some_and(|server| !has_users(server));
        old.then_some(true)
    }

    pub(super) fn read_info(&mut self, frame: &Frame) {
        match (frame.text(), frame.refusal()) {
            (Some(text), _) => {
                let pairs = fields(text).map(|(key, value)| (key.to_owned(), value.to_owned()));
                self.info = pairs.collect();
            }
            (None, Some(refusal)) => {
                self.unanswered.insert(Topic::Info, refusal.to_string());
            }
            (None, None) => {}
        }
    }

    /// The answer to `CONFIG GET` of one parameter. One that the server does not have is answered with nothing.
    pub(super) fn read_setting(&mut self, parameter: Parameter, frame: &Frame) {
        if let Some(refusal) = frame.refusal() {
            self.unanswered.insert(Topic::Settings, refusal.to_string());
            return;
        }
        let value = match frame {
            Frame::Array(pair) => pair.get(1).and_then(text),
            Frame::Map(pairs) => pairs.first().and_then(|(_, value)| text(value)),
            Frame::Simple(_)
            | Frame::Error(_)
            | Frame::Integer(_)
            | Frame::Bulk(_)
            | Frame::Verbatim { .. }
            | Frame::Null
            | Frame::Boolean(_)
            | Frame::Double(_)
            | Frame::BigNumber(_)
            | Frame::Set(_)
            | Frame::Push(_) => None,
        };
        let Some(value) = value else { return };
        if parameter.is_password() {
            self.passwords.insert(parameter, SecretString::from(value));
        } else {
            // It is shown to people, whose terminals obey control characters.
            let shown = value.chars().filter(|c| !c.is_control()).take(SETTING_CHARS_MAX);
            self.settings.insert(parameter, shown.collect());
        }
    }

    pub(super) fn read_subscribers(&mut self, frame: &Frame) {
        if let Some(refusal) = frame.refusal() {
            self.unanswered.insert(Topic::Subscribers, refusal.to_string());
        } else if let Frame::Array(pair) = frame
            && let Some(Frame::Integer(count)) = pair.get(1)
        {
            self.hello_subscribers = u64::try_from(*count).ok();
        }
    }

    /// The answer to `ACL DRYRUN`: `OK`, or why not as a text, or an error when there is no such command.
    pub(super) fn read_right(&mut self, right: Right, frame: &Frame) {
        let allowed = match (frame.text(), frame.refusal()) {
            (Some(b"OK"), _) => Allowed::Yes,
            (Some(_), _) => Allowed::No,
            // The same error says of a user that there is none.
            (None, Some(refusal)) if refusal.sentence().starts_with("ERR Command ") => {
                Allowed::Unknown
            }
            (None, Some(refusal)) => {
                self.unanswered.insert(Topic::Rights, refusal.to_string());
                return;
            }
            (None, None) => return,
        };
        self.rights.insert(right, allowed);
    }

    /// The answer to `COMMAND INFO` of the command of one right, which has nothing in it when there is none. It tells
    /// less than `ACL DRYRUN`, whose word counts.
    pub(super) fn read_command(&mut self, right: Right, frame: &Frame) {
        if let Frame::Array(items) = frame
            && matches!(items.as_slice(), [Frame::Null] | [])
        {
            self.rights.entry(right).or_insert(Allowed::Unknown);
        }
    }

    pub(super) fn read_account(&mut self, name: &str, frame: &Frame) {
        if let Some(refusal) = frame.refusal() {
            self.unanswered.insert(Topic::Accounts, refusal.to_string());
        } else if *frame == Frame::Null || Account::read(frame).is_some() {
            self.accounts.insert(name.to_owned(), Account::read(frame));
        }
    }
}

/// Whether the server knows users with rights of their own.
pub(super) fn has_users(server: &ServerInfo) -> bool {
    is_from(server, Version::new(6, 0, 0))
}

/// Whether it is Valkey, or a Redis that is at least as new.
pub(super) fn is_from(server: &ServerInfo, version: Version) -> bool {
    redis::is_from(server.flavor, server.number(), version)
}

fn text(frame: &Frame) -> Option<String> {
    Some(String::from_utf8_lossy(frame.text()?).into_owned())
}
