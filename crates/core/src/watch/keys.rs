//! How many keys an instance holds, and held; where it does not tell, and counts every write, how many these are.

use super::Watch;
use crate::instance::Facts;
use crate::time::Time;
use crate::view::How;

/// What was counted.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Keys {
    /// How many it held, and when it was asked.
    last: Option<(u64, Time)>,
    /// How many it held when they were counted first, of the data that it has.
    first: Option<u64>,
    /// The most that this process held of the data that it has.
    most: u64,
    /// How many the process before it held when they were counted last.
    before: Option<u64>,
    /// Whether the data that were counted last are gone, so that nobody knows how many it holds.
    outdated: bool,
    /// Since when it is asked and does not tell.
    asked: Option<Time>,
}

impl Watch {
    /// How many keys it held when it was asked at `since` or later.
    pub fn keys_since(&self, since: Time) -> Option<u64> {
        self.keys.last.filter(|(_, asked_at)| *asked_at >= since).map(|(keys, _)| keys)
    }

    /// How many keys its process holds, as far as it said since it has its data.
    pub fn keys_now(&self) -> Option<u64> {
        self.keys_since(self.process_since).filter(|_| !self.keys.outdated)
    }

    /// When it was asked how many keys it holds, for the last time that it told.
    pub fn keys_counted_at(&self) -> Option<Time> {
        self.keys.last.map(|(_, asked_at)| asked_at)
    }

    /// How many keys its process held when they were counted first, of the data that it has.
    pub fn keys_first(&self) -> Option<u64> {
        self.keys.first
    }

    /// How many keys the process before it held when they were counted last.
    pub fn keys_before(&self) -> Option<u64> {
        self.keys.before
    }

    /// The most keys that this process was seen to hold of the data that it has.
    pub fn keys_most(&self) -> u64 {
        self.keys.most
    }

    /// Asks it at once, on a new connection, where it also says how many keys it holds; unless it was asked at `since` or
    /// later.
    pub fn ask_keys(&mut self, now: Time, since: Time) {
        self.keys.asked.get_or_insert(now);
        let asked = self.unanswered.iter().any(|(_, asked_at)| *asked_at >= since);
        if !asked && self.trouble.is_none() {
            self.ask_fresh(now);
        }
    }

    /// Since when it is asked how many keys it holds, and does not tell.
    pub fn keys_asked(&self) -> Option<Time> {
        self.keys.asked
    }

    /// The next probe is due, and on a new connection.
    pub(super) fn ask_fresh(&mut self, now: Time) {
        self.next_probe = now;
        self.next_fresh = true;
    }

    /// Counts, when facts are read; of another process, or of the one that there was.
    pub(super) fn count(&mut self, now: Time, facts: &Facts, another: bool) {
        if another {
            // A process that ended before it was counted says nothing of what there was.
            let before = self.keys.last.map(|(keys, _)| keys).or(self.keys.before);
            self.keys = Keys { before, ..Keys::default() };
        }
        let other_data = self.facts.as_ref().is_some_and(|before| facts.is_other_data(before));
        if other_data {
            self.keys.most = 0;
            // A master that begins another history for its first replica has what it had.
            let renamed = |before: &Facts| {
                before.is_master() && facts.is_master() && facts.second_replication_id.is_none()
            };
            if !self.facts.as_ref().is_some_and(renamed) {
                self.keys.outdated = true;
                self.keys.first = None;
            }
        }
        // While it reads its data it holds a part of it, and that it does not tell the rest says nothing.
        self.keys.asked.take_if(|_| self.how == How::Loading);
        let counted = facts.writes_counted();
        if counted.is_some_and(|writes| writes < self.keys.most) {
            // What counts every write, and has fewer, has something else.
            self.keys.most = 0;
        }
        let told = facts.keys.or(counted);
        if let Some(keys) = told.filter(|_| self.how != How::Loading) {
            self.keys.last = Some((keys, facts.asked_at));
            self.keys.first.get_or_insert(keys);
            self.keys.outdated = false;
            self.keys.asked = None;
            self.keys.most = self.keys.most.max(keys);
        }
        if other_data && self.keys.last.is_some_and(|(_, asked_at)| asked_at < facts.asked_at) {
            // What was counted is perhaps gone. It is told on a new connection.
            self.ask_fresh(now);
        }
    }
}
