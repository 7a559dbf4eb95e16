//! What goes wrong, drawn from the seed.

use std::time::Duration;

use fastrand::Rng;

/// Something that happens to a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// `kill -9`.
    Kill(usize),
    /// SIGSTOP.
    Hang(usize),
    /// SIGCONT.
    Wake(usize),
    /// It is started again with what it had on its disk.
    Return(usize),
    /// It is started again with nothing.
    ReturnEmpty(usize),
}

/// A fault, and how long after the beginning of its trouble it happens.
pub(crate) type Planned = (Duration, Fault);

/// One trouble: what happens, and how it ends.
pub(crate) fn draw(rng: &mut Rng, recorded: usize, servers: usize) -> Vec<Planned> {
    let mut planned = one(rng, recorded, servers);
    // Troubles like company: the interesting failovers are those with a second fault in them.
    while rng.u8(..100) < 35 {
        let wait = match rng.u8(..3) {
            0 => Duration::from_micros(rng.u64(..5_000)),
            1 => Duration::from_millis(rng.u64(..500)),
            2.. => Duration::from_millis(rng.u64(..6_000)),
        };
        planned.extend(one(rng, recorded, servers).into_iter().map(|(at, what)| (at + wait, what)));
    }
    planned
}

/// The pause until the next trouble.
pub(crate) fn pause(rng: &mut Rng) -> Duration {
    match rng.u8(..4) {
        0 => Duration::from_millis(rng.u64(100..3_000)),
        1 | 2 => Duration::from_millis(rng.u64(3_000..20_000)),
        3.. => Duration::from_millis(rng.u64(20_000..90_000)),
    }
}

fn one(rng: &mut Rng, recorded: usize, servers: usize) -> Vec<Planned> {
    let whom = if rng.bool() { recorded } else { rng.usize(..servers) };
    match rng.u8(..100) {
        0..=44 => {
            let down = match rng.u8(..4) {
                0 => Duration::from_micros(rng.u64(1_000..50_000)),
                1 | 2 => Duration::from_millis(rng.u64(50..5_000)),
                3.. => Duration::from_millis(rng.u64(5_000..60_000)),
            };
            vec![(Duration::ZERO, Fault::Kill(whom)), (down, back(rng, whom))]
        }
        45..=89 => {
            let hung = hang_time(rng);
            vec![(Duration::ZERO, Fault::Hang(whom)), (hung, Fault::Wake(whom))]
        }
        // The whole group.
        90.. => {
            let mut planned = Vec::new();
            for index in 0..servers {
                planned.push((Duration::from_micros(rng.u64(..10_000)), Fault::Kill(index)));
                let down = Duration::from_millis(rng.u64(20..30_000));
                planned.push((down, back(rng, index)));
            }
            planned
        }
    }
}

/// Around the limits of `max_down_time` and of commands, and far beyond.
fn hang_time(rng: &mut Rng) -> Duration {
    match rng.u8(..10) {
        0..=2 => Duration::from_millis(rng.u64(1..1_200)),
        3..=5 => Duration::from_millis(rng.u64(1_200..4_500)),
        6..=8 => Duration::from_millis(rng.u64(4_500..20_000)),
        9.. => Duration::from_millis(rng.u64(20_000..100_000)),
    }
}

fn back(rng: &mut Rng, whom: usize) -> Fault {
    if rng.u8(..5) == 0 { Fault::ReturnEmpty(whom) } else { Fault::Return(whom) }
}
