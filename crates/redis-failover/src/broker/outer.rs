//! The brokers that run apart from this program: an etcd or a ZooKeeper that is there already.
//!
//! Both store small values under paths and end what belongs to a session with it. On that stands everything here: who
//! came first leads (`standing`), each group is a value that only the leader writes (`groups`, `write`), every node reads
//! what is written as it happens (`run`), and the members that vote are values that stay when their nodes go (`members`).
//! `store` is what the two have in common, and `zk` and `etcd` are all that knows them; `layout` says what is stored
//! where.

mod etcd;
mod feed;
mod groups;
mod layout;
mod members;
mod migrate;
mod run;
mod standing;
mod store;
mod write;
mod zk;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use failover_core::addr::Addr;
use failover_core::event::{Event, ProposalId};
use failover_core::node::{NodeId, Token};
use failover_core::record::Change;
use secrecy::SecretString;
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::timeout;

use self::standing::Standing;
use self::store::Session;
use self::write::Proposal;
use super::Ended;
use crate::clock::Clock;

pub(crate) use self::etcd::EtcdPlace;
pub(crate) use self::migrate::Copy;
pub(crate) use self::zk::ZkPlace;

/// Most events that wait for the driver.
const EVENTS_MAX: usize = 1024;
/// Most proposals that wait to be written.
const PROPOSALS_MAX: usize = 4096;
/// How long a clean end may take.
const STOP_TIMEOUT: Duration = Duration::from_secs(2);
/// A store that answered since is no problem.
const CONTACT_AGE_MAX: Duration = Duration::from_secs(2);
/// How long it may take to make sure who leads.
const CONFIRM_TIMEOUT: Duration = Duration::from_millis(200);

/// Which store, and how it is reached.
#[derive(Clone, Debug)]
pub(crate) enum Where {
    Zk(ZkPlace),
    Etcd(EtcdPlace),
}

impl Where {
    /// The name of the broker.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Zk(_) => "zk",
            Self::Etcd(_) => "etcd",
        }
    }
}

/// Which node this is.
#[derive(Clone, Debug)]
pub(crate) struct Who {
    /// Its name, the same at every start.
    pub(crate) node: NodeId,
    /// Where the other nodes reach it.
    pub(crate) addr: Addr,
    /// Where its HTTP is reached.
    pub(crate) http: Option<Addr>,
    /// A number of this run of it.
    pub(crate) run: u64,
}

/// What a node needs to know.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) place: Where,
    pub(crate) who: Who,
    /// Whether the nodes share a secret that is kept in the store.
    pub(crate) needs_secret: bool,
}

/// This node, as one of those that share a store. A clone is the same node.
#[derive(Clone)]
pub(crate) struct OuterBroker(Arc<Inner>);

struct Inner {
    settings: Settings,
    clock: Clock,
    told: mpsc::Sender<Event>,
    proposals: mpsc::Sender<Proposal>,
    standing: Mutex<Standing>,
    /// The session, while there is one.
    session: Mutex<Option<Arc<Session>>>,
    /// Why there is none, or what is wrong with it: a sentence.
    problem: Mutex<Option<String>>,
    /// Which change of the store this node has, told already.
    applied: watch::Sender<u64>,
    /// The members changed.
    joined: watch::Sender<u64>,
    secret: watch::Sender<Option<SecretString>>,
    /// The masters that the original left, once that is known.
    inherited: watch::Sender<Option<Vec<Addr>>>,
    renew_now: Notify,
    stopping: watch::Sender<bool>,
    ended: watch::Sender<Option<Ended>>,
    /// Held while the members are changed.
    changing: tokio::sync::Mutex<()>,
}

impl std::fmt::Debug for OuterBroker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OuterBroker").field("who", &self.0.settings.who).finish_non_exhaustive()
    }
}

impl OuterBroker {
    /// Takes part, as soon as the store is reached, which can take for ever and does not keep this waiting. The first
    /// event is the record.
    pub(crate) fn start(settings: Settings, clock: Clock) -> (Self, mpsc::Receiver<Event>) {
        let (told, events) = mpsc::channel(EVENTS_MAX);
        let (proposals, proposed) = mpsc::channel(PROPOSALS_MAX);
        let this = Self(Arc::new(Inner {
            settings,
            clock,
            told,
            proposals,
            standing: Mutex::default(),
            session: Mutex::default(),
            problem: Mutex::default(),
            applied: watch::Sender::default(),
            joined: watch::Sender::default(),
            secret: watch::Sender::default(),
            inherited: watch::Sender::default(),
            renew_now: Notify::new(),
            stopping: watch::Sender::default(),
            ended: watch::Sender::default(),
            changing: tokio::sync::Mutex::default(),
        }));
        tokio::spawn(this.clone().run(proposed));
        (this, events)
    }

    /// Its name in settings and answers.
    pub(crate) fn name(&self) -> &'static str {
        self.0.settings.place.name()
    }

    /// Has changes agreed. Its end is told with the other events, unless it is known here and now.
    pub(crate) fn propose(
        &self,
        id: ProposalId,
        token: Token,
        changes: Vec<Change>,
    ) -> Option<Event> {
        let acting = self.standing().acting(self.0.clock.now());
        if let Err(why) = write::may_act(acting, token) {
            return Some(Event::NotCommitted { id, why });
        }
        match self.0.proposals.try_send(Proposal { id, token, changes }) {
            Ok(()) => None,
            Err(
                mpsc::error::TrySendError::Full(Proposal { id, .. })
                | mpsc::error::TrySendError::Closed(Proposal { id, .. }),
            ) => {
                let why = format!("{PROPOSALS_MAX} decisions wait already to be agreed");
                Some(Event::NotCommitted { id, why })
            }
        }
    }

    /// Which change of the store this node has: whatever it committed is in it or before it.
    pub(crate) fn log_index(&self) -> u64 {
        *self.0.applied.borrow()
    }

    /// Waits until this node has a change of the store, and told what came of it.
    pub(crate) async fn applied(&self, index: u64) {
        let _ = self.0.applied.subscribe().wait_for(|applied| *applied >= index).await;
    }

    /// How old what this node shows may be; `None`: the store never answered.
    pub(crate) fn age(&self) -> Option<Duration> {
        let contact = self.standing().contact()?;
        Some(self.0.clock.now().since(contact))
    }

    /// What is wrong with the store or with this node's place in it: a sentence.
    pub(crate) fn problem(&self) -> Option<String> {
        let why = lock(&self.0.problem).clone();
        if self.age().is_none_or(|age| age >= CONTACT_AGE_MAX) {
            return why.or_else(|| Some(format!("{} does not answer yet", self.name())));
        }
        self.is_doubled().or_else(|| self.is_outside()).or(why)
    }

    /// Whether this node leads under this token, and its session surely goes on.
    pub(crate) fn allows(&self, token: Token) -> bool {
        self.standing().acting(self.0.clock.now()) == Some(token)
    }

    /// Whether the leader with this token was just confirmed: only then this node may write for it.
    pub(crate) fn follows(&self, token: Token) -> bool {
        self.standing().follows(token, self.0.clock.now())
    }

    /// Makes sure who leads. Another one cannot have begun to before this was asked.
    pub(crate) async fn confirm(&self) {
        let Some(session) = self.session() else { return };
        let sent = self.0.clock.now();
        if let Ok(Ok(leader)) = timeout(CONFIRM_TIMEOUT, session.leader_now()).await {
            self.standing().confirm(leader, sent);
        }
    }

    /// The newest token that this node knows of.
    pub(crate) fn term(&self) -> Option<u64> {
        self.standing().term()
    }

    /// Why it does not work any more, once it does not.
    pub(crate) fn ended(&self) -> watch::Receiver<Option<Ended>> {
        self.0.ended.subscribe()
    }

    /// Ends cleanly: its session ends at once, so that another node leads.
    pub(crate) async fn stop(&self) {
        self.0.stopping.send_replace(true);
        let mut ended = self.0.ended.subscribe();
        let end = ended.wait_for(Option::is_some);
        if timeout(STOP_TIMEOUT, end).await.is_err() {
            tracing::warn!(
                "the session in {} was not ended within {} s, and ends by itself",
                self.name(),
                STOP_TIMEOUT.as_secs()
            );
        }
    }

    /// What the nodes know and nobody else, as soon as the store has given it.
    pub(crate) async fn secret(&self) -> Option<SecretString> {
        let mut secret = self.0.secret.subscribe();
        secret.wait_for(Option::is_some).await.ok().and_then(|secret| secret.clone())
    }

    /// The masters that the original guarded from here, as soon as that is known; none where this program has its own
    /// record.
    pub(crate) async fn inherited(&self) -> Vec<Addr> {
        let mut inherited = self.0.inherited.subscribe();
        let inherited = inherited.wait_for(Option::is_some).await;
        inherited.ok().and_then(|inherited| inherited.clone()).unwrap_or_default()
    }

    fn session(&self) -> Option<Arc<Session>> {
        lock(&self.0.session).clone()
    }

    fn standing(&self) -> MutexGuard<'_, Standing> {
        lock(&self.0.standing)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
