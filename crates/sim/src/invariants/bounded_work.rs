//! No probe storm and no repair loop: what the core wants done in a second or a minute has a bound.

use std::collections::BTreeMap;
use std::time::Duration;

use failover_core::record::Kind;
use failover_core::time::Time;

use super::{Seen, Truth};

const SECOND: Duration = Duration::from_secs(1);
/// Probes of one server in one second: the dense ones after two faults, and no more.
const PROBES_PER_SECOND_MAX: u32 = 600;
/// The same while clients wait for a switchover: its candidate is asked every millisecond.
const PROBES_OF_A_CANDIDATE_MAX: u32 = 1_200;
/// Commands to one group in one minute.
const COMMANDS_PER_MINUTE_MAX: u32 = 120;
/// How often handlers are asked about one group in one minute.
const VETS_PER_MINUTE_MAX: u32 = 100;
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
    /// When there was a switchover last.
    switching: Option<Time>,
    commands: u32,
    proposals: u32,
    vets: u32,
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
            switching: None,
            commands: 0,
            proposals: 0,
            vets: 0,
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
            self.vets = 0;
        }
        let saga = truth.entry.and_then(|entry| entry.saga.as_ref());
        if saga.is_some_and(|saga| saga.history.kind == Kind::Switchover) {
            self.switching = Some(truth.now);
        }
        match seen {
            Seen::Asked { node, server } => {
                let probes = self.probes.entry((*node, *server)).or_default();
                *probes += 1;
                let switched = self.switching.is_some_and(|at| truth.now.since(at) < SECOND);
                let max = if switched { PROBES_OF_A_CANDIDATE_MAX } else { PROBES_PER_SECOND_MAX };
                if *probes > max {
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
            Seen::Vetted { .. } => {
                self.vets += 1;
                if self.vets > VETS_PER_MINUTE_MAX {
                    return Err(format!("handlers were asked {} times within a minute", self.vets));
                }
            }
            Seen::Sent { .. }
            | Seen::Took { .. }
            | Seen::Testified { .. }
            | Seen::Did { .. }
            | Seen::Committed { .. }
            | Seen::Promoted { .. } => {}
        }
        Ok(())
    }
}
