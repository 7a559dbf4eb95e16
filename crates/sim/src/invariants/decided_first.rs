//! A decision is committed before its first command, and each command is one that the committed decision asks for.
//!
//! A LedisDB replica that has its full copy follows nobody for a moment (`Part`): that is part of the repair that is decided.

use failover_core::action::Command;
use failover_core::addr::Addr;
use failover_core::record::{FullCopy, GroupEntry, Kind, Phase};

use super::{Seen, Truth};

pub(crate) fn observe(seen: &Seen<'_>, truth: &Truth<'_>) -> Result<(), String> {
    let Seen::Commanded { addr, command, .. } = seen else { return Ok(()) };
    let Some(entry) = truth.entry else {
        return Err(format!("{addr} was commanded, but no group is committed"));
    };
    if decided(entry, addr, command) {
        Ok(())
    } else {
        Err(format!("{addr} was commanded ({command:?}), which no committed decision asks for"))
    }
}

fn decided(entry: &GroupEntry, addr: &Addr, command: &Command) -> bool {
    if let Command::Fence { set } = command {
        let fenced = entry.instances.get(addr).and_then(|known| known.fenced.as_ref());
        return fenced.is_some_and(|fenced| fenced.set == *set);
    }
    let Some(saga) = &entry.saga else { return false };
    match (saga.history.kind, saga.phase, command) {
        (Kind::Failover | Kind::ManualFailover, Phase::Decided, Command::Promote { .. })
        | (Kind::Switchover, Phase::Demoting, Command::Promote { .. }) => saga.target == *addr,
        (
            Kind::Failover | Kind::ManualFailover | Kind::Switchover,
            Phase::Promoted,
            Command::Follow { master, .. },
        ) => *master == entry.master && addr != master,
        (Kind::Switchover, Phase::Demoting, Command::Demote { master, .. }) => {
            *master == saga.target && *addr == entry.master
        }
        (Kind::Switchover, Phase::Undoing, Command::Promote { .. }) => *addr == entry.master,
        (Kind::Switchover, _, Command::Pause { .. } | Command::Unpause) => {
            *addr == saga.history.old_master
        }
        // A recorded master that was made a replica is made a master again.
        (Kind::Repair, _, Command::Promote { .. }) => saga.target == *addr && *addr == entry.master,
        (
            Kind::Demotion | Kind::Repair | Kind::Adoption | Kind::ReplicaEvent,
            _,
            Command::Follow { master, .. },
        ) => saga.target == *addr && *master == entry.master && addr != master,
        (Kind::Demotion | Kind::Repair, _, Command::Part) => {
            let copy = entry.instances.get(addr).and_then(|known| known.copy);
            saga.target == *addr && copy == Some(FullCopy::Parted)
        }
        (
            Kind::Failover
            | Kind::ManualFailover
            | Kind::Switchover
            | Kind::Demotion
            | Kind::Repair
            | Kind::Adoption
            | Kind::ReplicaEvent,
            _,
            Command::Promote { .. }
            | Command::Follow { .. }
            | Command::Demote { .. }
            | Command::Part
            | Command::Pause { .. }
            | Command::Unpause
            | Command::Fence { .. },
        ) => false,
    }
}
