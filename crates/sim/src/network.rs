//! How long messages travel. Messages on one connection keep their order, others overtake each other.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use failover_core::time::Time;
use fastrand::Rng;
use serde::{Deserialize, Serialize};

use crate::model_redis::Conn;

/// Connections whose last message is remembered; more and those with nothing on its way are forgotten.
const REMEMBERED_MAX: usize = 16;

/// Where something is sent from or arrives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Place {
    /// A node, by its number.
    Node(usize),
    /// A server, by its number.
    Server(usize),
    /// The clients, whom nothing cuts off.
    Clients,
}

/// What keeps its order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// From the node to a server, on one connection.
    Out(Conn),
    /// From a server to the node, on one connection.
    Back(Conn),
    /// From a server to another.
    Servers(usize, usize),
}

/// The delays of one run.
#[derive(Debug)]
pub(crate) struct Network {
    /// What replication from one server to another takes at least.
    lags: Vec<Vec<Duration>>,
    /// What it takes beside that for a while.
    extras: BTreeMap<(usize, usize), Duration>,
    /// Few, and looked through for every message.
    last: Vec<(Way, Time)>,
    /// From where nothing gets to where.
    cuts: BTreeSet<(Place, Place)>,
}

impl Network {
    /// Draws the distances between the servers.
    pub(crate) fn new(rng: &mut Rng, servers: usize) -> Self {
        let mut lag = || match rng.u8(..10) {
            0 => Duration::from_micros(rng.u64(5_000..30_000)),
            1..=9 => Duration::from_micros(rng.u64(50..1_500)),
            10.. => Duration::ZERO,
        };
        let lags = (0..servers).map(|_| (0..servers).map(|_| lag()).collect()).collect();
        Self { lags, extras: BTreeMap::new(), last: Vec::new(), cuts: BTreeSet::new() }
    }

    /// What replication from one server to another takes beside the usual.
    pub(crate) fn extra(&self, from: usize, to: usize) -> Duration {
        self.extras.get(&(from, to)).copied().unwrap_or_default()
    }

    pub(crate) fn set_extra(&mut self, from: usize, to: usize, extra: Duration) {
        self.extras.insert((from, to), extra);
    }

    pub(crate) fn cut(&mut self, from: Place, to: Place) {
        self.cuts.insert((from, to));
    }

    pub(crate) fn heal(&mut self, from: Place, to: Place) {
        self.cuts.remove(&(from, to));
    }

    pub(crate) fn is_cut(&self, from: Place, to: Place) -> bool {
        self.cuts.contains(&(from, to))
    }

    pub(crate) fn cuts(&self) -> impl Iterator<Item = (Place, Place)> + '_ {
        self.cuts.iter().copied()
    }

    /// When a message that is sent now arrives; `extra` is what it takes beside the way.
    pub(crate) fn arrival(&mut self, rng: &mut Rng, now: Time, way: Way, extra: Duration) -> Time {
        let least = match way {
            Way::Out(_) | Way::Back(_) => Duration::from_micros(20),
            Way::Servers(from, to) => self.lags[from][to] + self.extra(from, to),
        };
        // Most are quick; one in a hundred is late by what a busy host or a lost packet costs.
        let late = if rng.u8(..100) == 0 { 20_000 } else { 300 };
        let soonest = now + least + extra + Duration::from_micros(rng.u64(10..late));
        if let Some((_, last)) = self.last.iter_mut().find(|(known, _)| *known == way) {
            *last = soonest.max(*last + Duration::from_micros(1));
            return *last;
        }
        if self.last.len() >= REMEMBERED_MAX {
            self.last.retain(|(_, last)| *last >= now);
        }
        self.last.push((way, soonest));
        soonest
    }
}
