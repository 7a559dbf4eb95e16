//! An old master comes back and still believes to be one: it follows the recorded master at once, and only when that one
//! answers. What it took meanwhile is in the history.

mod common;

use std::time::Duration;

use serde_json::Value;

use common::netns::Host;
use common::scenario::{
    assert_demoted, assert_no_other_failover, demotions, failovers, guard, holds, holds_for,
    on_each_kind, times_told, wait_for_demotion, wait_for_diagnosis, wait_for_failover,
    wait_until_follows,
};
use common::together::start_guard;
use common::witness::Idler;
use common::{
    Cluster, Daemon, Group, Network, Options, PATIENCE, ServerKind, Writer, now, wait_until,
};

/// Ten times what is promised from the first connection to the demotion.
const TENURE_MAX: Duration = Duration::from_millis(500);
/// Longer than `max_down_time` 1 and whatever follows from it.
const LONGER_THAN_DOWN: Duration = Duration::from_millis(1500);

/// The master dies and is replaced; gives the new one's address.
#[track_caller]
fn replaced(group: &mut Group, daemon: &Daemon) -> String {
    let name = group.master.addr();
    group.master.kill9();
    let entry = wait_for_failover(daemon, &name);
    entry["new_master"].as_str().expect("there is one").to_owned()
}

/// The longest that a restarted master can have taken writes, by the history.
fn told_at_most(entry: &Value) -> Duration {
    let note = entry["steps"][2]["note"].as_str().expect("the window is told");
    let (before, _) = note.split_once(" ms at most").expect("a restarted one has a bound");
    let ms = before.rsplit(' ').next().and_then(|ms| ms.parse::<f64>().ok());
    Duration::from_secs_f64(ms.expect("a number") / 1000.0)
}

#[test]
fn one_that_is_restarted_follows_at_once_and_the_history_says_what_it_took() {
    on_each_kind(|kind| {
        let mut group = Group::start(kind, 2);
        let name = group.master.addr();
        let daemon = guard(&group, &[]);
        let mut writer = Writer::start(&group);
        let new = replaced(&mut group, &daemon);
        let started_at = now();
        group.master.restart();
        let tenure = wait_until("it refuses writes", PATIENCE, || writer.tenure(&name, started_at));
        assert!(tenure.length() < TENURE_MAX, "{tenure:?}");
        writer.stop();
        let entry = wait_for_demotion(&daemon, &name);
        assert_demoted(&entry, &new);
        if let Some(last) = writer.acknowledged_after(&name, started_at).last() {
            let took = last.answered_at - tenure.began_at;
            assert!(took <= told_at_most(&entry), "{took:?} in {entry:#}");
        }
        wait_until_follows(&daemon, &name, &group.master, group.server(&new));
        assert_no_other_failover(&daemon, &name, &new);
    });
}

#[test]
fn clients_that_found_it_before_the_program_did_are_cut_off() {
    on_each_kind(|kind| {
        let mut group = Group::start(kind, 1);
        let name = group.master.addr();
        let mut daemon = guard(&group, &[]);
        let new = replaced(&mut group, &daemon);
        // The program stands still while it comes back.
        daemon.freeze();
        let started_at = now();
        group.master.restart();
        let client = Idler::of(&group.master);
        group.master.cmd(&["SET", "late", "1"]);
        let took = started_at.elapsed();
        daemon.thaw();
        client.wait_until_cut();
        let entry = wait_for_demotion(&daemon, &name);
        assert_demoted(&entry, &new);
        assert!(told_at_most(&entry) >= took, "{took:?} in {entry:#}");
        wait_until_follows(&daemon, &name, &group.master, &group.replicas[0]);
        assert_eq!(group.master.cmd(&["GET", "late"]), "(nil)");
    });
}

#[test]
fn one_that_was_stopped_follows_when_it_wakes_and_its_clients_are_cut_off() {
    on_each_kind(|kind| {
        let mut group = Group::start(kind, 2);
        let name = group.master.addr();
        let daemon = guard(&group, &["-max_down_time=1"]);
        let client = Idler::of(&group.master);
        group.master.stop();
        let entry = wait_for_failover(&daemon, &name);
        let new = entry["new_master"].as_str().expect("there is one").to_owned();
        let mut writer = Writer::start_on(group.servers());
        let woken_at = group.master.cont();
        client.wait_until_cut();
        let tenure = wait_until("it refuses writes", PATIENCE, || writer.tenure(&name, woken_at));
        assert!(tenure.length() < TENURE_MAX, "{tenure:?}");
        writer.stop();
        let entry = wait_for_demotion(&daemon, &name);
        assert_demoted(&entry, &new);
        let beginning = entry["steps"][0]["note"].as_str().expect("how it came back");
        assert!(beginning.contains("silent"), "{entry:#}");
        let written = writer.acknowledged_after(&name, woken_at).len();
        let bytes = entry["bytes_possibly_lost"].as_u64().expect("the same process counts");
        assert!(bytes >= 50 * u64::try_from(written).expect("few"), "{written} in {entry:#}");
        wait_until_follows(&daemon, &name, &group.master, group.server(&new));
        assert_no_other_failover(&daemon, &name, &new);
    });
}

/// Another replica hangs, and is waited for before the failover is finished. Whoever takes writes is not.
#[test]
fn one_that_comes_back_while_others_are_repointed_waits_for_nobody() {
    on_each_kind(|kind| {
        let mut group = Group::start(kind, 2);
        let name = group.master.addr();
        let daemon = guard(&group, &["-max_down_time=10"]);
        let mut writer = Writer::start(&group);
        let preferred = group.replicas[1].addr();
        let rule = format!("/v1/groups/{name}/rules/{preferred}");
        let answer = daemon.put(&rule, r#"{"rule":"prefer"}"#);
        assert_eq!(answer.status, 200, "{}", answer.body);
        group.replicas[0].stop();
        group.master.kill9();
        daemon.wait_for_master(&preferred, PATIENCE);
        let started_at = now();
        group.master.restart();
        let tenure = wait_until("it refuses writes", PATIENCE, || writer.tenure(&name, started_at));
        assert!(tenure.length() < TENURE_MAX, "{tenure:?}");
        writer.stop();
        group.replicas[0].cont();
        wait_until_follows(&daemon, &name, &group.master, &group.replicas[1]);
        wait_until_follows(&daemon, &name, &group.replicas[0], &group.replicas[1]);
        // It is told where it happened: within the failover, or after it.
        wait_until("the history says what it took", PATIENCE, || {
            let history = daemon.history(&name);
            let steps = history.iter().filter_map(|entry| entry["steps"].as_array()).flatten();
            let told = |step: &Value| {
                let note = step["note"].as_str().unwrap_or_default();
                step["name"] == "demoted" && step["addr"] == name && note.contains("took writes")
            };
            steps.into_iter().any(told).then_some(())
        });
        assert_no_other_failover(&daemon, &name, &preferred);
    });
}

#[test]
fn one_that_was_demoted_comes_back_as_a_replica_from_then_on() {
    on_each_kind(|kind| {
        let mut group = Group::start(kind, 1);
        let name = group.master.addr();
        let daemon = guard(&group, &[]);
        let new = replaced(&mut group, &daemon);
        group.master.restart();
        wait_for_demotion(&daemon, &name);
        for _ in 0..2 {
            group.master.kill9();
            group.master.restart();
            assert_eq!(group.master.role(), "slave", "its file says whom to follow");
            wait_until_follows(&daemon, &name, &group.master, group.server(&new));
        }
        assert_eq!(demotions(&daemon, &name).len(), 1);
        assert_no_other_failover(&daemon, &name, &new);
    });
}

#[test]
fn one_that_cannot_write_its_file_is_demoted_each_time() {
    on_each_kind(|kind| {
        let mut group = Group::start_with(kind, 1, &Options::new().without_config());
        let name = group.master.addr();
        let daemon = guard(&group, &[]);
        let new = replaced(&mut group, &daemon);
        for times in 1..=2 {
            group.master.restart();
            wait_until("it is demoted", PATIENCE, || {
                (demotions(&daemon, &name).len() == times).then_some(())
            });
            wait_until_follows(&daemon, &name, &group.master, group.server(&new));
            group.master.kill9();
        }
        assert_no_other_failover(&daemon, &name, &new);
    });
}

/// A died, B was promoted and wrote something, and B died too. A is back with what it had.
fn without_the_recorded_master(kind: ServerKind, other: &Options) -> (Group, Daemon, String) {
    let mut group = Group::start_each(kind, &Options::durable(), std::slice::from_ref(other));
    let name = group.master.addr();
    let daemon = guard(&group, &["-max_down_time=1"]);
    group.master.cmd(&["SET", "kept", "1"]);
    group.wait_in_step();
    if !other.is_plain() {
        group.wait_until_durable();
    }
    let new = replaced(&mut group, &daemon);
    group.replicas[0].cmd(&["SET", "newer", "1"]);
    group.replicas[0].kill9();
    daemon.wait_for(&name, PATIENCE, |view| {
        common::daemon::instance(view, &new).is_some_and(|seen| seen["state"] == "down")
    });
    group.master.restart();
    (group, daemon, name)
}

/// It is what it was, and nobody told it anything.
#[track_caller]
fn assert_untouched(group: &Group, daemon: &Daemon, name: &str) {
    holds_for(LONGER_THAN_DOWN, "it is left alone", || {
        times_told(&group.master) == 0 && daemon.group(name).is_some_and(|view| view["epoch"] == 1)
    });
    assert_eq!(group.master.role(), "master");
    assert_eq!(group.master.cmd(&["GET", "kept"]), "1");
    assert!(demotions(daemon, name).is_empty());
}

#[test]
fn while_the_recorded_master_is_gone_it_is_left_alone_until_somebody_decides() {
    on_each_kind(|kind| {
        let (group, daemon, name) = without_the_recorded_master(kind, &Options::new());
        assert_untouched(&group, &daemon, &name);
        // For a moment it was loading its data; what is said now is what whoever is on call reads.
        let view = wait_for_diagnosis(&daemon, &name, "NoEligibleReplica");
        let why = view["diagnosis"]["not_acting_because"].as_str().expect("a sentence");
        for word in [&*name, "history", "force", &format!("/v1/groups/{name}/failover")] {
            assert!(why.contains(word), "{word} in {why}");
        }
        // Without a word from somebody who knows better it is not promoted.
        let path = format!("/v1/groups/{name}/failover");
        let answer = daemon.post(&path, &format!(r#"{{"to":"{name}"}}"#));
        assert_eq!((answer.status, answer.error_code()), (409, Some("refused")), "{}", answer.body);
        let answer = daemon.post(&path, &format!(r#"{{"to":"{name}","force":true}}"#));
        assert_eq!(answer.json["outcome"], "done", "{}", answer.body);
        daemon.wait_for_master(&name, PATIENCE);
        assert_eq!(group.master.role(), "master");
        assert_eq!(group.master.cmd(&["GET", "kept"]), "1");
        assert_eq!(daemon.group(&name).expect("it stays")["epoch"], 2);
    });
}

#[test]
fn it_follows_the_recorded_master_when_that_one_is_back_with_its_data() {
    on_each_kind(|kind| {
        let (mut group, daemon, name) = without_the_recorded_master(kind, &Options::durable());
        wait_for_diagnosis(&daemon, &name, "NoEligibleReplica");
        assert_untouched(&group, &daemon, &name);
        group.replicas[0].restart();
        wait_until_follows(&daemon, &name, &group.master, &group.replicas[0]);
        assert_demoted(&wait_for_demotion(&daemon, &name), &group.replicas[0].addr());
        wait_until("it has what the recorded master has", PATIENCE, || {
            (group.master.try_cmd(&["GET", "newer"]).as_deref() == Ok("1")).then_some(())
        });
        assert_no_other_failover(&daemon, &name, &group.replicas[0].addr());
    });
}

#[test]
fn it_is_not_wiped_when_the_recorded_master_is_back_with_nothing() {
    on_each_kind(|kind| {
        let (mut group, daemon, name) = without_the_recorded_master(kind, &Options::new());
        wait_for_diagnosis(&daemon, &name, "NoEligibleReplica");
        group.replicas[0].restart();
        let view = wait_for_diagnosis(&daemon, &name, "MasterRestartedEmpty");
        assert_untouched(&group, &daemon, &name);
        let reason = view["diagnosis"]["reason"].as_str().expect("a sentence");
        assert!(reason.contains(&name) && reason.contains("force"), "{reason}");
        let path = format!("/v1/groups/{name}/failover");
        let answer = daemon.post(&path, &format!(r#"{{"to":"{name}","force":true}}"#));
        assert_eq!(answer.json["outcome"], "done", "{}", answer.body);
        wait_until_follows(&daemon, &name, &group.replicas[0], &group.master);
        wait_until("the data is everywhere", PATIENCE, || {
            (group.replicas[0].try_cmd(&["GET", "kept"]).as_deref() == Ok("1")).then_some(())
        });
    });
}

#[test]
fn while_the_recorded_master_hangs_it_is_left_alone() {
    on_each_kind(|kind| {
        // For a moment, in which the recorded one is not down, and for longer.
        for (max_down_time, for_long) in [("-max_down_time=10", false), ("-max_down_time=1", true)]
        {
            let mut group = Group::start_with(kind, 1, &Options::durable());
            let name = group.master.addr();
            let daemon = guard(&group, &[max_down_time]);
            group.master.cmd(&["SET", "kept", "1"]);
            group.wait_in_step();
            let new = replaced(&mut group, &daemon);
            group.replicas[0].stop();
            group.master.restart();
            if for_long {
                wait_for_diagnosis(&daemon, &name, "NoEligibleReplica");
            } else {
                daemon.wait_for(&name, PATIENCE, |view| {
                    let why = view["diagnosis"]["not_acting_because"].as_str().unwrap_or_default();
                    why.contains("returned as a master") && why.contains("before it answers")
                });
            }
            assert_untouched(&group, &daemon, &name);
            group.replicas[0].cont();
            wait_until_follows(&daemon, &name, &group.master, &group.replicas[0]);
            wait_for_demotion(&daemon, &name);
            assert_eq!(group.replicas[0].cmd(&["GET", "kept"]), "1");
            assert_no_other_failover(&daemon, &name, &new);
        }
    });
}

/// It never stopped, and whoever was on its side of the cut went on writing to it.
#[test]
fn one_that_was_cut_off_follows_when_it_is_reached_again() {
    let Some(network) = Network::start(3) else { return };
    let on = |host: &Host| Options::new().on(host).set("repl-ping-replica-period", "1");
    let [node, old, replica] = [0, 1, 2].map(|number| network.host(number));
    let group = Group::start_each(ServerKind::Redis, &on(old), &[on(replica)]);
    let name = group.master.addr();
    let new = group.replicas[0].addr();
    let cluster = start_guard(Cluster::plan_on(std::slice::from_ref(node)), &group, &[]);
    let mut writer = Writer::start(&group);
    let client = Idler::of(&group.master);
    let cut_at = now();
    network.split(&[old], &[node, replica]);
    cluster.wait_masters(&[&new], PATIENCE);
    writer.wait_for_write(&name);
    network.join(&[old], &[node, replica]);
    let joined_at = now();
    client.wait_until_cut();
    let daemon = cluster.node(0);
    let entry = wait_for_demotion(daemon, &name);
    assert_demoted(&entry, &new);
    wait_until("it refuses writes", PATIENCE, || writer.tenure(&name, joined_at));
    writer.stop();
    let written = writer.acknowledged_after(&name, cut_at).len();
    let bytes = entry["bytes_possibly_lost"].as_u64().expect("the same process counts");
    assert!(bytes >= 50 * u64::try_from(written).expect("few"), "{written} in {entry:#}");
    wait_until_follows(daemon, &name, &group.master, &group.replicas[0]);
    holds("one failover", || failovers(daemon, &name).len() == 1);
}
