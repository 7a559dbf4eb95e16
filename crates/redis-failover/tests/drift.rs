//! Roles that somebody changes by hand on real servers: undone, adopted, or left alone, on one node and on three.

mod common;

use std::time::Duration;

use serde_json::Value;

use common::scenario::{guard, holds_for, on_each_kind, wait_for_entry, wait_until_follows};
use common::{Daemon, Group, Options, PATIENCE, Server, ServerKind, together, wait_until};

/// Ten seconds, and what a probe, a question and a decision take.
const DRIFT_LIMIT: Duration = Duration::from_secs(30);

fn epoch(view: &Value) -> u64 {
    view["epoch"].as_u64().expect("a number")
}

fn wait_until_healthy(daemon: &Daemon, name: &str) -> Value {
    daemon.wait_for(name, DRIFT_LIMIT, |view| view["diagnosis"]["name"] == "Healthy")
}

/// Waits for the sentence that says why nothing is done yet.
fn wait_until_said(daemon: &Daemon, name: &str, words: &str) {
    daemon.wait_for(name, PATIENCE, |view| {
        view["diagnosis"]["not_acting_because"].as_str().is_some_and(|why| why.contains(words))
    });
}

#[test]
fn a_second_master_and_a_replica_of_a_stranger_are_brought_back_and_a_chain_is_not() {
    on_each_kind(|kind| {
        let group = Group::start(kind, 3);
        let stranger = Server::start(kind, &Options::new());
        let name = group.master.addr();
        let daemon = guard(&group, &["-check_interval=100"]);
        let [second, astray, chained] = &group.replicas[..] else { panic!("three replicas") };
        chained.replica_of(astray);
        wait_until_said(&daemon, &name, "a chain is reported");
        second.promote_by_hand();
        wait_until_said(&daemon, &name, "made a master by hand");
        astray.replica_of(&stranger);

        let entry = wait_for_entry(&daemon, &name, ("demotion", &second.addr(), "done"));
        assert!(entry["reason"].as_str().is_some_and(|why| why.contains("by hand")), "{entry:#}");
        wait_until("it was brought back", DRIFT_LIMIT, || {
            (astray.master_link()?.0 == name).then_some(())
        });
        astray.wait_for_link(&group.master);
        second.wait_for_link(&group.master);
        assert_eq!(chained.master_link().map(|(of, _)| of), Some(astray.addr()));
        let view = daemon.group(&name).expect("it is guarded");
        assert_eq!((view["master"].as_str(), epoch(&view)), (Some(&*name), 0));
        assert_eq!(stranger.role(), "master");
    });
}

#[test]
fn a_master_that_was_demoted_by_hand_is_a_master_again_or_its_heir_is_adopted() {
    on_each_kind(|kind| {
        let group = Group::start(kind, 2);
        let name = group.master.addr();
        let daemon = guard(&group, &["-check_interval=100"]);
        // A ring: nobody takes writes.
        group.master.replica_of(&group.replicas[0]);
        daemon.wait_for(&name, PATIENCE, |view| view["diagnosis"]["name"] == "MasterBecameReplica");
        wait_until("it is a master again", DRIFT_LIMIT, || {
            (group.master.role() == "master").then_some(())
        });
        let view = wait_until_healthy(&daemon, &name);
        assert_eq!((view["master"].as_str(), epoch(&view)), (Some(&*name), 1));
        for replica in &group.replicas {
            replica.wait_for_link(&group.master);
        }
        // A switchover by hand, as people do it.
        let heir = &group.replicas[1];
        heir.promote_by_hand();
        group.master.replica_of(heir);
        daemon.wait_for_master(&heir.addr(), PATIENCE);
        wait_for_entry(&daemon, &name, ("adoption", &name, "done"));
        wait_until_follows(&daemon, &name, &group.replicas[0], heir);
        let view = wait_until_healthy(&daemon, &name);
        assert_eq!((view["master"].as_str(), epoch(&view)), (Some(&*heir.addr()), 2));
    });
}

#[test]
fn an_address_that_another_groups_server_was_given_is_left_alone() {
    let kind = ServerKind::Redis;
    let mut group = Group::start(kind, 2);
    let mut other = Group::start(kind, 1);
    let (name, other_name) = (group.master.addr(), other.master.addr());
    let masters = format!("-masters={name},{other_name}");
    let daemon = Daemon::start(&[&masters, "-check_interval=100"]);
    daemon.wait_until_healthy(&name, &group.addrs());
    daemon.wait_until_healthy(&other_name, &other.addrs());
    // A replica's machine is gone, and a new replica of the other group comes up at its address.
    let mut given = group.replicas.remove(1);
    given.kill9();
    daemon.wait_for(&name, PATIENCE, |view| {
        let gone = common::daemon::instance(view, &given.addr());
        gone.is_some_and(|gone| gone["state"] == "down")
    });
    given.restart_as_replica_of(&other.master);
    given.wait_for_link(&other.master);
    wait_until_said(&daemon, &name, "forget it here");
    // Also in a failover of the one group, and when it is made a master there.
    group.master.kill9();
    daemon.wait_for_master(&group.replicas[0].addr(), PATIENCE);
    let what = "it stays where it is";
    holds_for(Duration::from_secs(12), what, || {
        given.master_link().is_some_and(|(of, up)| up && of == other_name)
    });
    let answer = daemon.delete(&format!("/v1/groups/{name}/replicas/{}", given.addr()));
    assert_eq!(answer.status, 200, "{}", answer.body);
    daemon.wait_for(&other_name, PATIENCE, |view| {
        common::daemon::instance(view, &given.addr()).is_some()
    });
    other.replicas.push(given);
}

#[test]
fn three_nodes_undo_and_adopt_too_also_when_the_leader_dies_meanwhile() {
    let group = Group::start(ServerKind::Redis, 2);
    let name = group.master.addr();
    let mut cluster = together::guard(&group, &["-check_interval=100"]);
    group.replicas[0].promote_by_hand();
    let leader = cluster.leader();
    wait_until_said(cluster.node(leader), &name, "made a master by hand");
    cluster.kill9(leader);
    wait_until("the next leader has it undone", DRIFT_LIMIT, || {
        group.replicas[0].master_link().filter(|(of, up)| *up && *of == name).map(|_| ())
    });
    let daemon = cluster.node(cluster.leader());
    wait_for_entry(daemon, &name, ("demotion", &group.replicas[0].addr(), "done"));
    cluster.start(leader);

    group.replicas[1].promote_by_hand();
    group.master.replica_of(&group.replicas[1]);
    cluster.wait_masters(&[&group.replicas[1].addr()], PATIENCE);
    group.replicas[0].wait_for_link(&group.replicas[1]);
}
