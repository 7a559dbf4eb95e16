//! Faults that strike right after a decision: the moments in which a failover is half done are short, and drawn faults seldom
//! find them.

use std::time::Duration;

use failover_core::record::GroupEntry;

use super::{Happening, World};
use crate::deed::Deed;
use crate::faults::Fault;
use crate::model_redis::Running;
use crate::network::Place;

/// One decision out of this many is struck.
const ONE_IN: u8 = 4;

impl World {
    /// Something was decided, or the next step of it recorded.
    pub(super) fn ambush(&mut self, before: Option<&GroupEntry>) {
        // A run that was written down has its faults already.
        if !self.troubles || self.planned {
            return;
        }
        let step = |entry: &GroupEntry| {
            let saga = entry.saga.as_ref()?;
            Some((saga.phase, saga.target.clone(), entry.epoch))
        };
        let now = self.agreed().and_then(step);
        let Some((_, target, _)) = &now else { return };
        if before.and_then(step) == now || self.fate.u8(..ONE_IN) != 0 {
            return;
        }
        let Some(target) = self.index(target) else { return };
        let (recorded, leader) = (self.recorded(), self.broker.leader().unwrap_or(0));
        let ms = Duration::from_millis;
        let micros = Duration::from_micros;
        let soon = micros(self.fate.u64(..3_000));
        let long = ms(self.fate.u64(1..4_000));
        let (node, at_target) = (Place::Node(leader), Place::Server(target));
        let deeds = match self.fate.u8(..10) {
            0 | 1 => vec![(soon, Fault::Hang(target)), (soon + long, Fault::Wake(target))],
            2 => vec![(soon, Fault::Kill(target)), (soon + long, Fault::Return(target))],
            3 => {
                let back = soon + micros(self.fate.u64(300..30_000));
                vec![(soon, Fault::Kill(target)), (back, Fault::ReturnEmpty(target))]
            }
            4 => vec![(soon, Fault::KillNode(leader)), (soon + long, Fault::StartNode(leader))],
            5 => vec![(soon, Fault::StopNode(leader)), (soon + long, Fault::ResumeNode(leader))],
            6 => {
                let (from, to) =
                    if self.fate.bool() { (node, at_target) } else { (at_target, node) };
                vec![(soon, Fault::Cut(from, to)), (soon + long, Fault::Heal(from, to))]
            }
            7 => {
                let mut deeds = Vec::new();
                for other in (0..self.nodes.len()).filter(|other| *other != leader) {
                    for (from, to) in [(node, Place::Node(other)), (Place::Node(other), node)] {
                        deeds.push((soon, Fault::Cut(from, to)));
                        deeds.push((soon + long, Fault::Heal(from, to)));
                    }
                }
                deeds
            }
            // The old master comes back in the middle of it.
            8.. => match self.servers[recorded].running() {
                Running::Dead => vec![(soon, Fault::Return(recorded))],
                Running::Hung => vec![(soon, Fault::Wake(recorded))],
                Running::Up => vec![(soon, Fault::Kill(recorded)), (long, Fault::Return(recorded))],
            },
        };
        let round = self.round;
        for (wait, fault) in deeds {
            let deed = Deed::Fault(fault);
            self.after(wait, Happening::Due { deed, round, drawn: false });
        }
    }
}
