//! What is measured, one function each.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::common::{Daemon, Group, Server, ServerKind, Told, Writer};
use crate::table::{Row, Target};

/// A failover that takes longer than this is none.
pub(crate) const RECOVERY_LIMIT: Duration = Duration::from_secs(20);
/// Time for the program to see a group as it is before the fault.
pub(crate) const SETTLE: Duration = Duration::from_millis(300);

pub(crate) struct Bench {
    pub(crate) binary: PathBuf,
    pub(crate) kind: ServerKind,
    pub(crate) quick: bool,
    /// Without Sentinel.
    pub(crate) alone: bool,
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
        let name = format!("{:?}: {name}", self.kind);
        Row { name, unit, values, target, peer, sentinel: Vec::new() }
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

/// One node without a broker: what it takes without anybody to agree with.
pub(crate) fn single(bench: &Bench) -> Vec<Row> {
    let settings = ["-check_interval=100", "-max_down_time=1", "-crash_down_time=0"];
    let measure = |what: &str, runs, strike: fn(&mut Server) -> Instant| {
        let (mut gaps, mut told_after) = (Vec::new(), Vec::new());
        for run in 0..bench.runs(runs) {
            let mut stage = Stage::set(bench, &settings, run);
            let old = stage.group.master.addr();
            let fault_at = strike(&mut stage.group.master);
            let gap = stage.writer.wait_for_gap(fault_at, &old, RECOVERY_LIMIT);
            let told_at = stage.told.wait_for(&gap.addr, fault_at, RECOVERY_LIMIT);
            stage.writer.stop();
            gaps.push(ms(gap.length));
            told_after.push(ms(told_at - fault_at) - ms(gap.length));
            progress(what, run, gaps[run]);
        }
        (gaps, told_after)
    };
    let (killed, told_after) = measure("1 node, kill -9", 20, Server::kill9);
    let (hung, _) = measure("1 node, SIGSTOP", 10, Server::stop);
    vec![
        bench.row(
            "1 node, kill -9, write gap",
            "ms",
            killed,
            Target::MedianAtMost(8.0),
            "Go original 951; perfect 2.5",
        ),
        bench.row(
            "1 node, kill -9, told after the first write",
            "ms",
            told_after,
            Target::MedianAtMost(3.0),
            "Go original 15",
        ),
        bench.row(
            "1 node, SIGSTOP, write gap",
            "ms",
            hung,
            Target::MedianAndMax(1065.0, 1140.0),
            "Go original never",
        ),
    ]
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

pub(crate) fn count(number: usize) -> f64 {
    f64::from(u32::try_from(number).expect("a run is short"))
}

pub(crate) fn progress(what: &str, run: usize, value: f64) {
    eprintln!("{what}, run {}: {value:.1}", run + 1);
}
