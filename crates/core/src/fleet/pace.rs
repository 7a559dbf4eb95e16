//! How many groups are looked at for the first time at once.
//!
//! A first look opens connections and asks more than any later one. A node that begins with thousands of groups and asks
//! all of them in one moment is late for every answer: it would take its own lateness for the servers' silence, ask
//! again, and never come to an end.

use std::collections::{BTreeSet, VecDeque};

use super::Fleet;
use crate::node::GroupName;
use crate::policy::{FIRST_LOOK_PATIENCE, FIRST_LOOKS_MAX};
use crate::time::Time;

/// The groups that were not looked at yet, and those that are for the first time.
#[derive(Debug, Default)]
pub(super) struct Pace {
    waiting: VecDeque<GroupName>,
    looking: BTreeSet<GroupName>,
    /// When each of them is not waited for any more, the earliest first; also of those that answered before.
    until: VecDeque<(Time, GroupName)>,
}

impl Pace {
    /// When a group's turn comes although nobody answered.
    pub(super) fn timeout(&self) -> Option<Time> {
        self.until.front().map(|(at, _)| *at).filter(|_| !self.waiting.is_empty())
    }

    /// Whether a group holds a place.
    pub(super) fn is_looking(&self, name: &GroupName) -> bool {
        !self.looking.is_empty() && self.looking.contains(name)
    }

    /// It needs its place no longer.
    pub(super) fn forget(&mut self, name: &GroupName) {
        self.looking.remove(name);
    }
}

impl Fleet {
    /// Looks at a new group, now or when its turn has come.
    pub(super) fn look_in_turn(&mut self, now: Time, name: &GroupName) {
        self.pace.waiting.push_back(name.clone());
        self.look_at_next(now);
    }

    /// Gives the turn to as many groups as there are places.
    pub(super) fn look_at_next(&mut self, now: Time) {
        while self.pace.until.front().is_some_and(|(at, _)| *at <= now) {
            if let Some((_, name)) = self.pace.until.pop_front() {
                self.pace.looking.remove(&name);
            }
        }
        while self.pace.looking.len() < FIRST_LOOKS_MAX
            && let Some(name) = self.pace.waiting.pop_front()
        {
            self.pace.looking.insert(name.clone());
            self.pace.until.push_back((now + FIRST_LOOK_PATIENCE, name.clone()));
            self.with_group(now, &name, |group, ctx| {
                group.begin_to_look();
                group.handle_timeout(ctx);
            });
        }
    }
}
