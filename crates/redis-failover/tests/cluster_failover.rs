//! A master dies under the eyes of three nodes, alone or together with some of them.

mod common;

use std::io::Write as _;
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use common::child::{kill9_together, memory_kb};
use common::scenario::{assert_whole, failovers, holds_for};
use common::together::{
    BOTH_GAP_MAX, QUIET, assert_complete, assert_promoted_once, guard, guard_by, holds_quiet,
    wait_for_diagnosis_at, wait_until_settled,
};
use common::{Agree, Group, PATIENCE, Server, ServerKind, Told, Writer};

/// Far more than is promised, and less than any time-out: three stores and a promoted server that
/// writes its configuration share one disk here, which may take half a second for it.
const GAP_MAX: Duration = Duration::from_millis(900);
/// The same while strangers take part of the machine: an election may come between.
const FLOODED_GAP_MAX: Duration = Duration::from_secs(5);
/// A node tells of a new master a network's round trip and a look at the disk after the leader; ten
/// times what is promised would be 100 ms, and a busy disk adds to it.
const TOLD_AFTER_MAX: Duration = Duration::from_millis(500);

/// Three nodes that agree cost a round trip and a commit more than one, and every one of them tells
/// the same: who asks any of them must not be sent to the old master.
#[test]
fn a_killed_master_is_replaced_and_every_node_says_so() {
    common::scenario::on_each_kind(|kind| {
        let mut group = Group::start(kind, 2);
        let name = group.master.addr();
        let cluster = guard(&group, &[]);
        let mut writer = Writer::start(&group);
        let told: Vec<Told> = (0..3).map(|node| Told::start(cluster.node(node).http())).collect();

        let killed_at = group.master.kill9();
        let gap = writer.wait_for_gap(killed_at, &name, PATIENCE);
        assert!(gap.length < GAP_MAX, "{gap:?}");
        for told in &told {
            let told_at = told.wait_for(&gap.addr, killed_at, PATIENCE);
            let late = told_at.saturating_duration_since(gap.ended_at);
            assert!(late < TOLD_AFTER_MAX, "told {late:?} after the first write");
        }
        let entry = cluster.wait_for_failover(&name);
        assert_whole(&entry, (&name, &gap.addr, "MasterCrashed"), 1);
        assert_eq!(entry["epoch"], 1);
        let replicas: Vec<&Server> = group.replicas.iter().collect();
        wait_until_settled(&cluster, &name, &replicas, &gap.addr);
        writer.stop();
        assert_eq!(writer.two_masters(&name, &gap), Duration::ZERO);
        let leader = cluster.leader();
        assert_eq!(entry["leader"], cluster.id(leader), "{entry:#}");

        // It comes back as it was configured, and does no harm.
        group.master.restart();
        wait_until_settled(&cluster, &name, &group.servers().collect::<Vec<_>>(), &gap.addr);
        assert_promoted_once(&replicas, &gap.addr);
        holds_quiet(&cluster, &name, &gap.addr, 1, 1);
    });
}

/// The leader may have begun a failover before it died, or not; the record says which. Either way
/// the next leader has seen the master die by itself, knows the replicas from the record, and ends
/// with one failover, which names who took it over only if there was something to take over.
#[test]
fn a_leader_and_a_master_that_die_together_are_both_replaced() {
    common::store::on_each_broker(leader_and_master_die_together);
}

fn leader_and_master_die_together(agree: Agree) {
    let mut group = Group::start(ServerKind::Redis, 2);
    let name = group.master.addr();
    let mut cluster = guard_by(agree, &group, &[]);
    let mut old = name.clone();
    for (round, master_first) in (1..).zip([true, false]) {
        let leader = cluster.leader_of_all();
        let dead_id = cluster.id(leader).to_owned();
        let mut writer = Writer::start_on(group.servers());
        writer.wait_for_write(&old);
        let master = group.server_mut(&old).process();
        let node = cluster.node_mut(leader).process();
        let (killed_at, _) = if master_first {
            kill9_together(&mut [master, node])
        } else {
            kill9_together(&mut [node, master])
        };
        cluster.bury(leader);
        let gap = writer.wait_for_gap(killed_at, &old, BOTH_GAP_MAX);
        writer.stop();
        let entry = cluster.wait_for_failovers(&name, usize::try_from(round).expect("small"));
        assert_complete(&entry, (&old, &gap.addr, round), &dead_id);
        let alive: Vec<&Server> = group.servers().filter(|s| s.addr() != old).collect();
        wait_until_settled(&cluster, &name, &alive, &gap.addr);

        // Both come back, and are what is left to do by now: a follower and a replica.
        cluster.start(leader);
        group.server_mut(&old).restart();
        let all: Vec<&Server> = group.servers().collect();
        wait_until_settled(&cluster, &name, &all, &gap.addr);
        cluster.wait_for_failovers(&name, usize::try_from(round).expect("small"));
        group_in_step(&group, &gap.addr);
        old = gap.addr;
    }
    holds_quiet(&cluster, &name, &old, 2, 2);
}

/// Equal offsets everywhere, so that the next election has two candidates.
fn group_in_step(group: &Group, master: &str) {
    let master = group.server(master);
    master.cmd(&["SET", "rig:ready", "again"]);
    common::wait_until("all offsets are equal", PATIENCE, || {
        let offset = master.offset();
        group.servers().all(|server| server.offset() == offset).then_some(())
    });
}

/// One of three cannot tell whether it is the others that died or the way to them, and what they do
/// over there: it acts on nothing, says why, and goes on answering from what it knows.
#[test]
fn with_two_of_three_nodes_dead_nothing_is_done_until_one_is_back() {
    one_of_three_is_left(true);
}

#[test]
fn a_follower_that_is_left_alone_does_nothing_either() {
    one_of_three_is_left(false);
}

fn one_of_three_is_left(survivor_led: bool) {
    let mut group = Group::start(ServerKind::Redis, 1);
    let name = group.master.addr();
    let replica = group.replicas[0].addr();
    let mut cluster = guard(&group, &[]);
    let leader = cluster.leader_of_all();
    let survivor = if survivor_led { leader } else { cluster.follower() };
    let dead: Vec<usize> = (0..3).filter(|node| *node != survivor).collect();
    for node in &dead {
        cluster.kill9(*node);
    }
    group.master.kill9();
    wait_for_diagnosis_at(&cluster, survivor, &name, "QuorumLost");
    holds_quiet(&cluster, &name, &name, 0, 0);
    assert_eq!(group.replicas[0].role(), "slave");
    assert_eq!(cluster.node(survivor).get("/master").body, name, "reads are answered");
    let answer = cluster.node(survivor).get(&format!("/v1/groups/{name}"));
    assert_eq!((answer.status, &answer.json["leader"]), (200, &serde_json::Value::Null));
    assert!(answer.json["stale_ms"].as_u64().is_some_and(|ms| ms > 0), "{}", answer.body);
    let idle = &answer.json["group"]["diagnosis"]["not_acting_because"];
    assert!(idle.is_string(), "{}", answer.body);

    cluster.start(dead[0]);
    cluster.wait_masters(&[&replica], PATIENCE);
    let entry = cluster.wait_for_failover(&name);
    assert_eq!((&entry["outcome"], &entry["epoch"]), (&"done".into(), &1.into()), "{entry:#}");
    assert_promoted_once(&[&group.replicas[0]], &replica);
    cluster.start(dead[1]);
    cluster.wait_for_failover(&name);
    holds_quiet(&cluster, &name, &replica, 1, 1);
}

/// Nobody watched when the master died. The record knows the group and its replicas, and each node
/// sees for itself that nobody listens there and that the replicas' links are down.
#[test]
fn a_master_that_dies_while_all_nodes_are_dead_is_replaced_when_they_are_back() {
    let mut group = Group::start(ServerKind::Redis, 2);
    let name = group.master.addr();
    let mut cluster = guard(&group, &[]);
    cluster.unset("-masters");
    for node in 0..3 {
        cluster.kill9(node);
    }
    group.master.kill9();
    for node in 0..3 {
        cluster.start(node);
    }
    let entry = cluster.wait_for_failover(&name);
    let new = entry["new_master"].as_str().expect("there is one").to_owned();
    assert_complete(&entry, (&name, &new, 1), "nobody");
    let replicas: Vec<&Server> = group.replicas.iter().collect();
    wait_until_settled(&cluster, &name, &replicas, &new);
    assert_promoted_once(&replicas, &new);
}

/// A quorum of all asks for more than a majority: with one node missing, nothing is done.
#[test]
fn a_quorum_of_three_needs_three() {
    let mut group = Group::start(ServerKind::Redis, 1);
    let name = group.master.addr();
    let replica = group.replicas[0].addr();
    let mut cluster = guard(&group, &["-quorum=3"]);
    let dead = cluster.follower();
    cluster.kill9(dead);
    group.master.kill9();
    holds_for(QUIET, "two of three do not suffice", || {
        cluster.answering().into_iter().all(|node| {
            cluster.masters(node) == [name.as_str()]
                && failovers(cluster.node(node), &name).is_empty()
        })
    });
    cluster.node(cluster.leader()).wait_for(&name, PATIENCE, |view| {
        let diagnosis = &view["diagnosis"];
        let why = format!("{} {}", diagnosis["reason"], diagnosis["not_acting_because"]);
        why.contains("3 are needed")
    });
    cluster.start(dead);
    cluster.wait_masters(&[&replica], PATIENCE);
    let entry = cluster.wait_for_failover(&name);
    assert_eq!(entry["outcome"], "done", "{entry:#}");
}

/// The port between the nodes is open to whoever reaches it. What strangers say there, and however
/// much of it, is not a word of the cluster: it costs them their connection, and nobody else anything.
#[test]
fn strangers_at_the_port_between_the_nodes_disturb_nothing() {
    let mut group = Group::start(ServerKind::Redis, 1);
    let name = group.master.addr();
    let replica = group.replicas[0].addr();
    let cluster = guard(&group, &[]);
    let flood = Flood::start((0..3).map(|node| cluster.id(node).to_owned()));
    holds_quiet(&cluster, &name, &name, 0, 0);
    let writer = Writer::start(&group);
    let killed_at = group.master.kill9();
    let gap = writer.wait_for_gap(killed_at, &name, PATIENCE);
    assert!(gap.length < FLOODED_GAP_MAX, "{gap:?}");
    drop(flood);
    let entry = cluster.wait_for_failover(&name);
    assert_complete(&entry, (&name, &replica, 1), "nobody");
    for node in 0..3 {
        let (_, highest_kb) = memory_kb(cluster.node(node).pid());
        assert!(highest_kb < 100 * 1024, "{highest_kb} kB");
    }
}

/// Strangers who talk until the value is dropped.
struct Flood {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Flood {
    fn start(addrs: impl Iterator<Item = String>) -> Self {
        let talks: [&'static [u8]; 4] =
            [&[0xff; 4096], b"GET / HTTP/1.1\r\nhost: x\r\n\r\n", &[0; 64], b""];
        let stop = Arc::new(AtomicBool::new(false));
        let mut threads = Vec::new();
        for addr in addrs {
            for talk in talks {
                let (addr, stop) = (addr.clone(), Arc::clone(&stop));
                threads.push(std::thread::spawn(move || shout(&addr, talk, &stop)));
            }
        }
        Self { stop, threads }
    }
}

impl Drop for Flood {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            // Its panic was printed when it happened.
            let _ = thread.join();
        }
    }
}

/// Connects again and again, and says the same for as long as it is listened to: hundreds of times in a
/// second, which is not all that the machine can bear.
fn shout(addr: &str, talk: &[u8], stop: &AtomicBool) {
    while !stop.load(Ordering::Relaxed) {
        std::thread::sleep(Duration::from_millis(5));
        let Ok(mut stream) = TcpStream::connect(addr) else { continue };
        let mut said = stream.set_write_timeout(Some(Duration::from_millis(100)));
        while said.is_ok() && !stop.load(Ordering::Relaxed) {
            said = stream.write_all(talk);
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}
