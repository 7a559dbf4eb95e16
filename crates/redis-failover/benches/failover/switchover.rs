//! A planned change of master under one write per millisecond to every server.

use crate::common::{Server, ServerKind, now};
use crate::scenario::{Bench, RECOVERY_LIMIT, Stage, ms, progress};
use crate::table::{Row, Target};

/// How many replicas had to copy everything from the new master.
fn full_copies(stage: &Stage, new: &Server) -> f64 {
    match new.kind() {
        ServerKind::Redis | ServerKind::Valkey => {
            new.info("stats")["sync_full"].parse().expect("a number")
        }
        // It counts none, but who copied has an empty log, or one that begins later than everybody's.
        ServerKind::Ledisdb => {
            let began = |server: &&Server| server.info("replication")["first_log_id"] != "1";
            f64::from(u32::try_from(stage.group.servers().filter(began).count()).expect("three"))
        }
    }
}

pub(crate) fn switchover(bench: &Bench) -> Vec<Row> {
    let (mut gaps, mut lost, mut doubled, mut copies) = (vec![], vec![], vec![], vec![]);
    for run in 0..bench.runs(20) {
        let mut stage = Stage::set(bench, &["-check_interval=100"], run);
        let old = stage.group.master.addr();
        let asked_at = now();
        let answer = stage.daemon.post(&format!("/v1/groups/{old}/switchover"), "{}");
        assert_eq!(answer.json["outcome"], "done", "{}", answer.body);
        let gap = stage.writer.wait_for_gap(asked_at, &old, RECOVERY_LIMIT);
        stage.writer.stop();
        let new = stage.group.server(&gap.addr);
        // From the last write that the old one took to the first that the new one took.
        let last = stage.writer.acknowledged_after(&old, asked_at);
        let last = last.last().map_or(asked_at, |write| write.answered_at);
        gaps.push(ms(gap.ended_at.saturating_duration_since(last)));
        lost.push(f64::from(u32::try_from(stage.writer.lost(&old, new)).expect("a run is short")));
        doubled.push(ms(stage.writer.two_masters(&old, &gap)));
        copies.push(full_copies(&stage, new));
        progress("switchover", run, gaps[run]);
    }
    vec![
        bench.row(
            "switchover, write gap",
            "ms",
            gaps,
            Target::MedianBelow(15.0),
            "Sentinel's planned failover loses writes",
        ),
        bench.row(
            "switchover, acknowledged writes lost",
            "writes",
            lost,
            Target::MaxAtMost(0.0),
            "Sentinel 750",
        ),
        bench.row("switchover, two masters take writes", "ms", doubled, Target::MaxAtMost(0.0), ""),
        bench.row("switchover, full copies", "count", copies, Target::MaxAtMost(0.0), ""),
    ]
}
