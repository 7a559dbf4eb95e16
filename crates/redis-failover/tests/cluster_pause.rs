//! A pause is the cluster's and not a leader's: it holds over elections and over the end of every node, whoever is asked
//! begins and ends it, and what was needed meanwhile is done when it ends.

mod common;

use std::time::Duration;

use failover_core::time::Time;

use common::scenario::{demotions, failovers, holds_for, times_told};
use common::together::{
    QUIET, assert_complete, assert_promoted_once, guard, holds_quiet, wait_for_diagnosis_at,
    wait_until_settled,
};
use common::{Cluster, Group, PATIENCE, Server, ServerKind, wait_until};

#[track_caller]
fn post(cluster: &Cluster, node: usize, path: &str, body: &str) {
    let answer = cluster.node(node).post(path, body);
    assert_eq!(answer.status, 200, "{}", answer.body);
}

#[track_caller]
fn wait_for_status(cluster: &Cluster, name: &str, status: &str) {
    for node in cluster.answering() {
        cluster.node(node).wait_for(name, PATIENCE, |view| view["status"] == status);
    }
}

/// Every node shows the pause with its reason, sees what happens, and does nothing.
#[track_caller]
fn assert_nothing_is_done(cluster: &Cluster, group: &Group, name: &str) {
    let before: u64 = group.replicas.iter().map(times_told).sum();
    holds_for(QUIET, "everything is seen and nothing is done", || {
        let told: u64 = group.replicas.iter().map(times_told).sum();
        told == before
            && cluster.answering().into_iter().all(|node| {
                let view = cluster.node(node).group(name).expect("a group stays");
                let paused = view["status"] == "paused" && view["status_reason"].is_string();
                paused && view["master"] == name && failovers(cluster.node(node), name).is_empty()
            })
    });
}

#[test]
fn a_pause_outlasts_its_leader_and_what_was_needed_meanwhile_is_done_at_its_end() {
    common::scenario::on_each_kind(|kind| {
        let mut group = Group::start(kind, 2);
        let name = group.master.addr();
        let mut cluster = guard(&group, &[]);
        let follower = cluster.follower();
        post(&cluster, follower, "/v1/pause", r#"{"reason":"a new switch"}"#);
        wait_for_status(&cluster, &name, "paused");
        let leader = cluster.leader_of_all();
        cluster.kill9(leader);
        group.master.kill9();
        let heir = cluster.leader();
        let view = cluster.node(heir).wait_for(&name, PATIENCE, |view| {
            view["diagnosis"]["name"] == "MasterCrashed" && view["status"] == "paused"
        });
        let why = view["diagnosis"]["not_acting_because"].as_str().expect("a sentence");
        assert!(why.contains("paused") && why.contains("a new switch"), "{why}");
        assert_nothing_is_done(&cluster, &group, &name);
        cluster.start(leader);
        cluster.leader_of_all();
        wait_for_status(&cluster, &name, "paused");

        // Any node ends it.
        post(&cluster, cluster.follower(), &format!("/v1/groups/{name}/resume"), "");
        let entry = cluster.wait_for_failover(&name);
        let new = entry["new_master"].as_str().expect("there is one").to_owned();
        assert_complete(&entry, (&name, &new, 1), "nobody");
        let replicas: Vec<&Server> = group.replicas.iter().collect();
        wait_until_settled(&cluster, &name, &replicas, &new);
        assert_promoted_once(&replicas, &new);
    });
}

#[test]
fn a_pause_outlasts_the_end_of_every_node() {
    let mut group = Group::start(ServerKind::Redis, 1);
    let name = group.master.addr();
    let mut cluster = guard(&group, &[]);
    post(&cluster, 0, &format!("/v1/groups/{name}/pause"), r#"{"reason":"a new switch"}"#);
    wait_for_status(&cluster, &name, "paused");
    for node in 0..3 {
        cluster.kill9(node);
    }
    group.master.kill9();
    for node in 0..3 {
        cluster.start(node);
    }
    let leader = cluster.leader_of_all();
    wait_for_diagnosis_at(&cluster, leader, &name, "MasterCrashed");
    assert_nothing_is_done(&cluster, &group, &name);
    let follower = cluster.follower();
    post(&cluster, follower, "/v1/resume", "");
    cluster.wait_masters(&[&group.replicas[0].addr()], PATIENCE);
    let entry = cluster.wait_for_failover(&name);
    assert_eq!((&entry["outcome"], &entry["epoch"]), (&"done".into(), &1.into()), "{entry:#}");
}

/// The time of its end passes while nobody leads. Whoever leads next ends it, and does what is to be done.
#[test]
fn a_pause_that_ends_while_nobody_leads_is_over_for_the_next_leader() {
    let mut group = Group::start(ServerKind::Redis, 1);
    let name = group.master.addr();
    let mut cluster = guard(&group, &[]);
    let time = |cluster: &Cluster, node: usize| {
        let as_of = cluster.node(node).get("/v1/groups").json["as_of"].as_str().map(str::to_owned);
        as_of.and_then(|as_of| Time::parse(&as_of)).expect("a moment")
    };
    let until = time(&cluster, 0) + Duration::from_secs(3);
    post(&cluster, 0, "/v1/pause", &format!(r#"{{"until_at":"{until}"}}"#));
    wait_for_status(&cluster, &name, "paused");
    let survivor = cluster.follower();
    let others: Vec<usize> = (0..3).filter(|node| *node != survivor).collect();
    for node in &others {
        cluster.kill9(*node);
    }
    group.master.kill9();
    // One of three is left, and knows that it may not act.
    wait_until("the end has passed", PATIENCE, || (time(&cluster, survivor) > until).then_some(()));
    assert_eq!(cluster.node(survivor).group(&name).expect("it stays")["status"], "paused");
    assert_eq!(times_told(&group.replicas[0]), 0);
    cluster.start(others[0]);
    cluster.wait_masters(&[&group.replicas[0].addr()], PATIENCE);
    wait_for_status(&cluster, &name, "active");
    let entry = cluster.wait_for_failover(&name);
    assert_eq!((&entry["outcome"], &entry["epoch"]), (&"done".into(), &1.into()), "{entry:#}");
    cluster.start(others[1]);
    cluster.wait_for_failover(&name);
    holds_quiet(&cluster, &name, &group.replicas[0].addr(), 1, 1);
}

/// The leader dies right after it took the wish to resume, which is in the record by then.
#[test]
fn a_pause_that_was_ended_under_one_leader_stays_ended_under_the_next() {
    let mut group = Group::start(ServerKind::Redis, 1);
    let name = group.master.addr();
    let mut cluster = guard(&group, &[]);
    post(&cluster, 0, "/v1/pause", "");
    wait_for_status(&cluster, &name, "paused");
    group.master.kill9();
    let leader = cluster.leader_of_all();
    wait_for_diagnosis_at(&cluster, leader, &name, "MasterCrashed");
    post(&cluster, leader, &format!("/v1/groups/{name}/resume"), "");
    cluster.kill9(leader);
    cluster.wait_masters(&[&group.replicas[0].addr()], PATIENCE);
    let entry = cluster.wait_for_failover(&name);
    assert_eq!((&entry["outcome"], &entry["epoch"]), (&"done".into(), &1.into()), "{entry:#}");
    assert_promoted_once(&[&group.replicas[0]], &group.replicas[0].addr());
    cluster.start(leader);
    wait_for_status(&cluster, &name, "active");
}

/// What people did by hand during the pause is adopted by whoever leads at its end, and an old master that returned
/// meanwhile was not touched before.
#[test]
fn a_master_that_was_made_by_hand_is_adopted_by_the_next_leader() {
    let mut group = Group::start(ServerKind::Redis, 2);
    let name = group.master.addr();
    let mut cluster = guard(&group, &[]);
    post(&cluster, 1, "/v1/pause", "");
    wait_for_status(&cluster, &name, "paused");
    group.master.kill9();
    let new = group.replicas[0].addr();
    group.replicas[0].promote_by_hand();
    group.replicas[1].replica_of(&group.replicas[0]);
    group.replicas[1].wait_for_link(&group.replicas[0]);
    let leader = cluster.leader_of_all();
    cluster.kill9(leader);
    let heir = cluster.leader();
    wait_for_diagnosis_at(&cluster, heir, &name, "MasterCrashed");
    post(&cluster, heir, "/v1/resume", "");
    cluster.wait_masters(&[&new], PATIENCE);
    cluster.start(leader);
    group.master.restart();
    let all: Vec<&Server> = group.servers().collect();
    wait_until_settled(&cluster, &name, &all, &new);
    let leader = cluster.node(cluster.leader_of_all());
    let adopted = leader.history(&name).into_iter().find(|entry| entry["kind"] == "adoption");
    let adopted = adopted.expect("it is in the history");
    assert_eq!((&adopted["new_master"], &adopted["epoch"]), (&(*new).into(), &1.into()));
    assert_eq!(demotions(leader, &name).len(), 1, "the old one came back as a master");
    assert!(failovers(leader, &name).is_empty());
}
