//! A dead master that comes back after its replacement, under one write per millisecond to every server.

use std::time::Duration;

use crate::common::scenario::wait_for_entry;
use crate::common::witness::Tenure;
use crate::common::{now, wait_until};
use crate::scenario::{Bench, RECOVERY_LIMIT, Stage, ms, progress};
use crate::table::{Row, Target};

/// How long after the failover the old master is started again.
const AWAY: Duration = Duration::from_secs(2);

pub(crate) fn returning(bench: &Bench) -> Vec<Row> {
    let (mut took, mut written) = (Vec::new(), Vec::new());
    for run in 0..bench.runs(20) {
        let settings = ["-check_interval=100", "-max_down_time=1"];
        let mut stage = Stage::set(bench, &settings, run);
        let old = stage.group.master.addr();
        let killed_at = stage.group.master.kill9();
        let gap = stage.writer.wait_for_gap(killed_at, &old, RECOVERY_LIMIT);
        std::thread::sleep(AWAY.saturating_sub(gap.ended_at.elapsed()));
        let started_at = now();
        stage.group.master.restart();
        let tenure: Tenure = wait_until("the old master refuses writes", RECOVERY_LIMIT, || {
            stage.writer.tenure(&old, started_at)
        });
        stage.writer.stop();
        wait_for_entry(&stage.daemon, &old, ("demotion", &old, "done"));
        took.push(ms(tenure.length()));
        written.push(f64::from(u32::try_from(tenure.acknowledged).expect("a run is short")));
        progress("old master restarted", run, took[run]);
    }
    vec![
        bench.row(
            "old master restarted 2 s after a failover, from its first connection to READONLY",
            "ms",
            took,
            Target::MedianBelow(50.0),
            "",
        ),
        bench.row(
            "old master restarted 2 s after a failover, writes it acknowledged",
            "writes",
            written,
            Target::None,
            "",
        ),
    ]
}
