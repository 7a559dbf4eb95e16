//! Clients that write numbers and remember which of them were acknowledged.

use std::collections::BTreeSet;

use fastrand::Rng;

use crate::model_redis::{Part, Running, Server, Value};

/// To whom the clients write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Aim {
    /// To the master that the record names.
    Recorded,
    /// To every server that takes writes, as clients do that find their master in another way.
    Everyone,
}

/// All clients together.
#[derive(Debug)]
pub(crate) struct Clients {
    aim: Aim,
    next: Value,
    /// Acknowledged by the server that was the recorded master when it did.
    acknowledged: BTreeSet<Value>,
}

impl Clients {
    pub(crate) fn new(aim: Aim) -> Self {
        Self { aim, next: 0, acknowledged: BTreeSet::new() }
    }

    /// The next writes: to which server, which number.
    pub(crate) fn writes(&mut self, recorded: usize, servers: &[Server]) -> Vec<(usize, Value)> {
        let targets: Vec<usize> = match self.aim {
            Aim::Recorded => vec![recorded],
            Aim::Everyone => servers
                .iter()
                .enumerate()
                .filter(|(_, server)| {
                    server.part() == Part::Master && server.running() != Running::Dead
                })
                .map(|(index, _)| index)
                .collect(),
        };
        targets
            .into_iter()
            .map(|target| {
                self.next += 1;
                (target, self.next)
            })
            .collect()
    }

    /// The pause until the next writes, in microseconds.
    pub(crate) fn pause_us(rng: &mut Rng) -> u64 {
        match rng.u8(..20) {
            // A pause long enough for keepalives to be the only news of the master.
            0 => rng.u64(200_000..2_000_000),
            1..=4 => rng.u64(100..2_000),
            5.. => rng.u64(20_000..200_000),
        }
    }

    /// A write was acknowledged by the recorded master.
    pub(crate) fn acknowledge(&mut self, value: Value) {
        self.acknowledged.insert(value);
    }

    pub(crate) fn acknowledged(&self) -> &BTreeSet<Value> {
        &self.acknowledged
    }
}
