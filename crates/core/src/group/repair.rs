//! Bringing stragglers back: an instance that returned as a master, and a replica that missed its repointing.
//!
//! A repair is decided, recorded, carried out and recorded again like a failover, one at a time per group. Nothing is
//! repaired unless the recorded master answers as a master.

use super::identity::{follows_recorded, same_process};
use super::{Context, Group, Work};
use crate::addr::Addr;
use crate::event::CommandResult;
use crate::instance::{Facts, Role};
use crate::node::Token;
use crate::record::{GroupEntry, HistoryEntry, Kind, Outcome, Phase, Saga, Step};
use crate::time::Time;
use crate::view::State;
use crate::watch::Watch;

/// From the third failure on a repair waits twice as long each time, up to 2^6 times `repair_interval`.
const PAUSE_DOUBLINGS_MAX: u32 = 6;

impl Group {
    /// Repairs one instance, if one needs it; the sentence says why one that looks wrong is left alone.
    pub(super) fn consider_repair(&mut self, ctx: &Context<'_>, token: Token) -> Option<String> {
        if let Some(why) = self.restart_in_doubt() {
            return Some(why);
        }
        let master = self.watches.get(&self.entry.master)?;
        let master_facts = master.facts().filter(|facts| facts.is_master() && master.serves())?;
        let master_read_at = master_facts.asked_at;
        let mut because = None;
        let mut chosen: Option<(Addr, Kind, String)> = None;
        for (addr, watch) in self.watches.iter().filter(|(addr, _)| **addr != self.entry.master) {
            let Some(facts) = watch.facts().filter(|_| watch.serves()) else { continue };
            match self.wrong_with(addr, watch, facts) {
                Wrong::Nothing => {}
                Wrong::LeaveAlone(why) => because = Some(why),
                Wrong::Repair(kind, why) => {
                    let paused = self.repairs.get(addr).is_some_and(|(until, _)| ctx.now < *until);
                    if paused {
                        because = Some(format!(
                            "the last repair of {addr} failed, the next one waits: {why}"
                        ));
                    } else if chosen.is_none() {
                        chosen = Some((addr.clone(), kind, why));
                    }
                }
            }
        }
        let Some((addr, kind, why)) = chosen else { return because };
        // The master must have answered as one after the instance was seen; an older word may be from before a switch.
        let seen_at = self.watches.get(&addr).map(Watch::standing_since)?;
        if master_read_at < seen_at {
            if let Some(master) = self.watches.get_mut(&self.entry.master) {
                master.ask(ctx.now, seen_at);
            }
            return Some(format!("{why}; the recorded master is asked first"));
        }
        self.begin_repair(ctx, token, &addr, kind, why);
        None
    }

    fn wrong_with(&self, addr: &Addr, watch: &Watch, facts: &Facts) -> Wrong {
        let master = &self.entry.master;
        let Some(known) = self.entry.instances.get(addr) else { return Wrong::Nothing };
        match &facts.role {
            Role::Master { .. } if self.is_the_master_itself(facts) => Wrong::Nothing,
            Role::Master { .. } if known.abandoned.is_some() => Wrong::Repair(
                Kind::Demotion,
                format!(
                    "{addr} became master by a promotion that was given up, while {master} is the recorded one"
                ),
            ),
            Role::Master { .. } if !known.attached => Wrong::LeaveAlone(format!(
                "{addr} is a master that was never seen attached to this group"
            )),
            Role::Master { .. } if watch.returned() => Wrong::Repair(
                Kind::Demotion,
                format!("{addr} returned as a master, while {master} is the recorded one"),
            ),
            Role::Master { .. } => Wrong::LeaveAlone(format!(
                "{addr} was made a master by hand; changes made by hand are reported, not undone"
            )),
            Role::Replica { .. } if follows_recorded(&self.entry, &self.watches, addr, facts) => {
                Wrong::Nothing
            }
            Role::Replica { master: of, .. } => {
                let Some(of) = self.entry.instance_of(of) else {
                    return if known.attached && self.is_straggler(facts) {
                        Wrong::Repair(
                            Kind::Repair,
                            format!(
                                "{addr} follows {of}, where the group's master was, and not {master}"
                            ),
                        )
                    } else {
                        Wrong::LeaveAlone(format!(
                            "{addr} was pointed at {of}, which is not of this group; \
                             changes made by hand are reported, not undone"
                        ))
                    };
                };
                let chained = self.watches.get(of).is_some_and(|watch| {
                    watch.state() == State::Up
                        && watch
                            .facts()
                            .and_then(Facts::follows)
                            .and_then(|of| self.entry.instance_of(of))
                            == Some(master)
                });
                if chained && (self.settled.contains(addr) || !known.attached) {
                    Wrong::LeaveAlone(format!(
                        "{addr} follows {of}, itself a replica: a chain is reported, not changed"
                    ))
                } else {
                    Wrong::Repair(
                        Kind::Repair,
                        format!(
                            "{addr} follows {of}, which is not the master any more, and not {master}"
                        ),
                    )
                }
            }
        }
    }

    /// Whether it is the recorded master under another address.
    fn is_the_master_itself(&self, facts: &Facts) -> bool {
        let master = self.watches.get(&self.entry.master).and_then(Watch::facts);
        master.is_some_and(|master| same_process(master, facts))
    }

    /// Whether it is still on a history that the group's master left behind, so that it missed a failover.
    fn is_straggler(&self, facts: &Facts) -> bool {
        let older = self.entry.lineage.get(1..).unwrap_or_default();
        !facts.link_up() && facts.replication_id.as_ref().is_some_and(|id| older.contains(id))
    }

    /// Notes who is where it belongs, and who is away. One that follows another from there on was told to by hand; one that was away,
    /// or was never there, was left behind by a failover.
    pub(super) fn note_settled(&mut self) {
        for (addr, watch) in &self.watches {
            if watch.away() {
                self.settled.remove(addr);
                // Whatever made its last repair fail may be gone when it comes back.
                self.repairs.remove(addr);
                self.hold.take_if(|hold| hold.release(addr));
            } else if watch.serves()
                && let Some(facts) = watch.facts()
                && facts.asked_at >= watch.answers_since()
                && follows_recorded(&self.entry, &self.watches, addr, facts)
            {
                self.settled.insert(addr.clone());
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
    ) {
        let started_at = self
            .watches
            .get(addr)
            .map(|watch| watch.since().max(self.diagnosed_at))
            .unwrap_or(ctx.now)
            .min(ctx.now);
        let name = match kind {
            Kind::Demotion => "returned",
            Kind::Repair
            | Kind::Failover
            | Kind::ManualFailover
            | Kind::Switchover
            | Kind::Adoption
            | Kind::ReplicaEvent => "first_sign",
        };
        let history = HistoryEntry {
            id: format!("{}-{}", self.name, self.entry.history_next),
            kind,
            epoch: self.entry.epoch,
            old_master: addr.clone(),
            new_master: Some(self.entry.master.clone()),
            cause: self.diagnosis.name().to_owned(),
            reason: why.clone(),
            outcome: Outcome::Running,
            started_at,
            finished_at: None,
            leader: ctx.me.clone(),
            write_gap_ms: None,
            bytes_possibly_lost: None,
            steps: vec![Step {
                name: name.to_owned(),
                addr: Some(addr.clone()),
                at_ms: 0.0,
                node: ctx.me.clone(),
                note: None,
            }],
            ranking: Vec::new(),
        };
        let entry = GroupEntry {
            history_next: self.entry.history_next + 1,
            saga: Some(Saga {
                phase: Phase::Decided,
                target: addr.clone(),
                target_run_id: None,
                deadline: None,
                forced: false,
                attempts: Vec::new(),
                history,
            }),
            ..self.entry.clone()
        };
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
        match &self.work {
            Work::Repairing { unknown_at: Some(since), .. } if self.follows(&target, *since) => {
                self.end_repair(ctx, token, &target, Ok(()));
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
                match read.map(Facts::is_master) {
                    Some(true) => {}
                    Some(false) => {
                        let why = format!("the recorded master {master} reports to be a replica");
                        self.end_repair(ctx, token, &target, Err(why));
                        return;
                    }
                    None => {
                        if let Some(watch) = self.watches.get_mut(&master) {
                            watch.ask(ctx.now, self.led_since);
                        }
                        return;
                    }
                }
                let id = self.command_follow(ctx.now, token, &target, master);
                let deadline = ctx.now + self.policy.command_timeout * 2;
                self.work = Work::Repairing { id, deadline, unknown_at: None };
            }
        }
    }

    /// The command of a repair ended.
    pub(super) fn repair_ended(&mut self, ctx: &Context<'_>, token: Token, result: CommandResult) {
        let Some(target) = self.entry.saga.as_ref().map(|saga| saga.target.clone()) else { return };
        let end = match result {
            CommandResult::Done { facts, warnings } => {
                self.warn(ctx.now, &target, &warnings);
                if facts.is_master() {
                    Err("it is a master still after it was told to follow".to_owned())
                } else {
                    Ok(())
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
        end: Result<(), String>,
    ) {
        let (step, outcome, note) = match &end {
            Ok(()) => ("demoted", Outcome::Done, None),
            Err(why) => ("failed", Outcome::Failed, Some(why.clone())),
        };
        let kind = self.entry.saga.as_ref().map(|saga| saga.history.kind);
        let step = if kind == Some(Kind::Repair) && end.is_ok() { "repointed" } else { step };
        self.mark(ctx, step, Some(target), note);
        let Some((mut entry, mut history)) = self.close_saga(ctx.now, outcome) else { return };
        if end.is_ok() {
            self.repairs.remove(target);
        } else {
            let failures = self.repairs.get(target).map_or(0, |(_, failures)| *failures);
            let pause = match failures {
                // It may have been a moment's weakness, and a second master must not wait for long.
                0 => self.policy.check_interval,
                1.. => {
                    let doublings = (failures - 1).min(PAUSE_DOUBLINGS_MAX);
                    self.policy.repair_interval * 2_u32.pow(doublings)
                }
            };
            self.repairs.insert(target.clone(), (ctx.now + pause, failures + 1));
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

/// What is wrong with one instance.
enum Wrong {
    Nothing,
    LeaveAlone(String),
    Repair(Kind, String),
}
