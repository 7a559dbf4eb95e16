//! What watching costs when nothing happens, from a hundred groups to nine thousand, beside the least that it can cost and
//! beside Sentinel.

use std::time::Duration;

use crate::bare;
use crate::common::child::{Owned, cpu_time, memory_kb};
use crate::common::{Daemon, now, temporary_dir, wait_until};
use crate::fake::{Fleet, raise_file_limit};
use crate::idle_sentinel;
use crate::scenario::{Bench, progress};
use crate::table::{Row, Target};

/// Two connections for each: more do not fit below the limit of descriptors where this usually runs.
pub(crate) const SIZES: [usize; 4] = [100, 1000, 5000, 9000];
pub(crate) const INTERVAL: Duration = Duration::from_millis(1000);
const WINDOW: Duration = Duration::from_secs(5);
const START_LIMIT: Duration = Duration::from_secs(120);
/// What happens only in the beginning is over by then.
const WARM_UP: Duration = Duration::from_secs(5);

pub(crate) fn sizes(bench: &Bench) -> &'static [usize] {
    if bench.quick { &SIZES[..2] } else { &SIZES }
}

pub(crate) fn idle(bench: &Bench) -> Vec<Row> {
    raise_file_limit();
    sizes(bench).iter().flat_map(|groups| watch(bench, &Fleet::start(*groups))).collect()
}

/// The program that watches these servers, and how many seconds it took until it saw all of them.
pub(crate) struct Watching {
    pub(crate) daemon: Daemon,
    pub(crate) ready_s: f64,
    _dir: tempfile::TempDir,
}

impl Watching {
    pub(crate) fn start(bench: &Bench, fleet: &Fleet) -> Self {
        let dir = temporary_dir();
        let config = format!("-config={}", write_config(&dir, fleet));
        let interval = format!("-check_interval={}", INTERVAL.as_millis());
        let started_at = now();
        let daemon = bench.start(&[&config, &interval, "-max_down_time=3"]);
        wait_until_all_are_healthy(&daemon, fleet.groups());
        Self { daemon, ready_s: started_at.elapsed().as_secs_f64(), _dir: dir }
    }
}

/// Names all masters in a file: a list of this length does not fit on a command line. Returns its path.
pub(crate) fn write_config(dir: &tempfile::TempDir, fleet: &Fleet) -> String {
    let path = dir.path().join("failover.toml");
    let masters: Vec<String> = fleet.masters().map(|addr| format!("\"{addr}\"")).collect();
    let text = format!("masters = [{}]\n", masters.join(","));
    std::fs::write(&path, text).expect("the directory is ours");
    path.display().to_string()
}

pub(crate) fn wait_until_all_are_healthy(daemon: &Daemon, groups: usize) {
    wait_until("every group is healthy", START_LIMIT, || {
        std::thread::sleep(Duration::from_millis(20));
        let health = daemon.get("/v1/health").json;
        let all = health["groups"] == groups && health["problems"] == serde_json::json!([]);
        all.then_some(())
    });
}

/// Processor time of a process in some windows: percent of a core, and microseconds for each probe.
#[derive(Default)]
pub(crate) struct Cost {
    pub(crate) percent: Vec<f64>,
    pub(crate) per_probe_us: Vec<f64>,
    pub(crate) memory_mb: Vec<f64>,
}

pub(crate) fn measure(bench: &Bench, what: &str, pid: u32, fleet: &Fleet) -> Cost {
    std::thread::sleep(WARM_UP);
    let mut cost = Cost { percent: Vec::new(), per_probe_us: Vec::new(), memory_mb: Vec::new() };
    for run in 0..if bench.quick { 1 } else { 5 } {
        let (before, from, probes) = (cpu_time(pid), now(), fleet.probes());
        std::thread::sleep(WINDOW);
        let used = (cpu_time(pid) - before).as_secs_f64();
        let probes = u32::try_from(fleet.probes() - probes).expect("a few thousand a second");
        cost.percent.push(100.0 * used / from.elapsed().as_secs_f64());
        cost.per_probe_us.push(1e6 * used / f64::from(probes.max(1)));
        let (resident_kb, _) = memory_kb(pid);
        cost.memory_mb.push(f64::from(u32::try_from(resident_kb).expect("it fits")) / 1024.0);
        progress(
            &format!("{} idle groups, {what}, % of a core", fleet.groups()),
            run,
            cost.percent[run],
        );
    }
    cost
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[sorted.len() / 2]
}

fn bare_loop(bench: &Bench, fleet: &Fleet) -> Cost {
    let bare: Owned = bare::start(fleet, INTERVAL);
    let instances = u64::try_from(2 * fleet.groups()).expect("it fits");
    let asked = fleet.probes();
    wait_until("the bare loop asks", START_LIMIT, || {
        std::thread::sleep(Duration::from_millis(100));
        (fleet.probes() - asked > instances).then_some(())
    });
    measure(bench, "bare epoll loop", bare.pid(), fleet)
}

fn watch(bench: &Bench, fleet: &Fleet) -> Vec<Row> {
    let groups = fleet.groups();
    let bare = bare_loop(bench, fleet);
    let sentinel = idle_sentinel::watching(bench, fleet);
    let watching = Watching::start(bench, fleet);
    let daemon = &watching.daemon;
    let cost = measure(bench, "this program", daemon.pid(), fleet);
    assert_eq!(instances_up(daemon), 2 * groups, "all are still up");
    let history = daemon.get("/v1/history").json;
    assert_eq!(history["history"], serde_json::json!([]), "nothing happened");

    let least = median(&bare.per_probe_us);
    let ratio = cost.per_probe_us.iter().map(|us| us / least).collect();
    let row = |name: &str, unit, values, target, peer| Row {
        name: format!("{groups} idle groups, {} instances: {name}", 2 * groups),
        unit,
        values,
        target,
        peer,
        sentinel: Vec::new(),
    };
    let (peer_cost, peer_ready_s) = sentinel.unzip();
    let peer_cost = peer_cost.unwrap_or_default();
    let thousand = groups == 1000;
    let limit = |limit: f64| if thousand { Target::MaxAtMost(limit) } else { Target::None };
    let (memory, start) = match groups {
        1000 => (Target::MaxAtMost(30.0), Target::MaxAtMost(1.0)),
        9000 => (Target::MaxAtMost(200.0), Target::MaxAtMost(10.0)),
        _ => (Target::None, Target::None),
    };
    let peer = |text: &'static str| if thousand { text } else { "" };
    vec![
        row("CPU", "% of a core", cost.percent, limit(4.0), peer("Go original 3.1 (masters only)"))
            .beside(peer_cost.percent),
        row("CPU for each probe", "µs", cost.per_probe_us, Target::None, ""),
        row("bare epoll loop, CPU for each probe", "µs", bare.per_probe_us, Target::None, ""),
        row("times the bare loop", "ratio", ratio, Target::MedianBelow(2.0), ""),
        row("memory", "MB", cost.memory_mb, memory, peer("Go original 33 (masters only)"))
            .beside(peer_cost.memory_mb),
        row(
            "start until all are watched",
            "s",
            vec![watching.ready_s],
            start,
            peer("three Sentinels over 120"),
        )
        .beside(peer_ready_s.into_iter().collect()),
    ]
}

fn instances_up(daemon: &Daemon) -> usize {
    let groups = daemon.get("/v1/groups").json;
    let groups = groups["groups"].as_array().cloned().unwrap_or_default();
    let instances = groups.iter().filter_map(|group| group["instances"].as_array()).flatten();
    instances.filter(|instance| instance["state"] == "up").count()
}
