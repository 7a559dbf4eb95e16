//! The record names a new master only when it is one, and a failover that failed after it may have changed something halts the
//! group; unless the master is back. LedisDB comes back with its first role, and is made a master again.

use std::time::Duration;

use failover_core::action::Command;
use failover_core::policy::{OnFailedFailover, Policy};
use failover_core::record::{Kind, Phase, Status};

use super::{Seen, Truth};
use crate::model_redis::{Part, Running};

/// What restarted while its promotion was being recorded was read before that.
const RESTARTED_BEFORE: Duration = Duration::from_millis(500);

#[derive(Debug)]
pub(crate) struct TrueMaster {
    policy: Policy,
    /// Until its next answer is missing, one counts as what it was: it is asked within two intervals, and has one to answer.
    answered_before: Duration,
    /// To which processes a promotion was sent for the failover that is open.
    sent: Vec<(usize, u32)>,
}

impl TrueMaster {
    pub(crate) fn new(policy: Policy) -> Self {
        Self { answered_before: policy.check_interval * 3, policy, sent: Vec::new() }
    }

    pub(crate) fn observe(&mut self, seen: &Seen<'_>, truth: &Truth<'_>) -> Result<(), String> {
        if let Seen::Sent { addr, command: Command::Promote { at_least, .. }, .. } = seen
            && let Some(server) = truth.index(addr)
            // One that lets nobody in does nothing of what it is told.
            && truth.servers[server].wordless().is_none()
            // One that has less than it had is asked how far it is, and not told to be a master.
            && at_least.is_none_or(|at_least| truth.servers[server].offset() >= at_least)
        {
            self.sent.push((server, truth.servers[server].life()));
        }
        let Seen::Committed { before: Some(before) } = seen else { return Ok(()) };
        let Some(entry) = truth.entry else { return Ok(()) };
        if entry.master != before.master
            && let Some(new) = truth.index(&entry.master)
            && truth.servers[new].part() != Part::Master
            // What became of it since it was read is another matter.
            && truth.servers[new].running() == Running::Up
            && truth.now.since(truth.servers[new].running_since()) > RESTARTED_BEFORE
            && !truth.touched[new]
        {
            return Err(format!("{} is recorded as the master, and is a replica", entry.master));
        }
        let failed = before.saga.as_ref().is_some_and(|saga| {
            saga.phase == Phase::Decided
                && matches!(saga.history.kind, Kind::Failover | Kind::ManualFailover)
        }) && entry.saga.is_none()
            && entry.master == before.master;
        if before.saga.is_none() {
            self.sent.clear();
        }
        // What a process was told that ended since, and that has become a replica again, is forgotten.
        let sent = failed
            && std::mem::take(&mut self.sent).into_iter().any(|(server, life)| {
                let server = &truth.servers[server];
                server.life() == life || server.part() == Part::Master
            });
        let retries = self.policy.on_failed_failover == OnFailedFailover::Retry;
        // Whoever answered a moment ago was not given up.
        let serves = truth.index(&before.master).is_some_and(|index| {
            let server = &truth.servers[index];
            let answered = match server.running() {
                Running::Up => true,
                Running::Hung | Running::Dead => {
                    truth.now.since(server.running_since()) <= self.answered_before
                        || truth.sight.lost_for(index, truth.now).is_zero()
                }
            };
            (server.part() == Part::Master || server.is_ledisdb()) && answered
        });
        if sent && !retries && !serves && entry.status == Status::Active {
            return Err(format!(
                "the failover of {} was given up after a promotion was sent, and the group goes on",
                before.master
            ));
        }
        Ok(())
    }
}
