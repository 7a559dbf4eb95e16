//! Many seeds hold, one seed is one run, and each invariant bites.

use std::time::Duration;

use failover_sim::{Options, Outcome, Wrong, run};

fn short() -> Options {
    Options { faults_for: Duration::from_secs(120), ..Options::default() }
}

#[test]
fn three_hundred_seeds_hold() {
    for seed in 0..300 {
        let outcome = run(seed, &short());
        assert_eq!(outcome.violation, None, "failover-sim --minutes 2 --seed {seed}");
        assert!(outcome.counts.faults > 0 && outcome.counts.acknowledged > 0);
    }
}

#[test]
fn a_seed_is_the_whole_run() {
    let options = Options { journal: true, ..short() };
    let (first, second) = (run(42, &options), run(42, &options));
    assert!(first.journal.len() > 1000);
    assert_eq!(first.journal, second.journal);
    assert_ne!(first.journal, run(43, &options).journal);
}

/// What is found in the first seeds when the driver makes this mistake.
fn found(wrong: Wrong) -> Vec<&'static str> {
    let options = Options { wrong: Some(wrong), ..short() };
    let outcomes: Vec<Outcome> = (0..100).map(|seed| run(seed, &options)).collect();
    let mut found: Vec<&str> = outcomes
        .into_iter()
        .filter_map(|outcome| outcome.violation)
        .map(|violation| violation.invariant)
        .collect();
    found.sort_unstable();
    found.dedup();
    found
}

#[test]
fn a_second_promotion_under_one_epoch_is_found() {
    assert!(found(Wrong::PromoteTwice).contains(&"one-promotion"));
}

#[test]
fn a_command_before_the_commit_is_found() {
    assert_eq!(found(Wrong::SkipCommit), ["decided-first"]);
}

#[test]
fn a_replica_that_is_behind_and_promoted_is_found() {
    assert!(found(Wrong::TurnOffsets).contains(&"best-promoted"));
}

#[test]
fn demotions_that_are_not_done_are_found() {
    let found = found(Wrong::RefuseFollow);
    assert!(found.contains(&"one-master") || found.contains(&"liveness"), "{found:?}");
}

#[test]
fn a_group_that_is_never_whole_again_is_found() {
    assert!(found(Wrong::TurnDeaf).contains(&"liveness"));
}

#[test]
fn a_flood_of_probes_is_found() {
    assert_eq!(found(Wrong::RepeatProbes), ["bounded-work"]);
}
