//! What a server can suffer from while its process lives, and how it starts again.

use std::time::Duration;

use fastrand::Rng;
use serde::{Deserialize, Serialize};

use super::{Fault, Planned, Scene};
use crate::network::Place;

/// Something that happens to one server, or ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ailment {
    /// It is started again with what it had on its disk, and reads it for so long.
    Load {
        /// In milliseconds.
        ms: u64,
    },
    /// It writes its data to its disk.
    Save,
    /// It is started again with what it saved last.
    ReturnSaved,
    /// It accepts no new connections.
    Refuse,
    /// It does again.
    Listen,
    /// It cannot save any more.
    BreakDisk,
    /// It can again.
    MendDisk,
    /// It answers so much later than it could.
    Slow {
        /// In milliseconds; 0 is as quick as ever.
        ms: u64,
    },
    /// It executes a script that ends when it is woken up.
    Script,
    /// The program's user is deleted.
    ShutOut,
    /// It is there again.
    LetIn,
    /// Somebody changes its priority.
    Prioritise {
        /// Lower is preferred, 0 is never promoted.
        priority: u32,
    },
    /// What it sends to another server takes so much longer.
    Lag {
        /// To which.
        to: usize,
        /// In milliseconds; 0 is as quick as ever.
        ms: u64,
    },
}

/// A server answers the program for a while, and says nothing of itself. It is drawn apart, so that what else a seed means does
/// not depend on it.
pub(crate) fn draw_wordless(rng: &mut Rng, servers: usize) -> Vec<Planned> {
    let whom = rng.usize(..servers);
    let long = for_a_while(rng);
    let (begins, ends) = match rng.bool() {
        true => (Fault::Ail(whom, Ailment::Script), Fault::Wake(whom)),
        false => (Fault::Ail(whom, Ailment::ShutOut), Fault::Ail(whom, Ailment::LetIn)),
    };
    vec![(Duration::ZERO, begins), (long, ends)]
}

/// A server suffers from something for a while.
pub(super) fn draw(rng: &mut Rng, scene: &Scene, whom: usize) -> Vec<Planned> {
    let ail = |at, what| (at, Fault::Ail(whom, what));
    let at_once = Duration::ZERO;
    let long = for_a_while(rng);
    match rng.u8(..100) {
        0..=24 => {
            let ms = match rng.u8(..3) {
                0 => rng.u64(10..2_000),
                1 => rng.u64(2_000..5_000),
                2.. => rng.u64(5_000..30_000),
            };
            let down = Duration::from_millis(rng.u64(1..5_000));
            vec![(at_once, Fault::Kill(whom)), ail(down, Ailment::Load { ms })]
        }
        // What it took between saving and dying is lost with it.
        25..=34 => {
            let down = Duration::from_millis(rng.u64(1..2_000));
            vec![
                ail(at_once, Ailment::Save),
                (long, Fault::Kill(whom)),
                ail(long + down, Ailment::ReturnSaved),
            ]
        }
        35..=46 => vec![ail(at_once, Ailment::Refuse), ail(long, Ailment::Listen)],
        // A replica gives itself up when it cannot save what it gets.
        47..=60 => vec![ail(at_once, Ailment::BreakDisk), ail(long, Ailment::MendDisk)],
        61..=74 => {
            let ms = match rng.u8(..4) {
                0 | 1 => rng.u64(5..250),
                2 => rng.u64(250..900),
                3.. => rng.u64(900..4_000),
            };
            vec![ail(at_once, Ailment::Slow { ms }), ail(long, Ailment::Slow { ms: 0 })]
        }
        75..=82 => {
            let priority = [0, 1, 50, 100, 200][rng.usize(..5)];
            vec![
                ail(at_once, Ailment::Prioritise { priority }),
                ail(long, Ailment::Prioritise { priority: 100 }),
            ]
        }
        83..=91 => {
            let to = another(rng, scene, whom);
            let ms = if rng.bool() { rng.u64(1..100) } else { rng.u64(100..3_000) };
            vec![ail(at_once, Ailment::Lag { to, ms }), ail(long, Ailment::Lag { to, ms: 0 })]
        }
        // A link that is clogged: everything arrives, much later.
        92.. => {
            let (from, to) = (Place::Server(whom), Place::Server(another(rng, scene, whom)));
            vec![(at_once, Fault::Cut(from, to)), (long, Fault::Heal(from, to))]
        }
    }
}

fn for_a_while(rng: &mut Rng) -> Duration {
    Duration::from_millis(match rng.u8(..4) {
        0 => rng.u64(5..500),
        1 | 2 => rng.u64(500..8_000),
        3.. => rng.u64(8_000..60_000),
    })
}

fn another(rng: &mut Rng, scene: &Scene, whom: usize) -> usize {
    (whom + rng.usize(1..scene.servers)) % scene.servers
}
