//! Runs the decisions of redis-failover in a modelled world, from a seed, and checks what must always be so.
//!
//! This is the second driver of `failover-core`: it keeps the contract that the core documents with a heap of virtual
//! time in the place of tokio, a model in the place of Redis and another in the place of the broker. A seed is a whole
//! run: the same seed gives the same run, line by line.
//!
//! A run has two phases. First faults are drawn from the seed while clients write: servers and nodes are killed, stopped and
//! started again, with their data or without, paths between them are cut, and servers load, are slow, refuse connections or
//! cannot save. Then all faults end, and the group must be
//! whole again within a bound. After everything that happens the invariants are checked
//! against what is really so, not against what the core believes.
//!
//! - [`world`]: the loop, and what it makes happen
//! - [`model_redis`]: one server
//! - [`invariants`]: what must be so, one file each
//! - [`faults`], [`clients`]: what goes wrong, and who notices
//! - [`stage`]: servers alone, to compare them with real ones
//! - [`recording`]: the journal of a real node, gone through again

use std::time::Duration;

use failover_core::instance::Flavor;
use failover_core::mutation::Mutation;
use failover_core::policy::Policy;

pub mod clients;
pub mod deed;
pub mod faults;
pub mod invariants;
mod journal;
mod model_broker;
pub mod model_redis;
mod network;
pub mod operations;
pub mod recording;
pub mod scenario;
mod shell;
pub mod stage;
mod twin;
pub mod world;

pub use shell::Wrong;

use deed::Timed;
use fastrand::Rng;
use invariants::Violation;
use world::{Counts, World};

/// How many servers the group has.
pub const SERVERS: usize = 3;

/// How long the group is healthy before the first fault.
const PEACE: Duration = Duration::from_secs(5);

/// Draws the kind of the servers, apart from everything else that a seed means.
const FLAVOR_SALT: u64 = 0x1ed15;

/// One run in so many is with LedisDB.
const LEDISDB_SEEDS: u8 = 8;

/// What a run is like.
#[derive(Clone, Debug)]
pub struct Options {
    /// For how long, in virtual time, faults happen.
    pub faults_for: Duration,
    /// Whether the readable lines are kept.
    pub journal: bool,
    /// The rules for the group; absent: drawn from the seed, or the defaults.
    pub policy: Option<Policy>,
    /// How many nodes guard the group; absent: drawn from the seed, or one.
    pub nodes: Option<usize>,
    /// Which kind of servers there are; absent: drawn from the seed, or Redis.
    pub flavor: Option<Flavor>,
    /// Whether rules, priorities and the habits of clients are drawn from the seed.
    pub draw: bool,
    /// A mistake that the driver makes on purpose.
    pub wrong: Option<Wrong>,
    /// A mistake that the core makes on purpose.
    pub mutation: Option<Mutation>,
    /// What is done, in the place of what would be drawn.
    pub deeds: Option<Vec<Timed>>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            faults_for: Duration::from_secs(600),
            mutation: None,
            journal: false,
            policy: None,
            nodes: None,
            flavor: None,
            draw: true,
            wrong: None,
            deeds: None,
        }
    }
}

/// What came out of a run.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The seed that it came from.
    pub seed: u64,
    /// Which kind of servers there were.
    pub flavor: Flavor,
    /// The first invariant that did not hold.
    pub violation: Option<Violation>,
    /// What was counted.
    pub counts: Counts,
    /// What was done in it.
    pub deeds: Vec<Timed>,
    /// How much virtual time passed.
    pub time: Duration,
    /// What changed in the record and on the servers, without times.
    pub trace: Vec<String>,
    /// The readable lines, when they were wanted.
    pub journal: Vec<String>,
}

/// Runs one seed.
pub fn run(seed: u64, options: &Options) -> Outcome {
    let mut world = World::new(seed, options);
    world.run_for(PEACE);
    world.begin_troubles();
    world.run_for(options.faults_for);
    world.end_troubles();
    world.require_settled();
    Outcome {
        seed,
        flavor: world.server(0).settings().flavor,
        violation: world.violation().cloned(),
        counts: world.counts(),
        deeds: world.deeds().to_vec(),
        time: world.age(),
        trace: world.trace().to_vec(),
        journal: world.into_journal(),
    }
}

/// Which kind of servers there are in a run.
fn flavor_of(seed: u64, options: &Options) -> Flavor {
    let drawn = || Rng::with_seed(seed ^ FLAVOR_SALT).u8(..LEDISDB_SEEDS) == 0;
    options.flavor.unwrap_or(match options.draw && drawn() {
        true => Flavor::Ledisdb,
        false => Flavor::Redis,
    })
}
