//! Many groups: routing of events, one timer set, requests, and the guard against this node's own pauses.
//!
//! The contract, in the order in which a driver keeps it: hand in everything that happened (`handle`,
//! `handle_timeout`), take every action (`poll`) until there is none, publish the groups that changed (`take_changed`),
//! and sleep until `poll_timeout` or the next event. Spurious calls are no-ops.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Bound;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::action::Action;
use crate::addr::Addr;
use crate::event::{Event, ProposalId, Testimony};
use crate::group::{Context, Group};
use crate::node::{GroupName, Leadership, NodeId};
use crate::notice::{Notice, What};
use crate::policy::{Policy, Room};
use crate::record::{Change, GroupEntry, HookEvent, Record, Revision};
use crate::time::Time;
use crate::view::GroupView;

mod crowd;
mod merge;
mod owners;
mod pace;
mod requests;
mod told;

use crowd::Crowd;
pub(crate) use owners::Owners;
use pace::Pace;
use requests::Pending;

/// The rules for all groups: those that have their own by name, the default for the others.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Policies {
    /// For groups without rules of their own.
    pub default: Policy,
    /// By group.
    pub by_group: BTreeMap<GroupName, Policy>,
    /// What the hooks of this node are to be told of, once it happened, while this node leads.
    pub told: BTreeSet<HookEvent>,
    /// What this node can hold; `None`: no bound is known.
    pub room: Option<Room>,
}

impl Policies {
    /// The rules for one group.
    pub fn of(&self, group: &GroupName) -> &Policy {
        self.by_group.get(group).unwrap_or(&self.default)
    }
}

/// All groups of one node.
#[derive(Debug)]
pub struct Fleet {
    me: NodeId,
    policies: Policies,
    /// The rules for groups without rules of their own, which all of them share.
    common: Arc<Policy>,
    leadership: Leadership,
    /// Whether a leader is known, or was a moment ago: an election is no reason to alarm anybody.
    led: bool,
    /// When that ends.
    led_until: Option<Time>,
    voters: Vec<NodeId>,
    record: Record,
    /// Boxed, because a tree of large values is half empty space.
    groups: BTreeMap<GroupName, Box<Group>>,
    owners: Owners,
    timers: BTreeSet<(Time, GroupName)>,
    pace: Pace,
    pending: BTreeMap<u64, Pending>,
    merging: BTreeSet<GroupName>,
    next_proposal: u64,
    actions: VecDeque<Action>,
    changed: BTreeSet<GroupName>,
    /// When something was handed in for the last time.
    awake: Time,
    crowd: Crowd,
}

impl Fleet {
    /// A node that knows of no group, no leader and no voter yet.
    pub fn new(me: NodeId, policies: Policies) -> Self {
        Self {
            me,
            common: Arc::new(policies.default.clone()),
            policies,
            leadership: Leadership::None,
            led: true,
            led_until: None,
            voters: Vec::new(),
            record: Record::default(),
            groups: BTreeMap::new(),
            owners: Owners::default(),
            timers: BTreeSet::new(),
            pace: Pace::default(),
            pending: BTreeMap::new(),
            merging: BTreeSet::new(),
            next_proposal: 0,
            actions: VecDeque::new(),
            changed: BTreeSet::new(),
            awake: Time::ZERO,
            crowd: Crowd::default(),
        }
    }

    /// Who acts, as far as this node knows.
    pub fn leadership(&self) -> &Leadership {
        &self.leadership
    }

    /// Whether a leader is known, or was a moment ago.
    pub fn led(&self) -> bool {
        self.led
    }

    /// This node.
    pub fn me(&self) -> &NodeId {
        &self.me
    }

    /// The record as this node has it.
    pub fn record(&self) -> &Record {
        &self.record
    }

    /// Takes something that happened. `poll` must be called until it returns `None` afterwards.
    pub fn handle(&mut self, now: Time, event: Event) {
        self.guard_stall(now);
        self.expect_leader(now);
        match event {
            Event::Probed { addr, seq, outcome } => {
                self.socket_seen(&addr, &outcome);
                self.with_owner(now, &addr, |group, ctx| group.probed(ctx, &addr, seq, outcome));
            }
            Event::Accepted { addr } => {
                self.with_owner(now, &addr, |group, ctx| group.accepted(ctx, &addr));
            }
            Event::Ended { addr } => {
                self.with_owner(now, &addr, |group, ctx| group.ended(ctx, &addr));
            }
            Event::Commanded { group, id, result } => {
                self.with_group(now, &group, |group, ctx| group.commanded(ctx, id, result));
            }
            Event::Vetted { group, id, veto } => {
                self.with_group(now, &group, |group, ctx| group.vetted(ctx, id, veto));
            }
            Event::Leadership(leadership) => {
                self.leadership = leadership;
                self.led |= self.leadership != Leadership::None;
                self.led_until = None;
                self.expect_leader(now);
                self.for_all(now, Group::leadership_changed);
            }
            Event::Voters(voters) => {
                self.voters = voters;
                self.for_all(now, Group::standing_changed);
            }
            Event::Committed { id, changes } => self.committed(now, id, &changes),
            Event::NotCommitted { id, why } => self.not_committed(now, id, &why),
            Event::Unsettled { id, why } => self.unsettled(now, id, &why),
            Event::Restored(record) => self.restored(now, record),
            Event::Testified { node, token, group, asked_at, testimony } => {
                self.with_group(now, &group, |group, ctx| {
                    group.testified(ctx, node, token, asked_at, testimony);
                });
            }
            Event::Told { group, number, hook } => {
                self.with_group(now, &group, |group, ctx| group.told(ctx, number, hook));
            }
            Event::Hinted { group } => self.with_group(now, &group, Group::hinted),
            Event::Request { id, request } => self.request(now, id, request),
        }
        self.look_at_next(now);
    }

    /// Lets time pass. `poll` must be called until it returns `None` afterwards.
    pub fn handle_timeout(&mut self, now: Time) {
        self.guard_stall(now);
        if self.led_until.take_if(|until| *until <= now).is_some() {
            self.led = false;
            self.for_all(now, Group::standing_changed);
        }
        // Each group once: one that wants to be woken again at once is, after the actions were taken.
        let mut due = Vec::new();
        while self.timers.first().is_some_and(|(at, _)| *at <= now) {
            due.extend(self.timers.pop_first());
        }
        for (_, name) in due {
            self.with_group(now, &name, |group, ctx| {
                group.armed = None;
                group.handle_timeout(ctx);
            });
        }
        self.look_at_next(now);
    }

    /// The next thing to be done outside; to be called until there is none, after every `handle` and `handle_timeout`.
    #[must_use = "the action was taken from the queue"]
    pub fn poll(&mut self) -> Option<Action> {
        let mut action = self.actions.pop_front()?;
        if let Action::Propose { changes, .. } = &mut action {
            for change in changes {
                self.note_told(change);
            }
        }
        Some(action)
    }

    /// When `handle_timeout` is to be called; to be asked again after every drain.
    #[must_use = "without it nothing is ever probed"]
    pub fn poll_timeout(&self) -> Option<Time> {
        let timer = self.timers.first().map(|(at, _)| *at);
        [timer, self.led_until, self.pace.timeout()].into_iter().flatten().min()
    }

    /// The groups of which more than ages changed since the last call, the removed ones included.
    pub fn take_changed(&mut self) -> BTreeSet<GroupName> {
        std::mem::take(&mut self.changed)
    }

    /// One group as it is shown; `None` when it is not guarded.
    pub fn view(&self, now: Time, name: &GroupName) -> Option<GroupView> {
        let group = self.guarded(name)?;
        Some(group.view(&self.context(now), self.record.history(name)))
    }

    /// A group, unless it leaves.
    fn guarded(&self, name: &GroupName) -> Option<&Group> {
        self.groups.get(name).map(Box::as_ref).filter(|group| group.entry().leaving.is_none())
    }

    /// The names of the groups behind this one, or of all.
    pub fn names_after(&self, name: Option<&GroupName>) -> impl Iterator<Item = &GroupName> {
        let from = name.map_or(Bound::Unbounded, Bound::Excluded);
        self.groups.range((from, Bound::Unbounded)).map(|(name, _)| name)
    }

    fn context(&self, now: Time) -> Context<'_> {
        Context {
            now,
            me: &self.me,
            leadership: &self.leadership,
            led: self.led,
            voters: &self.voters,
            owners: &self.owners,
            crowd: self.crowd.count(),
        }
    }

    /// A loop that was woken late saw nothing in the meantime: silence of that time proves nothing. What was handed in
    /// since the timer was due shows that it was awake, so that one pause is discarded once, however much waited.
    fn guard_stall(&mut self, now: Time) {
        let awake = std::mem::replace(&mut self.awake, now);
        let Some(expected) = self.poll_timeout() else { return };
        let stalled = now.since(expected.max(awake));
        if stalled <= self.policies.default.stall_limit {
            return;
        }
        for group in self.groups.values_mut() {
            group.discard(now, stalled);
        }
    }

    fn with_owner(&mut self, now: Time, addr: &Addr, act: impl FnOnce(&mut Group, &Context<'_>)) {
        if let Some(name) = self.owners.of(addr).cloned() {
            self.with_group(now, &name, act);
        }
    }

    /// Lets something happen to one group, takes its actions and re-arms its timer.
    fn with_group(
        &mut self,
        now: Time,
        name: &GroupName,
        act: impl FnOnce(&mut Group, &Context<'_>),
    ) {
        let Self { groups, timers, pace, owners, leadership, voters, me, led, .. } = self;
        let (led, crowd) = (*led, self.crowd.count());
        let Some(group) = groups.get_mut(name) else { return };
        act(group, &Context { now, me, leadership, led, voters, owners, crowd });
        self.crowd.note(name, group.in_trouble());
        while let Some(action) = group.poll() {
            self.actions.push_back(action);
        }
        if group.take_changed() {
            self.changed.insert(name.clone());
        }
        let at = group.poll_timeout().map(|(at, _)| at);
        let before = std::mem::replace(&mut group.armed, at);
        let is_confirmed = group.entry().confirmed;
        if before != at {
            if let Some(before) = before {
                timers.remove(&(before, name.clone()));
            }
            if let Some(at) = at {
                timers.insert((at, name.clone()));
            }
        }
        if pace.is_looking(name) && group.looked_at() {
            pace.forget(name);
        }
        if !is_confirmed {
            self.check_merge(name);
        }
    }

    /// Somebody is to lead soon, also at the start.
    fn expect_leader(&mut self, now: Time) {
        if self.led && self.led_until.is_none() && self.leadership == Leadership::None {
            self.led_until = Some(now + self.policies.default.election_grace);
        }
    }

    fn for_all(&mut self, now: Time, act: impl Fn(&mut Group, &Context<'_>)) {
        let names: Vec<GroupName> = self.groups.keys().cloned().collect();
        for name in names {
            self.with_group(now, &name, &act);
        }
    }

    /// Takes the record as it stands. Groups that were known before go on being watched; nothing is told of what is new
    /// in it, except of a master that is another now.
    fn restored(&mut self, now: Time, record: Record) {
        if self.leadership == Leadership::None && !self.led {
            // At a start nobody had the time to be elected, or to be heard of.
            self.led = true;
            self.led_until = Some(now + self.policies.default.election_grace);
        }
        let gone: Vec<GroupName> =
            self.groups.keys().filter(|name| record.entry(name).is_none()).cloned().collect();
        for name in gone {
            self.drop_group(&name);
        }
        self.record = record;
        self.owners = Owners::of_record(&self.record);
        let names: Vec<GroupName> = self.record.entries().map(|(name, _)| name.clone()).collect();
        for name in names {
            self.changed.insert(name.clone());
            let Some(entry) = self.record.entry(&name).cloned() else { continue };
            let revision = self.record.revision(&name);
            if let Some(group) = self.groups.get_mut(&name) {
                group.recall(now, &self.me, &entry, self.record.history(&name));
                self.with_group(now, &name, |group, ctx| group.restored(ctx, entry, revision));
            } else {
                self.begin_group(now, &name, entry, revision);
            }
        }
    }

    fn begin_group(&mut self, now: Time, name: &GroupName, entry: GroupEntry, revision: Revision) {
        let own = self.policies.by_group.get(name).cloned().map(Arc::new);
        let policy = own.unwrap_or_else(|| Arc::clone(&self.common));
        let mut group = Group::new(now, name.clone(), policy, entry.clone(), revision);
        group.recall(now, &self.me, &entry, self.record.history(name));
        self.groups.insert(name.clone(), Box::new(group));
        self.look_in_turn(now, name);
    }

    fn drop_group(&mut self, name: &GroupName) -> bool {
        let mut gone = self.groups.remove(name);
        if let Some(group) = &mut gone {
            group.wanted_removed();
            self.actions.extend(std::iter::from_fn(|| group.poll()));
        }
        for addr in gone.iter().flat_map(|group| group.entry().instances.keys()) {
            self.actions.push_back(Action::Forget { addr: addr.clone() });
        }
        self.changed.insert(name.clone());
        if let Some(at) = gone.as_ref().and_then(|group| group.armed) {
            self.timers.remove(&(at, name.clone()));
        }
        self.crowd.note(name, 0);
        self.merging.remove(name);
        self.pace.forget(name);
        gone.is_some()
    }

    /// What this node sees of a group right now, for the leader. `poll` must be called until it returns `None`
    /// afterwards.
    pub fn testify(&mut self, now: Time, name: &GroupName) -> Option<Testimony> {
        self.guard_stall(now);
        self.with_group(now, name, |group, ctx| {
            // Whoever asks is in doubt about it now.
            group.begin_to_look();
            group.handle_timeout(ctx);
        });
        let mut testimony = None;
        self.with_group(now, name, |group, ctx| testimony = Some(group.testify(ctx)));
        testimony
    }

    fn unsettled(&mut self, now: Time, id: ProposalId, why: &str) {
        match id {
            ProposalId::Group(name, seq) => {
                self.with_group(now, &name, |group, ctx| group.unsettled(ctx, seq, why));
            }
            ProposalId::Fleet(seq) => self.request_unsettled(seq, why),
        }
    }

    fn committed(&mut self, now: Time, id: Option<ProposalId>, changes: &[Change]) {
        let before: Vec<_> =
            changes.iter().map(|change| self.record.entry(&change.group).cloned()).collect();
        if let Err(conflict) = self.record.apply(changes) {
            if let Some(id) = id {
                let why = format!(
                    "{} was changed at the same time (revision {} instead of {})",
                    conflict.group, conflict.found, conflict.expected
                );
                self.not_committed(now, id, &why);
            }
            return;
        }
        let own = match &id {
            Some(ProposalId::Group(name, seq)) => Some((name, *seq)),
            Some(ProposalId::Fleet(_)) | None => None,
        };
        for (change, before) in changes.iter().zip(before) {
            self.changed.insert(change.group.clone());
            self.owners.note(&change.group, before.as_ref(), change.entry.as_ref());
            let mine = own.filter(|(name, _)| **name == change.group).map(|(_, seq)| seq);
            self.apply_to_group(now, change, mine);
        }
        if let Some(ProposalId::Fleet(seq)) = id {
            self.request_committed(seq);
        }
    }

    fn apply_to_group(&mut self, now: Time, change: &Change, mine: Option<u64>) {
        let name = &change.group;
        let Some(entry) = &change.entry else {
            if self.drop_group(name) {
                self.publish(now, name, What::GroupRemoved, &change.what);
            }
            return;
        };
        let revision = self.record.revision(name);
        if self.groups.contains_key(name) {
            let history = change.history.as_ref();
            self.with_group(now, name, |group, ctx| {
                group.committed(ctx, mine, entry.clone(), revision, history);
            });
            return;
        }
        self.publish(now, name, What::GroupAdded, &change.what);
        self.begin_group(now, name, entry.clone(), revision);
    }

    fn not_committed(&mut self, now: Time, id: ProposalId, why: &str) {
        match id {
            ProposalId::Group(name, seq) => {
                self.with_group(now, &name, |group, ctx| group.not_committed(ctx, seq, why));
            }
            ProposalId::Fleet(seq) => self.request_not_committed(now, seq, why),
        }
    }

    fn publish(&mut self, at: Time, group: &GroupName, what: What, sentence: &str) {
        let notice = Notice { at, group: group.clone(), what, sentence: sentence.to_owned() };
        self.actions.push_back(Action::Publish(notice));
    }

    fn take_proposal(&mut self) -> u64 {
        self.next_proposal += 1;
        self.next_proposal
    }
}
