//! A group that is not guarded any more gives its servers back what was changed of their settings, and then leaves the
//! record. Nothing else is done to it.

use std::time::Duration;

use crate::addr::Addr;
use crate::group::{Context, Group, Work};
use crate::node::Token;
use crate::notice::What;
use crate::record::{GroupEntry, Kept};
use crate::time::Time;
use crate::view::State;
use crate::watch::Watch;

impl Group {
    /// The entry with which a request that the group is not guarded any more would be committed; `None`: it leaves at
    /// once, since nothing is to be put back.
    pub(crate) fn leaving_entry(&self, now: Time) -> Option<GroupEntry> {
        let mut entry = self.entry.clone();
        let mut changed = false;
        for fenced in entry.instances.values_mut().filter_map(|known| known.fenced.as_mut()) {
            fenced.set = fenced.former;
            fenced.kept = Kept::Unknown;
            changed = true;
        }
        entry.leaving = Some(now);
        changed.then_some(entry)
    }

    /// The entry with which it is guarded again, when it leaves.
    pub(crate) fn staying_entry(&self) -> Option<GroupEntry> {
        self.entry.leaving.map(|_| GroupEntry { leaving: None, ..self.entry.clone() })
    }

    /// Puts back what was changed, one command at a time, and removes the group. Returns whether it leaves.
    pub(in crate::group) fn drive_leaving(&mut self, ctx: &Context<'_>, token: Token) -> bool {
        if self.entry.leaving.is_none() {
            self.fencing.leaving_since = None;
            self.fencing.restored.clear();
            return false;
        }
        let since = *self.fencing.leaving_since.get_or_insert(ctx.now);
        let deadline = since + self.policy.removal_timeout;
        if matches!(self.work, Work::Proposing { .. }) {
            return true;
        }
        self.work = Work::Idle;
        if self.fence_is_on_its_way(ctx) {
            return true;
        }
        let mut waits = false;
        let mut left = Vec::new();
        let mut next = None;
        for (addr, known) in &self.entry.instances {
            let Some(fenced) = &known.fenced else { continue };
            if self.fencing.restored.contains(addr) {
                continue;
            }
            let paused = self.fencing.pauses.get(addr).is_some_and(|(until, _)| ctx.now < *until);
            let down = self.watches.get(addr).is_none_or(|watch| watch.state() == State::Down);
            if self.fence_of(addr).is_some() && !paused && ctx.now < deadline {
                next.get_or_insert((addr.clone(), fenced.set));
            } else if down || ctx.now >= deadline {
                left.push((addr.clone(), fenced.clone()));
            } else {
                waits = true;
            }
        }
        if let Some((addr, set)) = next {
            self.command_fence(ctx, token, &addr, set);
            return true;
        }
        if waits {
            let at = self.fencing.pauses.values().map(|(until, _)| *until);
            let at = at.filter(|at| *at > ctx.now).min().unwrap_or(deadline).min(deadline);
            self.wake_at(at.max(ctx.now + Duration::from_millis(1)));
            return true;
        }
        for (addr, fenced) in left {
            self.warn_left(ctx.now, &addr, fenced.former.to_write);
        }
        let what = format!("{} is not guarded any more", self.name);
        self.propose_end(token, what);
        true
    }

    fn warn_left(&mut self, now: Time, addr: &Addr, former: u32) {
        let fence = self.watches.get(addr).and_then(Watch::facts).and_then(|facts| facts.fence);
        let stays = match fence {
            Some(fence) => fence.set.to_write.to_string(),
            None => "what the program set it to".to_owned(),
        };
        let sentence = format!(
            "{addr} could not be reached when its group was removed: its min-replicas-to-write stays {stays}, and was \
             {former} before; set it back by hand when it is there again"
        );
        self.publish(now, What::Warned { addr: Some(addr.clone()) }, sentence);
    }
}
