//! A master that hangs is replaced after `max_down_time` and no sooner; whoever else hangs holds nobody up.

mod common;

use std::time::Duration;

use common::daemon::instance;
use common::scenario::{
    CRASH_GAP_MAX, HANG_GAP_MAX, assert_left_alone, assert_no_other_failover, assert_whole, guard,
    on_each_kind, wait_for_diagnosis, wait_for_entry, wait_for_failover, wait_until_follows,
    wait_until_guarded,
};
use common::{Daemon, Group, Options, PATIENCE, Told, Writer, now, wait_until};

#[test]
fn a_hung_master_is_replaced_and_demoted_when_it_wakes() {
    on_each_kind(|kind| {
        let mut group = Group::start(kind, 2);
        let name = group.master.addr();
        let daemon = guard(&group, &["-max_down_time=1"]);
        let mut writer = Writer::start(&group);
        let told = Told::start(daemon.http());

        let stopped_at = group.master.stop();
        let gap = writer.wait_for_gap(stopped_at, &name, PATIENCE);
        assert!(gap.length < HANG_GAP_MAX, "{gap:?}");
        assert!(gap.length > Duration::from_millis(900), "{gap:?}: silence must be long enough");
        told.wait_for(&gap.addr, stopped_at, PATIENCE);
        let entry = wait_for_failover(&daemon, &name);
        assert_whole(&entry, (&name, &gap.addr, "MasterHung"), 1);

        // It wakes up, still sure of being master.
        let woken_at = group.master.cont();
        let new = group.server(&gap.addr);
        wait_until_follows(&daemon, &name, &group.master, new);
        let demotion = wait_for_entry(&daemon, &name, ("demotion", &name, "done"));
        assert_eq!(demotion["new_master"], gap.addr);
        writer.stop();
        if let Some(last) = writer.acknowledged_after(&name, woken_at).last() {
            let both = last.answered_at - woken_at;
            assert!(both < Duration::from_millis(500), "two masters took writes for {both:?}");
        }
        assert_eq!(new.role(), "master");
        new.cmd(&["SET", "after", "1"]);
        wait_until("its data follows", PATIENCE, || {
            (group.master.try_cmd(&["GET", "after"]).as_deref() == Ok("1")).then_some(())
        });
        assert_no_other_failover(&daemon, &name, &gap.addr);
    });
}

#[test]
fn a_master_that_stops_for_800_ms_stays_master() {
    on_each_kind(|kind| {
        let mut group = Group::start(kind, 1);
        let name = group.master.addr();
        let daemon = guard(&group, &["-max_down_time=1"]);
        for _ in 0..2 {
            let stopped_at = group.master.stop();
            std::thread::sleep(Duration::from_millis(800));
            let woken_at = group.master.cont();
            if woken_at - stopped_at > Duration::from_millis(950) {
                eprintln!("SKIPPED: this machine is too busy to stop a server for 800 ms");
                return;
            }
            // Its last reply is younger than the stop.
            daemon.wait_for(&name, PATIENCE, |view| {
                let seen = instance(view, &name).expect("it is known");
                seen["views"][0]["age_ms"].as_u64().is_some_and(|age| age < 400)
            });
        }
        assert_left_alone(&daemon, &name);
        assert_eq!(group.master.role(), "master");
    });
}

#[test]
fn a_replica_that_hangs_does_not_hold_up_the_failover() {
    on_each_kind(|kind| {
        // The one that hangs would have been the first choice.
        let options = ["1", "100", "100"].map(|at| Options::new().set("replica-priority", at));
        let mut group = Group::start_each(kind, &Options::new(), &options);
        let name = group.master.addr();
        let hanging = group.replicas[0].addr();
        let daemon = guard(&group, &[]);
        let writer = Writer::start(&group);
        group.replicas[0].stop();
        let killed_at = group.master.kill9();
        let gap = writer.wait_for_gap(killed_at, &name, PATIENCE);
        // It is given a fifth of a second to say what it knows of the master.
        assert!(gap.length < Duration::from_millis(200) + CRASH_GAP_MAX, "{gap:?}");
        assert_ne!(gap.addr, hanging);
        let other = group.replicas[1..].iter().find(|replica| replica.addr() != gap.addr);
        let other = other.expect("there are two others");
        wait_until_follows(&daemon, &name, other, group.server(&gap.addr));
        let entry = wait_for_failover(&daemon, &name);
        assert_eq!((&entry["outcome"], &entry["cause"]), (&"done".into(), &"MasterCrashed".into()));

        group.replicas[0].cont();
        wait_until_follows(&daemon, &name, &group.replicas[0], group.server(&gap.addr));
        wait_for_entry(&daemon, &name, ("repair", &hanging, "done"));
        assert_no_other_failover(&daemon, &name, &gap.addr);
    });
}

#[test]
fn a_replica_that_is_known_to_hang_costs_nothing() {
    on_each_kind(|kind| {
        let mut group = Group::start(kind, 2);
        let name = group.master.addr();
        let hanging = group.replicas[0].addr();
        let daemon = guard(&group, &["-max_down_time=0.5"]);
        let writer = Writer::start(&group);
        group.replicas[0].stop();
        daemon.wait_for(&name, PATIENCE, |view| {
            instance(view, &hanging).is_some_and(|seen| seen["state"] == "down")
        });
        let killed_at = group.master.kill9();
        let gap = writer.wait_for_gap(killed_at, &name, PATIENCE);
        assert!(gap.length < CRASH_GAP_MAX, "{gap:?}");
        group.replicas[0].cont();
        wait_until_follows(&daemon, &name, &group.replicas[0], &group.replicas[1]);
    });
}

#[test]
fn a_group_that_hangs_does_not_delay_another() {
    on_each_kind(|kind| {
        let mut hanging = Group::start(kind, 1);
        let mut killed = Group::start(kind, 1);
        let (first, second) = (hanging.master.addr(), killed.master.addr());
        let masters = format!("-masters={first},{second}");
        let daemon = Daemon::start(&[&masters, "-check_interval=100", "-max_down_time=1"]);
        wait_until_guarded(&daemon, &first, &hanging.addrs());
        wait_until_guarded(&daemon, &second, &killed.addrs());
        let writer = Writer::start(&killed);
        // All of it hangs, and questions to it are on their way when the other master dies.
        hanging.master.stop();
        hanging.replicas[0].stop();
        wait_until("a question is open", PATIENCE, || {
            let view = daemon.group(&first).expect("it is guarded");
            let reason = view["diagnosis"]["reason"].as_str().unwrap_or_default();
            (reason.contains("in doubt") || view["diagnosis"]["name"] != "Healthy").then_some(())
        });
        let killed_at = killed.master.kill9();
        let gap = writer.wait_for_gap(killed_at, &second, PATIENCE);
        assert!(gap.length < CRASH_GAP_MAX, "{gap:?}");
        daemon.wait_for_master(&killed.replicas[0].addr(), PATIENCE);

        hanging.replicas[0].cont();
        let woken_at = now();
        daemon.wait_for_master(&hanging.replicas[0].addr(), PATIENCE);
        assert!(woken_at.elapsed() < HANG_GAP_MAX, "{:?}", woken_at.elapsed());
        let entry = wait_for_failover(&daemon, &first);
        assert_whole(&entry, (&first, &hanging.replicas[0].addr(), "MasterHung"), 0);
        let master = hanging.replicas[0].addr();
        hanging.master.cont();
        hanging.master.wait_for_link(&hanging.replicas[0]);
        assert_no_other_failover(&daemon, &first, &master);
    });
}

#[test]
fn a_hung_group_is_kept_and_goes_on_where_it_was() {
    on_each_kind(|kind| {
        let mut group = Group::start(kind, 1);
        let name = group.master.addr();
        let daemon = guard(&group, &["-max_down_time=0.5"]);
        group.replicas[0].stop();
        group.master.stop();
        let view = wait_for_diagnosis(&daemon, &name, "WholeGroupUnreachable");
        assert_eq!(view["master"], name);
        // A replica that wakes before its master is a reason to act.
        group.master.cont();
        daemon.wait_for(&name, PATIENCE, |view| {
            instance(view, &name).is_some_and(|seen| seen["state"] == "up")
        });
        group.replicas[0].cont();
        wait_until_guarded(&daemon, &name, &group.addrs());
        wait_for_diagnosis(&daemon, &name, "Healthy");
        assert_left_alone(&daemon, &name);
    });
}
