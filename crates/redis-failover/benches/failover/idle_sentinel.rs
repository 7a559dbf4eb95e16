//! Redis Sentinel, one of it, with the same servers: what it costs to watch them, and one failover among them.

use std::fmt::Write as _;
use std::time::Duration;

use redis::Connection;

use crate::common::child::{Owned, command};
use crate::common::ports::Port;
use crate::common::{Group, ServerKind, Writer, now, temporary_dir, wait_until};
use crate::fake::Fleet;
use crate::idle::{Cost, measure};
use crate::scenario::{Bench, ms, progress};

/// As many as it comes to know in minutes.
const GROUPS_MAX: usize = 1000;
const START_LIMIT: Duration = Duration::from_secs(300);
const DOWN_AFTER_MS: u32 = 1000;
/// With a thousand groups it may need longer than anybody waits.
const FAILOVER_LIMIT: Duration = Duration::from_secs(60);

/// What watching these servers costs it, and how many seconds it took until it knew all; nothing of what is too much for
/// it.
pub(crate) fn watching(bench: &Bench, fleet: &Fleet) -> Option<(Cost, f64)> {
    let sentinel = Sentinel::start(bench, fleet, None)?;
    let ready_s = sentinel.wait_until_all_are_known();
    Some((measure(bench, "Sentinel", sentinel.process.pid(), fleet), ready_s))
}

/// How long nobody could write when the master of one real group died among them; nothing where nobody ever could.
pub(crate) fn failover(bench: &Bench, fleet: &Fleet) -> Option<f64> {
    let mut real = Group::start(bench.kind, 2);
    let sentinel = Sentinel::start(bench, fleet, Some(&real))?;
    sentinel.wait_until_all_are_known();
    real.wait_in_step();
    let old = real.master.addr();
    let mut writer = Writer::start(&real);
    std::thread::sleep(Duration::from_secs(2));
    let fault_at = real.master.kill9();
    let gap = loop {
        let gap = writer.gap(fault_at, &old);
        if gap.is_some() || fault_at.elapsed() > FAILOVER_LIMIT {
            break gap;
        }
        std::thread::sleep(Duration::from_millis(100));
    };
    writer.stop();
    let gap = gap.map(|gap| ms(gap.length));
    let shown = gap.unwrap_or(f64::INFINITY);
    progress(&format!("Sentinel, kill -9 among {} groups", fleet.groups()), 0, shown);
    gap
}

struct Sentinel {
    groups: usize,
    process: Owned,
    port: Port,
    started_at: std::time::Instant,
    _dir: tempfile::TempDir,
}

impl Sentinel {
    fn start(bench: &Bench, fleet: &Fleet, real: Option<&Group>) -> Option<Self> {
        if bench.alone || bench.kind != ServerKind::Redis || fleet.groups() > GROUPS_MAX {
            return None;
        }
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
        if let Some(real) = real {
            monitor("real", real.master.ip(), real.master.port());
        }
        for (number, addr) in fleet.masters().enumerate() {
            monitor(&format!("group-{number}"), addr.ip().to_string(), addr.port());
        }
        let path = dir.path().join("sentinel.conf");
        std::fs::write(&path, text).expect("the directory is ours");
        let mut command = command("redis-server");
        command.arg(&path).arg("--sentinel").stdout(std::process::Stdio::null());
        let process = Owned::start(command).expect("redis-server can be started");
        let groups = fleet.groups() + usize::from(real.is_some());
        Some(Self { groups, process, port, started_at: now(), _dir: dir })
    }

    /// Every group with its replicas; gives how many seconds that took.
    fn wait_until_all_are_known(&self) -> f64 {
        let url = format!("redis://127.0.0.1:{}", self.port.number());
        let client = redis::Client::open(url).expect("an address");
        wait_until("Sentinel knows all", START_LIMIT, || {
            std::thread::sleep(Duration::from_millis(250));
            let mut connection = client.get_connection_with_timeout(START_LIMIT).ok()?;
            (known(&mut connection)? == self.groups).then_some(())
        });
        self.started_at.elapsed().as_secs_f64()
    }
}

/// How many of the groups it has up and with their replicas: an idle one has one, the real one two.
fn known(connection: &mut Connection) -> Option<usize> {
    let text: String = redis::cmd("INFO").arg("sentinel").query(connection).ok()?;
    let whole = |line: &&str| {
        let replicas = if line.contains("name=real,") { "slaves=2," } else { "slaves=1," };
        line.contains("status=ok") && line.contains(replicas)
    };
    Some(text.lines().filter(|line| line.starts_with("master")).filter(whole).count())
}
