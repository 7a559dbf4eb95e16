//! Groups that turn out to be one: a name or an address that was registered leads to a server of another group.

use super::{Fleet, Pending};
use crate::action::Action;
use crate::addr::Addr;
use crate::event::{Probed, ProposalId};
use crate::node::GroupName;
use crate::record::Change;

impl Fleet {
    /// A registered name may resolve to an address that another group knows: it is that group's instance.
    pub(super) fn socket_seen(&mut self, addr: &Addr, outcome: &Probed) {
        let Probed::Replied { socket: Some(socket), .. } = outcome else { return };
        if socket == addr {
            return;
        }
        let (Some(name), Some(owner)) = (self.owners.of(addr), self.owners.of(socket)) else {
            return;
        };
        if name != owner {
            let (name, owner) = (name.clone(), owner.clone());
            self.merge(&name, &owner);
        }
    }

    /// A group that was only registered and turns out to be part of another one goes.
    pub(super) fn check_merge(&mut self, name: &GroupName) {
        let Some(group) = self.groups.get(name).filter(|group| !group.entry().confirmed) else {
            return;
        };
        // Its master may have become another group's in the meantime, or it leads to one that is.
        let master = Some(&group.entry().master);
        let owner = [master, group.leads_to()]
            .into_iter()
            .flatten()
            .find_map(|addr| self.owners.of(addr).filter(|owner| *owner != name));
        if let Some(owner) = owner.cloned() {
            self.merge(name, &owner);
        }
    }

    fn merge(&mut self, name: &GroupName, owner: &GroupName) {
        let unconfirmed =
            self.record.entry(name).is_some_and(|entry| !entry.confirmed && entry.saga.is_none());
        let Some(token) = self.leadership.token().filter(|_| unconfirmed) else { return };
        if !self.merging.insert(name.clone()) {
            return;
        }
        let change = Change {
            group: name.clone(),
            expect: self.record.revision(name),
            what: format!("{name} belongs to the group {owner}, which is guarded already"),
            entry: None,
            history: None,
        };
        let id = self.take_proposal();
        self.pending.insert(id, Pending::Merge(name.clone()));
        self.actions.push_back(Action::Propose {
            id: ProposalId::Fleet(id),
            token,
            changes: vec![change],
        });
    }
}
