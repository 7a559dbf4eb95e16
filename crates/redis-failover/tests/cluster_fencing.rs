//! Fencing by three nodes: what one leader decided, the next one carries out, and one node's word opens nobody.

mod common;

use std::time::Duration;

use common::scenario::{holds_for, wait_for_entry};
use common::together::{guard, start_guard, wait_until_settled};
use common::{
    Cluster, Group, Network, Options, PATIENCE, Server, ServerKind, Writer, now, wait_until,
};

const ON: [&str; 2] = ["-fencing=min-replicas", "-max_down_time=1"];
const MAX_LAG: Duration = Duration::from_secs(2);
/// A server looks at its replicas once a second and counts in whole seconds; the rest is for a machine that does much
/// else.
const COUNTING: Duration = Duration::from_millis(2500);
/// Far longer than a master that is cut off takes writes.
const CUT: Duration = Duration::from_secs(20);

fn to_write(server: &Server) -> String {
    let reply = server.try_cmd(&["CONFIG", "GET", "min-replicas-to-write"]).unwrap_or_default();
    reply.lines().nth(1).unwrap_or_default().to_owned()
}

#[track_caller]
fn wait_for_setting<'a>(servers: impl Iterator<Item = &'a Server>, wanted: &str) {
    for server in servers {
        let what = format!("min-replicas-to-write of {} is {wanted}", server.addr());
        wait_until(&what, PATIENCE, || (to_write(server) == wanted).then_some(()));
    }
}

/// The setting is in the file, so that it outlasts the server's restart.
#[track_caller]
fn wait_until_fenced(group: &Group) {
    wait_for_setting(group.servers(), "1");
    wait_until("it is in every file", PATIENCE, || {
        let written = |server: &Server| server.config_text().contains("min-replicas-to-write 1");
        group.servers().all(written).then_some(())
    });
}

/// The leader dies with the master, and the next one with the failover; the old master takes no write all the same.
#[test]
fn a_fence_outlasts_the_leaders_that_set_it() {
    let mut group = Group::start(ServerKind::Redis, 2);
    let name = group.master.addr();
    let mut cluster = guard(&group, &ON);
    wait_until_fenced(&group);
    let mut writer = Writer::start(&group);
    let leader = cluster.leader();
    cluster.kill9(leader);
    let killed_at = group.master.kill9();
    let gap = writer.wait_for_gap(killed_at, &name, PATIENCE);
    cluster.start(leader);
    let restarted_at = now();
    group.master.restart();
    wait_until_settled(&cluster, &name, &group.servers().collect::<Vec<_>>(), &gap.addr);
    wait_until_fenced(&group);
    writer.stop();
    assert_eq!(writer.acknowledged_after(&name, killed_at).len(), 0);
    assert!(!writer.acknowledged_after(&gap.addr, restarted_at).is_empty());

    // Whoever leads knows what it was before.
    let leader = cluster.leader();
    cluster.kill9(leader);
    let survivor = (leader + 1) % 3;
    cluster.leader_of_all();
    let answer = cluster.node(survivor).delete(&format!("/master?masters={name}"));
    assert_eq!(answer.status, 200, "{}", answer.body);
    wait_for_setting(group.servers(), "0");
    wait_until("nobody guards it", PATIENCE, || {
        cluster
            .answering()
            .into_iter()
            .all(|node| cluster.node(node).get("/master").body.is_empty())
            .then_some(())
    });
}

/// The one replica is lost while its leader is: the next one opens the master, and closes it again.
#[test]
fn the_next_leader_opens_a_master_whose_last_replica_is_lost() {
    let mut group = Group::start(ServerKind::Redis, 1);
    let name = group.master.addr();
    let mut cluster = guard(&group, &ON);
    wait_until_fenced(&group);
    let mut writer = Writer::start(&group);
    group.replicas[0].kill9();
    let leader = cluster.leader();
    cluster.kill9(leader);
    wait_for_setting([&group.master].into_iter(), "0");
    writer.wait_for_write(&name);
    let heir = cluster.leader_of_all();
    let lowered = wait_for_entry(cluster.node(heir), &name, ("repair", &name, "done"));
    assert!(
        lowered["reason"].as_str().is_some_and(|why| why.contains("lowered to 0")),
        "{lowered}"
    );
    group.replicas[0].restart();
    wait_for_setting(group.servers(), "1");
    holds_for(Duration::from_millis(500), "one entry for each", || {
        let history = cluster.node(heir).history(&name);
        history.iter().filter(|entry| entry["kind"] == "repair").count() <= 2
    });
    writer.stop();
}

/// Cut off from the program and from its replicas, and not from its clients, a master stops by itself; and when it is
/// back it takes no write before it is a replica.
#[test]
fn a_master_that_is_cut_off_stops_by_itself_and_does_not_begin_again() {
    let Some(network) = Network::start(4) else { return };
    let on = |host| Options::new().on(host).set("repl-ping-replica-period", "1");
    let servers: Vec<Options> = network.hosts()[1..].iter().map(on).collect();
    let group = Group::start_each(ServerKind::Redis, &servers[0], &servers[1..]);
    let name = group.master.addr();
    let cluster = start_guard(Cluster::plan_on(&network.hosts()[..1]), &group, &ON);
    wait_until_fenced(&group);
    let mut writer = Writer::start(&group);
    let others = [0, 2, 3].map(|host| network.host(host));
    let cut_at = now();
    network.split(&[network.host(1)], &others);
    let gap = writer.wait_for_gap(cut_at, &name, PATIENCE);
    std::thread::sleep(CUT.saturating_sub(cut_at.elapsed()));
    network.join(&[network.host(1)], &others);
    wait_until_settled(&cluster, &name, &group.servers().collect::<Vec<_>>(), &gap.addr);
    writer.stop();
    let late = writer.acknowledged_after(&name, cut_at + MAX_LAG + COUNTING);
    assert_eq!(
        late.len(),
        0,
        "the last one {:?} after the cut",
        late.last().map(|w| w.sent_at - cut_at)
    );
    assert!(!writer.acknowledged_after(&gap.addr, cut_at).is_empty());
}
