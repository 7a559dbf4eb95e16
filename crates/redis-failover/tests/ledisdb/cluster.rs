//! Several nodes, and groups of every kind side by side.

use std::time::Duration;

use crate::common::ledisdb::full_copies;
use crate::common::scenario::{CRASH_GAP_MAX, holds_for, step_names};
use crate::common::together::{guard_with_faulty_leader, start_guard, wait_until_settled};
use crate::common::{
    Cluster, Group, Network, Options, PATIENCE, Server, ServerKind, Writer, now, wait_until,
};

#[test]
fn groups_of_every_kind_are_guarded_side_by_side() {
    let mut kinds = ServerKind::all();
    kinds.push(ServerKind::Ledisdb);
    let mut groups: Vec<Group> = kinds.iter().map(|kind| Group::start(*kind, 2)).collect();
    let names: Vec<String> = groups.iter().map(|group| group.master.addr()).collect();
    let mut cluster = Cluster::plan(3).set("-check_interval=100");
    cluster.set_for_all(&format!("-masters={}", names.join(",")));
    cluster.start_all();
    for (group, name) in groups.iter().zip(&names) {
        cluster.wait_until_guarded(name, &group.addrs());
    }
    let node = cluster.node(cluster.leader());
    for (kind, name) in kinds.iter().zip(&names) {
        let flavor = format!("{kind:?}").to_lowercase();
        assert_eq!(node.group(name).expect("it is guarded")["flavor"], flavor);
    }
    let writers: Vec<Writer> = groups.iter().map(Writer::start).collect();
    for ((group, name), writer) in groups.iter_mut().zip(&names).zip(&writers) {
        let killed_at = group.master.kill9();
        let gap = writer.wait_for_gap(killed_at, name, PATIENCE);
        assert!(gap.length < CRASH_GAP_MAX, "{:?}: {gap:?}", group.master.kind());
    }
    drop(writers);
    for (group, name) in groups.iter_mut().zip(&names) {
        let entry = cluster.wait_for_failover(name);
        let new = entry["new_master"].as_str().expect("there is one").to_owned();
        group.master.restart();
        let servers: Vec<&Server> = group.servers().collect();
        let view = wait_until("the old master is back", PATIENCE, || {
            let view = cluster.node(cluster.find_leader()?).group(name)?;
            (view["diagnosis"]["name"] == "Healthy").then_some(view)
        });
        assert_eq!((&view["epoch"], &view["master"]), (&1.into(), &(*new).into()), "{view:#}");
        for server in servers.iter().filter(|server| server.addr() != new) {
            wait_until("it follows", PATIENCE, || {
                (server.master_link() == Some((new.clone(), true))).then_some(())
            });
        }
    }
}

/// The leader ends at a point of a switchover; the next one finishes it, or undoes it, and nobody stays read-only.
fn ends_at(point: &'static str) {
    let group = Group::start(ServerKind::Ledisdb, 2);
    let name = group.master.addr();
    let args = ["-check_interval=100"];
    let (mut cluster, broken) = guard_with_faulty_leader(&group, &args, &format!("{point}=exit"));
    let mut writer = Writer::start(&group);
    let asked_at = now();
    let other = (broken + 1) % 3;
    let answer = cluster.node(other).post(&format!("/v1/groups/{name}/switchover"), "{}");
    assert_eq!(answer.error_code(), Some("unknown_outcome"), "{}", answer.body);
    assert_eq!(cluster.wait_for_end(broken).code(), Some(1));
    let entry = wait_until("the next leader has ended it", PATIENCE, || {
        let mut entries = cluster.node(other).history(&name).into_iter();
        let entry = entries.find(|entry| entry["kind"] == "switchover")?;
        (entry["outcome"] != "running").then_some(entry)
    });
    assert!(step_names(&entry).contains(&"resumed_by"), "{entry:#}");
    let master = entry["new_master"].as_str().unwrap_or(&name).to_owned();
    writer.wait_for_write(&master);
    let servers: Vec<&Server> = group.servers().collect();
    wait_until_settled(&cluster, &name, &servers, &master);
    writer.stop();
    assert_eq!(writer.lost(&name, group.server(&master)), 0);
    if master != name {
        let gap = writer.gap(asked_at, &name).expect("it takes writes");
        assert_eq!(writer.two_masters(&name, &gap), Duration::ZERO);
    }
    cluster.clear_fault(broken);
}

#[test]
fn the_next_leader_goes_on_after_the_master_was_made_read_only() {
    ends_at("switchover-paused");
}

#[test]
fn the_next_leader_goes_on_after_the_promotion() {
    ends_at("switchover-promoted");
}

#[test]
fn a_leader_that_dies_while_a_copy_is_on_its_way_leaves_nothing_undone() {
    let mut group = Group::start(ServerKind::Ledisdb, 2);
    let name = group.master.addr();
    let cluster = Cluster::plan(3).set("-check_interval=100");
    let mut cluster = start_guard(cluster, &group, &[]);
    group.master.kill9();
    let entry = cluster.wait_for_failover(&name);
    let new = entry["new_master"].as_str().expect("there is one").to_owned();
    group.master.restart();
    wait_until("it is a slave", PATIENCE, || (group.master.role() == "slave").then_some(()));
    let leader = cluster.leader();
    cluster.kill9(leader);
    let servers: Vec<&Server> = group.servers().collect();
    wait_until("its copy is complete and the order forgotten", PATIENCE, || {
        let node = cluster.node(cluster.find_leader()?);
        let done = node.history(&name).into_iter().any(|entry| {
            entry["kind"] == "repair"
                && entry["old_master"] == *name
                && entry["outcome"] == "done"
                && step_names(&entry).contains(&"parted")
        });
        done.then_some(())
    });
    wait_until_settled(&cluster, &name, &servers, &new);
}

/// A node, a master and two slaves, each on a host of its own. `None` where there are no networks.
fn apart() -> Option<(Cluster, Group, Network)> {
    let network = Network::start(4)?;
    let servers: Vec<Options> =
        network.hosts()[1..].iter().map(|host| Options::new().on(host)).collect();
    let group = Group::start_each(ServerKind::Ledisdb, &servers[0], &servers[1..]);
    let cluster = Cluster::plan_on(&network.hosts()[..1]).set("-check_interval=100");
    let cluster = start_guard(cluster, &group, &["-max_down_time=1"]);
    Some((cluster, group, network))
}

/// Its slaves never notice: their links stay up.
#[test]
fn a_master_that_is_cut_off_is_replaced_and_copies_when_it_is_back() {
    let Some((cluster, group, network)) = apart() else { return };
    let name = group.master.addr();
    let hosts: Vec<_> = [0, 2, 3].map(|number| network.host(number)).into();
    network.split(&[network.host(1)], &hosts);
    let entry = cluster.wait_for_failover(&name);
    assert_eq!((&entry["outcome"], &entry["cause"]), (&"done".into(), &"MasterUnreachable".into()));
    let new = entry["new_master"].as_str().expect("there is one").to_owned();
    network.join(&[network.host(1)], &hosts);
    let servers: Vec<&Server> = group.servers().collect();
    wait_until_settled(&cluster, &name, &servers, &new);
    wait_until("it has its copy", PATIENCE, || {
        let view = cluster.node(0).group(&name)?;
        (view["diagnosis"]["name"] == "Healthy").then_some(())
    });
    assert_eq!(full_copies(group.server(&new)), 1, "the old master, and nobody else");
}

#[test]
fn a_master_that_only_the_node_cannot_reach_is_left_while_its_slaves_hear_of_it() {
    let Some((cluster, group, network)) = apart() else { return };
    let name = group.master.addr();
    let _writer = Writer::start(&group);
    network.cut(network.host(0), network.host(1));
    let node = cluster.node(0);
    node.wait_for(&name, PATIENCE, |view| view["diagnosis"]["name"] == "MasterUnreachableFromHere");
    holds_for(Duration::from_secs(3), "it is left", || {
        node.group(&name).is_some_and(|view| view["epoch"] == 0)
    });
    network.heal(network.host(0), network.host(1));
    node.wait_for(&name, PATIENCE, |view| view["diagnosis"]["name"] == "Healthy");
}
