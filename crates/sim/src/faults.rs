//! What goes wrong, drawn from the seed.

use std::time::Duration;

use fastrand::Rng;
use serde::{Deserialize, Serialize};

use crate::network::Place;

mod ailments;

pub use ailments::Ailment;
pub(crate) use ailments::draw_wordless;

/// Something that happens to a server, to a node, or to the path between two places.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
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
    /// `kill -9` of a node.
    KillNode(usize),
    /// SIGSTOP of a node.
    StopNode(usize),
    /// SIGCONT of a node.
    ResumeNode(usize),
    /// A node is started again with what it had on its disk.
    StartNode(usize),
    /// The same, and its clock is not like the others.
    StartNodeAt(usize, Clock),
    /// A node's loop takes so many microseconds for each thing that happens.
    SlowNode(usize, u32),
    /// A server begins to suffer from something, or ceases to.
    Ail(usize, Ailment),
    /// Nothing gets from one place to another.
    Cut(Place, Place),
    /// It does again, and what was on its way arrives.
    Heal(Place, Place),
}

/// A clock that is wrong, and does not go as fast as time does. A node reads it when it starts, and counts from there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Clock {
    /// By how much it is ahead; negative when it is behind.
    pub ahead_ms: i64,
    /// How many microseconds it gains in a second.
    pub fast_ppm: i32,
}

/// No clock is faster than time, or slower, by more than this.
pub(crate) const FAST_PERCENT_MAX: u32 = 3;

impl Clock {
    /// Most are nearly right. One that is minutes off, or that loses minutes in an hour, is rare and must do no harm.
    fn draw(rng: &mut Rng) -> Self {
        match rng.u8(..4) {
            0 => Self {
                ahead_ms: rng.i64(-300_000..300_000),
                fast_ppm: rng.i32(-10_000..10_000) * FAST_PERCENT_MAX as i32,
            },
            _ => Self { ahead_ms: rng.i64(-200..200), fast_ppm: rng.i32(-200..200) },
        }
    }
}

/// Who there is to be struck.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scene {
    /// The recorded master.
    pub(crate) recorded: usize,
    /// How many servers there are.
    pub(crate) servers: usize,
    /// The node that leads.
    pub(crate) leader: usize,
    /// How many nodes there are.
    pub(crate) nodes: usize,
}

/// How many of the troubles of servers are such that their process lives, or starts again in another way.
const AILMENTS_PERCENT: u8 = 30;

/// A fault, and how long after the beginning of its trouble it happens.
pub(crate) type Planned = (Duration, Fault);

/// One trouble: what happens, and how it ends.
pub(crate) fn draw(rng: &mut Rng, scene: &Scene) -> Vec<Planned> {
    let mut planned = one(rng, scene);
    // Troubles like company: the interesting failovers are those with a second fault in them.
    while rng.u8(..100) < 35 {
        let wait = match rng.u8(..3) {
            0 => Duration::from_micros(rng.u64(..5_000)),
            1 => Duration::from_millis(rng.u64(..500)),
            2.. => Duration::from_millis(rng.u64(..6_000)),
        };
        planned.extend(one(rng, scene).into_iter().map(|(at, what)| (at + wait, what)));
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

fn one(rng: &mut Rng, scene: &Scene) -> Vec<Planned> {
    let of_nodes_percent = if scene.nodes > 1 { 40 } else { 10 };
    if rng.u8(..100) < of_nodes_percent {
        return match scene.nodes == 1 || rng.bool() {
            true => of_a_node(rng, scene),
            false => of_paths(rng, scene),
        };
    }
    let Scene { recorded, servers, .. } = *scene;
    let whom = if rng.bool() { recorded } else { rng.usize(..servers) };
    if rng.u8(..100) < AILMENTS_PERCENT {
        return ailments::draw(rng, scene, whom);
    }
    match rng.u8(..100) {
        // One goes, and the master right after it.
        0..=5 => {
            let other = rng.usize(..servers);
            let soon = Duration::from_micros(rng.u64(..1_500_000));
            let back = Duration::from_millis(rng.u64(50..20_000));
            let gone = match rng.bool() {
                true => [(Duration::ZERO, Fault::Kill(other)), (back, Fault::Return(other))],
                false => [(Duration::ZERO, Fault::Hang(other)), (back, Fault::Wake(other))],
            };
            let later = soon + Duration::from_millis(rng.u64(50..20_000));
            let master = [(soon, Fault::Kill(recorded)), (later, Fault::Return(recorded))];
            gone.into_iter().chain(master).collect()
        }
        6..=44 => {
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
        // All who follow, for long.
        90 | 91 => {
            let mut planned = Vec::new();
            for other in (0..servers).filter(|other| *other != recorded) {
                let back = Duration::from_millis(rng.u64(20_000..60_000));
                planned.push((Duration::from_micros(rng.u64(..10_000)), Fault::Kill(other)));
                planned.push((back, Fault::Return(other)));
            }
            planned
        }
        // The whole group.
        92.. => {
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

/// A node dies, stands still or is slow, most often the one that leads.
fn of_a_node(rng: &mut Rng, scene: &Scene) -> Vec<Planned> {
    let node = if rng.bool() { scene.leader } else { rng.usize(..scene.nodes) };
    match rng.u8(..5) {
        0 | 1 => {
            let down = Duration::from_millis(rng.u64(20..20_000));
            let start = match rng.bool() {
                true => Fault::StartNode(node),
                false => Fault::StartNodeAt(node, Clock::draw(rng)),
            };
            vec![(Duration::ZERO, Fault::KillNode(node)), (down, start)]
        }
        2 | 3 => {
            let stopped = Duration::from_millis(rng.u64(5..5_000));
            let mut planned = Vec::new();
            // What it asked has no answer yet when it stops.
            if rng.u8(..3) == 0 {
                let ail = |ms| Fault::Ail(scene.recorded, Ailment::Slow { ms });
                planned.push((Duration::ZERO, ail(rng.u64(50..400))));
                planned.push((Duration::from_secs(15), ail(0)));
            }
            let at = Duration::from_millis(rng.u64(..5_000));
            planned.push((at, Fault::StopNode(node)));
            planned.push((at + stopped, Fault::ResumeNode(node)));
            planned
        }
        4.. => {
            let slow = Duration::from_millis(rng.u64(100..30_000));
            let micros = rng.u32(100..4_000);
            vec![(Duration::ZERO, Fault::SlowNode(node, micros)), (slow, Fault::SlowNode(node, 0))]
        }
    }
}

/// Paths are cut for a while: one, in one direction or in both, or all between two sides.
fn of_paths(rng: &mut Rng, scene: &Scene) -> Vec<Planned> {
    let nodes = (0..scene.nodes).map(Place::Node);
    let places: Vec<Place> = nodes.chain((0..scene.servers).map(Place::Server)).collect();
    let mut pairs = Vec::new();
    match rng.u8(..3) {
        0 => {
            let (from, to) = (places[rng.usize(..places.len())], places[rng.usize(..places.len())]);
            pairs.push((from, to));
            if rng.bool() {
                pairs.push((to, from));
            }
        }
        // One place is cut off from some of the others, or from all.
        1 => {
            let alone = match rng.u8(..3) {
                0 => Place::Node(scene.leader),
                1 => Place::Server(scene.recorded),
                2.. => places[rng.usize(..places.len())],
            };
            let all = rng.bool();
            for other in &places {
                if all || rng.bool() {
                    pairs.push((alone, *other));
                    pairs.push((*other, alone));
                }
            }
        }
        // Two halves.
        2.. => {
            let sides: Vec<bool> = places.iter().map(|_| rng.bool()).collect();
            for (from, one) in places.iter().zip(&sides) {
                for (to, other) in places.iter().zip(&sides) {
                    if one != other {
                        pairs.push((*from, *to));
                    }
                }
            }
        }
    }
    pairs.retain(|(from, to)| from != to);
    let long = Duration::from_millis(match rng.u8(..4) {
        0 => rng.u64(5..300),
        1 | 2 => rng.u64(300..10_000),
        3.. => rng.u64(10_000..60_000),
    });
    let mut planned = Vec::new();
    for (from, to) in pairs {
        planned.push((Duration::ZERO, Fault::Cut(from, to)));
        planned.push((long + Duration::from_micros(rng.u64(..2_000)), Fault::Heal(from, to)));
    }
    planned
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
