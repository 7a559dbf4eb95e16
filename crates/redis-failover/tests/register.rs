//! Registering, and registering again: an address that is known changes nothing, and nothing is ever undone by it.

mod common;

use std::collections::BTreeSet;
use std::path::Path;

use common::daemon::{Ended, Launch, instance};
use common::scenario::{
    assert_left_alone, assert_whole, guard, holds, on_each_kind, settle, times_told,
    wait_for_diagnosis, wait_for_failover, wait_until_follows, wait_until_guarded,
};
use common::wire::Wire;
use common::{Daemon, Group, Options, PATIENCE, Server, ServerKind, wait_until};

fn start(masters: &str) -> Daemon {
    Daemon::start(&[&format!("-masters={masters}"), "-check_interval=100", "-max_down_time=1"])
}

/// The names of all groups.
fn names(daemon: &Daemon) -> Vec<String> {
    let groups = daemon.get("/v1/groups").json["groups"].clone();
    let groups = groups.as_array().expect("the groups are a list");
    groups.iter().map(|group| group["name"].as_str().unwrap_or_default().to_owned()).collect()
}

/// The addresses of a group's instances.
fn instances(daemon: &Daemon, name: &str) -> BTreeSet<String> {
    let view = daemon.group(name).expect("it is guarded");
    let all = view["instances"].as_array().expect("a list");
    all.iter().map(|seen| seen["addr"].as_str().unwrap_or_default().to_owned()).collect()
}

/// A group whose master was replaced by a program that has ended since: the dead one, the new one, and one more.
fn failed_over(kind: ServerKind) -> (Group, String, String) {
    let mut group = Group::start(kind, 2);
    let old = group.master.addr();
    let mut daemon = guard(&group, &[]);
    group.master.kill9();
    let entry = wait_for_failover(&daemon, &old);
    let new = entry["new_master"].as_str().expect("there is one").to_owned();
    let third = group.replicas.iter().find(|replica| replica.addr() != new);
    wait_until_follows(&daemon, &old, third.expect("there are two"), group.server(&new));
    group.server(&new).cmd(&["SET", "kept", "1"]);
    daemon.stop();
    (group, old, new)
}

/// The old master comes back, and its owner has made it a replica of the new one.
fn restart_as_replica(group: &mut Group, new: &str) {
    let new = group.replicas.iter().find(|replica| replica.addr() == new);
    group.master.restart_as_replica_of(new.expect("it is of the group"));
}

#[test]
fn the_old_address_while_that_server_is_dead_undoes_nothing() {
    on_each_kind(|kind| {
        let (mut group, old, new) = failed_over(kind);
        let told = times_told(group.server(&new));
        let daemon = start(&old);
        wait_for_diagnosis(&daemon, &old, "WholeGroupUnreachable");
        holds("nobody is told anything", || {
            times_told(group.server(&new)) == told && names(&daemon) == [&*old]
        });
        // It comes back as a replica of the new master, as its owner has it.
        restart_as_replica(&mut group, &new);
        daemon.wait_for_master(&new, PATIENCE);
        wait_until_guarded(&daemon, &old, &group.addrs());
        assert_eq!((names(&daemon), daemon.get("/master").body), (vec![old.clone()], new.clone()));
        assert_left_alone(&daemon, &old);
        let server = group.server(&new);
        assert_eq!((times_told(server), server.cmd(&["GET", "kept"])), (told, "1".to_owned()));
    });
}

#[test]
fn the_old_address_of_a_server_that_is_a_replica_now_leads_to_its_master() {
    on_each_kind(|kind| {
        let (mut group, old, new) = failed_over(kind);
        restart_as_replica(&mut group, &new);
        group.master.wait_for_link(group.server(&new));
        let told = times_told(group.server(&new));
        let daemon = start(&old);
        daemon.wait_for_master(&new, PATIENCE);
        wait_until_guarded(&daemon, &old, &group.addrs());
        assert_eq!(names(&daemon), [&*old]);
        assert_left_alone(&daemon, &old);
        assert_eq!(times_told(group.server(&new)), told);

        // Guarded as before, by the old name.
        group.server_mut(&new).kill9();
        let entry = wait_for_failover(&daemon, &old);
        assert_eq!((&entry["old_master"], &entry["outcome"]), (&(&*new).into(), &"done".into()));
    });
}

#[test]
fn the_old_address_of_a_server_that_is_a_master_again_does_not_touch_the_new_one() {
    on_each_kind(|kind| {
        let (mut group, old, new) = failed_over(kind);
        group.master.restart();
        assert_eq!(group.master.role(), "master");
        let told = times_told(group.server(&new));
        let daemon = start(&old);
        wait_for_diagnosis(&daemon, &old, "NoReplicas");
        holds("the new master is left alone", || {
            let server = group.server(&new);
            times_told(server) == told && server.role() == "master" && names(&daemon) == [&*old]
        });
        assert_eq!(group.server(&new).cmd(&["GET", "kept"]), "1");
        assert_left_alone(&daemon, &old);
    });
}

#[test]
fn the_old_address_in_a_running_program_changes_nothing() {
    on_each_kind(|kind| {
        let mut group = Group::start(kind, 2);
        let old = group.master.addr();
        let daemon = guard(&group, &[]);
        group.master.kill9();
        let entry = wait_for_failover(&daemon, &old);
        let new = entry["new_master"].as_str().expect("there is one").to_owned();
        let third = group.replicas.iter().find(|replica| replica.addr() != new);
        wait_until_follows(&daemon, &old, third.expect("there are two"), group.server(&new));
        let told = times_told(group.server(&new));
        let all = instances(&daemon, &old);
        // Dead, and in every role.
        for addr in group.addrs() {
            assert_eq!(daemon.post(&format!("/master?masters={addr}"), "").status, 200);
            assert_eq!(
                (names(&daemon), daemon.get("/master").body),
                (vec![old.clone()], new.clone())
            );
        }
        let list = format!("masters={}", group.addrs().join(","));
        assert_eq!(daemon.post("/master", &list).status, 200);
        assert_eq!(daemon.put("/master", &list).status, 200);
        group.master.restart();
        wait_until_follows(&daemon, &old, &group.master, group.server(&new));
        assert_eq!(daemon.post("/master", &list).status, 200);
        holds("nothing changes", || {
            names(&daemon) == [&*old]
                && daemon.get("/master").body == new
                && instances(&daemon, &old) == all
                && times_told(group.server(&new)) == told
                && daemon.group(&old).is_some_and(|view| view["epoch"] == 1)
        });
    });
}

#[test]
fn the_address_of_a_replica_leads_to_its_master() {
    on_each_kind(|kind| {
        let mut group = Group::start(kind, 2);
        let master = group.master.addr();
        let [first, second] = [0, 1].map(|at: usize| group.replicas[at].addr());
        let daemon = Daemon::start(&["-check_interval=100"]);
        assert_eq!(daemon.get("/master").body, "");
        // Both at once, and again: they are one group.
        let list = format!("masters={first},{second}");
        assert_eq!(daemon.post("/master", &list).status, 200);
        assert_eq!(daemon.post("/master", &list).status, 200);
        wait_until("both lead to one group", PATIENCE, || {
            (daemon.get("/master").body == master && names(&daemon).len() == 1).then_some(())
        });
        wait_until_guarded(&daemon, &master, &group.addrs());
        assert_eq!(daemon.post(&format!("/master?masters={master}"), "").status, 200);
        holds("it is one group", || {
            names(&daemon).len() == 1 && daemon.get("/master").body == master
        });
        group.wait_in_step();
        group.master.kill9();
        let name = names(&daemon).remove(0);
        assert_eq!(wait_for_failover(&daemon, &name)["outcome"], "done");
        assert_eq!(instances(&daemon, &name), group.addrs().into_iter().collect());
    });
}

#[test]
fn masters_are_added_replaced_and_removed_over_http() {
    on_each_kind(|kind| {
        let mut one = Group::start(kind, 1);
        let mut two = Group::start(kind, 1);
        let (first, second) = (one.master.addr(), two.master.addr());
        let both = BTreeSet::from([first.clone(), second.clone()]);
        let daemon = Daemon::start(&["-check_interval=100"]);
        let masters = || -> BTreeSet<String> {
            let body = daemon.get("/master").body;
            body.split(',').filter(|addr| !addr.is_empty()).map(str::to_owned).collect()
        };
        let is = |wanted: &BTreeSet<String>, what: &str| assert_eq!(masters(), *wanted, "{what}");

        assert_eq!(daemon.post(&format!("/master?masters={first}"), "").status, 200);
        is(&BTreeSet::from([first.clone()]), "added in the query");
        assert_eq!(daemon.post("/master", &format!("masters={second}")).status, 200);
        is(&both, "added in a form");
        wait_until_guarded(&daemon, &first, &one.addrs());
        wait_until_guarded(&daemon, &second, &two.addrs());
        assert_eq!(daemon.put("/master", &format!("masters={second}")).status, 200);
        is(&BTreeSet::from([second.clone()]), "replaced");
        assert_eq!(daemon.put("/master?masters=", "").status, 400);
        assert_eq!(daemon.post("/master?masters=nonsense", "").status, 400);
        is(&BTreeSet::from([second.clone()]), "bad input changes nothing");
        assert_eq!(daemon.delete(&format!("/master?masters={first}")).status, 200);
        let replica = two.replicas[0].addr();
        assert_eq!(daemon.delete(&format!("/master?masters={replica}")).status, 200);
        is(&BTreeSet::from([second.clone()]), "neither an unknown one nor a replica removes it");

        // What is not guarded any more is left alone, and what is guarded is not.
        one.master.kill9();
        two.wait_in_step();
        two.master.kill9();
        daemon.wait_for_master(&replica, PATIENCE);
        assert_eq!(one.replicas[0].role(), "slave");
        assert_eq!(times_told(&one.replicas[0]), 0);
        wait_for_failover(&daemon, &second);
        assert_eq!(daemon.delete(&format!("/master?masters={replica}")).status, 200);
        is(&BTreeSet::new(), "removed by its new master's address");

        // A group that comes back is a new one, also while its master is dead.
        assert_eq!(daemon.post(&format!("/master?masters={first}"), "").status, 200);
        is(&BTreeSet::from([first.clone()]), "added while it is dead");
        one.master.restart();
        settle(&daemon, &first, &one);
        one.master.kill9();
        daemon.wait_for_master(&one.replicas[0].addr(), PATIENCE);
    });
}

#[test]
fn a_master_that_is_registered_by_its_host_name_is_one_instance() {
    on_each_kind(|kind| {
        let mut group = Group::start(kind, 2);
        let (addr, port) = (group.master.addr(), group.master.port());
        let name = format!("localhost:{port}");
        let daemon = start(&name);
        let wanted: Vec<String> =
            std::iter::once(name.clone()).chain(group.replicas.iter().map(Server::addr)).collect();
        wait_until_guarded(&daemon, &name, &wanted);
        assert_eq!(
            (daemon.get("/master").body, names(&daemon)),
            (name.clone(), vec![name.clone()])
        );
        // The other way to write it is known by now.
        assert_eq!(daemon.post(&format!("/master?masters={addr}"), "").status, 200);
        assert_eq!(names(&daemon), [&*name]);
        let all: BTreeSet<String> = wanted.iter().cloned().collect();
        assert_eq!(instances(&daemon, &name), all);

        group.wait_in_step();
        group.master.kill9();
        let entry = wait_for_failover(&daemon, &name);
        let new = entry["new_master"].as_str().expect("there is one").to_owned();
        assert_whole(&entry, (&name, &new, "MasterCrashed"), 1);
        group.master.restart();
        group.master.wait_for_link(group.server(&new));
        daemon.wait_for(&name, PATIENCE, |view| {
            instance(view, &name).is_some_and(|seen| seen["link"] == "up")
        });
        holds("nobody is counted twice", || instances(&daemon, &name) == all);
    });
}

#[test]
fn a_group_on_ipv6_is_guarded() {
    if std::net::TcpListener::bind("[::1]:0").is_err() {
        eprintln!("SKIPPED: this machine has no ::1");
        return;
    }
    on_each_kind(|kind| {
        let options = Options::new().set("bind", "::1 127.0.0.1");
        let mut servers = [0; 3].map(|_| Server::start(kind, &options));
        let of = |server: &Server| format!("[::1]:{}", server.port());
        let follows = |replica: &Server, master: &Server| {
            let wanted = Some((format!("::1:{}", master.port()), true));
            wait_until("it follows", PATIENCE, || (replica.master_link() == wanted).then_some(()));
        };
        for replica in &servers[1..] {
            replica.cmd(&["REPLICAOF", "::1", &servers[0].port().to_string()]);
            follows(replica, &servers[0]);
        }
        servers[0].cmd(&["SET", "kept", "1"]);
        let all: Vec<String> = servers.iter().map(of).collect();
        let daemon = start(&all[0]);
        wait_until_guarded(&daemon, &all[0], &all);
        wait_until("all are in step", PATIENCE, || {
            servers.iter().all(|server| server.offset() == servers[0].offset()).then_some(())
        });
        servers[0].kill9();
        let entry = wait_for_failover(&daemon, &all[0]);
        let new = entry["new_master"].as_str().expect("there is one").to_owned();
        assert_whole(&entry, (&all[0], &new, "MasterCrashed"), 1);
        assert_eq!(daemon.get("/master").body, new);
        let at = all.iter().position(|addr| *addr == new).expect("it is of the group");
        follows(&servers[3 - at], &servers[at]);
        servers[0].restart();
        follows(&servers[0], &servers[at]);
        assert_eq!(servers[0].cmd(&["GET", "kept"]), "1");
        assert_eq!(instances(&daemon, &all[0]), all.iter().cloned().collect());
    });
}

/// It says neither Redis nor Valkey, and answers as they do: it is told the oldest words.
#[test]
fn a_server_of_another_name_is_guarded_by_what_it_answers() {
    let server = Server::start(ServerKind::Redis, &Options::new());
    let mut other = Server::start(ServerKind::Redis, &Options::new());
    let wire = Wire::disguising(&server.addr(), ["redis_version:", "hydra_version:"]);
    let name = wire.addr();
    let daemon = start(&name);
    let view = wait_for_diagnosis(&daemon, &name, "NoReplicas");
    let seen = instance(&view, &name).expect("it is known");
    assert_eq!((&view["flavor"], &seen["version"]), (&"redis".into(), &"unknown".into()));
    // What somebody did to its role by hand is undone.
    // It never reaches the other, and so has its data still.
    other.kill9();
    server.replica_of(&other);
    wait_for_diagnosis(&daemon, &name, "MasterBecameReplica");
    server.wait_for_role("master");
    let stats = server.info("commandstats");
    assert!(stats.contains_key("cmdstat_slaveof"), "{stats:?}");
}

/// The program with so many descriptors, which it cannot raise.
fn start_below(limit: u32, masters: &str) -> Result<Daemon, Ended> {
    let (binary, limit) = (Daemon::binary(), format!("--nofile={limit}:{limit}"));
    let masters = format!("-masters={masters}");
    let args = [&*limit, "--", binary.to_str().expect("a path in ASCII"), &*masters];
    Daemon::try_start(&Launch { binary: Path::new("prlimit"), ..Launch::of(&args) })
}

#[test]
fn groups_that_need_more_descriptors_than_there_are_are_refused_in_words() {
    // Nobody listens at any of them, which does not matter here.
    let masters = |count: u8| {
        let all: Vec<String> = (1..=count).map(|last| format!("127.9.9.{last}:9")).collect();
        all.join(",")
    };
    // 64 are kept, and each group takes two connections.
    let daemon = start_below(256, &masters(95)).expect("they fit");
    assert_eq!(daemon.post("/master", &format!("masters={}", masters(96))).status, 200);
    let refused = daemon.post("/master", "masters=127.9.9.97:9");
    assert_eq!((refused.status, refused.error_code()), (409, Some("refused")), "{}", refused.body);
    for words in ["would need connections to 2 instances", "beside the 192", "LimitNOFILE"] {
        assert!(refused.body.contains(words), "{words}: {}", refused.body);
    }
    assert_eq!(names(&daemon).len(), 96);
    let ended = start_below(256, &masters(97)).expect_err("they do not fit");
    assert_eq!(ended.code(), 1, "{}", ended.stderr);
    let words =
        "the configured groups were refused: 97 new groups would need connections to 194 instances";
    assert!(ended.stderr.contains(words), "{}", ended.stderr);
}
