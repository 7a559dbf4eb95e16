//! Which server is which: the server's own word comes first, the address second, since names, NAT and announced
//! addresses differ.

use std::collections::BTreeMap;

use crate::addr::Addr;
use crate::group::Watches;
use crate::instance::{Facts, Role};
use crate::record::GroupEntry;
use crate::watch::Watch;

/// Whether an instance follows the recorded master, by whatever name it calls it.
///
/// An address that is known decides. One that is not may be another name of the master: then the master's own list of
/// replicas, or the history that both are on, says so. Where there is no history to compare, another name of the master has
/// at least its port.
pub(crate) fn follows_recorded(
    entry: &GroupEntry,
    watches: &Watches,
    addr: &Addr,
    facts: &Facts,
) -> bool {
    let Some(of) = facts.follows() else { return false };
    if let Some(of) = entry.instance_of(of) {
        return *of == entry.master;
    }
    let master = watches.get(&entry.master).and_then(Watch::facts);
    let listed = master.is_some_and(|master| match &master.role {
        Role::Master { replicas } => {
            replicas.iter().any(|replica| entry.instance_of(replica) == Some(addr))
        }
        Role::Replica { .. } => false,
    });
    let attached = entry.instances.get(addr).is_some_and(|known| known.attached);
    listed
        || attached
            && match &facts.replication_id {
                Some(id) => entry.lineage.first() == Some(id),
                None => is_port_of(entry, of.port()),
            }
}

/// Whether the recorded master is known by an address with this port.
fn is_port_of(entry: &GroupEntry, port: u16) -> bool {
    let aliases = entry.instances.get(&entry.master).map(|known| &known.aliases);
    let mut names = aliases.into_iter().flatten().chain([&entry.master]);
    names.any(|name| name.port() == port)
}

/// Whether two instances are one process under two addresses: it has the same run id.
pub(crate) fn same_process(a: &Facts, b: &Facts) -> bool {
    a.run_id.is_some() && a.run_id == b.run_id
}

/// Two instances of a group that are one process: the one that stays, and the one that is another name of it.
pub(crate) fn twins(entry: &GroupEntry, watches: &Watches) -> Option<(Addr, Addr)> {
    let mut seen: BTreeMap<&str, &Addr> = BTreeMap::new();
    for (addr, watch) in watches.iter().filter(|(addr, _)| entry.instances.contains_key(*addr)) {
        let Some(facts) = watch.facts().filter(|_| watch.serves()) else { continue };
        let Some(run_id) = facts.run_id.as_deref() else { continue };
        if let Some(other) = seen.insert(run_id, addr) {
            // The master's address is what everyone is told.
            let (stays, goes) = if *addr == entry.master { (addr, other) } else { (other, addr) };
            return Some((stays.clone(), goes.clone()));
        }
    }
    None
}

/// Makes one instance of two: `goes` is another name of `stays` from now on, and nobody else's.
pub(crate) fn unite(entry: &mut GroupEntry, stays: &Addr, goes: &Addr) {
    let twin = entry.instances.remove(goes).unwrap_or_default();
    for known in entry.instances.values_mut() {
        known.aliases.remove(goes);
    }
    if let Some(known) = entry.instances.get_mut(stays) {
        known.attached |= twin.attached;
        known.listed |= twin.listed;
        known.abandoned = known.abandoned.max(twin.abandoned);
        known.fenced = known.fenced.take().or(twin.fenced);
        known.aliases.extend(twin.aliases);
        known.aliases.insert(goes.clone());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::instance::Link;
    use crate::policy::Policy;
    use crate::record::Known;
    use crate::sample::{addr, at, id, master, replica, reply};

    fn watch(port: u16, facts: Facts) -> (Addr, Watch) {
        let policy = Policy::default();
        let mut watch = Watch::new(at(0), &addr(port), &policy);
        let (seq, _) = watch.due(at(0), &policy).expect("asked");
        watch.probed(at(1), seq, reply(facts), &policy);
        watch.update(at(1), &policy);
        (addr(port), watch)
    }

    #[test]
    fn an_unknown_name_of_the_master_is_known_by_its_history_or_its_list() {
        let mut entry = GroupEntry::new(addr(1));
        entry.lineage = vec![id("h"), id("before")];
        entry.instances.insert(addr(2), Known { attached: true, ..Known::default() });
        let watches = Watches::from([watch(1, master(at(0)))]);
        let up = Link::Up { last_io_secs: 0 };
        let facts = replica(at(0), &addr(99), up.clone());
        assert!(follows_recorded(&entry, &watches, &addr(2), &facts));
        let straggler = Facts { replication_id: Some(id("before")), ..facts.clone() };
        assert!(!follows_recorded(&entry, &watches, &addr(2), &straggler));
        let listing = Facts { role: Role::Master { replicas: vec![addr(2)] }, ..master(at(0)) };
        let watches = Watches::from([watch(1, listing)]);
        assert!(follows_recorded(&entry, &watches, &addr(2), &straggler));
        entry.instances.insert(addr(3), Known::default());
        let sibling = replica(at(0), &addr(3), up);
        assert!(!follows_recorded(&entry, &watches, &addr(2), &sibling), "a known other one");
    }

    #[test]
    fn one_process_under_two_addresses_is_one_instance() {
        let mut entry = GroupEntry::new(addr(5));
        entry.instances.insert(addr(2), Known { attached: true, ..Known::default() });
        let watches = Watches::from([watch(2, master(at(0))), watch(5, master(at(0)))]);
        let (stays, goes) = twins(&entry, &watches).expect("they have the same run id");
        assert_eq!((stays.port(), goes.port()), (5, 2));
        unite(&mut entry, &stays, &goes);
        assert_eq!(entry.instance_of(&addr(2)), Some(&addr(5)));
        assert!(entry.instances[&addr(5)].attached);
        assert_eq!(twins(&entry, &watches), None);
    }
}
