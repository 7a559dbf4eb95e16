//! Each mistake that is made on purpose is found within two thousand short runs, by an invariant that means it.

use std::time::Duration;

use failover_core::mutation::Mutation;
use failover_sim::{Options, Wrong, run};

/// In so many runs every mistake must show.
const SEEDS_MAX: u64 = 2_000;

fn options() -> Options {
    Options { faults_for: Duration::from_secs(120), ..Options::default() }
}

/// Requires that each of these is found, and says in which seed and by which invariant.
fn all_are_found(mistakes: impl Iterator<Item = (&'static str, Options)>) {
    let missed: Vec<&str> = mistakes
        .filter_map(|(name, options)| {
            let found = (0..SEEDS_MAX).find_map(|seed| {
                run(seed, &options).violation.map(|violation| (seed, violation.invariant))
            });
            eprintln!("{name}: {found:?}");
            found.is_none().then_some(name)
        })
        .collect();
    assert!(missed.is_empty(), "nobody noticed: {}", missed.join(", "));
}

#[test]
fn every_mistake_of_the_core_is_found() {
    all_are_found(
        Mutation::ALL
            .into_iter()
            .map(|mutation| (mutation.name(), Options { mutation: Some(mutation), ..options() })),
    );
}

#[test]
fn every_mistake_of_the_driver_is_found() {
    all_are_found(
        Wrong::ALL
            .into_iter()
            .map(|wrong| (wrong.name(), Options { wrong: Some(wrong), ..options() })),
    );
}
