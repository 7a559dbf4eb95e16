//! Who leads and who votes, as events.
//!
//! Raft's own word is not enough to act on: a leader that is cut off believes in itself, and one that was just elected
//! may not have applied what the one before it decided.

use std::time::Duration;

use failover_core::event::Event;
use failover_core::node::{Leadership, NodeId, Token};
use failover_core::time::Time;
use openraft::{RaftMetrics, ServerState};
use tokio::sync::{mpsc, watch};
use tokio::time::{MissedTickBehavior, interval};

use super::machine::Applied;
use super::network::Network;
use super::store::Failure;
use super::types::{LogId, Member, MemberId, Raft, StoredMembership, name};
use crate::broker::Ended;

/// How often it is looked whether the lease still holds.
const LOOK_INTERVAL: Duration = Duration::from_millis(10);
/// A leader that was not heard of for so many election timeouts leads nobody.
const SILENT_ELECTIONS: u32 = 2;

type Metrics = RaftMetrics<MemberId, Member>;

/// A term that this node leads.
struct Reign {
    term: u64,
    /// The end of its log when that was noticed. A leader that was started again goes on leading at once, before it has
    /// found out how much of its log was agreed.
    log_index: Option<u64>,
}

/// What is looked at, and who is told.
pub(crate) struct Watcher {
    pub(crate) raft: Raft,
    pub(crate) network: Network,
    pub(crate) applied: Applied,
    pub(crate) acting: watch::Sender<Option<Token>>,
    pub(crate) told: mpsc::Sender<Event>,
    pub(crate) failure: Failure,
    pub(crate) ended: watch::Sender<Option<Ended>>,
}

impl Watcher {
    /// Tells every change until Raft ends.
    pub(crate) async fn run(self) {
        let (mut metrics, mut last) = (self.raft.metrics(), self.applied.last());
        let mut look = interval(LOOK_INTERVAL);
        look.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let (mut leadership, mut voters) = (Leadership::None, Vec::new());
        let mut reign = None;
        loop {
            tokio::select! {
                _ = look.tick() => {}
                changed = metrics.changed() => if changed.is_err() { break },
                changed = last.changed() => if changed.is_err() { break },
            }
            let now = self.network.clock.now();
            let seen = metrics.borrow_and_update().clone();
            let applied = *last.borrow_and_update();
            // Not everything that cannot be written is waited for by Raft.
            if seen.running_state.is_err() || self.failure.get().is_some() {
                break;
            }
            let membership = self.applied.membership();
            let agreed = names(&membership);
            if agreed != voters {
                voters = agreed;
                self.tell(Event::Voters(voters.clone())).await;
            }
            let found = self.look(&seen, &mut reign, applied.as_ref(), now);
            if found != leadership {
                leadership = found;
                self.acting.send_replace(leadership.token());
                self.tell(Event::Leadership(leadership.clone())).await;
            }
        }
        let last = metrics.borrow().clone();
        self.end(&last).await;
    }

    fn look(
        &self,
        seen: &Metrics,
        reign: &mut Option<Reign>,
        applied: Option<&LogId>,
        now: Time,
    ) -> Leadership {
        let Network { own, lease, contacts, .. } = &self.network;
        let membership = seen.membership_config.membership();
        lease.set_voters(membership);
        let term = seen.current_term;
        if seen.state == ServerState::Leader {
            lease.leads(*own, term);
            let from = match reign {
                Some(reign) if reign.term == term => reign.log_index,
                Some(_) | None => {
                    let log_index = seen.last_log_index;
                    *reign = Some(Reign { term, log_index });
                    log_index
                }
            };
            // Only then it knows everything that was agreed before, and was the leader of this term indeed.
            let complete = applied.is_some_and(|last| {
                last.leader_id.term == term
                    && last.leader_id.node_id == *own
                    && Some(last.index) >= from
            });
            return if complete && lease.allows(Token(term), now) {
                let age = lease.quorum_age(now).unwrap_or_default();
                contacts.led(*own, now - age);
                Leadership::Leader(Token(term))
            } else {
                Leadership::None
            };
        }
        // As long as it campaigns for itself, its term may be won: that is noticed after its first messages were sent.
        let own_vote = seen.vote.leader_id().voted_for() == Some(*own);
        lease.ends(if own_vote { term } else { term + 1 });
        *reign = None;
        if membership.get_node(own).is_none() {
            return Leadership::None;
        }
        let silent = self.network.election_max * SILENT_ELECTIONS;
        let leader = seen.current_leader.filter(|leader| {
            contacts.leader(*leader).is_some_and(|heard| now.since(heard) < silent)
        });
        match leader.and_then(|leader| membership.get_node(&leader)) {
            Some(node) => Leadership::Follower { leader: name(node) },
            None => Leadership::None,
        }
    }

    async fn end(&self, seen: &Metrics) {
        self.network.lease.ends(u64::MAX);
        self.acting.send_replace(None);
        self.tell(Event::Leadership(Leadership::None)).await;
        let why = match (self.failure.get(), &seen.running_state) {
            (Some(why), _) => Ended::Failed(why.clone()),
            (None, Err(openraft::error::Fatal::Stopped)) => Ended::Stopped,
            // It ended without a word, as only a broken task does.
            (None, Ok(())) => Ended::Failed(
                "this node's Raft broke: start the node again, and please report this".to_owned(),
            ),
            (None, Err(error)) => Ended::Failed(format!(
                "this node's Raft has ended ({error}): start the node again, and please report this"
            )),
        };
        self.ended.send_replace(Some(why));
    }

    /// A receiver that is gone is a driver that has ended.
    async fn tell(&self, event: Event) {
        let _ = self.told.send(event).await;
    }
}

/// The names of the voters, sorted.
fn names(membership: &StoredMembership) -> Vec<NodeId> {
    let mut names: Vec<NodeId> = membership
        .voter_ids()
        .filter_map(|id| membership.membership().get_node(&id).map(name))
        .collect();
    names.sort();
    // A member that is replaced at its own address votes twice for a moment, and sees with one pair of eyes.
    names.dedup();
    names
}
