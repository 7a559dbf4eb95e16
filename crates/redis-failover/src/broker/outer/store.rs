//! What the two stores have in common: small values under paths, a session that keeps some of them alive, writes that
//! happen only while a candidate still leads, and news of every change.

use std::time::Duration;

use super::etcd::{self, EtcdSession};
use super::zk::{self, ZkSession};
use super::{Where, Who};

/// Most operations of one write; etcd takes 128 as it is installed.
pub(super) const OPS_MAX: usize = 120;
/// Most bytes of one write; ZooKeeper takes 1 MiB as it is installed, etcd 1.5.
pub(super) const WRITE_BYTES_MAX: usize = 900_000;

/// A value as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Item {
    pub(super) value: Vec<u8>,
    /// Which change of the whole store created it: it only grows.
    pub(super) created: u64,
    /// Changes with every write of it.
    pub(super) version: u64,
    /// Which change of the whole store wrote it.
    pub(super) changed: u64,
}

/// A path and what is behind it now; `None`: it is gone.
pub(super) type Update = (String, Option<Item>);

/// What happened in the store.
#[derive(Debug)]
pub(super) enum News {
    /// Everything, in place of what was known.
    Whole { items: Vec<(String, Item)>, index: u64 },
    /// These changes, complete up to this change of the store.
    Changed { updates: Vec<Update>, index: u64 },
    /// There is a connection again, and everything is to be read anew.
    Reconnected,
    /// The session is over: a sentence.
    Lost(String),
}

/// One part of a write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Op {
    Put {
        path: String,
        value: Vec<u8>,
        expect: Expect,
    },
    Delete {
        path: String,
    },
    /// With everything below it.
    DeleteTree {
        path: String,
        below: Vec<String>,
    },
}

impl Op {
    /// As how many operations it counts at most.
    pub(super) fn weight(&self) -> usize {
        match self {
            Self::Put { .. } | Self::Delete { .. } => 1,
            Self::DeleteTree { .. } => 2,
        }
    }

    pub(super) fn bytes(&self) -> usize {
        // A path, and what the protocols add.
        const FRAME_BYTES: usize = 64;
        match self {
            Self::Put { path, value, .. } => path.len() + value.len() + FRAME_BYTES,
            Self::Delete { path } => path.len() + FRAME_BYTES,
            Self::DeleteTree { path, below } => {
                let below: usize = below.iter().map(|path| path.len() + FRAME_BYTES).sum();
                path.len() + FRAME_BYTES + below
            }
        }
    }
}

/// What is to be there before a value is put.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Expect {
    Nothing,
    Version(u64),
    /// One of the values that are there from the first session on.
    Anything,
}

/// The candidate under which something is written: it happens only while that one leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Fence {
    pub(super) path: String,
    pub(super) created: u64,
}

/// Why nothing is known to be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum NotWritten {
    /// Surely nothing was: the candidate does not lead any more.
    Fenced,
    /// Surely nothing was: something else is there than was expected.
    Conflict,
    /// Surely nothing was: a sentence says why.
    Refused(String),
    /// It may have been, or may still be: a sentence says why.
    Unknown(String),
}

/// A session of this node. What it announced goes with it.
#[derive(Debug)]
pub(super) enum Session {
    Zk(ZkSession),
    Etcd(EtcdSession),
}

/// Where news come from.
#[derive(Debug)]
pub(super) enum Watch {
    Zk(zk::ZkWatch),
    Etcd(etcd::EtcdWatch),
}

impl Session {
    /// Begins a session.
    ///
    /// # Errors
    /// A sentence.
    pub(super) async fn open(place: &Where) -> Result<(Self, Watch), String> {
        match place {
            Where::Zk(place) => {
                let (session, watch) = ZkSession::open(place).await?;
                Ok((Self::Zk(session), Watch::Zk(watch)))
            }
            Where::Etcd(place) => {
                let (session, watch) = EtcdSession::open(place).await?;
                Ok((Self::Etcd(session), Watch::Etcd(watch)))
            }
        }
    }

    /// Makes what has to be there before anything is written, where that is anything.
    ///
    /// # Errors
    /// A sentence.
    pub(super) async fn prepare(&self) -> Result<(), String> {
        match self {
            Self::Zk(zk) => zk.prepare().await,
            Self::Etcd(_) => Ok(()),
        }
    }

    /// Announces a node for as long as the session lasts, and gives its candidacy.
    ///
    /// # Errors
    /// A sentence.
    pub(super) async fn announce(&self, who: &Who) -> Result<Fence, String> {
        match self {
            Self::Zk(zk) => zk.announce(who).await,
            Self::Etcd(etcd) => etcd.announce(who).await,
        }
    }

    /// For how long nobody else can lead, counted from when a renewal was sent that was acknowledged.
    pub(super) fn lease(&self) -> Duration {
        match self {
            Self::Zk(zk) => zk.lease(),
            Self::Etcd(etcd) => etcd.lease(),
        }
    }

    /// How often it is renewed.
    pub(super) fn renewal_interval(&self) -> Duration {
        match self {
            Self::Zk(zk) => zk.renewal_interval(),
            Self::Etcd(etcd) => etcd.renewal_interval(),
        }
    }

    /// Renews it; for a leader in a way that proves that it may go on.
    ///
    /// # Errors
    /// When it is not known to be renewed.
    pub(super) async fn renew(&self, leads: Option<&Fence>) -> Result<(), NotWritten> {
        match self {
            Self::Zk(zk) => zk.renew(leads).await,
            Self::Etcd(etcd) => etcd.renew().await,
        }
    }

    /// Writes all parts or none, and gives the change of the store that it was.
    ///
    /// # Errors
    /// Why it was not written, or is not known to be.
    pub(super) async fn write(&self, fence: Option<&Fence>, ops: &[Op]) -> Result<u64, NotWritten> {
        match self {
            Self::Zk(zk) => zk.write(fence, ops).await,
            Self::Etcd(etcd) => etcd.write(fence, ops).await,
        }
    }

    /// The version of a value that was put in the write with this number.
    pub(super) fn version_after(&self, expect: Expect, index: u64) -> u64 {
        match self {
            Self::Zk(_) => match expect {
                Expect::Version(version) => version + 1,
                Expect::Nothing | Expect::Anything => 0,
            },
            Self::Etcd(_) => index,
        }
    }

    /// Which candidate leads now, read so that no older answer is possible.
    ///
    /// # Errors
    /// A sentence.
    pub(super) async fn leader_now(&self) -> Result<Option<u64>, String> {
        match self {
            Self::Zk(zk) => zk.leader_now().await,
            Self::Etcd(etcd) => etcd.leader_now().await,
        }
    }

    /// Ends it, so that others need not wait for its end.
    pub(super) async fn close(&self) {
        match self {
            Self::Zk(zk) => zk.close().await,
            Self::Etcd(etcd) => etcd.close().await,
        }
    }
}

impl Watch {
    /// The next thing that happened.
    pub(super) async fn next(&mut self) -> News {
        match self {
            Self::Zk(zk) => zk.next().await,
            Self::Etcd(etcd) => etcd.next().await,
        }
    }

    /// Everything that is stored, as [`News::Whole`]; what happens later comes as news after it.
    ///
    /// # Errors
    /// A sentence.
    pub(super) async fn load(&mut self) -> Result<News, String> {
        match self {
            Self::Zk(zk) => zk.load().await,
            Self::Etcd(etcd) => etcd.load().await,
        }
    }
}
