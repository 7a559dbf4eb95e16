//! Raft, built in: several nodes agree on one record, and keep it.
//!
//! openraft decides; this gives it a disk (`store`), a record (`machine`) and messages (`network`), puts proposals into
//! its log (`propose`), and tells who leads (`leadership`), which takes a `lease` besides. All that knows openraft is in
//! here.

mod bootstrap;
mod copy;
mod founding;
mod leadership;
mod lease;
mod machine;
mod members;
mod message;
mod network;
mod propose;
mod recover;
mod standing;
mod store;
#[cfg(test)]
mod tests;
mod types;

use std::future::Future;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use failover_core::addr::Addr;
use failover_core::event::{Event, ProposalId};
use failover_core::node::Token;
use failover_core::record::Change;
use openraft::{Config, SnapshotPolicy};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::AbortHandle;
use tokio::time::timeout;

pub(crate) use self::copy::{read as read_record, write as write_record};

use self::bootstrap::Invited;
use self::leadership::Watcher;
use self::lease::Lease;
use self::machine::{Applied, Machine};
use self::message::{About, Answer, Ask, Fresh};
use self::network::{Contacts, Network};
use self::propose::{Ours, Proposer};
use self::store::{Cluster, Founder, Meta, Opened, Store, StoreThread};
pub(crate) use self::types::random;
use self::types::{MemberId, Origin, Raft};
use crate::broker::Ended;
use crate::clock::Clock;
use crate::peers::{Lane, Peers};

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
/// Most invitations that wait for a node. It follows one.
const INVITES_MAX: usize = 4;
/// How long a clean end may take.
const STOP_TIMEOUT: Duration = Duration::from_secs(2);

/// What a member needs to know.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    /// The address it advertises.
    pub(crate) addr: Addr,
    /// Where it stores what it must not forget.
    pub(crate) data_dir: PathBuf,
    /// The members of a cluster that does not exist yet, this one among them or not; later, nodes that are to be members.
    pub(crate) cluster: Vec<Addr>,
    /// Whether saved members that are not among these are cut off.
    pub(crate) cut_off: bool,
    /// A leader is heard of this often.
    pub(crate) heartbeat_ms: u64,
    /// The shortest and the longest time after which a member that hears nothing wants to lead.
    pub(crate) election_min_ms: u64,
    pub(crate) election_max_ms: u64,
}

impl Settings {
    /// The nodes of the cluster with this one, each once, in their order.
    fn list(&self) -> Vec<Addr> {
        let mut list = self.cluster.clone();
        list.push(self.addr.clone());
        list.sort();
        list.dedup();
        list
    }
}

/// This node as a member of a cluster, or on its way to be one. A clone is the same node.
#[derive(Clone)]
pub(crate) struct RaftBroker(Arc<Inner>);

struct Inner {
    settings: Settings,
    config: Arc<Config>,
    peers: Peers,
    clock: Clock,
    lease: Lease,
    contacts: Contacts,
    told: mpsc::Sender<Event>,
    /// Who this node is, as it is stored.
    meta: Mutex<Meta>,
    /// Gone once it was stopped.
    open: Mutex<Option<(Store, StoreThread)>>,
    /// What it is once it takes part.
    running: watch::Sender<Option<Running>>,
    ended: watch::Sender<Option<Ended>>,
    invites: mpsc::Sender<Invited>,
    /// Held while the members are changed.
    changing: tokio::sync::Mutex<()>,
    tasks: Mutex<Vec<AbortHandle>>,
}

/// This node's Raft.
#[derive(Clone)]
struct Running {
    raft: Raft,
    network: Network,
    applied: Applied,
    proposer: Proposer,
}

impl std::fmt::Debug for RaftBroker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RaftBroker").field("meta", &self.0.meta).finish_non_exhaustive()
    }
}

impl RaftBroker {
    /// Opens the store and takes part in its cluster; without a record, looks for a cluster or founds it, which can take
    /// for ever and does not keep this waiting. The first event is the record.
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
        let Opened { store, thread, mut meta } = opened
            .map_err(|error| format!("the store was not opened: {error}"))?
            .map_err(|error| error.to_string())?;
        if settings.cut_off {
            recover::recover(&store, &mut meta, &settings.list()).await?;
        }
        let (told, events) = mpsc::channel(EVENTS_MAX);
        let (invites, invited) = mpsc::channel(INVITES_MAX);
        let this = Self(Arc::new(Inner {
            lease: Lease::new(Duration::from_millis(settings.election_max_ms)),
            settings,
            config,
            peers,
            clock,
            contacts: Contacts::default(),
            told,
            meta: Mutex::new(meta),
            open: Mutex::new(Some((store, thread))),
            running: watch::Sender::default(),
            ended: watch::Sender::default(),
            invites,
            changing: tokio::sync::Mutex::default(),
            tasks: Mutex::default(),
        }));
        if this.meta().cluster.is_some() {
            this.begin().await?;
        } else {
            let newcomer = this.clone();
            this.spawn(async move {
                if let Err(why) = newcomer.find_cluster(invited).await {
                    newcomer.0.ended.send_replace(Some(Ended::Failed(why)));
                }
            });
        }
        Ok((this, events))
    }

    /// Starts Raft, as the member and in the cluster that the store says.
    async fn begin(&self) -> Result<(), String> {
        let Inner { settings, told, lease, contacts, clock, peers, .. } = &*self.0;
        let meta = self.meta();
        let cluster = meta.cluster.ok_or("this node has no cluster")?;
        let mut store = self.store().ok_or("the node is stopping")?;
        store.resign(meta.id).await?;
        let ours = Ours::new(Origin(random()?));
        let (machine, applied) = Machine::restore(store.clone(), ours.clone(), told.clone())?;
        let network = Network {
            own: meta.id,
            cluster: cluster.id,
            peers: peers.clone(),
            clock: *clock,
            lease: lease.clone(),
            contacts: contacts.clone(),
            election_max: Duration::from_millis(settings.election_max_ms),
        };
        let failed = |error: &dyn std::fmt::Display| format!("Raft cannot be started: {error}");
        let config = self.0.config.clone();
        let raft = Raft::new(meta.id, config, network.clone(), store.clone(), machine)
            .await
            .map_err(|error| failed(&error))?;
        if let Ok(first) = told.reserve().await {
            applied.go_live(first);
        }
        let (acting_sender, acting) = watch::channel(None);
        let watcher = Watcher {
            raft: raft.clone(),
            network: network.clone(),
            applied: applied.clone(),
            acting: acting_sender,
            told: told.clone(),
            failure: store.failure(),
            ended: self.0.ended.clone(),
        };
        tokio::spawn(watcher.run());
        let proposer = Proposer::start(raft.clone(), ours, acting, told.clone());
        let running = Running { raft: raft.clone(), network, applied, proposer };
        self.0.running.send_replace(Some(running.clone()));

        let own = Founder { addr: settings.addr.clone(), nonce: meta.nonce };
        let first = meta.id == MemberId::first(&settings.addr);
        if first && cluster.founders.contains(&own) {
            // Also when it ended between the two: a founder that wrote nothing yet.
            if cluster.founders.first() == Some(&own) {
                founding::write_first(&raft, &cluster.list).await?;
            }
            let this = self.clone();
            self.spawn(async move { this.see_it_begin(running, cluster).await });
        }
        let this = self.clone();
        self.spawn(async move { this.tidy().await });
        if !first {
            let this = self.clone();
            self.spawn(async move { this.ask_for_a_place().await });
        }
        Ok(())
    }

    /// Has changes agreed. Its end is told with the other events, unless it is known here and now.
    pub(crate) fn propose(
        &self,
        id: ProposalId,
        token: Token,
        changes: Vec<Change>,
    ) -> Option<Event> {
        match self.running() {
            Some(running) => running.proposer.propose(id, token, changes),
            None => Some(Event::NotCommitted { id, why: "this node is no member yet".to_owned() }),
        }
    }

    /// Answers a message of another node on the lane of Raft.
    pub(crate) async fn answer(&self, body: &[u8]) -> Vec<u8> {
        let answer = match serde_json::from_slice(body) {
            Ok(ask) => self.answer_to(ask).await,
            Err(error) => Answer::Refused(format!("the message cannot be read: {error}")),
        };
        serde_json::to_vec(&answer).unwrap_or_default()
    }

    async fn answer_to(&self, ask: Ask) -> Answer {
        match ask {
            Ask::Raft(ask) => match self.running() {
                Some(running) => Answer::Raft(running.network.answer(&running.raft, ask).await),
                None => Answer::Refused("this node is no member yet".to_owned()),
            },
            Ask::Hello => self.introduce(),
            Ask::Invite(cluster) => self.invited(cluster).await,
            Ask::Join { cluster, id, addr } => self.joins(cluster, id, addr),
        }
    }

    /// Says who this node is.
    fn introduce(&self) -> Answer {
        let meta = self.meta();
        let Some(cluster) = meta.cluster else {
            return Answer::Fresh(Fresh { nonce: meta.nonce, list: self.0.settings.list() });
        };
        let members = self.running().map(|running| {
            let seen = running.raft.metrics().borrow().clone();
            let nodes = seen.membership_config.nodes();
            nodes.map(|(id, member)| (*id, member.addr.clone())).collect()
        });
        Answer::Member(About { id: meta.id, cluster, members: members.unwrap_or_default() })
    }

    /// Follows an invitation, unless this node is a member of another cluster.
    async fn invited(&self, cluster: Cluster) -> Answer {
        let meta = self.meta();
        match meta.cluster {
            Some(own) if own.id == cluster.id => return Answer::Joined(meta.id),
            Some(_) => {
                return Answer::Refused(
                    "this node is a member of another cluster: stop it and remove its raft_data_dir first".to_owned(),
                );
            }
            None => {}
        }
        let (joined, number) = oneshot::channel();
        let waits = self.0.invites.try_send((cluster, joined)).is_ok();
        match number.await {
            Ok(id) if waits => Answer::Joined(id),
            _ => Answer::Refused("this node is busy with another invitation".to_owned()),
        }
    }

    /// Says something to another node, and waits for the answer.
    async fn call(&self, to: &Addr, ask: &Ask, limit: Duration) -> Result<Answer, String> {
        let body = serde_json::to_vec(ask).map_err(|error| error.to_string())?;
        let answer = self.0.peers.call(to, Lane::Raft, body, limit).await;
        let answer = answer.map_err(|error| error.to_string())?;
        serde_json::from_slice(&answer)
            .map_err(|error| format!("its answer cannot be read: {error}"))
    }

    /// The newest entry of the log that this node has: whatever it committed is in it or before it.
    pub(crate) fn log_index(&self) -> u64 {
        self.running()
            .and_then(|running| running.raft.metrics().borrow().last_log_index)
            .unwrap_or_default()
    }

    /// Waits until this node has applied the log up to an entry, and told what came of it. Ends early when Raft does.
    pub(crate) async fn applied(&self, index: u64) {
        let mut running = self.0.running.subscribe();
        let Ok(Some(running)) = running.wait_for(Option::is_some).await.map(|found| found.clone())
        else {
            return;
        };
        let mut last = running.applied.last();
        let _ = last.wait_for(|last| last.is_some_and(|last| last.index >= index)).await;
    }

    /// Why it does not work any more, once it does not.
    pub(crate) fn ended(&self) -> watch::Receiver<Option<Ended>> {
        self.0.ended.subscribe()
    }

    /// Ends cleanly: what is to be written is written, and the store is free for the next process.
    pub(crate) async fn stop(&self) {
        for task in lock(&self.0.tasks).drain(..) {
            task.abort();
        }
        let open = lock(&self.0.open).take();
        let Some((store, thread)) = open else { return };
        drop(store);
        let running = self.0.running.send_replace(None);
        let stop = async {
            match running {
                Some(running) => {
                    let _ = running.raft.shutdown().await;
                }
                None => {
                    self.0.ended.send_replace(Some(Ended::Stopped));
                }
            }
            thread.join().await;
        };
        if timeout(STOP_TIMEOUT, stop).await.is_err() {
            tracing::warn!("the store was not closed within {} s", STOP_TIMEOUT.as_secs());
        }
    }

    fn running(&self) -> Option<Running> {
        self.0.running.borrow().clone()
    }

    fn meta(&self) -> Meta {
        lock(&self.0.meta).clone()
    }

    fn store(&self) -> Option<Store> {
        lock(&self.0.open).as_ref().map(|(store, _)| store.clone())
    }

    /// Runs until it ends or this node stops.
    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let task = tokio::spawn(task).abort_handle();
        lock(&self.0.tasks).push(task);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
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
