//! The leader breaks at every step of a failover that is written down, by its end or by a stop.
//!
//! The record is the memory of the cluster, and each step is in it before it is done. So the next
//! leader knows exactly how far the last one can have come: it asks the candidate for its role and
//! goes on. It promotes nobody else, because the epoch is taken by *this* candidate; and a leader
//! that wakes up finds by its own clock that nobody has confirmed it for longer than its lease, so
//! it sends nothing, however far it was.

mod common;

use serde_json::Value;

use common::scenario::{failovers, holds, times_told};
use common::together::{
    assert_complete, assert_promoted_once, guard_by_with_faulty_leader, holds_quiet,
    wait_until_settled,
};
use common::{Agree, Cluster, Group, PATIENCE, Server, ServerKind, wait_until};

/// What is played at one point.
struct Scene {
    point: &'static str,
    group: Group,
    name: String,
    cluster: Cluster,
    broken: usize,
}

/// Scenes in which a busy disk may cost the faulty node its term before it breaks.
const SCENES_MAX: usize = 3;

/// A master was killed, and the leader has come to this point.
fn break_at(agree: Agree, point: &'static str, how: &str) -> Scene {
    let scenes = (0..SCENES_MAX).map(|_| set(agree, point, how));
    scenes.into_iter().find(Scene::has_broken).expect("the faulty node leads when the master dies")
}

fn set(agree: Agree, point: &'static str, how: &str) -> Scene {
    let mut group = Group::start(ServerKind::Redis, 2);
    let name = group.master.addr();
    let fault = format!("{point}={how}");
    let (cluster, broken) = guard_by_with_faulty_leader(agree, &group, &[], &fault);
    group.wait_in_step();
    group.master.kill9();
    Scene { point, group, name, cluster, broken }
}

impl Scene {
    /// Whether it was the faulty node that came to its point, and not another that led by then.
    fn has_broken(&self) -> bool {
        let fault = format!("fault at {}", self.point);
        let others = [1, 2].map(|node| self.cluster.node(node));
        wait_until("somebody replaces the master", PATIENCE, || {
            if self.cluster.log(self.broken).contains(&fault) {
                return Some(true);
            }
            let ended = |entry: &Value| entry["outcome"] == "done";
            let is_over = others.iter().all(|node| failovers(node, &self.name).iter().any(ended));
            is_over.then_some(false)
        })
    }

    fn replicas(&self) -> Vec<&Server> {
        self.group.replicas.iter().collect()
    }

    /// The others end what was begun, or begin it if nothing was. Gives the new master.
    fn wait_until_the_heir_has_ended_it(&self) -> String {
        let entry = self.cluster.wait_for_failover(&self.name);
        let new = entry["new_master"].as_str().expect("there is one").to_owned();
        assert_complete(&entry, (&self.name, &new, 1), self.cluster.id(self.broken));
        // Before the decision is committed there is nothing to go on with; after that there is.
        let decided_by = self.cluster.number_of(entry["leader"].as_str().expect("there is one"));
        let is_decided = self.point != "before-decision-commit";
        assert_eq!(decided_by == Some(self.broken), is_decided, "{entry:#}");
        wait_until_settled(&self.cluster, &self.name, &self.replicas(), &new);
        assert_promoted_once(&self.replicas(), &new);
        new
    }

    /// With everything and everybody back it stays what it is.
    fn end(mut self, new: &str) {
        self.group.master.restart();
        let all: Vec<&Server> = self.group.servers().collect();
        wait_until_settled(&self.cluster, &self.name, &all, new);
        self.cluster.wait_for_failover(&self.name);
        self.cluster.leader_of_all();
        assert_promoted_once(&self.replicas(), new);
        holds_quiet(&self.cluster, &self.name, new, 1, 1);
    }
}

fn ends_at(agree: Agree, point: &'static str) {
    let mut scene = break_at(agree, point, "exit");
    let status = scene.cluster.wait_for_end(scene.broken);
    assert_eq!(status.code(), Some(1), "{point}");
    let new = scene.wait_until_the_heir_has_ended_it();
    scene.cluster.clear_fault(scene.broken);
    scene.cluster.start(scene.broken);
    scene.end(&new);
}

fn stops_at(agree: Agree, point: &'static str) {
    let mut scene = break_at(agree, point, "stop");
    scene.cluster.wait_until_frozen(scene.broken);
    let new = scene.wait_until_the_heir_has_ended_it();
    let told: Vec<u64> = scene.replicas().into_iter().map(times_told).collect();
    scene.cluster.thaw(scene.broken);
    // It was between two steps. What it meant to do next is not its business any more.
    let replicas = scene.replicas();
    holds("it tells nobody anything", || {
        replicas.iter().zip(&told).all(|(replica, told)| times_told(replica) == *told)
    });
    scene.cluster.wait_masters(&[&new], PATIENCE);
    scene.end(&new);
}

/// The outer brokers at the same time: each takes its own lease's time and little else.
fn on_each_outer(play: fn(Agree, &'static str), point: &'static str) {
    common::store::on_each_outer(|agree| play(agree, point));
}

macro_rules! at_each_point {
    ($($name:ident: $point:literal,)*) => {
        mod a_leader_that_ends {
            $(#[test] fn $name() { super::ends_at(super::Agree::Raft, $point); })*
        }
        mod a_leader_that_stops_and_wakes_up_later {
            $(#[test] fn $name() { super::stops_at(super::Agree::Raft, $point); })*
        }
        mod a_leader_in_a_store_that_ends {
            $(#[test] fn $name() { super::on_each_outer(super::ends_at, $point); })*
        }
        mod a_leader_in_a_store_that_stops_and_wakes_up_later {
            $(#[test] fn $name() { super::on_each_outer(super::stops_at, $point); })*
        }
    };
}

at_each_point! {
    before_the_decision_is_committed: "before-decision-commit",
    after_the_decision_is_committed: "after-decision-commit",
    before_it_promotes: "before-promote-send",
    after_it_told_the_candidate: "after-promote-send",
    after_it_saw_the_candidate_promoted: "after-promote-verify",
    before_the_result_is_committed: "before-result-commit",
    after_the_result_is_committed: "after-result-commit",
    before_it_repoints: "before-repoint",
    after_it_repointed_the_first: "after-first-repoint",
    before_the_end_is_committed: "before-done-commit",
}
