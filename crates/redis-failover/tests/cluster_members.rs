//! Nodes that come and go at run time, and data directories that are not what they should be.
//!
//! A member has promised things to the others: it voted, and it said that entries are on its disk.
//! So it never begins anew in silence. Either it has what it promised, or it is taken in again by the
//! others as somebody who knows nothing, or it says what is wrong and does not start.

mod common;

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use serde_json::Value;

use common::daemon::{Ended, Launch};
use common::scenario::{holds, wait_for_failover};
use common::together::{QUIET, guard, holds_quiet, register, wait_until_settled};
use common::{Cluster, Daemon, Group, Options, PATIENCE, Server, ServerKind, wait_until};

/// The member at this node's address, as another shows it.
fn member(cluster: &Cluster, shown_by: usize, node: usize) -> Option<Value> {
    let members = cluster.members(shown_by);
    members.into_iter().find(|member| member["addr"] == cluster.id(node))
}

/// Waits until every node that answers lists exactly these members.
#[track_caller]
fn wait_for_members(cluster: &Cluster, nodes: &[usize]) {
    let mut wanted: Vec<String> = nodes.iter().map(|node| cluster.id(*node).to_owned()).collect();
    wanted.sort();
    for node in nodes {
        wait_until(&format!("node {node} lists {wanted:?}"), PATIENCE, || {
            (cluster.member_addrs(*node) == wanted).then_some(())
        });
    }
}

/// Waits until the leader reaches the node, and this one has the whole log.
#[track_caller]
fn wait_until_caught_up(cluster: &Cluster, node: usize) {
    wait_until(&format!("node {node} has caught up"), PATIENCE, || {
        let leader = cluster.find_leader()?;
        let index = |of: usize| member(cluster, leader, of)?["log_index"].as_u64();
        let shown = member(cluster, leader, node)?;
        let is_voter = shown["role"] == "follower" || shown["role"] == "leader";
        let is_reached = shown["reachable"] == true && is_voter;
        (is_reached && index(node)? >= index(leader)?).then_some(())
    });
}

fn add(cluster: &mut Cluster, asked: usize, body: &str, node: usize) {
    let answer = cluster.node(asked).post("/v1/cluster/members", body);
    assert_eq!(answer.status, 200, "{}", answer.body);
    cluster.set_member(node, true);
}

/// A group with a failover behind it, so that there is something to remember.
fn with_history(group: &mut Group, cluster: &Cluster) -> String {
    let name = group.master.addr();
    group.master.kill9();
    let entry = cluster.wait_for_failover(&name);
    let new = entry["new_master"].as_str().expect("there is one").to_owned();
    group.master.restart();
    wait_until_settled(cluster, &name, &group.servers().collect::<Vec<_>>(), &new);
    new
}

/// The new node is told of the others and waits for them to take it in. It then knows what they
/// know, votes like them, and is one of the majority when others die.
#[test]
fn a_node_that_is_added_catches_up_and_counts() {
    let mut group = Group::start(ServerKind::Redis, 1);
    let name = group.master.addr();
    let mut cluster = guard(&group, &[]);
    let new = with_history(&mut group, &cluster);
    cluster.unset("-masters");
    let added = cluster.add_node();
    cluster.start(added);
    let id = cluster.id(added).to_owned();
    let asked = cluster.follower();
    assert_ne!(asked, added);
    add(&mut cluster, asked, &format!(r#"{{"addr":"{id}"}}"#), added);
    wait_for_members(&cluster, &[0, 1, 2, added]);
    wait_until_caught_up(&cluster, added);
    cluster.wait_masters(&[&new], PATIENCE);
    cluster.wait_for_failover(&name);
    register_known(&cluster, added, &new);

    // Three of four are needed now, and the new one is one of them.
    let leader = cluster.leader_of_all();
    let victim = (0..3).find(|node| *node != leader).expect("there are several");
    cluster.kill9(victim);
    cluster.wait_until_guarded(&name, &group.addrs());
    group.server_mut(&new).kill9();
    let entry = cluster.wait_for_failovers(&name, 2);
    assert_eq!((&entry["outcome"], &entry["epoch"]), (&"done".into(), &2.into()), "{entry:#}");
    cluster.wait_masters(&[&name], PATIENCE);
}

/// A wish that holds already is confirmed, by the leader, after a look at the record.
fn register_known(cluster: &Cluster, node: usize, master: &str) {
    register(cluster, node, master);
    assert_eq!(cluster.masters(node), [master]);
}

/// A node that was removed has no say: it does not lead, it acts on nothing, and what it is asked to
/// change it refuses. The others are two of two.
#[test]
fn a_node_that_is_removed_stops_acting() {
    let mut group = Group::start(ServerKind::Redis, 1);
    let name = group.master.addr();
    let replica = group.replicas[0].addr();
    let mut cluster = guard(&group, &[]);
    // The hardest one to remove is the leader.
    let removed = cluster.leader_of_all();
    let rest: Vec<usize> = (0..3).filter(|node| *node != removed).collect();
    let path = format!("/v1/cluster/members/{}", cluster.id(removed));
    let answer = cluster.node(rest[0]).delete(&path);
    assert_eq!(answer.status, 200, "{}", answer.body);
    cluster.set_member(removed, false);
    wait_for_members(&cluster, &rest);
    wait_until("somebody else leads", PATIENCE, || {
        cluster.find_leader().filter(|leader| *leader != removed)
    });
    wait_until("the removed one does not lead", PATIENCE, || {
        (cluster.named_by(removed) != Some(removed)).then_some(())
    });
    let refused = cluster.node(removed).post("/master", "masters=127.0.0.1:1");
    assert_ne!(refused.status, 200, "{}", refused.body);

    group.master.kill9();
    let entry = wait_for_failover(cluster.node(rest[0]), &name);
    assert_eq!((&entry["outcome"], &entry["epoch"]), (&"done".into(), &1.into()), "{entry:#}");
    assert_ne!(entry["leader"], cluster.id(removed), "{entry:#}");
    assert_eq!(entry["new_master"], replica, "{entry:#}");
    let health = cluster.node(removed).get("/v1/health");
    assert_eq!(health.status, 503, "{}", health.body);

    // Its end, and its start with its old data, change nothing.
    cluster.kill9(removed);
    cluster.start(removed);
    holds("it stays removed", || {
        cluster.named_by(removed) != Some(removed)
            && rest.iter().all(|node| cluster.masters(*node) == [replica.as_str()])
    });
    wait_for_members_of(&cluster, &rest);
}

fn wait_for_members_of(cluster: &Cluster, nodes: &[usize]) {
    wait_for_members(cluster, nodes);
    let leader = nodes.iter().copied().find(|node| cluster.named_by(*node) == Some(*node));
    assert!(leader.is_some(), "one of {nodes:?} leads");
}

/// A machine is gone for good, and another takes its place in one request: there is never a moment
/// in which fewer nodes may fail than before.
#[test]
fn a_dead_node_is_replaced_by_a_new_one() {
    let mut group = Group::start(ServerKind::Redis, 1);
    let name = group.master.addr();
    let mut cluster = guard(&group, &[]);
    let new = with_history(&mut group, &cluster);
    let dead = cluster.follower();
    cluster.kill9(dead);
    cluster.set_member(dead, false);
    cluster.unset("-masters");
    let heir = cluster.add_node();
    cluster.start(heir);
    let body = format!(r#"{{"addr":"{}","replaces":"{}"}}"#, cluster.id(heir), cluster.id(dead));
    let asked = cluster.leader();
    add(&mut cluster, asked, &body, heir);
    let nodes: Vec<usize> = (0..4).filter(|node| *node != dead).collect();
    wait_for_members(&cluster, &nodes);
    wait_until_caught_up(&cluster, heir);
    cluster.wait_masters(&[&new], PATIENCE);
    cluster.wait_for_failover(&name);

    // With the new one the cluster bears one more death.
    let leader = cluster.leader();
    cluster.kill9(leader);
    let next = cluster.leader_of_all();
    assert!(nodes.contains(&next) && next != leader);
    holds_quiet(&cluster, &name, &new, 1, 1);
}

/// What cannot be is refused with a reason: nobody is added twice, a stranger is not removed, and an
/// address at which no node answers does not become a voter that every majority has to do without.
#[test]
fn changes_of_the_members_that_make_no_sense_are_refused() {
    let mut cluster = Cluster::plan(3);
    cluster.start_all();
    let leader = cluster.leader_of_all();
    let node = cluster.node(leader);
    let known = format!(r#"{{"addr":"{}"}}"#, cluster.id(leader));
    let answer = node.post("/v1/cluster/members", &known);
    assert!([200, 409].contains(&answer.status), "{}", answer.body);
    for body in ["", "{}", "[]", r#"{"addr":"nonsense"}"#, r#"{"addr":7}"#] {
        let answer = node.post("/v1/cluster/members", body);
        assert_eq!(answer.status, 400, "{body}: {}", answer.body);
        assert_eq!(answer.error_code(), Some("bad_request"), "{body}: {}", answer.body);
    }
    let answer = node.post("/v1/cluster/members", r#"{"addr":"0.0.0.0:1"}"#);
    assert!((400..500).contains(&answer.status), "{}", answer.body);
    let answer = node.delete("/v1/cluster/members/127.0.0.1:1");
    assert!((400..500).contains(&answer.status), "{}", answer.body);
    let nobody = common::ports::Port::take();
    let absent = format!(r#"{{"addr":"127.0.0.1:{}"}}"#, nobody.number());
    let answer = node.post("/v1/cluster/members", &absent);
    assert!(answer.status >= 400, "{}", answer.body);
    wait_until("only voters that answer are members", PATIENCE, || {
        let members = cluster.members(leader);
        let voters = members.iter().filter(|member| member["role"] != "learner");
        (voters.count() == 3).then_some(())
    });
    register(&cluster, leader, "127.0.0.1:1");
}

/// Its disk was replaced: it has nothing of what it promised. The others still have a majority and
/// all that was committed, and take it in again with its old name.
#[test]
fn a_member_that_lost_its_data_is_taken_in_again() {
    let mut group = Group::start(ServerKind::Redis, 1);
    let name = group.master.addr();
    let mut cluster = guard(&group, &[]);
    let new = with_history(&mut group, &cluster);
    let before = cluster.wait_for_failover(&name);
    for lost_by_the_leader in [false, true] {
        let leader = cluster.leader_of_all();
        let lost = if lost_by_the_leader { leader } else { cluster.follower() };
        cluster.kill9(lost);
        fs::remove_dir_all(cluster.data_dir(lost)).expect("the directory is ours");
        cluster.leader();
        cluster.start(lost);
        wait_until_caught_up(&cluster, lost);
        wait_for_members(&cluster, &[0, 1, 2]);
        cluster.wait_masters(&[&new], PATIENCE);
        assert_eq!(cluster.wait_for_failover(&name), before, "the record is complete");
    }

    // It counts again: with it alone beside one other there is a majority.
    let leader = cluster.leader_of_all();
    cluster.kill9(leader);
    cluster.leader_of_all();
    holds_quiet(&cluster, &name, &new, 1, 1);
}

/// The first words are the log's; the last line says why it ended.
fn last_line(ended: &Ended) -> String {
    assert_eq!(ended.code(), 1, "{}", ended.stderr);
    let line = ended.stderr.lines().rfind(|line| !line.trim().is_empty());
    line.unwrap_or_else(|| panic!("it said nothing")).to_owned()
}

/// Every file of the directory and what is below it.
fn files(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).expect("the directory is ours").flatten();
    let paths = entries.map(|entry| entry.path());
    paths.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

/// Two nodes with one identity would count for two and be one. The directory says whose it is.
#[test]
fn the_data_directory_of_another_node_is_refused() {
    let mut cluster = Cluster::plan(3);
    cluster.start_all();
    for node in [0, 1] {
        cluster.stop(node);
    }
    let data = cluster.data_dir(1);
    cluster.set_for(0, &format!("-raft_data_dir={}", data.display()));
    let line = last_line(&cluster.run_to_end(0));
    for part in [cluster.id(0), cluster.id(1), &data.display().to_string()] {
        assert!(line.contains(part), "{part} in: {line}");
    }
    // It was not touched: its owner starts as if nothing had been.
    cluster.start(1);
    cluster.leader();
}

/// Two processes with one directory would both be the same node.
#[test]
fn a_data_directory_in_use_is_refused() {
    let mut cluster = Cluster::plan(2);
    cluster.start_all();
    let data = cluster.data_dir(1);
    cluster.stop(0);
    let raft_addr = format!("-raft_addr={}", cluster.id(0));
    let data_dir = format!("-raft_data_dir={}", data.display());
    let list = format!("-raft_cluster={}", cluster.addresses());
    let ended = Daemon::run(&["-addr=127.0.0.1:0", &raft_addr, &data_dir, &list], &[]);
    let line = last_line(&ended);
    assert!(line.contains(&data.display().to_string()), "{line}");
}

/// What was promised is not there any more, and nobody knows what exactly: a sentence that names the
/// file, and no start. The others go on; who deletes the directory is taken in again.
#[test]
fn a_truncated_store_is_refused_with_its_name() {
    let group = Group::start(ServerKind::Redis, 1);
    let name = group.master.addr();
    let mut cluster = guard(&group, &[]);
    let broken = cluster.follower();
    cluster.kill9(broken);
    let data = cluster.data_dir(broken);
    let stores = files(&data);
    assert!(!stores.is_empty());
    for file in &stores {
        let opened = fs::OpenOptions::new().write(true).open(file).expect("the file is ours");
        let length = opened.metadata().expect("it is there").len();
        opened.set_len(length / 2).expect("the file is ours");
    }
    let line = last_line(&cluster.run_to_end(broken));
    let names_one = stores.iter().any(|file| line.contains(&file.display().to_string()));
    assert!(names_one || line.contains(&data.display().to_string()), "{line}");
    assert!(!line.contains("panicked"), "{line}");
    cluster.wait_masters(&[&name], PATIENCE);

    fs::remove_dir_all(&data).expect("the directory is ours");
    cluster.start(broken);
    wait_until_caught_up(&cluster, broken);
    cluster.wait_masters(&[&name], PATIENCE);
}

/// Without a disk nothing can be promised.
#[test]
fn a_directory_that_cannot_be_written_is_refused() {
    let dir = common::temporary_dir();
    let mode = |path: &Path, mode| {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("it is ours");
    };
    // Somebody without rights must be able to read the program, wherever it was built.
    let program = dir.path().join("redis-failover");
    fs::copy(Daemon::binary(), &program).expect("there is room for it");
    let data = dir.path().join("data");
    fs::create_dir(&data).expect("the directory is ours");
    for (path, bits) in [(dir.path(), 0o755), (&program, 0o755), (&data, 0o555)] {
        mode(path, bits);
    }
    let port = common::ports::Port::take();
    let raft_addr = format!("-raft_addr=127.0.0.1:{}", port.number());
    let data_dir = format!("-raft_data_dir={}", data.display());
    let list = format!("-raft_cluster=127.0.0.1:{}", port.number());
    let args = [&*raft_addr, &*data_dir, &*list, "-addr=127.0.0.1:0"];
    let launch = Launch { binary: &program, as_nobody: true, ..Launch::of(&args) };
    let line = last_line(&Daemon::run_to_end(&launch));
    assert!(line.contains(&data.display().to_string()), "{line}");
    assert!(line.to_lowercase().contains("permission denied"), "{line}");
}

/// What cannot be written down cannot be promised: the node says so and stops taking part, and the
/// others are a majority. With room again it goes on, with what it has or as somebody who has nothing.
#[test]
fn a_full_disk_is_said_and_the_others_go_on() {
    let mut group = Group::start(ServerKind::Redis, 1);
    let replica = group.replicas[0].addr();
    let mut cluster = guard(&group, &[]);
    let full = cluster.follower();
    cluster.stop(full);
    if cluster.set_disk(full, 8).is_none() {
        return;
    }
    cluster.leader();
    cluster.start(full);
    wait_until_caught_up(&cluster, full);
    cluster.leader_of_all();
    // The rest of the disk is filled; what is left to the store it has taken already.
    let mut hog = fs::File::create(cluster.inside(full).join("hog")).expect("there is room");
    while hog.write_all(&[1; 4096]).is_ok() {}
    let others: Vec<usize> = (0..3).filter(|node| *node != full).collect();
    // Lists that come and go, so that the store needs more room than it has.
    let strangers: Vec<String> = (1..50).map(|number| format!("127.0.0.1:{number}")).collect();
    let body = format!("masters={}", strangers.join(","));
    let log = wait_until("it runs out of room, and says so", PATIENCE, || {
        for method in ["POST", "DELETE"] {
            cluster.node(others[0]).request(method, "/master", &body);
        }
        let log = cluster.log(full);
        log.to_lowercase().contains("no space left").then_some(log)
    });
    assert!(!log.contains("panicked"), "{log}");
    wait_until("two of three go on", PATIENCE, || {
        let answer = cluster.node(others[0]).request("DELETE", "/master", &body);
        (answer.status == 200).then_some(())
    });
    group.master.kill9();
    for node in &others {
        wait_until("the others replace the master", PATIENCE, || {
            cluster.masters(*node).contains(&replica).then_some(())
        });
    }
    drop(hog);
    assert_eq!(cluster.wait_for_end(full).code(), Some(1), "whoever watches over it is told");
    // Its disk is gone with it; another is there.
    cluster.start(full);
    wait_until_caught_up(&cluster, full);
    wait_until("it knows what happened", PATIENCE, || {
        cluster.masters(full).contains(&replica).then_some(())
    });
}

/// The majority is lost for good, and the one that is left has the record. Told that it is alone, it
/// keeps what it knows, says whom it has cut off, and guards by itself. The same setting may stay: a
/// list that is equal to the membership changes nothing.
#[test]
fn with_raft_cluster_state_new_a_survivor_goes_on_alone() {
    let mut group = Group::start(ServerKind::Redis, 1);
    let name = group.master.addr();
    let mut cluster = guard(&group, &[]);
    let master = with_history(&mut group, &cluster);
    let before = cluster.wait_for_failover(&name);
    for node in 0..3 {
        cluster.kill9(node);
    }
    for lost in [1, 2] {
        cluster.set_member(lost, false);
    }
    cluster.unset("-masters");
    cluster.set_for(0, "-raft_cluster_state=new");
    cluster.start(0);
    assert_eq!(cluster.leader(), 0);
    for lost in [1, 2] {
        assert!(cluster.log(0).contains(cluster.id(lost)), "it says whom it cuts off");
    }
    cluster.wait_masters(&[&master], PATIENCE);
    assert_eq!(cluster.wait_for_failover(&name), before);
    assert_eq!(cluster.member_addrs(0), [cluster.id(0)]);

    // Again, with the same setting: an ordinary start.
    cluster.kill9(0);
    cluster.start(0);
    assert_eq!(cluster.leader(), 0);
    assert_eq!(cluster.member_addrs(0), [cluster.id(0)]);
    cluster.wait_until_guarded(&name, &group.addrs());
    group.server_mut(&master).kill9();
    let entry = cluster.wait_for_failovers(&name, 2);
    assert_eq!((&entry["outcome"], &entry["epoch"]), (&"done".into(), &2.into()), "{entry:#}");
    cluster.wait_masters(&[&name], PATIENCE);

    // What it cut off may not come back with what it knew: it is not a member any more.
    cluster.start(1);
    common::scenario::holds_for(QUIET, "the cut off one leads nobody", || {
        cluster.named_by(1) != Some(1) && cluster.named_by(0) == Some(0)
    });
}

/// The same with two of three that survived: the list is what was left, and they are two of two.
#[test]
fn servers_that_were_registered_are_in_the_record_of_who_survives() {
    let server = Server::start(ServerKind::Redis, &Options::new());
    let mut cluster = Cluster::plan(3);
    cluster.start_all();
    register(&cluster, 2, &server.addr());
    cluster.wait_masters(&[&server.addr()], PATIENCE);
    for node in 0..3 {
        cluster.kill9(node);
    }
    cluster.set_member(2, false);
    cluster.set_for_all("-raft_cluster_state=new");
    cluster.start(0);
    cluster.start(1);
    cluster.leader_of_all();
    cluster.wait_masters(&[&server.addr()], PATIENCE);
    wait_for_members(&cluster, &[0, 1]);
}
