//! What three nodes that agree cost.

use crate::common::http::Client;
use crate::common::{Cluster, Options, Server, now};
use crate::monitor::{Stage, plan};
use crate::scenario::{Bench, RECOVERY_LIMIT, ms, progress};
use crate::table::{Row, Target};

/// How long nobody could write after a kill -9, and how much later the last node told of the new master.
pub(crate) fn kill9_gaps(
    bench: &Bench,
    what: &str,
    plan: impl Fn() -> Cluster,
) -> (Vec<f64>, Vec<f64>) {
    let (mut gaps, mut told_after) = (Vec::new(), Vec::new());
    for run in 0..bench.runs(20) {
        let mut stage = Stage::through(bench, plan(), run);
        let old = stage.group().master.addr();
        let fault_at = stage.master().kill9();
        let gap = stage.writer.wait_for_gap(fault_at, &old, RECOVERY_LIMIT);
        let (_, told_at) = stage.told_by(&[0, 1, 2], &gap.addr, fault_at);
        stage.writer.stop();
        gaps.push(ms(gap.length));
        told_after.push(ms(told_at - fault_at) - ms(gap.length));
        progress(what, run, gaps[run]);
    }
    (gaps, told_after)
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
