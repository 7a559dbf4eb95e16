//! Bringing stragglers back: an instance that returned as a master, and a replica that missed its repointing.
//!
//! A repair is decided, recorded, carried out and recorded again like a failover, one at a time per group. Nothing is
//! repaired unless the recorded master answers as a master.

use super::identity::follows_recorded;
use super::window::clients_cut;
use super::{Context, Group, Work};
use crate::action::Command;
use crate::addr::Addr;
use crate::event::CommandResult;
use crate::instance::Facts;
use crate::mutation::Mutation;
use crate::node::Token;
use crate::record::{GroupEntry, HistoryEntry, Kind, Outcome, Phase, Saga, Step};
use crate::time::Time;
use crate::view::How;
use crate::watch::Watch;

mod failing;
mod wrong;

pub(super) use failing::Failing;
use failing::waits_after_failure;
pub(super) use wrong::Wrong;

/// So many instances that are left alone are named in one sentence.
const REASONS_MAX: usize = 3;

/// One that was seen to follow the recorded master.
#[derive(Debug)]
pub(super) struct Settled {
    /// The name that it had for it.
    of: Addr,
    /// The process that it was.
    run_id: Option<Box<str>>,
    /// Since when it had answered.
    since: Time,
}

impl Group {
    /// Repairs one instance, if one needs it; the sentence says why one that looks wrong is left alone.
    pub(super) fn consider_repair(&mut self, ctx: &Context<'_>, token: Token) -> Option<String> {
        if let Some(why) = self.restart_in_doubt() {
            return Some(why);
        }
        let master = self.watches.get(&self.entry.master)?;
        let master_facts = master.facts().filter(|facts| facts.is_master())?;
        let (master_serves, master_read_at) = (master.serves(), master_facts.asked_at);
        let wrongs: Vec<(Addr, Wrong)> = self
            .watches
            .iter()
            .filter(|(addr, watch)| **addr != self.entry.master && watch.serves())
            .filter_map(|(addr, watch)| {
                Some((addr.clone(), self.wrong_with(ctx, addr, watch, watch.facts()?)))
            })
            .collect();
        let drifts = |addr: &Addr| {
            wrongs.iter().any(|(other, wrong)| other == addr && matches!(wrong, Wrong::Drift(..)))
        };
        self.drifts.retain(|addr, _| drifts(addr));
        let mut because: Vec<String> = Vec::new();
        let mut chosen: Option<(Addr, Kind, String, bool)> = None;
        for (addr, wrong) in wrongs {
            let drift = matches!(wrong, Wrong::Drift(..));
            let wrong = match wrong {
                Wrong::Drift(kind, why) => self.judge_drift(ctx.now, &addr, kind, why),
                Wrong::Nothing | Wrong::LeaveAlone(_) | Wrong::Repair(..) => wrong,
            };
            let (kind, why) = match wrong {
                Wrong::Nothing => continue,
                Wrong::LeaveAlone(why) | Wrong::Drift(_, why) => {
                    because.push(why);
                    continue;
                }
                Wrong::Repair(kind, why) => (kind, why),
            };
            if self.awaits_count(ctx.now, &addr) {
                because.push(format!("{why}; it and the master are asked how much they hold"));
                continue;
            }
            if let Some(keys) = self.would_be_missed(&addr) {
                because.push(self.left_with_its_keys(&addr, keys));
                continue;
            }
            let left = match kind == Kind::Demotion {
                true => Mutation::NobodyDemoted,
                false => Mutation::NobodyRepointed,
            };
            if self.policy.has(left) {
                continue;
            }
            if self.is_failing(ctx.now, &addr, kind) {
                because.push(waits_after_failure(&addr, &why));
            } else if let Some(other) =
                self.is_copying(ctx.now, &addr).filter(|_| kind == Kind::Repair)
            {
                because.push(format!("{why}; it waits until {other} has its copy"));
            } else if chosen.is_none() || kind == Kind::Demotion {
                // A second master takes writes that will be lost; a replica of the wrong one only lags.
                chosen = Some((addr, kind, why, drift));
            }
        }
        let Some((addr, kind, why, drift)) = chosen else {
            because.truncate(REASONS_MAX);
            return (!because.is_empty()).then(|| because.join("; "));
        };
        if !master_serves {
            return Some(format!(
                "{why}; nobody is told to follow {} before it answers",
                self.entry.master
            ));
        }
        // The master must have answered as one after the instance was seen; an older word may be from before a switch. And
        // it must have been asked a moment ago: an answer that was long on its way says nothing of now.
        let seen_at = self.watches.get(&addr).map(Watch::standing_since)?;
        let seen_at = seen_at.max(ctx.now - self.policy.testimony_age_max);
        let seen_at = if drift { seen_at.max(self.ripe_since(&addr)) } else { seen_at };
        if master_read_at < seen_at {
            if let Some(master) = self.watches.get_mut(&self.entry.master) {
                master.ask(ctx.now, seen_at);
            }
            return Some(format!("{why}; the recorded master is asked first"));
        }
        self.begin_repair(ctx, token, &addr, kind, why, drift);
        None
    }

    /// Notes who is where it belongs, and who is away. One that follows another from there on was told to by hand; one that was away,
    /// or was never there, was left behind by a failover.
    pub(super) fn note_settled(&mut self) {
        for (addr, watch) in &self.watches {
            let another = |before: &Settled| {
                // A process without a name may be another one whenever its connection ended.
                let since = watch.answers_since();
                watch.facts().is_some_and(|facts| {
                    let nameless = facts.run_id.is_none() && since > before.since;
                    facts.run_id != before.run_id || nameless
                })
            };
            if self.settled.get(addr).is_some_and(another) {
                // It was away, however short: another process of it, or another server.
                self.settled.remove(addr);
            }
            if watch.away() {
                self.settled.remove(addr);
                // Whatever made its last repair fail may be gone when it comes back.
                self.failing.remove(addr);
                self.hold.take_if(|hold| hold.release(addr));
            } else if watch.serves()
                && let Some(facts) = watch.facts()
                && facts.asked_at >= watch.answers_since()
                && follows_recorded(&self.entry, &self.watches, addr, facts)
            {
                let of = facts.follows().unwrap_or(&self.entry.master);
                if facts.link_up() || !self.settled.contains_key(addr) {
                    let settled = Settled {
                        of: of.clone(),
                        run_id: facts.run_id.clone(),
                        since: watch.answers_since(),
                    };
                    self.settled.insert(addr.clone(), settled);
                }
            }
        }
    }

    fn begin_repair(
        &mut self,
        ctx: &Context<'_>,
        token: Token,
        addr: &Addr,
        kind: Kind,
        why: String,
        drift: bool,
    ) {
        // To make the recorded master one again is a promotion like any other.
        let epoch = self.entry.epoch + u64::from(*addr == self.entry.master);
        let watch = self.watches.get(addr);
        let window = self.windows.get(addr).filter(|_| kind == Kind::Demotion);
        let (name, started_at, note) = match window {
            Some(window) => ("returned", window.seen_at(), Some(window.beginning())),
            None if kind == Kind::Demotion => ("returned", ctx.now, None),
            None => {
                let since = watch.map_or(ctx.now, |watch| watch.since().max(self.diagnosed_at));
                ("first_sign", since, None)
            }
        };
        let started_at = started_at.min(ctx.now);
        let history = HistoryEntry {
            epoch,
            old_master: addr.clone(),
            new_master: Some(self.entry.master.clone()),
            started_at,
            steps: vec![Step {
                name: name.to_owned(),
                addr: Some(addr.clone()),
                at_ms: 0.0,
                node: ctx.me.clone(),
                note,
            }],
            ..self.new_history((ctx.now, ctx.me), kind, why.clone())
        };
        let mut entry = GroupEntry {
            epoch,
            history_next: self.entry.history_next + 1,
            drifts_undone: match drift {
                true => self.drifts_with(ctx.now),
                false => self.entry.drifts_undone.clone(),
            },
            saga: Some(Saga {
                phase: Phase::Decided,
                target: addr.clone(),
                target_run_id: None,
                deadline: None,
                forced: false,
                promoted_at: None,
                attempts: Vec::new(),
                history,
            }),
            ..self.entry.clone()
        };
        if let Some(known) = entry.instances.get_mut(addr) {
            known.copy = self.copy_decided(addr);
        }
        self.propose(token, format!("repair in {}: {why}", self.name), entry, None);
    }

    /// Goes on with an open repair, also one that another leader began.
    pub(super) fn drive_repair(&mut self, ctx: &Context<'_>, token: Token) {
        let Some(target) = self.entry.saga.as_ref().map(|saga| saga.target.clone()) else { return };
        if self.death(ctx.now).is_some() {
            // A dead master comes first; nobody is pointed at it.
            self.end_repair(ctx, token, &target, Err("the recorded master died".to_owned()));
            return;
        }
        if !matches!(self.work, Work::Repairing { .. })
            && let Some(why) = self.restart_in_doubt()
        {
            self.end_repair(ctx, token, &target, Err(why));
            return;
        }
        // Another leader decided it, perhaps, and somebody may have been made a master since.
        if !matches!(self.work, Work::Repairing { .. }) && target == self.entry.master {
            if !self.everyone_was_asked(ctx.now, self.led_since) {
                return;
            }
            if let Some(other) = self.rival(ctx.now) {
                let why = format!("{other} became a master meanwhile");
                self.end_repair(ctx, token, &target, Err(why));
                return;
            }
        }
        match &self.work {
            Work::Repairing { unknown_at: Some(since), .. }
                if self.is_repaired(&target, *since) =>
            {
                self.end_repair(ctx, token, &target, Ok(Repaired { facts: None, cut: false }));
            }
            Work::Repairing { deadline, .. } if ctx.now < *deadline => {}
            Work::Repairing { unknown_at, .. } => {
                let why = match unknown_at {
                    Some(_) => format!(
                        "it was not known within {} ms whether it had been done",
                        self.policy.promote_timeout.as_millis()
                    ),
                    None => "the command did not end".to_owned(),
                };
                self.end_repair(ctx, token, &target, Err(why));
            }
            Work::Idle
            | Work::Hearing { .. }
            | Work::Vetting { .. }
            | Work::Proposing { .. }
            | Work::Resuming { .. }
            | Work::Promoting { .. }
            | Work::Repointing(_) => {
                let master = self.entry.master.clone();
                // Another leader decided it, perhaps, and the master it had seen may be gone with it.
                let watch = self.watches.get(&master).filter(|watch| watch.serves());
                let facts = watch.and_then(Watch::facts);
                let read = facts.filter(|facts| facts.asked_at >= self.led_since);
                let is_one = |facts: &Facts| match target == master {
                    // One that takes no writes is still to be made what it should be.
                    true => facts.takes_writes(),
                    false => facts.is_master(),
                };
                let found = read.map(is_one);
                if found == Some(true) && target != master {
                    // It started anew since this was decided, and does not say how much it holds before it has read that.
                    if self.watches.get(&target).is_some_and(|watch| watch.how() == How::Loading) {
                        let why = format!("{target} reads its data");
                        self.end_repair(ctx, token, &target, Err(why));
                        return;
                    }
                    // Another leader decided it, perhaps, and the master has lost what it had since.
                    if self.awaits_count(ctx.now, &target) {
                        return;
                    }
                    if let Some(keys) = self.would_be_missed(&target) {
                        let why = self.left_with_its_keys(&target, keys);
                        self.end_repair(ctx, token, &target, Err(why));
                        return;
                    }
                }
                let id = match (found, target == master) {
                    (Some(true), false) => match self.command_return(ctx, token, &target) {
                        Ok(Some(id)) => id,
                        Ok(None) => return,
                        Err(why) => {
                            self.end_repair(ctx, token, &target, Err(why));
                            return;
                        }
                    },
                    (Some(false), true) => {
                        let run_id = self.run_id_of(ctx.now, &master);
                        let fence = self.promoted_fence(&master);
                        let offset = self.facts_of(ctx.now, &master).map(|facts| facts.offset);
                        let at_least = self.offset_of_nameless(&run_id, offset);
                        let promote = Command::Promote { run_id, at_least, fence };
                        self.command(ctx.now, token, &master, promote)
                    }
                    (Some(true), true) => {
                        self.end_repair(
                            ctx,
                            token,
                            &target,
                            Ok(Repaired { facts: None, cut: false }),
                        );
                        return;
                    }
                    (Some(false), false) => {
                        let why = format!("the recorded master {master} reports to be a replica");
                        self.end_repair(ctx, token, &target, Err(why));
                        return;
                    }
                    (None, _) => {
                        // One that answers that it loads says so as often as it is asked.
                        let loads = |watch: &Watch| {
                            !watch.serves()
                                && watch.last_reply().is_some_and(|at| at >= self.led_since)
                        };
                        if let Some(watch) =
                            self.watches.get_mut(&master).filter(|watch| !loads(watch))
                        {
                            watch.ask(ctx.now, self.led_since);
                        }
                        return;
                    }
                };
                let deadline = ctx.now + self.policy.command_timeout * 2;
                self.work = Work::Repairing { id, deadline, unknown_at: None };
            }
        }
    }

    /// The command of a repair ended.
    pub(super) fn repair_ended(&mut self, ctx: &Context<'_>, token: Token, result: CommandResult) {
        let Some(target) = self.entry.saga.as_ref().map(|saga| saga.target.clone()) else { return };
        let cut = clients_cut(&result);
        let end = match result {
            CommandResult::Done { facts, warnings } => {
                self.warn(ctx.now, &target, &warnings);
                if self.note_parted(ctx, &target, &facts) {
                    self.work = Work::Idle;
                    return;
                }
                let is_one = match target == self.entry.master {
                    true => facts.takes_writes(),
                    false => facts.is_master(),
                };
                match (is_one, target == self.entry.master) {
                    (true, false) => {
                        Err("it is a master still after it was told to follow".to_owned())
                    }
                    (false, true) => {
                        Err("it is a replica still after it was made a master again".to_owned())
                    }
                    (true, true) | (false, false) => Ok(Repaired { facts: Some(facts), cut }),
                }
            }
            CommandResult::NotSent(why) => {
                self.put_off(ctx.now, &why);
                self.work = Work::Idle;
                return;
            }
            CommandResult::Refused(why) => Err(why),
            CommandResult::Unknown(_) => {
                // A server that writes its file for longer than the command may take has done it: its role will tell.
                if let Work::Repairing { deadline, unknown_at, .. } = &mut self.work {
                    *deadline = ctx.now + self.policy.promote_timeout;
                    *unknown_at = Some(ctx.now);
                }
                if let Some(watch) = self.watches.get_mut(&target) {
                    watch.ask(ctx.now, ctx.now);
                }
                return;
            }
        };
        self.end_repair(ctx, token, &target, end);
    }

    /// Whether an instance was read since a moment, and is what it should be.
    fn is_repaired(&self, addr: &Addr, since: Time) -> bool {
        if *addr != self.entry.master {
            return self.follows(addr, since) && !self.is_to_be_parted(addr);
        }
        let facts = self.watches.get(addr).and_then(Watch::facts);
        facts.is_some_and(|facts| facts.asked_at >= since && facts.takes_writes())
    }

    /// Whether an instance was read since a moment and follows the recorded master.
    pub(super) fn follows(&self, addr: &Addr, since: Time) -> bool {
        let facts = self.watches.get(addr).and_then(Watch::facts);
        facts
            .filter(|facts| facts.asked_at >= since)
            .and_then(Facts::follows)
            .is_some_and(|of| self.entry.instance_of(of) == Some(&self.entry.master))
    }

    fn end_repair(
        &mut self,
        ctx: &Context<'_>,
        token: Token,
        target: &Addr,
        end: Result<Repaired, String>,
    ) {
        let kind = self.entry.saga.as_ref().map(|saga| saga.history.kind);
        let (outcome, window) = match &end {
            Ok(followed) => {
                let window = self.close_window(ctx.now, target, followed.facts.as_deref());
                let step = match kind == Some(Kind::Repair) {
                    true if *target == self.entry.master => "promoted",
                    true => "repointed",
                    false => "demoted",
                };
                if kind == Some(Kind::Repair) && *target != self.entry.master {
                    self.copying = Some((target.clone(), ctx.now));
                }
                self.mark(ctx, step, Some(target), window.as_ref().map(|(note, _)| note.clone()));
                if followed.cut {
                    self.mark(ctx, "clients_cut", Some(target), None);
                }
                (Outcome::Done, window)
            }
            Err(why) => {
                self.mark(ctx, "failed", Some(target), Some(why.clone()));
                (Outcome::Failed, None)
            }
        };
        let Some((mut entry, mut history)) = self.close_saga(ctx.now, outcome) else { return };
        if let Some((note, bytes)) = window {
            history.reason = format!("{}; {note}", history.reason);
            history.bytes_possibly_lost = bytes;
        }
        if let Ok(followed) = &end {
            // One that follows, and did not say that it was told to, may have restarted, with what it had.
            let told = followed.facts.is_some() || !self.owes_copy(target);
            let told = if told { std::slice::from_ref(target) } else { &[] };
            self.note_copies(ctx.now, &mut entry, told);
            self.failing.remove(target);
        } else {
            self.note_failure(ctx.now, target, kind.unwrap_or(Kind::Repair));
        }
        if let Err(why) = &end {
            history.reason = format!("{}; it failed: {why}", history.reason);
        } else if let Some(known) = entry.instances.get_mut(target) {
            known.abandoned = None;
        }
        if let Some(watch) = self.watches.get_mut(target) {
            watch.ask(ctx.now, ctx.now);
        }
        self.propose(token, format!("repair in {} ended", self.name), entry, Some(history));
    }
}

/// An instance was made what it should be.
struct Repaired {
    /// What it reported right after; `None` when that was read later only.
    facts: Option<Box<Facts>>,
    /// Its clients were cut off with it.
    cut: bool,
}
