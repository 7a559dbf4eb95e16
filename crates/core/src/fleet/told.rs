//! What a proposal means to hooks is made part of it on its way out.

use super::Fleet;
use crate::addr::Addr;
use crate::node::GroupName;
use crate::record::{Change, outbox};

impl Fleet {
    /// What the change means to hooks becomes part of it, and what they were told by now does not stay in it.
    pub(super) fn note_told(&self, change: &mut Change) {
        if let (Some(group), Some(entry)) = (self.groups.get(&change.group), &mut change.entry) {
            group.put_told_into(entry);
        }
        let before = self.record.entry(&change.group);
        outbox::note(change, before, &self.policies.told, (self.awake, &self.me));
    }

    /// The recorded masters that are down for this node, and what is concluded of each.
    pub fn masters_down(&self) -> impl Iterator<Item = (&GroupName, &Addr, &str)> {
        let guarded = self.groups.iter().filter(|(_, group)| group.entry().leaving.is_none());
        guarded.filter_map(|(name, group)| {
            let (master, reason) = group.master_down()?;
            Some((name, master, reason))
        })
    }
}
