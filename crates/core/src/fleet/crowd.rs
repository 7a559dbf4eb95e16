//! How many instances are in trouble at the same time, over all groups.

use std::collections::BTreeMap;

use crate::node::GroupName;

/// The instances in trouble, by group.
#[derive(Debug, Default)]
pub(super) struct Crowd {
    groups: BTreeMap<GroupName, usize>,
    count: usize,
}

impl Crowd {
    pub(super) fn count(&self) -> usize {
        self.count
    }

    /// How many there are of one group, as of now.
    pub(super) fn note(&mut self, group: &GroupName, count: usize) {
        let before = self.groups.get(group).copied().unwrap_or(0);
        if before == count {
            return;
        }
        if count == 0 {
            self.groups.remove(group);
        } else {
            self.groups.insert(group.clone(), count);
        }
        self.count = self.count - before + count;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_counts_as_it_is_now() {
        let (one, other) =
            (GroupName::new("one").expect("a name"), GroupName::new("other").expect("a name"));
        let mut crowd = Crowd::default();
        crowd.note(&one, 2);
        crowd.note(&other, 1);
        crowd.note(&one, 1);
        assert_eq!(crowd.count(), 2);
        crowd.note(&one, 0);
        crowd.note(&one, 0);
        assert_eq!(crowd.count(), 1);
    }
}
