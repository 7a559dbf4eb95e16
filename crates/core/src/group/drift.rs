//! Roles that were changed by hand: undone after a while, adopted when there is no doubt, and never fought about.
//!
//! By hand is what the same process became without having been away. A server that was away and is something else now
//! returned (see `repair.rs`), or is another server that was given the address.

use super::elect::{Contest, judge_heir};
use super::identity::same_process;
use super::repair::Wrong;
use super::{Context, Diagnosis, Group};
use crate::addr::Addr;
use crate::instance::{Facts, Role};
use crate::node::{GroupName, NodeId, Token};
use crate::record::{GroupEntry, HistoryEntry, Kind, Outcome, Step};
use crate::time::Time;
use crate::view::State;
use crate::watch::Watch;

/// So often within [`DRIFT_WINDOW`] a change by hand is undone in one group; whoever repeats it means it, or is another
/// monitor.
pub(super) const DRIFTS_MAX: usize = 3;
const DRIFT_WINDOW: std::time::Duration = std::time::Duration::from_secs(3600);

impl Group {
    /// The other group that a server belongs to by the history it is on: it was given an address of this group.
    pub(super) fn stranger_of<'a>(
        &self,
        ctx: &Context<'a>,
        facts: &Facts,
    ) -> Option<&'a GroupName> {
        let id = facts.replication_id.as_ref().filter(|id| !self.entry.lineage.contains(id))?;
        ctx.owners.of_history(id).filter(|owner| **owner != self.name)
    }

    /// Whether a master with replicas of its own, none of which is known here, is likely to be somebody else's.
    pub(super) fn leads_strangers(&self, facts: &Facts) -> bool {
        let ours = [&facts.replication_id, &facts.second_replication_id];
        if ours.into_iter().flatten().any(|id| self.entry.lineage.contains(id)) {
            // Nobody else has this group's history: its replicas came while it was away from here.
            return false;
        }
        match &facts.role {
            Role::Master { replicas } => {
                let known = |addr: &Addr| self.entry.instance_of(addr).is_some();
                !replicas.is_empty() && !replicas.iter().any(known)
            }
            Role::Replica { .. } => false,
        }
    }

    /// Whether an address of the group seems to be somebody else's server by now.
    pub(super) fn is_stranger(&self, ctx: &Context<'_>, addr: &Addr) -> bool {
        let facts = self.watches.get(addr).and_then(Watch::facts);
        !self.settled.contains_key(addr)
            && facts.is_some_and(|facts| {
                self.stranger_of(ctx, facts).is_some() || self.leads_strangers(facts)
            })
    }

    /// What to do about a change by hand that stands since a moment: leave it for a while, or for good when it was undone
    /// often enough.
    pub(super) fn judge_drift(&mut self, now: Time, addr: &Addr, kind: Kind, why: String) -> Wrong {
        let since = *self.drifts.entry(addr.clone()).or_insert(now);
        if let Some(until) = self.drift_limit(now) {
            self.wake_at(until);
            return Wrong::LeaveAlone(format!(
                "{why}; changes by hand were undone {DRIFTS_MAX} times within an hour, and until {until} they are only \
                 reported: stop whoever makes them, or pause the group"
            ));
        }
        let at = since + self.policy.drift_wait;
        if now < at {
            self.wake_at(at);
            return Wrong::LeaveAlone(format!(
                "{why}; it is undone at {at}, if it still stands then"
            ));
        }
        Wrong::Repair(kind, format!("{why}; it stood for {} s", now.since(since).as_secs()))
    }

    /// Until when nothing is undone any more.
    fn drift_limit(&self, now: Time) -> Option<Time> {
        // By the clock of whoever led then. What is yet to come by this one cannot be dated, and holds back nothing.
        let mut undone = self.entry.drifts_undone.iter().rev().filter(|at| **at <= now);
        let until = *undone.nth(DRIFTS_MAX - 1)? + DRIFT_WINDOW;
        (now < until).then_some(until)
    }

    /// The changes by hand that were undone, with one more, as the record keeps them.
    pub(super) fn drifts_with(&self, now: Time) -> Vec<Time> {
        let undone = self.entry.drifts_undone.iter().copied().chain([now]);
        let excess = (self.entry.drifts_undone.len() + 1).saturating_sub(DRIFTS_MAX);
        undone.skip(excess).collect()
    }

    /// The recorded master was made a replica by hand: whom it follows is adopted when that one is a master, and else it is
    /// made a master again. The sentence says why neither is done yet; `None` that it is a master.
    pub(super) fn consider_deposed(&mut self, ctx: &Context<'_>, token: Token) -> Option<String> {
        let master = self.entry.master.clone();
        let watch = self.watches.get(&master).filter(|watch| watch.serves())?;
        let facts = watch.facts().filter(|facts| facts.asked_at >= self.master_since)?;
        let Some(of) = facts.follows().cloned() else {
            let refuses = facts.read_only;
            return refuses.then(|| self.consider_refusing(ctx, token)).flatten();
        };
        // What was read before this leadership may be over: another leader may have acted on it.
        let standing_since = watch.standing_since().max(self.led_since);
        let restarted = match self.manners().keeps_role {
            true => facts.run_id != self.entry.master_run_id,
            // It has no name for its process: it was away, and came back so.
            false => watch.came_back_so(),
        };
        let known = facts.replication_id.as_ref().is_none_or(|id| self.entry.lineage.contains(id));
        // A process that was just started has another history, and its data still until it has a link.
        let ours = known || restarted && !facts.link_up();
        let what = match restarted {
            true => format!("{master} restarted as a replica of {of}"),
            false => format!("{master} was made a replica of {of} by hand"),
        };
        if !self.everyone_was_asked(ctx.now, standing_since) {
            return Some(format!("{what}; every instance is asked what it is now"));
        }
        if let Some(heir) = self.made_by_hand(ctx.now, standing_since) {
            if let Some((other, keys)) = self.holder_of_more(&heir) {
                return Some(format!(
                    "{what}, which holds next to nothing, while {other} holds {keys} {}: decide with a failover",
                    self.manners().holds
                ));
            }
            let (entry, history) =
                self.adopt(ctx.now, ctx.me, &heir, Diagnosis::MasterBecameReplica);
            self.propose(
                token,
                format!("{heir} is adopted as the master of {}", self.name),
                entry,
                Some(history),
            );
            return Some(what);
        }
        if !ours {
            return Some(format!(
                "{what}, and has taken over the data of that one: nothing is left to be undone. Promote one of the group with a \
                 failover with force, or remove the group and register it under its new master"
            ));
        }
        if let Some(other) = self.rival(ctx.now) {
            return Some(format!(
                "{what}, and {other} is a master that does not replace it beyond doubt: decide with a failover, or point \
                 {master} back"
            ));
        }
        if let Some(doubt) = self.restart_in_doubt() {
            return Some(doubt);
        }
        if let Some((other, keys)) = self.holder_of_more(&master) {
            return Some(format!(
                "{what}, and holds next to nothing, while {other} holds {keys} {}: decide with a failover",
                self.manners().holds
            ));
        }
        let by_old_file = restarted && self.entry.instance_of(&of).is_some();
        let wrong = match by_old_file {
            // Nobody wants a ring without a master.
            true => Wrong::Repair(Kind::Repair, format!("{what}, and nobody is a master")),
            false => self.judge_drift(ctx.now, &master, Kind::Repair, what),
        };
        match wrong {
            Wrong::Repair(_, why)
                if !by_old_file && !self.everyone_was_asked(ctx.now, self.ripe_since(&master)) =>
            {
                Some(format!("{why}; every instance is asked what it is now"))
            }
            Wrong::Repair(kind, why) => {
                self.repair_unless_failing(ctx, token, &master, kind, why, !by_old_file)
            }
            Wrong::LeaveAlone(why) => Some(why),
            Wrong::Nothing | Wrong::Drift(..) => None,
        }
    }

    /// The recorded master takes no writes, and no switchover of ours is why: that is undone like a change by hand.
    fn consider_refusing(&mut self, ctx: &Context<'_>, token: Token) -> Option<String> {
        let master = self.entry.master.clone();
        let what = format!("{master} was made to refuse every write");
        match self.judge_drift(ctx.now, &master, Kind::Repair, what) {
            Wrong::Repair(kind, why) => {
                self.repair_unless_failing(ctx, token, &master, kind, why, true)
            }
            Wrong::LeaveAlone(why) => Some(why),
            Wrong::Nothing | Wrong::Drift(..) => None,
        }
    }

    /// A master that has what the recorded one has, which is a replica, or that it follows: beside it, it is not made a
    /// master again. One that only came back is made a replica afterwards.
    pub(super) fn rival(&self, now: Time) -> Option<&Addr> {
        let recorded = self.watches.get(&self.entry.master).and_then(Watch::facts);
        let followed = recorded.and_then(Facts::follows).and_then(|of| self.entry.instance_of(of));
        // Where roles are forgotten, one that came back with no more than the recorded master has is only what it was once.
        let forgot = |watch: &Watch, facts: &Facts| {
            !facts.flavor.manners().keeps_role
                && watch.returned()
                && recorded.is_some_and(|recorded| facts.offset <= recorded.offset)
        };
        let is_rival = |addr: &Addr, watch: &Watch, facts: &Facts| {
            let heir = facts.replication_id.is_none() || self.is_heir(now, facts);
            facts.takes_writes() && (heir || followed == Some(addr)) && !forgot(watch, facts)
        };
        let mut others = self.watches.iter().filter(|(addr, _)| **addr != self.entry.master);
        let rival = others.find(|(addr, watch)| {
            watch.serves() && watch.facts().is_some_and(|facts| is_rival(addr, watch, facts))
        });
        rival.map(|(addr, _)| addr)
    }

    /// Since when a change by hand of an instance has stood long enough to be undone: what was read before that may be of a
    /// change that is not complete.
    pub(super) fn ripe_since(&self, addr: &Addr) -> Time {
        self.drifts.get(addr).map_or(Time::ZERO, |since| *since + self.policy.drift_wait)
    }

    /// Asks everyone what they are since a moment; whether they answered, or were waited for long enough.
    pub(super) fn everyone_was_asked(&mut self, now: Time, since: Time) -> bool {
        let deadline = since + self.policy.corroboration_timeout;
        let mut unheard = false;
        for watch in self.watches.values_mut() {
            let old = watch.facts().is_none_or(|facts| facts.asked_at < since);
            if old && watch.state() != State::Down && now < deadline {
                watch.ask(now, since);
                unheard = true;
            }
        }
        if unheard {
            self.wake_at(deadline);
        }
        !unheard
    }

    /// The master that somebody made by hand, when there is no doubt: it alone answers as a master, the recorded one follows
    /// it or is down, and it has the group's history.
    pub(super) fn made_by_hand(&self, now: Time, since: Time) -> Option<Addr> {
        if !self.entry.confirmed {
            return None;
        }
        let read = |watch: &Watch| -> Option<Facts> {
            watch.facts().filter(|facts| facts.asked_at >= since && watch.serves()).cloned()
        };
        let mut masters: Vec<(&Addr, Facts)> = Vec::new();
        for (addr, watch) in &self.watches {
            let Some(facts) = read(watch).filter(Facts::takes_writes) else { continue };
            if !masters.iter().any(|(_, known)| same_process(known, &facts)) {
                masters.push((addr, facts));
            }
        }
        let [(addr, heir)] = masters.as_slice() else { return None };
        if **addr == self.entry.master {
            return None;
        }
        let recorded = self.watches.get(&self.entry.master)?;
        let recorded_facts = read(recorded);
        let followed = match &recorded_facts {
            Some(facts) => facts.follows().and_then(|of| self.entry.instance_of(of)) == Some(*addr),
            None => recorded.state() == State::Down,
        };
        // What the recorded master took over, it cannot lose any more.
        let taken_over = recorded_facts.as_ref().is_some_and(|facts| {
            facts.link_up()
                && facts.replication_id.is_some()
                && facts.replication_id == heir.replication_id
        });
        // Where roles are forgotten, one that came back as a master is one by hand only when it took writes since.
        let forgot = !heir.flavor.manners().keeps_role
            && self.watches.get(addr).is_some_and(Watch::returned)
            && recorded_facts.is_some_and(|facts| heir.offset <= facts.offset);
        let fits = taken_over || !forgot && self.is_heir(now, heir);
        (followed && fits).then(|| (*addr).clone())
    }

    /// Whether a master that was made by hand has what the group's masters had.
    fn is_heir(&self, now: Time, facts: &Facts) -> bool {
        judge_heir(&Contest { emptied: false, ..self.contest_at(now) }, facts).is_ok()
    }

    /// Whether the repair before is still on its way: one full copy at a time is enough for a master.
    pub(super) fn is_copying(&self, now: Time, other: &Addr) -> Option<&Addr> {
        let (addr, since) = self.copying.as_ref().filter(|(addr, _)| addr != other)?;
        let watch = self.watches.get(addr).filter(|watch| watch.serves())?;
        let linked = watch.facts().is_some_and(Facts::link_up) && !self.is_taking_a_copy(addr);
        (!linked && now < *since + self.policy.link_timeout).then_some(addr)
    }

    /// The entry in which a master that was made by hand is the recorded one, and what the history says of it.
    pub(super) fn adopt(
        &self,
        now: Time,
        me: &NodeId,
        master: &Addr,
        cause: Diagnosis,
    ) -> (GroupEntry, HistoryEntry) {
        let mut entry = self.entry.clone();
        entry.succeed(master);
        entry.epoch += 1;
        entry.history_next += 1;
        if let Some(known) = entry.instances.get_mut(master) {
            known.attached = true;
            known.abandoned = None;
        }
        self.owe_copies_of(master, &mut entry);
        let facts = self.watches.get(master).and_then(Watch::facts);
        entry.master_run_id = facts.and_then(|facts| facts.run_id.clone());
        if let Some(id) = facts.and_then(|facts| facts.replication_id.as_ref()) {
            entry.begin_history(id);
        }
        let old = &self.entry.master;
        let reason =
            format!("{master} was made the master by hand, and {old} follows it or is down");
        let history = HistoryEntry {
            epoch: entry.epoch,
            new_master: Some(master.clone()),
            cause: cause.name().to_owned(),
            outcome: Outcome::Done,
            finished_at: Some(now),
            steps: vec![Step {
                name: "recorded".to_owned(),
                addr: Some(master.clone()),
                at_ms: 0.0,
                node: me.clone(),
                note: None,
            }],
            ..self.new_history((now, me), Kind::Adoption, reason)
        };
        (entry, history)
    }
}
