//! Whose word is waited for, or asked for once more, before a master is replaced.

use std::time::Duration;

use crate::addr::Addr;
use crate::group::Group;
use crate::group::copies::is_syncing;
use crate::time::Time;
use crate::watch::Death;

impl Group {
    /// How long the last answer of the instance beside the master took that is the slowest.
    pub(super) fn slowest_answer(&self) -> Duration {
        let others = self.watches.iter().filter(|(addr, _)| **addr != self.entry.master);
        let took = others.filter_map(|(_, watch)| {
            let facts = watch.facts().filter(|_| watch.serves())?;
            Some(watch.last_reply()?.since(facts.asked_at))
        });
        took.max().unwrap_or_default()
    }

    /// Whether a master that read its data when it answered last is asked again first: it may be done by now. One that does not
    /// answer that is in trouble, which has a patience of its own.
    pub(super) fn awaits_loading(&mut self, now: Time) -> bool {
        let since = now - self.policy.corroboration_timeout;
        let Some(watch) = self.watches.get_mut(&self.entry.master) else { return false };
        let old = watch.trouble_since().is_none() && watch.last_reply() < Some(since);
        if old {
            watch.ask(now, since);
        }
        old
    }

    /// Whether somebody was in the middle of a copy when it was read, which may be over: one with more than the candidate,
    /// read later, since a copy ends with its master and leaves what there was before; and anybody who was read before the
    /// quorum was heard, since what a hung master had sent still arrives. Until when that one is waited for.
    pub(super) fn awaits_end_of_copy(
        &mut self,
        now: Time,
        death: Death,
        candidate: &Addr,
    ) -> Option<Time> {
        if death == Death::Emptied {
            return None;
        }
        let chosen = self.watches.get(candidate)?.facts()?;
        let (read_at, offset) = (chosen.asked_at, chosen.offset);
        let timeout = self.policy.corroboration_timeout;
        let mut waits = None;
        for watch in self.watches.values_mut().filter(|watch| watch.serves()) {
            let Some(facts) = watch.facts().filter(|facts| is_syncing(facts)) else { continue };
            let asked_at = facts.asked_at;
            let (since, until) = if facts.offset > offset && asked_at < read_at {
                (read_at, read_at + timeout)
            } else {
                (asked_at + timeout / 4, asked_at + timeout * 2)
            };
            if since <= now && now < until {
                watch.ask(now, since);
                waits = waits.max(Some(until));
            }
        }
        waits
    }
}
