//! What three nodes run when something happens: one of them runs it, and when that one dies the next one does.

mod common;

use std::time::Duration;

use common::script::Script;
use common::together::{guard, guard_with_faulty_leader};
use common::webhook::{Answer, Delivery, Webhook};
use common::{Cluster, Group, PATIENCE, ServerKind, Writer, wait_until};

const OK: Answer = Answer::Status(200, "thanks");
const DOWN: Answer = Answer::Status(503, "");
/// A twentieth of what a hook that hangs takes until it is killed, and room for an election on a busy machine.
const GAP_MAX: Duration = Duration::from_secs(3);

/// A config file that names this webhook, and the flag for it.
fn config_with(webhook: &Webhook) -> (tempfile::TempDir, String) {
    let dir = common::temporary_dir();
    let path = dir.path().join("failover.toml");
    let text = format!("[[webhook]]\nname = 'pager'\nurl = 'http://{}/'\n", webhook.addr());
    std::fs::write(&path, text).expect("the directory is ours");
    let flag = format!("-config={}", path.display());
    (dir, flag)
}

/// What the node with this number shows of the webhook.
fn delivered(cluster: &Cluster, node: usize) -> u64 {
    let hooks = cluster.node(node).get("/v1/hooks").json["hooks"].clone();
    hooks[0]["delivered"].as_u64().unwrap_or_else(|| panic!("no count in {hooks}"))
}

#[test]
fn one_node_runs_the_hooks_and_the_others_observe() {
    let mut group = Group::start(ServerKind::Redis, 1);
    let name = group.master.addr();
    let mut cluster = Cluster::plan(3);
    let scripts: Vec<(Script, Script)> =
        (0..3).map(|_| (Script::new(""), Script::new(""))).collect();
    for (node, (notify, reconfig)) in scripts.iter().enumerate() {
        cluster.set_for(node, &notify.flag("notification_script"));
        cluster.set_for(node, &reconfig.flag("client_reconfig_script"));
    }
    let cluster = common::together::start_guard(cluster, &group, &[]);
    let leader = cluster.leader_of_all();
    group.master.kill9();
    cluster.wait_for_failover(&name);
    for (node, (_, reconfig)) in scripts.iter().enumerate() {
        let role = if node == leader { "leader" } else { "observer" };
        reconfig.wait_for(&format!("{name} {role} start 127.0.0.1 {}", group.master.port()));
    }
    scripts[leader].0.wait_for_event("after_failover", 1);
    group.master.restart();
    scripts[leader].0.wait_for_event("master_returned", 1);
    // Whatever else was to be run has been by now: the last thing that happened was told.
    for (node, (notify, reconfig)) in scripts.iter().enumerate() {
        let told = notify.of_event("after_failover").len();
        assert_eq!(told, usize::from(node == leader), "node {node}: {:?}", notify.args());
        assert_eq!(reconfig.args().len(), 1, "node {node}: {:?}", reconfig.args());
    }
}

/// What the old leader could not deliver, the next one does, in the same words.
#[test]
fn a_leader_that_dies_before_a_delivery_leaves_it_to_the_next() {
    let mut group = Group::start(ServerKind::Redis, 2);
    let name = group.master.addr();
    let pager = Webhook::start(DOWN);
    let (_dir, config) = config_with(&pager);
    let mut cluster = guard(&group, &[&config]);
    let leader = cluster.leader_of_all();
    group.master.kill9();
    let entry = cluster.wait_for_failover(&name);
    let tried = pager.wait_for("after_failover", 1).remove(0);
    cluster.kill9(leader);
    pager.answer(OK);
    let next = wait_until("another node leads", PATIENCE, || {
        cluster.find_leader().filter(|node| *node != leader)
    });
    wait_until("the next leader has told it", PATIENCE, || {
        (delivered(&cluster, next) >= 2).then_some(())
    });
    let told = pager.of_event("after_failover");
    assert!(told.len() >= 2, "{told:?}");
    assert!(told.iter().all(|one| one.body == tried.body), "{told:#?}");
    assert_eq!(tried.json["history_id"], entry["id"]);
    assert_eq!(tried.json["new_master"], entry["new_master"]);
    // It is told, and nobody tells it again: neither this leader nor the one after it.
    cluster.start(leader);
    cluster.wait_until_guarded(&name, &group.replicas.iter().map(|r| r.addr()).collect::<Vec<_>>());
    let count = pager.of_event("after_failover").len();
    cluster.kill9(next);
    let third = wait_until("a third one leads", PATIENCE, || {
        cluster.find_leader().filter(|node| *node != next)
    });
    group.master.restart();
    wait_until("the third one tells what happens now", PATIENCE, || {
        (delivered(&cluster, third) >= 1).then_some(())
    });
    pager.wait_for("master_returned", 1);
    assert_eq!(pager.of_event("after_failover").len(), count);
}

/// The narrowest gap: the promotion is committed, and nobody was told yet.
#[test]
fn a_leader_that_dies_with_its_commit_leaves_everything_to_the_next() {
    let mut group = Group::start(ServerKind::Redis, 2);
    let name = group.master.addr();
    let pager = Webhook::start(OK);
    let (_dir, config) = config_with(&pager);
    let (mut cluster, leader) =
        guard_with_faulty_leader(&group, &[&config], "after-result-commit=exit");
    group.master.kill9();
    cluster.wait_for_end(leader);
    let told = pager.wait_for("after_failover", 1);
    cluster.wait_for_failover(&name);
    let next = cluster.leader();
    wait_until("the next leader has told it", PATIENCE, || {
        (delivered(&cluster, next) >= 1).then_some(())
    });
    let same = |one: &Delivery| one.header("idempotency-key") == told[0].header("idempotency-key");
    assert!(pager.of_event("after_failover").iter().all(same));
    assert_eq!(told[0].json["old_master"], name);
}

#[test]
fn a_node_that_knows_no_leader_any_more_says_so() {
    let group = Group::start(ServerKind::Redis, 1);
    let pager = Webhook::start(OK);
    let (_dir, config) = config_with(&pager);
    let mut cluster = guard(&group, &[&config]);
    let leader = cluster.leader_of_all();
    let others: Vec<usize> = (0..3).filter(|node| *node != leader).collect();
    assert!(pager.of_event("quorum_lost").is_empty(), "a start is no loss");
    cluster.kill9(leader);
    cluster.kill9(others[0]);
    let told = pager.wait_for("quorum_lost", 1).remove(0);
    assert_eq!(told.json["node"], cluster.id(others[1]));
    assert!(told.json["group"].is_null(), "{}", told.body);
    cluster.start(leader);
    let back = pager.wait_for("quorum_back", 1).remove(0);
    assert_eq!(back.json["node"], cluster.id(others[1]));
    assert_eq!(pager.of_event("quorum_lost").len(), 1);
}

#[test]
fn hooks_that_hang_hold_up_no_failover_of_three_nodes() {
    let bound = Duration::from_millis(300);
    let mut group = Group::start(ServerKind::Redis, 2);
    let name = group.master.addr();
    let pager = Webhook::start(Answer::Nothing);
    let (_dir, config) = config_with(&pager);
    let hangs = Script::new("sleep 600 & wait");
    let args = [
        config,
        hangs.flag("before_failover_script"),
        hangs.flag("client_reconfig_script"),
        hangs.flag("notification_script"),
        format!("-before_failover_timeout_ms={}", bound.as_millis()),
    ];
    let cluster = guard(&group, &args.each_ref().map(String::as_str));
    let mut writer = Writer::start(&group);
    let killed_at = group.master.kill9();
    let gap = writer.wait_for_gap(killed_at, &name, PATIENCE);
    writer.stop();
    assert!(gap.length >= bound && gap.length < bound + GAP_MAX, "{gap:?}");
    let entry = cluster.wait_for_failover(&name);
    assert_eq!(entry["outcome"], "done", "{entry:#}");
    pager.wait_for("after_failover", 1);
}

/// The leader that would have told it died with the master, and nobody can take over.
#[test]
fn whoever_begins_to_lead_tells_of_a_master_that_is_down() {
    let mut group = Group::start(ServerKind::Redis, 0);
    let name = group.master.addr();
    let pager = Webhook::start(OK);
    let (_dir, config) = config_with(&pager);
    let mut cluster = guard(&group, &[&config]);
    let leader = cluster.leader_of_all();
    let node = cluster.node_mut(leader).process();
    common::child::kill9_together(&mut [node, group.master.process()]);
    cluster.bury(leader);
    let told = pager.wait_for("master_down", 1).remove(0);
    assert_eq!((&told.json["group"], &told.json["addr"]), (&name.clone().into(), &name.into()));
    let next = cluster.leader();
    assert_eq!(told.json["node"], cluster.id(next));
}
