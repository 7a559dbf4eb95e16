//! A master that dies, hangs or is shut down, and one that dies together with the node that guards it.

use std::time::{Duration, Instant};

use crate::common::child::kill9_together;
use crate::common::now;
use crate::common::witness::{Outcome, Write};
use crate::monitor::{Monitor, Stage, both};
use crate::scenario::{Bench, RECOVERY_LIMIT, count, ms};
use crate::table::{Row, Target};

/// After it was told: longer than both monitors' time to call a master dead, so that a second failover would be seen.
const QUIET: Duration = Duration::from_millis(1500);

/// What one failover cost, in milliseconds and writes.
struct Cost {
    gap: f64,
    /// From the end of the master's process: what a server does before it ends is not the monitor's.
    gap_after_end: f64,
    /// The first node tells, after the fault and after the first write.
    told: f64,
    told_after_write: f64,
    /// The same of the last node.
    told_by_all_after_write: f64,
    /// When a client of the old master first got no answer from it.
    end_seen: f64,
    lost: f64,
    promotions: f64,
    steps: Vec<(String, f64)>,
}

impl Cost {
    /// What follows a fault that was done, to its end, when this is called.
    fn of(stage: &mut Stage, fault_at: Instant, nodes: &[usize]) -> Self {
        let ended_at = now();
        let old = stage.group().master.addr();
        let gap = stage.writer.wait_for_gap(fault_at, &old, RECOVERY_LIMIT);
        let (first, last) = stage.told_by(nodes, &gap.addr, fault_at);
        let lost = stage.writer.lost(&old, stage.group().server(&gap.addr));
        std::thread::sleep(QUIET);
        stage.writer.stop();
        let writes = stage.writer.writes(&old);
        let failed = |write: &&Write| {
            write.answered_at >= fault_at && write.outcome != Outcome::Acknowledged
        };
        let end_seen = writes.iter().find(failed).map_or(fault_at, |write| write.answered_at);
        let after = |told: Instant| ms(told - fault_at) - ms(gap.length);
        Self {
            gap: ms(gap.length),
            gap_after_end: ms(gap.ended_at.saturating_duration_since(ended_at)),
            told: ms(first - fault_at),
            told_after_write: after(first),
            told_by_all_after_write: after(last),
            end_seen: ms(end_seen.saturating_duration_since(fault_at)),
            lost: count(lost),
            steps: steps_of(stage),
            promotions: count(stage.promotions()),
        }
    }
}

fn costs(
    bench: &Bench,
    what: &str,
    runs: (usize, usize),
    strike: impl Fn(&mut Stage) -> Instant,
) -> (Vec<Cost>, Vec<Cost>) {
    both(bench, runs, |who, run| {
        let mut stage = Stage::set(bench, who, run);
        let fault_at = strike(&mut stage);
        let cost = Cost::of(&mut stage, fault_at, &[0, 1, 2]);
        stage.progress(what, run, cost.gap);
        cost
    })
}

/// A figure of all runs: ours with Sentinel's beside it.
fn row(
    bench: &Bench,
    name: &str,
    unit: &'static str,
    (ours, sentinel): &(Vec<Cost>, Vec<Cost>),
    figure: fn(&Cost) -> f64,
    target: Target,
) -> Row {
    let all = |costs: &[Cost]| costs.iter().map(figure).collect::<Vec<_>>();
    bench.row(name, unit, all(ours), target, "").beside(all(sentinel))
}

pub(crate) fn kill9(bench: &Bench) -> Vec<Row> {
    let costs = costs(bench, "kill -9", (50, 7), |stage| stage.master().kill9());
    let spans = spans(bench, &costs.0);
    let row = |name, unit, figure, target| row(bench, name, unit, &costs, figure, target);
    let mut rows = vec![
        row("kill -9, write gap", "ms", |c| c.gap, Target::MedianAndMax(8.0, 40.0)),
        row("kill -9, the first node tells", "ms", |c| c.told, Target::None),
        row(
            "kill -9, the first node tells, after the first write",
            "ms",
            |c| c.told_after_write,
            Target::MedianAtMost(3.0),
        ),
        row(
            "kill -9, every node tells, after the first write",
            "ms",
            |c| c.told_by_all_after_write,
            Target::MedianAtMost(3.0),
        ),
        row("kill -9, acknowledged writes lost", "writes", |c| c.lost, Target::None),
        row("kill -9, promotions", "count", |c| c.promotions, Target::Always(1.0)),
    ];
    rows.extend(spans);
    rows
}

/// Where the time went, by the steps that our program writes down. Before the first of them only a client of the dead
/// master knows: when the connection ended for it.
fn spans(bench: &Bench, costs: &[Cost]) -> Vec<Row> {
    let parts = [
        ("from the kill until a client sees the end of its connection", ""),
        ("from the first sign until the port is known to refuse", "down"),
        ("until a quorum and the replicas agree", "dead_agreed"),
        ("until the hooks were asked", "vetted"),
        ("until the decision is committed", "committed"),
        ("until the promotion is sent", "promote_sent"),
        ("until the new master has answered", "promoted"),
        ("until that is recorded", "recorded"),
        ("until it is told", "told"),
    ];
    let row = |(what, step): (&str, &str)| {
        let spans = costs.iter().filter_map(|cost| match step {
            "" => Some(cost.end_seen * 1000.0),
            step => cost.steps.iter().find(|(name, _)| name == step).map(|(_, span)| span * 1000.0),
        });
        bench.row(&format!("kill -9, {what}"), "us", spans.collect(), Target::None, "")
    };
    parts.map(row).into()
}

/// What each step of the failover took, in milliseconds.
fn steps_of(stage: &Stage) -> Vec<(String, f64)> {
    let Monitor::Ours(cluster) = &stage.monitor else { return Vec::new() };
    let entry = cluster.wait_for_failover(&stage.group().master.addr());
    let mut before = 0.0;
    let mut steps = Vec::new();
    for step in entry["steps"].as_array().expect("the steps are a list") {
        let at = step["at_ms"].as_f64().expect("a step has a time");
        steps.push((step["name"].as_str().expect("a step has a name").to_owned(), at - before));
        before = at;
    }
    steps
}

/// `max_down_time` 1 s, half of `check_interval` 100 ms until the next probe, and what the failover itself takes.
pub(crate) fn hang(bench: &Bench) -> Vec<Row> {
    let costs = costs(bench, "SIGSTOP", (20, 5), |stage| stage.master().stop());
    let row = |name, unit, figure, target| row(bench, name, unit, &costs, figure, target);
    vec![
        row("SIGSTOP, write gap", "ms", |c| c.gap, Target::MedianAndMax(1065.0, 1140.0)),
        row("SIGSTOP, the first node tells", "ms", |c| c.told, Target::None),
        row(
            "SIGSTOP, every node tells, after the first write",
            "ms",
            |c| c.told_by_all_after_write,
            Target::MedianAtMost(3.0),
        ),
        row("SIGSTOP, promotions", "count", |c| c.promotions, Target::Always(1.0)),
    ]
}

/// The server takes no writes any more while it waits for its replicas, which is part of the gap.
pub(crate) fn shutdown(bench: &Bench) -> Vec<Row> {
    let costs = costs(bench, "SHUTDOWN", (10, 5), |stage| stage.master().shutdown());
    let row = |name, unit, figure, target| row(bench, name, unit, &costs, figure, target);
    vec![
        row("SHUTDOWN NOSAVE, write gap", "ms", |c| c.gap, Target::None),
        row("SHUTDOWN NOSAVE, write gap after the server's end", "ms", |c| c.gap_after_end, {
            Target::MedianAndMax(8.0, 40.0)
        }),
        row("SHUTDOWN NOSAVE, the first node tells", "ms", |c| c.told, Target::None),
        row("SHUTDOWN NOSAVE, acknowledged writes lost", "writes", |c| c.lost, Target::None),
        row("SHUTDOWN NOSAVE, promotions", "count", |c| c.promotions, Target::Always(1.0)),
    ]
}

/// The leader and the master die in the same instant.
pub(crate) fn leader(bench: &Bench) -> Vec<Row> {
    let costs = both(bench, (10, 5), |who, run| {
        let mut stage = Stage::set(bench, who, run);
        let leader = stage.monitor.leader();
        let mut both = [stage.monitor.process(leader), stage.groups[0].master.process()];
        if run % 2 == 1 {
            both.swap(0, 1);
        }
        let (fault_at, _) = kill9_together(&mut both);
        stage.monitor.bury(leader);
        let left: Vec<usize> = [0, 1, 2].into_iter().filter(|node| *node != leader).collect();
        let cost = Cost::of(&mut stage, fault_at, &left);
        stage.progress("leader and master", run, cost.gap);
        cost
    });
    let row = |name, unit, figure, target| row(bench, name, unit, &costs, figure, target);
    vec![
        row("leader and master kill -9 at once, write gap", "ms", |c| c.gap, {
            Target::MedianAtMost(700.0)
        }),
        row("leader and master kill -9 at once, a node tells", "ms", |c| c.told, Target::None),
        row(
            "leader and master kill -9 at once, promotions",
            "count",
            |c| c.promotions,
            Target::Always(1.0),
        ),
    ]
}
