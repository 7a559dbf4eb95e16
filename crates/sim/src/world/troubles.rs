//! What happens in the time of faults: drawn, or as it was written down.

use std::time::Duration;

use super::{Happening, World};
use crate::SERVERS;
use crate::deed::{Deed, Timed};
use crate::faults::{self, Scene};
use crate::operations;

/// One trouble in so many comes with each of what is rare.
const BESIDES_RARITY: u8 = 12;

impl World {
    /// What was done so far.
    pub fn deeds(&self) -> &[Timed] {
        &self.deeds
    }

    /// Remembers what is done while faults happen.
    pub(super) fn note_deed(&mut self, deed: Deed) {
        if self.troubles {
            self.deeds.push((self.now.since(self.started), deed));
        }
    }

    fn carry_out(&mut self, deed: Deed) {
        match deed {
            Deed::Fault(fault) => self.inflict(fault),
            Deed::Operation(operation) => self.operate(operation),
            Deed::Writes(0) => {}
            Deed::Writes(count) => {
                for _ in 0..count {
                    self.write();
                }
                self.note_deed(deed);
            }
        }
    }

    /// Lets faults happen from now on: drawn ones, and a broker that fails at times.
    pub fn begin_troubles(&mut self) {
        self.troubles = true;
        self.broker.set_reliable(false);
        let Some(plan) = self.plan.take() else {
            self.after(Duration::from_millis(1), Happening::Trouble);
            return;
        };
        let round = self.round;
        for (at, deed) in plan {
            self.at(self.started + at, Happening::Due { deed, round, drawn: false });
        }
    }

    /// Ends all faults: whatever hangs wakes up and whatever is dead returns within two seconds.
    pub fn end_troubles(&mut self) {
        self.troubles = false;
        self.broker.set_reliable(true);
        self.round += 1;
        self.journal.note(self.now, || "!! all faults end".to_owned());
        for fault in self.remedies() {
            let wait = Duration::from_millis(self.mercy.u64(..2_000));
            let deed = Deed::Fault(fault);
            self.after(wait, Happening::Due { deed, round: self.round, drawn: false });
        }
        self.after(Duration::from_secs(3), Happening::Operator);
    }

    /// New trouble begins.
    pub(super) fn draw_trouble(&mut self) {
        if !self.troubles {
            return;
        }
        let recorded = self.recorded();
        let leader = self.broker.leader().unwrap_or(0);
        let nodes = self.nodes.len();
        let scene = Scene { recorded, servers: SERVERS, leader, nodes };
        let round = self.round;
        let mut deeds: Vec<Timed> = faults::draw(&mut self.fate, &scene)
            .into_iter()
            .map(|(wait, fault)| (wait, Deed::Fault(fault)))
            .collect();
        if self.fate.u8(..100) < 20 {
            let done = operations::draw(&mut self.fate, &scene);
            let later = Duration::from_micros(self.fate.u64(..3_000_000));
            let done = done.into_iter().map(|(wait, what)| (wait + later, what));
            deeds.extend(done.map(|(wait, what)| (wait, Deed::Operation(what))));
        }
        for (wait, deed) in deeds {
            self.after(wait, Happening::Due { deed, round, drawn: true });
        }
        for (wait, deed) in self.draw_besides(&scene) {
            self.after(wait, Happening::Due { deed, round, drawn: false });
        }
        let pause = faults::pause(&mut self.fate);
        self.after(pause, Happening::Trouble);
    }

    /// What is rare, and drawn apart, so that what else a seed means does not depend on it.
    fn draw_besides(&mut self, scene: &Scene) -> Vec<Timed> {
        let rng = &mut self.besides;
        let mut deeds: Vec<Timed> = Vec::new();
        if rng.u8(..BESIDES_RARITY) == 0 {
            let later = Duration::from_micros(rng.u64(..3_000_000));
            let drawn = faults::draw_wordless(rng, scene.servers);
            deeds.extend(drawn.into_iter().map(|(wait, what)| (wait + later, Deed::Fault(what))));
        }
        if rng.u8(..BESIDES_RARITY) == 0 {
            let later = Duration::from_micros(rng.u64(..3_000_000));
            let drawn = operations::draw_besides(rng, scene);
            deeds.extend(
                drawn.into_iter().map(|(wait, what)| (wait + later, Deed::Operation(what))),
            );
        }
        deeds
    }

    /// What was drawn, or written down, is to be done.
    pub(super) fn due(&mut self, deed: Deed, round: u32, drawn: bool) {
        if round != self.round {
            return;
        }
        if drawn {
            // What was written right before is what a replica may miss.
            let writes = self.fate.u8(..6);
            self.carry_out(Deed::Writes(writes));
            if self.fate.bool() {
                let wait = Duration::from_micros(self.fate.u64(..2_000));
                self.after(wait, Happening::Due { deed, round, drawn: false });
                return;
            }
        }
        self.carry_out(deed);
    }
}
