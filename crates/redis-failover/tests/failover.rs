//! A master that is gone for certain is replaced, by the right replica, and everybody follows.

mod common;

use std::time::Duration;

use serde_json::Value;

use common::daemon::instance;
use common::scenario::{
    CRASH_GAP_MAX, DECISION_MAX, assert_left_alone, assert_no_other_failover, assert_whole,
    failovers, guard, guard_by_file, guard_with, holds, on_each_kind, ranking, step_names,
    wait_for_diagnosis, wait_for_entry, wait_for_failover, wait_until_follows, wait_until_guarded,
};
use common::witness::key_of;
use common::{Daemon, Group, Options, PATIENCE, Server, ServerKind, Told, Writer, wait_until};

#[test]
fn a_killed_master_is_replaced_by_its_only_replica() {
    on_each_kind(|kind| kill_the_master(kind, 1));
}

#[test]
fn a_killed_master_is_replaced_and_the_other_replica_follows() {
    on_each_kind(|kind| kill_the_master(kind, 2));
}

fn kill_the_master(kind: ServerKind, replicas: usize) {
    let mut group = Group::start(kind, replicas);
    let name = group.master.addr();
    let daemon = guard(&group, &[]);
    let mut writer = Writer::start(&group);
    let told = Told::start(daemon.http());

    let killed_at = group.master.kill9();
    let gap = writer.wait_for_gap(killed_at, &name, PATIENCE);
    assert!(gap.length < CRASH_GAP_MAX, "{gap:?}");
    let told_at = told.wait_for(&gap.addr, killed_at, PATIENCE);
    let late = told_at.saturating_duration_since(gap.ended_at);
    assert!(late < Duration::from_millis(100), "told {late:?} after the first write");

    let entry = wait_for_failover(&daemon, &name);
    assert_whole(&entry, (&name, &gap.addr, "MasterCrashed"), replicas - 1);
    assert_decided_quickly(&entry);
    assert_eq!(entry["epoch"], 1);
    assert_eq!(ranking(&entry).len(), replicas);
    let new = group.server(&gap.addr);
    for replica in group.replicas.iter().filter(|replica| replica.addr() != gap.addr) {
        wait_until_follows(&daemon, &name, replica, new);
    }
    writer.stop();
    assert_eq!(writer.two_masters(&name, &gap), Duration::ZERO);
    let lost = writer.lost(&name, new);
    assert!(lost <= 50, "{lost} writes of a master that replicated within a millisecond");
    assert_no_other_failover(&daemon, &name, &gap.addr);

    // It comes back as it was configured, as an empty master, and does no harm.
    group.master.restart();
    let new = group.server(&gap.addr);
    wait_until_follows(&daemon, &name, &group.master, new);
    wait_for_entry(&daemon, &name, ("demotion", &name, "done"));
    assert_eq!(new.role(), "master");
    assert_ne!(new.cmd(&["GET", &key_of(&name)]), "(nil)");
    assert_no_other_failover(&daemon, &name, &gap.addr);
    assert_eq!(daemon.get("/master").body, gap.addr);
}

fn assert_decided_quickly(entry: &Value) {
    let took = entry["write_gap_ms"].as_f64().expect("it is known");
    assert!(took < DECISION_MAX.as_secs_f64() * 1000.0, "{entry:#}");
}

#[test]
fn a_master_that_is_shut_down_is_replaced() {
    on_each_kind(|kind| {
        let mut group = Group::start(kind, 1);
        let name = group.master.addr();
        let new = group.replicas[0].addr();
        let daemon = guard(&group, &[]);
        group.master.cmd(&["SET", "kept", "1"]);
        group.master.shutdown();
        daemon.wait_for_master(&new, PATIENCE);
        group.replicas[0].wait_for_role("master");
        assert_eq!(group.replicas[0].cmd(&["GET", "kept"]), "1");
        let entry = wait_for_failover(&daemon, &name);
        assert_whole(&entry, (&name, &new, "MasterCrashed"), 0);
        assert_decided_quickly(&entry);
    });
}

#[test]
fn a_master_that_is_restarted_within_crash_down_time_stays_master() {
    on_each_kind(|kind| {
        // What is restarted here has its data still: one without is another case.
        let mut group = Group::start_with(kind, 1, &Options::durable());
        group.wait_until_durable();
        let name = group.master.addr();
        let daemon = guard(&group, &["-crash_down_time=3"]);
        let run_id = |daemon: &Daemon| {
            let view = daemon.group(&name).expect("it is guarded");
            instance(&view, &name).expect("it is an instance")["run_id"].clone()
        };
        let before = run_id(&daemon);
        group.master.kill9();
        group.master.restart();
        wait_until("the new process is seen", PATIENCE, || {
            (run_id(&daemon) != before).then_some(())
        });
        wait_until_guarded(&daemon, &name, &group.addrs());
        assert_left_alone(&daemon, &name);
        assert_eq!(group.master.role(), "master");
        assert_eq!(daemon.get("/master").body, name);
    });
}

#[test]
fn crash_down_time_delays_what_a_refusal_starts() {
    on_each_kind(|kind| {
        let mut group = Group::start(kind, 1);
        let name = group.master.addr();
        let daemon = guard(&group, &["-crash_down_time=1"]);
        let writer = Writer::start(&group);
        let killed_at = group.master.kill9();
        let gap = writer.wait_for_gap(killed_at, &name, PATIENCE);
        let second = Duration::from_secs(1);
        assert!(gap.length >= second, "{gap:?}");
        assert!(gap.length < second + CRASH_GAP_MAX, "{gap:?}");
        let entry = wait_for_failover(&daemon, &name);
        assert_whole(&entry, (&name, &gap.addr, "MasterCrashed"), 0);
    });
}

#[test]
fn among_equals_the_lower_priority_number_wins() {
    on_each_kind(|kind| {
        let priority = |number| Options::new().set("replica-priority", number);
        let replicas = ["100", "10", "50"].map(priority);
        let mut group = Group::start_each(kind, &Options::new(), &replicas);
        let name = group.master.addr();
        let [last, first, middle] = [0, 1, 2].map(|at: usize| group.replicas[at].addr());
        let daemon = guard(&group, &[]);
        group.wait_in_step();
        group.master.kill9();
        daemon.wait_for_master(&first, PATIENCE);
        let entry = wait_for_failover(&daemon, &name);
        assert_whole(&entry, (&name, &first, "MasterCrashed"), 2);
        let order = [(&*first, Some(1), None), (&*middle, Some(2), None), (&*last, Some(3), None)];
        assert_eq!(ranking(&entry), order);
    });
}

#[test]
fn priority_0_is_never_promoted_until_its_owner_changes_it() {
    on_each_kind(|kind| {
        let options = Options::new().set("replica-priority", "0");
        let mut group = Group::start_each(kind, &Options::new(), &[options]);
        let name = group.master.addr();
        let replica = group.replicas[0].addr();
        let daemon = guard(&group, &[]);
        group.master.kill9();
        let view = daemon.wait_for(&name, PATIENCE, |view| {
            let master = instance(view, &name).expect("it stays known");
            let idle = view["diagnosis"]["not_acting_because"].as_str().unwrap_or_default();
            master["state"] == "down" && idle.contains("priority 0")
        });
        assert_eq!(view["diagnosis"]["name"], "NoEligibleReplica");
        let seen = instance(&view, &replica).expect("it is known");
        assert_eq!(seen["eligible"], false);
        let why = seen["not_eligible_because"].as_str().expect("a reason");
        assert!(why.contains("priority 0"), "{why}");
        assert_left_alone(&daemon, &name);
        assert_eq!(group.replicas[0].role(), "slave");
        assert_eq!(daemon.get("/master").body, name);

        group.replicas[0].cmd(&["CONFIG", "SET", "replica-priority", "100"]);
        daemon.wait_for_master(&replica, Duration::from_secs(3));
        group.replicas[0].wait_for_role("master");
        let entry = wait_for_failover(&daemon, &name);
        assert_whole(&entry, (&name, &replica, "MasterCrashed"), 0);
    });
}

#[test]
fn the_most_advanced_replica_wins_over_a_better_priority() {
    on_each_kind(|kind| {
        let options = ["10", "100"].map(|number| Options::new().set("replica-priority", number));
        let mut group = Group::start_each(kind, &Options::new(), &options);
        let name = group.master.addr();
        let [behind, ahead] = [0, 1].map(|at: usize| group.replicas[at].addr());
        let mut daemon = guard(&group, &[]);

        // More than the kernel keeps for a stopped reader: what is left dies with the master. The program must not
        // look until the one that is behind has read what did reach it.
        daemon.freeze();
        group.replicas[0].stop();
        let fill = "for i = 1, 40 do redis.call('SET', 'fill:' .. i, string.rep('x', 1000000)) end";
        group.master.cmd(&["EVAL", fill, "0"]);
        let offset = group.master.offset();
        wait_until("the other replica has it all", PATIENCE, || {
            (group.replicas[1].offset() >= offset).then_some(())
        });
        group.master.kill9();
        group.replicas[0].cont();
        for replica in &group.replicas {
            wait_until("its link is down", PATIENCE, || {
                (replica.master_link() == Some((name.clone(), false))).then_some(())
            });
        }
        assert!(group.replicas[0].offset() < group.replicas[1].offset(), "one is behind");
        daemon.thaw();

        daemon.wait_for_master(&ahead, PATIENCE);
        let entry = wait_for_failover(&daemon, &name);
        assert_whole(&entry, (&name, &ahead, "MasterCrashed"), 1);
        assert_eq!(ranking(&entry), [(&*behind, Some(1), None), (&*ahead, Some(2), None)]);
        let reason = entry["reason"].as_str().expect("a reason");
        assert!(reason.contains("bytes behind"), "{reason}");
        group.replicas[0].wait_for_link(&group.replicas[1]);
        assert_eq!(group.replicas[1].cmd(&["STRLEN", "fill:40"]), "1000000");
    });
}

#[test]
fn a_replica_that_never_finished_a_sync_is_not_eligible() {
    on_each_kind(|kind| {
        let mut group = Group::start(kind, 0);
        let name = group.master.addr();
        // With a better priority and more data than the master ever had.
        let stranger = Server::start(kind, &Options::new().set("replica-priority", "1"));
        stranger.cmd(&["SET", "theirs", "1"]);
        let config = format!(
            "check_interval = 100\n[[group]]\nname = \"g\"\nmaster = \"{name}\"\nreplicas = [\"{}\"]\n",
            stranger.addr()
        );
        let daemon = guard_by_file(&config);
        daemon.wait_until_healthy("g", &[name.clone(), stranger.addr()]);
        group.master.kill9();
        stranger.replica_of(&group.master);
        daemon.wait_for("g", PATIENCE, |view| {
            let seen = instance(view, &stranger.addr()).expect("it stays known");
            let why = seen["not_eligible_because"].as_str().unwrap_or_default();
            view["diagnosis"]["name"] == "NoEligibleReplica"
                && why.contains("never finished a sync")
        });
        assert_left_alone(&daemon, "g");
        assert_eq!(
            (stranger.role(), stranger.cmd(&["GET", "theirs"])),
            ("slave".into(), "1".into())
        );
    });
}

#[test]
fn one_replica_that_refuses_to_be_repointed_does_not_lose_the_group() {
    on_each_kind(|kind| {
        let allowed = "on >secret ~* &* +@all";
        let plain = Options::new().user("guard", allowed);
        let refuses = Options::new()
            .user("guard", &format!("{allowed} -replicaof -slaveof"))
            .set("replica-priority", "200");
        let mut group = Group::start_each(kind, &plain, &[plain.clone(), refuses, plain.clone()]);
        let name = group.master.addr();
        let refusing = group.replicas[1].addr();
        let env =
            [("REDIS_FAILOVER_REDIS_USER", "guard"), ("REDIS_FAILOVER_REDIS_PASSWORD", "secret")];
        let daemon = guard_with(&group, &[], &env);
        group.wait_in_step();
        group.master.kill9();
        let entry = wait_for_failover(&daemon, &name);
        assert_eq!(entry["outcome"], "done");
        let new = entry["new_master"].as_str().expect("there is one").to_owned();
        assert_ne!(new, refusing);
        let steps = entry["steps"].as_array().expect("a list");
        let failed = steps.iter().find(|step| step["name"] == "failed").expect("it is told");
        assert_eq!(failed["addr"], refusing);
        assert!(failed["note"].as_str().is_some_and(|note| note.contains("NOPERM")), "{failed}");
        let third = [0, 2].into_iter().find(|at| group.replicas[*at].addr() != new);
        let third = &group.replicas[third.expect("one of the two")];
        wait_until_follows(&daemon, &name, third, group.server(&new));
        wait_for_entry(&daemon, &name, ("repair", &refusing, "failed"));
        assert_no_other_failover(&daemon, &name, &new);

        // Its owner relents, and it is brought along without being asked.
        group.replicas[1].cmd(&["ACL", "SETUSER", "guard", "+@all"]);
        wait_until_follows(&daemon, &name, &group.replicas[1], group.server(&new));
    });
}

#[test]
fn a_master_without_a_replica_is_waited_for() {
    on_each_kind(|kind| {
        let mut group = Group::start(kind, 0);
        let name = group.master.addr();
        let daemon = guard(&group, &["-max_down_time=1"]);
        wait_for_diagnosis(&daemon, &name, "NoReplicas");
        group.master.kill9();
        wait_for_diagnosis(&daemon, &name, "WholeGroupUnreachable");
        assert_left_alone(&daemon, &name);
        assert_eq!(daemon.get("/master").body, name);
        group.master.restart();
        wait_for_diagnosis(&daemon, &name, "NoReplicas");

        // A replica that comes later is found through the master.
        let late = Server::start(kind, &Options::new());
        late.replica_of(&group.master);
        wait_until_guarded(&daemon, &name, &[name.clone(), late.addr()]);
        late.wait_for_link(&group.master);
        wait_for_diagnosis(&daemon, &name, "Healthy");
        group.master.kill9();
        daemon.wait_for_master(&late.addr(), PATIENCE);
        late.wait_for_role("master");
    });
}

#[test]
fn parallel_syncs_bounds_how_many_are_repointed_at_a_time() {
    on_each_kind(|kind| {
        for at_a_time in [1, 3] {
            let mut group = Group::start(kind, 4);
            let name = group.master.addr();
            let daemon = guard(&group, &[&format!("-parallel_syncs={at_a_time}")]);
            group.master.kill9();
            let entry = wait_for_failover(&daemon, &name);
            let new = entry["new_master"].as_str().expect("there is one").to_owned();
            assert_whole(&entry, (&name, &new, "MasterCrashed"), 3);
            let mut on_their_way = 0;
            for step in step_names(&entry) {
                match step {
                    "repointed" => on_their_way += 1,
                    "link_verified" => on_their_way -= 1,
                    _ => {}
                }
                assert!((0..=at_a_time).contains(&on_their_way), "{entry:#}");
            }
            for replica in group.replicas.iter().filter(|replica| replica.addr() != new) {
                assert_eq!(replica.master_link(), Some((new.clone(), true)));
            }
        }
    });
}

#[test]
fn a_second_failure_is_a_second_failover() {
    on_each_kind(|kind| {
        let mut group = Group::start(kind, 2);
        let name = group.master.addr();
        let daemon = guard(&group, &[]);
        group.master.kill9();
        let first = wait_for_failover(&daemon, &name);
        let second_master = first["new_master"].as_str().expect("there is one").to_owned();
        let last = group.replicas.iter().find(|r| r.addr() != second_master);
        let last = last.expect("there are two").addr();
        wait_until_follows(&daemon, &name, group.server(&last), group.server(&second_master));
        group.server_mut(&second_master).kill9();
        daemon.wait_for_master(&last, PATIENCE);
        let entry = wait_for_failover(&daemon, &name);
        assert_whole(&entry, (&second_master, &last, "MasterCrashed"), 0);
        assert_eq!((entry["epoch"].as_u64(), failovers(&daemon, &name).len()), (Some(2), 2));
        // The first one comes back and finds its new master in spite of two changes.
        group.master.restart();
        wait_until_follows(&daemon, &name, &group.master, group.server(&last));
        holds("there is no third", || failovers(&daemon, &name).len() == 2);
    });
}
