//! The same with an etcd or a ZooKeeper between the nodes, one server each as its package installs it: with its disk, its
//! own times, and this program's default lease.

use std::time::Duration;

use crate::cluster::kill9_gaps;
use crate::common::{Agree, Cluster, Store, now, wait_until};
use crate::monitor::NODES;
use crate::scenario::{Bench, RECOVERY_LIMIT, ms, progress};
use crate::table::{Row, Target};

/// The master dies.
pub(crate) fn kill9(bench: &Bench) -> Vec<Row> {
    let mut rows = Vec::new();
    for agree in Agree::outer() {
        let store = Store::installed(agree);
        let name = format!("3 nodes through {}, kill -9", agree.name());
        let (gaps, told_after) = kill9_gaps(bench, &name, || plan(bench, &store));
        rows.push(bench.row(
            &format!("{name}, write gap"),
            "ms",
            gaps,
            Target::MedianBelow(40.0),
            "",
        ));
        rows.push(bench.row(
            &format!("{name}, every node tells, after the first write"),
            "ms",
            told_after,
            Target::MaxAtMost(50.0),
            "",
        ));
    }
    rows
}

/// The leader dies: until another node leads.
pub(crate) fn takeover(bench: &Bench) -> Vec<Row> {
    let mut rows = Vec::new();
    for agree in Agree::outer() {
        let store = Store::installed(agree);
        let mut cluster = plan(bench, &store);
        cluster.start_all();
        let name = format!("3 nodes through {}, leader kill -9, until another leads", agree.name());
        let mut took = Vec::new();
        for run in 0..bench.runs(10) {
            let leader = cluster.leader_of_all();
            // It falls on another moment of the renewals in each run.
            let phase = u64::try_from(run * 137 % 1000).expect("below 1000");
            std::thread::sleep(Duration::from_millis(phase));
            cluster.kill9(leader);
            let killed_at = now();
            wait_until("another node leads", RECOVERY_LIMIT, || {
                let leads = |node: &usize| cluster.named_by(*node) == Some(*node);
                cluster.answering().iter().any(leads).then_some(())
            });
            took.push(ms(killed_at.elapsed()));
            progress(&name, run, took[run]);
            cluster.start(leader);
        }
        // A session of 4 s ends up to a tick of 2 s later.
        rows.push(bench.row(&name, "ms", took, Target::MaxBelow(7000.0), ""));
    }
    rows
}

fn plan(bench: &Bench, store: &Store) -> Cluster {
    let mut cluster = Cluster::plan_through(store, NODES).with_binary(&bench.binary);
    cluster.unset("-zk_session_timeout_ms");
    cluster.unset("-etcd_lease_ttl_ms");
    cluster
}
