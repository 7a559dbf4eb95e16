//! Keeping an old master from taking writes that nobody else will ever have: `min-replicas-to-write` on every instance.
//!
//! A fenced master takes writes only while a replica acknowledges them, so that one that was replaced unknown to itself
//! stops by itself, and one that restarts does not begin. What is here must never stop a healthy one: the setting is
//! raised on a master that has a replica, lowered on one that is about to be promoted, and lowered on one whose last
//! replica is lost for sure.
//!
//! What an instance is to be set to is decided in the record, with what it was before; whoever leads compares that with
//! what the instance says, and tells it. So nothing is lost when a leader dies between the two, and nothing is done twice.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::{Context, Group, Work};
use crate::addr::Addr;
use crate::event::CommandId;
use crate::instance::{Facts, Fence, Link, MinReplicas, Role};
use crate::mutation::Mutation;
use crate::node::Token;
use crate::policy::FENCE_REPLICAS;
use crate::record::{Fenced, GroupEntry, HistoryEntry, Kept, Kind, Known, Outcome, Phase};
use crate::time::Time;
use crate::view::{FencingView, State};
use crate::watch::Watch;

mod leaving;
mod tell;

pub(super) use tell::not_durable;

/// What the leader has on its way, and knows beside the record.
#[derive(Debug, Default)]
pub(super) struct Fencing {
    sent: Option<Sent>,
    /// When an instance may be told again, and how often in a row it was told in vain.
    pauses: BTreeMap<Addr, (Time, u32)>,
    /// The same of one that has its setting and could not write it down: another setting does not wait for that.
    unwritten: BTreeMap<Addr, (Time, u32)>,
    /// When one that was changed by somebody else is set again at the earliest, and how often that happened.
    undone: BTreeMap<Addr, (Time, u32)>,
    /// Instances of which it was told that they cannot be fenced.
    unable: BTreeSet<Addr>,
    /// Since when this leader puts back the settings of a group that leaves.
    leaving_since: Option<Time>,
    /// Instances of such a group that have them back.
    restored: BTreeSet<Addr>,
}

/// A command that is on its way.
#[derive(Debug)]
struct Sent {
    id: CommandId,
    addr: Addr,
    set: MinReplicas,
    deadline: Time,
}

impl Fencing {
    /// Whom a command that is on its way was sent to.
    pub(super) fn sent_to(&self, id: CommandId) -> Option<&Addr> {
        self.sent.as_ref().filter(|sent| sent.id == id).map(|sent| &sent.addr)
    }

    /// When something is to be done without a new event.
    pub(super) fn timeout(&self) -> Option<Time> {
        self.sent.as_ref().map(|sent| sent.deadline)
    }
}

/// What an instance is to be set to; `None` when it is left as it is.
fn wanted(
    fence: Option<MinReplicas>,
    known: &Known,
    actual: &Fence,
    (is_master, is_lost): (bool, bool),
) -> Option<MinReplicas> {
    let decided = known.fenced.as_ref();
    let Some(on) = fence else { return decided.map(|decided| decided.former) };
    if !is_master || actual.online >= FENCE_REPLICAS {
        return Some(on);
    }
    // From here on it is a master that raising would stop at once.
    let is_open = !actual.set.is_on() || decided.is_some_and(|decided| decided.set.to_write == 0);
    match (is_open, decided) {
        (true, None) if !actual.set.is_on() => None,
        (true, _) => Some(open(on)),
        (false, _) if is_lost => Some(open(on)),
        (false, _) => Some(on),
    }
}

/// Whether it is a replica that could not be promoted whatever happens: it has nothing, until it has copied everything.
/// While it does, its master would wait for it.
pub(super) fn has_no_data(facts: &Facts) -> bool {
    match facts.role {
        Role::Replica { link: Link::Syncing | Link::Down { since_secs: None }, .. } => true,
        Role::Replica { link: Link::Up { .. } | Link::Down { since_secs: Some(_) }, .. }
        | Role::Master { .. } => false,
    }
}

/// The setting that stops nobody.
const fn open(on: MinReplicas) -> MinReplicas {
    MinReplicas { to_write: 0, ..on }
}

impl Group {
    /// Brings the instances' settings to what they should be, one command at a time.
    pub(super) fn consider_fencing(&mut self, ctx: &Context<'_>, token: Token) {
        let fence = self.policy.fence();
        let concerned =
            fence.is_some() || self.entry.instances.values().any(|known| known.fenced.is_some());
        let is_idle = matches!(self.work, Work::Idle) && self.entry.saga.is_none();
        let forgets = self.policy.has(Mutation::FenceForgotten);
        if forgets || !concerned || !is_idle || self.fence_is_on_its_way(ctx) {
            return;
        }
        let master = self.watches.get(&self.entry.master).filter(|watch| watch.serves());
        let Some(facts) = master.and_then(Watch::facts).filter(|facts| facts.is_master()) else {
            return;
        };
        // Until it is known who belongs to the master, nothing is known of its replicas.
        let may_be_lost = fence.is_some()
            && !self.policy.has(Mutation::FenceKept)
            && facts.fence.is_some_and(|actual| actual.set.is_on() && actual.online == 0);
        let lost = if may_be_lost { self.last_replica_is_lost(ctx, token) } else { None };
        let entry = self.fenced_entry(lost.is_some());
        if entry != self.entry {
            self.propose_fences(ctx, token, entry, lost);
            return;
        }
        self.tell_unable(ctx.now);
        self.send_fence(ctx, token);
    }

    /// The entry with what every instance that answers is to be set to.
    fn fenced_entry(&self, is_lost: bool) -> GroupEntry {
        let fence = self.policy.fence();
        let mut entry = self.entry.clone();
        for (addr, known) in &mut entry.instances {
            let Some(actual) = self.fence_of(addr) else { continue };
            let is_master = *addr == self.entry.master;
            // One that was never seen attached may be somebody else's.
            if known.fenced.is_none() && !(known.attached || is_master) {
                continue;
            }
            let Some(set) = wanted(fence, known, &actual, (is_master, is_lost)) else { continue };
            match &mut known.fenced {
                None if actual.set == set => {}
                None => {
                    known.fenced = Some(Fenced { former: actual.set, set, kept: Kept::Unknown });
                }
                Some(fenced) if fenced.set != set => {
                    fenced.set = set;
                    fenced.kept = Kept::Unknown;
                }
                Some(fenced) => {
                    let is_back = fence.is_none() && actual.set == fenced.former;
                    if is_back && fenced.kept != Kept::Unknown {
                        known.fenced = None;
                    }
                }
            }
        }
        entry
    }

    fn propose_fences(
        &mut self,
        ctx: &Context<'_>,
        token: Token,
        mut entry: GroupEntry,
        lost: Option<String>,
    ) {
        let what = format!("what min-replicas-to-write of the instances of {} is", self.name);
        let to_write = |entry: &GroupEntry| {
            let known = entry.instances.get(&entry.master);
            known.and_then(|known| known.fenced.as_ref()).map(|fenced| fenced.set.to_write)
        };
        let reason = match (to_write(&self.entry), to_write(&entry)) {
            (before, Some(0)) if before != Some(0) => lost,
            (Some(0), Some(1..)) => {
                let master = &self.entry.master;
                Some(format!(
                    "min-replicas-to-write of {master} is raised to {FENCE_REPLICAS} again, since a replica acknowledges"
                ))
            }
            (_, _) => None,
        };
        let history = reason.map(|reason| self.fence_history(ctx, &mut entry, reason));
        self.propose(token, what, entry, history);
    }

    /// What the history says of a master that was opened or closed.
    fn fence_history(
        &self,
        ctx: &Context<'_>,
        entry: &mut GroupEntry,
        reason: String,
    ) -> HistoryEntry {
        let id = format!("{}-{}", self.name, entry.history_next);
        entry.history_next += 1;
        HistoryEntry {
            id,
            epoch: entry.epoch,
            old_master: entry.master.clone(),
            new_master: Some(entry.master.clone()),
            outcome: Outcome::Done,
            finished_at: Some(ctx.now),
            ..self.new_history((ctx.now, ctx.me), Kind::Repair, reason)
        }
    }

    /// Whether the master waits for replicas that are all lost, so that it would wait for ever; the sentence says why.
    fn last_replica_is_lost(&mut self, ctx: &Context<'_>, token: Token) -> Option<String> {
        let max_lag = Duration::from_secs(self.policy.fence()?.max_lag_secs.into());
        let at = self.replicas_lost_since()? + max_lag;
        if ctx.now < at {
            self.wake_at(at);
            return None;
        }
        let master = self.watches.get_mut(&self.entry.master)?;
        if master.facts()?.asked_at < at {
            // What it said before that may be of a replica that is only slow.
            master.ask(ctx.now, at);
            return None;
        }
        let lost: Vec<Addr> =
            self.watches.keys().filter(|addr| **addr != self.entry.master).cloned().collect();
        if !self.all_agree(ctx, token, at, &lost) {
            return None;
        }
        let lost: Vec<String> = lost.iter().map(ToString::to_string).collect();
        let lost = match lost.as_slice() {
            [] => "no replica is known any more".to_owned(),
            [one] => format!("its last replica {one} is down or has to copy everything"),
            [..] => format!("its replicas {} are down or have to copy everything", lost.join(", ")),
        };
        Some(format!(
            "min-replicas-to-write of {} is lowered to 0, because {lost} and it could take no write any more",
            self.entry.master
        ))
    }

    /// Since when no instance but the master could be promoted; `None` when one could, or may be able to.
    fn replicas_lost_since(&self) -> Option<Time> {
        let master = self.watches.get(&self.entry.master)?;
        let Role::Master { replicas } = &master.facts()?.role else { return None };
        if replicas.iter().any(|addr| self.entry.instance_of(addr).is_none()) {
            return None;
        }
        let mut since = Time::ZERO;
        for (_, watch) in self.watches.iter().filter(|(addr, _)| **addr != self.entry.master) {
            let facts = watch.facts().filter(|_| watch.serves());
            since = since.max(match watch.state() {
                State::Down => watch.since(),
                State::Up if facts.is_some_and(has_no_data) => watch.standing_since(),
                State::Up | State::Unknown => return None,
            });
        }
        Some(since)
    }

    /// Whether a quorum of the voters, asked since a moment, sees these replicas lost, and nobody sees one that could be
    /// promoted.
    fn all_agree(&mut self, ctx: &Context<'_>, token: Token, since: Time, lost: &[Addr]) -> bool {
        let Ok(quorum) = self.policy.quorum_of(ctx.voters.len()) else { return false };
        let asked = since.max(self.led_since);
        self.ask_peers(ctx, token, asked);
        let mut votes = usize::from(ctx.voters.contains(ctx.me));
        let (mut silent, mut denies) = (false, false);
        for node in ctx.voters.iter().filter(|node| *node != ctx.me) {
            match self.peers.sees_lost(node, lost, asked, ctx.now, &self.policy) {
                Some(true) => votes += 1,
                Some(false) => denies = true,
                None => silent = true,
            }
        }
        // Whoever knows better gets the time to say so.
        let heard = asked + self.policy.testimony_timeout;
        let too_early = silent && ctx.now < heard;
        if denies || votes < quorum || too_early {
            self.wake_at(heard.max(ctx.now + self.policy.testimony_timeout / 4));
            return false;
        }
        true
    }

    /// Tells the next instance that is not set as it was decided, the master last.
    fn send_fence(&mut self, ctx: &Context<'_>, token: Token) {
        let mut next: Option<(Addr, MinReplicas)> = None;
        let mut wakes = Vec::new();
        let mut undone = None;
        for (addr, known) in &self.entry.instances {
            let Some(fenced) = &known.fenced else { continue };
            let Some(actual) = self.fence_of(addr) else { continue };
            let is_set = actual.set == fenced.set;
            if is_set && fenced.kept == Kept::Written {
                continue;
            }
            // Somebody set it otherwise since, or it restarted without it.
            let is_undone = !is_set && fenced.kept != Kept::Unknown;
            let pauses = if is_undone { &self.fencing.undone } else { &self.fencing.pauses };
            let unwritten = self.fencing.unwritten.get(addr).filter(|_| is_set);
            let until =
                pauses.get(addr).into_iter().chain(unwritten).map(|(until, _)| *until).max();
            if let Some(until) = until.filter(|until| ctx.now < *until) {
                wakes.push(until);
                continue;
            }
            let is_master = *addr == self.entry.master;
            if next.is_none() || !is_master {
                undone = is_undone.then_some(actual.set.to_write);
                next = Some((addr.clone(), fenced.set));
            }
            if !is_master {
                break;
            }
        }
        if let Some((addr, set)) = next {
            if let Some(found) = undone {
                self.tell_undone(ctx.now, &addr, found, set);
            }
            self.command_fence(ctx, token, &addr, set);
        } else if let Some(at) = wakes.into_iter().min() {
            self.wake_at(at);
        }
    }

    /// Opens whoever is to become a master, by the decision that says so: its replicas come only after it.
    pub(super) fn open_candidate(&self, entry: &mut GroupEntry) {
        let Some(saga) = &entry.saga else { return };
        let before = self.entry.saga.as_ref().map(|saga| saga.phase);
        let is_candidate = entry.epoch != self.entry.epoch;
        let is_undone = saga.phase == Phase::Undoing && before != Some(Phase::Undoing);
        // The recorded master, which became a replica by hand.
        let is_brought_back = before.is_none() && saga.target == entry.master;
        let addr = if is_candidate {
            saga.target.clone()
        } else if is_undone || is_brought_back {
            entry.master.clone()
        } else {
            return;
        };
        let Some(known) = entry.instances.get_mut(&addr) else { return };
        match (self.policy.fence(), &mut known.fenced) {
            (on, Some(fenced)) => {
                fenced.set = on.map_or(fenced.former, open);
                fenced.kept = Kept::Unknown;
            }
            (Some(on), None) => {
                let facts = self.watches.get(&addr).and_then(Watch::facts);
                let actual = facts.and_then(|facts| facts.fence).map(|fence| fence.set);
                known.fenced = actual.filter(|actual| actual.is_on()).map(|former| Fenced {
                    former,
                    set: open(on),
                    kept: Kept::Unknown,
                });
            }
            (None, None) => {}
        }
    }

    /// What an instance that is told to become a master is set to with the same write.
    pub(super) fn promoted_fence(&self, addr: &Addr) -> Option<MinReplicas> {
        let known = self.entry.instances.get(addr)?;
        known.fenced.as_ref().map(|fenced| fenced.set)
    }

    /// What an instance that answers says of it.
    fn fence_of(&self, addr: &Addr) -> Option<Fence> {
        let watch = self.watches.get(addr).filter(|watch| watch.serves())?;
        watch.facts().and_then(|facts| facts.fence)
    }

    /// What is shown of it: what the master says, and else what was decided.
    pub(super) fn fencing_view(&self) -> FencingView {
        let facts = self.watches.get(&self.entry.master).and_then(Watch::facts);
        let said = facts.filter(|facts| facts.is_master()).and_then(|facts| facts.fence);
        let decided = self.entry.instances.get(&self.entry.master);
        let decided = decided.and_then(|known| known.fenced.as_ref()).map(|fenced| fenced.set);
        let set = said.map(|fence| fence.set).or(decided);
        FencingView {
            mode: self.policy.fencing.name(),
            min_replicas: self.policy.fence().and(set).map(|set| set.to_write),
        }
    }

    /// Why the old master of a failover that was carried out as far as it could be may take writes.
    pub(super) fn not_fenced_because(&self, old: &Addr) -> Option<String> {
        self.policy.fence()?;
        let master = &self.entry.master;
        if self.follows(old, self.master_since) {
            return None;
        }
        let known = self.entry.instances.get(old).and_then(|known| known.fenced.as_ref());
        if known.is_some_and(|fenced| fenced.set.to_write == 0) {
            return Some(format!(
                "the old master {old} is not fenced, because no replica followed it when it was lost"
            ));
        }
        let missing: Vec<String> = self
            .entry
            .instances
            .iter()
            .filter(|(addr, known)| known.attached && *addr != old && *addr != master)
            .filter(|(addr, _)| {
                let facts = self.watches.get(addr).and_then(Watch::facts);
                let of = facts.and_then(Facts::follows).and_then(|of| self.entry.instance_of(of));
                of != Some(master)
            })
            .map(|(addr, _)| addr.to_string())
            .collect();
        (!missing.is_empty()).then(|| {
            format!(
                "the old master {old} is not fenced until {} no longer follow it",
                missing.join(", ")
            )
        })
    }
}
