//! The way back: the old master is master again, and writes go on.

use super::{Order, Outcome, Phase, Status, Switching};
use crate::action::Command;
use crate::group::{Context, Group};
use crate::instance::Facts;
use crate::node::Token;
use crate::view::How;
use crate::watch::Watch;

impl Group {
    /// Decides that the old master is made a master again. The candidate surely did not become one; where a promotion
    /// may lie in its socket all the same, it is demoted on sight.
    pub(super) fn begin_undoing(
        &mut self,
        ctx: &Context<'_>,
        token: Token,
        s: &mut Switching,
        why: String,
    ) {
        let Some(target) = self.entry.saga.as_ref().map(|saga| saga.target.clone()) else { return };
        self.mark(ctx, "failed", Some(&target), Some(why.clone()));
        let Some(mut saga) = self.saga_so_far() else { return };
        saga.phase = Phase::Undoing;
        saga.history.reason = format!("{}; {why}", saga.history.reason);
        let mut entry = self.entry.clone();
        if s.may_promote {
            // Under one epoch there is one promotion at most, and the candidate's may happen yet.
            entry.epoch += 1;
            saga.history.epoch = entry.epoch;
            s.epoch = entry.epoch;
            // Should this be lost, what was sent under the old one has to be read anew.
            self.untouched = None;
            if let Some(known) = entry.instances.get_mut(&target) {
                known.abandoned = Some(self.entry.epoch);
            }
        }
        entry.saga = Some(saga);
        let what = format!("the switchover of {} is undone", self.name);
        self.propose(token, what, entry, None);
    }

    /// Makes the old master a master again, whatever it is: a demotion may still be on its way.
    pub(super) fn drive_undoing(&mut self, ctx: &Context<'_>, token: Token, s: &mut Switching) {
        let old = self.entry.master.clone();
        if self.is_gone(&old) {
            s.undo.get_or_insert(format!("{old} died as well"));
            self.close_undone(ctx, token, s, Outcome::Failed);
            return;
        }
        if s.restored {
            if self.is_released(ctx, token, s) {
                self.close_undone(ctx, token, s, Outcome::Undone);
            }
            return;
        }
        // One that loads its data takes no commands; its next answer says whether it still does.
        let loads = self.watches.get(&old).is_some_and(|watch| watch.how() == How::Loading);
        if ctx.now < s.retry_at || loads && ctx.now < s.deadline + self.policy.failover_timeout {
            return;
        }
        if ctx.now >= s.deadline + self.policy.failover_timeout {
            s.undo.get_or_insert(format!("{old} could not be made a master again"));
            self.close_undone(ctx, token, s, Outcome::Failed);
            return;
        }
        let promote = Command::Promote { run_id: None, fence: self.promoted_fence(&old) };
        self.order(ctx, token, s, (&old, Order::Restore), promote);
    }

    /// Ends the pause, and asks no second time: it ends by itself, and the clients are told to look elsewhere anyway.
    pub(super) fn release(&mut self, ctx: &Context<'_>, token: Token, s: &mut Switching) {
        let Some(old) = self.switched_from().cloned() else { return };
        let facts = self.watches.get(&old).and_then(Watch::facts);
        // Where a pause does not end by itself it keeps the old master from being a second one: it ends when that follows.
        let pauses = |facts: &Facts| facts.can_pause_writes && facts.flavor.manners().pause_ends;
        if s.sent.is_none() && !s.unpaused && facts.is_some_and(pauses) {
            s.unpaused = true;
            self.order(ctx, token, s, (&old, Order::Unpause), Command::Unpause);
        }
    }

    /// Whether no write waits any more; ends the pause, again and again until it ended, or ended by itself where it does.
    pub(super) fn is_released(
        &mut self,
        ctx: &Context<'_>,
        token: Token,
        s: &mut Switching,
    ) -> bool {
        let old = self.entry.master.clone();
        let watch = self.watches.get(&old);
        let facts = watch.and_then(Watch::facts);
        let pauses = facts.is_some_and(|facts| facts.can_pause_writes);
        let ends = facts.is_some_and(|facts| facts.flavor.manners().pause_ends);
        let never = s.mine && s.paused_until.is_none();
        let gone = self.is_gone(&old);
        if s.unpaused || never || gone || !pauses || ends && ctx.now >= s.deadline {
            return true;
        }
        if s.sent.is_none() && ctx.now >= s.retry_at {
            self.order(ctx, token, s, (&old, Order::Unpause), Command::Unpause);
        }
        false
    }

    /// Closes the switchover with the old master still the recorded one.
    pub(super) fn close_undone(
        &mut self,
        ctx: &Context<'_>,
        token: Token,
        s: &Switching,
        outcome: Outcome,
    ) {
        let undone_as_decided = outcome == Outcome::Undone;
        let name = if undone_as_decided { "undone" } else { "failed" };
        let old = self.entry.master.clone();
        self.mark(ctx, name, Some(&old), s.undo.clone());
        let Some((mut entry, mut history)) = self.close_saga(ctx.now, outcome) else { return };
        if let Some(why) = s.undo.as_ref().filter(|why| !history.reason.contains(why.as_str())) {
            history.reason = format!("{}; {why}", history.reason);
        }
        history.new_master = None;
        history.bytes_possibly_lost = undone_as_decided.then_some(0);
        // A dead master is replaced in the ordinary way; one that lives and is no master is nobody's business but people's.
        if !undone_as_decided && !self.is_gone(&old) {
            entry.status = Status::Halted {
                reason: format!(
                    "a switchover failed half-way ({}); check which instance is master, then resume the group",
                    history.reason
                ),
                at: ctx.now,
            };
        }
        let what = format!("the switchover of {} ended without a new master", self.name);
        self.propose(token, what, entry, Some(history));
    }
}
