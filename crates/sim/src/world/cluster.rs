//! The nodes among themselves: who leads, what is committed where, and what they tell each other.

use std::time::Duration;

use failover_core::event::{Event, ProposalId};
use failover_core::node::{Leadership, NodeId, Token};
use failover_core::record::{GroupEntry, Kind, Status};

use super::node::Node;
use super::{ForNode, Happening, World};
use crate::invariants::Seen;
use crate::model_broker::{Fate, Proposal};
use crate::model_redis::Running;
use crate::network::Place;
use crate::shell::Wrong;

/// How often the leader hears of its followers.
const BEAT: Duration = Duration::from_millis(50);

impl World {
    /// A node begins, or begins again, with what was committed.
    pub(super) fn introduce(&mut self, node: usize) {
        self.nodes[node].applied = self.broker.log_len();
        let voters = self.nodes.iter().map(|node| node.id.clone()).collect();
        let record = self.broker.record().clone();
        self.tell(node, Event::Restored(record));
        self.tell(node, Event::Voters(voters));
        self.nodes[node].token = Token(0);
    }

    /// Whether two nodes hear each other.
    fn are_joined(&self, one: usize, other: usize) -> bool {
        let runs = |node: usize| self.nodes[node].running == Running::Up;
        runs(one)
            && runs(other)
            && (one == other
                || !self.network.is_cut(Place::Node(one), Place::Node(other))
                    && !self.network.is_cut(Place::Node(other), Place::Node(one)))
    }

    fn has_majority(&self, node: usize) -> bool {
        let heard = (0..self.nodes.len()).filter(|other| self.are_joined(node, *other)).count();
        heard > self.nodes.len() / 2
    }

    /// The leader renews its lease, or somebody else is elected, and everyone hears of it who can.
    pub(super) fn beat(&mut self) {
        if self.nodes.len() > 1 {
            self.after(BEAT, Happening::Beat);
        }
        let leader = self.broker.leader();
        let leads_on = leader.is_some_and(|leader| self.has_majority(leader));
        if leads_on && !self.broker.is_vacant(self.now) {
            self.broker.renew(self.now);
        } else if self.broker.is_vacant(self.now) {
            // Not at every beat: an election takes its time, and may fail.
            let possible: Vec<usize> =
                (0..self.nodes.len()).filter(|node| self.has_majority(*node)).collect();
            if possible.is_empty() {
                self.broker.depose();
            } else if leader.is_none() || self.rng.u8(..3) == 0 {
                let next = possible[self.rng.usize(..possible.len())];
                let token = self.broker.elect(next, self.now);
                self.sight.leader_changed(self.now);
                self.apply(next);
                self.nodes[next].token = token;
                self.journal.note(self.now, || format!("!! node {next} leads, term {}", token.0));
                self.tell(next, Event::Leadership(Leadership::Leader(token)));
            }
        }
        for node in 0..self.nodes.len() {
            self.hear_of_leader(node);
        }
    }

    /// What a node makes of the leader, a little late, and later still when it leads nobody any more.
    fn hear_of_leader(&mut self, node: usize) {
        let Some(leader) = self.broker.leader() else {
            if self.rng.u8(..10) == 0 {
                self.believe(node, Leadership::None);
            }
            return;
        };
        if node == leader || self.nodes[node].running != Running::Up {
            return;
        }
        if self.are_joined(node, leader) {
            self.nodes[node].token = self.broker.token();
            let leader_id = self.nodes[leader].id.clone();
            self.believe(node, Leadership::Follower { leader: leader_id });
            if self.nodes[node].applied < self.broker.log_len() {
                self.apply(node);
            }
        } else if self.rng.u8(..10) == 0 {
            self.believe(node, Leadership::None);
        }
    }

    fn believe(&mut self, node: usize, leadership: Leadership) {
        if self.nodes[node].running == Running::Up
            && *self.nodes[node].shell.fleet.leadership() != leadership
        {
            self.tell(node, Event::Leadership(leadership));
        }
    }

    /// A node gets everything that was committed and that it has not heard yet.
    pub(super) fn apply(&mut self, node: usize) {
        if self.nodes[node].running != Running::Up {
            return;
        }
        let missing = self.broker.log_from(self.nodes[node].applied).to_vec();
        self.nodes[node].applied = self.broker.log_len();
        // One that is far behind gets a picture instead.
        if missing.len() > 5 {
            let record = self.broker.record().clone();
            self.tell(node, Event::Restored(record));
            return;
        }
        for Proposal { node: by, life, id, changes, .. } in missing {
            let own = by == node && life == self.nodes[node].life;
            self.tell(node, Event::Committed { id: own.then_some(id), changes });
        }
    }

    /// A proposal's time has come.
    pub(super) fn settle(&mut self, proposal: Proposal, fate: Fate) {
        let Proposal { node, life, ref id, ref changes, .. } = proposal;
        let is_failover = |entry: &GroupEntry| {
            entry.saga.as_ref().is_some_and(|saga| saga.history.kind == Kind::Failover)
        };
        if self.wrong == Some(Wrong::SkipCommit)
            && changes.iter().any(|change| change.entry.as_ref().is_some_and(is_failover))
        {
            let event = Event::Committed { id: Some(id.clone()), changes: changes.clone() };
            self.at_node(node, life, ForNode::Tell(event));
            return;
        }
        let before = self.broker.entry(&self.group).cloned();
        let leads = self.broker.leader() == Some(node) && self.nodes[node].life == life;
        // What a leader without a majority wrote down may be found and committed by the next one, or be lost.
        let reached =
            leads && self.has_majority(node) || !self.broker.is_vacant(self.now) && self.rng.bool();
        let fate = match fate {
            Fate::Committed if self.nodes.len() == 1 || reached => self.broker.commit(&proposal),
            Fate::Committed => Fate::NotCommitted("the majority cannot be reached"),
            Fate::NotCommitted(_) => fate,
        };
        match fate {
            Fate::NotCommitted(why) => {
                let (id, why) = (id.clone(), why.to_owned());
                // Raft often cannot say which of the two it is.
                let event = match self.nodes.len() > 1 && self.rng.bool() {
                    true => Event::Unsettled { id, why },
                    false => Event::NotCommitted { id, why },
                };
                self.at_node(node, life, ForNode::Tell(event));
            }
            Fate::Committed => {
                self.trace.extend(changes.iter().map(|change| change.what.clone()));
                self.observe(&Seen::Committed { before: before.as_ref() });
                self.operator_looks(before.as_ref());
                self.ambush(before.as_ref());
                if self.broker.leader() == Some(node) {
                    self.apply(node);
                }
                for other in 0..self.nodes.len() {
                    let leader = self.broker.leader().unwrap_or(node);
                    if self.are_joined(other, leader) {
                        let wait = Duration::from_micros(self.rng.u64(100..60_000));
                        self.after(wait, Happening::Apply { node: other });
                    }
                }
            }
        }
    }

    /// An operator comes some time after the group was halted.
    fn operator_looks(&mut self, before: Option<&GroupEntry>) {
        let halted = |entry: &GroupEntry| matches!(entry.status, Status::Halted { .. });
        if self.agreed().is_some_and(halted) && !before.is_some_and(halted) {
            self.counts.halts += 1;
            self.command_a_halted_group();
            if self.troubles {
                let wait = Duration::from_millis(self.rng.u64(100..60_000));
                self.after(wait, Happening::Operator);
            }
        }
    }

    /// A proposal leaves a node.
    pub(super) fn propose(
        &mut self,
        node: usize,
        id: ProposalId,
        token: Token,
        changes: Vec<failover_core::record::Change>,
    ) {
        self.observe(&Seen::Proposed { changes: &changes });
        let (at, fate) = self.broker.propose(&mut self.rng, self.now);
        let life = self.nodes[node].life;
        let proposal = Proposal { node, life, id, token, changes };
        self.at(at, Happening::Settle { proposal, fate });
    }

    pub(super) fn number_of(&self, id: &NodeId) -> Option<usize> {
        self.nodes.iter().position(|node| node.id == *id)
    }

    /// Something goes from a node to another one, unless their path is cut.
    pub(super) fn between(&mut self, from: usize, to: usize, what: ForNode) {
        if self.network.is_cut(Place::Node(from), Place::Node(to)) {
            return;
        }
        let Node { life, .. } = self.nodes[to];
        let wait = Duration::from_micros(self.rng.u64(40..1_500));
        self.after(wait, Happening::At { node: to, life, what });
    }

    /// The leader's request desk.
    pub(super) fn tell_leader(&mut self, event: Event) {
        if let Some(leader) = self.broker.leader() {
            let life = self.nodes[leader].life;
            self.at_node(leader, life, ForNode::Tell(event));
        }
    }
}
