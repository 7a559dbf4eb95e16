//! One group: what happens to it, what is concluded, and what is done about it.
//!
//! `step` is the one decision table. It runs after every event and every timer, on every node; only the leader's proposes
//! and commands. What is being changed is in the record (the saga); what is on its way right now, and would simply be
//! done again by the next leader, is in `Work`.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use crate::action::Action;
use crate::addr::Addr;
use crate::event::{CommandId, CommandResult, ProbeSeq, Probed};
use crate::fleet::Owners;
use crate::node::{GroupName, Leadership, NodeId};
use crate::notice::What;
use crate::policy::Policy;
use crate::record::outbox::Told;
use crate::record::{GroupEntry, Kind, Revision, Step};
use crate::time::Time;
use crate::watch::{Death, Watch};

mod commits;
mod copies;
mod corroborate;
mod diagnose;
mod diagnosis;
mod drift;
mod elect;
mod emit;
mod failover;
mod fencing;
mod flapping;
mod identity;
mod learn;
mod lineage;
mod looks;
mod pause;
mod picture;
mod quorum;
mod repair;
mod replicas;
mod restart;
mod rules;
mod switchover;
mod tell;
mod told;
mod wanted;
mod watches;
mod window;

pub use diagnosis::Diagnosis;
use failover::Hold;
use fencing::Fencing;
use quorum::Peers;
use repair::{Failing, Settled};
use restart::Restarted;
use switchover::Switching;
use wanted::Wanted;
pub(crate) use wanted::Wish;
pub(crate) use watches::Watches;
use window::Window;

/// What the fleet knows and a group needs when something happens.
#[derive(Clone, Copy, Debug)]
pub struct Context<'a> {
    /// What time it is.
    pub now: Time,
    /// This node.
    pub me: &'a NodeId,
    /// Who acts.
    pub leadership: &'a Leadership,
    /// Somebody acts, or did a moment ago.
    pub led: bool,
    /// The voters of the committed membership.
    pub voters: &'a [NodeId],
    /// Which group an address or a history belongs to.
    pub owners: &'a Owners,
    /// How many instances of all groups are in trouble.
    pub crowd: usize,
}

/// One guarded group.
#[derive(Debug)]
pub struct Group {
    name: GroupName,
    policy: Arc<Policy>,
    revision: Revision,
    entry: GroupEntry,
    watches: Watches,
    /// Whether they are asked yet: in a fleet that begins with many groups, each waits for its turn.
    looks: bool,
    work: Work,
    diagnosis: Diagnosis,
    /// Why, when it was concluded.
    reason: String,
    diagnosed_at: Time,
    /// When this node learned who the recorded master is: what that one said before is from before its promotion.
    master_since: Time,
    /// When this node heard last that a promotion was given up.
    abandoned_since: Time,
    /// Since when the leadership is this one: what was read before it is no ground for going on with another's saga.
    led_since: Time,
    /// When the open saga began, by this node's clock. The record has the clock of the leader that began it.
    began: Option<Time>,
    /// Why nothing is done although something is wrong.
    idle_because: Option<String>,
    /// Who contradicts what this node sees of its master.
    veto: Option<Veto>,
    /// What the other nodes see.
    peers: Peers,
    /// No failover is begun before this moment.
    hold: Option<Hold>,
    /// A proposal was not committed, or a command not sent: nothing at all is proposed or commanded before this moment.
    again: Option<(Time, String)>,
    /// The epoch whose candidate surely got no promotion so far: decided here, under this leadership, and every command
    /// was refused.
    untouched: Option<u64>,
    /// The epoch whose candidate was read as a replica since this leadership found its promotion half done.
    read: Option<u64>,
    /// A switchover that this node drives.
    switching: Option<Box<Switching>>,
    /// A change of master that somebody waits for.
    wanted: Option<Wanted>,
    /// What is on its way to keep old masters from taking writes.
    fencing: Fencing,
    /// Instances that were seen to follow the recorded master, and were not away since.
    settled: BTreeMap<Addr, Settled>,
    /// What instances that returned as masters take beside the recorded one.
    windows: BTreeMap<Addr, Window>,
    /// Instances whose last repair failed.
    failing: BTreeMap<Addr, Failing>,
    /// Since when the role of an instance, changed by hand, is not what it should be.
    drifts: BTreeMap<Addr, Time>,
    /// The replica that was repaired last, and when: it may be taking over a full copy.
    copying: Option<(Addr, Time)>,
    /// When instances were told to take over a full copy, by this leadership.
    copies: BTreeMap<Addr, Time>,
    /// Who copies, or copied, what the master has since it lost its data, and when that was.
    begun_anew: BTreeMap<Addr, Time>,
    /// The recorded master runs as another process than the recorded one.
    restarted: Option<Restarted>,
    /// The process of a recorded master that was found to have its data, or nobody has more.
    kept: Option<Box<str>>,
    /// The master names a replica that another group owns, perhaps not for long.
    stranger: bool,
    /// When this node learned of the last failovers, by epoch.
    failovers: BTreeMap<u64, Time>,
    /// When the history last said of a replica that it is in trouble (or, false, back), by this node.
    replica_events: BTreeMap<(Addr, bool), Time>,
    /// Since when a group whose pause ended is asked what it became meanwhile.
    ending: Option<Time>,
    /// When what was decided last has to be decided anew, whatever happens until then.
    wake: Option<Time>,
    /// Steps that no proposal has carried into the record yet.
    steps: Vec<Step>,
    /// What hooks are being told under this leadership.
    told: Told,
    next_id: u64,
    actions: VecDeque<Action>,
    changed: bool,
    /// When the fleet lets time pass for it next.
    pub(crate) armed: Option<Time>,
}

/// What the leader has on its way for one group.
#[derive(Debug)]
enum Work {
    /// Nothing.
    Idle,
    /// The master is down for this node; the replicas are being heard.
    Hearing {
        /// When this was noticed first.
        seen: Time,
        /// When the replicas were asked; what they said before does not count.
        asked: Time,
        again_at: Time,
    },
    /// The handlers are being asked.
    Vetting { id: CommandId, plan: Box<GroupEntry>, revision: Revision, deadline: Time },
    /// A proposal is with the broker.
    Proposing { id: u64 },
    /// A promotion that was found half done: the candidate is being asked what it is.
    Resuming { since: Time },
    /// The candidate was told to become a master.
    Promoting { sent: Option<CommandId>, since: Time, unknown_at: Option<Time> },
    /// The other replicas are being pointed at the new master.
    Repointing(failover::Repointing),
    /// One instance is being pointed at the recorded master.
    Repairing { id: CommandId, deadline: Time, unknown_at: Option<Time> },
}

/// The master is down for this node, and others say something else or nothing.
#[derive(Clone, Debug)]
pub(crate) struct Veto {
    /// Too few voters answer at all; else a replica has news of the master, or voters see it up.
    quorum_lost: bool,
    why: String,
}

impl Group {
    /// Begins to guard a group that was committed.
    pub fn new(
        now: Time,
        name: GroupName,
        policy: Arc<Policy>,
        entry: GroupEntry,
        revision: Revision,
    ) -> Self {
        let watches = entry
            .instances
            .keys()
            .map(|addr| (addr.clone(), Watch::new(now, addr, &policy)))
            .collect();
        Self {
            name,
            policy,
            revision,
            entry,
            watches,
            looks: false,
            work: Work::Idle,
            diagnosis: Diagnosis::NotYetSeen,
            reason: "nothing was heard yet".to_owned(),
            diagnosed_at: now,
            master_since: now,
            abandoned_since: now,
            led_since: now,
            began: None,
            idle_because: None,
            veto: None,
            peers: Peers::default(),
            hold: None,
            again: None,
            untouched: None,
            read: None,
            switching: None,
            wanted: None,
            fencing: Fencing::default(),
            settled: BTreeMap::new(),
            windows: BTreeMap::new(),
            failing: BTreeMap::new(),
            drifts: BTreeMap::new(),
            copying: None,
            copies: BTreeMap::new(),
            begun_anew: BTreeMap::new(),
            restarted: None,
            kept: None,
            stranger: false,
            failovers: BTreeMap::new(),
            replica_events: BTreeMap::new(),
            ending: None,
            wake: None,
            steps: Vec::new(),
            told: Told::default(),
            next_id: 0,
            actions: VecDeque::new(),
            changed: true,
            armed: None,
        }
    }

    /// The committed entry.
    pub fn entry(&self) -> &GroupEntry {
        &self.entry
    }

    /// The revision of the committed entry.
    pub fn revision(&self) -> Revision {
        self.revision
    }

    /// Whether more than ages changed since the last call.
    pub fn take_changed(&mut self) -> bool {
        std::mem::take(&mut self.changed)
    }

    /// A probe ended.
    pub fn probed(&mut self, ctx: &Context<'_>, addr: &Addr, seq: ProbeSeq, outcome: Probed) {
        let socket = match &outcome {
            Probed::Replied { socket: Some(socket), .. } if socket != addr => Some(socket.clone()),
            Probed::Replied { .. }
            | Probed::Refused
            | Probed::Ended
            | Probed::Garbage(_)
            | Probed::NotAsked(_)
            | Probed::Unreachable(_)
            | Probed::Unresolved(_) => None,
        };
        let Some(watch) = self.watches.get_mut(addr) else { return };
        let before = (watch.state(), watch.since());
        watch.share_looks(ctx.crowd, &self.policy);
        let refused = matches!(outcome, Probed::Refused);
        let mut changed = watch.probed(ctx.now, seq, outcome, &self.policy);
        if refused {
            watch.make_room(ctx.now, ctx.crowd, &self.policy);
        }
        changed |= watch.update(ctx.now, &self.policy);
        self.tell_state(ctx.now, addr, before);
        if let Some(socket) = socket {
            changed |= self.learn_alias(ctx, addr, &socket);
        }
        if changed || !self.is_quiet(addr) {
            self.changed |= changed;
            self.step(ctx);
        }
    }

    /// A fresh connection to an instance was accepted.
    pub fn accepted(&mut self, ctx: &Context<'_>, addr: &Addr) {
        let Some(watch) = self.watches.get_mut(addr) else { return };
        watch.accepted(ctx.now, &self.policy);
        // What was down by a refusal is not, now that somebody listens.
        let before = (watch.state(), watch.since());
        self.changed |= watch.update(ctx.now, &self.policy);
        self.tell_state(ctx.now, addr, before);
        self.step(ctx);
    }

    /// The connection to an instance ended.
    pub fn ended(&mut self, ctx: &Context<'_>, addr: &Addr) {
        let Some(watch) = self.watches.get_mut(addr) else { return };
        watch.ended(ctx.now);
        if *addr == self.entry.master {
            // Whatever the reason is, the replicas' word will be wanted in a moment.
            for (other, watch) in &mut self.watches {
                if *other != self.entry.master {
                    watch.ask(ctx.now, ctx.now);
                }
            }
        }
        self.handle_timeout(ctx);
    }

    /// A command ended.
    pub fn commanded(&mut self, ctx: &Context<'_>, id: CommandId, result: CommandResult) {
        self.command_ended(ctx, id, result);
        self.step(ctx);
    }

    /// Time passed. Spurious calls are harmless.
    pub fn handle_timeout(&mut self, ctx: &Context<'_>) {
        let mut changed = false;
        let addrs: Vec<Addr> = self
            .watches
            .iter()
            .filter(|(_, watch)| watch.timeout(&self.policy) <= ctx.now)
            .map(|(addr, _)| addr.clone())
            .collect();
        for addr in &addrs {
            let Some(watch) = self.watches.get_mut(addr) else { continue };
            let before = (watch.state(), watch.since());
            watch.share_looks(ctx.crowd, &self.policy);
            changed |= watch.update(ctx.now, &self.policy);
            self.tell_state(ctx.now, addr, before);
        }
        self.changed |= changed;
        if changed || self.work_timeout().is_some_and(|at| at <= ctx.now) {
            self.step(ctx);
        }
        self.send_due_probes(ctx.now);
    }

    /// When `handle_timeout` wants to be called next, and what for.
    pub fn poll_timeout(&self) -> Option<(Time, &'static str)> {
        let probe = self.look_timeout().map(|at| (at, "probe"));
        let work = self.work_timeout().map(|at| (at, "work"));
        probe.into_iter().chain(work).min_by_key(|(at, _)| *at)
    }

    /// The next thing to be done outside; to be called until there is none, after every other call.
    #[must_use = "the action was taken from the queue"]
    pub fn poll(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// Silence of a time in which this node stood still proves nothing.
    pub fn discard(&mut self, now: Time, stalled: Duration) {
        for watch in self.watches.values_mut() {
            watch.discard(stalled, now, &self.policy);
        }
        let later = |at: &mut Time| *at = (*at + stalled).min(now);
        match &mut self.work {
            Work::Idle | Work::Proposing { .. } | Work::Hearing { .. } => {}
            Work::Vetting { deadline, .. } | Work::Repairing { deadline, .. } => {
                *deadline = *deadline + stalled;
            }
            Work::Promoting { since, .. } | Work::Resuming { since } => later(since),
            Work::Repointing(work) => work.discard(later),
        }
    }

    fn work_timeout(&self) -> Option<Time> {
        let hold = self.hold.as_ref().map(|hold| hold.until);
        let restart = self.restart_timeout();
        if let Some((until, _)) = &self.again {
            // Nothing else is done before, whatever is due.
            return Some(restart.map_or(*until, |at| at.min(*until)));
        }
        let work = match &self.work {
            Work::Idle | Work::Proposing { .. } => None,
            Work::Hearing { again_at, .. } => Some(*again_at),
            Work::Vetting { deadline, .. } | Work::Repairing { deadline, .. } => Some(*deadline),
            Work::Promoting { since, sent, .. } => Some(*since + self.promote_patience(*sent)),
            Work::Resuming { since } => Some(*since + self.policy.promote_timeout),
            Work::Repointing(work) => work.timeout(&self.policy),
        };
        let fencing = self.fencing.timeout();
        [hold, work, restart, self.wake, self.request_timeout(), fencing]
            .into_iter()
            .flatten()
            .min()
    }

    /// The one decision table.
    fn step(&mut self, ctx: &Context<'_>) {
        self.hold.take_if(|hold| hold.until <= ctx.now);
        self.again.take_if(|(until, _)| *until <= ctx.now);
        self.note_settled();
        self.look_into_restart(ctx);
        self.note_windows();
        self.tell_suspicion(ctx);
        self.idle_because = None;
        self.wanted_in_the_way(ctx);
        self.wake = None;
        let because = self.decide(ctx);
        self.note_told(ctx);
        if !self.roles_move() && self.entry.leaving.is_none() {
            self.conclude(ctx);
        }
        let idle =
            matches!(self.work, Work::Idle | Work::Hearing { .. }) && self.entry.saga.is_none();
        if self.diagnosis != Diagnosis::Healthy {
            self.idle_because = because
                .or_else(|| self.diagnosis.why_idle().filter(|_| idle).map(str::to_owned))
                .or_else(|| self.flapping_in_words(ctx.now).filter(|_| idle));
        }
        self.send_due_probes(ctx.now);
    }

    /// Does what is to be done; the sentence says why nothing is.
    fn decide(&mut self, ctx: &Context<'_>) -> Option<String> {
        let Some(token) = ctx.leadership.token() else {
            self.veto = None;
            return Some(match ctx.leadership {
                Leadership::Follower { leader } => {
                    format!("{leader} leads, this node only watches")
                }
                Leadership::Leader(_) | Leadership::None => {
                    "no leader is known, this node only watches".to_owned()
                }
            });
        };
        // One that does not end is not waited for, whatever is done meanwhile.
        self.fence_is_on_its_way(ctx);
        if self.again.is_none() && self.drive_leaving(ctx, token) {
            return None;
        }
        if let Some(why) = self.keep_halted(ctx, token) {
            return Some(why);
        }
        if let Some((_, why)) = &self.again {
            return Some(why.clone());
        }
        if let Some(why) = self.keep_paused(ctx, token) {
            return Some(why);
        }
        match &self.work {
            Work::Proposing { .. } => return None,
            Work::Vetting { deadline, .. } if ctx.now < *deadline => return None,
            Work::Vetting { .. } => {
                self.vetting_overdue(ctx);
                return None;
            }
            Work::Idle
            | Work::Hearing { .. }
            | Work::Resuming { .. }
            | Work::Promoting { .. }
            | Work::Repointing(_)
            | Work::Repairing { .. } => {}
        }
        if let Some(saga) = &self.entry.saga {
            match saga.history.kind {
                Kind::Failover | Kind::ManualFailover => self.drive_failover(ctx, token),
                Kind::Switchover => self.drive_switchover(ctx, token),
                // The last two are done when they are decided, and never found here.
                Kind::Demotion | Kind::Repair | Kind::Adoption | Kind::ReplicaEvent => {
                    self.drive_repair(ctx, token);
                }
            }
            let waits = matches!(self.work, Work::Hearing { .. });
            return self.veto.as_ref().filter(|_| waits).map(|veto| veto.why.clone());
        }
        if !self.entry.confirmed {
            self.register(ctx, token);
            return Some(
                "the master was never seen as one, so what belongs to the group is not known"
                    .to_owned(),
            );
        }
        if self.wanted.is_some() && self.consider_wanted(ctx, token) {
            let until = self.wanted_at();
            if let (Work::Hearing { again_at, .. }, Some(until)) = (&mut self.work, until) {
                // It is gone on with when the request is decided.
                *again_at = until.max(*again_at);
            }
            return None;
        }
        match self.death(ctx.now) {
            Some((death, sign, down)) => {
                // What became of it since it was read last is learned from who follows it, and before anybody is elected:
                // it may have begun another history, and its replicas are the only ones left to tell.
                if self.learn(ctx, token) {
                    return Some(
                        "what the replicas say of its history is recorded first".to_owned(),
                    );
                }
                self.consider_failover(ctx, token, death, sign, down)
            }
            None => {
                self.work = Work::Idle;
                self.veto = None;
                if self.watches.get(&self.entry.master).is_some_and(Watch::serves) {
                    // It lives: what held up its replacement is over, and its next death is another one.
                    self.hold = None;
                }
                if let Some(why) = self.consider_deposed(ctx, token) {
                    self.note_replicas(ctx, token);
                    return Some(why).filter(|_| matches!(self.work, Work::Idle));
                }
                if matches!(self.work, Work::Proposing { .. }) {
                    return None;
                }
                if !self.learn(ctx, token) {
                    let because = self.consider_repair(ctx, token);
                    self.consider_fencing(ctx, token);
                    self.note_replicas(ctx, token);
                    return because;
                }
                None
            }
        }
    }

    /// How, since when, and from when on the master counts as down for this node.
    fn death(&self, now: Time) -> Option<(Death, Time, Time)> {
        let watch = self.watches.get(&self.entry.master)?;
        let policy = &self.policy;
        if let Some(death) = watch.death() {
            let sign = watch.trouble_since().unwrap_or(watch.since());
            let down = match death {
                Death::Refusing => sign + policy.crash_down_time,
                Death::Hung | Death::Unreachable | Death::Loading => sign + policy.max_down_time,
                Death::Emptied => sign,
            };
            return Some((death, sign, down.min(now)));
        }
        let Some(since) = watch.loading_since() else { return self.emptied() };
        let down = since + policy.max_loading_time;
        (now >= down).then_some((Death::Loading, since, down))
    }

    fn conclude(&mut self, ctx: &Context<'_>) {
        let picture = self.picture(ctx);
        let finding = diagnose::diagnose(&picture);
        let diagnosis = finding.diagnosis;
        if diagnosis == self.diagnosis {
            return;
        }
        let reason = finding.reason();
        self.diagnosis = diagnosis;
        self.diagnosed_at = ctx.now;
        self.changed = true;
        let what = What::Diagnosed {
            name: diagnosis.name().to_owned(),
            healthy: diagnosis == Diagnosis::Healthy,
        };
        self.publish(ctx.now, what, format!("{}: {reason}", diagnosis.name()));
        self.reason = reason;
    }

    /// Has what is decided now decided anew at a moment.
    fn wake_at(&mut self, at: Time) {
        self.wake = Some(self.wake.map_or(at, |wake| wake.min(at)));
    }

    fn hold(&mut self, until: Time, why: String) {
        self.hold = Some(Hold { until, why, tried: Vec::new() });
    }
}
