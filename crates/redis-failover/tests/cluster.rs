//! Several nodes with one memory: how they come together, what they remember, and who may change it.

mod common;

use std::time::Duration;

use serde_json::Value;

use common::scenario::{holds, holds_for, wait_until_guarded};
use common::together::{guard, holds_quiet, register};
use common::{Cluster, Group, Options, PATIENCE, Server, ServerKind, wait_until};

/// Long after every election of a cluster that could elect somebody.
const NO_LEADER: Duration = Duration::from_secs(2);

fn masters(count: usize) -> Vec<Server> {
    (0..count).map(|_| Server::start(ServerKind::Redis, &Options::new())).collect()
}

/// The codes that mean: nothing was done, and nothing will be.
fn assert_refused(answer: &common::http::Response) {
    assert_eq!(answer.status, 503, "{}", answer.body);
    let code = answer.error_code().expect("an error has a code");
    assert!(["no_leader", "no_quorum"].contains(&code), "{}", answer.body);
}

/// The original's three commands are typed by hand or started by three machines that boot: in any
/// order and seconds apart. One of three decides nothing, because it cannot know of the others'
/// decisions; two are a majority and go on; the third is told what it missed.
#[test]
fn nodes_that_are_started_seconds_apart_form_a_cluster() {
    let server = &masters(1)[0];
    let mut cluster = Cluster::plan(3);
    cluster.start(2);
    holds_for(NO_LEADER, "one of three does not lead", || cluster.named_by(2).is_none());
    assert_refused(&cluster.node(2).post("/master", &format!("masters={}", server.addr())));
    assert_eq!(cluster.node(2).get("/master").body, "");
    assert_eq!(cluster.node(2).get("/v1/health").status, 503);

    cluster.start(0);
    let leader = cluster.leader();
    register(&cluster, leader, &server.addr());
    cluster.start(1);
    cluster.wait_masters(&[&server.addr()], PATIENCE);
    let leader = cluster.leader_of_all();
    let health = cluster.node(1).get("/v1/health");
    assert_eq!((health.status, &health.json["broker"]), (200, &"raft".into()), "{}", health.body);
    assert_eq!((&health.json["node"], &health.json["ok"]), (&cluster.id(1).into(), &true.into()));
    let shown = cluster.node(1).get("/v1/cluster").json;
    assert_eq!((&shown["broker"], &shown["node"]), (&"raft".into(), &cluster.id(1).into()));
    assert!(shown["term"].as_u64().is_some_and(|term| term > 0), "{shown:#}");
    let is_whole = |member: &Value| {
        let node = member["addr"].as_str().and_then(|addr| cluster.number_of(addr));
        let http = node.map(|node| cluster.node(node).http().to_string());
        member["log_index"].is_u64()
            && member["last_contact_ms"].is_u64()
            && member["reachable"] == true
            && member["http"].as_str() == http.as_deref()
    };
    wait_until("the leader reaches each member and says how far it is", PATIENCE, || {
        cluster.members(leader).iter().all(is_whole).then_some(())
    });
    let mut all: Vec<String> = (0..3).map(|node| cluster.id(node).to_owned()).collect();
    all.sort();
    for node in 0..3 {
        wait_until(&format!("node {node} shows each member once"), PATIENCE, || {
            (cluster.member_addrs(node) == all).then_some(())
        });
        let role = |wanted: &str| {
            let members = cluster.members(node);
            members.iter().filter(|member| member["role"] == wanted).count()
        };
        wait_until("it shows who leads and who follows", PATIENCE, || {
            (role("leader") == 1 && role("follower") == 2).then_some(())
        });
    }
}

/// A 200 is an answer after the commit: a majority has it on disk. So it is there at once for whoever
/// was answered, a moment later on all, and again after every one of them was killed; `masters` of
/// the command line is not given the second time, and the order of the starts does not matter.
#[test]
fn what_any_node_was_told_all_remember_also_after_all_were_killed() {
    let servers = masters(4);
    let addrs: Vec<String> = servers.iter().map(Server::addr).collect();
    let mut cluster = Cluster::plan(3);
    cluster.start_all();
    for (node, addr) in addrs[..3].iter().enumerate() {
        register(&cluster, node, addr);
        assert!(cluster.masters(node).contains(addr), "a node reads what it has confirmed");
    }
    let all: Vec<&str> = addrs[..3].iter().map(String::as_str).collect();
    cluster.wait_masters(&all, PATIENCE);
    let removed = cluster.node(cluster.follower()).delete(&format!("/master?masters={}", addrs[1]));
    assert_eq!(removed.status, 200, "{}", removed.body);
    cluster.wait_masters(&[&addrs[0], &addrs[2]], PATIENCE);

    for node in 0..3 {
        cluster.kill9(node);
    }
    for node in [1, 2, 0] {
        cluster.start(node);
    }
    cluster.wait_masters(&[&addrs[0], &addrs[2]], PATIENCE);
    cluster.leader_of_all();
    register(&cluster, 1, &addrs[3]);
    cluster.wait_masters(&[&addrs[0], &addrs[2], &addrs[3]], PATIENCE);
}

/// A write that no majority can confirm is refused and not kept for later, whether the one that was
/// left over led before or not: after the others are back, nothing has happened that was refused.
#[test]
fn without_a_leader_a_write_is_refused_and_never_done() {
    let servers = masters(2);
    let [kept, refused] = [0, 1].map(|at: usize| servers[at].addr());
    let mut cluster = Cluster::plan(3);
    cluster.start_all();
    register(&cluster, 0, &kept);
    cluster.wait_masters(&[&kept], PATIENCE);
    for survivor_leads in [true, false] {
        let leader = cluster.leader_of_all();
        let survivor = if survivor_leads { leader } else { cluster.follower() };
        let dead: Vec<usize> = (0..3).filter(|node| *node != survivor).collect();
        for node in &dead {
            cluster.kill9(*node);
        }
        wait_until("the survivor knows that it is alone", PATIENCE, || {
            cluster.named_by(survivor).is_none().then_some(())
        });
        let node = cluster.node(survivor);
        assert_refused(&node.post("/master", &format!("masters={refused}")));
        assert_refused(&node.delete(&format!("/master?masters={kept}")));
        assert_refused(&node.put("/master", &format!("masters={refused}")));
        assert_eq!(node.get("/master").body, kept, "reads are answered");
        let health = node.get("/v1/health");
        assert_eq!((health.status, &health.json["leader"]), (503, &Value::Null));

        for node in dead {
            cluster.start(node);
        }
        cluster.leader_of_all();
        cluster.wait_masters(&[&kept], PATIENCE);
        holds("what was refused is not done", || {
            (0..3).all(|node| cluster.masters(node) == [kept.as_str()])
        });
    }
}

/// With one address the node is its own majority. It remembers like three, also the failovers.
#[test]
fn one_address_is_a_single_node_that_remembers() {
    let mut group = Group::start(ServerKind::Redis, 1);
    let name = group.master.addr();
    let replica = group.replicas[0].addr();
    let mut cluster = Cluster::plan(1);
    cluster.start_all();
    register(&cluster, 0, &name);
    cluster.wait_until_guarded(&name, &group.addrs());
    cluster.kill9(0);
    cluster.start(0);
    cluster.wait_masters(&[&name], PATIENCE);
    cluster.wait_until_guarded(&name, &group.addrs());

    group.master.kill9();
    cluster.wait_masters(&[&replica], PATIENCE);
    let before = cluster.wait_for_failover(&name);
    assert_eq!((&before["outcome"], &before["epoch"]), (&"done".into(), &1.into()), "{before:#}");
    cluster.kill9(0);
    // Yesterday's command line does not undo it: the record knows this address.
    cluster.set_for_all(&format!("-masters={name}"));
    cluster.start(0);
    cluster.wait_masters(&[&replica], PATIENCE);
    assert_eq!(cluster.wait_for_failover(&name), before);
    holds_quiet(&cluster, &name, &replica, 1, 1);
}

/// `masters_state=new` makes the list of the command line the whole truth about *what* is guarded.
/// What is known *about* a group that stays is not in that list and is kept: its master, which is
/// another one since, the epoch, which must never be taken twice, and the history.
#[test]
fn masters_state_new_replaces_the_list_and_keeps_what_is_known_of_groups_that_stay() {
    let mut group = Group::start(ServerKind::Redis, 1);
    let name = group.master.addr();
    let replica = group.replicas[0].addr();
    let servers = masters(2);
    let [dropped, added] = [0, 1].map(|at: usize| servers[at].addr());
    let mut cluster = guard(&group, &[]);
    register(&cluster, 0, &dropped);
    group.master.kill9();
    cluster.wait_masters(&[&replica, &dropped], PATIENCE);
    let before = cluster.wait_for_failover(&name);
    group.master.restart();
    wait_until_guarded(cluster.node(0), &name, &group.addrs());

    for node in 0..3 {
        cluster.kill9(node);
    }
    cluster.set_for_all(&format!("-masters={name},{added}"));
    cluster.set_for_all("-masters_state=new");
    for node in 0..3 {
        cluster.start(node);
    }
    cluster.wait_masters(&[&replica, &added], PATIENCE);
    let after = cluster.wait_for_failover(&name);
    assert_eq!(after, before, "the history is kept");
    holds_quiet_of(&cluster, &name, &replica);
    let new = &group.replicas[0];
    new.wait_for_role("master");
    group.master.wait_for_link(new);

    // It is done once per start, and not again by whoever leads next.
    register(&cluster, 1, &dropped);
    let leader = cluster.leader();
    cluster.kill9(leader);
    cluster.leader_of_all();
    holds("what was added since stays", || {
        cluster.answering().into_iter().all(|node| cluster.masters(node).contains(&dropped))
    });
}

/// The group of a list of several stays as it is.
fn holds_quiet_of(cluster: &Cluster, name: &str, master: &str) {
    for node in cluster.answering() {
        let view = cluster.node(node).group(name).expect("it is kept");
        assert_eq!((&view["master"], &view["epoch"]), (&master.into(), &1.into()));
    }
    holds_quiet(cluster, name, master, 1, 1);
}

/// `existing`, the default, adds what is new in the list and leaves all else alone.
#[test]
fn masters_of_the_command_line_are_added_to_what_is_remembered() {
    let group = Group::start(ServerKind::Redis, 1);
    let servers = masters(2);
    let [first, second] = [0, 1].map(|at: usize| servers[at].addr());
    let mut cluster = guard(&group, &[]);
    register(&cluster, 2, &first);
    // Each node of a fleet may be given a list of its own while it is rolled over.
    cluster.set_for(1, &format!("-masters={second}"));
    cluster.stop(1);
    cluster.leader();
    cluster.start(1);
    let name = group.master.addr();
    cluster.wait_masters(&[&name, &first, &second], PATIENCE);
    wait_until_settled_among(&cluster, &name, &group);
}

fn wait_until_settled_among(cluster: &Cluster, name: &str, group: &Group) {
    assert_eq!(group.master.role(), "master");
    cluster.wait_until_guarded(name, &group.addrs());
    for node in cluster.answering() {
        assert_eq!(cluster.node(node).group(name).expect("it is guarded")["epoch"], 0);
    }
}
