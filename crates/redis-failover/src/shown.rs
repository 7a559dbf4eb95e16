//! The published picture: what HTTP and embedding hosts read, without a lock and without asking the loop.
//!
//! Each group has its own cell, so that publishing a change of one of ten thousand groups costs one group's view. The
//! directory of cells is replaced only when a group is added or removed.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use failover_core::group::Diagnosis;
use failover_core::node::{GroupName, Leadership, NodeId};
use failover_core::time::Time;
use failover_core::view::GroupView;

use crate::broker::Broker;
use crate::clock::Clock;

type Cell = Arc<ArcSwap<GroupView>>;

/// What this node shows of itself and its groups.
#[derive(Debug)]
pub(crate) struct Shown {
    node: NodeId,
    broker: Broker,
    clock: Clock,
    leadership: ArcSwap<Leadership>,
    /// When the loop last went round, in microseconds.
    beat: AtomicU64,
    directory: ArcSwap<BTreeMap<GroupName, Cell>>,
}

impl Shown {
    pub(crate) fn new(node: NodeId, broker: Broker, clock: Clock) -> Self {
        Self {
            node,
            broker,
            clock,
            leadership: ArcSwap::from_pointee(Leadership::None),
            beat: AtomicU64::new(clock.now().as_micros()),
            directory: ArcSwap::default(),
        }
    }

    /// The name of this node.
    pub(crate) fn node(&self) -> &NodeId {
        &self.node
    }

    /// The name of the broker in use.
    pub(crate) fn broker(&self) -> &'static str {
        self.broker.name()
    }

    /// How old what is shown may be; `None`: nobody who leads was ever heard of.
    pub(crate) fn age(&self) -> Option<Duration> {
        self.broker.age()
    }

    /// What is wrong with this node's place among the others.
    pub(crate) fn problem(&self) -> Option<String> {
        self.broker.problem()
    }

    /// What time it is for the views.
    pub(crate) fn now(&self) -> Time {
        self.clock.now()
    }

    /// Who acts; `None` when nobody is known to.
    pub(crate) fn leader(&self) -> Option<NodeId> {
        match self.leadership.load().as_ref() {
            Leadership::Leader(_) => Some(self.node.clone()),
            Leadership::Follower { leader } => Some(leader.clone()),
            Leadership::None => None,
        }
    }

    /// All groups, by name.
    pub(crate) fn groups(&self) -> Vec<Arc<GroupView>> {
        self.directory.load().values().map(|cell| cell.load_full()).collect()
    }

    /// One group, by its name or else by its master's address.
    pub(crate) fn group(&self, name_or_master: &str) -> Option<Arc<GroupView>> {
        let directory = self.directory.load();
        if let Ok(name) = GroupName::new(name_or_master)
            && let Some(cell) = directory.get(&name)
        {
            return Some(cell.load_full());
        }
        let master = name_or_master.parse().ok()?;
        directory.values().map(|cell| cell.load_full()).find(|group| group.master == master)
    }

    /// The loop went round.
    pub(crate) fn beat(&self) {
        self.beat.store(self.clock.now().as_micros(), Ordering::Relaxed);
    }

    /// How long ago the loop last went round. It does so several times a second, whatever happens.
    pub(crate) fn standing_still(&self) -> Duration {
        self.clock.now().since(Time::from_micros(self.beat.load(Ordering::Relaxed)))
    }

    /// The core knows that nobody leads, and only the broker why.
    fn say_why_nobody_leads(&self, view: &mut GroupView) {
        let diagnosis = &mut view.diagnosis;
        if diagnosis.name == Diagnosis::QuorumLost.name()
            && self.leader().is_none()
            && let Some(why) = self.broker.problem()
        {
            diagnosis.reason = format!("{} ({why})", diagnosis.reason);
        }
    }

    pub(crate) fn set_leadership(&self, leadership: &Leadership) {
        if self.leadership.load().as_ref() != leadership {
            self.leadership.store(Arc::new(leadership.clone()));
        }
    }

    /// Shows these groups as they are now; `None`: no more.
    pub(crate) fn publish(&self, views: impl IntoIterator<Item = (GroupName, Option<GroupView>)>) {
        let directory = self.directory.load();
        // Copied once, however many groups come or go: each copy is as long as the directory.
        let mut next: Option<BTreeMap<GroupName, Cell>> = None;
        for (name, mut view) in views {
            if let Some(view) = &mut view {
                self.say_why_nobody_leads(view);
            }
            let known = next.as_ref().unwrap_or(&directory).get(&name);
            match (known, view) {
                (Some(cell), Some(view)) => cell.store(Arc::new(view)),
                (None, Some(view)) => {
                    let cell = Arc::new(ArcSwap::from_pointee(view));
                    next.get_or_insert_with(|| BTreeMap::clone(&directory)).insert(name, cell);
                }
                (Some(_), None) => {
                    next.get_or_insert_with(|| BTreeMap::clone(&directory)).remove(&name);
                }
                (None, None) => {}
            }
        }
        if let Some(next) = next {
            self.directory.store(Arc::new(next));
        }
    }
}
