//! Several nodes of the program that guard together, as a user starts them.
//!
//! A node is named by its number, from 0. Its addresses and its data directory stay the same over
//! all its starts. `leader` in the answers of the program is a node's id: its `raft_addr`.

use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::child::Owned;
use super::daemon::{Daemon, Ended, Launch};
use super::netns::Host;
use super::node::{Node, name_of};
use super::scenario::{failovers, wait_until_guarded};
use super::slow::SlowNames;
use super::store::{Agree, Store};
use super::{PATIENCE, now, wait_until};

/// Clusters that may lose a port to a stranger before the rig gives up.
const START_ATTEMPTS: usize = 5;
/// Leaders that may be killed before the wanted node leads.
const LEADERS_KILLED_MAX: usize = 20;
/// A node that does not answer within this is stopped, or does not count.
const ANSWER_LIMIT: Duration = Duration::from_millis(500);
pub const FAULT: &str = "REDIS_FAILOVER_FAULT";

/// Nodes that were planned, started or killed; dropping it kills those that run.
#[derive(Debug)]
pub struct Cluster {
    nodes: Vec<Node>,
    /// Of every node: `-name=value`, of which the last of a name holds.
    args: Vec<String>,
    binary: PathBuf,
    agree: Agree,
}

/// The address in a node's id. A node that was taken in again without its data has a mark behind it.
pub fn addr_of(id: &str) -> &str {
    id.split('~').next().unwrap_or(id)
}

impl Cluster {
    /// Nodes on loopback that are still to be started.
    pub fn plan(nodes: usize) -> Self {
        Self::of((0..nodes).map(|_| Node::on_loopback()).collect())
    }

    /// Nodes on loopback that agree like this, through a store that other tests use as well.
    pub fn plan_by(agree: Agree, nodes: usize) -> Self {
        match agree {
            Agree::Raft => Self::plan(nodes),
            Agree::Zk | Agree::Etcd => Self::plan_through(Store::shared(agree), nodes),
        }
    }

    /// Nodes on loopback that agree through these servers.
    pub fn plan_through(store: &Store, nodes: usize) -> Self {
        Self::plan(nodes).through(store.agree(), &store.addrs())
    }

    /// A node on each host, which reach the servers of a store like this.
    pub fn plan_on_through(hosts: &[Host], agree: Agree, addrs: &str) -> Self {
        Self::plan_on(hosts).through(agree, addrs)
    }

    fn through(mut self, agree: Agree, addrs: &str) -> Self {
        let place = Store::new_place();
        let this = &mut self;
        this.agree = agree;
        match this.agree {
            Agree::Zk => {
                this.set_for_all(&format!("-zk_addr={addrs}"));
                this.set_for_all(&format!("-zk_path={place}"));
                this.set_for_all("-zk_session_timeout_ms=2000");
            }
            Agree::Etcd => {
                this.set_for_all(&format!("-etcd_addr={addrs}"));
                this.set_for_all(&format!("-etcd_prefix={place}"));
                this.set_for_all("-etcd_lease_ttl_ms=2000");
            }
            Agree::Raft => panic!("Raft has no servers of its own"),
        }
        self
    }

    /// How its nodes agree.
    pub fn agree(&self) -> Agree {
        self.agree
    }

    /// What a flag of every node was set to.
    pub fn setting(&self, name: &str) -> Option<&str> {
        let arg = self.args.iter().rfind(|arg| name_of(arg) == name)?;
        arg.split_once('=').map(|(_, value)| value)
    }

    /// A node on each host.
    pub fn plan_on(hosts: &[Host]) -> Self {
        Self::of(hosts.iter().map(Node::on_host).collect())
    }

    fn of(nodes: Vec<Node>) -> Self {
        Self { nodes, args: Vec::new(), binary: Daemon::binary(), agree: Agree::Raft }
    }

    /// Nodes of another build of the program.
    pub fn with_binary(mut self, binary: &Path) -> Self {
        binary.clone_into(&mut self.binary);
        self
    }

    /// An argument of every node from its next start on: `-name=value`.
    pub fn set(mut self, arg: &str) -> Self {
        self.args.push(arg.to_owned());
        self
    }

    /// The same in place.
    pub fn set_for_all(&mut self, arg: &str) {
        self.args.push(arg.to_owned());
    }

    /// An argument of one node from its next start on.
    pub fn set_for(&mut self, node: usize, arg: &str) {
        self.nodes[node].args.push(arg.to_owned());
    }

    /// Takes an argument back, from the next starts on: of all nodes and of each.
    pub fn unset(&mut self, name: &str) {
        let keeps = |arg: &String| name_of(arg) != name;
        self.args.retain(keeps);
        for node in &mut self.nodes {
            node.args.retain(keeps);
        }
    }

    /// The faults of one node from its next start on, as in `REDIS_FAILOVER_FAULT`.
    pub fn set_fault(&mut self, node: usize, faults: &str) {
        self.nodes[node].env.insert(FAULT.to_owned(), faults.to_owned());
    }

    pub fn clear_fault(&mut self, node: usize) {
        self.nodes[node].env.remove(FAULT);
    }

    /// The node's data directory is a disk of this size from its next start on, which ends with it.
    /// `None`, said loudly, where this user cannot mount one. Fill it through [`Self::inside`].
    pub fn set_disk(&mut self, node: usize, megabytes: u32) -> Option<()> {
        super::node::can_mount()?;
        self.nodes[node].disk_mb = Some(megabytes);
        Some(())
    }

    /// All nodes ask this name server from their next start on.
    pub fn set_names(&mut self, names: &SlowNames) {
        for node in &mut self.nodes {
            node.names = Some(names.file().to_owned());
        }
    }

    /// The node's data directory as the node itself sees it.
    #[track_caller]
    pub fn inside(&self, node: usize) -> PathBuf {
        let root = PathBuf::from(format!("/proc/{}/root", self.node(node).pid()));
        let data = self.data_dir(node);
        root.join(data.strip_prefix("/").expect("it is an absolute path"))
    }

    /// A node on loopback that the others do not know yet: it is told of them, and not of itself.
    pub fn add_node(&mut self) -> usize {
        let others = self.addresses();
        let number = self.nodes.len();
        self.nodes.push(Node::on_loopback());
        self.nodes[number].is_member = false;
        self.set_for(number, &format!("-raft_cluster={others}"));
        number
    }

    /// From now on the node counts, or does not, when a majority is asked for.
    pub fn set_member(&mut self, node: usize, is_member: bool) {
        self.nodes[node].is_member = is_member;
    }

    /// The node's id in the answers of the program.
    pub fn id(&self, node: usize) -> &str {
        &self.nodes[node].raft_addr
    }

    /// The node with this id.
    pub fn number_of(&self, id: &str) -> Option<usize> {
        self.nodes.iter().position(|node| node.raft_addr == addr_of(id))
    }

    pub fn data_dir(&self, node: usize) -> PathBuf {
        self.nodes[node].data_dir()
    }

    /// The members' addresses, as `raft_cluster` lists them.
    pub fn addresses(&self) -> String {
        let members = self.nodes.iter().filter(|node| node.is_member);
        members.map(|node| node.raft_addr.as_str()).collect::<Vec<_>>().join(",")
    }

    /// Starts every node, and returns when all of them agree on a leader.
    #[track_caller]
    pub fn start_all(&mut self) {
        for _ in 0..START_ATTEMPTS {
            let all = 0..self.nodes.len();
            if all.into_iter().all(|node| self.try_start_in_turn(node).is_ok()) {
                self.leader_of_all();
                return;
            }
            self.move_to_other_ports();
        }
        panic!("{START_ATTEMPTS} clusters lost a port to other programs");
    }

    /// With a store whoever comes first leads: that is the first node, and the others come when it does.
    fn try_start_in_turn(&mut self, node: usize) -> Result<(), Ended> {
        self.try_start(node)?;
        if self.agree != Agree::Raft && node == 0 {
            wait_until("the first node leads", PATIENCE, || {
                (self.named_by(node) == Some(node)).then_some(())
            });
        }
        Ok(())
    }

    /// Starts one node, for the first time or again, and returns when it listens.
    #[track_caller]
    pub fn start(&mut self, node: usize) {
        for _ in 0..START_ATTEMPTS {
            if self.try_start(node).is_ok() {
                return;
            }
            // The port of a node that was killed may be held by what is left of its connections.
            std::thread::sleep(Duration::from_millis(50));
        }
        panic!("node {node} lost its port to another program");
    }

    /// `Err` when a port is taken.
    #[track_caller]
    fn try_start(&mut self, node: usize) -> Result<(), Ended> {
        assert!(self.nodes[node].running.is_none(), "node {node} runs");
        let started = self.launch(node, Daemon::try_start);
        match started {
            Ok(daemon) => {
                self.nodes[node].running = Some(daemon);
                Ok(())
            }
            Err(ended) => {
                let is_taken = ended.stderr.to_lowercase().contains("in use");
                assert!(is_taken, "node {node} ended ({}):\n{}", ended.status, ended.stderr);
                Err(ended)
            }
        }
    }

    /// Runs a node that is expected to end by itself: for what it must refuse.
    #[track_caller]
    pub fn run_to_end(&self, node: usize) -> Ended {
        assert!(self.nodes[node].running.is_none(), "node {node} runs");
        self.launch(node, Daemon::run_to_end)
    }

    fn launch<T>(&self, node: usize, start: impl FnOnce(&Launch<'_>) -> T) -> T {
        self.nodes[node].launch(&self.binary, &self.args, (self.agree, &self.addresses()), start)
    }

    /// A cluster that lost a port begins anew: each node's list names all.
    fn move_to_other_ports(&mut self) {
        for node in &mut self.nodes {
            assert!(node.host.is_none(), "the ports of a host are its own");
            let left = std::mem::replace(node, Node::on_loopback());
            (node.args, node.env) = (left.args, left.env);
            (node.is_member, node.disk_mb) = (left.is_member, left.disk_mb);
            node.names = left.names;
        }
    }

    #[track_caller]
    pub fn node(&self, node: usize) -> &Daemon {
        self.nodes[node].running.as_ref().unwrap_or_else(|| panic!("node {node} does not run"))
    }

    #[track_caller]
    pub fn node_mut(&mut self, node: usize) -> &mut Daemon {
        let running = self.nodes[node].running.as_mut();
        running.unwrap_or_else(|| panic!("node {node} does not run"))
    }

    /// Everything that the node has logged, over all its runs.
    pub fn log(&self, node: usize) -> String {
        let this = &self.nodes[node];
        this.past.iter().chain(&this.running).map(Daemon::log).collect()
    }

    /// The nodes that run and were not stopped by the test.
    pub fn answering(&self) -> Vec<usize> {
        let answers = |node: &usize| {
            let node = &self.nodes[*node];
            node.running.is_some() && !node.is_frozen
        };
        (0..self.nodes.len()).filter(answers).collect()
    }

    /// `kill -9`; gives the moment.
    #[track_caller]
    pub fn kill9(&mut self, node: usize) -> Instant {
        let killed_at = self.node_mut(node).kill9();
        self.bury(node);
        killed_at
    }

    /// SIGTERM; gives the exit status.
    #[track_caller]
    pub fn stop(&mut self, node: usize) -> ExitStatus {
        let status = self.node_mut(node).stop();
        self.bury(node);
        status
    }

    /// Waits for a node that ends by itself.
    #[track_caller]
    pub fn wait_for_end(&mut self, node: usize) -> ExitStatus {
        let status = self.node_mut(node).wait_for_end(PATIENCE);
        self.bury(node);
        status
    }

    /// The processes of all nodes that run, for faults that strike several at once.
    pub fn processes(&mut self) -> Vec<&mut Owned> {
        self.nodes.iter_mut().filter_map(|node| Some(node.running.as_mut()?.process())).collect()
    }

    /// Takes note of an end that the test brought about itself.
    #[track_caller]
    pub fn bury(&mut self, node: usize) {
        let this = &mut self.nodes[node];
        let ended = this.running.take().expect("it ran");
        this.past.push(ended);
        this.is_frozen = false;
    }

    /// SIGSTOP; gives the moment.
    #[track_caller]
    pub fn freeze(&mut self, node: usize) -> Instant {
        let frozen_at = self.node_mut(node).freeze();
        self.nodes[node].is_frozen = true;
        frozen_at
    }

    /// Waits until a node has stopped itself, as the fault `stop` does.
    #[track_caller]
    pub fn wait_until_frozen(&mut self, node: usize) {
        let what = format!("node {node} stops itself");
        let process = self.node_mut(node).process();
        wait_until(&what, PATIENCE, || process.is_stopped().then_some(()));
        self.nodes[node].is_frozen = true;
    }

    /// SIGCONT; gives the moment.
    #[track_caller]
    pub fn thaw(&mut self, node: usize) -> Instant {
        self.nodes[node].is_frozen = false;
        self.node_mut(node).thaw()
    }

    /// Whom this node names as the leader.
    pub fn named_by(&self, node: usize) -> Option<usize> {
        let answer = self.node(node).ask("/v1/health", ANSWER_LIMIT)?;
        self.number_of(answer.json["leader"].as_str()?)
    }

    /// The leader on which a majority of the members agrees at this moment, itself included.
    pub fn find_leader(&self) -> Option<usize> {
        let members = self.nodes.iter().filter(|node| node.is_member).count();
        let named: Vec<_> =
            self.answering().into_iter().map(|node| (node, self.named_by(node))).collect();
        named.iter().find_map(|(node, leader)| {
            let agree = named.iter().filter(|(_, named)| *named == Some(*node)).count();
            (*leader == Some(*node) && agree > members / 2).then_some(*node)
        })
    }

    /// Waits until there is a leader.
    #[track_caller]
    pub fn leader(&self) -> usize {
        wait_until("the nodes agree on a leader", PATIENCE, || self.find_leader())
    }

    /// Waits until there is a leader, and all that answer name it.
    #[track_caller]
    pub fn leader_of_all(&self) -> usize {
        wait_until("all nodes agree on a leader", PATIENCE, || {
            let leader = self.find_leader()?;
            let all = self.answering();
            all.iter().all(|node| self.named_by(*node) == Some(leader)).then_some(leader)
        })
    }

    /// A node that does not lead.
    #[track_caller]
    pub fn follower(&self) -> usize {
        let leader = self.leader();
        self.answering().into_iter().find(|node| *node != leader).expect("there are several")
    }

    /// Kills whoever leads, and starts it again, until this node leads. Now and then the node itself
    /// is started again first: how long it waits to stand for election is drawn once, at its start.
    #[track_caller]
    pub fn make_leader(&mut self, wanted: usize) {
        for attempt in 1..=LEADERS_KILLED_MAX {
            let leader = self.leader_of_all();
            if leader == wanted {
                return;
            }
            if attempt % 2 == 0 {
                self.kill9(wanted);
                self.start(wanted);
                self.leader_of_all();
            }
            self.kill9(leader);
            self.leader();
            self.start(leader);
        }
        panic!("node {wanted} does not lead after {LEADERS_KILLED_MAX} others did");
    }

    /// Waits until `GET /master` of every node that answers names these and no others.
    #[track_caller]
    pub fn wait_masters(&self, masters: &[&str], limit: Duration) {
        let started_at = now();
        for node in self.answering() {
            let left = limit.saturating_sub(started_at.elapsed());
            let what = format!("GET /master of node {node} is {masters:?}");
            wait_until(&what, left, || (self.masters(node) == *sorted(masters)).then_some(()));
        }
    }

    /// `GET /master` of one node, sorted.
    #[track_caller]
    pub fn masters(&self, node: usize) -> Vec<String> {
        let body = self.node(node).get("/master").body;
        let named: Vec<&str> = body.split(',').filter(|master| !master.is_empty()).collect();
        sorted(&named)
    }

    /// Waits until every node that answers sees all these instances up and their links, too.
    #[track_caller]
    pub fn wait_until_guarded(&self, name: &str, addrs: &[String]) {
        for node in self.answering() {
            wait_until_guarded(self.node(node), name, addrs);
        }
    }

    /// Waits until the newest failover has ended on every node that answers, and gives its entry of
    /// history, which is the same everywhere.
    #[track_caller]
    pub fn wait_for_failover(&self, name: &str) -> Value {
        self.wait_for_failovers(name, 1)
    }

    /// The same when it is to be the `count`th one.
    #[track_caller]
    pub fn wait_for_failovers(&self, name: &str, count: usize) -> Value {
        let newest = |node: usize| {
            let all = failovers(self.node(node), name);
            let newest = all.first()?;
            (all.len() == count && newest["outcome"] != "running").then(|| newest.clone())
        };
        let what = format!("failover {count} has ended, and all nodes tell the same of it");
        wait_until(&what, PATIENCE, || {
            let entries: Option<Vec<Value>> = self.answering().into_iter().map(newest).collect();
            let mut entries = entries?;
            entries.dedup();
            (entries.len() == 1).then(|| entries.remove(0))
        })
    }

    /// The members as one node shows them in `GET /v1/cluster`.
    #[track_caller]
    pub fn members(&self, node: usize) -> Vec<Value> {
        let answer = self.node(node).get("/v1/cluster");
        answer.json["members"].as_array().expect("the members are a list").clone()
    }

    /// The addresses of the members as one node shows them, sorted.
    #[track_caller]
    pub fn member_addrs(&self, node: usize) -> Vec<String> {
        let members = self.members(node);
        sorted(&members.iter().filter_map(|member| member["addr"].as_str()).collect::<Vec<_>>())
    }
}

fn sorted(list: &[&str]) -> Vec<String> {
    let mut list: Vec<String> = list.iter().map(|text| (*text).to_owned()).collect();
    list.sort();
    list
}
