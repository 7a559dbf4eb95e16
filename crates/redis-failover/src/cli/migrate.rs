//! `redis-failover migrate`: copies the record from one broker to another while nothing is done to any group.
//!
//! It talks to the stores themselves and not to nodes, so that it is the same in every direction. Nothing is written
//! before everything is known to fit, and what was written is read back.

use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;

use clap::{Arg, ArgMatches, Command};
use failover_core::addr::Addr;
use failover_core::record::{Record, Status};

use crate::broker::outer::{Copy, Where};
use crate::broker::raft;
use crate::config::{ConfigError, EtcdConfig, Origin, Password, SecretString, ZkConfig};
use crate::member;

/// The name of the command.
pub(super) const NAME: &str = "migrate";
const FROM: &str = "from";
const TO: &str = "to";
/// Groups that are named when they stand in the way.
const NAMED_MAX: usize = 5;

const AFTER_HELP: &str = "\
A broker is written as
  zk://HOST:PORT,HOST:PORT/PATH                  what zk_addr and zk_path say
  etcd://HOST:PORT,HOST:PORT/PREFIX              what etcd_addr and etcd_prefix say
  raft:DIRECTORY?addr=HOST:PORT                  raft_data_dir of a node that does not run, and its raft_addr
Logins are in the environment: REDIS_FAILOVER_ZK_USER and REDIS_FAILOVER_ZK_PASSWORD[_FILE], and the same with ETCD.

First pause all groups (POST /v1/pause), then copy, stop the old nodes, start the new ones, and resume the groups
(POST /v1/resume). The members are not copied: nodes take their place where they are started.
Exit status: 0 everything was copied, 1 nothing is to be used of what was, 2 bad flag.";

pub(super) fn command() -> Command {
    let broker = |name: &'static str, help: &'static str| {
        Arg::new(name).long(name).value_name("BROKER-URL").required(true).help(help)
    };
    Command::new(NAME)
        .about("Copies what is known of all groups from one broker to another")
        .after_help(AFTER_HELP)
        .arg(broker(FROM, "where it is"))
        .arg(broker(TO, "where it is to be; nothing may be there"))
}

/// From where to where the record is copied.
#[derive(Clone, Debug)]
pub struct Migrate {
    from: Place,
    to: Place,
}

#[derive(Clone, Debug)]
enum Place {
    Outer { place: Where, base: String },
    Raft { dir: PathBuf, addr: Addr },
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Outer { place, base } => write!(f, "{base} in {}", place.name()),
            Self::Raft { dir, addr } => write!(f, "{} of the node {addr}", dir.display()),
        }
    }
}

impl Migrate {
    /// From the flags of the command, and the logins in the environment.
    pub(super) fn read(
        matches: &ArgMatches,
        environment: impl Fn(&str) -> Option<OsString>,
    ) -> Result<Self, ConfigError> {
        let place = |name: &'static str| {
            let url = matches.get_one::<String>(name).map_or("", String::as_str);
            Place::read(url, &environment).map_err(|why| Origin::Flag { name }.error(why))
        };
        Ok(Self { from: place(FROM)?, to: place(TO)? })
    }

    /// Copies, and says what was copied and what is next.
    ///
    /// # Errors
    /// A sentence; nothing that was written is to be used then.
    pub async fn run(&self, mut say: impl FnMut(&str)) -> Result<(), String> {
        let Self { from, to } = self;
        let (record, _) =
            from.record().await.map_err(|why| format!("{from} cannot be copied: {why}"))?;
        may_be_copied(&record).map_err(|why| format!("{from} cannot be copied now: {why}"))?;
        to.write(&record).await.map_err(|why| format!("nothing can be copied to {to}: {why}"))?;
        let (written, _) =
            to.record().await.map_err(|why| format!("{to} cannot be read back: {why}"))?;
        if written != record {
            return Err(format!("{to} is not what was copied: remove it, and please report this"));
        }
        let (again, _) = from.record().await.map_err(|why| format!("{from}: {why}"))?;
        if again != record {
            return Err(format!(
                "{from} was changed while it was copied: remove {to}, and try again when nobody changes anything"
            ));
        }
        let history: usize = record.entries().map(|(name, _)| record.history(name).len()).sum();
        say(&format!(
            "{} groups with {history} entries of history are in {to} as they are in {from}.\n\
             Next: stop the nodes that use {from}, start those that use {to}, and resume the groups (POST /v1/resume).",
            record.len()
        ));
        Ok(())
    }
}

/// What is being done would be lost, or done twice.
fn may_be_copied(record: &Record) -> Result<(), String> {
    if record.is_empty() {
        return Err("there is no group".to_owned());
    }
    let some = |names: Vec<String>| match names.len() {
        0..=NAMED_MAX => names.join(", "),
        count => format!("{} and {} more", names[..NAMED_MAX].join(", "), count - NAMED_MAX),
    };
    let names = |wanted: fn(&failover_core::record::GroupEntry) -> bool| {
        let found = record.entries().filter(|(_, entry)| wanted(entry));
        found.map(|(name, _)| name.to_string()).collect::<Vec<_>>()
    };
    let busy = names(|entry| entry.saga.is_some() || entry.leaving.is_some());
    if !busy.is_empty() {
        return Err(format!("something is being done to {}: wait until it is done", some(busy)));
    }
    let active = names(|entry| matches!(entry.status, Status::Active));
    if !active.is_empty() {
        return Err(format!(
            "{} may be changed at any moment: pause all groups first (POST /v1/pause)",
            some(active)
        ));
    }
    Ok(())
}

impl Place {
    fn read(url: &str, environment: &impl Fn(&str) -> Option<OsString>) -> Result<Self, String> {
        let wrong = || {
            format!(
                "\"{url}\" is no broker: write zk://HOST:PORT/PATH, etcd://HOST:PORT/PREFIX or raft:DIRECTORY?addr=HOST:PORT"
            )
        };
        if url.contains('@') {
            return Err(
                "a broker is written without a login, which is in the environment".to_owned()
            );
        }
        let (scheme, rest) = url.split_once(':').ok_or_else(wrong)?;
        let bare = rest.strip_prefix("//").unwrap_or(rest);
        match scheme {
            "raft" => {
                let (dir, addr) = bare.split_once("?addr=").ok_or_else(wrong)?;
                let addr = addr.parse().map_err(|error| format!("addr: {error}"))?;
                if dir.is_empty() {
                    return Err(wrong());
                }
                Ok(Self::Raft { dir: dir.into(), addr })
            }
            "zk" | "etcd" => {
                let (servers, path) = bare.split_once('/').unwrap_or((bare, ""));
                let addr: Vec<String> =
                    servers.split(',').filter(|s| !s.is_empty()).map(str::to_owned).collect();
                let base = (!path.is_empty()).then(|| format!("/{path}"));
                let (user, password) = login(scheme, environment)?;
                let place = if scheme == "zk" {
                    let zk =
                        ZkConfig { addr, base_dir: base, user, password, ..ZkConfig::default() };
                    zk.check().map_err(|problem| problem.message)?;
                    (Where::Zk(member::zk(&zk)), zk.base())
                } else {
                    let etcd =
                        EtcdConfig { addr, prefix: base, user, password, ..EtcdConfig::default() };
                    etcd.check().map_err(|problem| problem.message)?;
                    (Where::Etcd(member::etcd(&etcd)), etcd.prefix())
                };
                Ok(Self::Outer { place: place.0, base: place.1 })
            }
            _ => Err(wrong()),
        }
    }

    /// The record, and whether nodes use it.
    async fn record(&self) -> Result<(Record, usize), String> {
        match self {
            Self::Outer { place, .. } => {
                let found = Copy::open(place).await?.read().await?;
                Ok((found.record, found.nodes.len()))
            }
            Self::Raft { dir, addr } => Ok((raft::read_record(dir, addr).await?, 0)),
        }
    }

    async fn write(&self, record: &Record) -> Result<(), String> {
        match self {
            Self::Outer { place, base } => {
                let mut copy = Copy::open(place).await?;
                let found = copy.read().await?;
                if !found.record.is_empty() {
                    let count = found.record.len();
                    return Err(format!("{count} groups are there already, which would be lost"));
                }
                if let Some(node) = found.nodes.first() {
                    return Err(format!("the node {node} uses it: start nodes when it is copied"));
                }
                copy.write(record, base).await
            }
            Self::Raft { dir, addr } => raft::write_record(dir, addr, record).await,
        }
    }
}

fn login(
    scheme: &str,
    environment: &impl Fn(&str) -> Option<OsString>,
) -> Result<(Option<String>, Option<SecretString>), String> {
    let variable = |name: &str| {
        let name = format!("REDIS_FAILOVER_{}_{name}", scheme.to_ascii_uppercase());
        let value = environment(&name).filter(|value| !value.is_empty())?;
        value.into_string().ok()
    };
    let password = match (variable("PASSWORD"), variable("PASSWORD_FILE")) {
        (Some(text), _) => Password::Text(text.into()),
        (None, Some(path)) => Password::File(path.into()),
        (None, None) => Password::None,
    };
    let password = password.read("password", None).map_err(|error| error.to_string())?;
    Ok((variable("USER"), password))
}

#[cfg(test)]
mod tests {
    use failover_core::node::GroupName;
    use failover_core::record::{Change, GroupEntry};
    use failover_core::time::Time;

    use super::*;

    fn place(url: &str) -> Result<Place, String> {
        Place::read(url, &|_: &str| None)
    }

    #[test]
    fn brokers_are_written_as_urls() {
        for (url, shown) in [
            ("zk://a:1,b:2/zk/x", "/zk/x in zk"),
            ("zk://a", "/zk/redis/failover in zk"),
            ("etcd://a:1/x", "/x in etcd"),
            ("raft:/var/lib/x?addr=10.0.0.1:12000", "/var/lib/x of the node 10.0.0.1:12000"),
            ("raft:///var/lib/x?addr=a:1", "/var/lib/x of the node a:1"),
        ] {
            assert_eq!(place(url).expect(url).to_string(), shown);
        }
        for url in ["", "zk", "zk://", "redis://a", "raft:/x", "raft:?addr=a:1", "zk://u:p@a/x"] {
            let why = place(url).expect_err(url);
            assert!(!why.contains("u:p"), "{why}");
        }
    }

    #[test]
    fn only_what_rests_is_copied() {
        let mut record = Record::default();
        assert!(may_be_copied(&record).expect_err("empty").contains("no group"));
        let mut entry = GroupEntry::new("127.0.0.1:1".parse().expect("an address"));
        let group = GroupName::new("a").expect("a name");
        let mut apply = |entry: &GroupEntry, expect| {
            let entry = Some(entry.clone());
            let what = String::new();
            let change = Change { group: group.clone(), expect, what, entry, history: None };
            record.apply(&[change]).expect("in order");
            may_be_copied(&record)
        };
        assert!(apply(&entry, 0).expect_err("active").contains("pause all groups first"));
        let at = Time::from_millis(1);
        entry.status = Status::Paused { reason: None, until: None, at };
        assert_eq!(apply(&entry, 1), Ok(()));
        entry.leaving = Some(at);
        assert!(apply(&entry, 2).expect_err("it leaves").contains("being done to a"));
    }
}
