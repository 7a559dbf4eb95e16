//! What people and programs ask: registering, removing, replacing, resuming. A request is answered after its commit.

use std::collections::BTreeSet;

use super::Fleet;
use crate::action::Action;
use crate::addr::Addr;
use crate::event::{Answer, GroupSpec, ProposalId, RefusalCode, Request, RequestId};
use crate::group::{Group, Wish};
use crate::node::GroupName;
use crate::policy::{GROUPS_MAX, INSTANCES_PER_GROUP_MIN};
use crate::record::{Change, GivenRule, GroupEntry, Known, Status};
use crate::time::Time;

/// How often a request is tried again when a group changes under its hands.
const TRIES_MAX: u32 = 5;

/// A proposal of the fleet that is with the broker.
#[derive(Debug)]
pub(super) enum Pending {
    /// A request of somebody who waits.
    Request { id: RequestId, request: Request, tries: u32 },
    /// A registered group that turned out to be part of another.
    Merge(GroupName),
}

type Refusal = (RefusalCode, String);

impl Fleet {
    pub(super) fn request(&mut self, now: Time, id: RequestId, request: Request) {
        self.try_request(now, id, request, 0);
    }

    fn try_request(&mut self, now: Time, id: RequestId, request: Request, tries: u32) {
        let Some(token) = self.leadership.token() else {
            let message = "this node is not the leader; nothing was done".to_owned();
            self.answer(id, Answer::Refused { code: RefusalCode::NoLeader, message });
            return;
        };
        let changes = match &request {
            Request::Add(specs) => self.add(specs, &BTreeSet::new()),
            Request::Replace(specs) => self.replace(now, specs),
            Request::Remove(which) => self.remove(now, which),
            Request::Switchover { group, to, timeout, dry_run } => {
                let wish = Wish::Switchover { timeout: *timeout };
                return self.replace_master(now, id, group, (wish, to.clone(), *dry_run));
            }
            Request::Failover { group, to, force, dry_run } => {
                let wish = Wish::Failover { force: *force };
                return self.replace_master(now, id, group, (wish, to.clone(), *dry_run));
            }
            Request::Resume(name) => self.resume(Some(name)),
            Request::ResumeAll => self.resume(None),
            Request::Rule { group, addr, rule } => self.rule(group, addr, *rule),
            Request::Forget { group, addr } => self.forget(now, group, addr),
            Request::Pause { group, reason, until } => {
                self.pause(now, group.as_ref(), reason.as_ref(), *until)
            }
        };
        match changes {
            Err((code, message)) => self.answer(id, Answer::Refused { code, message }),
            Ok(changes) if changes.is_empty() => self.answer(id, Answer::Done),
            Ok(changes) => {
                let proposal = self.take_proposal();
                self.pending.insert(proposal, Pending::Request { id, request, tries });
                self.actions.push_back(Action::Propose {
                    id: ProposalId::Fleet(proposal),
                    token,
                    changes,
                });
            }
        }
    }

    /// The group itself answers, when it has ended.
    fn replace_master(
        &mut self,
        now: Time,
        id: RequestId,
        name: &GroupName,
        (wish, to, dry_run): (Wish, Option<Addr>, bool),
    ) {
        if self.guarded(name).is_some() {
            self.with_group(now, name, |group, ctx| group.want(ctx, id, wish, to, dry_run));
        } else {
            let message = format!("there is no group named {name}");
            self.answer(id, Answer::Refused { code: RefusalCode::UnknownGroup, message });
        }
    }

    pub(super) fn request_committed(&mut self, proposal: u64) {
        match self.pending.remove(&proposal) {
            Some(Pending::Request { id, .. }) => self.answer(id, Answer::Done),
            Some(Pending::Merge(_)) | None => {}
        }
    }

    pub(super) fn request_not_committed(&mut self, now: Time, proposal: u64, why: &str) {
        match self.pending.remove(&proposal) {
            Some(Pending::Request { id, request, tries }) if tries < TRIES_MAX => {
                self.try_request(now, id, request, tries + 1);
            }
            Some(Pending::Request { id, .. }) => {
                let message = format!("not committed, nothing was done: {why}");
                self.answer(id, Answer::Refused { code: RefusalCode::NoQuorum, message });
            }
            Some(Pending::Merge(name)) => {
                self.merging.remove(&name);
            }
            None => {}
        }
    }

    pub(super) fn request_unsettled(&mut self, proposal: u64, why: &str) {
        match self.pending.remove(&proposal) {
            Some(Pending::Request { id, .. }) => {
                let message = format!(
                    "it is not known whether it was done ({why}); it may still be: read the groups and the history"
                );
                self.answer(id, Answer::unknown(message));
            }
            Some(Pending::Merge(name)) => {
                self.merging.remove(&name);
            }
            None => {}
        }
    }

    fn answer(&mut self, id: RequestId, answer: Answer) {
        self.actions.push_back(Action::Answer { id, answer });
    }

    /// The changes that guard these groups too; `going` are removed in the same proposal.
    fn add(
        &self,
        specs: &[GroupSpec],
        going: &BTreeSet<GroupName>,
    ) -> Result<Vec<Change>, Refusal> {
        let mut changes: Vec<Change> = Vec::new();
        let mut named: BTreeSet<GroupName> = BTreeSet::new();
        let mut taken: BTreeSet<Addr> = BTreeSet::new();
        for spec in specs {
            if let Some(owner) = self.owner_of(&spec.master, going) {
                if let Some(stays) = self.stays(&owner).filter(|_| !named.contains(&owner)) {
                    named.insert(owner);
                    changes.push(stays);
                }
                continue;
            }
            if taken.contains(&spec.master) {
                continue;
            }
            let name = spec.name.clone().unwrap_or_else(|| GroupName::from(&spec.master));
            let exists = self.record.entry(&name).is_some() && !going.contains(&name);
            if exists || named.contains(&name) {
                return Err((
                    RefusalCode::Refused,
                    format!(
                        "a group named {name} is guarded already, with other instances than {}",
                        spec.master
                    ),
                ));
            }
            let mut entry = GroupEntry::new(spec.master.clone());
            taken.insert(spec.master.clone());
            for replica in &spec.replicas {
                if self.owner_of(replica, going).is_none() && taken.insert(replica.clone()) {
                    let known = Known { listed: true, ..Known::default() };
                    entry.instances.insert(replica.clone(), known);
                }
            }
            named.insert(name.clone());
            changes.push(Change {
                expect: self.record.revision(&name),
                what: format!("{} is guarded from now on", spec.master),
                group: name,
                entry: Some(entry),
                history: None,
            });
        }
        if self.record.len() + changes.len() > GROUPS_MAX + going.len() {
            return Err((
                RefusalCode::Refused,
                format!("one node guards at most {GROUPS_MAX} groups; nothing was added"),
            ));
        }
        self.has_room(&changes, going)?;
        Ok(changes)
    }

    /// Whether this node can be connected to the instances of these groups as well.
    fn has_room(&self, changes: &[Change], going: &BTreeSet<GroupName>) -> Result<(), Refusal> {
        let Some(room) = &self.policies.room else { return Ok(()) };
        let is_new = |name: &GroupName| going.contains(name) || self.record.entry(name).is_none();
        let needs = |entry: &GroupEntry| entry.instances.len().max(INSTANCES_PER_GROUP_MIN);
        let new = changes.iter().filter(|change| is_new(&change.group));
        let new: Vec<usize> = new.filter_map(|change| change.entry.as_ref()).map(needs).collect();
        let wanted: usize = new.iter().sum();
        let kept = self.record.entries().filter(|(name, _)| !going.contains(*name));
        let kept: usize = kept.map(|(_, entry)| needs(entry)).sum();
        if wanted == 0 || kept + wanted <= room.instances_max {
            return Ok(());
        }
        let groups = if new.len() == 1 { "group" } else { "groups" };
        Err((
            RefusalCode::Refused,
            format!(
                "{} new {groups} would need connections to {wanted} instances (a master and at least one replica each), \
                 beside the {kept} that this node has to hold already, and it can hold {}: {}; nothing was added",
                new.len(),
                room.instances_max,
                room.why
            ),
        ))
    }

    fn replace(&self, now: Time, specs: &[GroupSpec]) -> Result<Vec<Change>, Refusal> {
        let none = BTreeSet::new();
        let kept: BTreeSet<GroupName> = specs
            .iter()
            .flat_map(|spec| std::iter::once(&spec.master).chain(&spec.replicas))
            .filter_map(|addr| self.owner_of(addr, &none))
            .collect();
        let going: BTreeSet<GroupName> = self
            .record
            .entries()
            .map(|(name, _)| name)
            .filter(|name| !kept.contains(name))
            .cloned()
            .collect();
        let mut changes = self.removals(now, &going)?;
        // A name that goes and comes back in one request is a new group: its old entry is replaced.
        let added = self.add(specs, &going)?;
        let fenced = |name: &&GroupName| {
            self.groups.get(name).is_some_and(|group| group.leaving_entry(now).is_some())
        };
        let mut taken =
            added.iter().map(|change| &change.group).filter(|name| going.contains(*name));
        if let Some(name) = taken.find(fenced) {
            return Err((
                RefusalCode::Busy,
                format!(
                    "the servers of the group {name} must have their settings back before another one gets its name: \
                     remove it, and ask again when it is gone; nothing was done"
                ),
            ));
        }
        let replaced: BTreeSet<&GroupName> = added.iter().map(|change| &change.group).collect();
        changes.retain(|gone| !replaced.contains(&gone.group));
        changes.extend(added);
        Ok(changes)
    }

    fn remove(&self, now: Time, which: &[String]) -> Result<Vec<Change>, Refusal> {
        let mut going = BTreeSet::new();
        for text in which {
            if let Ok(name) = GroupName::new(text)
                && self.record.entry(&name).is_some()
            {
                going.insert(name);
            } else if let Ok(addr) = text.parse::<Addr>() {
                let owner = self.owners.of(&addr).filter(|name| {
                    self.record
                        .entry(name)
                        .is_some_and(|entry| entry.instance_of(&addr) == Some(&entry.master))
                });
                going.extend(owner.cloned());
            }
        }
        self.removals(now, &going)
    }

    /// That a group that leaves is guarded again.
    fn stays(&self, name: &GroupName) -> Option<Change> {
        let group = self.groups.get(name)?;
        let entry = group.staying_entry()?;
        let what = format!("{name} is guarded again, before its servers had their settings back");
        Some(changed(name, group, what, entry))
    }

    fn removals(&self, now: Time, going: &BTreeSet<GroupName>) -> Result<Vec<Change>, Refusal> {
        let busy = going
            .iter()
            .find(|name| self.record.entry(name).is_some_and(|entry| entry.saga.is_some()));
        if let Some(name) = busy {
            return Err((
                RefusalCode::Busy,
                format!(
                    "something is being done to the group {name}; ask again when it is finished"
                ),
            ));
        }
        Ok(going
            .iter()
            .filter_map(|name| {
                let group = self.groups.get(name);
                if group.is_some_and(|group| group.entry().leaving.is_some()) {
                    return None;
                }
                Some(Change {
                    group: name.clone(),
                    expect: self.record.revision(name),
                    what: format!("{name} is not guarded any more"),
                    entry: group.and_then(|group| group.leaving_entry(now)),
                    history: None,
                })
            })
            .collect())
    }

    fn resume(&self, name: Option<&GroupName>) -> Result<Vec<Change>, Refusal> {
        let mut changes = Vec::new();
        for (name, group) in self.wanted(name)? {
            let Some(entry) = group.resumed_entry() else { continue };
            changes.push(changed(name, group, format!("{name} is resumed"), entry));
        }
        Ok(changes)
    }

    fn pause(
        &self,
        now: Time,
        name: Option<&GroupName>,
        reason: Option<&String>,
        until: Option<Time>,
    ) -> Result<Vec<Change>, Refusal> {
        let mut changes = Vec::new();
        for (which, group) in self.wanted(name)? {
            let halted = matches!(group.entry().status, Status::Halted { .. });
            if name.is_none() && halted {
                continue;
            }
            let entry = group.paused_entry(now, reason.cloned(), until)?;
            changes.push(changed(which, group, format!("{which} is paused"), entry));
        }
        Ok(changes)
    }

    fn forget(&self, now: Time, name: &GroupName, addr: &Addr) -> Result<Vec<Change>, Refusal> {
        let mut changes = Vec::new();
        for (name, group) in self.wanted(Some(name))? {
            let (entry, history) = group.forgotten_entry(now, &self.me, addr)?;
            let what = history.reason.clone();
            changes.push(Change { history: Some(history), ..changed(name, group, what, entry) });
        }
        Ok(changes)
    }

    fn rule(
        &self,
        name: &GroupName,
        addr: &Addr,
        rule: Option<GivenRule>,
    ) -> Result<Vec<Change>, Refusal> {
        let mut changes = Vec::new();
        for (name, group) in self.wanted(Some(name))? {
            let entry = group.ruled_entry(addr, rule)?;
            let what = match rule {
                Some(given) => format!("{addr} has the rule {}", given.rule.name()),
                None => format!("{addr} has no rule set on request"),
            };
            if entry != *group.entry() {
                changes.push(changed(name, group, what, entry));
            }
        }
        Ok(changes)
    }

    /// The group of that name, or all.
    fn wanted(&self, name: Option<&GroupName>) -> Result<Vec<(&GroupName, &Group)>, Refusal> {
        let groups = self.groups.iter().map(|(name, group)| (name, &**group));
        let guarded = groups.filter(|(_, group)| group.entry().leaving.is_none());
        let Some(name) = name else { return Ok(guarded.collect()) };
        let mut guarded = guarded;
        let group = guarded.find(|(known, _)| *known == name).ok_or_else(|| {
            (RefusalCode::UnknownGroup, format!("there is no group named {name}"))
        })?;
        Ok(vec![group])
    }

    fn owner_of(&self, addr: &Addr, going: &BTreeSet<GroupName>) -> Option<GroupName> {
        self.owners.of(addr).filter(|name| !going.contains(*name)).cloned()
    }
}

fn changed(name: &GroupName, group: &Group, what: String, entry: GroupEntry) -> Change {
    Change {
        group: name.clone(),
        expect: group.revision(),
        what,
        entry: Some(entry),
        history: None,
    }
}
