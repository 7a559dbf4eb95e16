//! Clients that write numbers and remember what they heard of each: acknowledged, refused, or nothing, which is unknown.

use std::time::Duration;

use failover_core::time::Time;
use fastrand::Rng;

use crate::model_redis::{Part, Running, Server, Value};

/// A client that waited this long for its answer has given up: what comes later, nobody hears.
const PATIENCE: Duration = Duration::from_secs(2);

/// To whom the clients write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Aim {
    /// To the master that the record names.
    Recorded,
    /// To every server that takes writes, as clients do that find their master in another way.
    Everyone,
}

/// What a client knows of a write of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Known {
    /// It was sent and not answered in time: it may have been done, and may be done yet.
    Unknown,
    /// It is done, said the server that was the recorded master then.
    Acknowledged,
    /// It was not done.
    Refused,
}

/// Every write that was sent, and what its client knows of it.
#[derive(Debug, Default)]
pub struct Written(Vec<(Known, Time)>);

impl Written {
    /// Whether its client was told that it is done.
    pub fn contains(&self, value: &Value) -> bool {
        self.known(*value) == Some(Known::Acknowledged)
    }

    /// What its client knows of a write; `None` when nobody wrote it.
    pub fn known(&self, value: Value) -> Option<Known> {
        self.get(value).map(|(known, _)| *known)
    }

    /// All of which their clients were told that they are done.
    pub fn acknowledged(&self) -> impl Iterator<Item = Value> + '_ {
        (0..)
            .zip(&self.0)
            .filter(|(_, (known, _))| *known == Known::Acknowledged)
            .map(|(value, _)| value)
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether nobody wrote anything yet.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn get(&self, value: Value) -> Option<&(Known, Time)> {
        self.0.get(usize::try_from(value).ok()?)
    }
}

/// All clients together.
#[derive(Debug)]
pub(crate) struct Clients {
    aim: Aim,
    written: Written,
}

impl Clients {
    pub(crate) fn new(aim: Aim) -> Self {
        Self { aim, written: Written::default() }
    }

    /// The next writes: to which server, which number.
    pub(crate) fn writes(
        &mut self,
        now: Time,
        recorded: usize,
        servers: &[Server],
    ) -> Vec<(usize, Value)> {
        let takes_writes =
            |server: &Server| server.part() == Part::Master && server.running() != Running::Dead;
        let targets: Vec<usize> = match self.aim {
            Aim::Recorded => vec![recorded],
            Aim::Everyone => {
                (0..servers.len()).filter(|index| takes_writes(&servers[*index])).collect()
            }
        };
        targets.into_iter().map(|target| (target, self.write(now))).collect()
    }

    fn write(&mut self, now: Time) -> Value {
        let value = Value::try_from(self.written.0.len()).unwrap_or(Value::MAX);
        self.written.0.push((Known::Unknown, now));
        value
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

    /// A write was acknowledged by the recorded master. Returns whether its client still listened.
    pub(crate) fn acknowledge(&mut self, now: Time, value: Value) -> bool {
        self.answer(now, value, Known::Acknowledged)
    }

    /// A write was refused. Returns whether its client still listened.
    pub(crate) fn refuse(&mut self, now: Time, value: Value) -> bool {
        self.answer(now, value, Known::Refused)
    }

    fn answer(&mut self, now: Time, value: Value, known: Known) -> bool {
        let slot = usize::try_from(value).ok().and_then(|index| self.written.0.get_mut(index));
        let Some(slot) = slot.filter(|(_, at)| now.since(*at) < PATIENCE) else { return false };
        slot.0 = known;
        true
    }

    pub(crate) fn written(&self) -> &Written {
        &self.written
    }
}
