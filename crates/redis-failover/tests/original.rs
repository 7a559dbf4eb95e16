//! The faults of the program that this one succeeds, each with a test that it is not one any more.

mod common;

use std::time::Duration;

use common::daemon::instance;
use common::scenario::{
    CRASH_GAP_MAX, assert_left_alone, assert_whole, failovers, guard, guard_by_file, guard_with,
    holds, holds_for, on_each_kind, ranking, settle, wait_for_diagnosis, wait_for_entry,
    wait_for_failover, wait_until_follows, wait_until_guarded,
};
use common::{Daemon, Group, Options, PATIENCE, Server, Writer};

#[test]
fn fault_1_its_role_check_never_fires() {
    on_each_kind(|kind| {
        let mut group = Group::start(kind, 1);
        let master = group.master.addr();
        let replica = group.replicas[0].addr();
        // A replica that is registered as a master is seen for what it is.
        let daemon = Daemon::start(&[&format!("-masters={replica}"), "-check_interval=100"]);
        daemon.wait_for_master(&master, PATIENCE);
        wait_until_guarded(&daemon, &master, &group.addrs());
        group.replicas[0].kill9();
        daemon.wait_for(&master, PATIENCE, |view| {
            instance(view, &replica).is_some_and(|seen| seen["state"] == "down")
        });
        assert_left_alone(&daemon, &master);

        // And so is a master that was made a replica by hand.
        let other = Server::start(kind, &Options::new());
        group.master.replica_of(&other);
        let view = wait_for_diagnosis(&daemon, &master, "MasterBecameReplica");
        let reason = view["diagnosis"]["reason"].as_str().expect("a sentence");
        assert!(reason.contains(&other.addr()), "{reason}");
        assert_left_alone(&daemon, &master);
    });
}

#[test]
fn fault_2_priority_is_inverted_and_0_is_electable() {
    on_each_kind(|kind| {
        let options = ["0", "100", "10"].map(|at| Options::new().set("replica-priority", at));
        let mut group = Group::start_each(kind, &Options::new(), &options);
        let name = group.master.addr();
        let [never, last, first] = [0, 1, 2].map(|at: usize| group.replicas[at].addr());
        let daemon = guard(&group, &[]);
        group.wait_in_step();
        group.master.kill9();
        daemon.wait_for_master(&first, PATIENCE);
        let entry = wait_for_failover(&daemon, &name);
        assert_whole(&entry, (&name, &first, "MasterCrashed"), 2);
        let ranking = ranking(&entry);
        assert_eq!(ranking[..2], [(&*first, Some(1), None), (&*last, Some(2), None)]);
        assert_eq!((ranking[2].0, ranking[2].1), (&*never, None));
        assert!(ranking[2].2.is_some_and(|why| why.contains("priority 0")), "{ranking:?}");
    });
}

#[test]
fn fault_3_a_master_is_forgotten_when_its_failover_is_aborted() {
    on_each_kind(|kind| {
        // What is restarted here has its data still: one without is another case.
        let mut group = Group::start_with(kind, 1, &Options::durable());
        group.wait_until_durable();
        let name = group.master.addr();
        let fault = [("REDIS_FAILOVER_FAULT", "before-promote-send=fail")];
        let daemon = guard_with(&group, &["-failover_timeout=1"], &fault);
        group.master.kill9();
        wait_for_entry(&daemon, &name, ("failover", &name, "failed"));
        assert_eq!(daemon.get("/master").body, name, "it is guarded still");
        group.master.restart();
        settle(&daemon, &name, &group);
        group.master.kill9();
        daemon.wait_for_master(&group.replicas[0].addr(), PATIENCE);
    });
}

#[test]
fn fault_4_replicas_are_known_only_while_the_master_lives() {
    on_each_kind(|kind| {
        let mut group = Group::start(kind, 1);
        let name = group.master.addr();
        let replica = group.replicas[0].addr();
        let daemon = guard(&group, &["-max_down_time=0.5"]);
        group.replicas[0].stop();
        daemon.wait_for(&name, PATIENCE, |view| {
            instance(view, &replica).is_some_and(|seen| seen["state"] == "down")
        });
        group.master.kill9();
        let view = wait_for_diagnosis(&daemon, &name, "WholeGroupUnreachable");
        assert!(instance(&view, &replica).is_some(), "{view}");
        // There is no master to ask any more when it wakes.
        group.replicas[0].cont();
        daemon.wait_for_master(&replica, PATIENCE);
        group.replicas[0].wait_for_role("master");
    });
}

#[test]
fn fault_5_one_replica_that_refuses_to_be_repointed_loses_the_group() {
    on_each_kind(|kind| {
        let first = Options::new().set("replica-priority", "1");
        // Its own configuration made it a replica; nobody can make it another one's.
        let refuses = Options::new()
            .set("rename-command", "REPLICAOF \"\"")
            .set("rename-command", "SLAVEOF \"\"");
        let mut group = Group::start_each(kind, &Options::new(), &[refuses, first, Options::new()]);
        let name = group.master.addr();
        let [refusing, new] = [0, 1].map(|at: usize| group.replicas[at].addr());
        let daemon = guard(&group, &[]);
        group.wait_in_step();
        group.master.kill9();
        daemon.wait_for_master(&new, PATIENCE);
        assert_eq!(wait_for_failover(&daemon, &name)["outcome"], "done");
        wait_until_follows(&daemon, &name, &group.replicas[2], &group.replicas[1]);
        let repair = wait_for_entry(&daemon, &name, ("repair", &refusing, "failed"));
        let reason = repair["reason"].as_str().expect("a sentence");
        assert!(reason.contains("unknown command"), "{reason}");

        // The group is guarded as before.
        group.replicas[1].kill9();
        daemon.wait_for_master(&group.replicas[2].addr(), PATIENCE);
        assert_eq!(failovers(&daemon, &name).len(), 2);
    });
}

#[test]
fn fault_6_a_hung_master_is_not_noticed_and_stops_the_checks_of_all_others() {
    on_each_kind(|kind| {
        let mut hung = Group::start(kind, 1);
        let mut other = Group::start(kind, 1);
        let (first, second) = (hung.master.addr(), other.master.addr());
        let masters = format!("-masters={first},{second}");
        let daemon = Daemon::start(&[&masters, "-check_interval=100", "-max_down_time=1"]);
        wait_until_guarded(&daemon, &first, &hung.addrs());
        wait_until_guarded(&daemon, &second, &other.addrs());
        let writer = Writer::start(&other);
        hung.master.stop();
        let killed_at = other.master.kill9();
        let gap = writer.wait_for_gap(killed_at, &second, PATIENCE);
        assert!(gap.length < CRASH_GAP_MAX, "{gap:?}");
        daemon.wait_for_master(&hung.replicas[0].addr(), PATIENCE);
        hung.replicas[0].wait_for_role("master");
        assert_eq!(wait_for_failover(&daemon, &first)["cause"], "MasterHung");
    });
}

#[test]
fn fault_7_a_master_that_comes_back_as_a_replica_is_dropped() {
    on_each_kind(|kind| {
        let mut group = Group::start(kind, 1);
        let name = group.master.addr();
        let replica = group.replicas[0].addr();
        let daemon = guard(&group, &[]);
        group.master.kill9();
        daemon.wait_for_master(&replica, PATIENCE);
        wait_for_failover(&daemon, &name);
        group.master.restart();
        wait_until_follows(&daemon, &name, &group.master, &group.replicas[0]);
        let view = daemon.group(&name).expect("it is guarded");
        assert_eq!(instance(&view, &name).expect("it is watched")["state"], "up");

        // It is guarded so well that it can take over again.
        group.replicas[0].kill9();
        daemon.wait_for_master(&name, PATIENCE);
        group.master.wait_for_role("master");
        assert_eq!(wait_for_failover(&daemon, &name)["epoch"], 2);
    });
}

#[test]
fn fault_8_a_replica_of_another_history_can_be_promoted() {
    on_each_kind(|kind| {
        let mut group = Group::start(kind, 1);
        let master = group.master.addr();
        let replica = group.replicas[0].addr();
        // A stranger's replica with a better priority and a longer history, which somebody listed by mistake.
        let first = Options::new().set("replica-priority", "1");
        let strangers = Group::start_each(kind, &Options::new(), &[first]);
        for number in 0..100 {
            strangers.master.cmd(&["SET", &format!("theirs:{number}"), "1"]);
        }
        strangers.wait_in_step();
        assert!(strangers.master.offset() > group.master.offset());
        let stranger = strangers.replicas[0].addr();
        let daemon = guard_by_file(&format!(
            "check_interval = 100\n[[group]]\nname = \"g\"\nmaster = \"{master}\"\nreplicas = [\"{stranger}\"]\n"
        ));
        let all = [group.addrs(), vec![stranger.clone()]].concat();
        let view = wait_until_guarded(&daemon, "g", &all);
        let seen = instance(&view, &stranger).expect("it is known");
        let why = seen["not_eligible_because"].as_str().expect("a sentence");
        assert!(why.contains("another history"), "{why}");

        group.master.kill9();
        daemon.wait_for_master(&replica, PATIENCE);
        let entry = wait_for_failover(&daemon, "g");
        let ranking = ranking(&entry);
        assert_eq!(ranking[0], (&*replica, Some(1), None));
        assert!(ranking[1].2.is_some_and(|why| why.contains("another history")), "{ranking:?}");
        // It stays with its own: a mistake in a list does not cost anybody data.
        holds("it follows whom it followed", || {
            strangers.replicas[0].master_link() == Some((strangers.master.addr(), true))
        });
        assert_eq!(strangers.replicas[0].cmd(&["GET", "theirs:99"]), "1");
    });
}

#[test]
fn fault_9_a_group_that_was_down_for_3_s_is_forgotten() {
    on_each_kind(|kind| {
        // What is restarted here has its data still: one without is another case.
        let mut group = Group::start_with(kind, 1, &Options::durable());
        group.wait_until_durable();
        let name = group.master.addr();
        let replica = group.replicas[0].addr();
        let daemon = guard(&group, &[]);
        group.replicas[0].kill9();
        group.master.kill9();
        let view = wait_for_diagnosis(&daemon, &name, "WholeGroupUnreachable");
        assert_eq!(view["instances"].as_array().map(Vec::len), Some(2), "{view}");
        holds_for(Duration::from_millis(3500), "the group is kept", || {
            daemon.get("/master").body == name
        });
        assert_left_alone(&daemon, &name);

        group.master.restart();
        group.replicas[0].restart();
        settle(&daemon, &name, &group);
        assert_left_alone(&daemon, &name);
        group.master.kill9();
        daemon.wait_for_master(&replica, PATIENCE);
        let entry = wait_for_failover(&daemon, &name);
        assert_whole(&entry, (&name, &replica, "MasterCrashed"), 0);
        assert_eq!(entry["epoch"], 1);
    });
}
