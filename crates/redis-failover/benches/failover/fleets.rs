//! Ten thousand groups on three nodes, in the core alone: no sockets, no tasks, and a clock that is handed in.
//!
//! More instances than one process may have connections here, and the part of the cost that is the decisions'.

use std::collections::VecDeque;
use std::time::Duration;

use failover_core::action::Action;
use failover_core::addr::Addr;
use failover_core::event::{Event, GroupSpec, Health, Probed, Request};
use failover_core::fleet::{Fleet, Policies};
use failover_core::instance::{Facts, Flavor, Link, ReplicationId, Role};
use failover_core::node::{Leadership, NodeId, Token};
use failover_core::time::Time;

use crate::common::child::memory_kb;
use crate::common::now;
use crate::scenario::{Bench, progress};
use crate::table::{Row, Target};

const NODES: u32 = 3;
const GROUPS: u16 = 10_000;
const TOKEN: Token = Token(1);
/// So much of virtual time is lived when everything is known.
const LIVED: Duration = Duration::from_secs(10);

pub(crate) fn fleets(bench: &Bench) -> Vec<Row> {
    let before_kb = resident_kb();
    let started_at = now();
    let mut world = World::new();
    world.live(Duration::from_secs(10));
    let ready_s = started_at.elapsed().as_secs_f64();
    let bytes =
        f64::from((resident_kb() - before_kb) * 1024) / f64::from(NODES * u32::from(GROUPS));

    let mut per_probe_us = Vec::new();
    for run in 0..bench.runs(5) {
        let (probes, from) = (world.probes, now());
        world.live(LIVED);
        let spent = from.elapsed().as_secs_f64();
        per_probe_us.push(1e6 * spent / f64::from(world.probes - probes));
        progress("three fleets, µs for each probe", run, per_probe_us[run]);
    }
    let mut takeover_ms = Vec::new();
    for run in 0..bench.runs(5) {
        let from = now();
        world.lead(run + 1);
        takeover_ms.push(from.elapsed().as_secs_f64() * 1000.0 / f64::from(NODES));
        world.live(LIVED);
    }
    let row = |name: &str, unit, values| Row {
        name: format!("{NODES} fleets of {GROUPS} groups in the core: {name}"),
        unit,
        values,
        target: Target::None,
        peer: "",
        sentinel: Vec::new(),
    };
    vec![
        row("one probe and its answer", "µs", per_probe_us),
        row("memory of a group on a node", "bytes", vec![bytes]),
        row("from nothing to 10 s of watching, all nodes", "s", vec![ready_s]),
        row("another leader, for each node", "ms", takeover_ms),
    ]
}

fn resident_kb() -> u32 {
    u32::try_from(memory_kb(std::process::id()).0).expect("less than 4 TB")
}

struct World {
    now: Time,
    nodes: Vec<(NodeId, Fleet)>,
    leader: usize,
    probes: u32,
}

impl World {
    fn new() -> Self {
        let names: Vec<NodeId> =
            (0..NODES).map(|node| NodeId::new(&format!("node-{node}"))).collect();
        let fleet = |me: &NodeId| (me.clone(), Fleet::new(me.clone(), Policies::default()));
        let nodes = names.iter().map(fleet).collect();
        let mut world = Self { now: Time::from_millis(1_000_000), nodes, leader: 0, probes: 0 };
        for node in 0..world.nodes.len() {
            world.handle(node, Event::Voters(names.clone()));
        }
        world.lead(0);
        let spec = |group| GroupSpec { name: None, master: master(group), replicas: Vec::new() };
        let request = Request::Add((0..GROUPS).map(spec).collect());
        world.handle(world.leader, Event::Request { id: 1, request });
        world
    }

    /// Another node leads.
    fn lead(&mut self, turn: usize) {
        self.leader = turn % self.nodes.len();
        let leader = self.nodes[self.leader].0.clone();
        for node in 0..self.nodes.len() {
            let leadership = if node == self.leader {
                Leadership::Leader(Token(TOKEN.0 + u64::try_from(turn).expect("a few")))
            } else {
                Leadership::Follower { leader: leader.clone() }
            };
            self.handle(node, Event::Leadership(leadership));
        }
    }

    /// Lets time pass.
    fn live(&mut self, span: Duration) {
        let end = self.now + span;
        loop {
            let timers = self.nodes.iter().filter_map(|(_, fleet)| fleet.poll_timeout());
            let Some(at) = timers.min().filter(|at| *at <= end) else { break };
            self.now = self.now.max(at);
            for node in 0..self.nodes.len() {
                self.nodes[node].1.handle_timeout(self.now);
                self.drain(node);
            }
        }
        self.now = end;
    }

    fn handle(&mut self, node: usize, event: Event) {
        self.nodes[node].1.handle(self.now, event);
        self.drain(node);
    }

    /// Does what a node asks for: servers answer at once, and what is proposed is committed on all nodes.
    fn drain(&mut self, node: usize) {
        let mut committed = VecDeque::new();
        loop {
            while let Some(action) = self.nodes[node].1.poll() {
                if let Action::Probe { addr, seq, .. } = action {
                    self.probes += 1;
                    let outcome = answer(&addr, self.now);
                    self.nodes[node].1.handle(self.now, Event::Probed { addr, seq, outcome });
                } else if let Action::Propose { id, changes, .. } = action {
                    committed.push_back((id, changes));
                } else if let Action::Command { addr, command, .. } = action {
                    panic!("nothing is wrong, but {addr} is told {command:?}");
                }
            }
            let Some((id, changes)) = committed.pop_front() else { break };
            for other in (0..self.nodes.len()).filter(|other| *other != node) {
                self.handle(other, Event::Committed { id: None, changes: changes.clone() });
            }
            let event = Event::Committed { id: Some(id), changes };
            self.nodes[node].1.handle(self.now, event);
        }
        // As whoever publishes them does.
        let changed = self.nodes[node].1.take_changed();
        drop(changed);
    }
}

fn host(net: u8, group: u16) -> Addr {
    let [high, low] = group.to_be_bytes();
    Addr::new(&format!("10.{net}.{high}.{low}"), 6379).expect("an address")
}

fn master(group: u16) -> Addr {
    host(1, group)
}

/// What an idle server says.
fn answer(addr: &Addr, asked_at: Time) -> Probed {
    let mut bytes = addr.host().split('.').map(|byte| byte.parse::<u8>().expect("a byte"));
    let [_, net, high, low] = [(); 4].map(|()| bytes.next().expect("four of them"));
    let group = u16::from_be_bytes([high, low]);
    let role = match net {
        1 => Role::Master { replicas: vec![host(2, group)] },
        _ => Role::Replica { master: master(group), link: Link::Up { last_io_secs: 1 } },
    };
    let facts = Facts {
        asked_at,
        flavor: Flavor::Redis,
        version: "7.0.15".into(),
        run_id: Some(format!("{net:08x}{group:032x}").into()),
        role,
        replication_id: Some(ReplicationId(format!("f{group:039x}").into())),
        second_replication_id: None,
        second_offset: None,
        offset: 1000,
        priority: 100,
        ping_period_secs: Some(10),
        can_pause_writes: true,
        keys: Some(1),
        fence: None,
        read_only: false,
        log_is_empty: false,
    };
    Probed::Replied {
        health: Health::Fine,
        facts: Some(Box::new(facts)),
        socket: Some(addr.clone()),
    }
}
