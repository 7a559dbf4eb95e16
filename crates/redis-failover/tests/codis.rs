//! codis: its dashboard is told of every new master of a group that it is to be told of, until it has it.

mod common;

use common::dashboard::Dashboard;
use common::scenario::{guard, wait_for_failover};
use common::{Daemon, Group, PATIENCE, ServerKind, wait_until};
use serde_json::Value;

fn guard_with(group: &Group, dashboard: &Dashboard, groups: &str) -> Daemon {
    let flags = dashboard.flags(groups);
    guard(group, &flags.iter().map(String::as_str).collect::<Vec<_>>())
}

/// The hook as `GET /v1/hooks` shows it.
fn hook(daemon: &Daemon) -> Value {
    daemon.get("/v1/hooks").json["hooks"][0].clone()
}

#[track_caller]
fn wait_for_order(dashboard: &Dashboard, servers: &[String]) {
    wait_until("codis has them in this order", PATIENCE, || {
        (dashboard.servers() == servers).then_some(())
    });
}

#[test]
fn the_dashboard_promotes_whoever_is_promoted_and_nobody_twice() {
    let mut group = Group::start(ServerKind::Redis, 1);
    let (old, new) = (group.master.addr(), group.replicas[0].addr());
    let dashboard = Dashboard::start(7, &[old.clone(), new.clone()]);
    let daemon = guard_with(&group, &dashboard, "all");
    group.master.kill9();
    wait_for_order(&dashboard, &[new.clone(), old.clone()]);
    let promotion = |addr: &str| {
        format!("PUT /api/topom/group/promote/95b62887719520f17e312eaa76d28f2b/7/{addr}")
    };
    assert_eq!(dashboard.promotions(), [promotion(&new)]);
    let shown = wait_until("it is told", PATIENCE, || {
        let shown = hook(&daemon);
        (shown["delivered"] == 1).then_some(shown)
    });
    assert_eq!((&shown["kind"], &shown["name"]), (&"codis".into(), &"codis".into()));
    assert_eq!(shown["events"], serde_json::json!(["after_failover", "switchover"]));

    // And back, by request.
    group.master.restart();
    group.master.wait_for_link(&group.replicas[0]);
    common::scenario::wait_until_guarded(&daemon, &old, &group.addrs());
    let answer = daemon.post(&format!("/v1/groups/{old}/switchover"), "{}");
    assert_eq!(answer.json["outcome"], "done", "{}", answer.body);
    wait_for_order(&dashboard, &[old.clone(), new.clone()]);
    assert_eq!(dashboard.promotions(), [promotion(&new), promotion(&old)]);
    let said = daemon.log() + &daemon.get("/v1/hooks").body;
    assert!(!said.contains("95b62887"), "what opens the dashboard is shown: {said}");
}

#[test]
fn a_refusal_is_shown_and_tried_again() {
    let mut group = Group::start(ServerKind::Redis, 1);
    let (old, new) = (group.master.addr(), group.replicas[0].addr());
    let dashboard = Dashboard::start(1, std::slice::from_ref(&old));
    let daemon = guard_with(&group, &dashboard, &old);
    group.master.kill9();
    assert_eq!(wait_for_failover(&daemon, &old)["outcome"], "done");
    let says = |words: &str| {
        wait_until(&format!("it says {words}"), PATIENCE, || {
            let shown = hook(&daemon);
            shown["last_error"].as_str().is_some_and(|why| why.contains(words)).then_some(())
        });
    };
    says(&format!("--group-add --gid=1 --addr={new}"));
    dashboard.refuse(Some("slots-migration is running = 1"));
    dashboard.add_server(&new);
    says("refuses: slots-migration is running = 1");
    dashboard.refuse(None);
    wait_for_order(&dashboard, &[new, old]);
    wait_until("nothing is left to be told", PATIENCE, || {
        let shown = hook(&daemon);
        (shown["queued"] == 0 && shown["delivered"] == 1).then_some(())
    });
}

#[test]
fn what_codis_has_otherwise_is_said_by_day() {
    let group = Group::start(ServerKind::Redis, 1);
    let (name, replica) = (group.master.addr(), group.replicas[0].addr());
    let says = |servers: &[String], words: &str| {
        let dashboard = Dashboard::start(3, servers);
        let daemon = guard_with(&group, &dashboard, "all");
        wait_until("the hook says so", PATIENCE, || {
            hook(&daemon)["last_error"]
                .as_str()
                .is_some_and(|why| why.contains(words))
                .then_some(())
        });
        daemon.wait_for_log(words, PATIENCE);
        assert!(dashboard.promotions().is_empty(), "it is said, and not changed");
    };
    let unknown = format!("a failover of {name} would not be followed: codis (the dashboard at");
    says(&["127.0.0.1:1".to_owned()], &unknown);
    says(&[replica, name.clone()], &format!("--promote-server --gid=3 --addr={name}"));
}

#[test]
fn a_dashboard_that_is_not_to_be_told_is_not() {
    let mut group = Group::start(ServerKind::Redis, 1);
    let addrs = group.addrs();
    let dashboard = Dashboard::start(1, &addrs);
    let daemon = guard_with(&group, &dashboard, "some-other-group");
    group.master.kill9();
    assert_eq!(wait_for_failover(&daemon, &addrs[0])["outcome"], "done");
    let shown = wait_until("the failover was told to whoever is", PATIENCE, || {
        let shown = hook(&daemon);
        (shown["queued"] == 0).then_some(shown)
    });
    assert_eq!(shown["delivered"], 0, "{shown}");
    assert_eq!((dashboard.servers(), dashboard.promotions().len()), (addrs, 0));
}

#[test]
fn a_dashboard_that_hangs_holds_nothing_up() {
    let hangs = std::net::TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let addr = hangs.local_addr().expect("it is bound");
    let mut group = Group::start(ServerKind::Redis, 1);
    let (old, new) = (group.master.addr(), group.replicas[0].addr());
    let args = [
        format!("-codis_dashboard={addr}"),
        "-codis_product=codis-demo".to_owned(),
        "-codis_groups=all".to_owned(),
        "-codis_timeout_ms=200".to_owned(),
    ];
    let daemon = guard(&group, &args.each_ref().map(String::as_str));
    group.master.kill9();
    assert_eq!(wait_for_failover(&daemon, &old)["outcome"], "done");
    daemon.wait_for_master(&new, PATIENCE);
    let why = format!("the dashboard of codis at {addr} did not answer within 200 ms");
    daemon.wait_for_log(&format!("the hook codis was not told of after_failover: {why}"), PATIENCE);
    assert_eq!(hook(&daemon)["queued"], 1);
}

#[test]
fn what_a_dead_leader_could_not_tell_the_next_one_does() {
    let mut group = Group::start(ServerKind::Redis, 1);
    let (old, new) = (group.master.addr(), group.replicas[0].addr());
    let dashboard = Dashboard::start(1, &[old.clone(), new.clone()]);
    dashboard.refuse(Some("slots-migration is running = 1"));
    let flags = dashboard.flags("all");
    let mut cluster =
        common::together::guard(&group, &flags.iter().map(String::as_str).collect::<Vec<_>>());
    let leader = cluster.leader_of_all();
    group.master.kill9();
    wait_until("it was tried", PATIENCE, || (!dashboard.promotions().is_empty()).then_some(()));
    cluster.kill9(leader);
    dashboard.refuse(None);
    wait_for_order(&dashboard, &[new, old]);
}
