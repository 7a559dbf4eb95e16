//! A healthy master is not replaced unasked: not one that serves, and not one whose silence was shorter than it may be.

use std::time::Duration;

use failover_core::policy::Policy;
use failover_core::time::Time;

use super::{Seen, Truth};
use crate::faults::FAST_PERCENT_MAX;
use crate::model_redis::{Part, Running, Server};

/// A master that has served for this long is known to be well.
const WELL_AFTER: Duration = Duration::from_secs(1);
/// How old the core's picture of a copy that arrives may be.
const EMPTIED_NEWS: Duration = Duration::from_millis(300);
/// The same where a node goes by what others see: the regular questions of these, and the age of what they say.
const EMPTIED_HEARSAY: Duration = Duration::from_secs(2);
/// Questions and answers are on their way for so long.
const ON_THE_WAY: Duration = Duration::from_millis(25);

#[derive(Debug)]
pub(crate) struct NoFalseAlarm {
    policy: Policy,
    /// When the recorded master was seen to have lost its data last.
    emptied_at: Option<Time>,
    /// The process that each server was when it was well last: one may become the recorded master after it died.
    well: Vec<u32>,
}

impl NoFalseAlarm {
    pub(crate) fn new(policy: Policy) -> Self {
        Self { policy, emptied_at: None, well: Vec::new() }
    }

    pub(crate) fn observe(&mut self, seen: &Seen<'_>, truth: &Truth<'_>) -> Result<(), String> {
        let Some(entry) = truth.entry else { return Ok(()) };
        let Some(recorded) = truth.index(&entry.master) else { return Ok(()) };
        if truth.lost_its_data(recorded) {
            self.emptied_at = Some(truth.now);
        }
        self.well.resize(truth.servers.len(), 0);
        for (index, server) in truth.servers.iter().enumerate() {
            if truth.sight.lost_for(index, truth.now).is_zero() {
                self.well[index] = server.life();
            }
        }
        let silent = truth.sight.lost_for(recorded, truth.now);
        let Seen::Vetted { candidate } = seen else { return Ok(()) };
        // Whoever had more may be wiped between the last look at it and the election.
        let sees = truth
            .index(candidate)
            .is_some_and(|index| truth.sight.by_all(index, truth.now).is_some());
        let news = if sees { EMPTIED_NEWS } else { EMPTIED_HEARSAY };
        if self.emptied_at.is_some_and(|at| truth.now.since(at) < news) {
            return Ok(());
        }
        let master = &truth.servers[recorded];
        let serves = master.part() == Part::Master && master.serves();
        let seen_for = truth.sight.by_majority(recorded, truth.now);
        if serves && seen_for.is_some_and(|long| long > WELL_AFTER) {
            return Err(format!("{candidate} was elected, but {} serves", entry.master));
        }
        // For a node that just began, one that takes no new connections and has no replica cannot be told from one that is gone:
        // its host refuses, and every link to it is down.
        let linked = |server: &Server| server.part() == Part::Replica(recorded) && server.link_up();
        let seems_gone = master.refusing() && !truth.servers.iter().any(linked);
        // One whose process is gone, or was, need not be silent for long.
        let ended =
            master.running() == Running::Dead || master.life() != self.well[recorded] || seems_gone;
        if ended || master.part() != Part::Master {
            return Ok(());
        }
        // By the fastest clock that there is.
        let silence = self.policy.max_down_time * 100 / (100 + FAST_PERCENT_MAX);
        if silent + ON_THE_WAY < silence {
            return Err(format!(
                "{candidate} was elected, but {} was well {} ms ago",
                entry.master,
                silent.as_millis()
            ));
        }
        Ok(())
    }
}
