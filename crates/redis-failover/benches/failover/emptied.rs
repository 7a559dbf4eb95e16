//! A supervisor that brings a crashed master back after 50 ms, without its data, while nobody waits for its crash.

use std::time::Duration;

use crate::common::{Daemon, Group, Options, Writer, wait_until};
use crate::scenario::{Bench, RECOVERY_LIMIT, SETTLE, ms, progress};
use crate::table::{Row, Target};

const SUPERVISOR: Duration = Duration::from_millis(50);
const FILL: &str =
    "for i = 1, 1000 do redis.call('SET', 'key' .. i, i) end return redis.call('DBSIZE')";

/// The replicas come back to their master at once and are wiped by it as fast as the server can.
pub(crate) fn emptied(bench: &Bench) -> Vec<Row> {
    let (mut gaps, mut lost) = (vec![], vec![]);
    for run in 0..bench.runs(20) {
        let options = Options::new().set("repl-diskless-sync-delay", "0");
        let mut group = Group::start_with(bench.kind, 1 + run % 2, &options);
        let old = group.master.addr();
        let masters = format!("-masters={old}");
        let args = [&*masters, "-check_interval=100", "-max_down_time=3", "-crash_down_time=3"];
        let daemon = Daemon::start_with(&bench.binary, &args, &[]);
        daemon.wait_until_healthy(&old, &group.addrs());
        let keys: u64 = group.master.cmd(&["EVAL", FILL, "0"]).parse().expect("a number");
        group.wait_in_step();
        let mut writer = Writer::start_on(group.servers());
        // Each run falls on another moment of the replicas' one attempt per second.
        let phase = Duration::from_millis(u64::try_from(run * 53 % 1000).expect("below 1000"));
        std::thread::sleep(SETTLE + phase);
        group.master.kill9();
        std::thread::sleep(SUPERVISOR);
        group.master.restart();
        let serving_at = crate::common::now();
        let gap = writer.wait_for_gap(serving_at, &old, RECOVERY_LIMIT);
        writer.stop();
        let new = group.server(&gap.addr);
        let held = || new.try_cmd(&["DBSIZE"]).ok()?.parse::<u64>().ok();
        let held = wait_until("the new master counts its keys", RECOVERY_LIMIT, held);
        gaps.push(ms(gap.length));
        // The writer has one key of its own on each server.
        lost.push(f64::from(u32::try_from(keys.saturating_sub(held)).expect("a thousand")));
        progress("emptied", run, gaps[run]);
    }
    vec![
        bench.row(
            "restarted empty, until a replica takes writes",
            "ms",
            gaps,
            Target::None,
            "wiped after 300 to 1100",
        ),
        bench.row(
            "restarted empty, keys lost",
            "keys",
            lost,
            Target::MaxAtMost(0.0),
            "Sentinel: all",
        ),
    ]
}
