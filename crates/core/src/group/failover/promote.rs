//! Promoting the elected candidate, and giving it up: a time-out is *unknown*, never *failed*.

use std::time::Duration;

use crate::action::Command;
use crate::addr::Addr;
use crate::event::{CommandId, CommandResult};
use crate::group::switchover::writable_until_ms;
use crate::group::{Context, Group, Hold, Veto, Work};
use crate::instance::Facts;
use crate::mutation::Mutation;
use crate::node::Token;
use crate::policy::OnFailedFailover;
use crate::record::{Attempt, GroupEntry, Kind, Outcome, Phase, Saga, Status};
use crate::time::{Time, millis};
use crate::watch::Watch;

impl Group {
    /// Sends the promotion, reads what became of it, and sends it again while that is safe.
    pub(super) fn drive_promotion(&mut self, ctx: &Context<'_>, token: Token) {
        let Some(target) = self.entry.saga.as_ref().map(|saga| saga.target.clone()) else { return };
        if !self.is_resumed(ctx, token, &target) {
            return;
        }
        let Work::Promoting { sent, since, unknown_at } = &self.work else {
            if !self.master_is_still_dead(ctx, token) {
                return;
            }
            self.mark(ctx, "promote_sent", Some(&target), None);
            let id = self.command_promote(ctx.now, token, &target);
            self.work = Work::Promoting { sent: Some(id), since: ctx.now, unknown_at: None };
            return;
        };
        let (sent, since, unknown_at) = (*sent, *since, *unknown_at);
        let over = ctx.now >= since + self.policy.promote_timeout;
        if let Some(unknown_at) = unknown_at {
            match self.read_target(ctx, token, &target, unknown_at) {
                Some(facts) if facts.takes_writes() => {
                    self.promoted(ctx, token, &target, &facts);
                    return;
                }
                Some(_) if sent.is_none() && !over => {
                    // It was read after the command and is a replica still: sending again is safe, and needed.
                    let id = self.command_promote(ctx.now, token, &target);
                    self.work =
                        Work::Promoting { sent: Some(id), since, unknown_at: Some(ctx.now) };
                    return;
                }
                Some(_) | None => {}
            }
        }
        if ctx.now >= since + self.promote_patience(sent) {
            let why = format!(
                "it was not known within {} ms whether it had become master",
                self.policy.promote_timeout.as_millis()
            );
            self.abandon(ctx, token, &target, true, why);
        }
    }

    /// How long a candidate is waited for. The end of a command that is on its way is heard, or missed, within a moment, and
    /// until then it may be done yet.
    pub(in crate::group) fn promote_patience(&self, sent: Option<CommandId>) -> Duration {
        let command = if sent.is_some() { self.policy.command_timeout * 2 } else { Duration::ZERO };
        self.policy.promote_timeout + command
    }

    /// A promotion that this leadership did not begin may have happened already, or may be about to: the candidate is
    /// asked what it is before anything is sent. Returns whether that is settled.
    fn is_resumed(&mut self, ctx: &Context<'_>, token: Token, target: &Addr) -> bool {
        let epoch = Some(self.entry.epoch);
        let mine = self.untouched == epoch || matches!(self.work, Work::Promoting { .. });
        if mine || self.read == epoch {
            return true;
        }
        let since = match self.work {
            Work::Resuming { since } => since,
            Work::Idle
            | Work::Hearing { .. }
            | Work::Vetting { .. }
            | Work::Proposing { .. }
            | Work::Promoting { .. }
            | Work::Repointing(_)
            | Work::Repairing { .. } => {
                self.work = Work::Resuming { since: ctx.now };
                self.ask_replicas(ctx.now);
                ctx.now
            }
        };
        match self.read_target(ctx, token, target, since) {
            Some(facts) if facts.takes_writes() || self.policy.has(Mutation::ResumedBlindly) => {
                self.promoted(ctx, token, target, &facts);
            }
            Some(_) => {
                self.read = epoch;
                self.work = Work::Idle;
                return true;
            }
            None if ctx.now >= since + self.policy.promote_timeout => {
                let why = format!(
                    "another leader may have promoted it, and it did not answer within {} ms",
                    self.policy.promote_timeout.as_millis()
                );
                self.abandon(ctx, token, target, true, why);
            }
            None => {}
        }
        false
    }

    /// What the candidate reported to a question that was asked at a moment or later; asks when there is nothing yet.
    pub(super) fn read_target(
        &mut self,
        ctx: &Context<'_>,
        token: Token,
        target: &Addr,
        since: Time,
    ) -> Option<Facts> {
        let facts = self.facts_of(ctx.now, target).filter(|facts| facts.asked_at >= since).cloned();
        if facts.is_none() {
            if let Some(watch) = self.watches.get_mut(target) {
                watch.ask(ctx.now, since);
            }
            if self.watches.get(target).is_some_and(Watch::away) {
                self.ask_peers(ctx, token, since);
            }
        }
        facts
    }

    /// Asks everyone but the master, so that what they say is from after this moment should it be needed.
    fn ask_replicas(&mut self, now: Time) {
        for (addr, watch) in &mut self.watches {
            if *addr != self.entry.master {
                watch.ask(now, now);
            }
        }
    }

    fn command_promote(&mut self, now: Time, token: Token, target: &Addr) -> CommandId {
        let elected = self.entry.saga.as_ref().and_then(|saga| saga.target_run_id.clone());
        let run_id = elected.filter(|_| !self.policy.has(Mutation::AnyProcess));
        let fence = self.promoted_fence(target);
        let at_least = self.offset_of_nameless(&run_id, self.offset_elected(target));
        self.command(now, token, target, Command::Promote { run_id, at_least, fence })
    }

    /// By how much an instance is known whose process has no name.
    pub(in crate::group) fn offset_of_nameless(
        &self,
        run_id: &Option<Box<str>>,
        offset: Option<u64>,
    ) -> Option<u64> {
        let counts = self.manners().counts_alone && !self.policy.has(Mutation::AnyProcess);
        offset.filter(|_| run_id.is_none() && counts)
    }

    /// The process behind an address, as it was last read here or by the node that reaches it.
    pub(in crate::group) fn run_id_of(&self, now: Time, addr: &Addr) -> Option<Box<str>> {
        self.facts_of(now, addr).and_then(|facts| facts.run_id.clone())
    }

    /// Whether the first promotion of a decision may be sent. It is decided that the master is dead, but what is decided
    /// may be old: the commit took long, another leader decided it, or this node stood still. So it must be dead now.
    fn master_is_still_dead(&mut self, ctx: &Context<'_>, token: Token) -> bool {
        let saga = self.entry.saga.as_ref();
        if saga.is_some_and(|saga| saga.forced) || self.policy.has(Mutation::DecisionsKeep) {
            return true;
        }
        let manual = saga.is_some_and(|saga| saga.history.kind == Kind::ManualFailover);
        let Some((_, sign, _)) = self.death(ctx.now) else {
            if let Work::Hearing { again_at, .. } = &mut self.work {
                // Its next answer, or its silence, comes first.
                *again_at = ctx.now + self.policy.check_interval;
            }
            self.undo_when_master_answers(ctx, token);
            return false;
        };
        if manual {
            // Whoever asked for it answers for the other voters.
            return true;
        }
        let agreement = self.agreement(ctx, token, sign);
        let seen = if let Work::Hearing { seen, .. } = self.work { seen } else { ctx.now };
        let Some(missing) = agreement.missing else {
            self.veto = None;
            let Some(again_at) = self.votes_are_old(ctx, token, sign) else { return true };
            self.work = Work::Hearing { seen, asked: ctx.now, again_at };
            return false;
        };
        // Whoever sees it down only by its silence needs this long.
        let until = seen + self.policy.max_down_time + self.policy.corroboration_timeout;
        if ctx.now >= until {
            // Where the others see it alive, it takes writes: who was the most advanced then may not be so later.
            self.undo(ctx, token, &missing);
            return false;
        }
        let again_at = agreement.again_at.map_or(until, |at| at.min(until));
        self.work = Work::Hearing { seen, asked: ctx.now, again_at };
        self.veto = Some(Veto { quorum_lost: agreement.silent, why: missing });
        false
    }

    /// In doubt its next answer, or its silence, decides.
    fn undo_when_master_answers(&mut self, ctx: &Context<'_>, token: Token) {
        let master = &self.entry.master;
        let watch = self.watches.get(master).filter(|watch| watch.serves());
        let Some(facts) = watch.and_then(Watch::facts) else { return };
        let Some(of) = facts.follows() else {
            let why = format!("{master} answers as master again");
            self.undo(ctx, token, &why);
            return;
        };
        let why = format!("{master} answers again, as a replica of {of}");
        let Some(mut saga) = self.saga_so_far() else { return };
        let mut entry = self.entry.clone();
        if self.untouched != Some(self.entry.epoch) && !self.has_restarted(ctx.now, &saga) {
            let why = "it may have been told to become master, and was a replica when it was asked";
            self.note_attempt(&mut entry, &mut saga, true, why.to_owned());
        }
        // Nobody is a master then, or whoever was promoted without being seen to be.
        match saga.attempts.iter().any(|attempt| attempt.changed) {
            true => self.fail(ctx, token, entry, saga, &why),
            false => self.undo(ctx, token, &why),
        }
    }

    /// Whether the candidate is another process than the elected one, and a replica: whatever that one was told is forgotten.
    fn has_restarted(&self, now: Time, saga: &Saga) -> bool {
        let facts = self.facts_of(now, &saga.target);
        let is_other =
            |run_id: &Option<Box<str>>| run_id.is_some() && *run_id != saga.target_run_id;
        facts.is_some_and(|facts| {
            saga.target_run_id.is_some() && is_other(&facts.run_id) && !facts.is_master()
        })
    }

    /// The reason for a promotion is gone before it was sent.
    fn undo(&mut self, ctx: &Context<'_>, token: Token, why: &str) {
        let Some((mut entry, mut history)) = self.close_saga(ctx.now, Outcome::Undone) else {
            return;
        };
        // An earlier leader may have sent a promotion that is still to happen.
        if self.untouched != Some(self.entry.epoch)
            && let Some(target) = self.entry.saga.as_ref().map(|saga| saga.target.clone())
            && let Some(known) = entry.instances.get_mut(&target)
        {
            known.abandoned = Some(self.entry.epoch);
        }
        history.reason = format!("{}; but {why}", history.reason);
        let what = format!("the failover of {} is undone", self.name);
        self.propose(token, what, entry, Some(history));
    }

    /// The command of a promotion ended.
    pub(super) fn promotion_ended(
        &mut self,
        ctx: &Context<'_>,
        token: Token,
        result: CommandResult,
    ) {
        let Some(target) = self.entry.saga.as_ref().map(|saga| saga.target.clone()) else { return };
        let Work::Promoting { sent, unknown_at, .. } = &mut self.work else { return };
        *sent = None;
        match result {
            CommandResult::Done { facts, warnings } => {
                *unknown_at = Some(ctx.now);
                self.untouched = None;
                self.warn(ctx.now, &target, &warnings);
                // What it said before this node stood still proves nothing of now: it is read again.
                let is_news = ctx.now.since(facts.asked_at) <= self.policy.testimony_age_max;
                if facts.takes_writes() && is_news {
                    self.promoted(ctx, token, &target, &facts);
                }
            }
            CommandResult::Unknown(why) if self.policy.has(Mutation::UnknownIsRefused) => {
                self.abandon(ctx, token, &target, false, why);
            }
            CommandResult::Unknown(_) if self.policy.has(Mutation::UnknownIsDone) => {
                if let Some(facts) = self.facts_of(ctx.now, &target).cloned() {
                    self.promoted(ctx, token, &target, &facts);
                }
            }
            CommandResult::Unknown(_) => {
                *unknown_at = Some(ctx.now);
                self.untouched = None;
            }
            CommandResult::NotSent(why) => {
                // The candidate has done nothing wrong: another one may lack what it has.
                self.read = None;
                self.put_off(ctx.now, &why);
                self.work = Work::Idle;
            }
            CommandResult::Refused(why) => {
                // Nothing was changed by this one, but an earlier one of the same promotion may have happened:
                // unknown, or done and not recorded, or sent by another leader.
                let changed = self.untouched != Some(self.entry.epoch);
                self.abandon(ctx, token, &target, changed, why);
            }
        }
    }

    /// The candidate was seen to be master: record it.
    pub(in crate::group) fn promoted(
        &mut self,
        ctx: &Context<'_>,
        token: Token,
        target: &Addr,
        facts: &Facts,
    ) {
        let elected = self.entry.saga.as_ref().and_then(|saga| saga.target_run_id.clone());
        let any = self.policy.has(Mutation::AnyProcess);
        if elected.is_some() && elected != facts.run_id && !any {
            let why = "it restarted after it was elected, and may have lost its data".to_owned();
            self.abandon(ctx, token, target, true, why);
            return;
        }
        if let Some(elected_at) = self.offset_elected(target).filter(|at| goes_back(facts, *at)) {
            let why = format!(
                "it is at offset {} and was elected at {elected_at}: it took over another history before it was promoted",
                facts.offset
            );
            self.abandon(ctx, token, target, true, why);
            return;
        }
        self.mark(ctx, "promoted", Some(target), Some(format!("at offset {}", facts.offset)));
        let Some(mut saga) = self.saga_so_far() else { return };
        saga.phase = Phase::Promoted;
        saga.history.new_master = Some(target.clone());
        saga.history.write_gap_ms = Some(millis(self.saga_age(ctx.now)) - writable_until_ms(&saga));
        saga.promoted_at = facts.second_offset;
        let mut entry = GroupEntry { saga: Some(saga), ..self.entry.clone() };
        entry.succeed(target);
        // A master that was dead from the first look on never said what it was.
        entry.flavor = Some(facts.flavor);
        self.note_owed_copies(&mut entry, facts);
        for id in [&facts.second_replication_id, &facts.replication_id].into_iter().flatten() {
            entry.begin_history(id);
        }
        entry.master_run_id.clone_from(&facts.run_id);
        if let Some(known) = entry.instances.get_mut(target) {
            known.attached = true;
            known.abandoned = None;
        }
        let what = format!("{target} was promoted in {} under epoch {}", self.name, entry.epoch);
        self.propose(token, what, entry, None);
    }

    /// How far a candidate was when it was elected.
    fn offset_elected(&self, target: &Addr) -> Option<u64> {
        let ranking = &self.entry.saga.as_ref()?.history.ranking;
        ranking.iter().find(|ranked| ranked.addr == *target)?.offset
    }

    /// Gives the candidate up, and decides for the next one under a new epoch, or ends the failover.
    fn abandon(
        &mut self,
        ctx: &Context<'_>,
        token: Token,
        target: &Addr,
        changed: bool,
        why: String,
    ) {
        let Some(mut saga) = self.entry.saga.clone() else { return };
        let mut entry = self.entry.clone();
        self.note_attempt(&mut entry, &mut saga, changed, why.clone());
        // Where the master is not dead but a replica, nothing is older than this question.
        let asked = match self.work {
            Work::Resuming { since } => since,
            Work::Idle
            | Work::Hearing { .. }
            | Work::Vetting { .. }
            | Work::Proposing { .. }
            | Work::Promoting { .. }
            | Work::Repointing(_)
            | Work::Repairing { .. } => ctx.now,
        };
        // Judged by this node's own clock; the record's times may be another leader's.
        let sign = self.death(ctx.now).map_or(asked, |(_, sign, _)| sign);
        let election = self.elect(ctx.now, sign, Some(sign), &saga.attempts);
        if election.chosen.is_none()
            && self.elect(ctx.now, sign, None, &saga.attempts).chosen.is_some()
            && !self.recorded_serves()
        {
            // Somebody may be able to take over, and was not asked since the master died, as far as this node knows:
            // it leads since a moment, or stood still. The candidate is asked once more meanwhile.
            (self.untouched, self.read) = (None, None);
            self.work = Work::Resuming { since: ctx.now };
            self.ask_replicas(ctx.now);
            // One that refuses does so at once, and would again until the others answered.
            let why = format!("{target} was not promoted ({why}), and the others are asked");
            self.again = Some((ctx.now + self.policy.corroboration_timeout / 4, why));
            return;
        }
        self.mark(ctx, "failed", Some(target), Some(why.clone()));
        saga.history.steps.extend(self.steps.iter().cloned());
        if let Some(next) = election.chosen.filter(|_| !self.recorded_serves()) {
            entry.epoch += u64::from(!self.policy.has(Mutation::EpochKept));
            saga.history.epoch = entry.epoch;
            saga.history.ranking = election.ranking;
            saga.history.bytes_possibly_lost = election.behind_bytes;
            saga.target_run_id = self.run_id_of(ctx.now, &next);
            saga.target = next.clone();
            entry.saga = Some(saga);
            let what =
                format!("{next} instead of {target} in {} under epoch {}", self.name, entry.epoch);
            self.propose(token, what, entry, None);
            return;
        }
        self.fail(ctx, token, entry, saga, &format!("{target}: {why}"));
    }

    /// Writes down that the candidate was given up. Where it may have become a master it is demoted on sight.
    fn note_attempt(&self, entry: &mut GroupEntry, saga: &mut Saga, changed: bool, reason: String) {
        let (addr, epoch) = (saga.target.clone(), self.entry.epoch);
        if changed && let Some(known) = entry.instances.get_mut(&addr) {
            known.abandoned = Some(epoch);
        }
        saga.attempts.push(Attempt { addr, epoch, changed, reason });
    }

    /// A recorded master that came back while its candidates failed is a verified one: nobody else is promoted, and who
    /// was promoted beside it is demoted.
    fn recorded_serves(&self) -> bool {
        !self.is_emptied()
            && self
                .watches
                .get(&self.entry.master)
                .is_some_and(|watch| watch.serves() && watch.facts().is_some_and(Facts::is_master))
    }

    /// Every candidate was tried: the group is halted when anything may have been changed.
    fn fail(
        &mut self,
        ctx: &Context<'_>,
        token: Token,
        mut entry: GroupEntry,
        saga: Saga,
        why: &str,
    ) {
        let changed = saga.attempts.iter().any(|attempt| attempt.changed);
        let mut history = saga.history;
        history.outcome = Outcome::Failed;
        history.finished_at = Some(ctx.now);
        let master = self.entry.master.clone();
        history.reason =
            format!("{}; no candidate could be verified as the new master: {why}", history.reason);
        entry.saga = None;
        let retry = match self.policy.on_failed_failover {
            OnFailedFailover::Halt => false,
            OnFailedFailover::Retry => true,
        };
        if changed && !retry && !self.recorded_serves() {
            entry.status = Status::Halted {
                reason: format!(
                    "the failover of {master} failed after it may have changed something ({why}); \
                     check which instance is master, then resume the group"
                ),
                at: ctx.now,
            };
        } else {
            let wait = self.policy.failover_timeout;
            self.hold = Some(Hold {
                until: ctx.now + wait,
                why: format!(
                    "the last failover failed ({why}); tried again after {} s, or when another replica can be promoted",
                    wait.as_secs_f64()
                ),
                tried: saga.attempts,
            });
        }
        self.propose(token, format!("the failover of {} failed", self.name), entry, Some(history));
    }
}

/// Whether a promoted replica has less than it had: a replica of a master that came back with nothing copies that, whenever
/// it finds it, and a process without a name may have begun anew. Redis without replication ids counts anew as a master.
fn goes_back(promoted: &Facts, elected_at: u64) -> bool {
    let counts_on =
        promoted.second_replication_id.is_some() || promoted.flavor.manners().counts_alone;
    counts_on && promoted.offset < elected_at
}
