//! What is slow, or never answers, holds up nobody but itself.

mod common;

use std::time::Duration;

use common::slow::{Mute, SlowNames};
use common::together::start_guard;
use common::{Cluster, Group, PATIENCE, ServerKind, Told, Writer};

/// What is promised for a cluster whose machine does nothing else is a hundredth of it.
const GAP_MAX: Duration = Duration::from_millis(900);

/// Kills the master of the group, which three nodes guard besides everything else, and waits for its replacement.
#[track_caller]
fn is_replaced_at_once(group: &mut Group, cluster: &Cluster) {
    let name = group.master.addr();
    let writer = Writer::start(group);
    let told = Told::start(cluster.node(cluster.leader()).http());
    let killed_at = group.master.kill9();
    let gap = writer.wait_for_gap(killed_at, &name, PATIENCE);
    assert!(gap.length < GAP_MAX, "{gap:?}");
    let told_at = told.wait_for(&gap.addr, killed_at, PATIENCE);
    assert!(told_at - killed_at < GAP_MAX, "told after {:?}", told_at - killed_at);
}

#[test]
fn a_name_server_that_takes_five_seconds() {
    const NAMES: usize = 100;
    let Some(names) = SlowNames::start() else { return };
    let mut group = Group::start(ServerKind::Redis, 2);
    let mut cluster = Cluster::plan(3);
    cluster.set_names(&names);
    let mut masters = vec![group.master.addr()];
    masters.extend((0..NAMES).map(|number| format!("master-{number}.redis.example:6379")));
    let cluster = start_guard_of(cluster, &group, &masters);
    let unresolved = || {
        let view = cluster.node(0).group(&masters[1])?;
        (view["instances"][0]["how"] == "unresolved").then_some(())
    };
    common::wait_until("a name is not resolved", PATIENCE, unresolved);
    is_replaced_at_once(&mut group, &cluster);
}

#[test]
fn five_hundred_instances_that_accept_and_never_answer() {
    let mute = Mute::start(500);
    let mut group = Group::start(ServerKind::Redis, 2);
    let mut masters = vec![group.master.addr()];
    masters.extend_from_slice(mute.addrs());
    let cluster = start_guard_of(Cluster::plan(3), &group, &masters);
    is_replaced_at_once(&mut group, &cluster);
}

#[test]
fn a_peer_that_accepts_and_never_answers() {
    let mut group = Group::start(ServerKind::Redis, 2);
    let mut cluster = start_guard(Cluster::plan(3), &group, &[]);
    let follower = cluster.follower();
    cluster.freeze(follower);
    is_replaced_at_once(&mut group, &cluster);
}

/// Three nodes that see every server of the group, and were given these masters too.
#[track_caller]
fn start_guard_of(mut cluster: Cluster, group: &Group, masters: &[String]) -> Cluster {
    cluster.set_for_all(&format!("-masters={}", masters.join(",")));
    cluster.start_all();
    cluster.wait_until_guarded(&group.master.addr(), &group.addrs());
    cluster.leader_of_all();
    group.wait_in_step();
    cluster
}
