//! What failovers of a moment ago hold back: a poison query must not burn one replica after the other in milliseconds, and
//! a network that comes and goes must not move the master each time.
//!
//! Two nodes' clocks cannot be compared, so that what counts is when this node learned of a failover. After a restart it
//! takes what others did for having happened just now, and believes the dates of its own.

use super::Group;
use crate::node::NodeId;
use crate::record::{GroupEntry, HistoryEntry, Kind, Outcome, Phase};
use crate::time::Time;
use crate::watch::Death;

/// So many failovers within `flapping_window` are too many.
const FLAPPING_FAILOVERS: usize = 3;

impl Group {
    /// Learns of the failovers that happened before this node heard of the group's changes one by one. `me` dated those
    /// that it led by the clock that it has still.
    pub fn recall(&mut self, now: Time, me: &NodeId, entry: &GroupEntry, history: &[HistoryEntry]) {
        for done in history.iter().filter(|entry| entry.kind == Kind::Failover) {
            if done.outcome == Outcome::Done && done.new_master.is_some() {
                let own = done.finished_at.filter(|_| done.leader == *me);
                self.note_failover(done.epoch, own.map_or(now, |at| at.min(now)));
            }
        }
        let open = entry.saga.as_ref().filter(|saga| saga.phase == Phase::Promoted);
        if let Some(saga) = open.filter(|saga| saga.history.kind == Kind::Failover) {
            self.note_failover(saga.history.epoch, now);
        }
    }

    /// Learns of a failover, if the commit before was one.
    pub(super) fn note_commit(&mut self, now: Time, before: &GroupEntry) {
        let failover = self.entry.saga.as_ref().map(|saga| saga.history.kind);
        if self.entry.master != before.master && failover == Some(Kind::Failover) {
            self.note_failover(self.entry.epoch, now);
        }
    }

    fn note_failover(&mut self, epoch: u64, at: Time) {
        self.failovers.entry(epoch).or_insert(at);
        while self.failovers.len() > FLAPPING_FAILOVERS {
            self.failovers.pop_first();
        }
    }

    /// Until when there were too many failovers, when there were.
    pub(super) fn flapping(&self, now: Time) -> Option<Time> {
        if self.failovers.len() < FLAPPING_FAILOVERS {
            return None;
        }
        let first = self.failovers.values().min()?;
        let until = *first + self.policy.flapping_window;
        (now < until).then_some(until)
    }

    /// Why a group that is flapping is treated with care, in one sentence.
    pub(super) fn flapping_in_words(&self, now: Time) -> Option<String> {
        let until = self.flapping(now)?;
        Some(format!(
            "until {until} every dead master is waited for {} s (max_down_time), because there were {FLAPPING_FAILOVERS} \
             failovers within {} s",
            self.policy.max_down_time.as_secs_f64(),
            self.policy.flapping_window.as_secs_f64()
        ))
    }

    /// Until when, and why, a dead master is not replaced yet for the sake of what was done before.
    pub(super) fn held_back(&self, now: Time, death: Death, sign: Time) -> Option<(Time, String)> {
        if death == Death::Emptied {
            // Its replicas are wiped within a second: there is nothing left to wait for.
            return None;
        }
        let patient = sign + self.policy.max_down_time;
        if now < patient
            && let Some(why) = self.flapping_in_words(now)
        {
            return Some((patient, why));
        }
        match death {
            Death::Refusing | Death::Loading | Death::Emptied => None,
            Death::Hung | Death::Unreachable => {
                let last = self.failovers.values().max()?;
                let until = *last + self.policy.cooldown;
                (now < until).then(|| {
                    let why = format!(
                        "the last failover was less than {} s ago (cooldown): a master that is silent is not replaced \
                         before {until}, one whose host refuses connections would be",
                        self.policy.cooldown.as_secs_f64()
                    );
                    (until, why)
                })
            }
        }
    }
}
