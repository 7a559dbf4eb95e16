//! The world: a heap of virtual time, three servers, their clients, a broker and its nodes, and nothing that is random but
//! the seed.

use std::collections::BTreeSet;
use std::time::Duration;

use failover_core::action::Command;
use failover_core::addr::Addr;
use failover_core::event::{CommandId, CommandResult, Event, GroupSpec, Request};
use failover_core::fleet::Policies;
use failover_core::instance::Flavor;
use failover_core::node::{GroupName, Token};
use failover_core::policy::Policy;
use failover_core::record::GroupEntry;
use failover_core::time::Time;
use failover_core::view::GroupView;
use fastrand::Rng;

use crate::clients::{Aim, Clients};
use crate::deed::{Deed, Timed};
use crate::invariants::{Invariants, Judgement, Seen, Sight, Truth, Violation, liveness};
use crate::journal::{self, Journal};
use crate::model_broker::{Fate, ModelBroker, Proposal};
use crate::model_redis::{Message, Part, Reply, Running, Server, Settings};
use crate::network::{Network, Place};
use crate::shell::{Order, Wrong};
use crate::{Options, SERVERS, flavor_of};

mod agenda;
mod ailments;
mod ambush;
mod cluster;
mod drawn;
mod faults;
mod node;
mod operators;
mod pace;
mod troubles;
mod wires;

use agenda::Agenda;
use drawn::{draw_fencing, draw_objections, draw_policy, draw_told};
use node::Node;

/// How often in a row the core may ask to be woken at once before that counts as a loop.
const WAKES_AT_ONCE_MAX: u32 = 20;

/// For how long the group must have been whole to count as settled.
const SETTLED_FOR: Duration = Duration::from_secs(3);

/// One run in so many writes its journal, and goes through it again.
const TWIN_SEEDS: u64 = 500;

/// Something that will happen.
#[derive(Debug)]
enum Happening {
    /// Something for a node, of one of its lives.
    At { node: usize, life: u32, what: ForNode },
    /// A message reaches a server.
    Reach { from: Place, server: usize, message: Message },
    /// A proposal ends.
    Settle { proposal: Proposal, fate: Fate },
    /// A node gets what was committed.
    Apply { node: usize },
    /// The nodes hear of each other, or do not.
    Beat,
    /// A server's own turn, of one of its lives.
    Cron { server: usize, life: u32 },
    /// Clients write.
    Write,
    /// Something is done, unless the faults of its round have ended; right after some writes, when it is drawn.
    Due { deed: Deed, round: u32, drawn: bool },
    /// New trouble is drawn.
    Trouble,
    /// An operator looks at the group, and resumes it when it is halted.
    Operator,
    /// The group is guarded again, once it is gone.
    Add { master: usize, gone: bool },
}

/// Something that happens to one node. One that is stopped gets it when it goes on.
#[derive(Clone, Debug)]
enum ForNode {
    /// The core is told.
    Tell(Event),
    /// A reply of a server.
    Hear { server: usize, reply: Reply },
    /// A command's deadline passes.
    Overdue { server: usize, id: CommandId },
    /// Nobody answered for a command that another node was to send.
    Unanswered { id: CommandId },
    /// Another node answered for a command.
    Answered { id: CommandId, result: CommandResult },
    /// Another node asks what this one sees.
    Asked { by: usize, token: Token, asked_at: Time },
    /// The leader wants a command sent.
    Relay { order: Order, server: usize },
}

/// What was counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Faults that happened.
    pub faults: u64,
    /// What people did.
    pub operations: u64,
    /// Promotions that happened.
    pub promotions: u64,
    /// Writes that were acknowledged.
    pub acknowledged: u64,
    /// Times that the group was halted.
    pub halts: u64,
    /// Events that the core was given.
    pub events: u64,
}

/// One run.
#[derive(Debug)]
pub struct World {
    started: Time,
    now: Time,
    rng: Rng,
    /// What goes wrong is drawn from here alone, so that a run in which the same is done without drawing it is the same run.
    fate: Rng,
    /// What is rare is drawn from here.
    besides: Rng,
    /// How all faults end is drawn from here.
    mercy: Rng,
    /// What is to be done in the place of what would be drawn.
    plan: Option<Vec<Timed>>,
    /// It was written down what is done.
    planned: bool,
    /// What was done.
    deeds: Vec<Timed>,
    by_hand: u32,
    /// Whose role was changed by hand last.
    touched: Vec<bool>,
    /// Whom somebody asked to forget.
    forgotten: Vec<bool>,
    requests: u64,
    agenda: Agenda<Happening>,
    group: GroupName,
    addrs: Vec<Addr>,
    servers: Vec<Server>,
    network: Network,
    broker: ModelBroker,
    clients: Clients,
    nodes: Vec<Node>,
    /// What is on its way over a path that is cut: it arrives when the path is whole again.
    stuck: Vec<Happening>,
    wrong: Option<Wrong>,
    /// Whether masters are fenced.
    fenced: bool,
    /// What a hook has against failovers is drawn from here, where there is one that has something.
    objections: Option<Rng>,
    journal: Journal,
    trace: Vec<String>,
    invariants: Invariants,
    sight: Sight,
    violation: Option<Violation>,
    counts: Counts,
    troubles: bool,
    /// Faults of an earlier round do not happen any more.
    round: u32,
}

impl World {
    /// A healthy group that is guarded from the first moment on.
    pub fn new(seed: u64, options: &Options) -> Self {
        let mut rng = Rng::with_seed(seed);
        let started = Time::from_millis(1_000_000_000);
        let group = GroupName::new("g").unwrap_or_else(|why| panic!("{why}"));
        let addrs: Vec<Addr> = (0..SERVERS)
            .map(|index| {
                Addr::new(&format!("10.0.0.{}", index + 1), 6379)
                    .unwrap_or_else(|why| panic!("{why}"))
            })
            .collect();
        let spared = rng.usize(..SERVERS);
        let priority = |rng: &mut Rng, index: usize| match rng.u8(..10) {
            // At most two of three, so that somebody can always be promoted.
            0 if options.draw && index == spared => 0,
            1 | 2 if options.draw => 50,
            _ => 100,
        };
        // So small that a replica is often too far behind to go on, or as large as servers have it.
        let backlog_bytes_max = match rng.u8(..4) {
            0 if options.draw => rng.u64(500..20_000),
            _ => Settings::default().backlog_bytes_max,
        };
        let flavor = flavor_of(seed, options);
        let settings = Settings { flavor, backlog_bytes_max, ..Settings::default() };
        let mut servers: Vec<Server> = (0..SERVERS)
            .map(|index| {
                let id = rng.u64(..);
                let drawn = priority(&mut rng, index);
                // LedisDB always says the same, and has no setting by which replicas fence their master.
                let priority = if flavor == Flavor::Ledisdb { settings.priority } else { drawn };
                let part = if index == 0 { Part::Master } else { Part::Replica(0) };
                let settings = Settings { priority, ..settings };
                Server::new(index, &addrs, part, settings, started, id)
            })
            .collect();
        let drawn = draw_policy(&mut rng);
        let mut policy =
            options.policy.clone().unwrap_or(if options.draw { drawn } else { Policy::default() });
        if options.draw && options.policy.is_none() {
            draw_fencing(seed, &mut policy, &mut servers);
        }
        policy.mutation = options.mutation;
        let aim = if options.draw && rng.u8(..4) == 0 { Aim::Everyone } else { Aim::Recorded };
        let drawn = if options.draw && rng.bool() { 3 } else { 1 };
        let count = options.nodes.unwrap_or(drawn);
        let policies = Policies {
            default: policy.clone(),
            told: if options.draw { draw_told(seed) } else { BTreeSet::new() },
            ..Policies::default()
        };
        let has_twin = options.draw && seed.is_multiple_of(TWIN_SEEDS);
        let nodes: Vec<Node> = (0..count)
            .map(|index| Node::new(index, &policies, has_twin, &group, &addrs, started))
            .collect();
        let mut world = Self {
            started,
            now: started,
            network: Network::new(&mut rng, SERVERS),
            rng,
            fate: Rng::with_seed(seed ^ 0xfa7e),
            besides: Rng::with_seed(seed ^ 0x85f4),
            mercy: Rng::with_seed(seed ^ 0x3e5c),
            plan: options.deeds.clone(),
            planned: options.deeds.is_some(),
            deeds: Vec::new(),
            by_hand: 0,
            touched: vec![false; SERVERS],
            forgotten: vec![false; SERVERS],
            requests: 1,
            agenda: Agenda::new(),
            group: group.clone(),
            servers,
            broker: ModelBroker::new(nodes.len()),
            nodes,
            stuck: Vec::new(),
            clients: Clients::new(aim),
            wrong: options.wrong,
            fenced: policy.fence().is_some() && flavor != Flavor::Ledisdb,
            objections: draw_objections(seed, options.draw),
            journal: Journal::new(started, options.journal),
            trace: Vec::new(),
            invariants: Invariants::new(started, &policy, count),
            sight: Sight::new(SERVERS, started),
            violation: None,
            counts: Counts::default(),
            troubles: false,
            round: 0,
            addrs,
        };
        for server in 0..SERVERS {
            world.cron_later(server);
        }
        world.after(Duration::from_millis(1), Happening::Write);
        for node in 0..count {
            world.introduce(node);
        }
        world.beat();
        let spec =
            GroupSpec { name: Some(group), master: world.addrs[0].clone(), replicas: Vec::new() };
        world.tell_leader(Event::Request { id: 1, request: Request::Add(vec![spec]) });
        world
    }

    /// What is agreed about the group.
    ///
    /// # Panics
    /// Before the group was committed, which takes a few milliseconds.
    pub fn entry(&self) -> &GroupEntry {
        self.agreed().unwrap_or_else(|| panic!("the group is not committed yet"))
    }

    /// What is agreed about the group, while it is guarded.
    fn agreed(&self) -> Option<&GroupEntry> {
        self.broker.entry(&self.group)
    }

    /// The group as the leader shows it.
    pub fn view(&self) -> Option<GroupView> {
        let leader = self.broker.leader().unwrap_or(0);
        self.nodes[leader].shell.fleet.view(self.local(leader), &self.group)
    }

    /// One server.
    pub fn server(&self, index: usize) -> &Server {
        &self.servers[index]
    }

    /// The index of the recorded master.
    pub fn recorded(&self) -> usize {
        self.broker.entry(&self.group).and_then(|entry| self.index(&entry.master)).unwrap_or(0)
    }

    /// The first invariant that did not hold.
    pub fn violation(&self) -> Option<&Violation> {
        self.violation.as_ref()
    }

    /// What was counted so far.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// How long the world has existed.
    pub fn age(&self) -> Duration {
        self.now.since(self.started)
    }

    /// What changed in the record and on the servers, without times.
    pub fn trace(&self) -> &[String] {
        &self.trace
    }

    /// The readable lines, when they were kept.
    pub fn into_journal(self) -> Vec<String> {
        self.journal.into_lines()
    }

    /// Lets time pass, or as much of it as passes until an invariant does not hold.
    pub fn run_for(&mut self, duration: Duration) {
        self.run_until(duration, |_| false);
    }

    /// Lets time pass until something is so, at most this long. Returns whether it is.
    pub fn run_until(&mut self, limit: Duration, so: impl Fn(&Self) -> bool) -> bool {
        let end = self.now + limit;
        while self.violation.is_none() {
            if so(self) {
                return true;
            }
            if !self.advance(end) {
                self.now = end;
                return so(self);
            }
        }
        false
    }

    /// Requires that the group is whole again within the bound.
    pub fn require_settled(&mut self) {
        let bound = liveness::BOUND;
        let end = self.now + bound;
        let mut settled_since = None;
        while self.now < end && self.violation.is_none() {
            self.run_for(Duration::from_millis(250));
            match self.settled() {
                Ok(()) => {
                    let since = *settled_since.get_or_insert(self.now);
                    if self.now.since(since) >= SETTLED_FOR {
                        self.judge(Invariants::finish);
                        return;
                    }
                }
                Err(_) => settled_since = None,
            }
        }
        let why = self.settled().err().unwrap_or_else(|| "it never stayed so".to_owned());
        self.violate("liveness", format!("{} s after the last fault {why}", bound.as_secs()));
    }

    fn settled(&self) -> Result<(), String> {
        if self.broker.leader().is_none() {
            return Err("no node leads".to_owned());
        }
        let views = self
            .nodes
            .iter()
            .map(|node| node.shell.fleet.view(node.pace.local(self.now), &self.group));
        let views: Option<Vec<GroupView>> = views.collect();
        let views = views.ok_or_else(|| "a node does not guard the group".to_owned())?;
        let entry = self.agreed().ok_or_else(|| "the group is not guarded".to_owned())?;
        let forgot = self.servers[0].is_ledisdb() && self.sight.missed_loss();
        liveness::settled(&self.servers, entry, &views, self.fenced, forgot)
    }

    /// Lets the next thing happen, unless it is later than this. Returns whether something did.
    fn advance(&mut self, end: Time) -> bool {
        let next = self.agenda.next_at();
        let awake = self.nodes.iter().enumerate().filter(|(_, node)| node.running == Running::Up);
        let timer = awake.filter_map(|(index, node)| Some((node.timer()?, index))).min();
        match (timer, next) {
            (Some((timer, node)), next)
                if timer <= end && next.is_none_or(|next| timer <= next) =>
            {
                self.wake(node, timer);
                true
            }
            (_, Some(next)) if next <= end => {
                self.now = self.now.max(next);
                if let Some(happening) = self.agenda.take() {
                    self.happen(happening);
                }
                true
            }
            (_, _) => false,
        }
    }

    fn happen(&mut self, happening: Happening) {
        match happening {
            Happening::At { node, life, what } => self.at_node(node, life, what),
            Happening::Reach { from, server, message } => {
                if self.network.is_cut(from, Place::Server(server)) {
                    self.stuck.push(Happening::Reach { from, server, message });
                    return;
                }
                // Nothing comes of an attempt to connect when the answer to it gets lost.
                let connects = matches!(message, Message::Ask { connect: true, .. });
                if connects && self.network.is_cut(Place::Server(server), from) {
                    return;
                }
                // What is told of something else leaves the role as it was changed by hand.
                if let Message::Order { command, .. } = &message
                    && !matches!(
                        command,
                        Command::Fence { .. } | Command::Pause { .. } | Command::Unpause
                    )
                {
                    self.touched[server] = false;
                }
                let mut out = Vec::new();
                let fresh_id = self.rng.u64(..);
                self.servers[server].receive(self.now, message, fresh_id, &mut out);
                self.effects(server, out);
            }
            Happening::Settle { proposal, fate } => self.settle(proposal, fate),
            Happening::Apply { node } => self.apply(node),
            Happening::Beat => self.beat(),
            Happening::Cron { server, life } => {
                if self.servers[server].life() == life {
                    let mut out = Vec::new();
                    self.servers[server].cron(self.now, &mut out);
                    self.effects(server, out);
                    self.after(Duration::from_secs(1), Happening::Cron { server, life });
                }
            }
            Happening::Write => {
                self.write();
                let pause = Clients::pause_us(&mut self.rng);
                self.after(Duration::from_micros(pause), Happening::Write);
            }
            Happening::Due { deed, round, drawn } => self.due(deed, round, drawn),
            Happening::Trouble => self.draw_trouble(),
            Happening::Operator => self.look_as_operator(),
            Happening::Add { master, gone } => self.add(master, gone),
        }
    }

    fn write(&mut self) {
        let recorded = self.recorded();
        for (server, value) in self.clients.writes(self.now, recorded, &self.servers) {
            let wait = Duration::from_micros(self.rng.u64(50..500));
            let message = Message::Write { value };
            self.after(wait, Happening::Reach { from: Place::Clients, server, message });
        }
    }

    fn observe(&mut self, seen: &Seen<'_>) {
        self.judge(|invariants, truth| invariants.observe(seen, truth));
    }

    fn judge(&mut self, judge: impl FnOnce(&mut Invariants, &Truth<'_>) -> Judgement) {
        let truth = Truth {
            now: self.now,
            servers: &self.servers,
            addrs: &self.addrs,
            entry: self.broker.entry(&self.group),
            written: self.clients.written(),
            token: self.broker.token(),
            history: self.broker.record().history(&self.group).len(),
            sight: &self.sight,
            touched: &self.touched,
            forgotten: &self.forgotten,
        };
        if let Err((invariant, sentence)) = judge(&mut self.invariants, &truth) {
            self.violate(invariant, sentence);
        }
    }

    fn violate(&mut self, invariant: &'static str, sentence: String) {
        if self.violation.is_some() {
            return;
        }
        self.journal.note(self.now, || format!("## {invariant}: {sentence}"));
        let at = journal::clock(self.started, self.now).trim().to_owned();
        self.violation = Some(Violation { invariant, at, sentence });
    }

    fn index(&self, addr: &Addr) -> Option<usize> {
        self.addrs.iter().position(|known| known == addr)
    }

    fn cron_later(&mut self, server: usize) {
        let life = self.servers[server].life();
        let wait = Duration::from_micros(self.rng.u64(..1_000_000));
        self.after(wait, Happening::Cron { server, life });
    }

    fn after(&mut self, wait: Duration, happening: Happening) {
        self.at(self.now + wait, happening);
    }

    fn at(&mut self, at: Time, happening: Happening) {
        if let Happening::Due { .. } = happening {
            // Whether it was drawn a moment before or written down long ago, it happens at the same place.
            self.agenda.plan_first(at.max(self.now + Duration::from_micros(1)), happening);
        } else {
            self.agenda.plan(at, happening);
        }
    }
}
