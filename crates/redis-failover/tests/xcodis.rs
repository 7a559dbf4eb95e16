//! xcodis: its proxies are led to the new master through a real ZooKeeper, and a group that it does not know is left alone.

mod common;

use std::time::Duration;

use common::scenario::{
    failovers, guard, wait_for_demotion, wait_for_failover, wait_until_guarded,
};
use common::together;
use common::xcodis::{Manner, Proxy, Tree, strings};
use common::{Agree, Cluster, Daemon, Group, PATIENCE, ServerKind, Store, wait_until};
use redis_failover::config::{Config, GroupSet, XcodisConfig};
use redis_failover::{Guard, Time};
use serde_json::{Value, json};
use zookeeper_client::CreateMode;

/// Ten times what it takes on a quiet machine from the promotion to the last acknowledgement.
const FOLLOWED_MAX: Duration = Duration::from_secs(1);

/// The same of the question before it, half of the times: clients wait for it.
const ASKED_MAX_MS: f64 = 100.0;

fn flags(flags: &[String]) -> Vec<&str> {
    flags.iter().map(String::as_str).collect()
}

/// A tree whose group 1 has these servers, the first of them the master, or nothing where ZooKeeper is not installed.
fn laid_out(store: &Store, group: &Group) -> Tree {
    let addrs = group.addrs();
    let kind = |index: usize| if index == 0 { "master" } else { "slave" };
    let servers: Vec<(&str, &str)> =
        addrs.iter().enumerate().map(|(index, addr)| (addr.as_str(), kind(index))).collect();
    Tree::lay_out(store, 1, &servers)
}

/// The hook as `GET /v1/hooks` shows it.
#[track_caller]
fn hook(daemon: &Daemon) -> Value {
    let hooks = daemon.get("/v1/hooks").json["hooks"].clone();
    let found =
        hooks.as_array().and_then(|hooks| hooks.iter().find(|hook| hook["name"] == "xcodis"));
    found.unwrap_or_else(|| panic!("no xcodis in {hooks}")).clone()
}

#[track_caller]
fn wait_for_error(daemon: &Daemon, words: &str) -> String {
    wait_until(&format!("the hook says {words}"), PATIENCE, || {
        let why = hook(daemon)["last_error"].as_str()?.to_owned();
        why.contains(words).then_some(why)
    })
}

/// Nothing waits, and everything was told.
#[track_caller]
fn wait_until_told(daemon: &Daemon) {
    wait_until("xcodis was told everything", PATIENCE, || {
        (hook(daemon)["queued"] == 0).then_some(())
    });
}

#[test]
fn proxies_follow_a_failover_and_the_old_master_stays_offline() {
    if !Agree::Zk.is_there() {
        return;
    }
    let mut group = Group::start(ServerKind::Redis, 2);
    let tree = laid_out(Store::shared(Agree::Zk), &group);
    let proxies: Vec<Proxy> = ["proxy_1", "proxy_2"]
        .iter()
        .map(|id| Proxy::start(&tree, id, "online", Manner::Follows))
        .collect();
    let _offline = Proxy::start(&tree, "proxy_3", "offline", Manner::Deaf);
    // What is no proxy is no reason to lead none.
    tree.create("proxy/notes", &json!("who may restart them"), CreateMode::Persistent);
    let daemon = guard(&group, &flags(&tree.flags("all")));
    let old = group.master.addr();
    group.master.kill9();
    let entry = wait_for_failover(&daemon, &old);
    let new = entry["new_master"].as_str().expect("it is done").to_owned();
    let (name, action) = tree.wait_for_acknowledged(1);
    for proxy in &proxies {
        proxy.wait_for_master(&new);
    }
    tree.wait_for_kind(1, &old, "offline");
    tree.wait_for_kind(1, &new, "master");
    let other = group.replicas.iter().map(|r| r.addr()).find(|addr| *addr != new);
    let other = other.expect("there are two");
    assert_eq!(tree.kind(1, &other).as_deref(), Some("slave"));

    // As its own programs write it.
    assert_eq!(name, "action_0000000000");
    assert_eq!((&action["type"], &action["target"]["id"]), (&json!("group_changed"), &json!(1)));
    assert_eq!(action["target"]["product_name"], tree.product());
    assert_eq!(strings(&action["receivers"]), ["proxy_1", "proxy_2"]);
    assert!(action["ts"].as_str().is_some_and(|ts| ts.parse::<u64>().is_ok()), "{action}");
    let servers = action["target"]["servers"].as_array().expect("a list");
    let as_told = |addr: &str, kind: &str| json!({"type": kind, "group_id": 1, "addr": addr});
    for (addr, kind) in [(&old, "offline"), (&new, "master"), (&other, "slave")] {
        assert!(servers.contains(&as_told(addr, kind)), "{addr} is {kind} in {servers:?}");
    }
    tree.wait_until_unlocked();
    wait_until_told(&daemon);
    let shown = hook(&daemon);
    assert_eq!((&shown["kind"], &shown["failed"]), (&json!("xcodis"), &json!(0)), "{shown}");
    assert_eq!(shown["last_error"], Value::Null);

    // What comes back has to be added by a person, who is told how.
    group.master.restart();
    wait_for_demotion(&daemon, &old);
    let advice = format!("run xcodis-config server add 1 {old} slave");
    daemon.wait_for_log(&advice, PATIENCE);
    assert_eq!(tree.kind(1, &old).as_deref(), Some("offline"));
    assert_eq!(tree.actions().len(), 1, "proxies are told of masters only");
}

/// The time that is promised, from the verified promotion to the last acknowledgement, by the clocks of one machine.
#[test]
fn proxies_follow_soon_after_the_promotion() {
    if !Agree::Zk.is_there() {
        return;
    }
    let store = Store::shared(Agree::Zk);
    let (mut took_ms, mut asked_ms) = (Vec::new(), Vec::new());
    for _ in 0..10 {
        let mut group = Group::start(ServerKind::Redis, 1);
        let tree = laid_out(store, &group);
        let _proxies: Vec<Proxy> = ["a", "b", "c"]
            .iter()
            .map(|id| Proxy::start(&tree, id, "online", Manner::Follows))
            .collect();
        let daemon = guard(&group, &flags(&tree.flags("all")));
        let old = group.master.addr();
        group.master.kill9();
        let entry = wait_for_failover(&daemon, &old);
        let (action, _) = tree.wait_for_acknowledged(1);
        let answers = tree.children(&format!("actions/{action}")).into_iter();
        let last = answers
            .filter_map(|id| tree.get(&format!("actions/{action}/{id}")))
            .map(|(_, stat)| stat.ctime)
            .max();
        let started = Time::parse(entry["started_at"].as_str().expect("a time")).expect("a time");
        let steps = entry["steps"].as_array().expect("a list");
        let at_ms = |name: &str| {
            let step = steps.iter().find(|step| step["name"] == name).expect("it was done");
            step["at_ms"].as_f64().expect("a number")
        };
        asked_ms.push(at_ms("vetted") - at_ms("dead_agreed"));
        let promoted_ms = started.as_micros() as f64 / 1000.0 + at_ms("promoted");
        took_ms.push(last.expect("three answered") as f64 - promoted_ms);
    }
    took_ms.sort_by(f64::total_cmp);
    asked_ms.sort_by(f64::total_cmp);
    eprintln!("from the promotion to the last acknowledgement, in ms: {took_ms:.0?}");
    eprintln!("xcodis asked before the failover, in ms: {asked_ms:.1?}");
    let worst = took_ms.last().expect("there are ten");
    assert!(asked_ms[asked_ms.len() / 2] < ASKED_MAX_MS, "{asked_ms:?}");
    assert!(*worst < FOLLOWED_MAX.as_secs_f64() * 1000.0, "{took_ms:?}");
}

#[test]
fn a_group_that_xcodis_does_not_know_is_left_alone_until_it_does() {
    if !Agree::Zk.is_there() {
        return;
    }
    let mut group = Group::start(ServerKind::Redis, 1);
    let (old, new) = (group.master.addr(), group.replicas[0].addr());
    let tree = Tree::lay_out(Store::shared(Agree::Zk), 1, &[("127.0.0.1:1", "master")]);
    let mut args = tree.flags("all");
    args.push("-failover_timeout=1".to_owned());
    let daemon = guard(&group, &flags(&args));
    // Said by day, before it matters.
    wait_for_error(&daemon, &format!("a failover of {old} would be vetoed: {old} is in no group"));
    group.master.kill9();
    let words = format!("{old} is in no group of xcodis (/zk/codis/db_{}/servers)", tree.product());
    let view = daemon.wait_for(&old, PATIENCE, |view| {
        let why = view["diagnosis"]["not_acting_because"].as_str();
        why.is_some_and(|why| why.contains(&words))
    });
    assert_eq!(view["master"], old);
    let entry = wait_for_failover(&daemon, &old);
    assert_eq!(entry["outcome"], "vetoed", "{entry:#}");
    assert!(entry["reason"].as_str().is_some_and(|why| why.contains(&words)), "{entry:#}");
    assert_eq!((group.replicas[0].role(), group.replicas[0].times_promoted()), ("slave".into(), 0));
    assert_eq!((tree.actions().len(), tree.children("LOCK").len()), (0, 0));

    // Somebody adds it, and the next time it is asked there is nothing to say against it. The new master is added with it.
    tree.make("servers/group_2");
    tree.add_server(2, &old, "master");
    daemon.wait_for_master(&new, PATIENCE);
    tree.wait_for_kind(2, &new, "master");
    assert_eq!(tree.kind(2, &old).as_deref(), Some("offline"));
    assert_eq!(tree.kind(1, "127.0.0.1:1").as_deref(), Some("master"));
    wait_until_told(&daemon);
}

/// As after a failover before the integration was turned on, or by a node that keeps nothing and died in between.
#[test]
fn another_master_in_xcodis_is_said_by_day() {
    if !Agree::Zk.is_there() {
        return;
    }
    let group = Group::start(ServerKind::Redis, 1);
    let (master, replica) = (group.master.addr(), group.replicas[0].addr());
    let servers = [(master.as_str(), "slave"), (replica.as_str(), "master")];
    let tree = Tree::lay_out(Store::shared(Agree::Zk), 1, &servers);
    let daemon = guard(&group, &flags(&tree.flags("all")));
    let advice = format!("somebody runs xcodis-config server promote 1 {master}");
    wait_for_error(&daemon, &advice);
    daemon.wait_for_log(&advice, PATIENCE);
    assert_eq!(tree.kind(1, &replica).as_deref(), Some("master"), "it is said, and not changed");
}

#[test]
fn a_product_that_is_not_there_is_named() {
    if !Agree::Zk.is_there() {
        return;
    }
    let mut group = Group::start(ServerKind::Redis, 1);
    let name = group.master.addr();
    let args = [
        format!("-xcodis_addr={}", Store::shared(Agree::Zk).addrs()),
        "-xcodis_product=mistyped".to_owned(),
        format!("-xcodis_groups={name}"),
    ];
    let daemon = guard(&group, &flags(&args));
    group.master.kill9();
    daemon.wait_for(&name, PATIENCE, |view| {
        let why = view["diagnosis"]["not_acting_because"].as_str();
        why.is_some_and(|why| why.contains("xcodis has no product \"mistyped\""))
    });
    assert_eq!(group.replicas[0].role(), "slave");
}

#[test]
fn a_group_that_is_not_named_is_nobodys_affair() {
    if !Agree::Zk.is_there() {
        return;
    }
    let mut group = Group::start(ServerKind::Redis, 1);
    let tree = laid_out(Store::shared(Agree::Zk), &group);
    let old = group.master.addr();
    let daemon = guard(&group, &flags(&tree.flags("some-other-group")));
    group.master.kill9();
    assert_eq!(wait_for_failover(&daemon, &old)["outcome"], "done");
    wait_until_told(&daemon);
    assert_eq!(hook(&daemon)["delivered"], 0);
    assert_eq!(tree.kind(1, &old).as_deref(), Some("master"));
    assert_eq!(tree.children("actions").len() + tree.children("LOCK").len(), 0);
}

#[test]
fn a_switchover_and_its_way_back_are_followed() {
    if !Agree::Zk.is_there() {
        return;
    }
    let group = Group::start(ServerKind::Redis, 1);
    let (old, new) = (group.master.addr(), group.replicas[0].addr());
    let tree = laid_out(Store::shared(Agree::Zk), &group);
    let proxy = Proxy::start(&tree, "proxy_1", "online", Manner::Follows);
    let daemon = guard(&group, &flags(&tree.flags(&old)));
    let switch = |to: &str| {
        let path = format!("/v1/groups/{old}/switchover");
        let answer = daemon.post(&path, &format!(r#"{{"to":"{to}"}}"#));
        assert_eq!(answer.json["outcome"], "done", "{}", answer.body);
    };
    switch(&new);
    proxy.wait_for_master(&new);
    tree.wait_for_acknowledged(1);
    assert_eq!(tree.kind(1, &old).as_deref(), Some("offline"), "until somebody adds it again");
    wait_until_guarded(&daemon, &old, &group.addrs());
    switch(&old);
    proxy.wait_for_master(&old);
    tree.wait_for_acknowledged(2);
    assert_eq!(tree.kind(1, &new).as_deref(), Some("offline"));
    assert_eq!(tree.kind(1, &old).as_deref(), Some("master"));
    tree.wait_until_unlocked();
}

#[test]
fn a_proxy_that_does_not_follow_is_told_to_exit() {
    if !Agree::Zk.is_there() {
        return;
    }
    let mut group = Group::start(ServerKind::Redis, 1);
    let (old, new) = (group.master.addr(), group.replicas[0].addr());
    let tree = laid_out(Store::shared(Agree::Zk), &group);
    let follows = Proxy::start(&tree, "proxy_1", "online", Manner::Follows);
    let deaf = Proxy::start(&tree, "proxy_2", "online", Manner::Deaf);
    let dies = Proxy::start(&tree, "proxy_3", "online", Manner::Deaf);
    let mut args = tree.flags("all");
    args.push("-xcodis_ack_timeout_ms=1500".to_owned());
    let daemon = guard(&group, &flags(&args));
    group.master.kill9();
    follows.wait_for_master(&new);
    drop(dies);
    let why = wait_for_error(&daemon, "did not follow the new master within 1.5 s");
    assert!(why.contains("the proxies proxy_2 did"), "the dead one is not waited for: {why}");
    wait_until("the deaf one exits", PATIENCE, || deaf.has_exited().then_some(()));
    wait_until_told(&daemon);
    assert_eq!((hook(&daemon)["delivered"].as_u64(), follows.has_exited()), (Some(2), false));
    assert_eq!(tree.actions().len(), 1, "it is not announced again");
    assert_eq!(tree.kind(1, &old).as_deref(), Some("offline"));
    tree.wait_until_unlocked();
}

/// It read the tree before it changed, and was not among those that were told.
#[test]
fn a_proxy_that_takes_part_meanwhile_is_told_as_well() {
    if !Agree::Zk.is_there() {
        return;
    }
    let mut group = Group::start(ServerKind::Redis, 1);
    let new = group.replicas[0].addr();
    let tree = laid_out(Store::shared(Agree::Zk), &group);
    let slow = Proxy::start(&tree, "proxy_1", "online", Manner::Deaf);
    let daemon = guard(&group, &flags(&tree.flags("all")));
    group.master.kill9();
    tree.wait_for_kind(1, &new, "master");
    let late = Proxy::start(&tree, "proxy_2", "online", Manner::Follows);
    slow.follow();
    late.wait_for_master(&new);
    let (_, action) = tree.wait_for_acknowledged(2);
    assert_eq!(strings(&action["receivers"]), ["proxy_1", "proxy_2"]);
    wait_until_told(&daemon);
    tree.wait_until_unlocked();
}

/// One after the other, since all of them need the same lock.
#[test]
fn groups_that_fail_together_are_all_followed() {
    if !Agree::Zk.is_there() {
        return;
    }
    let mut groups: Vec<Group> = (0..3).map(|_| Group::start(ServerKind::Redis, 1)).collect();
    let tree = laid_out(Store::shared(Agree::Zk), &groups[0]);
    for (id, group) in (2..).zip(&groups[1..]) {
        tree.make(&format!("servers/group_{id}"));
        tree.add_server(id, &group.master.addr(), "master");
        tree.add_server(id, &group.replicas[0].addr(), "slave");
    }
    let _proxy = Proxy::start(&tree, "proxy_1", "online", Manner::Follows);
    let masters: Vec<String> = groups.iter().map(|group| group.master.addr()).collect();
    let mut args = tree.flags("all");
    args.push(format!("-masters={}", masters.join(",")));
    let daemon = guard(&groups[0], &flags(&args));
    for group in &groups[1..] {
        wait_until_guarded(&daemon, &group.master.addr(), &group.addrs());
    }
    for group in &mut groups {
        group.master.kill9();
    }
    for (id, group) in (1..).zip(&groups) {
        tree.wait_for_kind(id, &group.replicas[0].addr(), "master");
        assert_eq!(tree.kind(id, &group.master.addr()).as_deref(), Some("offline"));
    }
    wait_until_told(&daemon);
    tree.wait_for_acknowledged(3);
    tree.wait_until_unlocked();
}

/// The same for a host: nothing of it is the program's alone.
#[test]
fn a_host_that_embeds_it_leads_proxies_too() {
    if !Agree::Zk.is_there() {
        return;
    }
    let mut group = Group::start(ServerKind::Redis, 1);
    let (old, new) = (group.master.addr(), group.replicas[0].addr());
    let store = Store::shared(Agree::Zk);
    let tree = laid_out(store, &group);
    let proxy = Proxy::start(&tree, "proxy_1", "online", Manner::Follows);
    let xcodis = XcodisConfig {
        addr: vec![store.addrs()],
        product: tree.product().to_owned(),
        groups: GroupSet::Named([old.clone()].into()),
        ..XcodisConfig::default()
    };
    let masters = vec![old.parse().expect("an address")];
    let config = Config { addr: None, masters, xcodis, ..Config::default() };
    let runtime = tokio::runtime::Runtime::new().expect("threads can be started");
    let guard = runtime.block_on(Guard::builder(config).start()).expect("it starts");
    wait_until("the replica is known", PATIENCE, || {
        let group = guard.group(&old)?;
        group.instances.iter().any(|one| one.addr.to_string() == new && one.eligible).then_some(())
    });
    group.master.kill9();
    proxy.wait_for_master(&new);
    tree.wait_for_acknowledged(1);
    assert_eq!(guard.hooks()[0].kind, "xcodis");
    runtime.block_on(guard.stop());
    tree.wait_until_unlocked();
}

#[test]
fn somebody_who_has_the_lock_and_lives_is_waited_for() {
    if !Agree::Zk.is_there() {
        return;
    }
    let mut group = Group::start(ServerKind::Redis, 1);
    let (old, new) = (group.master.addr(), group.replicas[0].addr());
    let tree = laid_out(Store::shared(Agree::Zk), &group);
    let mut args = tree.flags("all");
    args.push("-xcodis_lock_timeout_ms=1500".to_owned());
    let daemon = guard(&group, &flags(&args));
    let (lock, living) = tree.locked_by(4711, true);
    group.master.kill9();
    assert_eq!(wait_for_failover(&daemon, &old)["outcome"], "done", "Redis waits for nobody");
    wait_for_error(&daemon, "other.example-4711 (\"slot range-set\") has the lock of xcodis");
    assert_eq!(tree.kind(1, &old).as_deref(), Some("master"), "nothing is done without the lock");
    // One place in the queue at a time, and none that is left over.
    assert!(tree.children("LOCK").len() <= 2);
    tree.delete(&lock);
    tree.delete(&living);
    tree.wait_for_kind(1, &new, "master");
    wait_until_told(&daemon);
    tree.wait_until_unlocked();
}

#[test]
fn a_lock_whose_owner_died_is_taken_away() {
    if !Agree::Zk.is_there() {
        return;
    }
    let mut group = Group::start(ServerKind::Redis, 1);
    let (old, new) = (group.master.addr(), group.replicas[0].addr());
    let tree = laid_out(Store::shared(Agree::Zk), &group);
    let daemon = guard(&group, &flags(&tree.flags("all")));
    let (orphan, _) = tree.locked_by(4711, false);
    group.master.kill9();
    tree.wait_for_kind(1, &new, "master");
    wait_until_told(&daemon);
    tree.wait_until_unlocked();
    let name = orphan.rsplit('/').next().expect("a path has a name");
    daemon.wait_for_log(&format!("LOCK/{name} was left by other.example-4711"), PATIENCE);
    assert_eq!(tree.kind(1, &old).as_deref(), Some("offline"));
}

#[test]
fn a_node_that_stops_gives_its_lock_back() {
    if !Agree::Zk.is_there() {
        return;
    }
    let mut group = Group::start(ServerKind::Redis, 1);
    let new = group.replicas[0].addr();
    let tree = laid_out(Store::shared(Agree::Zk), &group);
    let _deaf = Proxy::start(&tree, "proxy_1", "online", Manner::Deaf);
    let mut daemon = guard(&group, &flags(&tree.flags("all")));
    group.master.kill9();
    tree.wait_for_kind(1, &new, "master");
    assert_eq!(tree.children("LOCK").len(), 1, "it is held until the proxy follows");
    assert!(daemon.stop().success());
    assert_eq!(tree.children("LOCK"), Vec::<String>::new());
}

/// Whoever is asked and does not answer has no say: a group without master is worse than proxies that follow late.
#[test]
fn failovers_go_on_while_zookeeper_is_away_and_proxies_follow_when_it_is_back() {
    if !Agree::Zk.is_there() {
        return;
    }
    let mut store = Store::start(Agree::Zk, 1);
    let mut group = Group::start(ServerKind::Redis, 2);
    let first = group.master.addr();
    let tree = laid_out(&store, &group);
    let bound = Duration::from_millis(300);
    let mut args = tree.flags("all");
    args.push(format!("-before_failover_timeout_ms={}", bound.as_millis()));
    let daemon = guard(&group, &flags(&args));
    // It hangs: asked, and waited for within the bound.
    store.freeze(0);
    let killed_at = group.master.kill9();
    let second = wait_for_failover(&daemon, &first);
    let took = killed_at.elapsed();
    assert_eq!(second["outcome"], "done", "{second:#}");
    assert!(took < bound + Duration::from_secs(3), "{took:?}");
    let second = second["new_master"].as_str().expect("it is done").to_owned();
    assert!(hook(&daemon)["queued"].as_u64() >= Some(1));
    store.thaw(0);
    tree.wait_for_kind(1, &second, "master");
    wait_until_told(&daemon);
    tree.wait_until_unlocked();

    // It is gone, over two changes: only the last one counts when it is back.
    group.master.restart();
    wait_for_demotion(&daemon, &first);
    wait_until_guarded(&daemon, &first, &group.addrs());
    store.kill9(0);
    wait_until("the node knows that it is away", PATIENCE, || {
        daemon.log().contains("xcodis").then_some(())
    });
    group.server_mut(&second).kill9();
    let third = wait_until("the second failover has ended", PATIENCE, || {
        let all = failovers(&daemon, &first);
        (all.len() == 2 && all[0]["outcome"] == "done").then(|| all[0].clone())
    });
    let third = third["new_master"].as_str().expect("it is done").to_owned();
    let fourth = group.addrs().into_iter().find(|addr| *addr != second && *addr != third);
    let fourth = fourth.expect("there are three");
    let path = format!("/v1/groups/{first}/switchover");
    let answer = wait_until("the last one can take over", PATIENCE, || {
        let answer = daemon.post(&path, &format!(r#"{{"to":"{fourth}"}}"#));
        (answer.status == 200 && answer.json["outcome"] == "done").then_some(answer)
    });
    assert_eq!(answer.json["new_master"], fourth.as_str());
    wait_for_error(&daemon, "xcodis");
    store.restart(0);
    tree.wait_for_kind(1, &fourth, "master");
    wait_until_told(&daemon);
    let masters: Vec<String> = group
        .addrs()
        .into_iter()
        .filter(|addr| tree.kind(1, addr).as_deref() == Some("master"))
        .collect();
    assert_eq!(masters, [fourth]);
    assert_eq!(tree.actions().len(), 2, "what was overtaken is not announced");
    assert_eq!(group.server(&third).role(), "slave");
    tree.wait_until_unlocked();
}

#[test]
fn a_leader_that_dies_before_the_proxies_follow_leaves_the_rest_to_the_next() {
    if !Agree::Zk.is_there() {
        return;
    }
    let mut group = Group::start(ServerKind::Redis, 1);
    let (old, new) = (group.master.addr(), group.replicas[0].addr());
    let tree = laid_out(Store::shared(Agree::Zk), &group);
    let slow = Proxy::start(&tree, "proxy_1", "online", Manner::Deaf);
    let args = tree.flags("all");
    let mut cluster: Cluster = together::guard(&group, &flags(&args));
    let leader = cluster.leader_of_all();
    group.master.kill9();
    tree.wait_for_kind(1, &new, "master");
    assert_eq!(tree.children("LOCK").len(), 1);
    cluster.kill9(leader);
    let next = wait_until("another node leads", PATIENCE, || {
        cluster.find_leader().filter(|node| *node != leader)
    });
    slow.follow();
    slow.wait_for_master(&new);
    wait_until("the next leader has seen it through", PATIENCE, || {
        let shown = hook(cluster.node(next));
        (shown["delivered"].as_u64() >= Some(1) && shown["queued"] == 0).then_some(())
    });
    let (_, action) = tree.wait_for_acknowledged(1);
    assert_eq!(strings(&action["receivers"]), ["proxy_1"]);
    assert_eq!(tree.kind(1, &old).as_deref(), Some("offline"));
    // What the dead one had left of the lock is gone as well.
    tree.wait_until_unlocked();
}

/// It waits for the lock while it loses the others, and gets it when they have led the proxies elsewhere.
#[test]
fn a_leader_that_wakes_up_too_late_leads_nobody_back() {
    if !Agree::Zk.is_there() {
        return;
    }
    let mut group = Group::start(ServerKind::Redis, 2);
    let first = group.master.addr();
    let tree = laid_out(Store::shared(Agree::Zk), &group);
    let proxy = Proxy::start(&tree, "proxy_1", "online", Manner::Follows);
    let (lock, living) = tree.locked_by(4711, true);
    let mut args = tree.flags("all");
    // Its place in the queue outlasts its sleep.
    args.push("-xcodis_session_timeout_ms=10000".to_owned());
    let mut cluster = together::guard(&group, &flags(&args));
    let leader = cluster.leader_of_all();
    group.master.kill9();
    let second = cluster.wait_for_failover(&first)["new_master"].clone();
    let second = second.as_str().expect("it is done").to_owned();
    wait_until("the leader waits for the lock", PATIENCE, || {
        (tree.children("LOCK").len() == 2).then_some(())
    });
    cluster.freeze(leader);
    let next = wait_until("another node leads", PATIENCE, || {
        cluster.find_leader().filter(|node| *node != leader)
    });
    group.server_mut(&second).kill9();
    let third = cluster.wait_for_failovers(&first, 2)["new_master"].clone();
    let third = third.as_str().expect("it is done").to_owned();
    wait_until("the next leader waits behind it", PATIENCE, || {
        (tree.children("LOCK").len() == 3).then_some(())
    });
    cluster.thaw(leader);
    tree.delete(&lock);
    tree.delete(&living);
    proxy.wait_for_master(&third);
    wait_until("the next leader has seen it through", PATIENCE, || {
        (hook(cluster.node(next))["queued"] == 0).then_some(())
    });
    tree.wait_until_unlocked();
    let (_, action) = tree.wait_for_acknowledged(1);
    let desc = action["desc"].as_str().expect("a text");
    assert!(desc.contains(&format!("{second} to {third} in epoch 2")), "{desc}");
    for addr in [&first, &second] {
        assert_eq!(tree.kind(1, addr).as_deref(), Some("offline"), "{addr}");
    }
}
