//! Old masters that come back, or are cut off: how many writes they acknowledge with fencing, and what it costs.

use std::time::{Duration, Instant};

use crate::common::netns::Host;
use crate::common::{
    Cluster, Daemon, Group, Network, Options, Server, Writer, now, scenario, together, wait_until,
};
use crate::scenario::{Bench, RECOVERY_LIMIT, SETTLE, ms, progress};
use crate::table::{Row, Target};

const ON: [&str; 3] = ["-check_interval=100", "-max_down_time=1", "-fencing=min-replicas"];
const OFF: [&str; 3] = ["-check_interval=100", "-max_down_time=1", "-fencing=none"];
/// What the program makes of `max_down_time` 1.
const MAX_LAG: Duration = Duration::from_secs(2);
/// A server looks at its replicas once a second and counts in whole seconds; its clock ticks ten times a second.
const COUNTING: Duration = Duration::from_millis(2200);
const RESTART_AFTER: Duration = Duration::from_secs(2);
const CUT: Duration = Duration::from_secs(20);
/// Networks that are cut at the same time: nothing in them is busy, they only take long.
const AT_ONCE: usize = 5;

pub(crate) fn fencing(bench: &Bench) -> Vec<Row> {
    let mut rows = vec![];
    let (mut gaps, mut plain_gaps, mut accepted) = (Vec::new(), Vec::new(), Vec::new());
    for run in 0..bench.runs(20) {
        plain_gaps.push(restart(bench, &OFF, run).0);
        let (gap, writes) = restart(bench, &ON, run);
        progress("restart after a failover, writes of the old master", run, writes);
        gaps.push(gap);
        accepted.push(writes);
    }
    rows.push(bench.row(
        "restart 2 s after a failover with fencing, writes that the old master takes",
        "writes",
        accepted,
        Target::MaxAtMost(0.0),
        "",
    ));
    rows.push(bench.row(
        "kill -9 with fencing, write gap",
        "ms",
        gaps,
        Target::MedianBelow(20.0),
        "",
    ));
    rows.push(bench.row(
        "kill -9 without, in turn with it, write gap",
        "ms",
        plain_gaps,
        Target::None,
        "",
    ));
    let (mut late, mut stopped_after) = (Vec::new(), Vec::new());
    let runs = bench.runs(20);
    for first in (0..runs).step_by(AT_ONCE) {
        let cuts: Vec<Option<(f64, f64)>> = std::thread::scope(|scope| {
            let threads: Vec<_> = (first..runs.min(first + AT_ONCE))
                .map(|run| scope.spawn(move || cut_off(bench, run)))
                .collect();
            threads.into_iter().map(|thread| thread.join().expect("a run")).collect()
        });
        for (run, (writes, stopped)) in (first..).zip(cuts.into_iter().flatten()) {
            progress("cut off, late writes of the old master", run, writes);
            late.push(writes);
            stopped_after.push(stopped);
        }
    }
    if !late.is_empty() {
        rows.push(bench.row(
            "cut off for 20 s with fencing, writes later than max-lag + 2.2 s",
            "writes",
            late,
            Target::MaxAtMost(0.0),
            "",
        ));
        rows.push(bench.row(
            "cut off with fencing, max-lag 2 s: the last write of the old master after",
            "ms",
            stopped_after,
            Target::MaxAtMost(ms(MAX_LAG + COUNTING)),
            "",
        ));
    }
    rows
}

/// Kills a master and starts it again: the write gap, and the writes that it acknowledges after that.
fn restart(bench: &Bench, settings: &[&str], run: usize) -> (f64, f64) {
    let mut group = Group::start(bench.kind, 2);
    let name = group.master.addr();
    let masters = format!("-masters={name}");
    let args: Vec<&str> = settings.iter().copied().chain([masters.as_str()]).collect();
    let daemon = Daemon::start_with(&bench.binary, &args, &[]);
    scenario::wait_until_guarded(&daemon, &name, &group.addrs());
    let on = settings.contains(&ON[2]);
    if on {
        wait_until_fenced(&group);
    }
    let mut writer = Writer::start(&group);
    let phase = Duration::from_millis(u64::try_from(run * 37 % 100).expect("below 100"));
    std::thread::sleep(SETTLE + phase);
    let killed_at = group.master.kill9();
    let gap = writer.wait_for_gap(killed_at, &name, RECOVERY_LIMIT);
    if on {
        std::thread::sleep(RESTART_AFTER.saturating_sub(killed_at.elapsed()));
        group.master.restart();
        group.master.wait_for_link(group.server(&gap.addr));
    }
    writer.stop();
    (ms(gap.length), count(&writer, &name, killed_at))
}

/// Cuts a master off from its replicas and the program, and not from its clients: the writes that it acknowledges too
/// late, until it is a replica, and when it acknowledged its last one. `None` where there are no networks.
fn cut_off(bench: &Bench, run: usize) -> Option<(f64, f64)> {
    let network = Network::start(4)?;
    // A master that has nothing to tell pings its replicas each second.
    let on = |host: &Host| Options::new().on(host).set("repl-ping-replica-period", "1");
    let servers: Vec<Options> = network.hosts()[1..].iter().map(on).collect();
    let group = Group::start_each(bench.kind, &servers[0], &servers[1..]);
    let name = group.master.addr();
    let cluster = Cluster::plan_on(&network.hosts()[..1]).with_binary(&bench.binary);
    let _cluster = together::start_guard(cluster, &group, &ON);
    wait_until_fenced(&group);
    let mut writer = Writer::start(&group);
    let master: Vec<&Host> = vec![network.host(1)];
    let others: Vec<&Host> = [0, 2, 3].map(|host| network.host(host)).into();
    // Each cut falls on another moment of the servers' seconds.
    let phase = u64::try_from(run * 370 % 1000).expect("below 1000");
    std::thread::sleep(Duration::from_millis(phase));
    let cut_at = now();
    network.split(&master, &others);
    let gap = writer.wait_for_gap(cut_at, &name, RECOVERY_LIMIT);
    std::thread::sleep(CUT.saturating_sub(cut_at.elapsed()));
    network.join(&master, &others);
    let new = group.server(&gap.addr);
    // The link waits for the network's own time-outs.
    wait_until("the old master follows", Duration::from_secs(90), || {
        (group.master.master_link() == Some((new.addr(), true))).then_some(())
    });
    writer.stop();
    let last = writer.acknowledged_after(&name, cut_at).last().map(|write| write.answered_at);
    let stopped_after = last.map_or(Duration::ZERO, |at| at - cut_at);
    Some((count(&writer, &name, cut_at + MAX_LAG + COUNTING), ms(stopped_after)))
}

fn count(writer: &Writer, addr: &str, since: Instant) -> f64 {
    let writes = writer.acknowledged_after(addr, since).len();
    f64::from(u32::try_from(writes).expect("a run is short"))
}

fn wait_until_fenced(group: &Group) {
    let fenced = |server: &Server| {
        server.config_text().contains("min-replicas-to-write 1")
            && server.cmd(&["CONFIG", "GET", "min-replicas-to-write"]).ends_with('1')
    };
    wait_until("every server is fenced", RECOVERY_LIMIT, || {
        group.servers().all(fenced).then_some(())
    });
}
