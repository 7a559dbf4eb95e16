//! What failovers of a moment ago hold back, and that it is said.

mod common;

use common::scenario::{failovers, guard, holds, on_each_kind, wait_for_failover};
use common::{Group, PATIENCE};

#[test]
fn after_three_failovers_a_crash_has_to_last_and_after_one_a_hang_is_not_acted_on() {
    on_each_kind(|kind| {
        let mut group = Group::start(kind, 2);
        let name = group.master.addr();
        let daemon = guard(&group, &["-max_down_time=1"]);
        for count in 1..=4_u64 {
            let view = daemon.group(&name).expect("it is guarded");
            let master = view["master"].as_str().expect("an address").to_owned();
            group.server_mut(&master).kill9();
            daemon.wait_for(&name, PATIENCE, |view| view["epoch"] == count);
            let entry = wait_for_failover(&daemon, &name);
            assert_eq!(entry["outcome"], "done", "{entry:#}");
            let gap = entry["write_gap_ms"].as_f64().expect("it is known");
            assert_eq!(gap >= 1000.0, count == 4, "failover {count} took {gap} ms");
            group.server_mut(&master).restart();
            daemon.wait_for(&name, PATIENCE, |view| {
                let seen = common::daemon::instance(view, &master);
                seen.is_some_and(|seen| seen["role"] == "replica" && seen["link"] == "up")
            });
        }
        let view = daemon.wait_for(&name, PATIENCE, |view| view["diagnosis"]["name"] == "Flapping");
        let why = view["diagnosis"]["not_acting_because"].as_str().expect("a sentence");
        assert!(why.contains("3 failovers within 60 s"), "{why}");

        // Somebody hangs, half a minute too early.
        let master = view["master"].as_str().expect("an address").to_owned();
        group.server_mut(&master).stop();
        daemon.wait_for(&name, PATIENCE, |view| {
            let why = view["diagnosis"]["not_acting_because"].as_str().unwrap_or_default();
            view["diagnosis"]["name"] == "MasterHung" && why.contains("cooldown")
        });
        holds("it is not replaced", || failovers(&daemon, &name).len() == 4);
        group.server_mut(&master).cont();
    });
}
