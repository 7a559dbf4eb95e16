//! One master dies among thousands of groups.

use std::time::Duration;

use crate::common::{Cluster, Daemon, Group, Writer, now, temporary_dir, wait_until};
use crate::fake::{Fleet, raise_file_limit};
use crate::idle::{INTERVAL, Watching, measure, sizes, wait_until_all_are_healthy, write_config};
use crate::idle_sentinel;
use crate::monitor::NODES;
use crate::scenario::{Bench, RECOVERY_LIMIT, SETTLE, ms, progress};
use crate::table::{Row, Target};

/// As many as three nodes can watch where a process may open 20,000 files: all servers are in one.
const TOGETHER: usize = 3000;

pub(crate) fn large(bench: &Bench) -> Vec<Row> {
    raise_file_limit();
    let alone = bench.start(&["-check_interval=1000", "-max_down_time=3"]);
    let gaps = failovers(bench, &alone, 0);
    drop(alone);
    let twice = 2.0 * median(&gaps);
    let mut rows = vec![bench.row(&name(0), "ms", gaps, Target::None, "")];
    for groups in sizes(bench) {
        let fleet = Fleet::start(*groups);
        let peer = idle_sentinel::failover(bench, &fleet);
        let watching = Watching::start(bench, &fleet);
        let gaps = failovers(bench, &watching.daemon, *groups);
        let row = bench.row(&name(*groups), "ms", gaps, Target::MedianBelow(twice), "");
        rows.push(row.beside(peer.into_iter().collect()));
    }
    rows
}

/// Three nodes that agree, and watch all of them.
pub(crate) fn together(bench: &Bench) -> Vec<Row> {
    raise_file_limit();
    let groups = if bench.quick { 100 } else { TOGETHER };
    let mut alone = three(bench);
    alone.start_all();
    let gaps = failovers(bench, alone.node(alone.leader_of_all()), 0);
    drop(alone);
    let twice = 2.0 * median(&gaps);
    let mut rows = vec![bench.row(&format!("3 nodes, {}", name(0)), "ms", gaps, Target::None, "")];

    let fleet = Fleet::start(groups);
    let dir = temporary_dir();
    let mut cluster = three(bench).set(&format!("-config={}", write_config(&dir, &fleet)));
    let started_at = now();
    cluster.start_all();
    for node in 0..NODES {
        wait_until_all_are_healthy(cluster.node(node), groups);
    }
    let ready_s = vec![started_at.elapsed().as_secs_f64()];
    let leader = cluster.leader_of_all();
    let follower = (leader + 1) % NODES;
    let mut costs = Vec::new();
    for (what, node) in [("leader", leader), ("follower", follower)] {
        let cost = measure(bench, what, cluster.node(node).pid(), &fleet);
        for (unit, values) in [("% of a core", cost.percent), ("MB", cost.memory_mb)] {
            let name = format!("3 nodes, {groups} idle groups, the {what}");
            costs.push(bench.row(&name, unit, values, Target::None, ""));
        }
    }
    let gaps = failovers(bench, cluster.node(leader), groups);
    let row = |name: &str, unit, values, target| {
        bench.row(&format!("3 nodes, {name}"), unit, values, target, "")
    };
    rows.push(row(&name(groups), "ms", gaps, Target::MedianBelow(twice)));
    let start = format!("{groups} groups, start until all nodes watch all");
    rows.push(row(&start, "s", ready_s, Target::None));
    rows.extend(costs);
    rows
}

fn three(bench: &Bench) -> Cluster {
    Cluster::plan(NODES)
        .with_binary(&bench.binary)
        .set(&format!("-check_interval={}", INTERVAL.as_millis()))
        .set("-max_down_time=3")
}

fn name(groups: usize) -> String {
    format!("kill -9 among {groups} other groups, write gap")
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[sorted.len() / 2]
}

/// One real group after the other is guarded too, and its master killed.
fn failovers(bench: &Bench, daemon: &Daemon, others: usize) -> Vec<f64> {
    let mut gaps = Vec::new();
    for run in 0..bench.runs(10) {
        let mut group = Group::start(bench.kind, 2);
        let old = group.master.addr();
        let answer = daemon.post("/master", &format!("masters={old}"));
        assert_eq!(answer.status, 200, "{}", answer.body);
        daemon.wait_until_healthy(&old, &group.addrs());
        group.wait_in_step();
        let mut writer = Writer::start(&group);
        // The fault falls on another moment of the program's rhythm in each run.
        let phase = u64::try_from(run * 137 % 1000).expect("below 1000");
        std::thread::sleep(SETTLE + Duration::from_millis(phase));
        let fault_at = group.master.kill9();
        let gap = writer.wait_for_gap(fault_at, &old, RECOVERY_LIMIT);
        writer.stop();
        gaps.push(ms(gap.length));
        progress(&format!("kill -9 among {others} groups"), run, gaps[run]);
        daemon.wait_for(&gap.addr, RECOVERY_LIMIT, |view| view["status"] == "active");
        let path = format!("/master?masters={}", gap.addr);
        wait_until("the group is forgotten", RECOVERY_LIMIT, || {
            (daemon.delete(&path).status == 200).then_some(())
        });
        wait_until_all_are_healthy(daemon, others);
    }
    gaps
}
