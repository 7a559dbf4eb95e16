//! Replacing a dead master: hear the replicas, elect, ask the handlers, decide, promote, verify, record, tell, repoint.
//!
//! Each function is one phase. What a phase leaves behind for the next leader is in the record; a time-out of a command
//! is *unknown*, never *failed*.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::corroborate::{Hearing, Verdict, hear};
use super::diagnose::death_in_words;
use super::elect::{Contest, Election, elect};
use super::{Context, Diagnosis, Group, Hold, Work};
use crate::action::{Action, Command};
use crate::addr::Addr;
use crate::event::{CommandId, CommandResult};
use crate::instance::Facts;
use crate::node::Token;
use crate::notice::What;
use crate::policy::{LINEAGE_MAX, OnFailedFailover, Policy};
use crate::record::{Attempt, GroupEntry, HistoryEntry, Kind, Outcome, Phase, Saga, Status, Step};
use crate::time::{Time, millis};
use crate::view::State;
use crate::watch::{Death, Watch};

/// The other replicas on their way to the new master.
#[derive(Debug)]
pub(super) struct Repointing {
    since: Time,
    waiting: Vec<Addr>,
    active: BTreeMap<Addr, Active>,
    /// Those that could not be repointed; they are repaired later.
    failed: BTreeSet<Addr>,
    again_at: Time,
}

/// One replica on its way.
#[derive(Debug)]
struct Active {
    /// The command, until it ended.
    sent: Option<CommandId>,
    since: Time,
}

/// The pause until a replica that was told to follow is asked for its link again: a partial resync takes milliseconds,
/// and a full one is not hurried by asking.
fn link_pause(policy: &Policy, age: Duration) -> Duration {
    let step = policy.corroboration_interval;
    if age < step * 20 {
        step
    } else if age < policy.promote_timeout {
        step * 20
    } else {
        policy.check_interval
    }
}

impl Repointing {
    /// When something is to be done about it without a new event.
    pub(super) fn timeout(&self, policy: &Policy) -> Option<Time> {
        let overdue = self.active.values().map(|active| active.since + policy.link_timeout).min();
        let whole = self.since + policy.failover_timeout;
        [Some(self.again_at), overdue, Some(whole)].into_iter().flatten().min()
    }
}

impl Group {
    /// The master is down for this node. Does the next step towards its replacement; the sentence says why there is none.
    pub(super) fn consider_failover(
        &mut self,
        ctx: &Context<'_>,
        token: Token,
        death: Death,
        sign: Time,
        down: Time,
    ) -> Option<String> {
        let votes = 1;
        match self.policy.quorum_of(ctx.voters.len()) {
            Err(why) => return Some(why),
            Ok(quorum) if votes < quorum => {
                return Some(format!("{votes} of {quorum} voters see the master down"));
            }
            Ok(_) => {}
        }
        let timeout = self.policy.corroboration_timeout;
        let (seen, asked, first) = match &self.work {
            Work::Hearing { seen, asked, .. } => (*seen, *asked, false),
            Work::Idle
            | Work::Vetting { .. }
            | Work::Proposing { .. }
            | Work::Promoting { .. }
            | Work::Repointing(_)
            | Work::Repairing { .. } => (ctx.now, down, true),
        };
        // Answers grow old: after a wait, for a veto or a candidate or a commit, everyone is asked anew.
        let old = (timeout * 2).max(self.policy.check_interval);
        let asked = if ctx.now > asked + old { ctx.now } else { asked };
        let waited = asked + timeout;
        let mut again_at =
            if ctx.now < waited { waited } else { ctx.now + self.policy.check_interval };
        let verdict = hear(&Hearing {
            entry: &self.entry,
            watches: &self.watches,
            policy: &self.policy,
            death,
            sign,
            down: asked,
            now: ctx.now,
        });
        if first {
            self.changed = true;
        }
        let because = match verdict {
            Verdict::Ask(questions) => {
                for question in questions {
                    if let Some(watch) = self.watches.get_mut(&question.addr) {
                        watch.ask(question.at.max(ctx.now), question.since);
                    }
                }
                Some("the replicas are being asked".to_owned())
            }
            Verdict::Vetoed { why, again_at: at } => {
                again_at = at;
                let because = format!("the master may be alive: {why}");
                self.veto = Some(why);
                for (addr, watch) in &mut self.watches {
                    if *addr != self.entry.master {
                        watch.ask(at, ctx.now);
                    }
                }
                Some(because)
            }
            Verdict::Dead => {
                self.veto = None;
                return self.elect_and_vet(ctx, token, death, (sign, seen, asked));
            }
        };
        self.work = Work::Hearing { seen, asked, again_at };
        because
    }

    /// Nothing speaks against the master's death: choose, and ask the handlers.
    fn elect_and_vet(
        &mut self,
        ctx: &Context<'_>,
        _token: Token,
        death: Death,
        (sign, seen, asked): (Time, Time, Time),
    ) -> Option<String> {
        let tried = self.hold.as_ref().map_or(&[][..], |hold| hold.tried.as_slice());
        let election = self.elect(ctx.now, sign, asked, tried);
        self.work = Work::Hearing { seen, asked, again_at: ctx.now + self.policy.check_interval };
        if let Some(hold) = &self.hold
            && (election.chosen.is_none() || hold.tried.is_empty())
        {
            return Some(hold.why.clone());
        }
        let Some(candidate) = election.chosen.clone() else {
            let reasons: Vec<String> = election
                .ranking
                .iter()
                .filter_map(|place| {
                    place.refused.as_ref().map(|why| format!("{} {why}", place.addr))
                })
                .collect();
            return Some(format!(
                "no replica can be promoted: {}; it is tried again as soon as that changes",
                reasons.join("; ")
            ));
        };
        self.hold = None;
        let plan = self.plan(ctx, death, election, &candidate, (sign, seen));
        let deadline = ctx.now + self.policy.before_failover_timeout;
        let id = self.take_id();
        let reason = plan.saga.as_ref().map(|saga| saga.history.reason.clone()).unwrap_or_default();
        self.actions.push_back(Action::Vet {
            group: self.name.clone(),
            id,
            old_master: self.entry.master.clone(),
            candidate,
            reason,
            deadline,
        });
        // The shell keeps the deadline; should it fail to, the failover must not wait for ever.
        let overdue = deadline + self.policy.command_timeout;
        self.work = Work::Vetting { id, plan: Box::new(plan), deadline: overdue };
        None
    }

    fn elect(&self, now: Time, sign: Time, read_after: Time, tried: &[Attempt]) -> Election {
        elect(&Contest {
            entry: &self.entry,
            watches: &self.watches,
            policy: &self.policy,
            tried,
            dead_since: sign,
            read_after: Some(read_after),
            now,
        })
    }

    /// The entry that decides this failover.
    fn plan(
        &self,
        ctx: &Context<'_>,
        death: Death,
        election: Election,
        candidate: &Addr,
        (sign, seen): (Time, Time),
    ) -> GroupEntry {
        let master = &self.entry.master;
        let reason = match self.watches.get(master) {
            Some(watch) => death_in_words(master, death, watch, ctx.now),
            None => format!("the master {master} is down"),
        };
        let reason = match election.note {
            Some(note) => format!("{reason}; {note}"),
            None => reason,
        };
        let at = |name: &str, when: Time| Step {
            name: name.to_owned(),
            addr: Some(master.clone()),
            at_ms: millis(when.since(sign)),
            node: ctx.me.clone(),
            note: None,
        };
        let history = HistoryEntry {
            id: format!("{}-{}", self.name, self.entry.history_next),
            kind: Kind::Failover,
            epoch: self.entry.epoch + 1,
            old_master: master.clone(),
            new_master: None,
            // The diagnosis that is shown may be from before the death, or be about the replicas.
            cause: Diagnosis::of_death(death).name().to_owned(),
            reason,
            outcome: Outcome::Running,
            started_at: sign,
            finished_at: None,
            leader: ctx.me.clone(),
            write_gap_ms: None,
            bytes_possibly_lost: election.behind_bytes,
            steps: vec![at("first_sign", sign), at("down", seen), at("dead_agreed", ctx.now)],
            ranking: election.ranking,
        };
        GroupEntry {
            epoch: self.entry.epoch + 1,
            history_next: self.entry.history_next + 1,
            saga: Some(Saga {
                phase: Phase::Decided,
                target: candidate.clone(),
                attempts: Vec::new(),
                history,
            }),
            ..self.entry.clone()
        }
    }

    /// The handlers answered: decide, or record their veto.
    pub(super) fn vetting_ended(&mut self, ctx: &Context<'_>, id: CommandId, veto: Option<String>) {
        let Work::Vetting { id: asked, plan, .. } = &mut self.work else { return };
        let Some(token) = ctx.leadership.token().filter(|_| *asked == id) else { return };
        let mut plan = std::mem::replace(plan.as_mut(), GroupEntry::new(self.entry.master.clone()));
        self.work = Work::Idle;
        if self.death(ctx.now).is_none() || plan.history_next != self.entry.history_next + 1 {
            // The master came back, or the group changed, while the handlers were asked.
            return;
        }
        let Some(saga) = &mut plan.saga else { return };
        let serves = self.watches.get(&saga.target).is_some_and(Watch::serves);
        if !serves || self.eligible(ctx.now, &saga.target).is_err() {
            // The candidate fell out meanwhile: another election finds the next one.
            return;
        }
        saga.history.steps.push(Step {
            name: "vetted".to_owned(),
            addr: None,
            at_ms: millis(ctx.now.since(saga.history.started_at)),
            node: ctx.me.clone(),
            note: veto.clone(),
        });
        match veto {
            None => {
                let what = format!(
                    "failover of {} from {} to {} under epoch {}",
                    self.name, self.entry.master, saga.target, plan.epoch
                );
                self.propose(token, what, plan, None);
            }
            Some(reason) => {
                let mut history = saga.history.clone();
                history.outcome = Outcome::Vetoed;
                history.finished_at = Some(ctx.now);
                history.epoch = self.entry.epoch;
                history.reason = format!("a before-failover handler said no: {reason}");
                let wait = self.policy.failover_timeout;
                self.hold(
                    ctx.now + wait,
                    format!(
                        "a before-failover handler vetoed the failover: {reason}; asked again after {} s",
                        wait.as_secs_f64()
                    ),
                );
                let entry = GroupEntry { history_next: plan.history_next, ..self.entry.clone() };
                self.propose(token, format!("veto in {}", self.name), entry, Some(history));
            }
        }
    }

    /// The shell did not answer in time: handlers that are late have no say.
    pub(super) fn vetting_overdue(&mut self, ctx: &Context<'_>) {
        if let Work::Vetting { id, .. } = &self.work {
            let id = *id;
            self.vetting_ended(ctx, id, None);
        }
    }

    /// Goes on with an open failover, also one that another leader began.
    pub(super) fn drive_failover(&mut self, ctx: &Context<'_>, token: Token) {
        let Some(saga) = &self.entry.saga else { return };
        match saga.phase {
            Phase::Decided => self.drive_promotion(ctx, token),
            Phase::Promoted => self.drive_repointing(ctx, token),
        }
    }

    fn drive_promotion(&mut self, ctx: &Context<'_>, token: Token) {
        let Some(target) = self.entry.saga.as_ref().map(|saga| saga.target.clone()) else { return };
        let Work::Promoting { sent, since, unknown_at } = &self.work else {
            self.mark(ctx, "promote_sent", Some(&target), None);
            let id = self.command_promote(ctx.now, token, &target);
            self.work = Work::Promoting { sent: Some(id), since: ctx.now, unknown_at: None };
            return;
        };
        let (sent, since, unknown_at) = (*sent, *since, *unknown_at);
        let over = ctx.now >= since + self.policy.promote_timeout;
        if let Some(unknown_at) = unknown_at {
            let facts = self.watches.get(&target).and_then(Watch::facts).cloned();
            match facts.filter(|facts| facts.asked_at >= unknown_at) {
                Some(facts) if facts.is_master() => {
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
                Some(_) => {}
                None => {
                    if let Some(watch) = self.watches.get_mut(&target) {
                        watch.ask(ctx.now, unknown_at);
                    }
                }
            }
        }
        if over {
            let why = format!(
                "it was not known within {} ms whether it had become master",
                self.policy.promote_timeout.as_millis()
            );
            self.abandon(ctx, token, &target, true, why);
        }
    }

    /// The candidate must be the process that was elected: one that restarted since may have lost its data.
    fn command_promote(&mut self, now: Time, token: Token, target: &Addr) -> CommandId {
        let facts = self.watches.get(target).and_then(Watch::facts);
        let run_id = facts.and_then(|facts| facts.run_id.clone());
        self.command(now, token, target, Command::Promote { run_id })
    }

    /// A command of this group ended.
    pub(super) fn command_ended(
        &mut self,
        ctx: &Context<'_>,
        id: CommandId,
        result: CommandResult,
    ) {
        let Some(token) = ctx.leadership.token() else { return };
        if let CommandResult::Done { facts, .. } = &result
            && let Some(addr) = self.commanded_addr(id)
            && let Some(watch) = self.watches.get_mut(&addr)
        {
            watch.read(ctx.now, Facts::clone(facts));
        }
        match &mut self.work {
            Work::Promoting { sent, .. } if *sent == Some(id) => {
                *sent = None;
                let Some(target) = self.entry.saga.as_ref().map(|saga| saga.target.clone()) else {
                    return;
                };
                if !matches!(result, CommandResult::Refused(_)) {
                    self.untouched = None;
                }
                match result {
                    CommandResult::Done { facts, warnings } => {
                        self.warn(ctx.now, &target, &warnings);
                        if facts.is_master() {
                            self.promoted(ctx, token, &target, &facts);
                        } else if let Work::Promoting { unknown_at, .. } = &mut self.work {
                            *unknown_at = Some(ctx.now);
                        }
                    }
                    CommandResult::Refused(why) => {
                        // Nothing was changed by this one, but an earlier one of the same promotion may have happened:
                        // unknown, or done and not recorded, or sent by another leader.
                        let changed = self.untouched != Some(self.entry.epoch);
                        self.abandon(ctx, token, &target, changed, why);
                    }
                    CommandResult::Unknown(_) => {
                        if let Work::Promoting { unknown_at, .. } = &mut self.work {
                            *unknown_at = Some(ctx.now);
                        }
                    }
                }
            }
            Work::Repointing(work) => {
                let ended = work.active.iter_mut().find(|(_, active)| active.sent == Some(id));
                let Some((addr, active)) = ended else { return };
                active.sent = None;
                let addr = addr.clone();
                match result {
                    CommandResult::Done { warnings, .. } => {
                        work.again_at = ctx.now;
                        self.warn(ctx.now, &addr, &warnings);
                        self.mark(ctx, "repointed", Some(&addr), None);
                        let sentence = format!(
                            "{addr} was told to follow the new master {}",
                            self.entry.master
                        );
                        self.publish(ctx.now, What::Repointed { addr }, sentence);
                    }
                    CommandResult::Refused(why) | CommandResult::Unknown(why) => {
                        work.active.remove(&addr);
                        self.repoint_failed(ctx, &addr, &why);
                    }
                }
            }
            Work::Repairing { id: sent, .. } if *sent == id => {
                self.repair_ended(ctx, token, result);
            }
            Work::Idle
            | Work::Hearing { .. }
            | Work::Vetting { .. }
            | Work::Proposing { .. }
            | Work::Promoting { .. }
            | Work::Repairing { .. } => {}
        }
    }

    /// Whom a command that is on its way was sent to.
    fn commanded_addr(&self, id: CommandId) -> Option<Addr> {
        let target = || self.entry.saga.as_ref().map(|saga| saga.target.clone());
        match &self.work {
            Work::Promoting { sent, .. } if *sent == Some(id) => target(),
            Work::Repairing { id: sent, .. } if *sent == id => target(),
            Work::Repointing(work) => work
                .active
                .iter()
                .find(|(_, active)| active.sent == Some(id))
                .map(|(addr, _)| addr.clone()),
            Work::Idle
            | Work::Hearing { .. }
            | Work::Vetting { .. }
            | Work::Proposing { .. }
            | Work::Promoting { .. }
            | Work::Repairing { .. } => None,
        }
    }

    /// The candidate was seen to be master: record it.
    fn promoted(&mut self, ctx: &Context<'_>, token: Token, target: &Addr, facts: &Facts) {
        self.mark(ctx, "promoted", Some(target), Some(format!("at offset {}", facts.offset)));
        let Some(mut saga) = self.saga_so_far() else { return };
        saga.phase = Phase::Promoted;
        saga.history.new_master = Some(target.clone());
        saga.history.write_gap_ms = Some(millis(ctx.now.since(saga.history.started_at)));
        let mut entry =
            GroupEntry { master: target.clone(), saga: Some(saga), ..self.entry.clone() };
        for id in [&facts.second_replication_id, &facts.replication_id].into_iter().flatten() {
            entry.lineage.retain(|known| known != id);
            entry.lineage.insert(0, id.clone());
        }
        entry.lineage.truncate(LINEAGE_MAX);
        if let Some(known) = entry.instances.get_mut(target) {
            known.attached = true;
            known.abandoned = None;
        }
        let what = format!("{target} was promoted in {} under epoch {}", self.name, entry.epoch);
        self.propose(token, what, entry, None);
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
        self.mark(ctx, "failed", Some(target), Some(why.clone()));
        let Some(mut saga) = self.saga_so_far() else { return };
        let mut entry = self.entry.clone();
        saga.attempts.push(Attempt {
            addr: target.clone(),
            epoch: self.entry.epoch,
            changed,
            reason: why.clone(),
        });
        if changed && let Some(known) = entry.instances.get_mut(target) {
            known.abandoned = Some(self.entry.epoch);
        }
        let election =
            self.elect(ctx.now, saga.history.started_at, saga.history.started_at, &saga.attempts);
        if let Some(next) = election.chosen.filter(|_| !self.recorded_serves()) {
            entry.epoch += 1;
            saga.history.epoch = entry.epoch;
            saga.history.ranking = election.ranking;
            saga.history.bytes_possibly_lost = election.behind_bytes;
            saga.target = next.clone();
            entry.saga = Some(saga);
            let what =
                format!("{next} instead of {target} in {} under epoch {}", self.name, entry.epoch);
            self.propose(token, what, entry, None);
            return;
        }
        self.fail(ctx, token, entry, saga, &format!("{target}: {why}"));
    }

    /// A recorded master that came back while its candidates failed is a verified one: nobody else is promoted, and who
    /// was promoted beside it is demoted.
    fn recorded_serves(&self) -> bool {
        self.watches
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
        history.reason = format!(
            "{}; no candidate could be verified as the new master, the last was {why}",
            history.reason
        );
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

    /// Points the other replicas at the new master, `parallel_syncs` at a time, and verifies each.
    fn drive_repointing(&mut self, ctx: &Context<'_>, token: Token) {
        if self.watches.get(&self.entry.master).is_some_and(|watch| watch.state() == State::Down) {
            self.finish_failover(
                ctx,
                token,
                Some("the new master died while its replicas were repointed"),
            );
            return;
        }
        if !matches!(self.work, Work::Repointing(_)) {
            let waiting = self
                .watches
                .iter()
                .filter(|(addr, watch)| **addr != self.entry.master && watch.state() != State::Down)
                .filter(|(_, watch)| watch.last_reply().is_some())
                // One that was never seen attached may be somebody else's master.
                .filter(|(addr, _)| {
                    self.entry.instances.get(*addr).is_some_and(|known| known.attached)
                })
                .map(|(addr, _)| addr.clone())
                .rev()
                .collect();
            self.work = Work::Repointing(Repointing {
                since: ctx.now,
                waiting,
                active: BTreeMap::new(),
                failed: BTreeSet::new(),
                again_at: ctx.now,
            });
        }
        self.verify_links(ctx);
        self.call_returned(ctx, token);
        self.start_repoints(ctx, token);
        let Work::Repointing(work) = &mut self.work else { return };
        work.again_at = ctx.now + link_pause(&self.policy, ctx.now.since(work.since));
        let over = ctx.now >= work.since + self.policy.failover_timeout;
        if over || (work.waiting.is_empty() && work.active.is_empty()) {
            let note = over.then_some("failover_timeout passed before every replica was verified");
            self.finish_failover(ctx, token, note);
        }
    }

    fn verify_links(&mut self, ctx: &Context<'_>) {
        let Work::Repointing(work) = &mut self.work else { return };
        let mut verified = Vec::new();
        let mut failed = Vec::new();
        for (addr, active) in work.active.iter().filter(|(_, active)| active.sent.is_none()) {
            let Some(watch) = self.watches.get_mut(addr) else { continue };
            let follows =
                watch.facts().filter(|facts| facts.asked_at >= active.since).is_some_and(|facts| {
                    facts.link_up()
                        && facts.follows().and_then(|of| self.entry.instance_of(of))
                            == Some(&self.entry.master)
                });
            if follows {
                verified.push(addr.clone());
            } else if watch.state() == State::Down {
                failed.push((addr.clone(), "it went down".to_owned()));
            } else if ctx.now >= active.since + self.policy.link_timeout {
                let secs = self.policy.link_timeout.as_secs();
                failed.push((addr.clone(), format!("its link was not up within {secs} s")));
            } else {
                let pause = link_pause(&self.policy, ctx.now.since(active.since));
                watch.ask(ctx.now + pause, active.since);
            }
        }
        for addr in &verified {
            work.active.remove(addr);
        }
        for (addr, _) in &failed {
            work.active.remove(addr);
        }
        for addr in verified {
            self.mark(ctx, "link_verified", Some(&addr), None);
        }
        for (addr, why) in failed {
            self.repoint_failed(ctx, &addr, &why);
        }
    }

    fn start_repoints(&mut self, ctx: &Context<'_>, token: Token) {
        loop {
            let Work::Repointing(work) = &mut self.work else { return };
            if work.active.len() >= self.policy.parallel_syncs {
                return;
            }
            let Some(addr) = work.waiting.pop() else { return };
            self.repoint(ctx, token, addr);
        }
    }

    /// An instance that comes back as a master while others are repointed waits for nobody: a full sync of one of them
    /// may take long, and it takes writes meanwhile.
    fn call_returned(&mut self, ctx: &Context<'_>, token: Token) {
        let master = &self.entry.master;
        let is_master =
            |watch: &Watch| watch.serves() && watch.facts().is_some_and(Facts::is_master);
        let Work::Repointing(work) = &mut self.work else { return };
        if !self.watches.get(master).is_some_and(is_master) {
            return;
        }
        let returned: Vec<Addr> = self
            .watches
            .iter()
            .filter(|(addr, watch)| *addr != master && is_master(watch))
            .filter(|(addr, _)| !work.active.contains_key(*addr) && !work.failed.contains(*addr))
            .filter(|(addr, watch)| {
                self.entry.instances.get(*addr).is_some_and(|known| {
                    known.attached && (watch.returned() || known.abandoned.is_some())
                })
            })
            .map(|(addr, _)| addr.clone())
            .collect();
        work.waiting.retain(|addr| !returned.contains(addr));
        for addr in returned {
            self.repoint(ctx, token, addr);
        }
    }

    fn repoint(&mut self, ctx: &Context<'_>, token: Token, addr: Addr) {
        let master = self.entry.master.clone();
        let id = self.command(ctx.now, token, &addr, Command::Follow { master });
        if let Work::Repointing(work) = &mut self.work {
            work.active.insert(addr, Active { sent: Some(id), since: ctx.now });
        }
    }

    fn repoint_failed(&mut self, ctx: &Context<'_>, addr: &Addr, why: &str) {
        if let Work::Repointing(work) = &mut self.work {
            work.failed.insert(addr.clone());
        }
        self.mark(ctx, "failed", Some(addr), Some(format!("could not be repointed: {why}")));
        let sentence = format!(
            "{addr} could not be pointed at the new master {}: {why}; it is tried again as a repair",
            self.entry.master
        );
        self.publish(ctx.now, What::RepointFailed { addr: addr.clone() }, sentence);
    }

    /// The promotion holds; what is left over is repaired later.
    fn finish_failover(&mut self, ctx: &Context<'_>, token: Token, note: Option<&str>) {
        let Some((entry, mut history)) = self.close_saga(ctx.now, Outcome::Done) else { return };
        if let Some(note) = note {
            history.reason = format!("{}; {note}", history.reason);
        }
        self.propose(
            token,
            format!("the failover of {} is finished", self.name),
            entry,
            Some(history),
        );
    }

    /// Tells what did not work beside a command.
    pub(super) fn warn(&mut self, now: Time, addr: &Addr, warnings: &[String]) {
        for warning in warnings {
            let sentence = format!("{addr}: {warning}");
            self.publish(now, What::Warned { addr: Some(addr.clone()) }, sentence);
        }
    }
}
