//! A failover that fails: what is tried again, what is halted until somebody resumes it, and what a late command does.

mod common;

use serde_json::Value;

use common::daemon::instance;
use common::scenario::{
    failovers, guard_with, holds, on_each_kind, times_told, wait_for_entry, wait_for_failover,
    wait_until_follows, wait_until_guarded,
};
use common::{Daemon, Group, Options, PATIENCE, Server, ServerKind, wait_until};

const FAULT: &str = "REDIS_FAILOVER_FAULT";
/// Between the last look at the candidate and the command: time to stop it.
const PAUSE: &str = "before-promote-send=sleep:150";

/// Kills the master and stops the candidate before the command reaches it: the command lies in its socket.
fn lose_the_promotion(group: &mut Group, daemon: &Daemon, candidate: &str) {
    group.master.kill9();
    daemon.wait_for_log("fault at before-promote-send", PATIENCE);
    group.server_mut(candidate).stop();
}

/// The instances with which something failed, in order.
fn attempts(entry: &Value) -> Vec<&str> {
    let steps = entry["steps"].as_array().expect("a list");
    let failed = steps.iter().filter(|step| step["name"] == "failed");
    failed.filter_map(|step| step["addr"].as_str()).collect()
}

#[test]
fn a_candidate_whose_promotion_stays_unknown_is_given_up_for_the_next_and_demoted_when_it_wakes() {
    on_each_kind(|kind| {
        let options = ["1", "100", "100"].map(|at| Options::new().set("replica-priority", at));
        let mut group = Group::start_each(kind, &Options::new(), &options);
        let name = group.master.addr();
        let lost = group.replicas[0].addr();
        let daemon = guard_with(&group, &["-max_down_time=1"], &[(FAULT, PAUSE)]);
        group.wait_in_step();
        lose_the_promotion(&mut group, &daemon, &lost);
        let entry = wait_for_failover(&daemon, &name);
        let new = entry["new_master"].as_str().expect("there is one").to_owned();
        assert_ne!(new, lost);
        assert_eq!((&entry["outcome"], &entry["epoch"]), (&"done".into(), &2.into()), "{entry:#}");
        assert_eq!(attempts(&entry).first(), Some(&&*lost), "{entry:#}");
        let gap = entry["write_gap_ms"].as_f64().expect("it is known");
        assert!((1000.0..3000.0).contains(&gap), "promote_timeout is 1 s: {gap}");
        daemon.wait_for_log("is given up", PATIENCE);
        assert_eq!(daemon.group(&name).expect("it is guarded")["status"], "active");

        // It executes what it was told a while ago, and is put right within one look.
        group.replicas[0].cont();
        let demotion = wait_for_entry(&daemon, &name, ("demotion", &lost, "done"));
        let reason = demotion["reason"].as_str().expect("a sentence");
        assert!(reason.contains("given up"), "{reason}");
        wait_until_follows(&daemon, &name, &group.replicas[0], group.server(&new));
        holds("one master", || {
            let view = daemon.group(&name).expect("it is guarded");
            view["epoch"] == 2 && view["master"] == new && group.server(&new).role() == "master"
        });
        for replica in group.replicas.iter().filter(|replica| replica.addr() != new) {
            wait_until_follows(&daemon, &name, replica, group.server(&new));
        }
    });
}

/// A group whose only candidate was stopped under its promotion.
fn halted(kind: ServerKind) -> (Group, String, Daemon) {
    // What is restarted here has its data still: one without is another case.
    let mut group = Group::start_with(kind, 1, &Options::durable());
    group.wait_until_durable();
    let name = group.master.addr();
    let candidate = group.replicas[0].addr();
    let daemon = guard_with(&group, &["-max_down_time=1"], &[(FAULT, PAUSE)]);
    lose_the_promotion(&mut group, &daemon, &candidate);
    daemon.wait_for(&name, PATIENCE, |view| view["status"] == "halted");
    (group, name, daemon)
}

fn resume(daemon: &Daemon, name: &str) {
    let answer = daemon.post(&format!("/v1/groups/{name}/resume"), "");
    assert_eq!(answer.status, 200, "{}", answer.body);
    assert_ne!(answer.json["group"]["status"], "halted");
}

#[test]
fn a_failover_that_failed_halts_the_group_until_it_is_resumed() {
    on_each_kind(|kind| {
        let (mut group, name, daemon) = halted(kind);
        let candidate = group.replicas[0].addr();
        let view = daemon.group(&name).expect("it is guarded");
        assert_eq!((&view["master"], &view["epoch"]), (&(&*name).into(), &1.into()));
        let reason = view["status_reason"].as_str().expect("a sentence");
        assert!(reason.contains(&candidate) && reason.contains("resume"), "{reason}");
        let idle = view["diagnosis"]["not_acting_because"].as_str().expect("a sentence");
        assert!(idle.contains("halted"), "{idle}");
        let entry = wait_for_failover(&daemon, &name);
        assert_eq!((&entry["outcome"], &entry["new_master"]), (&"failed".into(), &Value::Null));
        assert_eq!(attempts(&entry), [&*candidate]);
        let health = daemon.get("/v1/health");
        let problems = health.json["problems"].to_string();
        assert!(problems.contains("halted") && problems.contains(&name), "{problems}");
        daemon.wait_for_log("the group is halted", PATIENCE);

        // It wakes, executes what it was told, and is a master. Nobody says anything to it.
        group.replicas[0].cont();
        group.replicas[0].wait_for_role("master");
        let told = times_told(&group.replicas[0]);
        daemon.wait_for(&name, PATIENCE, |view| {
            instance(view, &candidate).is_some_and(|seen| seen["role"] == "master")
        });
        holds("no command is sent to a halted group", || {
            times_told(&group.replicas[0]) == told
                && daemon.get("/master").body == name
                && daemon.group(&name).is_some_and(|view| view["status"] == "halted")
        });

        resume(&daemon, &name);
        daemon.wait_for_log("was resumed", PATIENCE);
        daemon.wait_for_master(&candidate, PATIENCE);
        let entry = wait_for_failover(&daemon, &name);
        assert_eq!((&entry["outcome"], &entry["epoch"]), (&"done".into(), &2.into()));
        assert_eq!(group.replicas[0].role(), "master");
        group.master.restart();
        wait_until_follows(&daemon, &name, &group.master, &group.replicas[0]);
    });
}

#[test]
fn a_resumed_group_goes_on_as_soon_as_it_can() {
    on_each_kind(|kind| {
        let (mut group, name, daemon) = halted(kind);
        let candidate = group.replicas[0].addr();
        resume(&daemon, &name);
        holds("nobody can be promoted", || {
            daemon.group(&name).is_some_and(|view| view["master"] == name)
        });
        group.replicas[0].cont();
        daemon.wait_for_master(&candidate, PATIENCE);
        assert_eq!(wait_for_failover(&daemon, &name)["outcome"], "done");
        group.replicas[0].wait_for_role("master");
        // To resume a group that is not halted changes nothing.
        resume(&daemon, &name);
        assert_eq!(failovers(&daemon, &name).len(), 2);
    });
}

#[test]
fn a_master_that_returns_to_a_halted_group_is_master_again_once_it_is_resumed() {
    on_each_kind(|kind| {
        let (mut group, name, daemon) = halted(kind);
        let candidate = group.replicas[0].addr();
        group.master.restart();
        group.replicas[0].cont();
        group.replicas[0].wait_for_role("master");
        let told = times_told(&group.replicas[0]);
        daemon.wait_for(&name, PATIENCE, |view| {
            let is = |addr: &str, role: &str| {
                instance(view, addr).is_some_and(|seen| seen["role"] == role)
            };
            view["diagnosis"]["name"] == "TwoMasters" && is(&candidate, "master")
        });
        holds("no command is sent to a halted group", || {
            times_told(&group.replicas[0]) == told && times_told(&group.master) == 0
        });
        resume(&daemon, &name);
        wait_until_follows(&daemon, &name, &group.replicas[0], &group.master);
        wait_for_entry(&daemon, &name, ("demotion", &candidate, "done"));
        assert_eq!(daemon.get("/master").body, name);
        assert_eq!(group.master.role(), "master");
    });
}

#[test]
fn with_retry_a_failed_failover_is_tried_again_without_anybody() {
    on_each_kind(|kind| {
        let mut group = Group::start(kind, 1);
        let name = group.master.addr();
        let candidate = group.replicas[0].addr();
        let args = ["-max_down_time=1", "-on_failed_failover=retry", "-failover_timeout=1"];
        let daemon = guard_with(&group, &args, &[(FAULT, PAUSE)]);
        lose_the_promotion(&mut group, &daemon, &candidate);
        let entry = wait_for_entry(&daemon, &name, ("failover", &name, "failed"));
        assert_eq!(attempts(&entry), [&*candidate]);
        let view = daemon.group(&name).expect("it is guarded");
        assert_eq!((&view["status"], &view["master"]), (&"active".into(), &(&*name).into()));
        group.replicas[0].cont();
        daemon.wait_for_master(&candidate, PATIENCE);
        let entry = wait_for_failover(&daemon, &name);
        assert_eq!((&entry["outcome"], &entry["epoch"]), (&"done".into(), &2.into()));
        group.replicas[0].wait_for_role("master");
        holds("it stays", || daemon.get("/master").body == candidate);
    });
}

#[test]
fn an_attempt_that_changed_nothing_halts_nothing() {
    on_each_kind(|kind| {
        let mut group = Group::start(kind, 1);
        let name = group.master.addr();
        let candidate = group.replicas[0].addr();
        let fault = [(FAULT, "before-promote-send=fail")];
        let daemon = guard_with(&group, &["-failover_timeout=1"], &fault);
        group.master.kill9();
        wait_for_entry(&daemon, &name, ("failover", &name, "failed"));
        let view = daemon.group(&name).expect("it is guarded");
        assert_eq!(view["status"], "active");
        let idle = daemon.wait_for(&name, PATIENCE, |view| {
            view["diagnosis"]["not_acting_because"].is_string() || view["master"] == candidate
        });
        assert_ne!(idle["status"], "halted");
        daemon.wait_for_master(&candidate, PATIENCE);
        let entry = wait_for_failover(&daemon, &name);
        assert_eq!((&entry["outcome"], &entry["epoch"]), (&"done".into(), &2.into()));
    });
}

#[test]
fn what_fails_once_on_the_way_is_done_again() {
    let points = [
        "before-decision-commit",
        "after-decision-commit",
        "after-promote-send",
        "after-promote-verify",
        "before-result-commit",
        "after-result-commit",
        "before-repoint",
        "after-first-repoint",
        "before-done-commit",
    ];
    on_each_kind(|kind| {
        for point in points {
            let mut group = Group::start(kind, 2);
            let name = group.master.addr();
            let fault = format!("{point}=fail");
            let daemon = guard_with(&group, &[], &[(FAULT, &fault)]);
            group.master.kill9();
            let new = wait_until(point, PATIENCE, || {
                let view = daemon.group(&name)?;
                assert_ne!(view["status"], "halted", "{point}");
                let is_done = view["status"] == "active" && view["master"] != name;
                is_done.then(|| view["master"].as_str().unwrap_or_default().to_owned())
            });
            daemon.wait_for_log(&format!("fault at {point}"), PATIENCE);
            let entry = wait_for_failover(&daemon, &name);
            assert_eq!(
                (&entry["outcome"], &entry["epoch"]),
                (&"done".into(), &1.into()),
                "{point}"
            );
            if point == "after-first-repoint" {
                assert!(attempts(&entry).is_empty(), "unknown is not failed: {entry:#}");
            }
            group.server(&new).wait_for_role("master");
            for replica in group.replicas.iter().filter(|replica| replica.addr() != new) {
                wait_until_follows(&daemon, &name, replica, group.server(&new));
            }
            let settled: Vec<String> = group.replicas.iter().map(Server::addr).collect();
            wait_until_guarded(&daemon, &name, &settled);
            assert_eq!(failovers(&daemon, &name).len(), 1, "{point}");
        }
    });
}

#[test]
fn a_demotion_whose_reply_is_lost_is_seen_to_have_happened() {
    on_each_kind(|kind| {
        let mut group = Group::start(kind, 1);
        let name = group.master.addr();
        let fault = [(FAULT, "after-first-repoint=fail")];
        let daemon = guard_with(&group, &[], &fault);
        group.master.kill9();
        daemon.wait_for_master(&group.replicas[0].addr(), PATIENCE);
        group.master.restart();
        wait_until_follows(&daemon, &name, &group.master, &group.replicas[0]);
        daemon.wait_for_log("fault at after-first-repoint", PATIENCE);
        wait_for_entry(&daemon, &name, ("demotion", &name, "done"));
        let failed = daemon.history(&name).into_iter().find(|entry| entry["outcome"] == "failed");
        assert_eq!(failed, None);
    });
}
