//! Each mistake that is made on purpose is found within two thousand short runs, by an invariant that means it.

use std::time::Duration;

use failover_core::mutation::Mutation;
use failover_sim::{Options, Wrong, run};

/// In so many runs every mistake must show.
const SEEDS_MAX: u64 = 2_000;

/// The first seed in which the mistake was found, and by which invariant.
fn found(options: &Options) -> Option<(u64, &'static str)> {
    (0..SEEDS_MAX)
        .find_map(|seed| run(seed, options).violation.map(|violation| (seed, violation.invariant)))
}

fn options() -> Options {
    Options { faults_for: Duration::from_secs(120), ..Options::default() }
}

#[test]
fn every_mistake_of_the_core_is_found() {
    let missed: Vec<&str> = Mutation::ALL
        .into_iter()
        .filter_map(|mutation| {
            let name = mutation.name();
            let found = found(&Options { mutation: Some(mutation), ..options() });
            println!("{name}: {found:?}");
            found.is_none().then_some(name)
        })
        .collect();
    assert!(missed.is_empty(), "nobody noticed: {}", missed.join(", "));
}

#[test]
fn every_mistake_of_the_driver_is_found() {
    let missed: Vec<&str> = Wrong::ALL
        .into_iter()
        .filter_map(|wrong| {
            let name = wrong.name();
            let found = found(&Options { wrong: Some(wrong), ..options() });
            println!("{name}: {found:?}");
            found.is_none().then_some(name)
        })
        .collect();
    assert!(missed.is_empty(), "nobody noticed: {}", missed.join(", "));
}
