//! Doing nothing on request, and what follows when that ends.
//!
//! A pause is in the record, so that it outlasts restarts and leaders. Its end by the clock is judged by whoever leads then.
//! However it ends, every instance is asked once more first: what was changed by hand meanwhile is adopted when it leaves no
//! doubt, and else reported as on any other day.

use super::{Context, Group, Work};
use crate::event::RefusalCode;
use crate::mutation::Mutation;
use crate::node::Token;
use crate::record::{GroupEntry, Status};
use crate::time::Time;

impl Group {
    /// The entry with which an operator's resume would be committed, when there is something to resume.
    pub fn resumed_entry(&self) -> Option<GroupEntry> {
        let status = match self.entry.status {
            Status::Halted { .. } => Status::Active,
            Status::Paused { .. } => Status::Resuming,
            Status::Active | Status::Resuming => return None,
        };
        Some(GroupEntry { status, ..self.entry.clone() })
    }

    /// The entry with which an operator's pause would be committed.
    ///
    /// # Errors
    /// A sentence that says why it cannot be paused, when something is being done to it or it is halted.
    pub fn paused_entry(
        &self,
        at: Time,
        reason: Option<String>,
        until: Option<Time>,
    ) -> Result<GroupEntry, (RefusalCode, String)> {
        let name = &self.name;
        if self.entry.saga.is_some() {
            let why = format!(
                "something is being done to the group {name} and is finished first; ask again then"
            );
            return Err((RefusalCode::Busy, why));
        }
        let at = match self.entry.status {
            Status::Halted { .. } => {
                let why = format!(
                    "the group {name} is halted: nothing is done to it anyway, until it is resumed"
                );
                return Err((RefusalCode::Refused, why));
            }
            Status::Paused { at, .. } => at,
            Status::Active | Status::Resuming => at,
        };
        Ok(GroupEntry { status: Status::Paused { reason, until, at }, ..self.entry.clone() })
    }

    /// Why, since when and until when it is paused, in one sentence.
    pub(super) fn pause_in_words(&self) -> Option<String> {
        let Status::Paused { reason, until, at } = &self.entry.status else { return None };
        let until = match until {
            Some(until) => format!("until {until}"),
            None => "until it is resumed".to_owned(),
        };
        let reason = reason.as_deref().map(|reason| format!(": {reason}")).unwrap_or_default();
        Some(format!("the group was paused on request at {at} {until}{reason}"))
    }

    /// Does nothing to a halted group; the sentence says so, `None` that it is not halted.
    pub(super) fn keep_halted(&mut self, ctx: &Context<'_>, token: Token) -> Option<String> {
        let Status::Halted { reason, .. } = &self.entry.status else { return None };
        if self.policy.has(Mutation::HaltIgnored) {
            return None;
        }
        let why = format!("the group is halted until it is resumed: {reason}");
        if !matches!(self.work, Work::Proposing { .. }) && self.again.is_none() {
            self.learn_meanwhile(ctx, token);
        }
        Some(why)
    }

    /// To know its instances is part of watching a group: when it is acted on again, a master that restarted meanwhile must not
    /// be a stranger.
    fn learn_meanwhile(&mut self, ctx: &Context<'_>, token: Token) {
        if self.entry.confirmed && self.death(ctx.now).is_none() && !self.learn(ctx, token) {
            self.note_replicas(ctx, token);
        }
    }

    /// Keeps a pause, and ends it when its time is over; the sentence says why nothing is done, `None` that it is not
    /// paused.
    pub(super) fn keep_paused(&mut self, ctx: &Context<'_>, token: Token) -> Option<String> {
        let over = match self.entry.status {
            Status::Paused { .. } if self.policy.has(Mutation::PauseIgnored) => return None,
            Status::Active | Status::Halted { .. } => return None,
            Status::Resuming => true,
            Status::Paused { until, .. } => {
                self.wake = until.filter(|until| *until > ctx.now);
                until.is_some_and(|until| until <= ctx.now)
            }
        };
        let why = self.pause_in_words().unwrap_or_else(|| "the pause of the group ends".to_owned());
        if matches!(self.work, Work::Proposing { .. }) {
            return Some(why);
        }
        // Whatever was being prepared is not done, and what is changed by hand meanwhile is not what was changed before.
        self.drifts.clear();
        self.work = Work::Idle;
        self.veto = None;
        if over {
            self.end_pause(ctx, token);
        } else {
            self.learn_meanwhile(ctx, token);
        }
        Some(why)
    }

    /// Asks everyone what they are by now, and then makes the group active, with the master that it has.
    fn end_pause(&mut self, ctx: &Context<'_>, token: Token) {
        let since = *self.ending.get_or_insert(ctx.now);
        if !self.everyone_was_asked(ctx.now, since) {
            return;
        }
        self.ending = None;
        let (entry, history) = match self.made_by_hand(ctx.now, since) {
            Some(master) => {
                let (entry, history) = self.adopt(ctx.now, ctx.me, &master, self.diagnosis);
                (entry, Some(history))
            }
            None => (self.entry.clone(), None),
        };
        let entry = GroupEntry { status: Status::Active, ..entry };
        self.propose(token, format!("the pause of {} ends", self.name), entry, history);
    }
}
