//! What a person would try first, by hand: one fault at a time, and what must come of it.

use std::time::Duration;

use failover_core::policy::{OnFailedFailover, Policy};
use failover_core::record::{Outcome, Phase, Status};
use failover_sim::faults::Fault;
use failover_sim::model_redis::Part;
use failover_sim::world::World;
use failover_sim::{Options, Wrong};

const SECOND: Duration = Duration::from_secs(1);

fn options() -> Options {
    let policy = Policy {
        check_interval: Duration::from_millis(100),
        max_down_time: Duration::from_secs(1),
        ..Policy::default()
    };
    Options { draw: false, policy: Some(policy), ..Options::default() }
}

/// Three servers, the first of them the master, seen and healthy.
fn healthy(options: &Options) -> World {
    let mut world = World::new(7, options);
    world.run_for(SECOND * 5);
    assert_eq!(diagnosis(&world), "Healthy");
    assert_eq!(world.recorded(), 0);
    world
}

fn diagnosis(world: &World) -> &'static str {
    world.view().expect("the group is guarded").diagnosis.name
}

/// Runs until the recorded master is another, and returns how long that took.
fn until_replaced(world: &mut World, limit: Duration) -> Duration {
    let (before, age) = (world.recorded(), world.age());
    assert!(world.run_until(limit, |world| world.recorded() != before), "{:?}", world.view());
    world.age() - age
}

/// Runs until everything is as it should be, and requires that no invariant was hurt on the way.
fn whole_again(mut world: World) -> World {
    world.end_troubles();
    world.require_settled();
    assert_eq!(world.violation(), None);
    world
}

#[test]
fn a_killed_master_is_replaced_within_milliseconds() {
    let mut world = healthy(&options());
    world.inflict(Fault::Kill(0));
    let took = until_replaced(&mut world, SECOND);
    assert!(took < Duration::from_millis(60), "{took:?}");
    world.run_for(SECOND);
    let master = world.recorded();
    assert_eq!(world.server(master).part(), Part::Master);
    assert_eq!(world.server(3 - master).part(), Part::Replica(master));
    assert!(world.server(3 - master).link_up());
    assert_eq!(world.entry().epoch, 1);
    whole_again(world);
}

#[test]
fn a_master_that_hangs_for_a_moment_stays() {
    let mut world = healthy(&options());
    for _ in 0..20 {
        world.inflict(Fault::Hang(0));
        world.run_for(Duration::from_millis(800));
        world.inflict(Fault::Wake(0));
        world.run_for(SECOND * 2);
    }
    assert_eq!((world.recorded(), world.entry().epoch), (0, 0));
    whole_again(world);
}

#[test]
fn a_master_that_hangs_for_long_is_replaced_and_demoted_when_it_wakes_up() {
    let mut world = healthy(&options());
    world.inflict(Fault::Hang(0));
    let took = until_replaced(&mut world, SECOND * 3);
    assert!((SECOND..SECOND * 3 / 2).contains(&took), "{took:?}");
    world.run_for(SECOND * 20);
    world.inflict(Fault::Wake(0));
    let demoted = world.run_until(SECOND, |world| world.server(0).part() != Part::Master);
    assert!(demoted, "{:?}", world.view());
    whole_again(world);
}

#[test]
fn a_killed_master_that_comes_back_as_a_master_is_demoted() {
    for back in [Fault::Return(0), Fault::ReturnEmpty(0)] {
        let mut world = healthy(&options());
        world.inflict(Fault::Kill(0));
        until_replaced(&mut world, SECOND);
        world.run_for(SECOND * 90);
        world.inflict(back);
        let demoted = world.run_until(SECOND, |world| world.server(0).part() != Part::Master);
        assert!(demoted, "{:?}", world.view());
        let world = whole_again(world);
        assert!(world.server(0).data().len() > 100, "it has what the new master has");
    }
}

#[test]
fn a_group_that_is_dead_as_a_whole_is_kept_and_goes_on() {
    let mut world = healthy(&options());
    for index in [1, 2, 0] {
        world.inflict(Fault::Kill(index));
        world.run_for(SECOND / 10);
    }
    world.run_for(SECOND * 600);
    assert_eq!(diagnosis(&world), "WholeGroupUnreachable");
    assert_eq!(world.entry().instances.len(), 3);
    for index in [2, 1, 0] {
        world.run_for(SECOND * 5);
        world.inflict(Fault::Return(index));
    }
    let world = whole_again(world);
    assert_eq!((world.recorded(), world.entry().epoch), (0, 0));
}

/// The master is dead, and the candidate hangs right when it executes its promotion.
fn candidate_hangs(world: &mut World) -> usize {
    world.inflict(Fault::Kill(0));
    let decided = world.run_until(SECOND, |world| world.entry().saga.is_some());
    assert!(decided, "{:?}", world.view());
    let target = world.entry().saga.as_ref().expect("a saga").target.clone();
    let candidate = (1..3).find(|index| *world.server(*index).addr() == target);
    let candidate = candidate.expect("a replica");
    world.inflict(Fault::Hang(candidate));
    candidate
}

#[test]
fn a_candidate_whose_promotion_stays_unknown_is_abandoned_for_the_next() {
    let mut world = healthy(&options());
    let first = candidate_hangs(&mut world);
    until_replaced(&mut world, SECOND * 5);
    assert_eq!((world.recorded(), world.entry().epoch), (3 - first, 2));
    world.inflict(Fault::Wake(first));
    // Its promotion lay in its socket: it is executed now, and undone.
    let master = world.run_until(SECOND, |world| world.server(first).part() == Part::Master);
    assert!(master, "it executes what was sent to it");
    let follower = Part::Replica(3 - first);
    let demoted = world.run_until(SECOND, |world| world.server(first).part() == follower);
    assert!(demoted, "{:?}", world.view());
    whole_again(world);
}

/// The next candidate hangs in its promotion too: nobody is left.
fn both_candidates_hang(world: &mut World) -> usize {
    let first = candidate_hangs(world);
    let next = world.run_until(SECOND * 5, |world| {
        world.entry().saga.as_ref().is_some_and(|saga| {
            saga.phase == Phase::Decided && saga.target != *world.server(first).addr()
        })
    });
    assert!(next, "{:?}", world.view());
    world.inflict(Fault::Hang(3 - first));
    let halted =
        world.run_until(SECOND * 5, |world| matches!(world.entry().status, Status::Halted { .. }));
    assert!(halted || world.violation().is_some(), "{:?}", world.view());
    first
}

#[test]
fn a_driver_that_commands_a_halted_group_is_caught() {
    let mut world = healthy(&Options { wrong: Some(Wrong::CommandHalted), ..options() });
    both_candidates_hang(&mut world);
    world.run_for(SECOND);
    assert_eq!(world.violation().map(|violation| violation.invariant), Some("hands-off"));
}

#[test]
fn when_every_promotion_stays_unknown_the_group_is_halted_until_a_person_resumes_it() {
    let mut world = healthy(&options());
    let first = candidate_hangs(&mut world);
    let next = world.run_until(SECOND * 5, |world| {
        world.entry().saga.as_ref().is_some_and(|saga| {
            saga.phase == Phase::Decided && saga.target != *world.server(first).addr()
        })
    });
    assert!(next, "{:?}", world.view());
    world.inflict(Fault::Hang(3 - first));
    let halted =
        world.run_until(SECOND * 5, |world| matches!(world.entry().status, Status::Halted { .. }));
    assert!(halted, "{:?}", world.view());
    let view = world.view().expect("the group is guarded");
    assert_eq!(view.history.first().map(|entry| entry.outcome), Some(Outcome::Failed));
    world.inflict(Fault::Wake(first));
    world.inflict(Fault::Wake(3 - first));
    world.run_for(SECOND * 30);
    assert_eq!(world.server(0).part(), Part::Master);
    assert!(matches!(world.entry().status, Status::Halted { .. }), "nobody resumed it");
    world.inflict(Fault::Return(0));
    world.run_for(SECOND * 30);
    assert!(matches!(world.entry().status, Status::Halted { .. }), "nobody resumed it");
    let world = whole_again(world);
    assert_eq!(world.entry().status, Status::Active, "the operator came");
}

#[test]
fn with_retry_a_failed_failover_is_tried_again() {
    let mut options = options();
    if let Some(policy) = &mut options.policy {
        policy.on_failed_failover = OnFailedFailover::Retry;
    }
    let mut world = healthy(&options);
    let first = candidate_hangs(&mut world);
    world.inflict(Fault::Hang(3 - first));
    world.run_for(SECOND * 30);
    assert_eq!((world.recorded(), &world.entry().status), (0, &Status::Active));
    world.inflict(Fault::Wake(3 - first));
    until_replaced(&mut world, SECOND * 61);
    whole_again(world);
}

#[test]
fn a_replica_that_missed_the_failover_is_brought_to_the_new_master() {
    let mut world = healthy(&options());
    world.inflict(Fault::Kill(2));
    world.run_for(SECOND);
    world.inflict(Fault::Kill(0));
    until_replaced(&mut world, SECOND);
    world.run_for(SECOND * 5);
    // The old master first: then the replica finds it demoted, and is its replica still.
    world.inflict(Fault::Return(0));
    world.run_for(SECOND * 5);
    assert_eq!(world.server(0).part(), Part::Replica(1));
    world.inflict(Fault::Return(2));
    world.run_for(SECOND * 5);
    assert_eq!(world.server(2).part(), Part::Replica(1));
    whole_again(world);
}

#[test]
fn a_driver_that_demotes_nobody_leaves_two_masters_and_is_caught() {
    let mut world = healthy(&Options { wrong: Some(Wrong::RefuseFollow), ..options() });
    world.inflict(Fault::Kill(0));
    until_replaced(&mut world, SECOND);
    world.inflict(Fault::Return(0));
    world.run_for(SECOND * 20);
    assert_eq!(world.violation().map(|violation| violation.invariant), Some("one-master"));
}
