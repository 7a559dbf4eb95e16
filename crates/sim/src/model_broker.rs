//! A model of the broker: one node alone, or several that agree as Raft lets them.
//!
//! It applies committed changes to a record of its own with the real record code of the core, so that the invariants
//! have a truth that does not depend on the nodes under test. Of several nodes at most one holds the lease, and the next
//! one leads only when it has run out; one that was deposed may go on believing in itself for a while, and its commands
//! are held back by the lease alone.

use std::time::Duration;

use failover_core::event::ProposalId;
use failover_core::node::{GroupName, Token};
use failover_core::record::{Change, GroupEntry, Record};
use failover_core::time::Time;
use fastrand::Rng;

/// One proposal out of this many is not committed.
const REFUSED_ONE_IN: u32 = 40;
/// One proposal out of this many takes long.
const SLOW_ONE_IN: u32 = 30;
/// How long a leader may act after it heard of a majority.
const LEASE: Duration = Duration::from_millis(262);

/// Something that a node wants agreed.
#[derive(Clone, Debug)]
pub(crate) struct Proposal {
    pub(crate) node: usize,
    /// Of which of its lives.
    pub(crate) life: u32,
    pub(crate) id: ProposalId,
    pub(crate) token: Token,
    pub(crate) changes: Vec<Change>,
}

/// What becomes of a proposal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    Committed,
    NotCommitted(&'static str),
}

/// What the nodes agree on, and who leads.
#[derive(Debug)]
pub(crate) struct ModelBroker {
    record: Record,
    /// Everything that was committed, in order, with the proposal of whom it was.
    log: Vec<Proposal>,
    /// A node alone always leads.
    alone: bool,
    term: u64,
    leader: Option<usize>,
    lease_until: Time,
    last: Time,
    /// Whether proposals can fail.
    reliable: bool,
}

impl ModelBroker {
    pub(crate) fn new(nodes: usize) -> Self {
        Self {
            record: Record::default(),
            log: Vec::new(),
            alone: nodes == 1,
            term: 0,
            leader: None,
            lease_until: Time::ZERO,
            last: Time::ZERO,
            reliable: true,
        }
    }

    /// Lets proposals fail and linger, or not.
    pub(crate) fn set_reliable(&mut self, reliable: bool) {
        self.reliable = reliable;
    }

    pub(crate) fn token(&self) -> Token {
        Token(self.term)
    }

    /// Who leads, as far as the majority knows.
    pub(crate) fn leader(&self) -> Option<usize> {
        self.leader
    }

    pub(crate) fn record(&self) -> &Record {
        &self.record
    }

    /// What was committed from this place on.
    pub(crate) fn log_from(&self, index: usize) -> &[Proposal] {
        &self.log[index.min(self.log.len())..]
    }

    pub(crate) fn log_len(&self) -> usize {
        self.log.len()
    }

    /// What is agreed about a group.
    pub(crate) fn entry(&self, group: &GroupName) -> Option<&GroupEntry> {
        self.record.entry(group)
    }

    /// The leader heard of a majority.
    pub(crate) fn renew(&mut self, now: Time) {
        self.lease_until = now + LEASE;
    }

    /// Whether nobody may act any more, so that somebody else may be elected.
    pub(crate) fn is_vacant(&self, now: Time) -> bool {
        self.leader.is_none() || (!self.alone && now >= self.lease_until)
    }

    /// Another one leads from now on.
    pub(crate) fn elect(&mut self, node: usize, now: Time) -> Token {
        self.term += 1;
        self.leader = Some(node);
        self.renew(now);
        self.token()
    }

    /// Nobody can be elected.
    pub(crate) fn depose(&mut self) {
        self.leader = None;
    }

    /// Whether a node may act under a token right now.
    pub(crate) fn allows(&self, node: usize, token: Token, now: Time) -> bool {
        self.leader == Some(node) && token == self.token() && (self.alone || now < self.lease_until)
    }

    /// Decides when a proposal ends, and how. Proposals end in their order.
    pub(crate) fn propose(&mut self, rng: &mut Rng, now: Time) -> (Time, Fate) {
        let slow = !self.reliable && rng.u32(..SLOW_ONE_IN) == 0;
        let micros = if slow { rng.u64(5_000..300_000) } else { rng.u64(10..2_000) };
        let at = (now + Duration::from_micros(micros)).max(self.last + Duration::from_micros(1));
        self.last = at;
        let fate = if !self.reliable && rng.u32(..REFUSED_ONE_IN) == 0 {
            Fate::NotCommitted("the quorum is lost for a moment")
        } else {
            Fate::Committed
        };
        (at, fate)
    }

    /// Commits. A change against another revision, or under an old token, is no commit.
    pub(crate) fn commit(&mut self, proposal: &Proposal) -> Fate {
        if proposal.token != self.token() {
            return Fate::NotCommitted("it was proposed under an older token");
        }
        match self.record.apply(&proposal.changes) {
            Ok(()) => {
                self.log.push(proposal.clone());
                Fate::Committed
            }
            Err(_) => Fate::NotCommitted("another change came first"),
        }
    }
}
