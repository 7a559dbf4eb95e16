//! Nobody is promoted without being asked for, unless a majority of the nodes said a moment ago that the recorded master is
//! down.
//!
//! What the others say is heard where they say it, and not where it is counted. The leader is taken at its word.

use std::collections::BTreeMap;
use std::time::Duration;

use failover_core::action::Command;
use failover_core::addr::Addr;
use failover_core::record::{Kind, Phase};
use failover_core::time::Time;

use super::{Seen, Truth};
use crate::faults::FAST_PERCENT_MAX;

/// `vote_age_max`.
const FRESH: Duration = Duration::from_millis(200);

/// What a node takes back, the leader hears so much later: a slow loop turns to everything first that came before.
const ON_THE_WAY: Duration = Duration::from_millis(25);

#[derive(Debug)]
pub(crate) struct Quorum {
    nodes: usize,
    /// What each node said last: when, of which master, and when it took that back.
    said_dead: BTreeMap<usize, (Time, Addr, Option<Time>)>,
    /// The last decision of which a promotion was sent, and under which token.
    sent: Option<(u64, u64)>,
}

impl Quorum {
    pub(crate) fn new(nodes: usize) -> Self {
        Self { nodes, said_dead: BTreeMap::new(), sent: None }
    }

    pub(crate) fn observe(&mut self, seen: &Seen<'_>, truth: &Truth<'_>) -> Result<(), String> {
        match seen {
            Seen::Testified { node, dead: Some(master) } => {
                self.said_dead.insert(*node, (truth.now, (*master).clone(), None));
                Ok(())
            }
            Seen::Testified { node, dead: None } => {
                if let Some((.., taken_back)) = self.said_dead.get_mut(node) {
                    taken_back.get_or_insert(truth.now);
                }
                Ok(())
            }
            Seen::Commanded { node, addr, command: Command::Promote { .. }, token } => {
                self.promoted(*node, addr, token.0, truth)
            }
            Seen::Asked { .. }
            | Seen::Vetted { .. }
            | Seen::Proposed { .. }
            | Seen::Committed { .. }
            | Seen::Commanded { .. }
            | Seen::Sent { .. }
            | Seen::Promoted { .. }
            | Seen::Took { .. }
            | Seen::Did { .. } => Ok(()),
        }
    }

    fn promoted(
        &mut self,
        leader: usize,
        addr: &Addr,
        token: u64,
        truth: &Truth<'_>,
    ) -> Result<(), String> {
        let Some(entry) = truth.entry else { return Ok(()) };
        let Some(saga) = &entry.saga else { return Ok(()) };
        if saga.history.kind != Kind::Failover || saga.phase != Phase::Decided || saga.forced {
            return Ok(());
        }
        // Once it was sent, it may be sent again until it is known what became of it.
        let first = self.sent.replace((entry.epoch, token)) != Some((entry.epoch, token));
        // By the slowest clock that there is.
        let fresh = FRESH * (100 + FAST_PERCENT_MAX) / 100;
        let votes = self
            .said_dead
            .iter()
            .filter(|(node, (at, of, taken_back))| {
                let stands = taken_back.is_none_or(|at| truth.now.since(at) <= ON_THE_WAY);
                let says = **node != leader && *of == entry.master;
                says && stands && truth.now.since(*at) <= fresh
            })
            .count();
        let needed = self.nodes / 2 + 1;
        // A candidate after the first one is promoted for the sake of what was agreed for the first.
        if !first || !saga.attempts.is_empty() || votes + 1 >= needed {
            return Ok(());
        }
        Err(format!(
            "{addr} is promoted on the word of {} of {} nodes, and {needed} are needed",
            votes + 1,
            self.nodes
        ))
    }
}
