//! No probe storm and no repair loop: what the core wants done in a second or a minute has a bound.

use std::collections::BTreeMap;

use failover_core::time::Time;

use super::{Seen, Truth};

/// Probes of one server in one second: the dense ones after a fault, and no more.
const PROBES_PER_SECOND_MAX: u32 = 400;
/// Commands to one group in one minute.
const COMMANDS_PER_MINUTE_MAX: u32 = 120;
/// Proposals for one group in one minute.
const PROPOSALS_PER_MINUTE_MAX: u32 = 240;

#[derive(Debug)]
pub(crate) struct BoundedWork {
    started: Time,
    second: u64,
    minute: u64,
    /// By node and server.
    probes: BTreeMap<(usize, usize), u32>,
    nodes: u32,
    commands: u32,
    proposals: u32,
}

impl BoundedWork {
    pub(crate) fn new(started: Time, nodes: usize) -> Self {
        let nodes = u32::try_from(nodes).unwrap_or(u32::MAX);
        Self {
            started,
            second: 0,
            minute: 0,
            probes: BTreeMap::new(),
            nodes,
            commands: 0,
            proposals: 0,
        }
    }

    pub(crate) fn observe(&mut self, seen: &Seen<'_>, truth: &Truth<'_>) -> Result<(), String> {
        let second = truth.now.since(self.started).as_secs();
        if second != self.second {
            self.second = second;
            self.probes.clear();
        }
        if second / 60 != self.minute {
            self.minute = second / 60;
            self.commands = 0;
            self.proposals = 0;
        }
        match seen {
            Seen::Asked { node, server } => {
                let probes = self.probes.entry((*node, *server)).or_default();
                *probes += 1;
                if *probes > PROBES_PER_SECOND_MAX {
                    let addr = &truth.addrs[*server];
                    return Err(format!("{addr} was probed {probes} times within a second"));
                }
            }
            Seen::Commanded { .. } => {
                self.commands += 1;
                if self.commands > COMMANDS_PER_MINUTE_MAX * self.nodes {
                    return Err(format!("{} commands were sent within a minute", self.commands));
                }
            }
            Seen::Proposed { .. } => {
                self.proposals += 1;
                if self.proposals > PROPOSALS_PER_MINUTE_MAX * self.nodes {
                    return Err(format!("{} proposals were made within a minute", self.proposals));
                }
            }
            Seen::Sent { .. }
            | Seen::Vetted { .. }
            | Seen::Committed { .. }
            | Seen::Promoted { .. } => {}
        }
        Ok(())
    }
}
