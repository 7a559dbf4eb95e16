//! Nodes and servers that stand still for a while and go on as if nothing had happened.
//!
//! A process that was stopped does not know it. A follower must not testify with what it saw before;
//! a leader must not act on what it was before; and a server executes what lies in its socket.

mod common;

use std::time::Duration;

use common::scenario::{holds_for, times_told, wait_for_entry};
use common::together::{
    QUIET, assert_complete, assert_promoted_once, guard, guard_by, guard_with_faulty_leader,
    holds_quiet, holds_quiet_for, wait_until_settled,
};
use common::{Agree, Group, Options, PATIENCE, Server, ServerKind, Writer, wait_until};

/// Longer than `max_down_time`, the lease and any election.
const STOPPED: Duration = Duration::from_secs(5);
/// What a client may see of two masters: one look of the program, on a machine that does much else.
const BOTH_MAX: Duration = Duration::from_millis(500);

/// Nothing happens to the group, so nothing may happen to it: a node that stood still has seen
/// nothing of the servers for five seconds, and discards this silence instead of taking it for theirs.
#[test]
fn nodes_that_stand_still_between_failovers_begin_none() {
    common::store::on_each_broker(stand_still_between_failovers);
}

fn stand_still_between_failovers(agree: Agree) {
    let mut group = Group::start(ServerKind::Redis, 2);
    let name = group.master.addr();
    let mut cluster = guard_by(agree, &group, &[]);
    let leader = cluster.leader_of_all();
    let follower = cluster.follower();
    cluster.freeze(follower);
    holds_quiet_for(STOPPED, &cluster, &name, &name, 0, 0);
    assert_eq!(cluster.leader(), leader, "a follower is not missed");
    cluster.thaw(follower);
    holds_quiet(&cluster, &name, &name, 0, 0);

    let leader = cluster.leader_of_all();
    cluster.freeze(leader);
    let heir = cluster.leader();
    assert_ne!(heir, leader);
    holds_quiet_for(STOPPED, &cluster, &name, &name, 0, 0);
    cluster.thaw(leader);
    holds_quiet(&cluster, &name, &name, 0, 0);
    cluster.leader_of_all();
    assert!(group.servers().all(|server| times_told(server) == 0), "nobody was told anything");

    // And they can still do what they are there for.
    group.master.kill9();
    let entry = cluster.wait_for_failover(&name);
    let new = entry["new_master"].as_str().expect("there is one").to_owned();
    wait_until_settled(&cluster, &name, &group.replicas.iter().collect::<Vec<_>>(), &new);
    holds_quiet(&cluster, &name, &new, 1, 1);
}

/// The failover goes through every step while a follower stands still, and this one wakes up in a
/// world with another master. It learns that from the others; what it saw before counts for nobody.
#[test]
fn a_follower_that_stands_still_during_a_failover_learns_of_it() {
    let slowly = [
        "before-decision-commit",
        "after-decision-commit",
        "before-promote-send",
        "after-promote-send",
        "after-promote-verify",
        "before-result-commit",
        "after-result-commit",
        "before-repoint",
        "after-first-repoint",
        "before-done-commit",
    ]
    .map(|point| format!("{point}=sleep:100"));
    let mut group = Group::start(ServerKind::Redis, 2);
    let name = group.master.addr();
    let (mut cluster, leader) = guard_with_faulty_leader(&group, &[], &slowly.join(","));
    group.wait_in_step();
    let follower = cluster.follower();
    group.master.kill9();
    cluster.node(leader).wait_for_log("fault at before-decision-commit", PATIENCE);
    let frozen_at = cluster.freeze(follower);
    let entry = cluster.wait_for_failover(&name);
    let new = entry["new_master"].as_str().expect("there is one").to_owned();
    assert_complete(&entry, (&name, &new, 1), "nobody");
    let left = STOPPED.saturating_sub(frozen_at.elapsed());
    holds_quiet_for(left, &cluster, &name, &new, 1, 1);
    cluster.thaw(follower);
    cluster.wait_masters(&[&new], PATIENCE);
    cluster.wait_for_failover(&name);
    let replicas: Vec<&Server> = group.replicas.iter().collect();
    wait_until_settled(&cluster, &name, &replicas, &new);
    assert_promoted_once(&replicas, &new);
    holds_quiet(&cluster, &name, &new, 1, 1);
}

/// The leader stands still from the moment in which the master dies: the others have not heard of it
/// and agree on a new leader first. What the old one was about to do, it may not do when it wakes.
#[test]
fn a_leader_that_stands_still_when_the_master_dies_is_replaced_and_stays_quiet() {
    common::store::on_each_broker(stand_still_when_the_master_dies);
}

fn stand_still_when_the_master_dies(agree: Agree) {
    let mut group = Group::start(ServerKind::Redis, 2);
    let name = group.master.addr();
    let mut cluster = guard_by(agree, &group, &[]);
    let leader = cluster.leader_of_all();
    let frozen_id = cluster.id(leader).to_owned();
    group.master.process().signal(rustix::process::Signal::KILL);
    let frozen_at = cluster.freeze(leader);
    group.master.kill9();
    let entry = cluster.wait_for_failover(&name);
    let new = entry["new_master"].as_str().expect("there is one").to_owned();
    assert_complete(&entry, (&name, &new, 1), &frozen_id);
    let replicas: Vec<&Server> = group.replicas.iter().collect();
    wait_until_settled(&cluster, &name, &replicas, &new);
    let left = STOPPED.saturating_sub(frozen_at.elapsed());
    holds_quiet_for(left, &cluster, &name, &new, 1, 1);
    let told: Vec<u64> = group.replicas.iter().map(times_told).collect();
    cluster.thaw(leader);
    holds_for(QUIET, "it tells nobody anything", || {
        group.replicas.iter().zip(&told).all(|(replica, told)| times_told(replica) == *told)
    });
    cluster.wait_for_failover(&name);
    assert_promoted_once(&replicas, &new);
    holds_quiet(&cluster, &name, &new, 1, 1);
}

/// A follower stops, and the master dies before it is back: two of three are a majority. It wakes up
/// while the failover may still be going on, and its word is asked for anew.
#[test]
fn a_follower_that_wakes_up_right_after_the_master_died_disturbs_nothing() {
    let mut group = Group::start(ServerKind::Redis, 2);
    let name = group.master.addr();
    let mut cluster = guard(&group, &[]);
    cluster.leader_of_all();
    let follower = cluster.follower();
    cluster.freeze(follower);
    holds_quiet_for(STOPPED, &cluster, &name, &name, 0, 0);
    group.master.kill9();
    cluster.thaw(follower);
    let entry = cluster.wait_for_failover(&name);
    let new = entry["new_master"].as_str().expect("there is one").to_owned();
    let replicas: Vec<&Server> = group.replicas.iter().collect();
    wait_until_settled(&cluster, &name, &replicas, &new);
    assert_promoted_once(&replicas, &new);
    holds_quiet(&cluster, &name, &new, 1, 1);
}

/// The command is on its way (the pause before it is shorter than the time it may take), and the candidate does not answer any more: it may be promoted or not,
/// now or later, and nobody can tell. So after `promote_timeout` it is given up by a decision of its
/// own, with which the next one gets a new epoch; and when it executes the old command after all, it
/// is demoted at the next look, because the record names another.
#[test]
fn a_candidate_that_stops_under_its_promotion_is_given_up_and_demoted_when_it_wakes() {
    let options = ["1", "100", "100"].map(|at| Options::new().set("replica-priority", at));
    let mut group = Group::start_each(ServerKind::Redis, &Options::new(), &options);
    let name = group.master.addr();
    let lost = group.replicas[0].addr();
    let (cluster, leader) = guard_with_faulty_leader(&group, &[], "before-promote-send=sleep:150");
    group.wait_in_step();
    let mut writer = Writer::start_on(group.replicas.iter());
    group.master.kill9();
    cluster.node(leader).wait_for_log("fault at before-promote-send", PATIENCE);
    group.replicas[0].stop();

    let entry = cluster.wait_for_failover(&name);
    let new = entry["new_master"].as_str().expect("there is one").to_owned();
    assert_ne!(new, lost);
    assert_eq!((&entry["outcome"], &entry["epoch"]), (&"done".into(), &2.into()), "{entry:#}");
    let steps = entry["steps"].as_array().expect("the steps are a list");
    let given_up = steps.iter().find(|step| step["name"] == "failed").expect("it is recorded");
    assert_eq!(given_up["addr"], *lost, "{entry:#}");
    assert_eq!(cluster.leader(), leader, "the leader lived through it");
    writer.wait_for_write(&new);

    let woken_at = group.replicas[0].cont();
    let what = "it was promoted late, and is a replica again";
    wait_until(what, PATIENCE, || {
        let candidate = &group.replicas[0];
        (candidate.times_promoted() > 0 && candidate.role() == "slave").then_some(())
    });
    wait_until_settled(&cluster, &name, &group.replicas.iter().collect::<Vec<_>>(), &new);
    wait_for_entry(cluster.node(cluster.leader()), &name, ("demotion", &lost, "done"));
    writer.stop();
    if let Some(last) = writer.acknowledged_after(&lost, woken_at).last() {
        let both = last.answered_at - woken_at;
        assert!(both < BOTH_MAX, "two masters took writes for {both:?}");
    }
    group.master.restart();
    wait_until_settled(&cluster, &name, &group.servers().collect::<Vec<_>>(), &new);
    holds_quiet(&cluster, &name, &new, 2, 1);
}
