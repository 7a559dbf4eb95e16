//! The power fails for everything at once: all servers and all nodes end by `kill -9` in the same instant, and come back in
//! any order. The record is what is left of the program, and each server's disk what is left of the data.

mod common;

use std::time::Duration;

use common::child::{Owned, kill9_together};
use common::scenario::{demotions, holds_for, on_each_kind, times_told, wait_until_guarded};
use common::together::{start_guard, wait_for_diagnosis_at, wait_until_settled};
use common::{Cluster, Daemon, Group, Options, PATIENCE, Server, ServerKind, wait_until};

/// How many keys there are before the power fails.
const KEYS: usize = 100;
/// Long enough for replicas to find their master by themselves, and for a decision that must not be taken.
const WATCHED: Duration = Duration::from_secs(2);

/// What is left of a server's data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Disk {
    /// Every write.
    Aof,
    /// What was there when it was saved last.
    Rdb,
    Nothing,
}

impl Disk {
    fn options(self) -> Options {
        match self {
            Self::Aof => Options::durable(),
            Self::Rdb => Options::new(),
            // A replica keeps the copy of its master's data with which it began, if it is not told to remove it.
            Self::Nothing => Options::new().set("rdb-del-sync-files", "yes"),
        }
    }
}

/// In which order everything comes back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Order {
    ServersFirst,
    NodesThenMaster,
    NodesThenReplicas,
    /// One of the replicas stays away.
    WithoutOneReplica,
}

const ORDERS: [Order; 4] = [
    Order::ServersFirst,
    Order::NodesThenMaster,
    Order::NodesThenReplicas,
    Order::WithoutOneReplica,
];

/// Three servers that are guarded, and have been through a failover: the recorded master is another than the one that
/// everything began with.
struct Stage {
    group: Group,
    cluster: Cluster,
    /// The group's name, and the address of its first master.
    name: String,
    master: String,
}

impl Stage {
    fn set(kind: ServerKind, nodes: usize, disk: Disk) -> Self {
        let mut group = Group::start_with(kind, 2, &disk.options());
        let name = group.master.addr();
        let cluster = start_guard(Cluster::plan(nodes), &group, &[]);
        group.master.kill9();
        let entry = cluster.wait_for_failover(&name);
        let master = entry["new_master"].as_str().expect("there is one").to_owned();
        group.master.restart();
        let stage = Self { group, cluster, name, master };
        stage.settles(&stage.master);
        stage
    }

    fn master(&self) -> &Server {
        self.group.server(&self.master)
    }

    /// The addresses of the others.
    fn others(&self) -> Vec<String> {
        self.group.addrs().into_iter().filter(|addr| *addr != self.master).collect()
    }

    /// Writes the keys, and waits until everybody has them, also on disk.
    fn fill(&self, disk: Disk) {
        if disk == Disk::Aof {
            for server in self.group.servers() {
                server.wait_until_durable();
            }
        }
        let fill = format!("for i = 1, {KEYS} do redis.call('SET', 'key:' .. i, i) end");
        self.master().cmd(&["EVAL", &fill, "0"]);
        self.in_step();
        if disk == Disk::Rdb {
            for server in self.group.servers() {
                save(server);
            }
        }
    }

    fn in_step(&self) {
        wait_until("all offsets are equal", PATIENCE, || {
            let offset = self.master().offset();
            self.group.servers().all(|server| server.offset() == offset).then_some(())
        });
    }

    /// The power fails.
    fn cut_power(&mut self) {
        let servers = self.group.servers_mut().map(Server::process);
        let mut all: Vec<&mut Owned> = servers.chain(self.cluster.processes()).collect();
        kill9_together(&mut all);
        for node in self.cluster.answering() {
            self.cluster.bury(node);
        }
        // They come back with what they know, and not with what their command line says.
        self.cluster.unset("-masters");
    }

    fn start_nodes(&mut self, nodes: usize) {
        for node in 0..nodes {
            self.cluster.start(node);
        }
        self.cluster.leader_of_all();
    }

    fn start_servers(&mut self, addrs: &[String]) {
        for addr in addrs {
            self.group.server_mut(addr).restart();
        }
    }

    /// Waits until this one is master, and all others that run follow it, for everybody.
    #[track_caller]
    fn settles(&self, master: &str) {
        let all: Vec<&Server> = self.group.servers().collect();
        wait_until_settled(&self.cluster, &self.name, &all, master);
    }

    fn epoch(&self) -> u64 {
        let view = self.cluster.node(self.cluster.leader()).group(&self.name);
        view.expect("a group stays")["epoch"].as_u64().expect("a number")
    }
}

#[track_caller]
fn assert_has_all(server: &Server) {
    let what = format!("{} has all keys", server.addr());
    wait_until(&what, PATIENCE, || {
        let has = (1..=KEYS).all(|key| {
            server.try_cmd(&["GET", &format!("key:{key}")]).as_deref() == Ok(&*key.to_string())
        });
        has.then_some(())
    });
}

/// A copy for a replica may be on its way still.
#[track_caller]
fn save(server: &Server) {
    wait_until("it saves its data", PATIENCE, || server.try_cmd(&["SAVE"]).ok());
}

/// Everything comes back, and is what it was.
fn comes_back(kind: ServerKind, nodes: usize, disk: Disk, order: Order) {
    let mut stage = Stage::set(kind, nodes, disk);
    stage.fill(disk);
    let (master, others) = (stage.master.clone(), stage.others());
    stage.cut_power();
    match order {
        Order::ServersFirst => {
            stage.start_servers(&others);
            stage.start_servers(std::slice::from_ref(&master));
            stage.start_nodes(nodes);
        }
        Order::NodesThenMaster => {
            stage.start_nodes(nodes);
            stage.start_servers(std::slice::from_ref(&master));
            stage.start_servers(&others);
        }
        Order::NodesThenReplicas => {
            stage.start_nodes(nodes);
            stage.start_servers(&others);
            holds_for(WATCHED, "its replicas are no match for what it may have", || {
                others.iter().all(|addr| times_told(stage.group.server(addr)) == 0)
            });
            stage.start_servers(std::slice::from_ref(&master));
        }
        Order::WithoutOneReplica => {
            stage.start_nodes(nodes);
            stage.start_servers(&others[1..]);
            stage.start_servers(std::slice::from_ref(&master));
            stage.group.server(&others[1]).wait_for_link(stage.group.server(&master));
            if disk != Disk::Nothing {
                assert_has_all(stage.group.server(&others[1]));
            }
            stage.start_servers(&others[..1]);
        }
    }
    stage.settles(&master);
    assert_eq!(stage.epoch(), 1, "{disk:?}, {order:?}: nobody was promoted");
    for server in stage.group.servers() {
        assert_eq!(
            times_told(server),
            0,
            "{disk:?}, {order:?}: {} was told something",
            server.addr()
        );
        if disk != Disk::Nothing {
            assert_has_all(server);
        }
    }
}

#[test]
fn what_every_write_is_kept_of_comes_back_in_any_order() {
    on_each_kind(|kind| {
        for order in ORDERS {
            comes_back(kind, 1, Disk::Aof, order);
        }
    });
}

#[test]
fn what_was_saved_comes_back_in_any_order() {
    on_each_kind(|kind| {
        for order in ORDERS {
            comes_back(kind, 1, Disk::Rdb, order);
        }
    });
}

#[test]
fn what_keeps_nothing_comes_back_with_nothing_and_the_same_master() {
    on_each_kind(|kind| {
        for order in ORDERS {
            comes_back(kind, 1, Disk::Nothing, order);
        }
    });
}

#[test]
fn three_nodes_come_back_with_what_every_write_is_kept_of() {
    for order in ORDERS {
        comes_back(ServerKind::Redis, 3, Disk::Aof, order);
    }
}

#[test]
fn three_nodes_come_back_with_what_was_saved() {
    for order in ORDERS {
        comes_back(ServerKind::Redis, 3, Disk::Rdb, order);
    }
}

#[test]
fn three_nodes_come_back_with_nothing() {
    for order in ORDERS {
        comes_back(ServerKind::Redis, 3, Disk::Nothing, order);
    }
}

/// The power fails right after a failover: the old master had no time to learn of it, comes back first, and has less.
fn old_master_first(kind: ServerKind, nodes: usize) {
    let mut group = Group::start_with(kind, 1, &Options::durable());
    let name = group.master.addr();
    let cluster = start_guard(Cluster::plan(nodes), &group, &[]);
    group.wait_until_durable();
    group.master.kill9();
    let master = group.replicas[0].addr();
    cluster.wait_masters(&[&master], PATIENCE);
    cluster.wait_for_failover(&name);
    let mut stage = Stage { group, cluster, name: name.clone(), master: master.clone() };
    let fill = format!("for i = 1, {KEYS} do redis.call('SET', 'key:' .. i, i) end");
    stage.master().cmd(&["EVAL", &fill, "0"]);
    stage.cut_power();
    stage.start_nodes(nodes);
    stage.start_servers(std::slice::from_ref(&name));
    let leader = stage.cluster.leader();
    wait_for_diagnosis_at(&stage.cluster, leader, &name, "NoEligibleReplica");
    holds_for(WATCHED, "it is neither demoted nor promoted", || {
        times_told(&stage.group.master) == 0 && stage.epoch() == 1
    });
    stage.start_servers(std::slice::from_ref(&master));
    stage.settles(&master);
    assert_eq!(stage.epoch(), 1);
    assert_eq!(demotions(stage.cluster.node(stage.cluster.leader()), &name).len(), 1);
    for server in stage.group.servers() {
        assert_has_all(server);
    }
}

#[test]
fn an_old_master_that_comes_back_first_follows_the_recorded_one() {
    on_each_kind(|kind| old_master_first(kind, 1));
    old_master_first(ServerKind::Redis, 3);
}

/// Its last snapshot is older than that of a replica, which has more: the replica is what is left of the group's data.
fn older_snapshot(kind: ServerKind, nodes: usize) {
    let mut stage = Stage::set(kind, nodes, Disk::Rdb);
    save(stage.master());
    let (master, others) = (stage.master.clone(), stage.others());
    let fill = format!("for i = 1, {KEYS} do redis.call('SET', 'key:' .. i, i) end");
    stage.master().cmd(&["EVAL", &fill, "0"]);
    stage.in_step();
    for addr in &others {
        save(stage.group.server(addr));
    }
    stage.cut_power();
    stage.start_nodes(nodes);
    stage.start_servers(&others);
    stage.start_servers(std::slice::from_ref(&master));
    let new = wait_until("a replica that has more is promoted", PATIENCE, || {
        others.iter().find(|addr| stage.cluster.masters(0) == [addr.as_str()])
    });
    stage.settles(new);
    for server in stage.group.servers() {
        assert_has_all(server);
    }
}

#[test]
fn a_replica_with_a_newer_snapshot_than_its_master_is_promoted() {
    on_each_kind(|kind| older_snapshot(kind, 1));
    older_snapshot(ServerKind::Redis, 3);
}

/// The master keeps nothing, and a replica everything: what is there after a power cut is the replica's.
fn only_a_replica_keeps_data(kind: ServerKind, nodes: usize) {
    let keeps = Options::durable();
    let nothing = Disk::Nothing.options();
    let group = Group::start_each(kind, &nothing, &[keeps, nothing.clone()]);
    let name = group.master.addr();
    let cluster = start_guard(Cluster::plan(nodes), &group, &[]);
    let mut stage = Stage { group, cluster, name: name.clone(), master: name.clone() };
    stage.group.replicas[0].wait_until_durable();
    stage.fill(Disk::Nothing);
    let [durable, empty] = [0, 1].map(|at: usize| stage.group.replicas[at].addr());
    stage.cut_power();
    stage.start_nodes(nodes);
    stage.start_servers(&[durable.clone(), empty, name]);
    stage.cluster.wait_masters(&[&durable], PATIENCE);
    stage.settles(&durable);
    for server in stage.group.servers() {
        assert_has_all(server);
    }
}

#[test]
fn the_only_one_that_kept_the_data_is_promoted() {
    on_each_kind(|kind| only_a_replica_keeps_data(kind, 1));
    only_a_replica_keeps_data(ServerKind::Redis, 3);
}

/// The master's machine stays dark. What it had, and its replicas may lack, nobody knows but people.
#[test]
fn without_its_master_a_group_waits_for_a_person() {
    on_each_kind(|kind| {
        let mut stage = Stage::set(kind, 1, Disk::Rdb);
        stage.fill(Disk::Rdb);
        let others = stage.others();
        stage.cut_power();
        stage.start_nodes(1);
        stage.start_servers(&others);
        let daemon = stage.cluster.node(0);
        let view = daemon.wait_for(&stage.name, PATIENCE, |view| {
            let why = view["diagnosis"]["not_acting_because"].as_str().unwrap_or_default();
            view["diagnosis"]["name"] == "NoEligibleReplica" && why.contains("force")
        });
        let why = view["diagnosis"]["not_acting_because"].as_str().expect("a sentence");
        assert!(others.iter().any(|addr| why.contains(&format!("\"to\":\"{addr}\""))), "{why}");
        holds_for(WATCHED, "nobody is promoted by itself", || {
            others.iter().all(|addr| times_told(stage.group.server(addr)) == 0)
        });
        let path = format!("/v1/groups/{}/failover", stage.name);
        let answer = daemon.post(&path, &format!(r#"{{"to":"{}","force":true}}"#, others[0]));
        assert_eq!(answer.json["outcome"], "done", "{}", answer.body);
        stage.group.server(&others[1]).wait_for_link(stage.group.server(&others[0]));
        for addr in &others {
            assert_has_all(stage.group.server(addr));
        }
    });
}

/// A node without a store knows what it is started with, the first master: that one, now a replica, leads to its own.
#[test]
fn a_node_without_a_record_finds_the_master_that_its_servers_know() {
    on_each_kind(|kind| {
        let mut stage = Stage::set(kind, 1, Disk::Aof);
        stage.fill(Disk::Aof);
        let (master, others) = (stage.master.clone(), stage.others());
        stage.cut_power();
        let masters = format!("-masters={}", stage.name);
        let daemon = Daemon::start(&[&masters, "-check_interval=100", "-max_down_time=1"]);
        stage.start_servers(&others);
        stage.start_servers(std::slice::from_ref(&master));
        daemon.wait_for_master(&master, PATIENCE);
        wait_until_guarded(&daemon, &master, &stage.group.addrs());
        for server in stage.group.servers() {
            assert_eq!(times_told(server), 0, "{} was told something", server.addr());
            assert_has_all(server);
        }
    });
}
