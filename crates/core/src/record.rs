//! The replicated record: what the nodes agree on, and how a committed change alters it.
//!
//! A change replaces one group's entry as a whole and says which revision it replaces (compare-and-set); it holds
//! outcomes and never a rule that would have to be evaluated again when it is applied. A broker stores changes or their
//! result, and nothing else. Persisted formats live in [`v1`].

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::node::GroupName;
use crate::policy::{HISTORY_PER_GROUP_MAX, REPLICA_EVENTS_PER_GROUP_MAX};

pub(crate) mod outbox;
pub mod v1;

pub use v1::{
    Attempt, Fenced, FullCopy, GivenRule, GroupEntry, HistoryEntry, HookEvent, Kept, Kind, Known,
    Occurrence, Outcome, Phase, RankedCandidate, Rule, Saga, Status, Step, Trouble,
};

/// Counts the changes of one group's entry; 0 is "there is none".
pub type Revision = u64;

/// One group's part of a proposal.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Change {
    /// Which group.
    pub group: GroupName,
    /// The revision that this change replaces.
    pub expect: Revision,
    /// What is done, in one sentence, for logs.
    pub what: String,
    /// The new entry; `None` removes the group with its history.
    pub entry: Option<GroupEntry>,
    /// An entry of history that is added to the group's ring.
    pub history: Option<HistoryEntry>,
}

/// Why a set of changes was not applied.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Conflict {
    /// The group whose revision was another.
    pub group: GroupName,
    /// The revision that the change expected.
    pub expected: Revision,
    /// The revision that the record has.
    pub found: Revision,
}

/// One group's part of the record, for brokers that store each group on its own.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GroupRecord {
    /// How often it was changed.
    pub revision: Revision,
    /// What is agreed about it.
    pub entry: GroupEntry,
    /// Its history, oldest first.
    pub history: Vec<HistoryEntry>,
}

impl GroupRecord {
    /// Adds to the history, and drops the oldest of what is too much. Events of replicas have a bound of their own, so
    /// that one that comes and goes pushes no failover out.
    fn push(&mut self, history: HistoryEntry) {
        let is_event = |entry: &HistoryEntry| entry.kind == Kind::ReplicaEvent;
        let (event, max) = match is_event(&history) {
            true => (true, REPLICA_EVENTS_PER_GROUP_MAX),
            false => (false, HISTORY_PER_GROUP_MAX),
        };
        self.history.push(history);
        let count = self.history.iter().filter(|entry| is_event(entry) == event).count();
        let mut excess = count.saturating_sub(max);
        self.history.retain(|entry| {
            let goes = excess > 0 && is_event(entry) == event;
            excess -= usize::from(goes);
            !goes
        });
    }
}

/// Everything that the nodes agree on.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Record {
    groups: BTreeMap<GroupName, GroupRecord>,
    /// Revisions go on counting over removals, so that a group that was removed and added again is another one.
    removed: Revision,
}

/// The record as it is stored, with the version of its format.
#[derive(Serialize, Deserialize)]
#[serde(tag = "version")]
enum Stored {
    #[serde(rename = "1")]
    V1 { groups: BTreeMap<GroupName, GroupRecord>, removed: Revision },
}

impl Record {
    /// From its parts, as a broker stored them: the groups, and the highest revision of a group that was removed.
    pub fn of_parts(groups: BTreeMap<GroupName, GroupRecord>, removed: Revision) -> Self {
        Self { groups, removed }
    }

    /// One group's part.
    pub fn group(&self, group: &GroupName) -> Option<&GroupRecord> {
        self.groups.get(group)
    }

    /// The highest revision of a group that was removed.
    pub fn removed(&self) -> Revision {
        self.removed
    }

    /// Applies all changes, or none when one of them expects another revision.
    ///
    /// # Errors
    /// The first change that does not fit. The record is as it was.
    pub fn apply(&mut self, changes: &[Change]) -> Result<(), Conflict> {
        for change in changes {
            let found = self.revision(&change.group);
            if found != change.expect {
                return Err(Conflict {
                    group: change.group.clone(),
                    expected: change.expect,
                    found,
                });
            }
        }
        for change in changes {
            self.apply_one(change);
        }
        Ok(())
    }

    fn apply_one(&mut self, change: &Change) {
        let Some(entry) = &change.entry else {
            if let Some(slot) = self.groups.remove(&change.group) {
                self.removed = self.removed.max(slot.revision);
            }
            return;
        };
        let first = self.removed;
        let slot = self.groups.entry(change.group.clone()).or_insert_with(|| GroupRecord {
            revision: first,
            entry: entry.clone(),
            history: Vec::new(),
        });
        slot.revision += 1;
        slot.entry = entry.clone();
        if let Some(history) = &change.history {
            slot.push(history.clone());
        }
    }

    /// The revision of a group's entry, 0 when there is none.
    pub fn revision(&self, group: &GroupName) -> Revision {
        self.groups.get(group).map_or(0, |slot| slot.revision)
    }

    /// One group's entry.
    pub fn entry(&self, group: &GroupName) -> Option<&GroupEntry> {
        self.groups.get(group).map(|slot| &slot.entry)
    }

    /// All entries, by name.
    pub fn entries(&self) -> impl Iterator<Item = (&GroupName, &GroupEntry)> {
        self.groups.iter().map(|(name, slot)| (name, &slot.entry))
    }

    /// A group's history, oldest first.
    pub fn history(&self, group: &GroupName) -> &[HistoryEntry] {
        self.groups.get(group).map_or(&[], |slot| &slot.history)
    }

    /// How many groups there are.
    pub fn len(&self) -> usize {
        self.groups.len()
    }

    /// Whether there is no group.
    pub fn is_empty(&self) -> bool {
        self.groups.is_empty()
    }
}

impl Serialize for Record {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Stored::V1 { groups: self.groups.clone(), removed: self.removed }.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Record {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match Stored::deserialize(deserializer)? {
            Stored::V1 { groups, removed } => Ok(Self { groups, removed }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::addr::Addr;

    fn change(name: &str, expect: Revision, epoch: u64) -> Change {
        let addr: Addr = "127.0.0.1:1".parse().expect("address");
        let mut entry = GroupEntry::new(addr);
        entry.epoch = epoch;
        Change {
            group: GroupName::new(name).expect("name"),
            expect,
            what: String::new(),
            entry: Some(entry),
            history: None,
        }
    }

    #[test]
    fn a_change_against_another_revision_alters_nothing() {
        let mut record = Record::default();
        record.apply(&[change("a", 0, 1), change("b", 0, 1)]).expect("new groups");
        let before = record.clone();
        let conflict = record.apply(&[change("a", 1, 2), change("b", 0, 2)]).expect_err("stale");
        assert_eq!((conflict.group.as_str(), conflict.expected, conflict.found), ("b", 0, 1));
        assert_eq!(record, before);
    }

    #[test]
    fn a_removed_group_comes_back_as_another() {
        let mut record = Record::default();
        let name = GroupName::new("a").expect("name");
        record.apply(&[change("a", 0, 1)]).expect("add");
        record.apply(&[Change { entry: None, ..change("a", 1, 1) }]).expect("remove");
        assert!(record.is_empty());
        record.apply(&[change("a", 0, 1)]).expect("add again");
        assert_eq!(record.revision(&name), 2, "a proposal meant for the first one must not fit");
    }

    #[test]
    fn a_snapshot_is_the_record_and_names_its_version() {
        let mut record = Record::default();
        record.apply(&[change("a", 0, 7)]).expect("add");
        let text = serde_json::to_string(&record).expect("to text");
        assert!(text.contains(r#""version":"1""#), "{text}");
        assert_eq!(serde_json::from_str::<Record>(&text).expect("from text"), record);
        assert!(serde_json::from_str::<Record>(r#"{"version":"9"}"#).is_err());
    }
}
