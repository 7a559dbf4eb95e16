//! Replacing a dead master: hear the replicas, elect, ask the handlers, decide, promote, verify, record, tell, repoint.
//!
//! Each function is one phase. What a phase leaves behind for the next leader is in the record; a time-out of a command
//! is *unknown*, never *failed*.

use super::corroborate::{Hearing, Verdict, hear};
use super::diagnose::death_in_words;
use super::elect::{Contest, Election, elect};
use super::{Context, Diagnosis, Group, Veto, Work};
use crate::action::Action;
use crate::addr::Addr;
use crate::event::{CommandId, CommandResult};
use crate::instance::Facts;
use crate::node::Token;
use crate::notice::What;
use crate::record::{Attempt, GroupEntry, HistoryEntry, Kind, Outcome, Phase, Saga, Step};
use crate::time::{Time, millis};
use crate::watch::{Death, Watch};

mod asking;
mod promote;
mod repoint;

pub(super) use repoint::Repointing;

/// Nothing is begun until a moment, for a reason.
#[derive(Debug)]
pub(super) struct Hold {
    pub(super) until: Time,
    pub(super) why: String,
    /// After a failed failover, its candidates: one that is not among them ends the hold. Empty after a veto.
    pub(super) tried: Vec<Attempt>,
}

impl Hold {
    /// A candidate that went away may come back able to take over. Returns whether nothing is left to wait for.
    pub(super) fn release(&mut self, addr: &Addr) -> bool {
        let failed = !self.tried.is_empty();
        self.tried.retain(|attempt| attempt.addr != *addr);
        failed && self.tried.is_empty()
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
        let agreement = self.agreement(ctx, token, sign);
        let timeout = self.policy.corroboration_timeout;
        let (seen, asked, first) = match &self.work {
            Work::Hearing { seen, asked, .. } => (*seen, *asked, false),
            Work::Idle
            | Work::Vetting { .. }
            | Work::Proposing { .. }
            | Work::Resuming { .. }
            | Work::Promoting { .. }
            | Work::Repointing(_)
            | Work::Repairing { .. } => (ctx.now, down, true),
        };
        // Answers grow old: after a wait, for a veto or a candidate or a commit, everyone is asked anew.
        let old = match death {
            // Those who still have the data may be wiped by now. What takes long to arrive is no older for that.
            Death::Emptied => (timeout / 4 + self.slowest_answer()).min(timeout * 2),
            Death::Refusing | Death::Hung | Death::Unreachable | Death::Loading => timeout * 2,
        };
        // A path that is whole again was perhaps cut for its replicas too, and they have by now what they missed.
        let reached = self.watches.get(&self.entry.master).and_then(Watch::reached_at);
        let missed = reached.is_some_and(|reached| reached > asked);
        let asked = if missed || ctx.now > asked + old { ctx.now } else { asked };
        // What they said while the master was only silent is no word about its end. When a connection ends they are asked
        // at once, a moment before its host is heard to refuse another.
        let refused = self.watches.get(&self.entry.master).and_then(Watch::refused_since);
        let asked = refused.map_or(asked, |refused| asked.max(refused - timeout));
        // Whoever was not asked anew yet, when the host was first heard to refuse, gets the time to answer. While something
        // else held the group up nobody was asked, however long ago the host refused.
        let waited = refused.map_or(asked, |refused| asked.max(refused)).max(seen) + timeout;
        let mut again_at =
            if ctx.now < waited { waited } else { ctx.now + self.policy.check_interval };
        let verdict = hear(&Hearing {
            entry: &self.entry,
            watches: &self.watches,
            policy: &self.policy,
            peers: &self.peers,
            death,
            sign,
            down: asked,
            patient_until: waited,
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
                self.veto = Some(Veto { quorum_lost: false, why });
                for (addr, watch) in &mut self.watches {
                    if *addr != self.entry.master {
                        watch.ask(at, ctx.now);
                    }
                }
                Some(because)
            }
            Verdict::Dead => match agreement.missing {
                None => {
                    self.veto = None;
                    let held = match self.held_back(ctx.now, death, sign) {
                        None if death == Death::Emptied && self.awaits_emptied(ctx.now) => {
                            let why = "the master is asked once more how much it holds";
                            Some((again_at, why.to_owned()))
                        }
                        held => held,
                    };
                    let Some((until, why)) = held else {
                        return self.elect_and_vet(ctx, token, death, (sign, seen, asked));
                    };
                    again_at = again_at.min(until);
                    Some(why)
                }
                Some(missing) => {
                    if ctx.now >= seen + timeout {
                        self.veto =
                            Some(Veto { quorum_lost: agreement.silent, why: missing.clone() });
                    }
                    Some(missing)
                }
            },
        };
        if let Some(at) = agreement.again_at {
            again_at = again_at.min(at);
        }
        self.work = Work::Hearing { seen, asked, again_at };
        because
    }

    /// Nothing speaks against the master's death: choose, and ask the handlers.
    fn elect_and_vet(
        &mut self,
        ctx: &Context<'_>,
        token: Token,
        death: Death,
        (sign, seen, asked): (Time, Time, Time),
    ) -> Option<String> {
        let tried = self.hold.as_ref().map_or(&[][..], |hold| hold.tried.as_slice());
        let election = self.elect(ctx.now, sign, Some(asked), tried);
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
            if reasons.is_empty() {
                return Some(
                    "no other instance of the group is known: nobody can be promoted".to_owned(),
                );
            }
            return Some(format!(
                "no replica can be promoted: {}; it is tried again as soon as that changes{}",
                reasons.join("; "),
                self.way_out(&election)
            ));
        };
        if death == Death::Loading && self.awaits_loading(ctx.now) {
            let again_at = ctx.now + self.policy.corroboration_timeout;
            self.work = Work::Hearing { seen, asked, again_at };
            return Some("the master is asked whether it still reads its data".to_owned());
        }
        if let Some(again_at) = self.awaits_end_of_copy(ctx.now, death, &candidate) {
            self.work = Work::Hearing { seen, asked, again_at };
            return Some("who copied from the master is asked what it has left".to_owned());
        }
        if let Some(again_at) = self.votes_are_old(ctx, token, sign) {
            self.work = Work::Hearing { seen, asked, again_at };
            return Some("the other voters are asked whether the master is still down".to_owned());
        }
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
        let revision = self.revision;
        self.work = Work::Vetting { id, plan: Box::new(plan), revision, deadline: overdue };
        None
    }

    /// What a person can do when nobody can be promoted and somebody serves all the same.
    fn way_out(&self, election: &Election) -> String {
        let serving = election.ranking.iter().find(|place| self.could_serve(&place.addr));
        let Some(place) = serving else { return String::new() };
        format!(
            "; whoever knows that nothing is lost by it, or that it does not matter, promotes {addr} with \
             POST /v1/groups/{}/failover {{\"to\":\"{addr}\",\"force\":true}}",
            self.name,
            addr = place.addr
        )
    }

    fn elect(
        &self,
        now: Time,
        sign: Time,
        read_after: Option<Time>,
        tried: &[Attempt],
    ) -> Election {
        elect(&Contest { tried, dead_since: sign, read_after, ..self.contest_at(now) })
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
            epoch: self.entry.epoch + 1,
            // The diagnosis that is shown may be from before the death, or be about the replicas.
            cause: Diagnosis::of_death(death).name().to_owned(),
            started_at: sign,
            bytes_possibly_lost: election.behind_bytes,
            steps: vec![at("first_sign", sign), at("down", seen), at("dead_agreed", ctx.now)],
            ranking: election.ranking,
            ..self.new_history((ctx.now, ctx.me), Kind::Failover, reason)
        };
        GroupEntry {
            epoch: self.entry.epoch + 1,
            history_next: self.entry.history_next + 1,
            saga: Some(Saga {
                phase: Phase::Decided,
                target: candidate.clone(),
                target_run_id: self.run_id_of(ctx.now, candidate),
                deadline: None,
                forced: false,
                promoted_at: None,
                attempts: Vec::new(),
                history,
            }),
            ..self.entry.clone()
        }
    }

    /// The hooks were asked.
    pub fn vetted(&mut self, ctx: &Context<'_>, id: CommandId, veto: Option<String>) {
        self.vetting_ended(ctx, id, veto);
        self.step(ctx);
    }

    /// The handlers answered: decide, or record their veto.
    fn vetting_ended(&mut self, ctx: &Context<'_>, id: CommandId, veto: Option<String>) {
        let Work::Vetting { id: asked, plan, revision, .. } = &mut self.work else { return };
        let Some(token) = ctx.leadership.token().filter(|_| *asked == id) else { return };
        let mut plan = std::mem::replace(plan.as_mut(), GroupEntry::new(self.entry.master.clone()));
        let made_from = *revision;
        self.work = Work::Idle;
        let target = plan.saga.as_ref().map(|saga| (&saga.target, &saga.target_run_id));
        let fits = target.is_some_and(|(target, run_id)| {
            self.death(ctx.now).is_some()
                && made_from == self.revision
                && self.run_id_of(ctx.now, target) == *run_id
        });
        if !fits {
            // The master came back, the group changed, or the candidate did, while the handlers were asked.
            self.vet_again_later(ctx.now);
            return;
        }
        let Some(saga) = &mut plan.saga else { return };
        let serves = self.watches.get(&saga.target).is_some_and(Watch::serves)
            || self.reached_by(ctx.now, &saga.target).is_some();
        if !serves || self.eligible(ctx.now, &saga.target).is_err() {
            // The candidate fell out meanwhile: another election finds the next one.
            self.vet_again_later(ctx.now);
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

    /// Handlers are not asked as fast as they can answer, whatever comes of it.
    fn vet_again_later(&mut self, now: Time) {
        let why =
            "the handlers are asked again: the group changed while they were asked".to_owned();
        self.again = Some((now + self.policy.corroboration_timeout / 4, why));
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
            Phase::Demoting | Phase::Undoing => self.drive_switchover(ctx, token),
        }
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
        if let CommandResult::Unknown(_) = result
            && let Some(addr) = self.commanded_addr(id)
            && let Some(watch) = self.watches.get_mut(&addr)
            && watch.facts().is_some_and(|facts| facts.run_id.is_none())
        {
            // Its connection is gone, and a process without a name may be another one by now.
            watch.ended(ctx.now);
        }
        if self.switching_ended(ctx, id, &result) || self.fence_ended(ctx, token, id, &result) {
            return;
        }
        match &self.work {
            Work::Promoting { sent, .. } if *sent == Some(id) => {
                self.promotion_ended(ctx, token, result);
            }
            Work::Repointing(_) => self.repoint_ended(ctx, id, result),
            Work::Repairing { id: sent, .. } if *sent == id => {
                self.repair_ended(ctx, token, result);
            }
            Work::Idle
            | Work::Hearing { .. }
            | Work::Vetting { .. }
            | Work::Proposing { .. }
            | Work::Resuming { .. }
            | Work::Promoting { .. }
            | Work::Repairing { .. } => {}
        }
    }

    /// This node did not send a command, and either will not lead any more in a moment or can send it again.
    pub(super) fn put_off(&mut self, now: Time, why: &str) {
        let why = format!("a command was not sent: {why}");
        self.again = Some((now + self.policy.corroboration_timeout, why));
    }

    /// Whom a command that is on its way was sent to.
    fn commanded_addr(&self, id: CommandId) -> Option<Addr> {
        if let Some(addr) = self.switching.as_ref().and_then(|switching| switching.sent_to(id)) {
            return Some(addr.clone());
        }
        if let Some(addr) = self.fencing.sent_to(id) {
            return Some(addr.clone());
        }
        let target = || self.entry.saga.as_ref().map(|saga| saga.target.clone());
        match &self.work {
            Work::Promoting { sent, .. } if *sent == Some(id) => target(),
            Work::Repairing { id: sent, .. } if *sent == id => target(),
            Work::Repointing(work) => work.sent_to(id).cloned(),
            Work::Idle
            | Work::Hearing { .. }
            | Work::Vetting { .. }
            | Work::Proposing { .. }
            | Work::Resuming { .. }
            | Work::Promoting { .. }
            | Work::Repairing { .. } => None,
        }
    }

    /// Tells what did not work beside a command.
    pub(super) fn warn(&mut self, now: Time, addr: &Addr, warnings: &[String]) {
        for warning in warnings {
            let sentence = format!("{addr}: {warning}");
            self.publish(now, What::Warned { addr: Some(addr.clone()) }, sentence);
        }
    }
}
