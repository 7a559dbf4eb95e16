//! A second master is demoted soon after it is there, as long as the recorded one serves and the group may be acted on;
//! and a healthy master is not replaced.

use std::time::Duration;

use failover_core::record::Status;
use failover_core::time::Time;

use super::{Seen, Truth};
use crate::model_redis::{Part, Running};

/// A probe, a look at the recorded master, a decision, a command, and a broker that is slow at times.
const DEMOTED_WITHIN: Duration = Duration::from_secs(8);
/// How long a role that was changed by hand stands: `drift_wait`.
const DRIFT_WAIT: Duration = Duration::from_secs(10);
/// How old the core's picture of a copy that arrives may be.
const EMPTIED_NEWS: Duration = Duration::from_millis(300);
/// A master that has served for this long is known to be well.
const WELL_AFTER: Duration = Duration::from_secs(1);

#[derive(Debug, Default)]
pub(crate) struct OneMaster {
    /// Since when each server has been a master beside a recorded one that serves.
    beside: Vec<Option<Time>>,
    /// When the recorded master was seen to have lost its data last.
    emptied_at: Option<Time>,
}

impl OneMaster {
    pub(crate) fn observe(&mut self, seen: &Seen<'_>, truth: &Truth<'_>) -> Result<(), String> {
        self.beside.resize(truth.servers.len(), None);
        let Some(entry) = truth.entry else { return Ok(()) };
        let Some(recorded) = truth.index(&entry.master) else { return Ok(()) };
        let serves = |index: usize| {
            let server = &truth.servers[index];
            server.part() == Part::Master && server.running() == Running::Up
        };
        // One that restarted without its data is as good as dead, and nobody is made to follow it.
        let emptied = truth.lost_its_data(recorded);
        if emptied {
            self.emptied_at = Some(truth.now);
        }
        // Whoever had more may be wiped between the last look at it and the election.
        let recently = self.emptied_at.is_some_and(|at| truth.now.since(at) < EMPTIED_NEWS);
        if let Seen::Vetted { candidate } = seen
            && serves(recorded)
            && !recently
            && truth.sight.by_majority(recorded, truth.now).is_some_and(|long| long > WELL_AFTER)
        {
            return Err(format!("{candidate} was elected, but {} serves", entry.master));
        }
        let acted_on = serves(recorded) && !emptied && entry.status == Status::Active;
        for (index, since) in self.beside.iter_mut().enumerate() {
            let reached = |server| truth.sight.by_all(server, truth.now).is_some();
            if !acted_on
                || index == recorded
                || !serves(index)
                || !reached(index)
                || !reached(recorded)
            {
                *since = None;
                continue;
            }
            // A new leader begins to look anew.
            let led = truth.sight.by_all(index, truth.now).unwrap_or_default();
            let since = (*since.get_or_insert(truth.now)).max(truth.now - led);
            // What was done by hand stands for a while.
            let patience = if truth.touched[index] { DRIFT_WAIT } else { Duration::ZERO };
            if truth.now.since(since) > DEMOTED_WITHIN + patience {
                return Err(format!(
                    "{} has been a master beside {} for {} s",
                    truth.addrs[index],
                    entry.master,
                    truth.now.since(since).as_secs()
                ));
            }
        }
        Ok(())
    }
}
