//! A model of the broker: commits what the node proposes, a little later and not always.
//!
//! It applies committed changes to a record of its own with the real record code of the core, so that the invariants
//! have a truth that does not depend on the node under test.

use std::time::Duration;

use failover_core::node::{GroupName, Token};
use failover_core::record::{Change, GroupEntry, Record};
use failover_core::time::Time;
use fastrand::Rng;

/// One proposal out of this many is not committed.
const REFUSED_ONE_IN: u32 = 40;
/// One proposal out of this many takes long.
const SLOW_ONE_IN: u32 = 30;

/// What becomes of a proposal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    Committed,
    NotCommitted(&'static str),
}

/// The broker of the one node.
#[derive(Debug)]
pub(crate) struct ModelBroker {
    record: Record,
    token: Token,
    last: Time,
    /// Whether proposals can fail.
    reliable: bool,
}

impl ModelBroker {
    pub(crate) fn new(token: Token) -> Self {
        Self { record: Record::default(), token, last: Time::ZERO, reliable: true }
    }

    /// Lets proposals fail and linger, or not.
    pub(crate) fn set_reliable(&mut self, reliable: bool) {
        self.reliable = reliable;
    }

    pub(crate) fn token(&self) -> Token {
        self.token
    }

    /// What is agreed about a group.
    pub(crate) fn entry(&self, group: &GroupName) -> Option<&GroupEntry> {
        self.record.entry(group)
    }

    /// Decides when a proposal ends, and how. Proposals end in their order.
    pub(crate) fn propose(&mut self, rng: &mut Rng, now: Time, token: Token) -> (Time, Fate) {
        let slow = !self.reliable && rng.u32(..SLOW_ONE_IN) == 0;
        let micros = if slow { rng.u64(5_000..300_000) } else { rng.u64(10..2_000) };
        let at = (now + Duration::from_micros(micros)).max(self.last + Duration::from_micros(1));
        self.last = at;
        let fate = if token != self.token {
            Fate::NotCommitted("it was proposed under an older token")
        } else if !self.reliable && rng.u32(..REFUSED_ONE_IN) == 0 {
            Fate::NotCommitted("the quorum is lost for a moment")
        } else {
            Fate::Committed
        };
        (at, fate)
    }

    /// Commits. A change against another revision is no commit.
    pub(crate) fn commit(&mut self, changes: &[Change]) -> Fate {
        match self.record.apply(changes) {
            Ok(()) => Fate::Committed,
            Err(_) => Fate::NotCommitted("another change came first"),
        }
    }
}
