//! ZooKeeper: sessions, ephemeral nodes, and writes that check the candidate's node.
//!
//! A server answers a client's pings by itself, also one that has lost the others and does not know it yet. So only a
//! *write* that was committed shows a leader that its session goes on, and its lease is half of the session's time: the
//! server that decides on a session's end may have heard of its client up to half a tick later than that one's own.

mod watch;

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use secrecy::{ExposeSecret as _, SecretString};
use zookeeper_client::{
    Acl, Acls, AuthId, Client, CreateMode, Error, MultiWriteError, MultiWriteResult, Permission,
};

pub(super) use self::watch::ZkWatch;
use super::Who;
use super::layout::{self, CandidateInfo, NodeInfo};
use super::store::{Expect, Fence, NotWritten, Op};

/// How often the place of a node of the same name is taken before that is given up.
const PLACE_ATTEMPTS_MAX: usize = 5;
/// What the original says of its work.
const DESC: &str = "RunTask";
/// The names of candidates begin with it, as the original's.
const LOCK: &str = "candidates/lock-";

/// An ensemble, and a place in it.
#[derive(Clone, Debug)]
pub(crate) struct ZkPlace {
    /// `host` or `host:port`, each.
    pub(crate) servers: Vec<String>,
    /// The node below which everything is.
    pub(crate) base: String,
    /// What is asked for; the servers may grant another.
    pub(crate) session_timeout: Duration,
    /// User and password (`digest`).
    pub(crate) login: Option<(String, SecretString)>,
}

/// A session.
#[derive(Debug)]
pub(super) struct ZkSession {
    client: Client,
    base: String,
    /// Who may do what with the nodes that are made.
    acls: Vec<Acl>,
    has_login: bool,
    timeout: Duration,
    /// What goes with the session.
    own: Mutex<Vec<String>>,
}

impl ZkSession {
    pub(super) async fn open(place: &ZkPlace) -> Result<(Self, ZkWatch), String> {
        let mut connector = Client::connector().with_session_timeout(place.session_timeout);
        let mut acls = vec![Acl::new(Permission::ALL, AuthId::anyone())];
        if let Some((user, password)) = &place.login {
            let auth = format!("{user}:{}", password.expose_secret());
            connector = connector.with_auth("digest", auth.as_bytes());
            // What reads the list of masters goes on reading it.
            acls = vec![
                Acl::new(Permission::ALL, AuthId::authed()),
                Acl::new(Permission::READ, AuthId::anyone()),
            ];
        }
        let servers = place.servers.join(",");
        let client = connector
            .connect(&servers)
            .await
            .map_err(|error| format!("ZooKeeper at {servers} gives no session: {error}"))?;
        let session = Self {
            timeout: client.session_timeout(),
            client: client.clone(),
            base: place.base.clone(),
            acls,
            has_login: place.login.is_some(),
            own: Mutex::default(),
        };
        let watch = ZkWatch::new(client, place.base.clone());
        Ok((session, watch))
    }

    pub(super) async fn announce(&self, who: &Who) -> Result<Fence, String> {
        self.prepare().await?;
        let pid = std::process::id();
        let (addr, http) = (who.addr.clone(), who.http.clone());
        let node = text(&NodeInfo { addr, http, pid, run: who.run });
        self.take_place(&layout::node(&who.node), &node).await?;
        let shown = who.http.as_ref().unwrap_or(&who.addr).to_string();
        let desc = DESC.to_owned();
        let info = CandidateInfo {
            addr: shown,
            desc,
            pid,
            node: Some(who.node.clone()),
            run: Some(who.run),
        };
        let options = CreateMode::EphemeralSequential.with_acls(Acls::new(&self.acls));
        let (stat, sequence) = self
            .client
            .create(&self.at(LOCK), &text(&info), &options)
            .await
            .map_err(|error| self.broken("takes no candidate", &error))?;
        let path = format!("{LOCK}{sequence}");
        self.own().push(path.clone());
        Ok(Fence { path, created: number(stat.czxid) })
    }

    /// Makes what has to be there before anything else.
    pub(super) async fn prepare(&self) -> Result<(), String> {
        self.lay_out().await.map_err(|error| self.broken("cannot be laid out", &error))
    }

    async fn lay_out(&self) -> Result<(), Error> {
        let options = CreateMode::Persistent.with_acls(Acls::new(&self.acls));
        self.client.mkdir(&self.base, &options).await?;
        let values = [
            (layout::LEADER, &b"{}"[..]),
            (layout::MASTERS, b"[]"),
            (layout::LEASE, b""),
            (layout::GROUPS, b""),
            (layout::MEMBERS, b""),
            (layout::NODES, b""),
            (layout::CANDIDATES, b""),
        ];
        for (path, value) in values {
            match self.client.create(&self.at(path), value, &options).await {
                Ok(_) | Err(Error::NodeExists) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Writes the node's own entry, in the place of one that an earlier run left and whose session did not end yet.
    async fn take_place(&self, path: &str, value: &[u8]) -> Result<(), String> {
        let options = CreateMode::Ephemeral.with_acls(Acls::new(&self.acls));
        let at = self.at(path);
        for _ in 0..PLACE_ATTEMPTS_MAX {
            match self.client.create(&at, value, &options).await {
                Ok(_) => {
                    self.own().push(path.to_owned());
                    return Ok(());
                }
                Err(Error::NodeExists) => match self.client.delete(&at, None).await {
                    Ok(()) | Err(Error::NoNode) => {}
                    Err(error) => return Err(self.broken("keeps an older entry", &error)),
                },
                Err(error) => return Err(self.broken("takes no entry", &error)),
            }
        }
        Err(format!(
            "another node takes the name in {at} again and again: give each its own node_addr"
        ))
    }

    pub(super) fn lease(&self) -> Duration {
        self.timeout / 2
    }

    pub(super) fn renewal_interval(&self) -> Duration {
        self.timeout / 8
    }

    pub(super) async fn renew(&self, leads: Option<&Fence>) -> Result<(), NotWritten> {
        match leads {
            Some(fence) => {
                let value = fence.created.to_string().into_bytes();
                let path = layout::LEASE.to_owned();
                let op = Op::Put { path, value, expect: Expect::Anything };
                self.write(Some(fence), &[op]).await.map(|_| ())
            }
            None => self.client.sync(&self.base).await.map_err(|error| not_written(&error)),
        }
    }

    pub(super) async fn write(&self, fence: Option<&Fence>, ops: &[Op]) -> Result<u64, NotWritten> {
        let mut writer = self.client.new_multi_writer();
        let built = (|| {
            if let Some(fence) = fence {
                // Nobody ever writes to it, so that it is there is what is checked.
                writer.add_check_version(&self.at(&fence.path), 0)?;
            }
            for op in ops {
                match op {
                    Op::Put { path, value, expect } => {
                        let at = self.at(path);
                        match expect {
                            Expect::Nothing => {
                                let acls = self.acls_of(path);
                                let options = CreateMode::Persistent.with_acls(acls);
                                writer.add_create(&at, value, &options)?;
                            }
                            Expect::Version(version) => {
                                let version = i32::try_from(*version).unwrap_or(i32::MAX);
                                writer.add_set_data(&at, value, Some(version))?;
                            }
                            Expect::Anything => writer.add_set_data(&at, value, None)?,
                        }
                    }
                    Op::Delete { path } => writer.add_delete(&self.at(path), None)?,
                    Op::DeleteTree { path, below } => {
                        for path in below.iter().chain([path]) {
                            writer.add_delete(&self.at(path), None)?;
                        }
                    }
                }
            }
            Ok::<(), Error>(())
        })();
        built.map_err(|error| NotWritten::Refused(error.to_string()))?;
        match writer.commit().await {
            Ok(results) => Ok(results.iter().filter_map(zxid).max().unwrap_or_default()),
            Err(MultiWriteError::RequestFailed { source }) => Err(not_written(&source)),
            Err(MultiWriteError::OperationFailed { index, source }) => {
                let is_gone = matches!(source, Error::NoNode | Error::BadVersion);
                let is_other = matches!(source, Error::NodeExists | Error::NotEmpty);
                Err(if is_gone && fence.is_some() && index == 0 {
                    NotWritten::Fenced
                } else if is_gone || is_other {
                    NotWritten::Conflict
                } else {
                    not_written(&source)
                })
            }
        }
    }

    pub(super) async fn leader_now(&self) -> Result<Option<u64>, String> {
        let broken = |error: Error| self.broken("does not say who leads", &error);
        // A server may be behind the others; after this it is not.
        self.client.sync(&self.base).await.map_err(broken)?;
        let candidates = self.at(layout::CANDIDATES);
        let mut names = self.client.list_children(&candidates).await.map_err(broken)?;
        names.sort_by_key(|name| sequence(name));
        let Some(first) = names.first() else { return Ok(None) };
        let stat =
            self.client.check_stat(&format!("{candidates}/{first}")).await.map_err(broken)?;
        Ok(stat.map(|stat| number(stat.czxid)))
    }

    pub(super) async fn close(&self) {
        let own: Vec<String> = self.own().drain(..).rev().collect();
        for path in own {
            if self.client.delete(&self.at(&path), None).await == Err(Error::SessionExpired) {
                return;
            }
        }
    }

    /// Whoever has the secret is a node, so only nodes read it.
    fn acls_of(&self, path: &str) -> Acls<'_> {
        if path == layout::SECRET && self.has_login {
            return Acls::creator_all();
        }
        Acls::new(&self.acls)
    }

    fn at(&self, path: &str) -> String {
        format!("{}/{path}", self.base)
    }

    fn own(&self) -> std::sync::MutexGuard<'_, Vec<String>> {
        self.own.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn broken(&self, what: &str, error: &Error) -> String {
        format!("{} in ZooKeeper {what}: {error}", self.base)
    }
}

#[expect(clippy::wildcard_enum_match_arm, reason = "another crate's open enum")]
fn not_written(error: &Error) -> NotWritten {
    match error {
        Error::NoAuth
        | Error::InvalidAcl
        | Error::NotReadOnly
        | Error::QuotaExceeded
        | Error::Throttled
        | Error::BadArguments(_) => NotWritten::Refused(format!("ZooKeeper refuses it: {error}")),
        Error::SessionExpired | Error::ClientClosed => NotWritten::Fenced,
        other => NotWritten::Unknown(other.to_string()),
    }
}

#[expect(clippy::wildcard_enum_match_arm, reason = "another crate's open enum")]
fn zxid(result: &MultiWriteResult) -> Option<u64> {
    match result {
        MultiWriteResult::SetData { stat } => Some(number(stat.mzxid)),
        MultiWriteResult::Create { stat, .. } if !stat.is_invalid() => Some(number(stat.czxid)),
        // It was deleted or checked, or the server said nothing of it.
        _ => None,
    }
}

/// The number at the end of a candidate's name, by which they are ordered.
fn sequence(name: &str) -> u64 {
    let digits = name.rfind(|c: char| !c.is_ascii_digit()).map_or(0, |at| at + 1);
    name.get(digits..).and_then(|digits| digits.parse().ok()).unwrap_or(u64::MAX)
}

/// ZooKeeper's numbers are signed, and never below zero.
fn number(zxid: i64) -> u64 {
    u64::try_from(zxid).unwrap_or_default()
}

fn text(value: &impl serde::Serialize) -> Vec<u8> {
    serde_json::to_vec(value).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn candidates_are_ordered_by_their_number() {
        assert_eq!(sequence("lock-0000000012"), 12);
        assert_eq!(sequence("_c_0123-lock-0000000003"), 3);
        assert_eq!(sequence("x"), u64::MAX);
    }
}
