//! What must always be so, one file each. The checks see everything that happens and the truth behind it, and none of
//! what the core believes.

use std::collections::BTreeSet;
use std::time::Duration;

use failover_core::action::Command;
use failover_core::addr::Addr;
use failover_core::node::Token;
use failover_core::policy::Policy;
use failover_core::record::{Change, GroupEntry};
use failover_core::time::Time;

use crate::model_redis::{Server, Value};

pub(crate) mod best_promoted;
pub(crate) mod bounded_work;
pub(crate) mod decided_first;
pub(crate) mod liveness;
pub(crate) mod one_master;
pub(crate) mod one_promotion;

/// The names of all invariants, with what they say.
pub const ALL: [(&str, &str); 6] = [
    ("one-promotion", "an epoch is taken once, and at most one replica is promoted under it"),
    (
        "decided-first",
        "a decision is committed before its first command, and a halted group is not commanded",
    ),
    (
        "best-promoted",
        "the promoted replica was eligible, and none that had more acknowledged writes was passed over",
    ),
    (
        "one-master",
        "a second master is demoted soon while the recorded one serves, and a healthy one is not replaced",
    ),
    ("bounded-work", "no probe storm, no repair loop, no timer that is always due"),
    (
        "liveness",
        "after the last fault there is one master, all follow it, and the group is healthy or halted",
    ),
];

/// An invariant that did not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Its name.
    pub invariant: &'static str,
    /// When, in seconds since the start of the run.
    pub at: String,
    /// What was seen.
    pub sentence: String,
}

/// Something that happened.
#[derive(Debug)]
pub(crate) enum Seen<'a> {
    /// The core sent a probe.
    Asked { node: usize, server: usize },
    /// The core held an election and asked the handlers about its winner.
    Vetted { candidate: &'a Addr },
    /// A core proposed something.
    Proposed { changes: &'a [Change] },
    /// The broker committed something; the truth has the entry after it.
    Committed { before: Option<&'a GroupEntry> },
    /// The core of the leader wants a command sent.
    Commanded { addr: &'a Addr, command: &'a Command, token: Token },
    /// A command is written to a server, behind the fence.
    Sent { addr: &'a Addr, token: Token },
    /// A server became a master by a command.
    Promoted { server: usize, epoch: u64 },
}

/// How things really are.
#[derive(Debug)]
pub(crate) struct Truth<'a> {
    pub(crate) now: Time,
    pub(crate) servers: &'a [Server],
    pub(crate) addrs: &'a [Addr],
    pub(crate) entry: Option<&'a GroupEntry>,
    pub(crate) acknowledged: &'a BTreeSet<Value>,
    pub(crate) token: Token,
    pub(crate) sight: &'a Sight,
    /// Whose role was changed by hand last.
    pub(crate) touched: &'a [bool],
}

/// Who really sees what: which nodes run and reach a server that runs, and since when.
#[derive(Debug)]
pub(crate) struct Sight {
    /// Per server: which nodes reach it, since when it is so, and since when a majority does.
    servers: Vec<Reached>,
    led_since: Time,
}

#[derive(Clone, Debug)]
struct Reached {
    by: Vec<bool>,
    by_majority_since: Option<Time>,
    by_all_since: Option<Time>,
}

impl Sight {
    pub(crate) fn new(servers: usize, now: Time) -> Self {
        let reached =
            Reached { by: Vec::new(), by_majority_since: Some(now), by_all_since: Some(now) };
        Self { servers: vec![reached; servers], led_since: now }
    }

    /// Which nodes reach a server now.
    pub(crate) fn note(&mut self, server: usize, now: Time, by: &[bool]) {
        let reached = &mut self.servers[server];
        let count = by.iter().filter(|seen| **seen).count();
        let since = |so: bool, since: Option<Time>| so.then(|| since.unwrap_or(now));
        reached.by_majority_since = since(count > by.len() / 2, reached.by_majority_since);
        reached.by_all_since = since(count == by.len(), reached.by_all_since);
        reached.by = by.to_vec();
    }

    pub(crate) fn leader_changed(&mut self, now: Time) {
        self.led_since = now;
    }

    /// How long a majority of the nodes has reached a server.
    pub(crate) fn by_majority(&self, server: usize, now: Time) -> Option<Duration> {
        self.servers[server].by_majority_since.map(|since| now.since(since))
    }

    /// How long every node has reached a server, under one leader.
    pub(crate) fn by_all(&self, server: usize, now: Time) -> Option<Duration> {
        self.servers[server].by_all_since.map(|since| now.since(since.max(self.led_since)))
    }
}

impl Truth<'_> {
    pub(crate) fn index(&self, addr: &Addr) -> Option<usize> {
        self.addrs.iter().position(|known| known == addr)
    }

    /// Whether a master has so much less than another server that it must have restarted without its data.
    pub(crate) fn lost_its_data(&self, master: usize) -> bool {
        let held = |server: &Server| server.data().len();
        let most = self.servers.iter().map(held).max().unwrap_or_default();
        held(&self.servers[master]) < most.div_ceil(2)
    }
}

/// The invariants that are checked at every step.
#[derive(Debug)]
pub(crate) struct Invariants {
    one_promotion: one_promotion::OnePromotion,
    decided_first: decided_first::DecidedFirst,
    best_promoted: best_promoted::BestPromoted,
    one_master: one_master::OneMaster,
    bounded_work: bounded_work::BoundedWork,
}

impl Invariants {
    pub(crate) fn new(started: Time, policy: Policy, nodes: usize) -> Self {
        Self {
            one_promotion: one_promotion::OnePromotion::default(),
            decided_first: decided_first::DecidedFirst,
            best_promoted: best_promoted::BestPromoted::new(policy),
            one_master: one_master::OneMaster::default(),
            bounded_work: bounded_work::BoundedWork::new(started, nodes),
        }
    }

    /// Checks all of them; the first that does not hold is named.
    pub(crate) fn observe(
        &mut self,
        seen: &Seen<'_>,
        truth: &Truth<'_>,
    ) -> Result<(), (&'static str, String)> {
        let named = |name: &'static str| move |sentence| (name, sentence);
        self.one_promotion.observe(seen, truth).map_err(named("one-promotion"))?;
        self.decided_first.observe(seen, truth).map_err(named("decided-first"))?;
        self.best_promoted.observe(seen, truth).map_err(named("best-promoted"))?;
        self.one_master.observe(seen, truth).map_err(named("one-master"))?;
        self.bounded_work.observe(seen, truth).map_err(named("bounded-work"))
    }
}
