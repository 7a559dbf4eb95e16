//! An old master comes back under the eyes of three nodes, and whoever leads by then makes it a replica: once, and only
//! when the recorded master answers.

mod common;

use serde_json::Value;

use common::netns::Host;
use common::scenario::{assert_demoted, demotions, failovers, holds_for, step_names, times_told};
use common::together::{
    QUIET, assert_promoted_once, guard, guard_with_faulty_leader, holds_quiet, start_guard,
    wait_for_diagnosis_at, wait_until_settled,
};
use common::witness::Idler;
use common::{
    Cluster, Group, Network, Options, PATIENCE, Server, ServerKind, Writer, now, wait_until,
};

/// Kills the master, waits until it is replaced on every node, and gives the new one's address.
#[track_caller]
fn replaced(group: &mut Group, cluster: &Cluster) -> String {
    let name = group.master.addr();
    group.master.kill9();
    let entry = cluster.wait_for_failover(&name);
    entry["new_master"].as_str().expect("there is one").to_owned()
}

/// Waits until every node that answers has the same demotion, the only one, and gives it.
#[track_caller]
fn wait_for_demotion(cluster: &Cluster, name: &str) -> Value {
    wait_until("one demotion is in the history of every node", PATIENCE, || {
        let nodes = cluster.answering().into_iter();
        let mut told: Vec<Vec<Value>> =
            nodes.map(|node| demotions(cluster.node(node), name)).collect();
        told.dedup();
        let [told] = &mut *told else { return None };
        let done = told.len() == 1 && told[0]["outcome"] == "done";
        done.then(|| told.remove(0))
    })
}

#[track_caller]
fn settles(cluster: &Cluster, group: &Group, master: &str) {
    let all: Vec<&Server> = group.servers().collect();
    wait_until_settled(cluster, &group.master.addr(), &all, master);
}

#[test]
fn one_that_is_restarted_follows_and_every_node_tells_what_it_took() {
    common::scenario::on_each_kind(|kind| {
        let mut group = Group::start(kind, 2);
        let name = group.master.addr();
        let cluster = guard(&group, &[]);
        let new = replaced(&mut group, &cluster);
        let writer = Writer::start_on(group.servers());
        let started_at = now();
        group.master.restart();
        wait_until("it refuses writes", PATIENCE, || writer.tenure(&name, started_at));
        let entry = wait_for_demotion(&cluster, &name);
        assert_demoted(&entry, &new);
        settles(&cluster, &group, &new);
        holds_quiet(&cluster, &name, &new, 1, 1);
    });
}

/// Nobody leads when it comes back. The next leader does.
#[test]
fn one_that_comes_back_between_two_leaders_is_demoted_by_the_next() {
    let mut group = Group::start(ServerKind::Redis, 1);
    let name = group.master.addr();
    let mut cluster = guard(&group, &[]);
    let new = replaced(&mut group, &cluster);
    let leader = cluster.leader_of_all();
    cluster.kill9(leader);
    group.master.restart();
    settles(&cluster, &group, &new);
    let entry = wait_for_demotion(&cluster, &name);
    assert_demoted(&entry, &new);
    assert_ne!(entry["leader"], cluster.id(leader), "{entry:#}");
    cluster.start(leader);
    wait_for_demotion(&cluster, &name);
    holds_quiet(&cluster, &name, &new, 1, 1);
}

/// The leader stands still from before the old master wakes until after it was demoted by another.
#[test]
fn one_that_was_stopped_is_demoted_while_the_leader_stands_still() {
    let mut group = Group::start(ServerKind::Redis, 1);
    let name = group.master.addr();
    let mut cluster = guard(&group, &[]);
    let client = Idler::of(&group.master);
    group.master.stop();
    let entry = cluster.wait_for_failover(&name);
    let new = entry["new_master"].as_str().expect("there is one").to_owned();
    let leader = cluster.leader_of_all();
    cluster.freeze(leader);
    group.master.cont();
    client.wait_until_cut();
    settles(&cluster, &group, &new);
    let entry = wait_for_demotion(&cluster, &name);
    assert_demoted(&entry, &new);
    assert!(entry["bytes_possibly_lost"].is_u64(), "the same process counts: {entry:#}");
    cluster.thaw(leader);
    cluster.leader_of_all();
    wait_for_demotion(&cluster, &name);
    holds_quiet(&cluster, &name, &new, 1, 1);
    assert_promoted_once(&group.replicas.iter().collect::<Vec<_>>(), &new);
}

/// Scenes in which a busy disk may cost the faulty node its term before it breaks.
const SCENES_MAX: usize = 3;

/// The leader ends with the demotion decided and not carried out, or carried out and not recorded.
fn leader_ends_at(point: &str) {
    let played = (0..SCENES_MAX).any(|_| {
        let mut group = Group::start(ServerKind::Redis, 1);
        // With one replica the failover itself repoints nobody.
        let fault = format!("{point}=exit");
        let (mut cluster, broken) = guard_with_faulty_leader(&group, &[], &fault);
        let new = replaced(&mut group, &cluster);
        let name = group.master.addr();
        group.master.restart();
        let broke = wait_until("it is demoted, or the leader ends", PATIENCE, || {
            if cluster.node_mut(broken).ended().is_some() {
                return Some(true);
            }
            let other = cluster.node((broken + 1) % 3);
            demotions(other, &name).iter().any(|entry| entry["outcome"] == "done").then_some(false)
        });
        if !broke {
            return false;
        }
        assert_eq!(cluster.wait_for_end(broken).code(), Some(1));
        settles(&cluster, &group, &new);
        let entry = wait_for_demotion(&cluster, &name);
        assert_eq!((&entry["new_master"], &entry["outcome"]), (&(*new).into(), &"done".into()));
        let steps = step_names(&entry);
        assert!(steps.contains(&"resumed_by") && steps.contains(&"demoted"), "{entry:#}");
        cluster.clear_fault(broken);
        cluster.start(broken);
        wait_for_demotion(&cluster, &name);
        holds_quiet(&cluster, &name, &new, 1, 1);
        true
    });
    assert!(played, "the faulty node leads when the old master comes back");
}

#[test]
fn the_next_leader_sends_a_demotion_that_was_decided() {
    leader_ends_at("before-repoint");
}

#[test]
fn the_next_leader_records_a_demotion_that_was_carried_out() {
    leader_ends_at("after-first-repoint");
}

/// It went on taking writes behind the cut. The leader that replaced it is gone when it is reached again.
#[test]
fn one_that_was_cut_off_is_demoted_by_the_next_leader() {
    let Some(network) = Network::start(5) else { return };
    let on = |host: &Host| Options::new().on(host).set("repl-ping-replica-period", "1");
    let [old, replica] = [3, 4].map(|number| network.host(number));
    let group = Group::start_each(ServerKind::Redis, &on(old), &[on(replica)]);
    let (name, new) = (group.master.addr(), group.replicas[0].addr());
    let mut cluster = start_guard(Cluster::plan_on(&network.hosts()[..3]), &group, &[]);
    let mut writer = Writer::start(&group);
    let client = Idler::of(&group.master);
    let rest: Vec<&Host> = [0, 1, 2, 4].map(|number| network.host(number)).to_vec();
    let cut_at = now();
    network.split(&[old], &rest);
    cluster.wait_masters(&[&new], PATIENCE);
    cluster.wait_for_failover(&name);
    let leader = cluster.leader_of_all();
    cluster.kill9(leader);
    cluster.leader();
    writer.wait_for_write(&name);
    let joined_at = now();
    network.join(&[old], &rest);
    client.wait_until_cut();
    wait_until("it refuses writes", PATIENCE, || writer.tenure(&name, joined_at));
    writer.stop();
    let entry = wait_for_demotion(&cluster, &name);
    assert_demoted(&entry, &new);
    let written = writer.acknowledged_after(&name, cut_at).len();
    let bytes = entry["bytes_possibly_lost"].as_u64().expect("the same process counts");
    assert!(bytes >= 50 * u64::try_from(written).expect("few"), "{written} in {entry:#}");
    settles(&cluster, &group, &new);
    cluster.start(leader);
    wait_for_demotion(&cluster, &name);
    holds_quiet(&cluster, &name, &new, 1, 1);
}

/// A died, B was promoted and wrote something, B died, and so did the leader. A is back, with less than B had.
fn without_the_recorded_master() -> (Group, Cluster, String) {
    let mut group = Group::start_with(ServerKind::Redis, 1, &Options::durable());
    let name = group.master.addr();
    let mut cluster = guard(&group, &[]);
    group.master.cmd(&["SET", "kept", "1"]);
    group.wait_in_step();
    group.wait_until_durable();
    replaced(&mut group, &cluster);
    group.replicas[0].cmd(&["SET", "newer", "1"]);
    group.replicas[0].kill9();
    let leader = cluster.leader_of_all();
    cluster.kill9(leader);
    group.master.restart();
    let heir = cluster.leader();
    wait_for_diagnosis_at(&cluster, heir, &name, "NoEligibleReplica");
    cluster.start(leader);
    holds_for(QUIET, "it is left alone", || {
        times_told(&group.master) == 0
            && cluster
                .answering()
                .into_iter()
                .all(|node| demotions(cluster.node(node), &name).is_empty())
    });
    assert_eq!(
        (group.master.role(), group.master.cmd(&["GET", "kept"])),
        ("master".into(), "1".into())
    );
    (group, cluster, name)
}

#[test]
fn while_the_recorded_master_is_gone_nobody_demotes_or_promotes_it_but_a_person() {
    let (group, cluster, name) = without_the_recorded_master();
    let path = format!("/v1/groups/{name}/failover");
    let follower = cluster.node(cluster.follower());
    let answer = follower.post(&path, &format!(r#"{{"to":"{name}","force":true}}"#));
    assert_eq!(answer.json["outcome"], "done", "{}", answer.body);
    cluster.wait_masters(&[&name], PATIENCE);
    assert_eq!(
        (group.master.role(), group.master.cmd(&["GET", "kept"])),
        ("master".into(), "1".into())
    );
    holds_quiet(&cluster, &name, &name, 2, 1);
}

#[test]
fn it_follows_the_recorded_master_when_that_one_is_back() {
    let (mut group, cluster, name) = without_the_recorded_master();
    let new = group.replicas[0].addr();
    group.replicas[0].restart();
    settles(&cluster, &group, &new);
    assert_demoted(&wait_for_demotion(&cluster, &name), &new);
    wait_until("it has what the recorded master has", PATIENCE, || {
        (group.master.try_cmd(&["GET", "newer"]).as_deref() == Ok("1")).then_some(())
    });
    assert_eq!(failovers(cluster.node(cluster.leader()), &name).len(), 1);
}
