//! After the demotion: the candidate takes over, or it surely does not.

use super::{Fate, Order, Switching};
use crate::action::Command;
use crate::addr::Addr;
use crate::group::{Context, Group};
use crate::instance::Facts;
use crate::mutation::Mutation;
use crate::node::Token;
use crate::watch::Watch;

impl Group {
    /// The old master is a replica: the candidate becomes master, once it has the last byte.
    pub(super) fn drive_takeover(
        &mut self,
        ctx: &Context<'_>,
        token: Token,
        s: &mut Switching,
        target: &Addr,
    ) {
        let Some((since, offset)) = s.demoted else { return };
        let elected = self.entry.saga.as_ref().and_then(|saga| saga.target_run_id.clone());
        let watch = self.watches.get(target);
        let facts = watch.and_then(Watch::facts);
        let over = ctx.now >= since + self.policy.promote_timeout;
        let doubt = match (watch, facts) {
            (Some(_), Some(facts)) if facts.run_id != elected => {
                Some(format!("{target} restarted, and may have lost its data"))
            }
            (Some(_), Some(_)) if self.is_gone(target) => Some(format!("{target} went away")),
            (Some(_), Some(facts)) if over => Some(format!(
                "{target} could not be promoted within {} ms (it is at offset {} of {offset})",
                self.policy.promote_timeout.as_millis(),
                facts.offset
            )),
            (Some(_), Some(_)) => None,
            (None, _) | (_, None) => Some(format!("{target} is not known any more")),
        };
        if let Some(why) = doubt {
            self.begin_undoing(ctx, token, s, why);
            return;
        }
        let rushed = self.policy.has(Mutation::SwitchoverRushed);
        if facts.is_some_and(|facts| facts.offset < offset) && !rushed {
            self.ask_densely(ctx, target);
            return;
        }
        self.mark(ctx, "promote_sent", Some(target), None);
        let at_least = self.offset_of_nameless(&elected, Some(offset));
        let fence = self.promoted_fence(target);
        let promote = Command::Promote { run_id: elected, at_least, fence };
        self.order(ctx, token, s, (target, Order::Promote), promote);
    }

    /// The candidate is master: it is recorded, as soon as the old one is not.
    pub(super) fn take_over(
        &mut self,
        ctx: &Context<'_>,
        token: Token,
        s: &mut Switching,
        (old, target): (&Addr, &Addr),
        facts: &Facts,
    ) {
        let elected = self.entry.saga.as_ref().and_then(|saga| saga.target_run_id.clone());
        if facts.run_id != elected {
            let why = format!("{target} restarted as a master, and may have lost its data");
            self.begin_undoing(ctx, token, s, why);
            return;
        }
        let waited = ctx.now >= s.since + self.policy.promote_timeout;
        if s.demoted.is_none() && !self.is_demoted(ctx, token, s, old) && !waited {
            if s.demotion == Fate::Known && ctx.now >= s.retry_at {
                self.send_demotion(ctx, token, s, target);
            }
            return;
        }
        self.promoted(ctx, token, target, facts);
    }
}
