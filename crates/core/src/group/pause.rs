//! Doing nothing on request, and what follows when that ends.
//!
//! A pause is in the record, so that it outlasts restarts and leaders. Its end by the clock is judged by whoever leads then.
//! However it ends, every instance is asked once more first: what was changed by hand meanwhile is adopted when it leaves no
//! doubt, and else reported as on any other day.

use super::elect::{Contest, judge_heir};
use super::identity::same_process;
use super::{Context, Group, Work};
use crate::addr::Addr;
use crate::event::RefusalCode;
use crate::instance::Facts;
use crate::node::{NodeId, Token};
use crate::policy::LINEAGE_MAX;
use crate::record::{GroupEntry, HistoryEntry, Kind, Outcome, Status, Step};
use crate::time::Time;
use crate::view::State;
use crate::watch::Watch;

impl Group {
    /// The entry with which an operator's resume would be committed, when there is something to resume.
    pub fn resumed_entry(&self) -> Option<GroupEntry> {
        let status = match self.entry.status {
            Status::Halted { .. } => Status::Active,
            Status::Paused { .. } => Status::Resuming,
            Status::Active | Status::Resuming => return None,
        };
        Some(GroupEntry { status, ..self.entry.clone() })
    }

    /// The entry with which an operator's pause would be committed.
    ///
    /// # Errors
    /// A sentence that says why it cannot be paused, when something is being done to it or it is halted.
    pub fn paused_entry(
        &self,
        at: Time,
        reason: Option<String>,
        until: Option<Time>,
    ) -> Result<GroupEntry, (RefusalCode, String)> {
        let name = &self.name;
        if self.entry.saga.is_some() {
            let why = format!(
                "something is being done to the group {name} and is finished first; ask again then"
            );
            return Err((RefusalCode::Busy, why));
        }
        let at = match self.entry.status {
            Status::Halted { .. } => {
                let why = format!(
                    "the group {name} is halted: nothing is done to it anyway, until it is resumed"
                );
                return Err((RefusalCode::Refused, why));
            }
            Status::Paused { at, .. } => at,
            Status::Active | Status::Resuming => at,
        };
        Ok(GroupEntry { status: Status::Paused { reason, until, at }, ..self.entry.clone() })
    }

    /// Why, since when and until when it is paused, in one sentence.
    pub(super) fn pause_in_words(&self) -> Option<String> {
        let Status::Paused { reason, until, at } = &self.entry.status else { return None };
        let until = match until {
            Some(until) => format!("until {until}"),
            None => "until it is resumed".to_owned(),
        };
        let reason = reason.as_deref().map(|reason| format!(": {reason}")).unwrap_or_default();
        Some(format!("the group was paused on request at {at} {until}{reason}"))
    }

    /// Keeps a pause, and ends it when its time is over; the sentence says why nothing is done, `None` that it is not
    /// paused.
    pub(super) fn keep_paused(&mut self, ctx: &Context<'_>, token: Token) -> Option<String> {
        let over = match self.entry.status {
            Status::Active | Status::Halted { .. } => return None,
            Status::Resuming => true,
            Status::Paused { until, .. } => {
                self.wake = until.filter(|until| *until > ctx.now);
                until.is_some_and(|until| until <= ctx.now)
            }
        };
        let why = self.pause_in_words().unwrap_or_else(|| "the pause of the group ends".to_owned());
        if matches!(self.work, Work::Proposing { .. }) {
            return Some(why);
        }
        // Whatever was being prepared is not done.
        self.work = Work::Idle;
        self.veto = None;
        if over {
            self.end_pause(ctx, token);
        } else if self.entry.confirmed && self.death(ctx.now).is_none() {
            // To know its instances is part of watching it.
            if !self.learn(ctx, token) {
                self.note_replicas(ctx, token);
            }
        }
        Some(why)
    }

    /// Asks everyone what they are by now, and then makes the group active, with the master that it has.
    fn end_pause(&mut self, ctx: &Context<'_>, token: Token) {
        let since = *self.ending.get_or_insert(ctx.now);
        let unheard: Vec<Addr> = self
            .watches
            .iter()
            .filter(|(_, watch)| watch.state() != State::Down)
            .filter(|(_, watch)| watch.facts().is_none_or(|facts| facts.asked_at < since))
            .map(|(addr, _)| addr.clone())
            .collect();
        let deadline = since + self.policy.corroboration_timeout;
        if !unheard.is_empty() && ctx.now < deadline {
            for addr in &unheard {
                if let Some(watch) = self.watches.get_mut(addr) {
                    watch.ask(ctx.now, since);
                }
            }
            self.wake = Some(deadline);
            return;
        }
        self.ending = None;
        let (entry, history) = match self.made_by_hand(ctx.now, since) {
            Some(master) => {
                let (entry, history) = self.adopt(ctx.now, ctx.me, &master);
                (entry, Some(history))
            }
            None => (self.entry.clone(), None),
        };
        let entry = GroupEntry { status: Status::Active, ..entry };
        self.propose(token, format!("the pause of {} ends", self.name), entry, history);
    }

    /// The master that somebody made while the group was paused, when there is no doubt: it alone answers as a master, the
    /// recorded one follows it or is down, and it has the group's history.
    fn made_by_hand(&self, now: Time, since: Time) -> Option<Addr> {
        if !self.entry.confirmed {
            return None;
        }
        let facts = |watch: &Watch| -> Option<Facts> {
            let read = watch.facts().filter(|facts| facts.asked_at >= since && watch.serves());
            read.cloned()
        };
        let mut masters: Vec<(&Addr, Facts)> = Vec::new();
        for (addr, watch) in &self.watches {
            let Some(facts) = facts(watch).filter(Facts::is_master) else { continue };
            if !masters.iter().any(|(_, known)| same_process(known, &facts)) {
                masters.push((addr, facts));
            }
        }
        let [(addr, heir)] = masters.as_slice() else { return None };
        if **addr == self.entry.master {
            return None;
        }
        let recorded = self.watches.get(&self.entry.master)?;
        let read = facts(recorded);
        let followed = match &read {
            Some(read) => read.follows().and_then(|of| self.entry.instance_of(of)) == Some(*addr),
            None => recorded.state() == State::Down,
        };
        // What the recorded master took over, it cannot lose any more.
        let taken_over = read.is_some_and(|read| {
            read.link_up()
                && read.replication_id.is_some()
                && read.replication_id == heir.replication_id
        });
        let contest = Contest {
            entry: &self.entry,
            watches: &self.watches,
            policy: &self.policy,
            peers: &self.peers,
            tried: &[],
            dead_since: now,
            read_after: None,
            emptied: false,
            now,
        };
        let fits = taken_over || judge_heir(&contest, heir).is_ok();
        (followed && fits).then(|| (*addr).clone())
    }

    /// The entry in which a master that was made by hand is the recorded one, and what the history says of it.
    fn adopt(&self, now: Time, me: &NodeId, master: &Addr) -> (GroupEntry, HistoryEntry) {
        let mut entry = self.entry.clone();
        entry.master = master.clone();
        entry.epoch += 1;
        entry.history_next += 1;
        if let Some(known) = entry.instances.get_mut(master) {
            known.attached = true;
            known.abandoned = None;
        }
        let facts = self.watches.get(master).and_then(Watch::facts);
        entry.master_run_id = facts.and_then(|facts| facts.run_id.clone());
        if let Some(id) = facts.and_then(|facts| facts.replication_id.clone()) {
            entry.lineage.retain(|known| *known != id);
            entry.lineage.insert(0, id);
            entry.lineage.truncate(LINEAGE_MAX);
        }
        let old = &self.entry.master;
        let history = HistoryEntry {
            id: format!("{}-{}", self.name, self.entry.history_next),
            kind: Kind::Adoption,
            epoch: entry.epoch,
            old_master: old.clone(),
            new_master: Some(master.clone()),
            cause: self.diagnosis.name().to_owned(),
            reason: format!(
                "{master} was made the master by hand while the group was paused, and {old} follows it or is down"
            ),
            outcome: Outcome::Done,
            started_at: now,
            finished_at: Some(now),
            leader: me.clone(),
            write_gap_ms: None,
            bytes_possibly_lost: None,
            steps: vec![Step {
                name: "recorded".to_owned(),
                addr: Some(master.clone()),
                at_ms: 0.0,
                node: me.clone(),
                note: None,
            }],
            ranking: Vec::new(),
        };
        (entry, history)
    }
}
