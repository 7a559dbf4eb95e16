//! LedisDB groups, guarded.

use std::time::Duration;

use serde_json::Value;

use crate::common::daemon::instance;
use crate::common::ledisdb::full_copies;
use crate::common::scenario::{
    CRASH_GAP_MAX, HANG_GAP_MAX, failovers, guard, guard_by_file, holds_for, step_names,
    wait_for_diagnosis, wait_for_entry, wait_for_failover, wait_until_guarded,
};
use crate::common::{
    Daemon, Group, Options, PATIENCE, Server, ServerKind, Writer, now, wait_until,
};
use crate::stand_in::make_forgotten;

const KIND: ServerKind = ServerKind::Ledisdb;
/// Longer than the program's own pauses in bringing an instance back: nothing is repaired twice.
const QUIET: Duration = Duration::from_secs(5);

/// How it got to its data: kinds of entries about an instance, oldest first.
fn repairs(daemon: &Daemon, name: &str, addr: &str) -> Vec<(String, String)> {
    let text = |entry: &Value, key: &str| entry[key].as_str().unwrap_or_default().to_owned();
    let entries = daemon.history(name).into_iter().rev();
    let about = entries.filter(|entry| {
        entry["old_master"] == addr && ["demotion", "repair"].iter().any(|k| entry["kind"] == *k)
    });
    about.map(|entry| (text(&entry, "kind"), text(&entry, "outcome"))).collect()
}

/// Whether a slave has forgotten an order for a full copy is only seen when its link is lost.
#[track_caller]
fn knows_no_order(daemon: &Daemon, name: &str, group: &mut Group, master: &str) {
    let answer = daemon.post(&format!("/v1/groups/{name}/pause"), "");
    assert_eq!(answer.status, 200, "{}", answer.body);
    let server = group.server_mut(master);
    server.start_as_replica_of(None);
    server.kill9();
    let copies = full_copies(server);
    server.restart();
    server.cmd(&["SET", "rig:order", "1"]);
    let master = group.server(master);
    let lives = |server: &&Server| server.try_cmd(&["PING"]).is_ok();
    for slave in group.servers().filter(|server| server.addr() != master.addr()).filter(lives) {
        wait_until("it follows again", PATIENCE, || {
            (slave.cmd(&["GET", "rig:order"]) == "1").then_some(())
        });
    }
    assert_eq!(full_copies(master), copies, "somebody copied everything again");
}

/// Waits until an instance that had to copy everything is a replica like any other.
#[track_caller]
fn wait_until_back(daemon: &Daemon, name: &str, slave: &Server, master: &Server) {
    // The view is shown when it does not come to that.
    daemon.wait_for(name, PATIENCE, |_| {
        repairs(daemon, name, &slave.addr()).contains(&("repair".to_owned(), "done".to_owned()))
    });
    wait_until("it follows", PATIENCE, || {
        (slave.master_link() == Some((master.addr(), true))).then_some(())
    });
    daemon.wait_for(name, PATIENCE, |view| {
        view["diagnosis"]["name"] == "Healthy"
            && instance(view, &slave.addr()).is_some_and(|seen| seen["eligible"] == true)
    });
}

fn same_data(master: &Server, others: &[&Server], keys: &[&str]) {
    for server in others {
        wait_until("it is in step", PATIENCE, || {
            (server.offset() == master.offset()).then_some(())
        });
        for key in keys {
            assert_eq!(server.cmd(&["GET", key]), master.cmd(&["GET", key]), "{key}");
        }
    }
}

#[test]
fn a_killed_master_is_replaced_and_comes_back_with_a_copy_that_is_forgotten() {
    let mut group = Group::start(KIND, 2);
    let name = group.master.addr();
    let daemon = guard(&group, &[]);
    let mut writer = Writer::start(&group);
    let killed_at = group.master.kill9();
    let gap = writer.wait_for_gap(killed_at, &name, PATIENCE);
    assert!(gap.length < CRASH_GAP_MAX, "{gap:?}");
    let entry = wait_for_failover(&daemon, &name);
    assert_eq!(
        (entry["outcome"].as_str(), entry["new_master"].as_str()),
        (Some("done"), Some(&*gap.addr)),
        "{entry:#}"
    );
    let steps = step_names(&entry);
    assert_eq!(steps.iter().filter(|step| **step == "link_verified").count(), 1, "{entry:#}");
    let other = group.replicas.iter().find(|replica| replica.addr() != gap.addr).expect("one");
    assert!(repairs(&daemon, &name, &other.addr()).is_empty(), "it kept what it had");
    writer.stop();
    // It comes back with a write that nobody else has, and as many log entries.
    group.master.restart();
    let new_addr = gap.addr.clone();
    wait_for_entry(&daemon, &name, ("demotion", &name, "done"));
    let (master, new) = (&group.master, group.server(&new_addr));
    wait_until_back(&daemon, &name, master, new);
    assert_eq!(
        repairs(&daemon, &name, &name),
        [("demotion", "done"), ("repair", "done")].map(|(a, b)| (a.to_owned(), b.to_owned()))
    );
    let repair = wait_for_entry(&daemon, &name, ("repair", &name, "done"));
    assert!(step_names(&repair).contains(&"parted"), "{repair:#}");
    let keys: Vec<String> =
        group.addrs().iter().map(|a| crate::common::witness::key_of(a)).collect();
    let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
    let replicas: Vec<&Server> = group.servers().filter(|s| s.addr() != new_addr).collect();
    same_data(new, &replicas, &keys);
    holds_for(QUIET, "nothing more is repaired, and there is one master", || {
        let view = daemon.group(&name).expect("a group stays");
        view["epoch"] == 1
            && view["diagnosis"]["name"] == "Healthy"
            && repairs(&daemon, &name, &name).len() == 2
            && failovers(&daemon, &name).len() == 1
    });
    assert_eq!(full_copies(group.server(&new_addr)), 1, "one that came back");
    knows_no_order(&daemon, &name, &mut group, &new_addr);
}

#[test]
fn a_stopped_master_is_replaced_although_its_slaves_say_up() {
    let mut group = Group::start(KIND, 2);
    let name = group.master.addr();
    let daemon = guard(&group, &["-max_down_time=1"]);
    let mut writer = Writer::start(&group);
    let stopped_at = group.master.stop();
    let gap = writer.wait_for_gap(stopped_at, &name, PATIENCE);
    assert!(gap.length < HANG_GAP_MAX, "{gap:?}");
    let entry = wait_for_failover(&daemon, &name);
    assert_eq!((&entry["outcome"], &entry["cause"]), (&"done".into(), &"MasterHung".into()));
    let woken_at = group.master.cont();
    let tenure = wait_until("it refuses writes", PATIENCE, || writer.tenure(&name, woken_at));
    assert!(tenure.length() < Duration::from_secs(1), "{tenure:?}");
    writer.stop();
    let new = group.server(&gap.addr);
    wait_until_back(&daemon, &name, &group.master, new);
    assert_eq!(daemon.get("/master").body, gap.addr);
}

#[test]
fn slaves_that_the_master_has_forgotten_are_known_all_the_same() {
    let mut group = Group::start(KIND, 2);
    let name = group.master.addr();
    let daemon = guard(&group, &[]);
    make_forgotten(&group.master, &group.replicas.iter().collect::<Vec<_>>());
    wait_until_guarded(&daemon, &name, &group.addrs());
    let writer = Writer::start(&group);
    let killed_at = group.master.kill9();
    let gap = writer.wait_for_gap(killed_at, &name, PATIENCE);
    assert!(gap.length < CRASH_GAP_MAX, "{gap:?}");
    assert_eq!(wait_for_failover(&daemon, &name)["outcome"], "done");
}

#[test]
fn a_slave_in_a_full_copy_is_not_elected() {
    let slow = Options::new().set("-full_copy_ms", "4000");
    let mut group = Group::start_each(KIND, &slow, &vec![Options::new(); 1]);
    let name = group.master.addr();
    let daemon = guard(&group, &[]);
    let (ip, port) = (group.master.ip(), group.master.port().to_string());
    group.replicas[0].cmd(&["SLAVEOF", &ip, &port, "RESTART"]);
    daemon.wait_for(&name, PATIENCE, |view| {
        let seen = instance(view, &group.replicas[0].addr()).expect("it is known");
        let why = seen["not_eligible_because"].as_str().unwrap_or_default();
        seen["eligible"] == false && why.contains("full sync")
    });
    group.master.kill9();
    wait_for_diagnosis(&daemon, &name, "NoEligibleReplica");
    assert_eq!(group.replicas[0].role(), "slave");
    assert!(failovers(&daemon, &name).is_empty());
}

#[test]
fn one_that_is_ahead_of_the_chosen_one_copies_everything() {
    let mut group = Group::start(KIND, 2);
    let name = group.master.addr();
    let barred = group.replicas[0].addr();
    let config = format!(
        "addr = \"127.0.0.1:0\"\ncheck_interval = 100\n[[group]]\nmaster = \"{name}\"\n\
         [[group.instance]]\naddr = \"{barred}\"\npriority = 0\n"
    );
    let daemon = guard_by_file(&config);
    wait_until_guarded(&daemon, &name, &group.addrs());
    // What is written now only the barred one gets.
    group.replicas[1].stop();
    for _ in 0..50 {
        group.master.cmd(&["INCR", "n"]);
    }
    let all = group.master.offset();
    wait_until("it has all", PATIENCE, || (group.replicas[0].offset() == all).then_some(()));
    group.master.kill9();
    group.replicas[1].cont();
    let chosen = group.replicas[1].addr();
    daemon.wait_for_master(&chosen, PATIENCE);
    let (ahead, new) = (&group.replicas[0], &group.replicas[1]);
    wait_until("it has its copy", PATIENCE, || {
        let done = [("repair", "done"), ("repair", "done")];
        let done = done.map(|(kind, outcome)| (kind.to_owned(), outcome.to_owned()));
        (repairs(&daemon, &name, &barred) == done).then_some(())
    });
    same_data(new, &[ahead], &["n"]);
    knows_no_order(&daemon, &name, &mut group, &chosen);
    let entry = wait_for_failover(&daemon, &name);
    let refused =
        entry["ranking"].as_array().expect("a list").iter().find(|p| p["addr"] == *barred);
    assert!(
        refused.is_some_and(|p| p["refused"].as_str().is_some_and(|w| w.contains("priority 0")))
    );
}

#[test]
fn a_promoted_slave_that_restarts_with_its_old_flags_is_the_master_again() {
    let mut group = Group::start(KIND, 1);
    let name = group.master.addr();
    // The first failover leaves nobody else.
    let daemon = guard(&group, &[]);
    group.master.kill9();
    let new = group.replicas[0].addr();
    daemon.wait_for_master(&new, PATIENCE);
    wait_for_failover(&daemon, &name);
    group.replicas[0].cmd(&["SET", "k", "after"]);
    group.replicas[0].kill9();
    group.replicas[0].restart();
    // Its flags make it a slave again, until the program finds it.
    let entry = wait_for_entry(&daemon, &name, ("repair", &new, "done"));
    assert!(step_names(&entry).contains(&"promoted"), "{entry:#}");
    assert_eq!(group.replicas[0].role(), "master");
    group.replicas[0].cmd(&["SET", "k2", "again"]);
    // Its old master comes back beside it, and copies.
    group.master.restart();
    wait_until_back(&daemon, &name, &group.master, &group.replicas[0]);
    same_data(&group.replicas[0], &[&group.master], &["k", "k2"]);
    assert_eq!(daemon.get("/master").body, new);
}

#[test]
fn a_replica_that_restarts_with_an_old_master_in_its_flags_copies_and_follows() {
    let mut group = Group::start(KIND, 2);
    let name = group.master.addr();
    let daemon = guard(&group, &[]);
    group.master.kill9();
    wait_for_failover(&daemon, &name);
    let new = daemon.get("/master").body;
    let index = usize::from(group.replicas[0].addr() == new);
    group.replicas[index].kill9();
    group.replicas[index].restart();
    let slave = &group.replicas[index];
    wait_until_back(&daemon, &name, slave, group.server(&new));
}

#[test]
fn a_master_that_lost_its_data_is_replaced_by_who_has_them() {
    let mut group = Group::start(KIND, 2);
    let name = group.master.addr();
    let daemon = guard(&group, &["-crash_down_time=3"]);
    for _ in 0..20 {
        group.master.cmd(&["INCR", "n"]);
    }
    group.wait_in_step();
    daemon.wait_for(&name, PATIENCE, |view| {
        group.addrs().iter().all(|addr| instance(view, addr).is_some_and(|i| i["offset"] == 21))
    });
    // A supervisor starts it again at once, on an empty disk.
    group.master.kill9();
    std::fs::remove_dir_all(group.master.dir().join("data")).expect("it is ours");
    group.master.restart();
    let entry = wait_for_failover(&daemon, &name);
    assert_eq!(entry["cause"], "MasterRestartedEmpty", "{entry:#}");
    let new = entry["new_master"].as_str().expect("one").to_owned();
    wait_until_back(&daemon, &name, &group.master, group.server(&new));
    assert_eq!(group.master.cmd(&["GET", "n"]), "20");
}

#[test]
fn a_switchover_loses_nothing_and_goes_back() {
    let group = Group::start(KIND, 2);
    let name = group.master.addr();
    let daemon = guard(&group, &[]);
    let mut writer = Writer::start(&group);
    let to = group.replicas[1].addr();
    let asked_at = now();
    let answer =
        daemon.post(&format!("/v1/groups/{name}/switchover"), &format!(r#"{{"to":"{to}"}}"#));
    assert_eq!((answer.status, &answer.json["outcome"]), (200, &"done".into()), "{}", answer.body);
    let gap = writer.wait_for_gap(asked_at, &name, PATIENCE);
    writer.wait_for_write(&to);
    assert_eq!(writer.two_masters(&name, &gap), Duration::ZERO);
    assert_eq!(writer.lost(&name, group.server(&to)), 0);
    wait_until("both follow", PATIENCE, || {
        let follows = |server: &Server| server.master_link() == Some((to.clone(), true));
        (follows(&group.master) && follows(&group.replicas[0])).then_some(())
    });
    daemon.wait_for(&name, PATIENCE, |view| view["diagnosis"]["name"] == "Healthy");
    for server in group.servers() {
        assert!(repairs(&daemon, &name, &server.addr()).is_empty(), "nobody had to copy");
        assert_eq!(server.info("replication")["first_log_id"], "1", "{}", server.addr());
    }
    let back_at = now();
    let body = format!(r#"{{"to":"{name}"}}"#);
    let back = daemon.post(&format!("/v1/groups/{name}/switchover"), &body);
    assert_eq!((back.status, &back.json["outcome"]), (200, &"done".into()), "{}", back.body);
    writer.wait_for_write(&name);
    let gap = writer.gap(back_at, &to).expect("it takes writes");
    assert_eq!(writer.two_masters(&to, &gap), Duration::ZERO);
    writer.stop();
    assert_eq!(writer.lost(&to, &group.master), 0);
    let keys: Vec<String> =
        group.addrs().iter().map(|a| crate::common::witness::key_of(a)).collect();
    let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
    let replicas: Vec<&Server> = group.replicas.iter().collect();
    same_data(&group.master, &replicas, &keys);
}

#[test]
fn a_switchover_to_one_that_hangs_is_undone_and_writes_go_on() {
    let mut group = Group::start(KIND, 1);
    let name = group.master.addr();
    let daemon = guard(&group, &["-max_down_time=10"]);
    let writer = Writer::start(&group);
    group.replicas[0].stop();
    let path = format!("/v1/groups/{name}/switchover");
    let answer = daemon.post(&path, r#"{"timeout_ms":1000}"#);
    let undone = answer.json["outcome"] == "undone" || answer.error_code() == Some("refused");
    assert!(undone, "{}", answer.body);
    writer.wait_for_write(&name);
    assert_eq!(group.master.info("server")["readonly"], "false");
    group.replicas[0].cont();
    assert_eq!(daemon.get("/master").body, name);
}

#[test]
fn a_master_that_was_made_read_only_by_hand_takes_writes_again() {
    let group = Group::start(KIND, 1);
    let name = group.master.addr();
    let daemon = guard(&group, &[]);
    group.master.cmd(&["SLAVEOF", "NO", "ONE", "READONLY"]);
    let view = wait_for_diagnosis(&daemon, &name, "MasterMisconfigured");
    let why = view["diagnosis"]["reason"].as_str().unwrap_or_default();
    assert!(why.contains("read-only"), "{view:#}");
    wait_until("it takes writes", PATIENCE, || group.master.try_cmd(&["SET", "k", "v"]).ok());
}
