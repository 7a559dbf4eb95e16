//! Raft, built in: several nodes agree on one record, and keep it.
//!
//! openraft decides; this gives it a disk (`store`), a record (`machine`) and messages (`network`), puts proposals into
//! its log (`propose`), and tells who leads (`leadership`), which takes a `lease` besides. All that knows openraft is in
//! here.

mod leadership;
mod lease;
mod machine;
mod network;
mod propose;
mod standing;
mod store;
#[cfg(test)]
mod tests;
mod types;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use failover_core::addr::Addr;
use failover_core::event::{Event, ProposalId};
use failover_core::node::Token;
use failover_core::record::Change;
use openraft::{Config, SnapshotPolicy};
use sha2::{Digest, Sha256};
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;

use self::leadership::Watcher;
use self::lease::Lease;
use self::machine::{Applied, Machine};
use self::network::{Contacts, Network, Reply};
use self::propose::{Ours, Proposer};
use self::store::{Meta, Opened, Store, StoreThread};
use self::types::{Member, MemberId, Origin, Raft, random};
use crate::clock::Clock;
use crate::peers::Peers;

/// Most events that wait for the driver. Raft waits when there is no room.
const EVENTS_MAX: usize = 1024;
/// A snapshot is made after so many entries.
const SNAPSHOT_ENTRIES: u64 = 1000;
/// So many entries stay when a snapshot has them, for followers that are a little behind.
const KEPT_ENTRIES: u64 = 200;
/// A part of a snapshot, as it is sent.
const CHUNK_BYTES: u64 = 1 << 20;
/// How long a member may take to write a part of a snapshot down.
const CHUNK_TIMEOUT_MS: u64 = 5000;
/// How long a clean end may take.
const STOP_TIMEOUT: Duration = Duration::from_secs(2);

/// What a member needs to know.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    /// The address it advertises.
    pub(crate) addr: Addr,
    /// Where it stores what it must not forget.
    pub(crate) data_dir: PathBuf,
    /// The members of a cluster that does not exist yet, this one among them or not.
    pub(crate) cluster: Vec<Addr>,
    /// A leader is heard of this often.
    pub(crate) heartbeat_ms: u64,
    /// The shortest and the longest time after which a member that hears nothing wants to lead.
    pub(crate) election_min_ms: u64,
    pub(crate) election_max_ms: u64,
}

/// Why the broker does not work any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// It was told to stop.
    Stopped,
    /// It cannot go on: a sentence.
    Failed(String),
}

/// This node as a member of a cluster. A clone is the same member.
#[derive(Clone)]
pub(crate) struct RaftBroker(Arc<Inner>);

struct Inner {
    raft: Raft,
    network: Network,
    applied: Applied,
    proposer: Proposer,
    ended: watch::Receiver<Option<Ended>>,
    /// Gone once it was stopped.
    open: Mutex<Option<(Store, StoreThread)>>,
}

impl std::fmt::Debug for RaftBroker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RaftBroker").field("own", &self.0.network.own).finish_non_exhaustive()
    }
}

impl RaftBroker {
    /// Opens the store and takes part. The first event is the record.
    ///
    /// # Errors
    /// A sentence, when the store cannot be opened or Raft not be started.
    pub(crate) async fn start(
        settings: Settings,
        peers: Peers,
        clock: Clock,
    ) -> Result<(Self, mpsc::Receiver<Event>), String> {
        let config = Arc::new(config(&settings)?);
        let (dir, addr) = (settings.data_dir.clone(), settings.addr.clone());
        let opened = tokio::task::spawn_blocking(move || Store::open(&dir, &addr)).await;
        let Opened { store, thread, mut meta, fresh } = opened
            .map_err(|error| format!("the store was not opened: {error}"))?
            .map_err(|error| error.to_string())?;
        let members = members(&settings);
        let cluster = meta.cluster.unwrap_or_else(|| cluster_id(&members));
        if meta.cluster.is_none() {
            meta.cluster = Some(cluster);
            store.save_meta(&meta).await?;
        }
        let (broker, events) =
            Self::run(&settings, config, (store, thread), &meta, cluster, peers, clock).await?;
        if fresh {
            let initialize = broker.0.raft.initialize(members);
            initialize.await.map_err(|error| format!("Raft cannot be started: {error}"))?;
        }
        Ok((broker, events))
    }

    async fn run(
        settings: &Settings,
        config: Arc<Config>,
        open: (Store, StoreThread),
        meta: &Meta,
        cluster: u64,
        peers: Peers,
        clock: Clock,
    ) -> Result<(Self, mpsc::Receiver<Event>), String> {
        let (mut store, thread) = open;
        store.resign(meta.id).await?;
        let (told, events) = mpsc::channel(EVENTS_MAX);
        let ours = Ours::new(Origin(random()?));
        let (machine, applied) = Machine::restore(store.clone(), ours.clone(), told.clone())?;
        let election_max = Duration::from_millis(settings.election_max_ms);
        let network = Network {
            own: meta.id,
            cluster,
            peers,
            clock,
            lease: Lease::new(election_max),
            contacts: Contacts::default(),
            election_max,
        };
        let raft = Raft::new(meta.id, config, network.clone(), store.clone(), machine)
            .await
            .map_err(|error| format!("Raft cannot be started: {error}"))?;
        if let Ok(first) = told.reserve().await {
            applied.go_live(first);
        }
        let (acting_sender, acting) = watch::channel(None);
        let (ended_sender, ended) = watch::channel(None);
        let watcher = Watcher {
            raft: raft.clone(),
            network: network.clone(),
            applied: applied.clone(),
            acting: acting_sender,
            told: told.clone(),
            failure: store.failure(),
            ended: ended_sender,
        };
        tokio::spawn(watcher.run());
        let proposer = Proposer::start(raft.clone(), ours, acting, told);
        let open = Mutex::new(Some((store, thread)));
        let inner = Inner { raft, network, applied, proposer, ended, open };
        Ok((Self(Arc::new(inner)), events))
    }

    /// Has changes agreed. Its end is told with the other events, unless it is known here and now.
    pub(crate) fn propose(
        &self,
        id: ProposalId,
        token: Token,
        changes: Vec<Change>,
    ) -> Option<Event> {
        self.0.proposer.propose(id, token, changes)
    }

    /// Answers a message of another member's Raft.
    pub(crate) async fn answer(&self, body: &[u8]) -> Vec<u8> {
        let reply = match serde_json::from_slice(body) {
            Ok(ask) => self.0.network.answer(&self.0.raft, ask).await,
            Err(error) => Reply::Refused(format!("the message cannot be read: {error}")),
        };
        serde_json::to_vec(&reply).unwrap_or_default()
    }

    /// The newest entry of the log that this node has: whatever it committed is in it or before it.
    pub(crate) fn log_index(&self) -> u64 {
        self.0.raft.metrics().borrow().last_log_index.unwrap_or_default()
    }

    /// Waits until this node has applied the log up to an entry, and told what came of it. Ends early when Raft does.
    pub(crate) async fn applied(&self, index: u64) {
        let mut last = self.0.applied.last();
        let _ = last.wait_for(|last| last.is_some_and(|last| last.index >= index)).await;
    }

    /// Whether this node follows the leader of this term, and heard of it within one election timeout: only then it may
    /// write for it.
    pub(crate) fn follows(&self, token: Token) -> bool {
        let Network { contacts, clock, election_max, .. } = &self.0.network;
        let (term, leader) = {
            let metrics = self.0.raft.metrics();
            let seen = metrics.borrow();
            (seen.current_term, seen.current_leader)
        };
        term == token.0
            && leader
                .and_then(|leader| contacts.leader(leader))
                .is_some_and(|heard| clock.now().since(heard) < *election_max)
    }

    /// Why it does not work any more, once it does not.
    pub(crate) fn ended(&self) -> watch::Receiver<Option<Ended>> {
        self.0.ended.clone()
    }

    /// Ends cleanly: what is to be written is written, and the store is free for the next process.
    pub(crate) async fn stop(&self) {
        let open = self.0.open.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some((store, thread)) = open else { return };
        drop(store);
        let stop = async {
            let _ = self.0.raft.shutdown().await;
            thread.join().await;
        };
        if timeout(STOP_TIMEOUT, stop).await.is_err() {
            tracing::warn!("the store was not closed within {} s", STOP_TIMEOUT.as_secs());
        }
    }
}

fn config(settings: &Settings) -> Result<Config, String> {
    let config = Config {
        cluster_name: "redis-failover".to_owned(),
        heartbeat_interval: settings.heartbeat_ms,
        election_timeout_min: settings.election_min_ms,
        election_timeout_max: settings.election_max_ms,
        install_snapshot_timeout: CHUNK_TIMEOUT_MS,
        snapshot_policy: SnapshotPolicy::LogsSinceLast(SNAPSHOT_ENTRIES),
        snapshot_max_chunk_size: CHUNK_BYTES,
        max_in_snapshot_log_to_keep: KEPT_ENTRIES,
        ..Config::default()
    };
    config.validate().map_err(|error| {
        format!(
            "raft_heartbeat_ms, raft_election_min_ms and raft_election_max_ms do not fit: {error}"
        )
    })
}

/// The first members of a cluster. A node that is told of no other is one alone.
fn members(settings: &Settings) -> BTreeMap<MemberId, Member> {
    let member = |addr: &Addr| (MemberId::first(addr), Member { addr: addr.clone() });
    let mut members: BTreeMap<_, _> = settings.cluster.iter().map(member).collect();
    members.extend([member(&settings.addr)]);
    members
}

/// Which cluster the first members make: every one of them finds the same.
fn cluster_id(members: &BTreeMap<MemberId, Member>) -> u64 {
    let mut digest = Sha256::new();
    for id in members.keys() {
        digest.update(id.to_string());
    }
    digest.finalize().iter().take(8).fold(0, |number, byte| number << 8 | u64::from(*byte))
}
