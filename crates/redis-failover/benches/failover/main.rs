//! `make bench`: what the program promises, measured on real servers.
//!
//! Prints one table and writes `target/bench.json` of the workspace. Names on the command line
//! (`kill9 hang shutdown leader switchover return hundred idle large`, each beside Sentinel; `single flicker busy
//! obstacles emptied fencing together fleets commit stores takeover`) run these alone. From the environment:
//!
//! - `BENCH_QUICK=1`: few runs, to try the benchmark itself;
//! - `BENCH_ALONE=1`: without Sentinel, which takes most of the time;
//! - `BENCH_KIND=valkey`: Valkey instead of Redis; `ledisdb`: the stand-in for it;
//! - `BENCH_BINARY=path`: another build of the program.
//!
//! What Sentinel does stands beside: three processes of it before the same faults, in the same run, under the same
//! witnesses, which write to every server and ask every node each millisecond. The machine is shared and noisy: read medians and ratios.

#![allow(clippy::print_stdout, reason = "the table is what this program is for")]

mod bare;
mod cluster;
#[path = "../../tests/common/mod.rs"]
mod common;
mod emptied;
mod fake;
mod faults;
mod fencing;
mod fleets;
mod hundred;
mod idle;
mod idle_sentinel;
mod large;
mod monitor;
mod obstacles;
mod returning;
mod scenario;
mod sentinel;
mod stores;
mod switchover;
mod table;

use std::path::PathBuf;

use common::{Daemon, ServerKind};
use scenario::Bench;
use table::Row;

/// A name on the command line and what it runs.
type Scenario = (&'static str, fn(&Bench) -> Vec<Row>);

const SCENARIOS: [Scenario; 20] = [
    ("kill9", faults::kill9),
    ("hang", faults::hang),
    ("shutdown", faults::shutdown),
    ("leader", faults::leader),
    ("switchover", switchover::switchover),
    ("return", returning::returning),
    ("hundred", hundred::hundred),
    ("single", scenario::single),
    ("flicker", scenario::flicker),
    ("busy", obstacles::busy),
    ("obstacles", obstacles::obstacles),
    ("emptied", emptied::emptied),
    ("fencing", fencing::fencing),
    ("idle", idle::idle),
    ("large", large::large),
    ("together", large::together),
    ("fleets", fleets::fleets),
    ("commit", cluster::commit),
    ("stores", stores::kill9),
    ("takeover", stores::takeover),
];

fn main() {
    common::ledisdb::serve_if_told();
    fake::serve_if_told();
    bare::probe_if_told();
    // Cargo adds a flag of its own.
    let wanted: Vec<String> = std::env::args().skip(1).filter(|a| !a.starts_with('-')).collect();
    for name in &wanted {
        let known = SCENARIOS.iter().any(|(known, _)| known == name);
        assert!(known, "{name:?} is none of {:?}", SCENARIOS.map(|(name, _)| name));
    }
    let bench = Bench {
        binary: std::env::var_os("BENCH_BINARY").map_or_else(Daemon::binary, PathBuf::from),
        kind: match std::env::var("BENCH_KIND").as_deref() {
            Err(_) | Ok("redis") => ServerKind::Redis,
            Ok("valkey") => ServerKind::Valkey,
            Ok("ledisdb") => ServerKind::Ledisdb,
            Ok(other) => panic!("BENCH_KIND is redis, valkey or ledisdb, not {other:?}"),
        },
        quick: std::env::var_os("BENCH_QUICK").is_some(),
        alone: std::env::var_os("BENCH_ALONE").is_some(),
    };
    let mut rows = Vec::new();
    for (name, run) in SCENARIOS {
        if wanted.is_empty() || wanted.iter().any(|w| w == name) {
            rows.extend(run(&bench));
            // After each, so that a scenario that fails does not take the others' figures along.
            table::write_json(&rows);
        }
    }
    table::print(&rows);
}
