//! What scenarios of a cluster begin with, wait for and assert, beside those of one node.

use std::time::Duration;

use serde_json::Value;

use super::cluster::addr_of;
use super::scenario::{failovers, holds_for, step_names};
use super::{Agree, Cluster, Group, PATIENCE, Server, wait_until};

/// Ten times the 1.5 s within which a leader and a master that die together are both replaced.
pub const BOTH_GAP_MAX: Duration = Duration::from_secs(15);
/// Longer than `max_down_time` 1 and an election: a failover that nobody should begin would be seen.
pub const QUIET: Duration = Duration::from_secs(2);

/// Three nodes, of which each sees every server of the group.
#[track_caller]
pub fn guard(group: &Group, args: &[&str]) -> Cluster {
    guard_by(Agree::Raft, group, args)
}

/// The same with any broker.
#[track_caller]
pub fn guard_by(agree: Agree, group: &Group, args: &[&str]) -> Cluster {
    start_guard(Cluster::plan_by(agree, 3), group, args)
}

/// The same with a leader of which is known that it leads, and that breaks at these points.
#[track_caller]
pub fn guard_with_faulty_leader(group: &Group, args: &[&str], faults: &str) -> (Cluster, usize) {
    guard_by_with_faulty_leader(Agree::Raft, group, args, faults)
}

/// The same with any broker.
#[track_caller]
pub fn guard_by_with_faulty_leader(
    agree: Agree,
    group: &Group,
    args: &[&str],
    faults: &str,
) -> (Cluster, usize) {
    let mut cluster = Cluster::plan_by(agree, 3);
    cluster.set_fault(0, faults);
    // The others are in less of a hurry to lead.
    for node in [1, 2] {
        cluster.set_for(node, "-raft_election_min_ms=260");
    }
    let mut cluster = start_guard(cluster, group, args);
    cluster.make_leader(0);
    cluster.wait_until_guarded(&group.master.addr(), &group.addrs());
    (cluster, 0)
}

/// Starts what was planned.
#[track_caller]
pub fn start_guard(mut cluster: Cluster, group: &Group, args: &[&str]) -> Cluster {
    let name = group.master.addr();
    cluster.set_for_all(&format!("-masters={name}"));
    for arg in args {
        cluster.set_for_all(arg);
    }
    cluster.start_all();
    cluster.wait_masters(&[&name], PATIENCE);
    cluster.wait_until_guarded(&name, &group.addrs());
    group.wait_in_step();
    cluster
}

/// Waits until the one is master, all others follow it with their links up, and every node that
/// answers knows and sees it so.
#[track_caller]
pub fn wait_until_settled(cluster: &Cluster, name: &str, servers: &[&Server], master: &str) {
    let new = servers.iter().find(|server| server.addr() == master).expect("it is one of them");
    new.wait_for_role("master");
    for server in servers.iter().filter(|server| server.addr() != master) {
        server.wait_for_link(new);
    }
    cluster.wait_masters(&[master], PATIENCE);
    let addrs: Vec<String> = servers.iter().map(|server| server.addr()).collect();
    cluster.wait_until_guarded(name, &addrs);
}

/// Of these servers only the one was ever promoted, and only once: no epoch had two promotions.
#[track_caller]
pub fn assert_promoted_once(servers: &[&Server], master: &str) {
    for server in servers {
        let wanted = usize::from(server.addr() == master);
        assert_eq!(server.times_promoted(), wanted, "promotions of {}", server.addr());
    }
}

/// For a while every node that answers goes on naming this master in this epoch, which so many
/// failovers have brought about.
#[track_caller]
pub fn holds_quiet(cluster: &Cluster, name: &str, master: &str, epoch: u64, count: usize) {
    holds_quiet_for(QUIET, cluster, name, master, epoch, count);
}

#[track_caller]
pub fn holds_quiet_for(
    span: Duration,
    cluster: &Cluster,
    name: &str,
    master: &str,
    epoch: u64,
    count: usize,
) {
    let what = format!("{master} is master in epoch {epoch} after {count} failovers");
    holds_for(span, &what, || {
        cluster.answering().into_iter().all(|node| {
            let view = cluster.node(node).group(name).expect("a group stays");
            view["master"] == master
                && view["epoch"] == epoch
                && failovers(cluster.node(node), name).len() == count
        })
    });
}

/// Registers a master with one node, which answers after the commit.
#[track_caller]
pub fn register(cluster: &Cluster, node: usize, master: &str) {
    let answer = cluster.node(node).post("/master", &format!("masters={master}"));
    assert_eq!(answer.status, 200, "{}", answer.body);
}

/// The node that did this step of a failover first.
pub fn node_of_step(entry: &Value, step: &str) -> Option<String> {
    let steps = entry["steps"].as_array().expect("the steps are a list");
    let found = steps.iter().find(|found| found["name"] == step)?;
    found["node"].as_str().map(|id| addr_of(id).to_owned())
}

/// A failover that somebody else than its first leader may have ended: done, once, with every step
/// that must be there, and a word of who took it over only when somebody did.
#[track_caller]
pub fn assert_complete(entry: &Value, (old, new, epoch): (&str, &str, u64), dead_leader: &str) {
    for (key, wanted) in [("outcome", "done"), ("old_master", old), ("new_master", new)] {
        assert_eq!(entry[key], wanted, "{key} in {entry:#}");
    }
    assert_eq!(entry["epoch"], epoch, "{entry:#}");
    assert!(entry["finished_at"].is_string() && entry["reason"].is_string(), "{entry:#}");
    assert_eq!(entry["ranking"][0]["addr"], new, "the elected one was promoted: {entry:#}");
    let names = step_names(entry);
    // What a leader noted since its last commit dies with it.
    for step in ["first_sign", "down", "dead_agreed", "vetted", "promoted"] {
        assert!(names.contains(&step), "{step} in {entry:#}");
    }
    let is_resumed = names.contains(&"resumed_by");
    if entry["leader"].as_str().map(addr_of) == Some(dead_leader) {
        let heir = node_of_step(entry, "resumed_by");
        assert!(heir.is_some_and(|heir| heir != dead_leader), "{entry:#}");
    } else if !is_resumed {
        // A busy disk may cost a leader its term, so that even its own failover is resumed.
        for step in ["committed", "promote_sent", "recorded", "told"] {
            assert!(names.contains(&step), "{step} in {entry:#}");
        }
    }
}

/// Waits until one node shows this diagnosis of the group.
#[track_caller]
pub fn wait_for_diagnosis_at(cluster: &Cluster, node: usize, name: &str, diagnosis: &str) {
    let shown = || {
        let view = cluster.node(node).group(name)?;
        (view["diagnosis"]["name"] == diagnosis).then_some(())
    };
    wait_until(&format!("node {node} shows {diagnosis}"), PATIENCE, shown);
}
