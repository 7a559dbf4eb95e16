//! Redis Sentinel, one of it, with the same servers: what it costs to watch them, and one failover among them.
//!
//! Up to a thousand groups: beyond that it does not come to know all of them in minutes.

use std::fmt::Write as _;
use std::time::Duration;

use redis::Connection;

use crate::common::child::{Owned, command};
use crate::common::ports::Port;
use crate::common::{Group, ServerKind, Writer, now, temporary_dir, wait_until};
use crate::fake::{Fleet, raise_file_limit};
use crate::idle::measure;
use crate::scenario::{Bench, RECOVERY_LIMIT, ms, progress};
use crate::table::{Row, Target};

const SIZES: [usize; 2] = [100, 1000];
const START_LIMIT: Duration = Duration::from_secs(300);
const DOWN_AFTER_MS: u32 = 1000;

pub(crate) fn sentinel(bench: &Bench) -> Vec<Row> {
    assert_eq!(bench.kind, ServerKind::Redis, "Sentinel is measured with Redis");
    raise_file_limit();
    SIZES.iter().flat_map(|groups| watch(bench, *groups)).collect()
}

fn watch(bench: &Bench, groups: usize) -> Vec<Row> {
    let fleet = Fleet::start(groups);
    let real = Group::start(bench.kind, 2);
    let sentinel = Sentinel::start(&fleet, &real);
    let ready_s = sentinel.wait_until_all_are_known(groups);
    let cost = measure(bench, "Sentinel", sentinel.process.pid(), &fleet);
    let gap = failover(real);
    progress(&format!("Sentinel, kill -9 among {groups} groups"), 0, gap);
    let row = |name: &str, unit, values| Row {
        name: format!("one Sentinel, {groups} idle groups: {name}"),
        unit,
        values,
        target: Target::None,
        peer: "",
    };
    vec![
        row("CPU", "% of a core", cost.percent),
        row("memory", "MB", cost.memory_mb),
        row("start until all are known", "s", vec![ready_s]),
        row("kill -9 among them, down-after 1 s, write gap", "ms", vec![gap]),
    ]
}

fn failover(mut real: Group) -> f64 {
    real.wait_in_step();
    let old = real.master.addr();
    let mut writer = Writer::start(&real);
    std::thread::sleep(Duration::from_secs(2));
    let fault_at = real.master.kill9();
    let gap = writer.wait_for_gap(fault_at, &old, RECOVERY_LIMIT);
    writer.stop();
    ms(gap.length)
}

struct Sentinel {
    process: Owned,
    port: Port,
    started_at: std::time::Instant,
    _dir: tempfile::TempDir,
}

impl Sentinel {
    fn start(fleet: &Fleet, real: &Group) -> Self {
        let (port, dir) = (Port::take(), temporary_dir());
        let mut text =
            format!("port {}\nbind 127.0.0.1\ndir {}\n", port.number(), dir.path().display());
        let mut monitor = |name: &str, ip: String, port: u16| {
            writeln!(
                text,
                "sentinel monitor {name} {ip} {port} 1\nsentinel down-after-milliseconds {name} {DOWN_AFTER_MS}"
            )
            .expect("a text can be written to");
        };
        monitor("real", real.master.ip(), real.master.port());
        for (number, addr) in fleet.masters().enumerate() {
            monitor(&format!("group-{number}"), addr.ip().to_string(), addr.port());
        }
        let path = dir.path().join("sentinel.conf");
        std::fs::write(&path, text).expect("the directory is ours");
        let mut command = command("redis-server");
        command.arg(&path).arg("--sentinel").stdout(std::process::Stdio::null());
        let process = Owned::start(command).expect("redis-server can be started");
        Self { process, port, started_at: now(), _dir: dir }
    }

    /// Every group with its replica; gives how many seconds that took.
    fn wait_until_all_are_known(&self, groups: usize) -> f64 {
        let url = format!("redis://127.0.0.1:{}", self.port.number());
        let client = redis::Client::open(url).expect("an address");
        wait_until("Sentinel knows all", START_LIMIT, || {
            std::thread::sleep(Duration::from_millis(250));
            let mut connection = client.get_connection_with_timeout(START_LIMIT).ok()?;
            (known(&mut connection)? == groups).then_some(())
        });
        self.started_at.elapsed().as_secs_f64()
    }
}

/// How many of the idle groups it has up and with their replica.
fn known(connection: &mut Connection) -> Option<usize> {
    let text: String = redis::cmd("INFO").arg("sentinel").query(connection).ok()?;
    let whole = |line: &&str| line.contains("status=ok") && line.contains("slaves=1,");
    Some(text.lines().filter(|line| line.starts_with("master")).filter(whole).count())
}
