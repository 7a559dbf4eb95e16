//! A decision is committed before its first command, each command is one that the committed decision asks for, and a
//! halted group is not commanded.

use failover_core::action::Command;
use failover_core::addr::Addr;
use failover_core::record::{GroupEntry, Kind, Phase, Status};

use super::{Seen, Truth};

#[derive(Debug)]
pub(crate) struct DecidedFirst;

impl DecidedFirst {
    pub(crate) fn observe(&self, seen: &Seen<'_>, truth: &Truth<'_>) -> Result<(), String> {
        let (addr, command, token) = match seen {
            Seen::Commanded { addr, command, token } => (addr, command, token),
            // What was decided a moment ago may be over by the time that it is written.
            Seen::Sent { addr, token } if *token != truth.token => {
                return Err(format!("{addr} was sent a command under an old token"));
            }
            Seen::Asked { .. }
            | Seen::Vetted { .. }
            | Seen::Proposed { .. }
            | Seen::Committed { .. }
            | Seen::Sent { .. }
            | Seen::Promoted { .. } => return Ok(()),
        };
        let Some(entry) = truth.entry else {
            return Err(format!("{addr} was commanded, but no group is committed"));
        };
        if let Status::Halted { .. } = entry.status {
            return Err(format!("{addr} was commanded ({command:?}) while the group is halted"));
        }
        if *token != truth.token {
            return Err(format!("{addr} was commanded under an old token"));
        }
        if decided(entry, addr, command) {
            Ok(())
        } else {
            Err(format!("{addr} was commanded ({command:?}), which no committed decision asks for"))
        }
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
            | Command::Pause { .. }
            | Command::Unpause
            | Command::Fence { .. },
        ) => false,
    }
}
