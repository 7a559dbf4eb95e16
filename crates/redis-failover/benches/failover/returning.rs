//! A dead master that comes back after its replacement, under one write per millisecond to every server.

use std::time::Duration;

use crate::common::witness::Tenure;
use crate::common::{now, wait_until};
use crate::monitor::{Stage, both};
use crate::scenario::{Bench, RECOVERY_LIMIT, count, ms};
use crate::table::{Row, Target};

/// How long after the failover the old master is started again.
const AWAY: Duration = Duration::from_secs(2);
const DEMOTED_LIMIT: Duration = Duration::from_secs(60);

pub(crate) fn returning(bench: &Bench) -> Vec<Row> {
    let (ours, sentinel) = both(bench, (20, 3), |who, run| {
        let mut stage = Stage::set(bench, who, run);
        let old = stage.group().master.addr();
        let killed_at = stage.master().kill9();
        let gap = stage.writer.wait_for_gap(killed_at, &old, RECOVERY_LIMIT);
        std::thread::sleep(AWAY.saturating_sub(gap.ended_at.elapsed()));
        let started_at = now();
        stage.master().restart();
        let tenure: Tenure = wait_until("the old master refuses writes", DEMOTED_LIMIT, || {
            stage.writer.tenure(&old, started_at)
        });
        let new = stage.group().server(&gap.addr);
        stage.group().master.wait_for_link(new);
        stage.writer.stop();
        stage.progress("old master restarted", run, ms(tenure.length()));
        tenure
    });
    let row = |name: &str, unit, figure: fn(&Tenure) -> f64, target| {
        let all = |tenures: &[Tenure]| tenures.iter().map(figure).collect::<Vec<_>>();
        bench.row(name, unit, all(&ours), target, "").beside(all(&sentinel))
    };
    vec![
        row(
            "old master restarted 2 s after a failover, from its first connection to READONLY",
            "ms",
            |tenure| ms(tenure.length()),
            Target::MedianAtMost(50.0),
        ),
        row(
            "old master restarted 2 s after a failover, acknowledged writes lost",
            "writes",
            |tenure| count(tenure.acknowledged),
            Target::None,
        ),
    ]
}
