//! What is measured, one function each.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::common::{Daemon, Group, ServerKind, Told, Writer};
use crate::table::{Row, Target};

/// A failover that takes longer than this is none.
pub(crate) const RECOVERY_LIMIT: Duration = Duration::from_secs(20);
/// Time for the program to see a group as it is before the fault.
pub(crate) const SETTLE: Duration = Duration::from_millis(300);

pub(crate) struct Bench {
    pub(crate) binary: PathBuf,
    pub(crate) kind: ServerKind,
    pub(crate) quick: bool,
}

impl Bench {
    pub(crate) fn runs(&self, full: usize) -> usize {
        if self.quick { 3 } else { full }
    }

    pub(crate) fn start(&self, args: &[&str]) -> Daemon {
        Daemon::start_with(&self.binary, args, &[])
    }

    /// A row of this kind of server.
    pub(crate) fn row(
        &self,
        name: &str,
        unit: &'static str,
        values: Vec<f64>,
        target: Target,
        peer: &'static str,
    ) -> Row {
        Row { name: format!("{:?}: {name}", self.kind), unit, values, target, peer }
    }
}

/// A group in step, watched by the program, written to and asked about each millisecond.
pub(crate) struct Stage {
    pub(crate) group: Group,
    pub(crate) daemon: Daemon,
    pub(crate) writer: Writer,
    told: Told,
}

impl Stage {
    pub(crate) fn set(bench: &Bench, settings: &[&str], run: usize) -> Self {
        let group = Group::start(bench.kind, 2);
        let master = group.master.addr();
        let masters = format!("-masters={master}");
        let mut args = vec![masters.as_str()];
        args.extend(settings);
        let daemon = bench.start(&args);
        daemon.wait_until_healthy(&master, &group.addrs());
        group.wait_in_step();
        let writer = Writer::start(&group);
        let told = Told::start(daemon.http());
        // The fault falls on another moment of the program's rhythm in each run.
        let phase = Duration::from_millis(u64::try_from(run * 37 % 100).expect("below 100"));
        std::thread::sleep(SETTLE + phase);
        Self { group, daemon, writer, told }
    }
}

/// What one failover cost, in milliseconds and writes.
struct Cost {
    gap: f64,
    told: f64,
    /// Told minus gap: negative when the program knew before a client could write.
    told_after_write: f64,
    lost: f64,
}

impl Cost {
    fn of(stage: &mut Stage, fault_at: Instant) -> Self {
        let old = stage.group.master.addr();
        let gap = stage.writer.wait_for_gap(fault_at, &old, RECOVERY_LIMIT);
        let told_at = stage.told.wait_for(&gap.addr, fault_at, RECOVERY_LIMIT);
        stage.writer.stop();
        stage.told.stop();
        let told = told_at - fault_at;
        let lost = stage.writer.lost(&old, stage.group.server(&gap.addr));
        Self {
            gap: ms(gap.length),
            told: ms(told),
            told_after_write: ms(told) - ms(gap.length),
            lost: f64::from(u32::try_from(lost).expect("a run is short")),
        }
    }
}

pub(crate) fn kill9(bench: &Bench) -> Vec<Row> {
    let settings = ["-check_interval=100", "-max_down_time=1", "-crash_down_time=0"];
    let mut costs = Vec::new();
    for run in 0..bench.runs(20) {
        let mut stage = Stage::set(bench, &settings, run);
        let fault_at = stage.group.master.kill9();
        let cost = Cost::of(&mut stage, fault_at);
        progress("kill -9", run, cost.gap);
        costs.push(cost);
    }
    let all = |f: fn(&Cost) -> f64| costs.iter().map(f).collect::<Vec<_>>();
    vec![
        bench.row(
            "kill -9, write gap",
            "ms",
            all(|c| c.gap),
            Target::MedianBelow(20.0),
            "Sentinel 1367 (down-after 1 s), 477 (0.1 s); Go original 951; perfect 2.5",
        ),
        bench.row(
            "kill -9, GET /master names the new one",
            "ms",
            all(|c| c.told),
            Target::None,
            "Sentinel 2189, 1299; Go original 966",
        ),
        bench.row(
            "kill -9, told after the first write",
            "ms",
            all(|c| c.told_after_write),
            Target::MaxAtMost(10.0),
            "Sentinel 822; Go original 15",
        ),
        bench.row(
            "kill -9, acknowledged writes lost",
            "writes",
            all(|c| c.lost),
            Target::None,
            "Sentinel with down-after 0.1 s: up to 1400",
        ),
    ]
}

pub(crate) fn hang(bench: &Bench) -> Vec<Row> {
    let settings = ["-check_interval=100", "-max_down_time=1"];
    let mut gaps = Vec::new();
    for run in 0..bench.runs(10) {
        let mut stage = Stage::set(bench, &settings, run);
        let fault_at = stage.group.master.stop();
        let cost = Cost::of(&mut stage, fault_at);
        progress("SIGSTOP", run, cost.gap);
        gaps.push(cost.gap);
    }
    vec![bench.row(
        "SIGSTOP, max_down_time 1, write gap",
        "ms",
        gaps,
        Target::MaxBelow(1200.0),
        "Sentinel 1579 (down-after 1 s); Go original never",
    )]
}

/// A master that stops for less than `max_down_time` keeps its place.
pub(crate) fn flicker(bench: &Bench) -> Vec<Row> {
    const STOPPED: Duration = Duration::from_millis(800);
    let mut stage = Stage::set(bench, &["-check_interval=100", "-max_down_time=1"], 0);
    let master = stage.group.master.addr();
    let mut failovers = Vec::new();
    for run in 0..bench.runs(20) {
        let stopped_at = stage.group.master.stop();
        std::thread::sleep(STOPPED.saturating_sub(stopped_at.elapsed()));
        stage.group.master.cont();
        stage.writer.wait_for_write(&master);
        // Longer than `max_down_time`: a late decision shows, too.
        std::thread::sleep(Duration::from_millis(1200));
        let replaced = stage.daemon.get("/master").body != master
            || stage.writer.gap(stopped_at, &master).is_some();
        failovers.push(if replaced { 1.0 } else { 0.0 });
        progress("SIGSTOP for 800 ms", run, failovers[run]);
        assert!(!replaced, "replaced after 800 ms:\n{}", stage.daemon.log());
    }
    vec![bench.row(
        "SIGSTOP for 800 ms, max_down_time 1, failovers",
        "count",
        failovers,
        Target::MaxAtMost(0.0),
        "",
    )]
}

pub(crate) fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}

pub(crate) fn progress(what: &str, run: usize, value: f64) {
    eprintln!("{what}, run {}: {value:.1}", run + 1);
}
