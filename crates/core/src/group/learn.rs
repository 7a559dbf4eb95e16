//! What the servers teach about their group: its replicas, its history of writes, other names of an instance.

use super::identity::{twins, unite};
use super::lineage::is_anothers;
use super::{Context, Diagnosis, Group, Work};
use crate::addr::Addr;
use crate::instance::{Facts, Role};
use crate::node::Token;
use crate::policy::{INSTANCES_PER_GROUP_MAX, LINEAGE_MAX};
use crate::record::{FullCopy, GroupEntry, Known};
use crate::view::State;
use crate::watch::Watch;

impl Group {
    /// Whom a registered address leads to, when it is a replica of somebody.
    pub(crate) fn leads_to(&self) -> Option<&Addr> {
        let watch = self.watches.get(&self.entry.master).filter(|watch| watch.serves())?;
        watch.facts()?.follows()
    }

    /// Finds out what a registered address is: a master, or a replica that leads to one.
    pub(super) fn register(&mut self, ctx: &Context<'_>, token: Token) {
        let master = &self.entry.master;
        let Some(watch) = self.watches.get(master) else { return };
        if watch.state() == State::Down {
            self.register_dead(token);
            return;
        }
        let Some(facts) = watch.facts().filter(|_| watch.serves()) else { return };
        let mut entry = self.entry.clone();
        let what = match facts.follows() {
            None => {
                entry.confirmed = true;
                entry.flavor = Some(facts.flavor);
                if let Some(known) = entry.instances.get_mut(master) {
                    known.attached = true;
                }
                format!("{master} is a master")
            }
            Some(of) if ctx.owners.of(of).is_some_and(|owner| *owner != self.name) => return,
            Some(of) => match self.entry.instance_of(of) {
                None => {
                    entry.master = of.clone();
                    entry.instances.insert(of.clone(), Known::default());
                    format!("{master} leads to {of}")
                }
                // A ring of replicas must not be followed for ever: a known one has to be a master.
                Some(of) => {
                    let of_watch = self.watches.get(of).filter(|watch| watch.serves());
                    if !of_watch.and_then(Watch::facts).is_some_and(Facts::is_master) {
                        return;
                    }
                    entry.master = of.clone();
                    format!("{master} leads to {of}")
                }
            },
        };
        self.propose(token, what, entry, None);
    }

    /// A master that was dead before it was ever asked is known by the replicas that its owner listed, when they follow
    /// it. An address that only led to it does not count: it may be the middle of a chain below a living master.
    fn register_dead(&mut self, token: Token) {
        let mut entry = self.entry.clone();
        let mut followers = Vec::new();
        for (addr, known) in self.entry.instances.iter().filter(|(_, known)| known.listed) {
            let watch = self.watches.get(addr).filter(|watch| watch.serves());
            let of = watch.and_then(Watch::facts).and_then(Facts::follows);
            if of.and_then(|of| entry.instance_of(of)) == Some(&entry.master) && !known.attached {
                followers.push(addr.clone());
            }
        }
        if followers.is_empty() {
            return;
        }
        entry.confirmed = true;
        for addr in followers.iter().chain([&self.entry.master]) {
            if let Some(known) = entry.instances.get_mut(addr) {
                known.attached = true;
            }
        }
        let what = format!("{} is the dead master of its listed replicas", self.entry.master);
        self.propose(token, what, entry, None);
    }

    /// Proposes what was learned since the last time. Returns whether there was anything.
    pub(super) fn learn(&mut self, ctx: &Context<'_>, token: Token) -> bool {
        let mut entry = self.entry.clone();
        while let Some((stays, goes)) = twins(&entry, &self.watches) {
            unite(&mut entry, &stays, &goes);
        }
        self.stranger = self.learn_from_master(ctx, &mut entry);
        self.learn_from_replicas(&mut entry);
        self.learn_copies(ctx.now, &mut entry);
        self.learn_of_loss(&mut entry);
        if entry == self.entry {
            return false;
        }
        let history = self.lost_for_good(ctx);
        entry.history_next += u64::from(history.is_some());
        self.propose(token, format!("what was learned of {}", self.name), entry, history);
        true
    }

    /// Returns whether the master names a replica that another group owns.
    fn learn_from_master(&self, ctx: &Context<'_>, entry: &mut GroupEntry) -> bool {
        let mut stranger = false;
        let Some(facts) =
            self.watches.get(&entry.master).filter(|watch| watch.serves()).and_then(Watch::facts)
        else {
            return false;
        };
        let Role::Master { replicas } = &facts.role else { return false };
        entry.flavor = Some(facts.flavor);
        // The history of one that may have lost its data is not the group's before that is settled.
        if self.restart_in_doubt().is_none() {
            entry.master_run_id.clone_from(&facts.run_id);
        }
        if let Some(id) = &facts.replication_id
            && entry.lineage.first() != Some(id)
            && self.restart_in_doubt().is_none()
        {
            entry.begin_history(id);
        }
        if let Some(known) = entry.instances.get_mut(&entry.master) {
            known.attached = true;
            known.trouble = None;
        }
        for addr in replicas {
            let known = entry.instance_of(addr).cloned();
            match known {
                Some(addr) => {
                    if let Some(known) = entry.instances.get_mut(&addr) {
                        known.attached = true;
                    }
                }
                None => {
                    let foreign = ctx.owners.of(addr).is_some_and(|owner| *owner != self.name);
                    stranger |= foreign;
                    if !foreign && entry.instances.len() < INSTANCES_PER_GROUP_MAX {
                        let known = Known { attached: true, ..Known::default() };
                        entry.instances.insert(addr.clone(), known);
                    }
                }
            }
        }
        stranger
    }

    fn learn_from_replicas(&self, entry: &mut GroupEntry) {
        let mut settled = Vec::new();
        for (addr, watch) in self.watches.iter().filter(|(addr, _)| **addr != entry.master) {
            let Some(facts) = watch.facts().filter(|_| watch.serves()) else { continue };
            let of = facts.follows().and_then(|of| entry.instance_of(of));
            if of == Some(&entry.master) {
                // One that hung answers first what it was asked before, and with a link that it has not found lost yet.
                let is_back = facts.asked_at >= watch.answers_since();
                let history = facts.replication_id.clone().filter(|_| facts.link_up() && is_back);
                // One that is cut off keeps a link that is only said to be up.
                let heard = facts.link_last_io_secs().map(std::time::Duration::from_secs);
                let heard = heard.is_some_and(|ago| ago <= self.policy.ping_period);
                let known = watch.answers_since().max(self.led_since).max(self.abandoned_since);
                let surely = facts.asked_at >= known;
                settled.push((addr.clone(), surely, history.map(|id| (id, heard))));
            }
        }
        let master = self.watches.get(&entry.master);
        let master_says = master.is_some_and(Watch::serves);
        // What followed a process that was never judged may be a copy of nothing, and one that came back as a replica
        // passes another one's history on.
        let judged = master.and_then(Watch::facts).is_none_or(|facts| {
            facts.is_master() && (facts.run_id == entry.master_run_id || facts.run_id == self.kept)
        }) && self.restart_in_doubt().is_none();
        for (addr, surely, history) in settled {
            // A master that restarted begins another history when its first replica comes, and may die before it is
            // read again: whoever has its link up has its master's history. The newest is what the master says, and while
            // it does not, that of whoever just heard of it.
            if let Some((id, heard)) =
                history.filter(|(id, _)| !entry.lineage.contains(id) && judged)
                && !is_anothers(entry, &self.watches, &id)
            {
                let place = if heard && !master_says { 0 } else { entry.lineage.len().min(1) };
                entry.lineage.insert(place, id);
                entry.lineage.truncate(LINEAGE_MAX);
            }
            if let Some(known) = entry.instances.get_mut(&addr) {
                known.attached = true;
                let forgets = !self.manners().finds_common;
                if surely && forgets && known.abandoned.is_some() {
                    // It may have been a master for a while, and have forgotten that with its process. As long as there is
                    // no master to copy from, it is what is left.
                    if master_says && judged {
                        known.abandoned = None;
                        known.copy = Some(FullCopy::Owed);
                    }
                } else if surely {
                    // Its role was read: the promotion that was given up did not happen, or was undone.
                    known.abandoned = None;
                }
            }
        }
    }

    /// Whether nothing can follow from an answer of this instance that says what the one before it said.
    pub(super) fn is_quiet(&self, addr: &Addr) -> bool {
        let abandoned = |known: &Known| known.abandoned.is_some();
        matches!(self.work, Work::Idle)
            && self.links_up()
            && self.entry.saga.is_none()
            && !self.stranger
            && self.restarted.is_none()
            && self.wanted.is_none()
            && !self.entry.instances.get(addr).is_some_and(abandoned)
            && self.manners().finds_common
            && self.diagnosis == Diagnosis::Healthy
    }

    /// An instance turned out to have another address: its name resolved to it. Two instances that are one server
    /// become one. Returns whether that was news.
    pub(super) fn learn_alias(&mut self, ctx: &Context<'_>, addr: &Addr, alias: &Addr) -> bool {
        let known =
            self.entry.instances.get(addr).is_some_and(|known| known.aliases.contains(alias));
        let foreign = ctx.owners.of(alias).is_some_and(|owner| *owner != self.name);
        let busy = !matches!(self.work, Work::Idle) || self.entry.saga.is_some();
        let Some(token) = ctx.leadership.token().filter(|_| !known && !foreign && !busy) else {
            return false;
        };
        let mut entry = self.entry.clone();
        // The master's address is what everyone is told; the other name gives way.
        let (stays, goes) = if *alias == entry.master { (alias, addr) } else { (addr, alias) };
        unite(&mut entry, stays, goes);
        self.propose(token, format!("{addr} is {alias}"), entry, None);
        true
    }
}
