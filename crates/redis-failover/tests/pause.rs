//! A pause: everything is seen and nothing is done, whoever is killed meanwhile, and what was changed by hand is adopted.

mod common;

use std::time::Duration;

use failover_core::time::Time;

use common::ports::Port;
use common::scenario::{
    failovers, guard, holds, on_each_kind, times_told, wait_for_entry, wait_for_failover,
    wait_until_follows,
};
use common::{Daemon, Group, PATIENCE};

#[track_caller]
fn post(daemon: &Daemon, path: &str, body: &str) {
    let answer = daemon.post(path, body);
    assert_eq!(answer.status, 200, "{}", answer.body);
}

#[test]
fn a_paused_group_is_watched_and_left_alone_until_it_is_resumed() {
    on_each_kind(|kind| {
        let mut group = Group::start(kind, 2);
        let name = group.master.addr();
        let daemon = guard(&group, &[]);
        post(&daemon, &format!("/v1/groups/{name}/pause"), r#"{"reason":"a new switch"}"#);
        let told = |group: &Group| -> u64 { group.replicas.iter().map(times_told).sum() };
        let before = told(&group);
        let view = daemon.group(&name).expect("it is guarded");
        assert_eq!(view["status"], "paused");
        let reason = view["status_reason"].as_str().expect("a sentence");
        assert!(reason.contains("a new switch"), "{reason}");
        let problems = daemon.get("/v1/health").json["problems"].to_string();
        assert!(problems.contains("a new switch"), "{problems}");

        group.master.kill9();
        daemon.wait_for(&name, PATIENCE, |view| {
            let why = view["diagnosis"]["not_acting_because"].as_str().unwrap_or_default();
            view["diagnosis"]["name"] == "MasterCrashed" && why.contains("paused")
        });
        holds("nothing is done", || told(&group) == before && daemon.get("/master").body == name);
        post(&daemon, "/v1/resume", "");
        let entry = wait_for_failover(&daemon, &name);
        assert_eq!((&entry["outcome"], &entry["epoch"]), (&"done".into(), &1.into()));
    });
}

#[test]
fn a_pause_ends_by_itself_and_what_it_is_told_is_checked() {
    on_each_kind(|kind| {
        let group = Group::start(kind, 1);
        let name = group.master.addr();
        let daemon = guard(&group, &[]);
        let path = format!("/v1/groups/{name}/pause");
        for body in [
            r#"{"until_at":"soon"}"#,
            r#"{"until_at":"2020-01-01T00:00:00Z"}"#,
            r#"{"until_at":7}"#,
            r#"{"reason":["x"]}"#,
            "[]",
        ] {
            let answer = daemon.post(&path, body);
            assert_eq!((answer.status, answer.error_code()), (400, Some("bad_request")), "{body}");
        }
        assert_eq!(daemon.group(&name).expect("it is guarded")["status"], "active");
        let answer = daemon.post("/v1/groups/nobody/pause", "");
        assert_eq!(answer.error_code(), Some("unknown_group"));

        let daemon_time = || {
            let as_of = daemon.get("/v1/groups").json["as_of"].as_str().map(str::to_owned);
            as_of.and_then(|as_of| Time::parse(&as_of)).expect("a moment")
        };
        let until = daemon_time() + Duration::from_secs(2);
        post(&daemon, "/v1/pause", &format!(r#"{{"until_at":"{until}"}}"#));
        assert_eq!(daemon.group(&name).expect("it is guarded")["status"], "paused");
        daemon.wait_for(&name, PATIENCE, |view| view["status"] == "active");
        assert!(daemon_time() >= until);
        assert!(failovers(&daemon, &name).is_empty());
    });
}

#[test]
fn a_master_that_was_changed_by_hand_during_a_pause_is_adopted() {
    on_each_kind(|kind| {
        let group = Group::start(kind, 2);
        let name = group.master.addr();
        let daemon = guard(&group, &[]);
        post(&daemon, &format!("/v1/groups/{name}/pause"), "");
        let new = &group.replicas[0];
        new.promote_by_hand();
        for server in [&group.master, &group.replicas[1]] {
            server.replica_of(new);
            server.wait_for_link(new);
        }
        holds("it is not adopted before", || daemon.get("/master").body == name);
        post(&daemon, &format!("/v1/groups/{name}/resume"), "");
        daemon.wait_for_master(&new.addr(), PATIENCE);
        let entry = wait_for_entry(&daemon, &name, ("adoption", &name, "done"));
        assert_eq!((&entry["new_master"], &entry["epoch"]), (&(&*new.addr()).into(), &1.into()));
        for server in [&group.master, &group.replicas[1]] {
            wait_until_follows(&daemon, &name, server, new);
        }
        daemon.wait_for(&name, PATIENCE, |view| view["diagnosis"]["name"] == "Healthy");
        assert!(failovers(&daemon, &name).is_empty());
    });
}

#[test]
fn a_pause_outlasts_a_restart_of_the_program() {
    on_each_kind(|kind| {
        let mut group = Group::start(kind, 1);
        let name = group.master.addr();
        let dir = common::temporary_dir();
        let port = Port::take();
        let node = port.number();
        let args = [
            "-check_interval=100".to_owned(),
            format!("-masters={name}"),
            format!("-raft_addr=127.0.0.1:{node}"),
            format!("-raft_cluster=127.0.0.1:{node}"),
            format!("-raft_data_dir={}", dir.path().display()),
        ];
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let mut daemon = Daemon::start(&args);
        daemon.wait_until_healthy(&name, &group.addrs());
        post(&daemon, &format!("/v1/groups/{name}/pause"), "");
        let before = times_told(&group.replicas[0]);
        daemon.kill9();
        drop(daemon);
        group.master.kill9();
        let daemon = Daemon::start(&args);
        daemon.wait_for(&name, PATIENCE, |view| {
            view["diagnosis"]["name"] == "MasterCrashed" && view["status"] == "paused"
        });
        holds("nothing is done", || times_told(&group.replicas[0]) == before);
        post(&daemon, &format!("/v1/groups/{name}/resume"), "");
        daemon.wait_for_master(&group.replicas[0].addr(), PATIENCE);
    });
}
