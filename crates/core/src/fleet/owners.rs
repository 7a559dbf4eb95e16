//! Which group an address or a history of writes belongs to.

use std::collections::{BTreeMap, BTreeSet};

use crate::addr::Addr;
use crate::instance::ReplicationId;
use crate::node::GroupName;
use crate::record::{GroupEntry, Record};

/// Who owns what, by the record.
#[derive(Debug, Default)]
pub struct Owners {
    addrs: Claims<Addr>,
    histories: Claims<ReplicationId>,
}

/// Each thing has one owner: of several groups that claim it, which is rare, the first by name, so that every node says
/// the same whatever it heard first.
#[derive(Debug)]
struct Claims<K> {
    owner: BTreeMap<K, GroupName>,
    others: BTreeMap<K, BTreeSet<GroupName>>,
}

impl<K> Default for Claims<K> {
    fn default() -> Self {
        Self { owner: BTreeMap::new(), others: BTreeMap::new() }
    }
}

impl<K: Ord + Clone> Claims<K> {
    fn claim(&mut self, thing: &K, name: &GroupName) {
        match self.owner.get_mut(thing) {
            None => {
                self.owner.insert(thing.clone(), name.clone());
            }
            Some(owner) if owner == name => {}
            Some(owner) => {
                let second = owner.clone().max(name.clone());
                *owner = owner.clone().min(name.clone());
                self.others.entry(thing.clone()).or_default().insert(second);
            }
        }
    }

    fn give_up(&mut self, thing: &K, name: &GroupName) {
        let others = self.others.get_mut(thing);
        if self.owner.get(thing) != Some(name) {
            if let Some(others) = others {
                others.remove(name);
            }
        } else if let Some(heir) = others.and_then(BTreeSet::pop_first) {
            self.owner.insert(thing.clone(), heir);
        } else {
            self.owner.remove(thing);
        }
        if self.others.get(thing).is_some_and(BTreeSet::is_empty) {
            self.others.remove(thing);
        }
    }
}

impl Owners {
    /// The owners by a whole record.
    pub(super) fn of_record(record: &Record) -> Self {
        let mut owners = Self::default();
        for (name, entry) in record.entries() {
            owners.note(name, None, Some(entry));
        }
        owners
    }

    /// One group's entry changed.
    pub(super) fn note(
        &mut self,
        name: &GroupName,
        before: Option<&GroupEntry>,
        after: Option<&GroupEntry>,
    ) {
        for addr in before.into_iter().flat_map(addresses) {
            self.addrs.give_up(addr, name);
        }
        for id in before.into_iter().flat_map(|entry| &entry.lineage) {
            self.histories.give_up(id, name);
        }
        for addr in after.into_iter().flat_map(addresses) {
            self.addrs.claim(addr, name);
        }
        for id in after.into_iter().flat_map(|entry| &entry.lineage) {
            self.histories.claim(id, name);
        }
    }

    /// The group of an address, aliases included.
    pub fn of(&self, addr: &Addr) -> Option<&GroupName> {
        self.addrs.owner.get(addr)
    }

    /// The group whose masters had this history, when only one's had.
    pub fn of_history(&self, id: &ReplicationId) -> Option<&GroupName> {
        self.histories.owner.get(id).filter(|_| !self.histories.others.contains_key(id))
    }
}

/// All addresses that an entry owns, aliases included.
fn addresses(entry: &GroupEntry) -> impl Iterator<Item = &Addr> {
    entry.instances.iter().flat_map(|(addr, known)| std::iter::once(addr).chain(&known.aliases))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::{addr, id};

    #[test]
    fn of_two_groups_the_first_by_name_owns_and_the_other_inherits() {
        let entry = |history: &str| {
            let mut entry = GroupEntry::new(addr(1));
            entry.lineage = vec![id(history)];
            entry
        };
        let name = |text: &str| GroupName::new(text).expect("a name");
        let (a, b) = (name("a"), name("b"));
        let mut owners = Owners::default();
        owners.note(&b, None, Some(&entry("of b")));
        assert_eq!(owners.of(&addr(1)), Some(&b));
        owners.note(&a, None, Some(&entry("of a")));
        assert_eq!(owners.of(&addr(1)), Some(&a), "whatever was heard first");
        assert_eq!(owners.of_history(&id("of b")), Some(&b));
        owners.note(&a, Some(&entry("of a")), Some(&entry("of b")));
        assert_eq!(owners.of_history(&id("of b")), None, "both have it");
        assert_eq!(owners.of_history(&id("of a")), None);
        owners.note(&a, Some(&entry("of b")), None);
        assert_eq!(owners.of(&addr(1)), Some(&b));
        assert_eq!(owners.of_history(&id("of b")), Some(&b));
        owners.note(&b, Some(&entry("of b")), None);
        assert_eq!((owners.of(&addr(1)), owners.of_history(&id("of b"))), (None, None));
    }
}
