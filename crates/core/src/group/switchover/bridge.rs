//! The time in which nothing but a pause was sent: every doubt ends it.

use super::{Order, Switching};
use crate::action::Command;
use crate::addr::Addr;
use crate::group::{Context, Group};
use crate::instance::Facts;
use crate::mutation::Mutation;
use crate::node::Token;
use crate::watch::Watch;

/// Whether the old master may be demoted.
#[derive(Debug)]
pub(super) enum Bridge {
    /// Not yet.
    Wait,
    /// It takes no writes, where it can be told to, and the candidate has everything.
    Ready,
    /// It must not be, for a reason.
    Doubt(String),
}

impl Group {
    /// Pauses the writes, once under each leadership, and waits until the candidate has what the master took.
    pub(super) fn bridge(
        &mut self,
        ctx: &Context<'_>,
        token: Token,
        s: &mut Switching,
        target: &Addr,
    ) -> Bridge {
        if let Some(why) = s.undo.clone().or_else(|| self.doubt(ctx, s, target)) {
            return Bridge::Doubt(why);
        }
        let old = self.entry.master.clone();
        let master = self.watches.get(&old).and_then(Watch::facts);
        let pauses = master.is_some_and(|facts| facts.can_pause_writes);
        if pauses && s.paused_until.is_none() {
            let left = s.deadline.since(ctx.now);
            s.paused_until = Some(s.deadline);
            let ms = u64::try_from(left.as_millis()).unwrap_or(u64::MAX);
            self.order(ctx, token, s, (&old, Order::Pause), Command::Pause { ms });
            return Bridge::Wait;
        }
        if s.offset.is_none() && !pauses {
            s.offset = self.read_since(ctx, &old, s.since).map(|facts| facts.offset);
        }
        let Some(offset) = s.offset else { return Bridge::Wait };
        // Whoever has less now may have more in a moment. PINGs to replicas go on during a pause, so it may be more, too.
        let candidate = self.watches.get(target).and_then(Watch::facts);
        let master = self.watches.get(&old).and_then(Watch::facts);
        // One that has not heard yet that its master began another history may have any offset in the old one.
        let astray = candidate.zip(master).is_some_and(|(candidate, master)| {
            let (theirs, its) = (&candidate.replication_id, &master.replication_id);
            theirs.is_some() && its.is_some() && theirs != its
        });
        let rushed = self.policy.has(Mutation::SwitchoverRushed);
        if candidate.is_some_and(|facts| facts.offset >= offset && !astray) || rushed {
            if !std::mem::replace(&mut s.equal, true) {
                self.mark(ctx, "offsets_equal", Some(target), Some(format!("at offset {offset}")));
            }
            return Bridge::Ready;
        }
        self.ask_densely(ctx, target);
        Bridge::Wait
    }

    fn doubt(&self, ctx: &Context<'_>, s: &Switching, target: &Addr) -> Option<String> {
        let master = &self.entry.master;
        let standing = |addr: &Addr| {
            let watch = self.watches.get(addr).filter(|watch| watch.serves());
            watch.and_then(Watch::facts)
        };
        match standing(master) {
            None => return Some(format!("{master} does not answer any more")),
            Some(facts) if !facts.is_master() => {
                return Some(format!("{master} is not a master any more"));
            }
            Some(_) => {}
        }
        if ctx.now + self.policy.command_timeout >= s.deadline {
            return Some(format!("{target} did not have everything in time"));
        }
        let Some(facts) = standing(target) else {
            return Some(format!("{target} does not answer any more"));
        };
        let elected = self.entry.saga.as_ref().and_then(|saga| saga.target_run_id.as_ref());
        if facts.run_id.as_ref() != elected {
            return Some(format!("{target} restarted"));
        }
        let of = facts.follows().and_then(|of| self.entry.instance_of(of));
        if of != Some(master) {
            return Some(format!("{target} does not follow {master} any more"));
        }
        (!Facts::link_up(facts)).then(|| format!("{target} lost its link to {master}"))
    }
}
