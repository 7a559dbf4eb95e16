//! Networks that come apart, for real: every node and every server on a host of its own, and packets
//! that are thrown away between any two of them.
//!
//! From inside a cut looks like silence, never like a refusal. So every cause here is `unreachable`
//! or `silent`, and each needs `max_down_time` (1 s) and the agreement of a majority.

mod common;

use std::time::Duration;

use serde_json::Value;

use common::daemon::instance;
use common::netns::Host;
use common::scenario::{failovers, holds_for, times_told, wait_until_guarded};
use common::together::{
    assert_promoted_once, holds_quiet, holds_quiet_for, register, start_guard,
    wait_for_diagnosis_at, wait_until_settled,
};
use common::wire::Wire;
use common::{
    Agree, Cluster, Group, Network, Options, PATIENCE, Server, ServerKind, Store, Writer,
    wait_until,
};

/// Much longer than `max_down_time`, an election and a failover together.
const CUT: Duration = Duration::from_secs(3);

/// Longer than a replica's last news of an idle master counts: the period of its pings, here a second,
/// two seconds more, and `max_down_time`.
const NO_NEWS: Duration = Duration::from_secs(6);

/// The hosts of a network: first the nodes', then the master's, then the replicas'.
struct Stage {
    // Dropped in this order: what runs in the network before the network.
    cluster: Cluster,
    group: Group,
    network: Network,
    nodes: usize,
    name: String,
    /// The nodes' way to a store outside.
    _wire: Option<Wire>,
}

impl Stage {
    /// `None` where there are no networks.
    fn set(nodes: usize, replicas: usize) -> Option<Self> {
        Self::set_by(Agree::Raft, nodes, replicas)
    }

    fn set_by(agree: Agree, nodes: usize, replicas: usize) -> Option<Self> {
        let network = Network::start(nodes + 1 + replicas)?;
        // A master that has nothing to tell pings its replicas each second, so that their silence
        // says something within the time of a test.
        let on = |host: &Host| Options::new().on(host).set("repl-ping-replica-period", "1");
        let servers: Vec<Options> = network.hosts()[nodes..].iter().map(on).collect();
        let group = Group::start_each(ServerKind::Redis, &servers[0], &servers[1..]);
        let name = group.master.addr();
        let hosts = &network.hosts()[..nodes];
        let wire = (agree != Agree::Raft)
            .then(|| Wire::from(&network.ours(), &Store::shared(agree).addrs()));
        let cluster = match &wire {
            Some(wire) => Cluster::plan_on_through(hosts, agree, &wire.addr()),
            None => Cluster::plan_on(hosts),
        };
        let cluster = start_guard(cluster, &group, &[]);
        cluster.leader_of_all();
        Some(Self { cluster, group, network, nodes, name, _wire: wire })
    }

    fn node_host(&self, node: usize) -> &Host {
        self.network.host(node)
    }

    fn node_hosts(&self, nodes: &[usize]) -> Vec<&Host> {
        nodes.iter().map(|node| self.node_host(*node)).collect()
    }

    fn master_host(&self) -> &Host {
        self.network.host(self.nodes)
    }

    fn replica_host(&self, replica: usize) -> &Host {
        self.network.host(self.nodes + 1 + replica)
    }

    /// All nodes but these.
    fn others(&self, than: &[usize]) -> Vec<usize> {
        (0..self.nodes).filter(|node| !than.contains(node)).collect()
    }

    fn replicas(&self) -> Vec<&Server> {
        self.group.replicas.iter().collect()
    }

    /// What one node shows of the group.
    fn view(&self, node: usize) -> Value {
        self.cluster.node(node).group(&self.name).expect("a group stays")
    }

    /// Waits until one node sees an instance in this state.
    fn wait_for_state(&self, node: usize, addr: &str, state: &str) {
        wait_until(&format!("node {node} sees {addr} {state}"), PATIENCE, || {
            (instance(&self.view(node), addr)?["state"] == state).then_some(())
        });
    }

    /// Waits until the nodes of one side agree on a leader among themselves.
    fn wait_for_leader_among(&self, nodes: &[usize]) -> usize {
        wait_until("one side agrees on a leader", PATIENCE, || {
            let leader = self.cluster.named_by(nodes[0])?;
            let all = nodes.iter().all(|node| self.cluster.named_by(*node) == Some(leader));
            (all && nodes.contains(&leader)).then_some(leader)
        })
    }

    /// Waits until these nodes know that they are too few to have a leader.
    fn wait_until_leaderless(&self, nodes: &[usize]) {
        for node in nodes {
            let what = format!("node {node} knows that it is cut off");
            wait_until(&what, PATIENCE, || self.cluster.named_by(*node).is_none().then_some(()));
        }
    }

    /// Whether this node marks what it shows as old, or of unknown age.
    fn is_stale(&self, node: usize) -> bool {
        let answer = self.cluster.node(node).get("/v1/groups").json;
        answer["stale_ms"].as_u64().is_none_or(|ms| ms > 1000)
    }

    /// The master of one side's record, once its failover has ended.
    fn wait_for_failover_at(&self, node: usize) -> Value {
        wait_until("the failover has ended", PATIENCE, || {
            let newest = failovers(self.cluster.node(node), &self.name).into_iter().next()?;
            (newest["outcome"] != "running").then_some(newest)
        })
    }
}

/// Who cannot confirm its leadership may have been replaced already, and has been: so it acts on
/// nothing, although it sees the master die as well as the others. The group itself is whole at
/// first, and nothing is done to it by anybody.
#[test]
fn a_leader_that_is_cut_from_its_peers_but_not_from_redis_acts_on_nothing() {
    let Some(mut stage) = Stage::set(3, 2) else { return };
    let old = stage.cluster.leader();
    let others = stage.others(&[old]);
    stage.network.split(&[stage.node_host(old)], &stage.node_hosts(&others));
    stage.wait_for_leader_among(&others);
    stage.wait_until_leaderless(&[old]);
    holds_quiet(&stage.cluster, &stage.name, &stage.name, 0, 0);
    let refused = stage.cluster.node(old).post("/master", "masters=127.0.0.1:1");
    assert_eq!(refused.status, 503, "{}", refused.body);
    wait_for_diagnosis_at(&stage.cluster, old, &stage.name, "QuorumLost");

    stage.group.master.kill9();
    let entry = stage.wait_for_failover_at(others[0]);
    let new = entry["new_master"].as_str().expect("there is one").to_owned();
    assert_eq!((&entry["outcome"], &entry["epoch"]), (&"done".into(), &1.into()), "{entry:#}");
    assert_ne!(entry["leader"], stage.cluster.id(old), "{entry:#}");
    let told: Vec<u64> = stage.replicas().into_iter().map(times_told).collect();
    holds_for(CUT, "the cut off one tells nobody anything and knows nothing new", || {
        stage.replicas().iter().zip(&told).all(|(replica, told)| times_told(replica) == *told)
            && stage.cluster.masters(old) == [stage.name.as_str()]
    });
    assert!(stage.is_stale(old));

    stage.network.join(&[stage.node_host(old)], &stage.node_hosts(&others));
    stage.cluster.wait_for_failover(&stage.name);
    wait_until_settled(&stage.cluster, &stage.name, &stage.replicas(), &new);
    assert_promoted_once(&stage.replicas(), &new);
    holds_quiet(&stage.cluster, &stage.name, &new, 1, 1);
}

/// It hears the others and is not heard: its followers miss it and elect another, and what it sends
/// does not count, because no acknowledgement of it ever comes.
#[test]
fn a_leader_that_hears_and_is_not_heard_is_replaced() {
    let Some(stage) = Stage::set(3, 1) else { return };
    let old = stage.cluster.leader();
    let others = stage.others(&[old]);
    for other in stage.node_hosts(&others) {
        stage.network.cut_one_way(stage.node_host(old), other);
    }
    stage.wait_for_leader_among(&others);
    // It may have heard who leads now, and cannot reach that one any more than the other.
    wait_until("it does not lead", PATIENCE, || {
        (stage.cluster.named_by(old) != Some(old)).then_some(())
    });
    let refused = stage.cluster.node(old).post("/master", &format!("masters={}", stage.name));
    assert!([503, 504].contains(&refused.status), "{}", refused.body);
    holds_quiet(&stage.cluster, &stage.name, &stage.name, 0, 0);
    for other in stage.node_hosts(&others) {
        stage.network.heal_one_way(stage.node_host(old), other);
    }
    stage.cluster.leader_of_all();
    holds_quiet(&stage.cluster, &stage.name, &stage.name, 0, 0);
    wait_until_settled(
        &stage.cluster,
        &stage.name,
        &stage.group.servers().collect::<Vec<_>>(),
        &stage.name,
    );
}

/// One of three sees nothing of the master, and be it the leader: two voters see it well, so nothing
/// is dead but a cable. The blind one asks, is told, and does nothing.
#[test]
fn a_master_that_one_node_does_not_reach_stays_master() {
    let Some(stage) = Stage::set(3, 1) else { return };
    let leader = stage.cluster.leader();
    let follower = stage.others(&[leader])[0];
    for blind in [follower, leader] {
        stage.network.cut(stage.node_host(blind), stage.master_host());
        stage.wait_for_state(blind, &stage.name, "down");
        holds_quiet_for(CUT, &stage.cluster, &stage.name, &stage.name, 0, 0);
        assert_eq!(stage.cluster.leader(), leader, "the nodes reach each other");
        let diagnosis = stage.view(leader)["diagnosis"].clone();
        assert_ne!(diagnosis["name"], "QuorumLost", "{diagnosis:#}");
        stage.network.heal(stage.node_host(blind), stage.master_host());
        stage.wait_for_state(blind, &stage.name, "up");
    }
    assert_eq!(times_told(&stage.group.replicas[0]), 0);
    wait_for_diagnosis_at(&stage.cluster, leader, &stage.name, "Healthy");
}

/// The leader does not reach the master, and its replica does not, either: nobody on this side has
/// news of it, so no veto holds the leader back. But the two other voters reach the master, and so do
/// clients: it is not dead for the majority, and the way to it is what is broken.
#[test]
fn a_master_that_the_leader_and_the_replica_miss_stays_master() {
    let Some(stage) = Stage::set(3, 1) else { return };
    let leader = stage.cluster.leader();
    let blind = [stage.node_host(leader), stage.replica_host(0)];
    stage.network.split(&blind, &[stage.master_host()]);
    stage.wait_for_state(leader, &stage.name, "down");
    holds_quiet_for(NO_NEWS, &stage.cluster, &stage.name, &stage.name, 0, 0);
    assert_eq!(times_told(&stage.group.replicas[0]), 0);
    assert_eq!(stage.cluster.leader(), leader, "the nodes reach each other");
    stage.network.join(&blind, &[stage.master_host()]);
    stage.wait_for_state(leader, &stage.name, "up");
    stage.group.replicas[0].wait_for_link(&stage.group.master);
    wait_for_diagnosis_at(&stage.cluster, leader, &stage.name, "Healthy");
}

/// A follower saw the master silent when it was stopped. Since then the way to the master is whole
/// again for it, and gone for the leader and the replica: its old word and the leader's would be a
/// majority, nobody's news would speak against it, and the master has never been down for two of three
/// at the same time.
#[test]
fn a_follower_does_not_testify_with_what_it_saw_before_it_was_stopped() {
    let Some(mut stage) = Stage::set(3, 1) else { return };
    let leader = stage.cluster.leader();
    let follower = stage.others(&[leader])[0];
    let master = stage.name.clone();
    stage.network.cut(stage.node_host(follower), stage.master_host());
    stage.wait_for_state(follower, &master, "down");
    stage.cluster.freeze(follower);
    stage.network.heal(stage.node_host(follower), stage.master_host());
    let blind = [stage.node_host(leader), stage.replica_host(0)];
    stage.network.split(&blind, &[stage.master_host()]);
    stage.wait_for_state(leader, &master, "down");
    holds_quiet_for(NO_NEWS, &stage.cluster, &master, &master, 0, 0);
    stage.cluster.thaw(follower);
    holds_quiet_for(CUT, &stage.cluster, &master, &master, 0, 0);
    assert_eq!(times_told(&stage.group.replicas[0]), 0);
    let blind = [stage.node_host(leader), stage.replica_host(0)];
    stage.network.join(&blind, &[stage.master_host()]);
    stage.wait_for_state(leader, &master, "up");
    wait_for_diagnosis_at(&stage.cluster, stage.cluster.leader(), &master, "Healthy");
}

/// All nodes are on the wrong side: clients and replicas reach the master, which goes on taking
/// writes. A replica that hears from it has a veto, so nobody makes a second master; the diagnosis
/// says what is the matter. When it dies behind the cut, the replicas' links end: there is no news
/// any more, and nothing is left to wait for.
#[test]
fn a_master_that_only_its_replicas_reach_stays_master_until_they_miss_it_too() {
    let Some(mut stage) = Stage::set(3, 2) else { return };
    let nodes = stage.node_hosts(&[0, 1, 2]);
    stage.network.split(&nodes, &[stage.master_host()]);
    let leader = stage.cluster.leader();
    wait_for_diagnosis_at(&stage.cluster, leader, &stage.name, "MasterUnreachableFromHere");
    let idle = stage.view(leader)["diagnosis"]["not_acting_because"].clone();
    assert!(idle.is_string(), "{idle}");
    holds_quiet_for(CUT, &stage.cluster, &stage.name, &stage.name, 0, 0);
    let mut writer = Writer::start(&stage.group);

    let killed_at = stage.group.master.kill9();
    let gap = writer.wait_for_gap(killed_at, &stage.name, PATIENCE);
    writer.stop();
    let entry = stage.cluster.wait_for_failover(&stage.name);
    assert_eq!((&entry["outcome"], &entry["epoch"]), (&"done".into(), &1.into()), "{entry:#}");
    assert_eq!(entry["new_master"], gap.addr, "{entry:#}");
    wait_until_settled(&stage.cluster, &stage.name, &stage.replicas(), &gap.addr);
    assert_promoted_once(&stage.replicas(), &gap.addr);

    // It is started again behind the cut, and demoted as soon as somebody reaches it.
    stage.group.master.restart();
    stage.network.join(&stage.node_hosts(&[0, 1, 2]), &[stage.master_host()]);
    let all: Vec<&Server> = stage.group.servers().collect();
    wait_until_settled(&stage.cluster, &stage.name, &all, &gap.addr);
    holds_quiet(&stage.cluster, &stage.name, &gap.addr, 1, 1);
}

/// A replica that nobody reaches is not needed for anything: the master is well, so nothing is
/// decided. A failover happens without it, and it is told of the new master when it is seen again.
#[test]
fn a_replica_that_is_cut_off_comes_back() {
    let Some(mut stage) = Stage::set(3, 2) else { return };
    let cut = stage.group.replicas[0].addr();
    let everybody = |stage: &Stage, act: fn(&Network, &[&Host], &[&Host])| {
        let mut rest = stage.node_hosts(&[0, 1, 2]);
        rest.extend([stage.master_host(), stage.replica_host(1)]);
        act(&stage.network, &[stage.replica_host(0)], &rest);
    };
    everybody(&stage, Network::split);
    let leader = stage.cluster.leader();
    stage.wait_for_state(leader, &cut, "down");
    holds_quiet_for(CUT, &stage.cluster, &stage.name, &stage.name, 0, 0);
    everybody(&stage, Network::join);
    let addrs = stage.group.addrs();
    wait_until_guarded(stage.cluster.node(leader), &stage.name, &addrs);
    wait_for_diagnosis_at(&stage.cluster, leader, &stage.name, "Healthy");
    assert_eq!(times_told(&stage.group.replicas[0]), 0);

    stage.group.bring_in_step();
    everybody(&stage, Network::split);
    stage.wait_for_state(leader, &cut, "down");
    stage.group.master.kill9();
    let new = stage.group.replicas[1].addr();
    stage.cluster.wait_masters(&[&new], PATIENCE);
    stage.group.replicas[1].wait_for_role("master");
    everybody(&stage, Network::join);
    wait_until_settled(&stage.cluster, &stage.name, &stage.replicas(), &new);
    assert_promoted_once(&stage.replicas(), &new);
    stage.cluster.wait_for_failover(&stage.name);
    holds_quiet(&stage.cluster, &stage.name, &new, 1, 1);
}

/// The only candidate is on a host that the leader does not reach, and its peers do. It goes by what
/// they see, and sends the command through one of them, which checks the term against its own.
#[test]
fn a_leader_that_does_not_reach_the_candidate_promotes_it_through_a_peer() {
    common::store::on_each_broker(promotes_through_a_peer);
}

fn promotes_through_a_peer(agree: Agree) {
    let Some(mut stage) = Stage::set_by(agree, 3, 1) else { return };
    let leader = stage.cluster.leader();
    let candidate = stage.group.replicas[0].addr();
    stage.network.cut(stage.node_host(leader), stage.replica_host(0));
    stage.wait_for_state(leader, &candidate, "down");
    stage.group.master.kill9();
    stage.cluster.wait_masters(&[&candidate], PATIENCE);
    stage.group.replicas[0].wait_for_role("master");
    assert_promoted_once(&stage.replicas(), &candidate);
    stage.network.heal(stage.node_host(leader), stage.replica_host(0));
    let entry = stage.cluster.wait_for_failover(&stage.name);
    assert_eq!((&entry["outcome"], &entry["epoch"]), (&"done".into(), &1.into()), "{entry:#}");
    wait_until_settled(&stage.cluster, &stage.name, &stage.replicas(), &candidate);
    holds_quiet(&stage.cluster, &stage.name, &candidate, 1, 1);
}

/// Three of five are a majority and two are not, whoever led before. The master dies with everybody
/// watching: only one side may replace it, or there would be two masters.
#[test]
fn of_two_halves_of_five_nodes_only_the_larger_one_acts() {
    for leader_is_with_the_larger in [true, false] {
        let Some(mut stage) = Stage::set(5, 2) else { return };
        let leader = stage.cluster.leader();
        let rest = stage.others(&[leader]);
        let smaller =
            if leader_is_with_the_larger { vec![rest[0], rest[1]] } else { vec![leader, rest[0]] };
        let larger = stage.others(&smaller);
        stage.network.split(&stage.node_hosts(&smaller), &stage.node_hosts(&larger));
        let heir = stage.wait_for_leader_among(&larger);
        assert_eq!(heir == leader, leader_is_with_the_larger, "a leader that is heard stays");
        for node in &smaller {
            // A follower may go on hearing the old leader, and neither can know what is going on over
            // there; it must say so.
            wait_until(&format!("node {node} says that it is behind"), PATIENCE, || {
                stage.is_stale(*node).then_some(())
            });
            let refused = stage.cluster.node(*node).post("/master", "masters=127.0.0.1:1");
            assert_eq!(refused.status, 503, "{}", refused.body);
        }
        holds_quiet(&stage.cluster, &stage.name, &stage.name, 0, 0);

        stage.group.master.kill9();
        let entry = stage.wait_for_failover_at(heir);
        let new = entry["new_master"].as_str().expect("there is one").to_owned();
        assert_eq!((&entry["outcome"], &entry["epoch"]), (&"done".into(), &1.into()), "{entry:#}");
        let led = stage.cluster.number_of(entry["leader"].as_str().expect("it has one"));
        assert!(larger.contains(&led.expect("it is one of the nodes")), "{entry:#}");
        holds_for(CUT, "the smaller side stays with what it knows", || {
            smaller.iter().all(|node| stage.cluster.masters(*node) == [stage.name.as_str()])
        });
        let added = "127.0.0.1:1";
        register(&stage.cluster, heir, added);

        stage.network.join(&stage.node_hosts(&smaller), &stage.node_hosts(&larger));
        stage.cluster.wait_for_failover(&stage.name);
        stage.cluster.wait_masters(&[&new, added], PATIENCE);
        assert_promoted_once(&stage.replicas(), &new);
        stage.cluster.leader_of_all();
    }
}
