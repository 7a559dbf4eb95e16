//! What the broker says: what was committed or not, and who leads.

use super::fencing::Fencing;
use super::{Context, Group, Work};
use crate::action::Action;
use crate::record::{GroupEntry, HistoryEntry, Revision};
use crate::watch::Watch;

impl Group {
    /// A change of this group was committed.
    pub fn committed(
        &mut self,
        ctx: &Context<'_>,
        mine: Option<u64>,
        entry: GroupEntry,
        revision: Revision,
        history: Option<&HistoryEntry>,
    ) {
        let before = std::mem::replace(&mut self.entry, entry);
        self.revision = revision;
        if matches!(self.work, Work::Proposing { .. }) {
            // It was this one, or its revision is over and it will never be.
            self.work = Work::Idle;
        }
        self.note_beginning(ctx, &before);
        self.drop_recorded_steps();
        self.mark_commit(ctx, &before);
        self.note_commit(ctx.now, &before);
        if self.entry.saga.is_none() {
            self.steps.clear();
            self.switching = None;
        }
        if self.entry.master != before.master {
            self.settled.clear();
            self.master_since = ctx.now;
            if let Some(watch) = self.watches.get_mut(&self.entry.master) {
                watch.ask(ctx.now, ctx.now);
            }
        }
        let gave_up = self.entry.instances.iter().any(|(addr, known)| {
            let before = before.instances.get(addr).and_then(|known| known.abandoned);
            known.abandoned.is_some() && known.abandoned != before
        });
        if gave_up {
            self.abandoned_since = ctx.now;
        }
        if self.entry.epoch != before.epoch {
            self.untouched = mine.map(|_| self.entry.epoch);
        }
        self.follow_entry(ctx);
        // First the hooks: whoever hears the rest and stops the program may count on them.
        self.tell_hooks(ctx);
        self.tell_commit(ctx.now, &before, history);
        self.answer_wanted(history);
        self.wanted_overtaken();
        self.began.take_if(|_| self.entry.saga.is_none());
        self.changed = true;
        self.step(ctx);
    }

    /// A proposal of this group was not committed.
    pub fn not_committed(&mut self, ctx: &Context<'_>, id: u64, why: &str) {
        if matches!(&self.work, Work::Proposing { id: waiting } if *waiting == id) {
            self.work = Work::Idle;
            self.wanted_not_committed(why);
            let why = format!("a decision was not committed: {why}");
            self.again = Some((ctx.now + self.pause_after_loss(), why));
            self.step(ctx);
        }
    }

    /// It is not known what becomes of a proposal of this group. Whatever it is, another one with the same revision does
    /// no harm.
    pub fn unsettled(&mut self, ctx: &Context<'_>, id: u64, why: &str) {
        if matches!(&self.work, Work::Proposing { id: waiting } if *waiting == id) {
            self.work = Work::Idle;
            self.wanted_unsettled(why);
            let why = format!("it is not known whether a decision was committed: {why}");
            self.again = Some((ctx.now + self.pause_after_loss(), why));
            self.step(ctx);
        }
    }

    /// The entry as it stands, after changes that this node did not hear one by one.
    pub fn restored(&mut self, ctx: &Context<'_>, entry: GroupEntry, revision: Revision) {
        let before = std::mem::replace(&mut self.entry, entry);
        self.revision = revision;
        self.master_since = ctx.now;
        self.steps.clear();
        self.note_beginning(ctx, &before);
        self.began.take_if(|_| self.entry.saga.is_none());
        if self.entry.master != before.master {
            self.settled.clear();
            self.tell_master(ctx.now, &before);
        }
        self.leadership_changed(ctx);
    }

    /// Another node leads, or this one under another token.
    pub fn leadership_changed(&mut self, ctx: &Context<'_>) {
        // Whatever was on its way belonged to the old term; the record says where to go on.
        self.work = Work::Idle;
        self.again = None;
        self.untouched = None;
        self.read = None;
        self.switching = None;
        // What stood when this node led before, if it did, may have been taken back and made again.
        self.drifts.clear();
        self.copies.clear();
        self.fencing = Fencing::default();
        self.wanted_deposed();
        self.led_since = ctx.now;
        self.forget_told();
        self.tell_hooks(ctx);
        self.ending = None;
        self.forget_peers();
        self.follow_entry(ctx);
        let open = self.entry.saga.as_ref().map(|saga| saga.target.clone());
        if let Some(target) = open.filter(|_| ctx.leadership.token().is_some()) {
            self.mark(ctx, "resumed_by", Some(&target), None);
        }
        self.standing_changed(ctx);
    }

    /// Membership changed, which what is on its way outlasts.
    pub fn standing_changed(&mut self, ctx: &Context<'_>) {
        self.forget_strangers(ctx);
        self.changed = true;
        self.step(ctx);
    }

    /// Watches exactly the instances that the entry names.
    fn follow_entry(&mut self, ctx: &Context<'_>) {
        for addr in self.entry.instances.keys() {
            if !self.watches.contains_key(addr) {
                self.watches.insert(addr.clone(), Watch::new(ctx.now, addr, &self.policy));
            }
        }
        let entry = &self.entry;
        let actions = &mut self.actions;
        self.watches.retain(|addr| {
            let kept = entry.instances.contains_key(addr);
            if !kept {
                actions.push_back(Action::Forget { addr: addr.clone() });
            }
            kept
        });
        self.failing.retain(|addr, _| entry.instances.contains_key(addr));
        self.replica_events.retain(|(addr, _), _| entry.instances.contains_key(addr));
    }
}
