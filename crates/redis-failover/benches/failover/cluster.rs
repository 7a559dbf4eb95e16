//! What three nodes that agree cost, and what they bear.

use std::time::{Duration, Instant};

use crate::common::child::{Owned, kill9_together};
use crate::common::daemon::instance;
use crate::common::http::Client;
use crate::common::together::wait_until_settled;
use crate::common::{Cluster, Group, Options, Server, Told, Writer, now, wait_until};
use crate::scenario::{Bench, RECOVERY_LIMIT, SETTLE, ms, progress};
use crate::table::{Row, Target};

pub(crate) const NODES: usize = 3;
/// Twice as many servers answer the first questions at the same time.
const START_LIMIT: Duration = Duration::from_secs(120);

/// A group in step, watched by three nodes, written to, and each node asked each millisecond.
pub(crate) struct Stage {
    cluster: Cluster,
    group: Group,
    writer: Writer,
    told: Vec<Told>,
}

impl Stage {
    fn set(bench: &Bench, run: usize) -> Self {
        Self::through(bench, plan(bench), run)
    }

    /// With nodes that were planned.
    pub(crate) fn through(bench: &Bench, cluster: Cluster, run: usize) -> Self {
        let group = Group::start(bench.kind, 2);
        let name = group.master.addr();
        let mut cluster = cluster.set(&format!("-masters={name}"));
        cluster.start_all();
        cluster.wait_masters(&[&name], RECOVERY_LIMIT);
        cluster.wait_until_guarded(&name, &group.addrs());
        cluster.leader_of_all();
        group.wait_in_step();
        let writer = Writer::start(&group);
        let told = (0..NODES).map(|node| Told::start(cluster.node(node).http())).collect();
        // The fault falls on another moment of the rhythm of probes and heartbeats in each run.
        let phase = Duration::from_millis(u64::try_from(run * 37 % 100).expect("below 100"));
        std::thread::sleep(SETTLE + phase);
        Self { cluster, group, writer, told }
    }

    /// When the last of these nodes named the new master.
    fn told_by_all(&self, nodes: &[usize], addr: &str, since: Instant) -> Instant {
        let told = nodes.iter().map(|node| self.told[*node].wait_for(addr, since, RECOVERY_LIMIT));
        told.max().expect("a node is asked")
    }
}

fn plan(bench: &Bench) -> Cluster {
    Cluster::plan(NODES).with_binary(&bench.binary)
}

/// The master dies.
pub(crate) fn kill9(bench: &Bench) -> Vec<Row> {
    let (gaps, told_after) = kill9_gaps(bench, "3 nodes, kill -9", |run| Stage::set(bench, run));
    vec![
        bench.row(
            "3 nodes, kill -9, write gap",
            "ms",
            gaps,
            Target::MedianBelow(25.0),
            "Sentinel 1367 (down-after 1 s), 477 (0.1 s)",
        ),
        bench.row(
            "3 nodes, kill -9, every node tells, after the first write",
            "ms",
            told_after,
            Target::MaxAtMost(10.0),
            "Sentinel 822 (the first one)",
        ),
    ]
}

/// How long nobody could write, and how much later the last node told of the new master.
pub(crate) fn kill9_gaps(
    bench: &Bench,
    what: &str,
    set: impl Fn(usize) -> Stage,
) -> (Vec<f64>, Vec<f64>) {
    let (mut gaps, mut told_after) = (Vec::new(), Vec::new());
    for run in 0..bench.runs(20) {
        let mut stage = set(run);
        let old = stage.group.master.addr();
        let fault_at = stage.group.master.kill9();
        let gap = stage.writer.wait_for_gap(fault_at, &old, RECOVERY_LIMIT);
        let told_at = stage.told_by_all(&[0, 1, 2], &gap.addr, fault_at);
        stage.writer.stop();
        gaps.push(ms(gap.length));
        told_after.push(ms(told_at - fault_at) - ms(gap.length));
        progress(what, run, gaps[run]);
    }
    (gaps, told_after)
}

/// The leader and the master die in the same instant.
pub(crate) fn leader(bench: &Bench) -> Vec<Row> {
    let mut gaps = Vec::new();
    for run in 0..bench.runs(10) {
        let mut stage = Stage::set(bench, run);
        let name = stage.group.master.addr();
        let leader = stage.cluster.leader();
        let mut both = [stage.cluster.node_mut(leader).process(), stage.group.master.process()];
        if run % 2 == 1 {
            both.swap(0, 1);
        }
        let (fault_at, _) = kill9_together(&mut both);
        stage.cluster.bury(leader);
        let gap = stage.writer.wait_for_gap(fault_at, &name, RECOVERY_LIMIT);
        stage.told_by_all(&stage.cluster.answering(), &gap.addr, fault_at);
        let entry = stage.cluster.wait_for_failover(&name);
        assert_eq!(entry["outcome"], "done", "{entry:#}");
        stage.writer.stop();
        let replicas: Vec<&Server> = stage.group.replicas.iter().collect();
        wait_until_settled(&stage.cluster, &name, &replicas, &gap.addr);
        gaps.push(ms(gap.length));
        progress("3 nodes, leader and master together", run, gaps[run]);
    }
    vec![bench.row(
        "3 nodes, leader and master kill -9 at once, write gap",
        "ms",
        gaps,
        Target::MaxBelow(1500.0),
        "",
    )]
}

/// A change of the record as a client of the leader sees it: HTTP, the loop, a majority's disks.
pub(crate) fn commit(bench: &Bench) -> Vec<Row> {
    let mut cluster = plan(bench);
    cluster.start_all();
    let leader = cluster.leader_of_all();
    let server = Server::start(bench.kind, &Options::new());
    let mut took = Vec::new();
    for _ in 0..bench.runs(200) {
        let mut client = Client::new(cluster.node(leader).http());
        let wish = format!("/master?masters={}", server.addr());
        let asked_at = now();
        let answer = client.request("POST", &wish, "").expect("the leader answers");
        took.push(ms(asked_at.elapsed()));
        assert_eq!(answer.status, 200, "{}", answer.body);
        let answer = client.request("DELETE", &wish, "").expect("the leader answers");
        assert_eq!(answer.status, 200, "{}", answer.body);
    }
    progress("3 nodes, commits", took.len() - 1, took[took.len() - 1]);
    vec![bench.row(
        "3 nodes, POST /master of a new group on the leader",
        "ms",
        took,
        Target::MedianBelow(3.0),
        "",
    )]
}

/// A hundred masters die in the same instant.
pub(crate) fn hundred(bench: &Bench) -> Vec<Row> {
    const GROUPS: usize = 100;
    let (mut slowest, mut dying) = (Vec::new(), Vec::new());
    for run in 0..if bench.quick { 1 } else { 3 } {
        let mut groups = start_groups(bench, GROUPS);
        let masters: Vec<String> = groups.iter().map(|group| group.master.addr()).collect();
        let replicas: Vec<String> = groups.iter().map(|group| group.replicas[0].addr()).collect();
        let mut cluster = plan(bench).set(&format!("-masters={}", masters.join(",")));
        cluster.start_all();
        for node in 0..NODES {
            wait_until("all 200 servers are up", START_LIMIT, || {
                // The answer is large; asking all the time would be what is measured.
                std::thread::sleep(Duration::from_millis(250));
                is_ready(&cluster, node, &masters, &replicas).then_some(())
            });
        }
        let leader = cluster.leader_of_all();
        for group in &groups {
            group.wait_in_step();
        }
        let told = Told::start(cluster.node(leader).http());
        std::thread::sleep(SETTLE);

        let mut processes: Vec<&mut Owned> =
            groups.iter_mut().map(|group| group.master.process()).collect();
        let (killed_at, ended_at) = kill9_together(&mut processes);
        let told_at = replicas.iter().map(|addr| told.wait_for(addr, killed_at, RECOVERY_LIMIT));
        let last_at = told_at.max().expect("there are groups");
        slowest.push(ms(last_at.saturating_duration_since(ended_at)));
        dying.push(ms(ended_at - killed_at));
        progress("3 nodes, 100 groups at once", run, slowest[run]);
        // It was told after it was done: each of them takes writes.
        for group in &groups {
            group.replicas[0].cmd(&["SET", "after", "1"]);
        }
        cluster
            .wait_masters(&replicas.iter().map(String::as_str).collect::<Vec<_>>(), RECOVERY_LIMIT);
    }
    vec![
        bench.row(
            "3 nodes, 100 groups at once, last one told after the last server's end",
            "ms",
            slowest,
            Target::MaxBelow(500.0),
            "",
        ),
        bench.row(
            "3 nodes, 100 groups at once, from the kill to the last server's end",
            "ms",
            dying,
            Target::None,
            "",
        ),
    ]
}

/// Starting a server is waiting for it, so a few are started at the same time.
fn start_groups(bench: &Bench, count: usize) -> Vec<Group> {
    const AT_ONCE: usize = 4;
    let kind = bench.kind;
    std::thread::scope(|scope| {
        let parts: Vec<_> = (0..AT_ONCE)
            .map(|part| {
                let share = (part..count).step_by(AT_ONCE).count();
                scope.spawn(move || (0..share).map(|_| Group::start(kind, 1)).collect::<Vec<_>>())
            })
            .collect();
        parts.into_iter().flat_map(|part| part.join().expect("servers start")).collect()
    })
}

/// The node sees every master up, and every replica with its link.
fn is_ready(cluster: &Cluster, node: usize, masters: &[String], replicas: &[String]) -> bool {
    let groups = cluster.node(node).get("/v1/groups").json;
    let groups = groups["groups"].as_array().cloned().unwrap_or_default();
    let is_up = |group: &serde_json::Value, addr: &str| {
        instance(group, addr).is_some_and(|seen| {
            seen["state"] == "up" && (seen["role"] == "master" || seen["link"] == "up")
        })
    };
    masters.iter().zip(replicas).all(|(master, replica)| {
        groups.iter().any(|group| is_up(group, master) && is_up(group, replica))
    })
}
