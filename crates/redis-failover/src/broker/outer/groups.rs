//! The record, between the store and the core: what is stored becomes changes that are told, and changes that are
//! proposed become what is stored.
//!
//! Each group is a value of its own, and each entry of history another, so that no value grows with the number of
//! groups and a step of a failover writes little.

use std::collections::{BTreeMap, BTreeSet};

use failover_core::addr::Addr;
use failover_core::event::Event;
use failover_core::node::GroupName;
use failover_core::record::{Change, GroupEntry, GroupRecord, HistoryEntry, Record, Revision};
use serde::Serialize;

use super::layout::{self, Place, StoredGroup, StoredHistory, StoredMarker};
use super::store::{Expect, Op};

/// Changes of one group that are told one by one after some were missed; more are told as a whole.
const MISSED_MAX: u64 = 64;

/// One group as it is stored.
#[derive(Clone, Debug, Default)]
struct Seen {
    entry: Option<SeenEntry>,
    history: BTreeMap<Revision, HistoryEntry>,
}

#[derive(Clone, Debug)]
struct SeenEntry {
    revision: Revision,
    history_at: Option<Revision>,
    what: String,
    entry: GroupEntry,
    /// The store's version of the value.
    version: u64,
}

impl Seen {
    fn revision(&self) -> Revision {
        self.entry.as_ref().map_or(0, |seen| seen.revision)
    }

    /// The master that everyone who asks is told.
    fn master(&self) -> Option<&Addr> {
        let entry = &self.entry.as_ref()?.entry;
        entry.leaving.is_none().then_some(&entry.master)
    }

    /// Whether the newest entry of history is there that belongs to it: values are not always read at once.
    fn is_complete(&self) -> bool {
        let at = self.entry.as_ref().and_then(|seen| seen.history_at);
        at.is_none_or(|at| self.history.contains_key(&at))
    }

    fn record(&self) -> Option<GroupRecord> {
        let SeenEntry { revision, entry, .. } = self.entry.as_ref()?;
        let history = self.history.range(..=*revision).map(|(_, entry)| entry.clone()).collect();
        Some(GroupRecord { revision: *revision, entry: entry.clone(), history })
    }
}

/// All groups: as they are stored, and as they were told.
#[derive(Debug, Default)]
pub(super) struct Groups {
    seen: BTreeMap<GroupName, Seen>,
    seen_removed: Revision,
    /// Whether anything was ever agreed there.
    is_marked: bool,
    told: Option<Record>,
    touched: BTreeSet<GroupName>,
    /// Which changes of the store are this node's own, by group and for the mark, as long as what is heard may be from
    /// before them.
    own: BTreeMap<GroupName, u64>,
    own_mark: u64,
}

/// A value that is not understood: a sentence.
pub(super) type Strange = String;

impl Groups {
    /// Takes note of what is stored at a place, as of a change of the store. What is no group's is nothing here, and
    /// neither is what this node itself has written anew since.
    ///
    /// # Errors
    /// When it is not understood: a newer release may have written it.
    pub(super) fn take(
        &mut self,
        path: &str,
        value: Option<(&[u8], u64)>,
        as_of: u64,
    ) -> Result<(), Strange> {
        let strange = |error: serde_json::Error| {
            format!(
                "what is stored under {path} cannot be read ({error}): it is damaged, or a newer release wrote it"
            )
        };
        match Place::of(path) {
            Place::Marker if as_of < self.own_mark => {}
            Place::Marker => {
                // Empty until the first change.
                if let Some((value, _)) = value.filter(|(value, _)| !value.is_empty()) {
                    let StoredMarker::V1 { removed } =
                        serde_json::from_slice(value).map_err(strange)?;
                    self.seen_removed = removed;
                    self.is_marked = true;
                }
            }
            Place::Group(name) if self.own.get(&name).is_some_and(|own| as_of < *own) => {}
            Place::Group(name) => {
                let entry = match value {
                    Some((value, version)) => {
                        let StoredGroup::V1 { revision, history_at, what, entry } =
                            serde_json::from_slice(value).map_err(strange)?;
                        Some(SeenEntry { revision, history_at, what, entry: *entry, version })
                    }
                    None => None,
                };
                self.seen.entry(name.clone()).or_default().entry = entry;
                self.touched.insert(name);
            }
            Place::History(name, revision) => {
                let history = &mut self.seen.entry(name.clone()).or_default().history;
                match value {
                    Some((value, _)) => {
                        let StoredHistory::V1 { entry } =
                            serde_json::from_slice(value).map_err(strange)?;
                        history.insert(revision, *entry);
                    }
                    None => {
                        history.remove(&revision);
                    }
                }
                self.touched.insert(name);
            }
            Place::Masters
            | Place::Secret
            | Place::Member(_)
            | Place::Node(_)
            | Place::Candidate
            | Place::Other => {}
        }
        Ok(())
    }

    /// Forgets what was stored, because all of it is about to be taken anew.
    pub(super) fn forget(&mut self) {
        self.touched.extend(self.seen.keys().cloned());
        self.seen.clear();
        self.seen_removed = 0;
        self.is_marked = false;
        self.own.clear();
        self.own_mark = 0;
    }

    /// Everything that the store had changed up to then was heard.
    pub(super) fn is_complete_up_to(&mut self, index: u64) {
        self.own.retain(|_, own| *own > index);
    }

    /// How many groups are known here, when the store knows of no group and never did: what it had is gone.
    pub(super) fn lost(&self) -> Option<usize> {
        let told = self.told.as_ref().map_or(0, Record::len);
        (told > 0 && !self.is_marked).then_some(told)
    }

    /// What is to be told of what was taken.
    pub(super) fn news(&mut self) -> Vec<Event> {
        let touched = std::mem::take(&mut self.touched);
        for name in &touched {
            if self
                .seen
                .get(name)
                .is_some_and(|seen| seen.entry.is_none() && seen.history.is_empty())
            {
                self.seen.remove(name);
            }
        }
        let Some(mut told) = self.told.take() else { return vec![self.restore()] };
        let mut events = Vec::new();
        for name in touched {
            let seen = self.seen.get(&name);
            if seen.is_some_and(|seen| !seen.is_complete()) {
                self.touched.insert(name);
                continue;
            }
            let Some(changes) = missed(&told, &name, seen) else { return vec![self.restore()] };
            for change in changes {
                if told.apply(std::slice::from_ref(&change)).is_err() {
                    return vec![self.restore()];
                }
                events.push(Event::Committed { id: None, changes: vec![change] });
            }
            let found = seen.and_then(|seen| seen.entry.as_ref());
            let same = match (found, told.group(&name)) {
                (None, None) => true,
                (Some(seen), Some(told)) => {
                    (seen.revision, &seen.entry) == (told.revision, &told.entry)
                }
                (Some(_), None) | (None, Some(_)) => false,
            };
            if !same {
                return vec![self.restore()];
            }
        }
        self.told = Some(told);
        events
    }

    /// Everything as it is stored, told in place of what was.
    fn restore(&mut self) -> Event {
        let record = self.record();
        self.told = Some(record.clone());
        Event::Restored(record)
    }

    /// The record as it is stored.
    pub(super) fn record(&self) -> Record {
        let groups =
            self.seen.iter().filter_map(|(name, seen)| Some((name.clone(), seen.record()?)));
        Record::of_parts(groups.collect(), self.seen_removed)
    }

    /// Whether there is no group.
    pub(super) fn is_empty(&self) -> bool {
        self.seen.values().all(|seen| seen.entry.is_none())
    }

    /// What is to be written for these changes, behind a plan of other groups' that is not written yet.
    ///
    /// # Errors
    /// A sentence, when something else was changed first.
    pub(super) fn plan(&self, changes: &[Change], behind: &Plan) -> Result<Plan, String> {
        let mut groups: BTreeMap<GroupName, Seen> = BTreeMap::new();
        let mut removed = self.removed(behind);
        for change in changes {
            let name = &change.group;
            let stored = || self.seen.get(name).cloned().unwrap_or_default();
            let before = groups.remove(name).unwrap_or_else(stored);
            let record = before.record().map(|record| (name.clone(), record));
            let mut small = Record::of_parts(record.into_iter().collect(), removed);
            small.apply(std::slice::from_ref(change)).map_err(|conflict| {
                format!(
                    "another change of {} came first: it is at revision {}, and this one was made for {}",
                    conflict.group, conflict.found, conflict.expected
                )
            })?;
            removed = small.removed();
            groups.insert(name.clone(), after(&before, small.group(name), &change.what));
        }
        let mut ops = Vec::new();
        for (name, after) in &groups {
            let before = self.seen.get(name).cloned().unwrap_or_default();
            write_group(name, &before, after, &mut ops)?;
        }
        Ok(Plan { ops, groups, removed: Some(removed) })
    }

    /// The end of a plan: the list of masters when it changes, and the mark that is last.
    pub(super) fn complete(&self, plan: &mut Plan) -> Result<(), String> {
        let is_changed = |(name, after): (&GroupName, &Seen)| {
            self.seen.get(name).and_then(Seen::master) != after.master()
        };
        if plan.groups.iter().any(is_changed) {
            plan.ops.push(put(layout::MASTERS, &self.masters(&plan.groups), Expect::Anything)?);
        }
        let marker = StoredMarker::V1 { removed: self.removed(plan) };
        plan.ops.push(put(layout::MARKER, &marker, Expect::Anything)?);
        Ok(())
    }

    /// Takes over what was written, and which versions it has. It was told by the one who wrote it.
    pub(super) fn written(
        &mut self,
        plan: Plan,
        index: u64,
        version_after: impl Fn(Expect) -> u64,
        changes: &[Change],
    ) {
        self.own_mark = index;
        for (name, mut after) in plan.groups {
            let before = self.seen.get(&name).and_then(|seen| seen.entry.as_ref());
            let expect = before.map_or(Expect::Nothing, |seen| Expect::Version(seen.version));
            if let Some(entry) = &mut after.entry {
                entry.version = version_after(expect);
                self.seen.insert(name.clone(), after);
            } else {
                self.seen.remove(&name);
            }
            self.own.insert(name, index);
        }
        self.seen_removed = plan.removed.unwrap_or(self.seen_removed);
        self.is_marked = true;
        if let Some(told) = &mut self.told
            && told.apply(changes).is_err()
        {
            // Never: the plan was made from what was told. The whole is told again, should it happen.
            self.told = None;
        }
    }

    fn removed(&self, plan: &Plan) -> Revision {
        plan.removed.unwrap_or(self.seen_removed)
    }

    /// The masters of all groups by their names, with these groups in the place of those that are stored.
    fn masters<'a>(&'a self, changed: &'a BTreeMap<GroupName, Seen>) -> Vec<&'a Addr> {
        let names: BTreeSet<&GroupName> = self.seen.keys().chain(changed.keys()).collect();
        let group = |name| changed.get(name).or_else(|| self.seen.get(name));
        names.into_iter().filter_map(|name| group(name)?.master()).collect()
    }
}

/// What is to be written at once.
#[derive(Debug, Default)]
pub(super) struct Plan {
    pub(super) ops: Vec<Op>,
    groups: BTreeMap<GroupName, Seen>,
    removed: Option<Revision>,
}

impl Plan {
    /// Whether a group is in it already: a value can be put only once in a write.
    pub(super) fn has(&self, changes: &[Change]) -> bool {
        changes.iter().any(|change| self.groups.contains_key(&change.group))
    }

    /// Takes another one in, which was made behind it.
    pub(super) fn extend(&mut self, other: Self) {
        self.ops.extend(other.ops);
        self.groups.extend(other.groups);
        self.removed = other.removed;
    }

    pub(super) fn bytes(&self) -> usize {
        self.ops.iter().map(Op::bytes).sum()
    }

    pub(super) fn weight(&self) -> usize {
        self.ops.iter().map(Op::weight).sum()
    }
}

/// The changes between what was told of a group and what is stored; `None`: it cannot be told by changes.
///
/// What came between is lost, but for the history: the entry is told as it is now, once for each revision.
fn missed(told: &Record, name: &GroupName, seen: Option<&Seen>) -> Option<Vec<Change>> {
    let known = told.revision(name);
    let Some(entry) = seen.and_then(|seen| seen.entry.as_ref()) else {
        let gone = Change {
            group: name.clone(),
            expect: known,
            what: format!("{name} is not guarded any more"),
            entry: None,
            history: None,
        };
        return Some(if known == 0 { Vec::new() } else { vec![gone] });
    };
    let history = seen.map(|seen| &seen.history);
    let from = if known == 0 { told.removed() } else { known };
    if entry.revision < from || entry.revision - from > MISSED_MAX {
        return None;
    }
    let change = |revision: Revision| Change {
        group: name.clone(),
        expect: if known == 0 && revision == from + 1 { 0 } else { revision - 1 },
        what: entry.what.clone(),
        entry: Some(entry.entry.clone()),
        history: history.and_then(|history| history.get(&revision)).cloned(),
    };
    Some((from + 1..=entry.revision).map(change).collect())
}

/// A group as it is stored after a change.
fn after(before: &Seen, record: Option<&GroupRecord>, what: &str) -> Seen {
    let Some(record) = record else { return Seen::default() };
    // The ring keeps the order, and drops some.
    let mut known = before.history.iter();
    let history: BTreeMap<Revision, HistoryEntry> = record
        .history
        .iter()
        .map(|entry| {
            let at = known.find(|(_, known)| known.id == entry.id).map(|(at, _)| *at);
            (at.unwrap_or(record.revision), entry.clone())
        })
        .collect();
    let entry = SeenEntry {
        revision: record.revision,
        history_at: history.keys().next_back().copied(),
        what: what.to_owned(),
        entry: record.entry.clone(),
        version: before.entry.as_ref().map_or(0, |seen| seen.version),
    };
    Seen { entry: Some(entry), history }
}

/// What turns one state of a group into another.
fn write_group(
    name: &GroupName,
    before: &Seen,
    after: &Seen,
    ops: &mut Vec<Op>,
) -> Result<(), String> {
    let gone = before.history.keys().filter(|at| !after.history.contains_key(at));
    let gone: Vec<Op> = gone.map(|at| Op::Delete { path: layout::history(name, *at) }).collect();
    let Some(entry) = &after.entry else {
        if before.entry.is_some() {
            let below = before.history.keys().map(|at| layout::history(name, *at)).collect();
            ops.push(Op::DeleteTree { path: layout::group(name), below });
        }
        return Ok(());
    };
    let expect =
        before.entry.as_ref().map_or(Expect::Nothing, |seen| Expect::Version(seen.version));
    let stored = StoredGroup::V1 {
        revision: entry.revision,
        history_at: entry.history_at,
        what: entry.what.clone(),
        entry: Box::new(entry.entry.clone()),
    };
    if before.revision() != after.revision() {
        ops.push(put(&layout::group(name), &stored, expect)?);
    }
    for (at, entry) in after.history.iter().filter(|(at, _)| !before.history.contains_key(at)) {
        let stored = StoredHistory::V1 { entry: Box::new(entry.clone()) };
        ops.push(put(&layout::history(name, *at), &stored, Expect::Nothing)?);
    }
    ops.extend(gone);
    Ok(())
}

pub(super) fn put(path: &str, value: &impl Serialize, expect: Expect) -> Result<Op, String> {
    let value = serde_json::to_vec(value).map_err(|error| {
        format!("what is to be stored under {path} cannot be written down: {error}")
    })?;
    Ok(Op::Put { path: path.to_owned(), value, expect })
}

#[cfg(test)]
mod tests;
