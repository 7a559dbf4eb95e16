//! A healthy master is replaced on request, and nobody who was told "OK" is told a lie.

mod common;

use std::time::Duration;

use serde_json::Value;

use common::scenario::{guard, guard_with, on_each_kind, step_names, wait_until_follows};
use common::together::{guard_with_faulty_leader, wait_until_settled};
use common::{Daemon, Group, PATIENCE, Server, ServerKind, Writer, now, wait_until};

/// Ten times the promise, for a debug build on a machine that does much else.
const GAP_MAX: Duration = Duration::from_millis(150);

fn switch_over(daemon: &Daemon, name: &str, body: &str) -> Value {
    let answer = daemon.post(&format!("/v1/groups/{name}/switchover"), body);
    assert_eq!(answer.status, 200, "{}", answer.body);
    answer.json
}

fn newest(daemon: &Daemon, name: &str, kind: &str) -> Option<Value> {
    daemon.history(name).into_iter().find(|entry| entry["kind"] == kind)
}

/// Waits until a server has taken a hundred more writes.
fn wait_for_writes(writer: &Writer, addr: &str) {
    let since = now();
    wait_until("a hundred writes are acknowledged", PATIENCE, || {
        (writer.acknowledged_after(addr, since).len() >= 100).then_some(())
    });
}

#[test]
fn nothing_acknowledged_is_lost_and_nobody_is_copied_anew() {
    on_each_kind(|kind| {
        let group = Group::start(kind, 2);
        let name = group.master.addr();
        let daemon = guard(&group, &[]);
        let mut writer = Writer::start(&group);
        wait_for_writes(&writer, &name);
        let to = group.replicas[1].addr();
        let asked_at = now();
        let answer = switch_over(&daemon, &name, &format!(r#"{{"to":"{to}"}}"#));
        let gap = writer.wait_for_gap(asked_at, &name, PATIENCE);
        assert_eq!(gap.addr, to);
        wait_for_writes(&writer, &to);
        writer.stop();
        assert_eq!(writer.two_masters(&name, &gap), Duration::ZERO);
        assert_eq!(writer.lost(&name, group.server(&to)), 0);
        let last = writer.acknowledged_after(&name, asked_at).last().map(|w| w.answered_at);
        let silence = gap.ended_at.saturating_duration_since(last.unwrap_or(asked_at));
        assert!(silence < GAP_MAX, "{silence:?}");

        for (key, wanted) in [("outcome", "done"), ("old_master", &*name), ("new_master", &*to)] {
            assert_eq!(answer[key], wanted, "{answer:#}");
        }
        assert_eq!(answer["bytes_possibly_lost"], 0, "{answer:#}");
        assert!(answer["write_gap_ms"].as_f64().is_some_and(|ms| ms < 150.0), "{answer:#}");
        let new = group.server(&to);
        assert_eq!(daemon.get("/master").body, to);
        wait_until_follows(&daemon, &name, &group.master, new);
        wait_until_follows(&daemon, &name, &group.replicas[0], new);
        assert_eq!(new.info("stats")["sync_full"], "0", "{}", new.log());
        let entry = newest(&daemon, &name, "switchover").expect("it is in the history");
        let steps = step_names(&entry);
        for step in [
            "committed",
            "write_paused",
            "offsets_equal",
            "demoted",
            "promote_sent",
            "promoted",
            "recorded",
            "told",
            "repointed",
            "link_verified",
            "write_resumed",
            "clients_cut",
        ] {
            assert!(steps.contains(&step), "{step} in {entry:#}");
        }
        // And back, as often as one likes.
        let back = switch_over(&daemon, &name, &format!(r#"{{"to":"{name}"}}"#));
        assert_eq!((&back["outcome"], &back["epoch"]), (&"done".into(), &2.into()), "{back:#}");
        group.master.wait_for_role("master");
        group.master.cmd(&["SET", "after", "1"]);
    });
}

#[test]
fn a_dry_run_and_a_refusal_change_nothing() {
    let group = Group::start(ServerKind::Redis, 1);
    let name = group.master.addr();
    let daemon = guard(&group, &[]);
    let answer = switch_over(&daemon, &name, r#"{"dry_run":true}"#);
    assert_eq!(answer["dry_run"], true);
    assert_eq!(answer["outcome"], Value::Null);
    assert!(answer["plan"].as_array().is_some_and(|plan| plan.len() >= 4), "{answer:#}");
    let path = format!("/v1/groups/{name}/switchover");
    for (body, status, code) in [
        (format!(r#"{{"to":"{name}"}}"#), 409, "refused"),
        (r#"{"to":"127.0.0.1:1"}"#.to_owned(), 404, "unknown_instance"),
        (r#"{"dryrun":true}"#.to_owned(), 400, "bad_request"),
        (r#"{"timeout_ms":1}"#.to_owned(), 400, "bad_request"),
    ] {
        let answer = daemon.post(&path, &body);
        assert_eq!((answer.status, answer.error_code()), (status, Some(code)), "{}", answer.body);
    }
    let answer = daemon.post(&format!("/v1/groups/{name}/failover"), "{}");
    assert_eq!(answer.status, 409);
    assert!(answer.body.contains("use switchover"), "{}", answer.body);
    assert_eq!(daemon.group(&name).expect("it stays")["epoch"], 0);
    assert_eq!(group.master.role(), "master");
}

#[test]
fn a_candidate_that_hangs_is_given_up_and_writes_go_on() {
    on_each_kind(|kind| {
        let mut group = Group::start(kind, 1);
        let name = group.master.addr();
        let daemon = guard(&group, &["-max_down_time=10"]);
        let writer = Writer::start(&group);
        let asked_at = now();
        std::thread::scope(|scope| {
            let asking = scope.spawn(|| switch_over(&daemon, &name, r#"{"dry_run":true}"#));
            assert_eq!(asking.join().expect("an answer")["dry_run"], true);
        });
        // It hangs while it is waited for: a stopped replica has an established link for long.
        group.replicas[0].stop();
        let path = format!("/v1/groups/{name}/switchover");
        let answer = daemon.post(&path, r#"{"timeout_ms":1000}"#);
        let waited = asked_at.elapsed();
        assert!(waited < Duration::from_secs(5), "{waited:?}");
        if answer.status == 200 {
            assert_eq!(answer.json["outcome"], "undone", "{}", answer.body);
        } else {
            assert_eq!(answer.error_code(), Some("refused"), "{}", answer.body);
        }
        writer.wait_for_write(&name);
        group.replicas[0].cont();
        assert_eq!(group.master.role(), "master");
        assert_eq!(group.replicas[0].role(), "slave");
        assert_eq!(daemon.get("/master").body, name);
    });
}

#[test]
fn a_commit_that_is_lost_delays_it_and_loses_nothing() {
    let group = Group::start(ServerKind::Redis, 1);
    let name = group.master.addr();
    let fault = [("REDIS_FAILOVER_FAULT", "switchover-equal=fail,switchover-promoted=fail")];
    let daemon = guard_with(&group, &[], &fault);
    let mut writer = Writer::start(&group);
    let asked_at = now();
    let answer = switch_over(&daemon, &name, "{}");
    assert_eq!(answer["outcome"], "done", "{answer:#}");
    let gap = writer.wait_for_gap(asked_at, &name, PATIENCE);
    writer.stop();
    assert_eq!(writer.two_masters(&name, &gap), Duration::ZERO);
    assert_eq!(writer.lost(&name, &group.replicas[0]), 0);
}

#[test]
fn a_dead_master_is_replaced_by_hand_before_its_down_time() {
    on_each_kind(|kind| {
        let mut group = Group::start(kind, 2);
        let name = group.master.addr();
        let daemon = guard(&group, &["-max_down_time=60"]);
        group.master.stop();
        let path = format!("/v1/groups/{name}/failover");
        let dry = daemon.post(&path, r#"{"force":true,"dry_run":true}"#);
        assert_eq!(
            (dry.status, &dry.json["bytes_possibly_lost"]),
            (200, &0.into()),
            "{}",
            dry.body
        );
        let to = dry.json["new_master"].as_str().expect("somebody").to_owned();
        let answer = daemon.post(&path, &format!(r#"{{"force":true,"to":"{to}"}}"#));
        assert_eq!(answer.status, 200, "{}", answer.body);
        assert_eq!(
            (&answer.json["outcome"], &answer.json["new_master"]),
            (&"done".into(), &(*to).into())
        );
        let new = group.server(&to);
        assert_eq!(new.role(), "master");
        assert!(newest(&daemon, &name, "manual_failover").is_some());
        group.master.cont();
        wait_until_follows(&daemon, &name, &group.master, group.server(&to));
    });
}

/// The leader ends at a point; the next one finishes the switchover, or undoes it.
fn ends_at(point: &'static str) {
    let group = Group::start(ServerKind::Redis, 2);
    let name = group.master.addr();
    let (mut cluster, broken) = guard_with_faulty_leader(&group, &[], &format!("{point}=exit"));
    let mut writer = Writer::start(&group);
    let asked_at = now();
    let other = (broken + 1) % 3;
    // Any node takes it; nobody is left who could answer.
    let answer = cluster.node(other).post(&format!("/v1/groups/{name}/switchover"), "{}");
    assert_eq!(
        (answer.status, answer.error_code()),
        (504, Some("unknown_outcome")),
        "{}",
        answer.body
    );
    assert_eq!(cluster.wait_for_end(broken).code(), Some(1));
    let entry = wait_until("the next leader has ended it", PATIENCE, || {
        let entry = newest(cluster.node(other), &name, "switchover")?;
        (entry["outcome"] != "running").then_some(entry)
    });
    let outcome = entry["outcome"].as_str().expect("a text").to_owned();
    assert!(["done", "undone"].contains(&&*outcome), "{entry:#}");
    assert!(step_names(&entry).contains(&"resumed_by"), "{entry:#}");
    let master = entry["new_master"].as_str().unwrap_or(&name).to_owned();
    let servers: Vec<&Server> = group.servers().collect();
    wait_until_settled(&cluster, &name, &servers, &master);
    writer.wait_for_write(&master);
    writer.stop();
    assert_eq!(writer.lost(&name, group.server(&master)), 0);
    if master != name {
        let gap = writer.gap(asked_at, &name).expect("it takes writes");
        assert_eq!(writer.two_masters(&name, &gap), Duration::ZERO);
    }
    cluster.clear_fault(broken);
    cluster.start(broken);
}

#[test]
fn the_next_leader_goes_on_after_the_pause() {
    ends_at("switchover-paused");
}

#[test]
fn the_next_leader_goes_on_before_the_demotion() {
    ends_at("switchover-equal");
}

#[test]
fn the_next_leader_goes_on_after_the_promotion() {
    ends_at("switchover-promoted");
}
