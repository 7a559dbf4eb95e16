//! Replacing a healthy master: pause its writes, wait until the candidate has everything, demote it, promote the
//! candidate.
//!
//! The demotion comes first and is the fence: from there on nobody takes writes until the candidate does. The pause only
//! bridges the time, so that clients wait instead of being refused, and so that there is an end to what the candidate has
//! to receive. Before the demotion was sent every doubt undoes everything; after it everything is carried through, and
//! undone only when the candidate surely did not become master. The promotion waits for the demotion's reply, since
//! nobody knows in which order two connections are read.
//!
//! What is decided is in the record ([`Phase`]); what is here is found out anew by the next leader: it pauses again, and
//! reads the roles before it changes one.

use std::time::Duration;

use crate::action::Command;
use crate::addr::Addr;
use crate::event::{CommandId, CommandResult};
use crate::group::{Context, Group};
use crate::instance::Facts;
use crate::mutation::Mutation;
use crate::node::Token;
use crate::record::{GroupEntry, Kind, Outcome, Phase, Saga, Status};
use crate::time::Time;

mod bridge;
mod takeover;
mod undo;

use bridge::Bridge;

/// How often the pause between two attempts to give the old master its clients back doubles: 50 ms become 1.6 s.
const UNDO_DOUBLINGS_MAX: u32 = 5;

/// What the leader that drives a switchover knows of it.
#[derive(Debug)]
pub(super) struct Switching {
    epoch: u64,
    /// Decided here, under this leadership: nobody else sent anything.
    mine: bool,
    /// Roles that were read before this say nothing.
    since: Time,
    /// When the pause must be over.
    deadline: Time,
    sent: Option<Sent>,
    /// Nothing is sent before this moment, after something did not work.
    retry_at: Time,
    /// How many commands that give the old master its clients back came to nothing, in a row.
    failures: u32,
    /// When to look again without a new event.
    wake: Time,
    /// Until when writes are paused, at most.
    paused_until: Option<Time>,
    unpaused: bool,
    /// How far the old master was when it took no more writes.
    offset: Option<u64>,
    equal: bool,
    /// Why it is undone.
    undo: Option<String>,
    demotion: Fate,
    /// How far the old master was when it was a master no more.
    demoted: Option<(Time, u64)>,
    promotion: Fate,
    /// A promotion of the candidate may still happen.
    may_promote: bool,
    /// The old master was made a master again.
    restored: bool,
}

/// What is known of a command whose end was not heard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// Nothing is open.
    Known,
    /// It may have happened, or may happen; only a role that was read later tells.
    Unknown(Time),
}

#[derive(Debug)]
struct Sent {
    id: CommandId,
    addr: Addr,
    order: Order,
    at: Time,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Order {
    Pause,
    Demote,
    Promote,
    Restore,
    Unpause,
}

impl Switching {
    fn new(now: Time, age: Duration, epoch: u64, mine: bool, saga: &Saga) -> Self {
        // The record's times may be of another leader's clock: the span is what counts.
        let deadline = saga.deadline.unwrap_or(saga.history.started_at);
        let span = deadline.since(saga.history.started_at);
        Self {
            epoch,
            mine,
            since: now,
            deadline: now + span.saturating_sub(age),
            sent: None,
            retry_at: now,
            failures: 0,
            wake: now,
            paused_until: None,
            unpaused: false,
            offset: None,
            equal: false,
            undo: None,
            demotion: Fate::Known,
            demoted: None,
            promotion: Fate::Known,
            may_promote: !mine,
            restored: false,
        }
    }

    /// Whom a command that is on its way was sent to.
    pub(super) fn sent_to(&self, id: CommandId) -> Option<&Addr> {
        self.sent.as_ref().filter(|sent| sent.id == id).map(|sent| &sent.addr)
    }

    /// When something is to be done without a new event.
    pub(super) fn wake(&self) -> Time {
        self.wake
    }
}

/// For how long after its beginning the group could still be written to, in ms: a switchover's gap begins with the
/// pause, any other change of master with the first sign.
pub(super) fn writable_until_ms(saga: &Saga) -> f64 {
    let ends = |name: &str| matches!(name, "write_paused" | "demoted");
    let paused = saga.history.steps.iter().find(|step| ends(&step.name));
    match saga.history.kind {
        Kind::Switchover => paused.map_or(0.0, |step| step.at_ms),
        Kind::Failover
        | Kind::ManualFailover
        | Kind::Demotion
        | Kind::Repair
        | Kind::Adoption
        | Kind::ReplicaEvent => 0.0,
    }
}

impl Group {
    /// Whether the roles are on their way from one server to the other, and a diagnosis would only be of that.
    pub(super) fn roles_move(&self) -> bool {
        self.entry.saga.as_ref().is_some_and(|saga| match saga.phase {
            Phase::Demoting | Phase::Undoing => true,
            Phase::Decided | Phase::Promoted => false,
        })
    }

    /// The master that is, or was, replaced by a switchover.
    pub(super) fn switched_from(&self) -> Option<&Addr> {
        let saga = self.entry.saga.as_ref();
        saga.filter(|saga| saga.history.kind == Kind::Switchover)
            .map(|saga| &saga.history.old_master)
    }

    /// How long to wait after a proposal that was lost; clients wait meanwhile when there is a switchover.
    pub(super) fn pause_after_loss(&self) -> Duration {
        match self.switching {
            Some(_) => self.policy.corroboration_timeout / 4,
            None => self.policy.check_interval,
        }
    }

    /// Goes on with an open switchover, also one that another leader began.
    pub(super) fn drive_switchover(&mut self, ctx: &Context<'_>, token: Token) {
        let Some(saga) = &self.entry.saga else { return };
        let (phase, target, epoch) = (saga.phase, saga.target.clone(), self.entry.epoch);
        let mut switching = match self.switching.take().filter(|known| known.epoch == epoch) {
            Some(switching) => switching,
            None => {
                let mine = self.untouched == Some(epoch);
                Box::new(Switching::new(ctx.now, self.saga_age(ctx.now), epoch, mine, saga))
            }
        };
        let s = &mut *switching;
        if s.sent.as_ref().is_some_and(|sent| ctx.now < sent.at + self.policy.command_timeout * 2) {
            // Its end comes first.
        } else if let Some(sent) = s.sent.take() {
            let unknown = CommandResult::Unknown("the command did not end".to_owned());
            self.switched(ctx, s, &sent, &unknown);
        }
        match phase {
            Phase::Decided if s.sent.is_none() => self.drive_pause(ctx, token, s, &target),
            Phase::Demoting if s.sent.is_none() => self.drive_demotion(ctx, token, s, &target),
            Phase::Undoing if s.sent.is_none() => self.drive_undoing(ctx, token, s),
            Phase::Promoted => {
                self.release(ctx, token, s);
                self.drive_repointing(ctx, token);
            }
            Phase::Decided | Phase::Demoting | Phase::Undoing => {}
        }
        let heartbeat = ctx.now + self.policy.promote_timeout / 10;
        s.wake = [s.retry_at, heartbeat]
            .into_iter()
            .filter(|at| *at > ctx.now)
            .min()
            .unwrap_or(heartbeat);
        self.switching = Some(switching);
    }

    /// Writes are paused and the candidate is waited for; nothing else was changed.
    fn drive_pause(&mut self, ctx: &Context<'_>, token: Token, s: &mut Switching, target: &Addr) {
        if s.undo.is_none() && ctx.now < s.retry_at {
            return;
        }
        match self.bridge(ctx, token, s, target) {
            Bridge::Wait => {}
            Bridge::Ready => {
                let Some(mut saga) = self.saga_so_far() else { return };
                saga.phase = Phase::Demoting;
                let what = format!("{} is demoted for {target}", self.entry.master);
                let entry = GroupEntry { saga: Some(saga), ..self.entry.clone() };
                self.propose(token, what, entry, None);
            }
            Bridge::Doubt(why) => {
                s.undo.get_or_insert(why);
                if self.is_released(ctx, token, s) {
                    self.close_undone(ctx, token, s, Outcome::Undone);
                }
            }
        }
    }

    /// Demotes the old master, and when that is known promotes the candidate.
    fn drive_demotion(
        &mut self,
        ctx: &Context<'_>,
        token: Token,
        s: &mut Switching,
        target: &Addr,
    ) {
        if let Some(why) = s.undo.clone() {
            self.begin_undoing(ctx, token, s, why);
            return;
        }
        if ctx.now < s.retry_at {
            return;
        }
        let old = self.entry.master.clone();
        if !s.mine || s.promotion != Fate::Known {
            // Somebody may have promoted it already.
            let since = match s.promotion {
                Fate::Known => s.since,
                Fate::Unknown(since) => since,
            };
            match self.read_since(ctx, target, since) {
                Some(facts) if facts.takes_writes() => {
                    self.take_over(ctx, token, s, (&old, target), &facts);
                    return;
                }
                Some(_) if s.promotion == Fate::Known => {}
                Some(_) => {
                    // It was read after the command and is a replica still: sending again is safe, and needed.
                    s.promotion = Fate::Known;
                    s.retry_at = ctx.now + self.policy.corroboration_interval * 10;
                    return;
                }
                None => {
                    if self.is_gone(target) {
                        let why = format!("{target} went away before it was seen to be master");
                        self.begin_undoing(ctx, token, s, why);
                    }
                    return;
                }
            }
        }
        if s.demoted.is_none() && !self.is_demoted(ctx, token, s, &old) {
            if s.demotion == Fate::Known && ctx.now >= s.retry_at {
                match self.bridge(ctx, token, s, target) {
                    Bridge::Wait => {}
                    Bridge::Ready => self.send_demotion(ctx, token, s, target),
                    Bridge::Doubt(why) => self.begin_undoing(ctx, token, s, why),
                }
            }
            return;
        }
        self.drive_takeover(ctx, token, s, target);
    }

    fn send_demotion(&mut self, ctx: &Context<'_>, token: Token, s: &mut Switching, target: &Addr) {
        let old = self.entry.master.clone();
        let command = Command::Demote {
            master: target.clone(),
            master_run_id: self.run_id_of(ctx.now, target),
        };
        self.order(ctx, token, s, (&old, Order::Demote), command);
    }

    /// Whether the old master surely takes no writes any more. Reads what became of a demotion of unknown end, and of
    /// one that another leader may have sent.
    fn is_demoted(
        &mut self,
        ctx: &Context<'_>,
        token: Token,
        s: &mut Switching,
        old: &Addr,
    ) -> bool {
        if self.policy.has(Mutation::SwitchoverUnfenced) {
            s.demoted.get_or_insert((ctx.now, s.offset.unwrap_or_default()));
            return true;
        }
        let since = match s.demotion {
            Fate::Known if s.mine => return false,
            Fate::Known => s.since,
            Fate::Unknown(since) => since,
        };
        match self.read_since(ctx, old, since) {
            Some(facts) => {
                if facts.takes_writes() {
                    if s.demotion != Fate::Known {
                        s.retry_at = ctx.now + self.policy.corroboration_interval * 10;
                    }
                    s.demotion = Fate::Known;
                    return false;
                }
                self.mark(ctx, "demoted", Some(old), Some(format!("at offset {}", facts.offset)));
                s.demoted = Some((ctx.now, facts.offset));
                true
            }
            None => {
                // Until its role is known nothing is sent to anybody.
                s.demotion = Fate::Unknown(since);
                let Some((_, sign, _)) = self.death(ctx.now) else { return false };
                let agreement = self.agreement(ctx, token, sign);
                if let Some(at) = agreement.again_at {
                    s.retry_at = at;
                }
                if agreement.missing.is_none() {
                    // Dead, whether it was demoted or not; the candidate has everything that it took.
                    s.demoted = Some((ctx.now, s.offset.unwrap_or_default()));
                }
                s.demoted.is_some()
            }
        }
    }

    /// A command of the switchover ended. Returns whether it was one.
    pub(super) fn switching_ended(
        &mut self,
        ctx: &Context<'_>,
        id: CommandId,
        result: &CommandResult,
    ) -> bool {
        let Some(mut switching) = self.switching.take() else { return false };
        let sent = switching.sent.take_if(|sent| sent.id == id);
        if let Some(sent) = &sent {
            self.switched(ctx, &mut switching, sent, result);
        }
        self.switching = Some(switching);
        sent.is_some()
    }

    fn switched(
        &mut self,
        ctx: &Context<'_>,
        s: &mut Switching,
        sent: &Sent,
        result: &CommandResult,
    ) {
        let Sent { addr, order, .. } = sent;
        let pause = self.policy.corroboration_interval * 50;
        let later = ctx.now + pause;
        match (order, result) {
            (Order::Pause, CommandResult::Done { facts, .. }) => {
                let note = format!("at offset {}", facts.offset);
                self.mark(ctx, "write_paused", Some(addr), Some(note));
                s.offset = Some(facts.offset);
            }
            (Order::Pause, CommandResult::Refused(why)) => {
                // An earlier leader may have paused them all the same.
                s.unpaused = s.mine;
                s.undo.get_or_insert(format!("the writes on {addr} could not be paused: {why}"));
            }
            (Order::Pause, CommandResult::Unknown(why)) => {
                s.undo.get_or_insert(format!(
                    "it is not known whether the writes on {addr} are paused: {why}"
                ));
            }
            (Order::Demote, CommandResult::Done { facts, .. }) if !facts.takes_writes() => {
                self.mark(ctx, "demoted", Some(addr), Some(format!("at offset {}", facts.offset)));
                s.demoted = Some((ctx.now, facts.offset));
            }
            (Order::Demote, CommandResult::Done { .. } | CommandResult::Unknown(_)) => {
                s.demotion = Fate::Unknown(ctx.now);
            }
            (Order::Demote, CommandResult::Refused(why)) => {
                s.undo.get_or_insert(format!("{addr} could not be demoted: {why}"));
            }
            (Order::Promote, CommandResult::Done { warnings, .. }) => {
                // Its role was read with the command, and is taken from there.
                s.promotion = Fate::Unknown(sent.at);
                s.may_promote = true;
                self.warn(ctx.now, addr, warnings);
            }
            (Order::Promote, CommandResult::Unknown(_)) => {
                s.promotion = Fate::Unknown(ctx.now);
                s.may_promote = true;
            }
            (Order::Promote, CommandResult::Refused(why)) => {
                s.undo.get_or_insert(format!("{addr} could not be promoted: {why}"));
            }
            (Order::Restore, CommandResult::Done { facts, .. }) if facts.takes_writes() => {
                s.restored = true;
                s.failures = 0;
            }
            (Order::Unpause, CommandResult::Done { .. }) => {
                s.unpaused = true;
                self.mark(ctx, "write_resumed", Some(addr), None);
            }
            (Order::Pause, CommandResult::NotSent(_)) => {
                s.paused_until = None;
                s.retry_at = later;
            }
            (Order::Demote | Order::Promote, CommandResult::NotSent(_)) => s.retry_at = later,
            (Order::Restore | Order::Unpause, _) => {
                // Writes wait, so that the first times come fast; whoever keeps refusing will not hear the hundredth time.
                s.retry_at = ctx.now + pause * 2_u32.pow(s.failures.min(UNDO_DOUBLINGS_MAX));
                s.failures += 1;
            }
        }
    }

    fn order(
        &mut self,
        ctx: &Context<'_>,
        token: Token,
        s: &mut Switching,
        (addr, order): (&Addr, Order),
        command: Command,
    ) {
        let id = self.command(ctx.now, token, addr, command);
        s.sent = Some(Sent { id, addr: addr.clone(), order, at: ctx.now });
    }

    /// What an instance reported to a question that was asked at a moment or later; asks when there is nothing yet.
    fn read_since(&mut self, ctx: &Context<'_>, addr: &Addr, since: Time) -> Option<Facts> {
        let watch = self.watches.get_mut(addr)?;
        let facts = watch.facts().filter(|facts| facts.asked_at >= since).cloned();
        if facts.is_none() {
            watch.ask(ctx.now, since);
        }
        facts
    }

    fn ask_densely(&mut self, ctx: &Context<'_>, addr: &Addr) {
        let at = ctx.now + self.policy.corroboration_interval;
        if let Some(watch) = self.watches.get_mut(addr) {
            watch.ask(at, ctx.now);
        }
    }

    /// Whether an instance is down for this node.
    fn is_gone(&self, addr: &Addr) -> bool {
        self.watches.get(addr).is_none_or(|watch| watch.death().is_some())
    }
}
