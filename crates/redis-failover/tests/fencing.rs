//! Old masters that take no writes: `fencing = "min-replicas"` on real servers, with writers that remember every
//! acknowledged write.

mod common;

use std::time::Duration;

use serde_json::Value;

use common::scenario::{
    guard, holds_for, on_each_kind, wait_for_diagnosis, wait_for_entry, wait_for_failover,
    wait_until_follows,
};
use common::witness::Outcome;
use common::{
    Cluster, Daemon, Group, Options, PATIENCE, Server, ServerKind, Writer, now, wait_until,
};

const ON: [&str; 2] = ["-fencing=min-replicas", "-max_down_time=1"];
/// What these make of a server: one replica, and the shortest max-lag.
const FENCED: (u32, u32) = (1, 2);
const OPEN: (u32, u32) = (0, 2);
/// An old master is seen, and demoted, within milliseconds; a write that it takes would be seen before.
const RESTART_AFTER: Duration = Duration::from_secs(2);

/// What its writes depend on: how many replicas, and how old their acknowledgement may be.
fn setting(server: &Server) -> (u32, u32) {
    let read = |name: &str| {
        let reply = server.try_cmd(&["CONFIG", "GET", name]).unwrap_or_default();
        reply.lines().nth(1).and_then(|value| value.parse().ok()).unwrap_or(u32::MAX)
    };
    (read("min-replicas-to-write"), read("min-replicas-max-lag"))
}

#[track_caller]
fn wait_for_setting(server: &Server, wanted: (u32, u32)) {
    let what = format!("{} depends on {wanted:?}", server.addr());
    wait_until(&what, PATIENCE, || (setting(server) == wanted).then_some(()));
}

/// Waits until every server is fenced, also after its restart, and the program says so.
#[track_caller]
fn wait_until_fenced(daemon: &Daemon, name: &str, group: &Group) -> Value {
    for server in group.servers() {
        wait_for_setting(server, FENCED);
        wait_until("it is in the file", PATIENCE, || {
            server.config_text().contains("min-replicas-to-write 1").then_some(())
        });
    }
    daemon.wait_for(name, PATIENCE, |view| view["fencing"]["min_replicas"] == 1)
}

/// The reasons of what was done to the fence of a master, newest first.
fn fence_entries(daemon: &Daemon, name: &str) -> Vec<String> {
    let history = daemon.history(name).into_iter();
    let reasons = history.filter_map(|entry| Some(entry["reason"].as_str()?.to_owned()));
    reasons.filter(|reason| reason.starts_with("min-replicas-to-write")).collect()
}

/// How often the server said that it has too few replicas.
fn refused_for_replicas(writer: &Writer, addr: &str) -> usize {
    let writes = writer.writes(addr).into_iter();
    writes
        .filter(|write| match &write.outcome {
            Outcome::Refused(why) => why.contains("NOREPLICAS"),
            Outcome::Acknowledged | Outcome::Unknown(_) => false,
        })
        .count()
}

#[test]
fn a_group_is_fenced_without_a_refused_write_and_has_its_settings_back_when_it_is_removed() {
    on_each_kind(|kind| {
        let options = Options::new().set("min-replicas-max-lag", "7");
        let group = Group::start_with(kind, 2, &options);
        let name = group.master.addr();
        let mut writer = Writer::start(&group);
        let daemon = guard(&group, &ON);
        let view = wait_until_fenced(&daemon, &name, &group);
        assert_eq!(view["fencing"]["mode"], "min-replicas");
        assert_eq!(view["diagnosis"]["name"], "Healthy", "{view:#}");
        holds_for(Duration::from_secs(3), "it stays fenced", || {
            group.servers().all(|server| setting(server) == FENCED)
        });
        let told = daemon.log().matches("with a max-lag of 2 s").count();
        assert_eq!(told, 3, "each is told once:\n{}", daemon.log());

        assert_eq!(daemon.delete(&format!("/master?masters={name}")).status, 200);
        assert_eq!(daemon.get("/master").body, "");
        assert_eq!(daemon.get(&format!("/v1/groups/{name}")).status, 404);
        for server in group.servers() {
            wait_for_setting(server, (0, 7));
        }
        daemon.wait_for_log("is not guarded any more", PATIENCE);
        writer.stop();
        assert_eq!(refused_for_replicas(&writer, &name), 0);
        assert!(fence_entries(&daemon, &name).is_empty());
    });
}

#[test]
fn an_old_master_that_restarts_takes_not_one_write() {
    on_each_kind(|kind| {
        let mut group = Group::start(kind, 2);
        let name = group.master.addr();
        let daemon = guard(&group, &ON);
        wait_until_fenced(&daemon, &name, &group);
        let mut writer = Writer::start(&group);
        let killed_at = group.master.kill9();
        let gap = writer.wait_for_gap(killed_at, &name, PATIENCE);
        let entry = wait_for_failover(&daemon, &name);
        assert!(!entry["reason"].as_str().is_some_and(|why| why.contains("not fenced")), "{entry}");
        wait_for_setting(group.server(&gap.addr), FENCED);
        std::thread::sleep(RESTART_AFTER.saturating_sub(killed_at.elapsed()));
        let restarted_at = now();
        group.master.restart();
        wait_until_follows(&daemon, &name, &group.master, group.server(&gap.addr));
        writer.stop();
        assert_eq!(writer.acknowledged_after(&name, killed_at).len(), 0);
        let asked = writer.writes(&name);
        let asked = asked.iter().filter(|write| write.sent_at >= restarted_at);
        assert!(asked.count() > 0, "somebody tried");
        assert!(!writer.acknowledged_after(&gap.addr, restarted_at).is_empty());
        assert_eq!(setting(&group.master), FENCED, "it holds it as a replica");
        daemon.wait_for(&name, PATIENCE, |view| view["fencing"]["min_replicas"] == 1);
    });
}

/// Its only replica is gone: it stops, and goes on when that is sure. The next one is heard, and it is fenced again.
#[test]
fn the_last_replica_that_is_lost_opens_the_master_and_the_next_one_closes_it() {
    on_each_kind(|kind| {
        let mut group = Group::start(kind, 1);
        let name = group.master.addr();
        let daemon = guard(&group, &ON);
        wait_until_fenced(&daemon, &name, &group);
        let mut writer = Writer::start(&group);
        let killed_at = group.replicas[0].kill9();
        let view = daemon.wait_for(&name, PATIENCE, |view| {
            view["diagnosis"]["reason"].as_str().is_some_and(|why| why.contains("takes no writes"))
        });
        assert_eq!(view["fencing"]["min_replicas"], 1);
        writer.wait_for_write(&name);
        let waited = killed_at.elapsed();
        assert!(waited >= Duration::from_secs(2), "opened after {waited:?}");
        assert!(waited < Duration::from_secs(20), "opened after {waited:?}");
        daemon.wait_for(&name, PATIENCE, |view| {
            let says =
                view["diagnosis"]["reason"].as_str().is_some_and(|w| w.contains("not fenced"));
            view["fencing"]["min_replicas"] == 0 && says
        });
        let lowered = wait_for_entry(&daemon, &name, ("repair", &name, "done"));
        let reason = lowered["reason"].as_str().expect("a sentence");
        assert!(reason.contains("lowered to 0") && reason.contains("is down"), "{reason}");

        let restarted_at = now();
        group.replicas[0].restart();
        wait_for_setting(&group.master, FENCED);
        let raised_at = now();
        wait_until("the history says so", PATIENCE, || {
            (fence_entries(&daemon, &name).len() == 2).then_some(())
        });
        assert!(fence_entries(&daemon, &name)[0].contains("raised to 1"));
        holds_for(Duration::from_secs(1), "it takes writes", || {
            let since = now() - Duration::from_millis(300);
            since < raised_at || !writer.acknowledged_after(&name, since).is_empty()
        });
        writer.stop();
        let writes = writer.writes(&name);
        let late = writes.iter().filter(|write| write.sent_at >= restarted_at);
        assert_eq!(late.filter(|write| write.outcome != Outcome::Acknowledged).count(), 0);
    });
}

/// With one replica nobody is left to acknowledge after a failover: the new master is open until the old one is back.
#[test]
fn the_only_replica_takes_writes_at_once_when_it_is_promoted() {
    let mut group = Group::start(ServerKind::Redis, 1);
    let name = group.master.addr();
    let heir = group.replicas[0].addr();
    let daemon = guard(&group, &ON);
    wait_until_fenced(&daemon, &name, &group);
    let mut writer = Writer::start(&group);
    let killed_at = group.master.kill9();
    let gap = writer.wait_for_gap(killed_at, &name, PATIENCE);
    assert!(gap.length < common::scenario::CRASH_GAP_MAX, "{gap:?}");
    assert_eq!(setting(&group.replicas[0]), OPEN);
    daemon.wait_for(&name, PATIENCE, |view| view["fencing"]["min_replicas"] == 0);
    group.master.restart();
    wait_until_follows(&daemon, &name, &group.master, &group.replicas[0]);
    wait_for_setting(&group.replicas[0], FENCED);
    writer.stop();
    assert_eq!(writer.acknowledged_after(&name, killed_at).len(), 0);
    assert_eq!(refused_for_replicas(&writer, &heir), 0);
}

#[test]
fn a_switchover_leaves_nobody_without_a_master_that_takes_writes() {
    on_each_kind(|kind| {
        let group = Group::start(kind, 2);
        let name = group.master.addr();
        let daemon = guard(&group, &ON);
        wait_until_fenced(&daemon, &name, &group);
        let mut writer = Writer::start(&group);
        for _ in 0..2 {
            let answer = daemon.post(&format!("/v1/groups/{name}/switchover"), "");
            assert_eq!((answer.status, &answer.json["outcome"]), (200, &"done".into()));
            let new = answer.json["new_master"].as_str().expect("an address").to_owned();
            writer.wait_for_write(&new);
            for server in group.servers() {
                wait_for_setting(server, FENCED);
            }
            wait_until("its settings are recorded", PATIENCE, || {
                let view = daemon.group(&name)?;
                (view["fencing"]["min_replicas"] == 1 && view["master"] == new).then_some(())
            });
        }
        writer.stop();
        for server in group.servers() {
            assert_eq!(refused_for_replicas(&writer, &server.addr()), 0);
        }
    });
}

#[test]
fn a_server_that_cannot_write_its_file_is_fenced_until_it_restarts_and_said_to_be() {
    for options in [Options::new().without_config(), Options::new().read_only_config()] {
        let plain = Options::new();
        let mut group = Group::start_each(ServerKind::Redis, &plain, &[options, plain.clone()]);
        let name = group.master.addr();
        let lacking = group.replicas[0].addr();
        let daemon = guard(&group, &ON);
        let view = wait_for_diagnosis(&daemon, &name, "FencingNotDurable");
        let reason = view["diagnosis"]["reason"].as_str().expect("a sentence");
        assert!(reason.contains(&lacking) && reason.contains("configuration file"), "{reason}");
        for server in group.servers() {
            wait_for_setting(server, FENCED);
        }
        group.replicas[0].kill9();
        group.replicas[0].restart();
        wait_for_setting(&group.replicas[0], FENCED);
    }
}

/// Whoever sets it by hand is told whose it is; one who opens a master that waits for replicas is in the right.
#[test]
fn what_is_changed_by_hand_is_set_again_unless_it_opens_a_master_without_replicas() {
    let mut group = Group::start(ServerKind::Redis, 1);
    let name = group.master.addr();
    let daemon = guard(&group, &ON);
    wait_until_fenced(&daemon, &name, &group);
    group.master.cmd(&["CONFIG", "SET", "min-replicas-to-write", "0"]);
    daemon.wait_for_log("was changed by somebody else", PATIENCE);
    wait_for_setting(&group.master, FENCED);
    group.replicas[0].kill9();
    group.master.cmd(&["CONFIG", "SET", "min-replicas-to-write", "0"]);
    daemon.wait_for(&name, PATIENCE, |view| view["fencing"]["min_replicas"] == 0);
    holds_for(Duration::from_secs(2), "it stays open", || setting(&group.master).0 == 0);
    group.replicas[0].restart();
    wait_for_setting(&group.master, FENCED);
}

#[test]
fn a_removed_group_leaves_what_cannot_be_reached_and_can_be_added_again() {
    let mut group = Group::start(ServerKind::Redis, 2);
    let name = group.master.addr();
    let daemon = guard(&group, &ON);
    wait_until_fenced(&daemon, &name, &group);
    // A server that hangs keeps the removal waiting until that is sure.
    let hung = group.replicas[0].addr();
    group.replicas[0].stop();
    let path = format!("/master?masters={name}");
    assert_eq!(daemon.delete(&path).status, 200);
    assert_eq!(daemon.get("/master").body, "");
    wait_for_setting(&group.master, (0, 10));
    assert_eq!(daemon.post(&path, "").status, 200);
    assert_eq!(daemon.get("/master").body, name);
    group.replicas[0].cont();
    wait_until_fenced(&daemon, &name, &group);

    group.replicas[0].kill9();
    assert_eq!(daemon.delete(&path).status, 200);
    daemon.wait_for_log(&format!("{hung} could not be reached when its group"), PATIENCE);
    daemon.wait_for_log("is not guarded any more", PATIENCE);
    wait_for_setting(&group.replicas[1], (0, 10));
    wait_for_setting(&group.master, (0, 10));
    assert!(daemon.log().contains("stays 1, and was 0 before"), "{}", daemon.log());
}

#[test]
fn fencing_that_is_turned_off_gives_every_server_its_setting_back() {
    let options = Options::new().set("min-replicas-max-lag", "7");
    let group = Group::start_with(ServerKind::Redis, 2, &options);
    let name = group.master.addr();
    // A node that remembers.
    let mut cluster = common::together::start_guard(Cluster::plan(1), &group, &ON);
    wait_until_fenced(cluster.node(0), &name, &group);
    cluster.stop(0);
    cluster.unset("-fencing");
    cluster.start(0);
    for server in group.servers() {
        wait_for_setting(server, (0, 7));
    }
    let view = cluster.node(0).wait_for(&name, PATIENCE, |view| view["fencing"]["mode"] == "none");
    assert_eq!(view["fencing"]["min_replicas"], Value::Null);
}
