//! What becomes of replicas: going away and coming back are in the history, and one that is gone for good is forgotten.

mod common;

use serde_json::Value;

use common::daemon::instance;
use common::scenario::{guard, on_each_kind, wait_until_guarded};
use common::{Daemon, Group, PATIENCE, wait_until};

/// The reasons of what the history has of a replica, oldest first.
fn events(daemon: &Daemon, name: &str, addr: &str) -> Vec<String> {
    let history = daemon.history(name).into_iter().rev();
    let events = history.filter(|entry| {
        entry["kind"] == "replica_event"
            && entry["old_master"] == addr
            && entry["outcome"] == "done"
    });
    events.filter_map(|entry: Value| entry["reason"].as_str().map(str::to_owned)).collect()
}

#[track_caller]
fn wait_for_event(daemon: &Daemon, name: &str, addr: &str, words: &str) {
    wait_until(words, PATIENCE, || {
        events(daemon, name, addr).last().is_some_and(|reason| reason.contains(words)).then_some(())
    });
}

#[test]
fn a_replica_that_goes_and_comes_back_is_in_the_history() {
    on_each_kind(|kind| {
        let mut group = Group::start(kind, 2);
        let name = group.master.addr();
        let daemon = guard(&group, &["-max_down_time=1"]);
        let gone = group.replicas[0].addr();
        assert!(events(&daemon, &name, &gone).is_empty());
        group.replicas[0].kill9();
        wait_for_event(&daemon, &name, &gone, "went down");
        group.replicas[0].restart();
        wait_for_event(&daemon, &name, &gone, "is back");
        assert_eq!(events(&daemon, &name, &gone).len(), 2);
        let view = daemon.group(&name).expect("it is guarded");
        assert_eq!((&view["epoch"], &view["master"]), (&0.into(), &(&*name).into()));
    });
}

#[test]
fn a_replica_is_forgotten_on_request_and_found_again_when_it_comes_back() {
    on_each_kind(|kind| {
        let mut group = Group::start(kind, 2);
        let name = group.master.addr();
        let daemon = guard(&group, &[]);
        let gone = group.replicas[0].addr();
        let path = |addr: &str| format!("/v1/groups/{name}/replicas/{addr}");
        let answer = daemon.delete(&path(&gone));
        assert_eq!((answer.status, answer.error_code()), (409, Some("refused")));
        assert!(answer.body.contains("found again at once"), "{}", answer.body);
        assert_eq!(daemon.delete(&path("127.0.0.1:1")).error_code(), Some("unknown_instance"));
        assert_eq!(daemon.delete(&path("nonsense")).error_code(), Some("bad_request"));
        assert_eq!(daemon.delete(&path(&name)).error_code(), Some("refused"));

        group.replicas[0].kill9();
        daemon.wait_for(&name, PATIENCE, |view| {
            instance(view, &gone).is_some_and(|seen| seen["state"] == "down")
        });
        let answer = wait_until("the master has noticed too", PATIENCE, || {
            Some(daemon.delete(&path(&gone))).filter(|answer| answer.status == 200)
        });
        assert!(instance(&answer.json["group"], &gone).is_none(), "{}", answer.body);
        wait_for_event(&daemon, &name, &gone, "forgotten on request");
        group.replicas[0].restart();
        wait_until_guarded(&daemon, &name, &group.addrs());
    });
}
