//! One contract, whatever the nodes agree through: what was agreed is there for everyone and stays, one node leads at a
//! time, what a leader decided counts only while it leads, and a broker that is away is waited for.

mod common;

use std::time::Duration;

use serde_json::Value;

use common::child::cpu_time;
use common::http::Client;
use common::ports::Port;
use common::scenario::{failovers, guard_by_file, holds_for, wait_until_guarded};
use common::store::{on_each_broker, on_each_outer};
use common::together::{
    QUIET, assert_complete, assert_promoted_once, guard_by, holds_quiet, register, start_guard,
    wait_for_diagnosis_at, wait_until_settled,
};
use common::wire::Wire;
use common::{Agree, Cluster, Daemon, Group, PATIENCE, Server, ServerKind, Store, wait_until};

/// Longer than a session of the rig, and than any election.
const STOPPED: Duration = Duration::from_secs(4);
/// Ten times what a clean handover takes, and less than a session.
const HANDOVER_MAX: Duration = Duration::from_millis(1500);
/// What three nodes that wait for their broker may use of a processor, as a part of the time.
const WAITING_CPU_MAX: f64 = 0.25;

/// Addresses where nobody listens, held so that nobody does.
fn nobodies(count: usize) -> (Vec<Port>, Vec<String>) {
    let ports: Vec<Port> = (0..count).map(|_| Port::take()).collect();
    let addrs = ports.iter().map(|port| format!("127.0.0.1:{}", port.number())).collect();
    (ports, addrs)
}

/// Three nodes, of which each is a member that the leader reaches: one that came late is taken in first.
fn start_three(agree: Agree) -> Cluster {
    let mut cluster = Cluster::plan_by(agree, 3);
    cluster.start_all();
    let leader = cluster.leader_of_all();
    wait_until("everyone votes and is reached", PATIENCE, || {
        let members = cluster.members(leader);
        let is_whole = |member: &Value| member["role"] != "learner" && member["reachable"] == true;
        (members.len() == 3 && members.iter().all(is_whole)).then_some(())
    });
    cluster
}

fn wait_for_all_masters(cluster: &Cluster, addrs: &[&String]) {
    let addrs: Vec<&str> = addrs.iter().map(|addr| addr.as_str()).collect();
    cluster.wait_masters(&addrs, PATIENCE);
}

/// A 200 is an answer after the commit, whichever node was asked, and several at once end as if one had come after the
/// other. It outlasts the end of every node.
#[test]
fn what_was_agreed_is_read_on_every_node_and_stays() {
    on_each_broker(|agree| {
        let mut cluster = start_three(agree);
        let (_ports, addrs) = nobodies(9);
        std::thread::scope(|scope| {
            for (node, some) in addrs.chunks(3).enumerate() {
                let cluster = &cluster;
                scope.spawn(move || {
                    for addr in some {
                        register(cluster, node, addr);
                        let read = cluster.masters(node);
                        assert!(read.contains(addr), "a node reads what it has confirmed");
                    }
                });
            }
        });
        wait_for_all_masters(&cluster, &addrs.iter().collect::<Vec<_>>());
        let removed = cluster.node(2).delete(&format!("/master?masters={}", addrs[0]));
        assert_eq!(removed.status, 200, "{}", removed.body);
        assert!(!cluster.masters(2).contains(&addrs[0]));
        let replaced =
            cluster.node(1).put("/master", &format!("masters={},{}", addrs[1], addrs[2]));
        assert_eq!(replaced.status, 200, "{}", replaced.body);
        wait_for_all_masters(&cluster, &[&addrs[1], &addrs[2]]);

        for node in 0..3 {
            cluster.kill9(node);
        }
        for node in [2, 0, 1] {
            cluster.start(node);
        }
        wait_for_all_masters(&cluster, &[&addrs[1], &addrs[2]]);
        cluster.leader_of_all();
        register(&cluster, 0, &addrs[0]);
        wait_for_all_masters(&cluster, &[&addrs[0], &addrs[1], &addrs[2]]);
        let shown = cluster.node(1).get("/v1/cluster").json;
        assert_eq!(shown["broker"], agree.name(), "{shown:#}");
        assert_eq!(shown["members"].as_array().map(Vec::len), Some(3), "{shown:#}");
    });
}

/// A node without a broker agrees with itself, and remembers until it ends.
#[test]
fn a_node_that_is_alone_keeps_the_part_of_it_that_has_a_meaning() {
    let (_ports, addrs) = nobodies(2);
    let node = Daemon::start(&[]);
    for addr in &addrs {
        let answer = node.post("/master", &format!("masters={addr}"));
        assert_eq!(answer.status, 200, "{}", answer.body);
        assert!(node.get("/master").body.contains(addr));
    }
    let health = node.get("/v1/health").json;
    assert_eq!((&health["ok"], &health["broker"]), (&true.into(), &"none".into()), "{health:#}");
    assert_eq!(health["leader"], health["node"], "{health:#}");
}

/// Who stops cleanly hands over at once, who dies when its lease has ended; each leadership has a later token.
#[test]
fn leadership_is_handed_over_and_tokens_grow() {
    on_each_broker(|agree| {
        let mut cluster = start_three(agree);
        let term = |cluster: &Cluster, node: usize| {
            cluster.node(node).get("/v1/cluster").json["term"].as_u64().expect("it has terms")
        };
        let first = cluster.leader_of_all();
        let mut newest = term(&cluster, first);
        let stopped_at = common::now();
        assert!(cluster.stop(first).success());
        let second = cluster.leader();
        let taken_over = stopped_at.elapsed();
        assert!(taken_over < HANDOVER_MAX, "{agree:?}: {taken_over:?}");
        assert!(term(&cluster, second) > newest);
        newest = term(&cluster, second);
        cluster.start(first);
        cluster.leader_of_all();
        cluster.kill9(second);
        let third = cluster.leader();
        assert_ne!(third, second);
        assert!(term(&cluster, third) > newest);
        let (_ports, addrs) = nobodies(1);
        register(&cluster, third, &addrs[0]);
        cluster.start(second);
        wait_for_all_masters(&cluster, &[&addrs[0]]);
    });
}

/// A leader stands still with a request in its socket, and wakes when another one leads. Whatever it answers is true:
/// either it was done by the one that leads, or it was refused and is not done.
#[test]
fn a_leader_that_was_deposed_while_it_stood_still_writes_nothing() {
    on_each_broker(|agree| {
        let mut cluster = start_three(agree);
        let (_ports, addrs) = nobodies(2);
        let [asked, meanwhile] = [&addrs[0], &addrs[1]];
        let old = cluster.leader_of_all();
        let http = cluster.node(old).http();
        cluster.freeze(old);
        let path = format!("/master?masters={asked}");
        let waiting = std::thread::spawn(move || {
            Client::new(http).with_limit(PATIENCE).request("POST", &path, "").expect("an answer")
        });
        let heir = cluster.leader();
        assert_ne!(heir, old);
        register(&cluster, heir, meanwhile);
        cluster.thaw(old);
        let answer = waiting.join().expect("it was answered");
        match answer.status {
            200 => wait_for_all_masters(&cluster, &[asked, meanwhile]),
            503 => wait_for_all_masters(&cluster, &[meanwhile]),
            other => panic!("{agree:?}: {other} {}", answer.body),
        }
        let leader = cluster.leader_of_all();
        assert_ne!(leader, old, "{agree:?}: its leadership is over");
    });
}

/// A follower's session ends while it stands still. Awake it begins another one, and is told what it missed.
#[test]
fn a_follower_that_lost_its_session_comes_back() {
    on_each_broker(|agree| {
        let mut cluster = start_three(agree);
        let (_ports, addrs) = nobodies(2);
        let leader = cluster.leader_of_all();
        let follower = cluster.follower();
        cluster.freeze(follower);
        register(&cluster, leader, &addrs[0]);
        std::thread::sleep(STOPPED);
        cluster.thaw(follower);
        wait_for_all_masters(&cluster, &[&addrs[0]]);
        assert_eq!(cluster.leader_of_all(), leader);
        register(&cluster, follower, &addrs[1]);
        wait_for_all_masters(&cluster, &[&addrs[0], &addrs[1]]);
        wait_until("everyone is reached again", PATIENCE, || {
            let members = cluster.members(leader);
            let all = members.iter().all(|member| member["reachable"] == true);
            (members.len() == 3 && all).then_some(())
        });
    });
}

/// Without its broker nobody acts: reads are answered and marked, writes are refused and not kept for later, and a
/// master that dies meanwhile is replaced when the broker is back, once.
#[test]
fn a_broker_that_is_away_is_waited_for() {
    on_each_outer(|agree| {
        let mut store = Store::start(agree, 1);
        let mut group = Group::start(ServerKind::Redis, 1);
        let name = group.master.addr();
        let replica = group.replicas[0].addr();
        let cluster = start_guard(Cluster::plan_through(&store, 3), &group, &[]);
        let (_ports, addrs) = nobodies(1);

        store.kill9(0);
        for node in 0..3 {
            wait_for_diagnosis_at(&cluster, node, &name, "QuorumLost");
        }
        let before: Duration = (0..3).map(|node| cpu_time(cluster.node(node).pid())).sum();
        let began = common::now();
        group.master.kill9();
        for node in 0..3 {
            let node = cluster.node(node);
            let answer = node.post("/master", &format!("masters={}", addrs[0]));
            assert_eq!(answer.status, 503, "{}", answer.body);
            let health = node.get("/v1/health");
            assert_eq!((health.status, &health.json["leader"]), (503, &Value::Null));
            let said = health.json["problems"].to_string();
            assert!(said.contains(agree.name()), "{said}");
            wait_until("the group says why", PATIENCE, || {
                let view = node.group(&name)?;
                let reason = view["diagnosis"]["reason"].as_str()?.to_owned();
                reason.contains(agree.name()).then_some(())
            });
            let read = node.get("/v1/groups");
            assert!(read.json["stale_ms"].as_u64().is_some_and(|ms| ms > 500), "{}", read.body);
            assert_eq!(node.get("/master").body, name);
        }
        holds_quiet(&cluster, &name, &name, 0, 0);
        assert_eq!(group.replicas[0].role(), "slave");
        let after: Duration = (0..3).map(|node| cpu_time(cluster.node(node).pid())).sum();
        let part = (after - before).as_secs_f64() / began.elapsed().as_secs_f64();
        assert!(part < WAITING_CPU_MAX * 3.0, "{agree:?}: {part:.2} of a processor");

        store.restart(0);
        cluster.wait_masters(&[&replica], PATIENCE);
        let entry = cluster.wait_for_failover(&name);
        assert_complete(&entry, (&name, &replica, 1), "nobody");
        assert_promoted_once(&[&group.replicas[0]], &replica);
        cluster.leader_of_all();
        holds_quiet(&cluster, &name, &replica, 1, 1);
    });
}

/// The servers of the store come back within a session: nobody lost anything, and nobody else leads.
#[test]
fn a_broker_that_restarts_quickly_costs_nobody_its_place() {
    on_each_outer(|agree| {
        let mut store = Store::start(agree, 1);
        let mut cluster = Cluster::plan_through(&store, 3);
        // A busy machine takes its time to start a server.
        for long in ["-zk_session_timeout_ms=10000", "-etcd_lease_ttl_ms=10000"] {
            cluster.set_for_all(long);
        }
        cluster.start_all();
        let (_ports, addrs) = nobodies(2);
        register(&cluster, 1, &addrs[0]);
        let leader = cluster.leader_of_all();
        let term = cluster.node(leader).get("/v1/cluster").json["term"].clone();
        store.kill9(0);
        store.restart(0);
        register_when_led(&cluster, 2, &addrs[1]);
        wait_for_all_masters(&cluster, &[&addrs[0], &addrs[1]]);
        assert_eq!(cluster.leader_of_all(), leader, "{agree:?}");
        assert_eq!(cluster.node(leader).get("/v1/cluster").json["term"], term, "{agree:?}");
    });
}

/// Registers as soon as somebody leads, as clients do.
fn register_when_led(cluster: &Cluster, node: usize, master: &str) {
    wait_until("it is registered", PATIENCE, || {
        let answer = cluster.node(node).post("/master", &format!("masters={master}"));
        (answer.status == 200).then_some(())
    });
}

/// Of three servers one after the other is killed, and then hangs: nodes go to those that are left, and go on.
#[test]
fn an_ensemble_that_loses_one_server_goes_on() {
    on_each_outer(|agree| {
        let mut store = Store::start(agree, 3);
        let mut group = Group::start(ServerKind::Redis, 2);
        let name = group.master.addr();
        let cluster = start_guard(Cluster::plan_through(&store, 3), &group, &[]);
        let (_ports, addrs) = nobodies(6);
        let (killed, hung) = addrs.split_at(3);
        for (server, addr) in hung.iter().enumerate() {
            store.freeze(server);
            register_when_led(&cluster, server, addr);
            store.thaw(server);
        }
        cluster.leader_of_all();
        for (server, addr) in killed.iter().enumerate() {
            store.kill9(server);
            register_when_led(&cluster, server, addr);
            if server == 1 {
                group.master.kill9();
                let entry = cluster.wait_for_failover(&name);
                let new = entry["new_master"].as_str().expect("there is one").to_owned();
                assert_eq!((&entry["outcome"], &entry["epoch"]), (&"done".into(), &1.into()));
                let replicas: Vec<&Server> = group.replicas.iter().collect();
                assert_promoted_once(&replicas, &new);
            }
            store.restart(server);
        }
        cluster.leader_of_all();
        wait_until("every node has all of it", PATIENCE, || {
            (0..3)
                .all(|node| addrs.iter().all(|addr| cluster.masters(node).contains(addr)))
                .then_some(())
        });
        let replicas = group.replicas.iter().map(Server::times_promoted).sum::<usize>();
        assert_eq!(replicas, 1, "{agree:?}");
    });
}

/// The way from the leader to the store is cut, and no other: it goes on seeing the servers and the other nodes. It stops
/// to lead before another one begins, so that a master which dies then is replaced by one of them and not by both; and
/// it is told of that when it is back.
#[test]
fn a_leader_that_is_cut_off_from_the_store_stops_before_another_one_leads() {
    on_each_outer(|agree| {
        let store = Store::shared(agree);
        let mut group = Group::start(ServerKind::Redis, 2);
        let name = group.master.addr();
        let mut cluster = Cluster::plan_by(agree, 3);
        let wire = Wire::to(&store.addrs());
        cluster.set_for(0, &format!("-{}_addr={}", agree.name(), wire.addr()));
        let cluster = start_guard(cluster, &group, &[]);
        assert_eq!(cluster.leader_of_all(), 0, "it came first");

        wire.cut();
        let heir = wait_until("another one leads", PATIENCE, || {
            let heir = (1..3).find(|node| cluster.named_by(*node) == Some(*node));
            // Whoever begins to lead is looked at first: the old one must have ended before.
            let is_over = cluster.named_by(0) != Some(0);
            assert!(heir.is_none() || is_over, "{agree:?}: two nodes lead");
            heir
        });
        group.master.kill9();
        let entry = wait_until("the heir has replaced the master", PATIENCE, || {
            let newest = failovers(cluster.node(heir), &name).into_iter().next()?;
            (newest["outcome"] == "done").then_some(newest)
        });
        let new = entry["new_master"].as_str().expect("there is one").to_owned();
        assert_eq!((&entry["leader"], &entry["epoch"]), (&cluster.id(heir).into(), &1.into()));
        let cut_off = cluster.node(0);
        assert_eq!(cut_off.get("/master").body, name, "it shows what it knew");
        assert_eq!(cut_off.post("/master", "masters=127.0.0.1:1").status, 503);
        holds_for(QUIET, "it does nothing", || {
            let told = |server: &Server| server.times_promoted();
            group.replicas.iter().map(told).sum::<usize>() == 1
        });

        wire.mend();
        cluster.wait_masters(&[&new], PATIENCE);
        assert_eq!(cluster.leader_of_all(), heir);
        let replicas: Vec<&Server> = group.replicas.iter().collect();
        assert_promoted_once(&replicas, &new);
        holds_quiet(&cluster, &name, &new, 1, 1);
    });
}

/// A store in another town answers each question after 60 ms. Everything takes its time then, and nothing is left out: the
/// nodes hear of each other and of the group, and the leader's decisions are agreed.
#[test]
fn a_store_that_is_far_away_is_heard_all_the_same() {
    on_each_outer(|agree| {
        let store = Store::shared(agree);
        let mut group = Group::start(ServerKind::Redis, 1);
        let name = group.master.addr();
        let wire = Wire::taking(Duration::from_millis(30), &store.addrs());
        let mut cluster = Cluster::plan_by(agree, 3);
        cluster.set_for_all(&format!("-{}_addr={}", agree.name(), wire.addr()));
        let cluster = start_guard(cluster, &group, &[]);
        cluster.leader_of_all();
        group.master.kill9();
        let entry = cluster.wait_for_failover(&name);
        let new = group.replicas[0].addr();
        assert_eq!(
            (&entry["outcome"], &entry["new_master"]),
            (&"done".into(), &new.as_str().into())
        );
        cluster.wait_masters(&[&new], PATIENCE);
        assert_promoted_once(&[&group.replicas[0]], &new);
    });
}

/// Whoever is left of three leads in the store, because somebody has to, and is no majority all the same: the members
/// stay until they are taken out.
#[test]
fn two_dead_nodes_never_make_a_majority_of_the_third() {
    on_each_outer(|agree| {
        let mut group = Group::start(ServerKind::Redis, 1);
        let name = group.master.addr();
        let replica = group.replicas[0].addr();
        let mut cluster = guard_by(agree, &group, &[]);
        let leader = cluster.leader_of_all();
        let survivor = cluster.follower();
        let dead: Vec<usize> = (0..3).filter(|node| *node != survivor).collect();
        for node in &dead {
            cluster.kill9(*node);
        }
        wait_until("the survivor leads", PATIENCE, || {
            (cluster.named_by(survivor) == Some(survivor)).then_some(())
        });
        group.master.kill9();
        wait_for_diagnosis_at(&cluster, survivor, &name, "QuorumLost");
        holds_quiet(&cluster, &name, &name, 0, 0);
        assert_eq!(cluster.member_addrs(survivor).len(), 3, "{agree:?}");

        // One that is gone for ever is taken out, which leaves two of which one is there: still no majority.
        let gone = cluster.id(dead[0]).to_owned();
        let answer = cluster.node(survivor).delete(&format!("/v1/cluster/members/{gone}"));
        assert_eq!(answer.status, 200, "{}", answer.body);
        holds_for(QUIET, "one of two is no majority", || {
            failovers(cluster.node(survivor), &name).is_empty()
        });
        cluster.set_member(dead[0], false);
        cluster.start(dead[1]);
        let entry = cluster.wait_for_failover(&name);
        assert_complete(&entry, (&name, &replica, 1), "nobody");

        // It was taken out while it was dead; started again it takes its place again.
        cluster.set_member(dead[0], true);
        cluster.start(dead[0]);
        wait_until("it is a member again", PATIENCE, || {
            (cluster.member_addrs(survivor).len() == 3).then_some(())
        });
        // A member that is taken out while it runs stays out until somebody wants it.
        let out = cluster.id(dead[0]).to_owned();
        let asked = cluster.leader_of_all();
        let answer = cluster.node(asked).delete(&format!("/v1/cluster/members/{out}"));
        assert_eq!(answer.status, 200, "{}", answer.body);
        let health = wait_until("it says so itself", PATIENCE, || {
            let health = cluster.node(dead[0]).get("/v1/health").json;
            health["problems"].to_string().contains("is no member").then_some(health)
        });
        assert_eq!(health["ok"], true, "{health:#}");
        let body = format!(r#"{{"addr":"{out}"}}"#);
        let answer = cluster.node(asked).post("/v1/cluster/members", &body);
        assert_eq!(answer.status, 200, "{}", answer.body);
        assert_eq!(answer.json["members"].as_array().map(Vec::len), Some(3), "{}", answer.body);
        assert!(leader < 3);
    });
}

/// The original's command line: no address between the nodes is given, each takes a free port beside its HTTP, and they
/// find each other through the store and share a secret there.
#[test]
fn nodes_without_an_address_find_each_other_through_the_store() {
    on_each_outer(|agree| {
        let store = Store::shared(agree);
        let mut group = Group::start(ServerKind::Redis, 1);
        let name = group.master.addr();
        let (addrs, place) = (store.addrs(), Store::new_place());
        let (key, path) = match agree {
            Agree::Zk | Agree::Raft => ("zk_addr", "zk_path"),
            Agree::Etcd => ("etcd_addr", "etcd_prefix"),
        };
        let flags = [
            format!("-{key}={addrs}"),
            format!("-{path}={place}"),
            format!("-masters={name}"),
            "-check_interval=100".to_owned(),
        ];
        let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
        let nodes: Vec<Daemon> = (0..3).map(|_| Daemon::start(&flags)).collect();
        for node in &nodes {
            wait_until_guarded(node, &name, &group.addrs());
        }
        wait_until("three are members, and reached", PATIENCE, || {
            let members = nodes[0].get("/v1/cluster").json["members"].clone();
            let members = members.as_array()?;
            let reached =
                |member: &Value| member["http"].is_string() && member["reachable"] == true;
            (members.len() == 3 && members.iter().all(reached)).then_some(())
        });
        group.master.kill9();
        for node in &nodes {
            node.wait_for_master(&group.replicas[0].addr(), PATIENCE);
        }
    });
}

/// A file chooses the broker as flags do.
#[test]
fn a_file_chooses_the_store() {
    on_each_outer(|agree| {
        let store = Store::shared(agree);
        let place = Store::new_place();
        let table = match agree {
            Agree::Zk | Agree::Raft => {
                format!("[zk]\naddr = ['{}']\nbase_dir = '{place}'\n", store.addrs())
            }
            Agree::Etcd => {
                format!("[etcd]\naddr = ['http://{}']\nprefix = '{place}'\n", store.addrs())
            }
        };
        let node = guard_by_file(&table);
        wait_until("it leads", PATIENCE, || (node.get("/v1/health").status == 200).then_some(()));
        assert_eq!(node.get("/v1/health").json["broker"], agree.name());
    });
}

/// The history is the same on all nodes, whoever led when it was written, and no restart of anybody doubles it.
#[test]
fn history_is_one_for_all_and_nothing_is_in_it_twice() {
    on_each_outer(|agree| {
        let mut group = Group::start(ServerKind::Redis, 2);
        let name = group.master.addr();
        let mut cluster = guard_by(agree, &group, &[]);
        let mut master = name.clone();
        for count in 1..=2 {
            group.server_mut(&master).process().kill9();
            let entry = cluster.wait_for_failovers(&name, count);
            let new = entry["new_master"].as_str().expect("there is one").to_owned();
            group.server_mut(&master).restart();
            let all: Vec<&Server> = group.servers().collect();
            wait_until_settled(&cluster, &name, &all, &new);
            let leader = cluster.leader_of_all();
            cluster.kill9(leader);
            cluster.leader();
            cluster.start(leader);
            cluster.leader_of_all();
            master = new;
        }
        wait_until("all tell the same", PATIENCE, || {
            let mut told: Vec<Vec<Value>> =
                (0..3).map(|node| cluster.node(node).history(&name)).collect();
            told.dedup();
            (told.len() == 1).then_some(())
        });
        let mut ids: Vec<String> = cluster
            .node(0)
            .history(&name)
            .iter()
            .map(|entry| entry["id"].as_str().expect("an id").to_owned())
            .collect();
        let count = ids.len();
        ids.sort();
        ids.dedup();
        assert_eq!(ids.len(), count, "{agree:?}: {ids:?}");
        assert_eq!(failovers(cluster.node(0), &name).len(), 2, "{agree:?}");
    });
}
