//! A supervisor brings a crashed master back at once, and it has lost its data: nobody may be wiped for that.

mod common;

use std::time::Duration;

use serde_json::Value;

use common::scenario::{failovers, guard, on_each_kind, settle, wait_for_entry, wait_for_failover};
use common::{Daemon, Group, Options, PATIENCE, Server, ServerKind, together, wait_until};

/// What a supervisor takes to start a server again.
const SUPERVISOR: Duration = Duration::from_millis(50);
/// What a group holds; one key is of the rig.
const KEYS: &str = "1001";
const FILL: &str = "for i = 1, 1000 do redis.call('SET', 'key' .. i, i) end return 1000";

fn filled(kind: ServerKind, replicas: usize, options: &Options) -> Group {
    let group = Group::start_with(kind, replicas, options);
    fill(&group);
    group
}

fn fill(group: &Group) {
    group.master.cmd(&["EVAL", FILL, "0"]);
    group.wait_in_step();
    for server in group.servers() {
        assert_eq!(server.cmd(&["DBSIZE"]), KEYS);
    }
}

/// `kill -9`, and the start by a supervisor.
fn crash(server: &mut Server) {
    server.kill9();
    std::thread::sleep(SUPERVISOR);
    server.restart();
}

fn wait_until_whole(daemon: &Daemon, name: &str, group: &Group) -> Value {
    let view = daemon.wait_for(name, PATIENCE, |view| {
        let up = |seen: &Value| seen["role"] == "master" || seen["link"] == "up";
        let seen = view["instances"].as_array().expect("a list");
        view["diagnosis"]["name"] == "Healthy" && seen.iter().all(up)
    });
    for server in group.servers() {
        let what = format!("{} has every key", server.addr());
        wait_until(&what, PATIENCE, || {
            server.try_cmd(&["DBSIZE"]).is_ok_and(|keys| keys == KEYS).then_some(())
        });
    }
    view
}

/// One crash of each kind of group; the cause of the failover is returned.
fn every_key_survives(kind: ServerKind, crash_down_time: &str, delay: &str, replicas: usize) {
    let options = Options::new().set("repl-diskless-sync-delay", delay);
    let mut group = filled(kind, replicas, &options);
    let name = group.master.addr();
    let crash_down_time = format!("-crash_down_time={crash_down_time}");
    let daemon = guard(&group, &["-check_interval=100", &crash_down_time]);
    settle(&daemon, &name, &group);
    crash(&mut group.master);
    let entry = wait_for_failover(&daemon, &name);
    assert_eq!(entry["outcome"], "done", "{entry:#}");
    let cause = entry["cause"].as_str().expect("a name");
    let wanted =
        if crash_down_time.ends_with('3') { "MasterRestartedEmpty" } else { "MasterCrashed" };
    assert_eq!(cause, wanted, "{entry:#}");
    let view = wait_until_whole(&daemon, &name, &group);
    assert_ne!(view["master"], name.as_str());
    assert_eq!(failovers(&daemon, &name).len(), 1);
}

#[test]
fn every_key_survives_a_master_that_restarts_empty() {
    on_each_kind(|kind| {
        for delay in ["0", "5"] {
            every_key_survives(kind, "3", delay, 2);
        }
        every_key_survives(kind, "3", "0", 1);
    });
}

#[test]
fn and_so_it_does_when_the_crash_itself_is_a_cause() {
    on_each_kind(|kind| {
        for (delay, replicas) in [("0", 1), ("5", 2)] {
            every_key_survives(kind, "0", delay, replicas);
        }
    });
}

#[test]
fn a_master_that_restarts_with_its_data_keeps_its_role() {
    on_each_kind(|kind| {
        for (name, value) in [("appendonly", "yes"), ("save", "3600 1")] {
            let options = Options::new().set(name, value).set("appendfsync", "always");
            let mut group = filled(kind, 1, &options);
            let addr = group.master.addr();
            let daemon = guard(&group, &["-check_interval=100", "-crash_down_time=3"]);
            settle(&daemon, &addr, &group);
            if name == "save" {
                group.master.cmd(&["SAVE"]);
            }
            let before = process_of(&daemon, &addr);
            crash(&mut group.master);
            daemon.wait_for(&addr, PATIENCE, |view| {
                view["diagnosis"]["name"] == "Healthy" && run_id(view) != before
            });
            wait_until_whole(&daemon, &addr, &group);
            assert_eq!(failovers(&daemon, &addr), Vec::<Value>::new(), "{name}");
            // Its next death is as any other.
            group.master.kill9();
            let entry = wait_for_failover(&daemon, &addr);
            assert_eq!(entry["cause"], "MasterCrashed", "{entry:#}");
        }
    });
}

fn run_id(view: &Value) -> String {
    view["instances"][0]["run_id"].as_str().unwrap_or_default().to_owned()
}

fn process_of(daemon: &Daemon, addr: &str) -> String {
    run_id(&daemon.group(addr).expect("it is guarded"))
}

#[test]
fn three_nodes_agree_on_it_before_it_is_too_late() {
    let options = Options::new().set("repl-diskless-sync-delay", "0");
    let mut group = filled(ServerKind::Redis, 2, &options);
    let name = group.master.addr();
    let args = ["-check_interval=100", "-max_down_time=3", "-crash_down_time=3"];
    let cluster = together::guard(&group, &args);
    crash(&mut group.master);
    let entry = cluster.wait_for_failover(&name);
    assert_eq!(entry["cause"], "MasterRestartedEmpty", "{entry:#}");
    assert_eq!(entry["outcome"], "done", "{entry:#}");
    let daemon = cluster.node(cluster.leader());
    wait_until_whole(daemon, &name, &group);
}

#[test]
fn when_everybody_was_wiped_already_the_history_says_so() {
    // The guard is away while it happens: nobody could have saved it.
    let kind = ServerKind::Redis;
    let mut group = filled(kind, 1, &Options::new().set("repl-diskless-sync-delay", "0"));
    let name = group.master.addr();
    let mut daemon = guard(&group, &["-check_interval=100", "-crash_down_time=3"]);
    settle(&daemon, &name, &group);
    daemon.freeze();
    crash(&mut group.master);
    group.replicas[0].wait_for_link(&group.master);
    assert_eq!(group.replicas[0].cmd(&["DBSIZE"]), "0");
    daemon.thaw();
    let entry = wait_for_entry(&daemon, &name, ("failover", &name, "failed"));
    assert_eq!(entry["cause"], "MasterRestartedEmpty", "{entry:#}");
    let reason = entry["reason"].as_str().expect("a sentence");
    assert!(
        reason.contains("1001 keys were counted last") && reason.contains("backup"),
        "{reason}"
    );
    daemon.wait_for(&name, PATIENCE, |view| view["diagnosis"]["name"] == "Healthy");
}
