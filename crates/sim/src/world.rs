//! The world: a heap of virtual time, three servers, their clients, a broker and one node, and nothing that is random
//! but the seed.

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;
use std::time::Duration;

use failover_core::addr::Addr;
use failover_core::event::{CommandId, Event, GroupSpec, ProposalId, Request};
use failover_core::fleet::{Fleet, Policies};
use failover_core::node::{GroupName, Leadership, NodeId, Token};
use failover_core::policy::Policy;
use failover_core::record::{Change, GroupEntry, Status};
use failover_core::time::Time;
use failover_core::view::GroupView;
use fastrand::Rng;

use crate::clients::{Aim, Clients};
use crate::faults::{self, Fault};
use crate::invariants::{Invariants, Seen, Truth, Violation, liveness};
use crate::journal::{self, Journal};
use crate::model_broker::{Fate, ModelBroker};
use crate::model_redis::{Message, Reply, Running, Server};
use crate::network::Network;
use crate::shell::{Shell, Wrong};
use crate::{Options, SERVERS};

mod node;
mod wires;

/// How often in a row the core may ask to be woken at once before that counts as a loop.
const WAKES_AT_ONCE_MAX: u32 = 20;

/// For how long the group must have been whole to count as settled.
const SETTLED_FOR: Duration = Duration::from_secs(3);

/// Something that will happen.
#[derive(Debug)]
enum Happening {
    /// The core is told.
    Tell(Event),
    /// A message reaches a server.
    Reach { server: usize, message: Message },
    /// A reply reaches the node.
    Hear { server: usize, reply: Reply },
    /// A proposal ends.
    Settle { id: ProposalId, changes: Vec<Change>, fate: Fate },
    /// A command's deadline passes.
    Overdue { server: usize, id: CommandId },
    /// A server's own turn, of one of its lives.
    Cron { server: usize, life: u32 },
    /// Clients write.
    Write,
    /// Something goes wrong, or right again, unless the faults of its round have ended.
    Fault { fault: Fault, round: u32 },
    /// New trouble is drawn.
    Trouble,
    /// An operator looks at the group, and resumes it when it is halted.
    Operator,
}

/// Something that will happen, at its place in time; what is planned first happens first.
#[derive(Debug)]
struct Planned {
    at: Time,
    seq: u64,
    happening: Happening,
}

impl PartialEq for Planned {
    fn eq(&self, other: &Self) -> bool {
        self.seq == other.seq
    }
}

impl Eq for Planned {}

impl PartialOrd for Planned {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Planned {
    fn cmp(&self, other: &Self) -> Ordering {
        (self.at, self.seq).cmp(&(other.at, other.seq))
    }
}

/// What was counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Faults that happened.
    pub faults: u64,
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
    heap: BinaryHeap<Reverse<Planned>>,
    next_seq: u64,
    group: GroupName,
    addrs: Vec<Addr>,
    servers: Vec<Server>,
    network: Network,
    broker: ModelBroker,
    clients: Clients,
    shell: Shell,
    wrong: Option<Wrong>,
    journal: Journal,
    invariants: Invariants,
    violation: Option<Violation>,
    counts: Counts,
    troubles: bool,
    /// Faults of an earlier round do not happen any more.
    round: u32,
    /// Until when the routine lane is behind.
    routine_until: Time,
    wakes_at_once: u32,
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
        let servers = (0..SERVERS)
            .map(|index| {
                let id = rng.u64(..);
                let priority = priority(&mut rng, index);
                Server::new(index, &addrs, priority, started, id)
            })
            .collect();
        let drawn = draw_policy(&mut rng);
        let policy =
            options.policy.clone().unwrap_or(if options.draw { drawn } else { Policy::default() });
        let aim = if options.draw && rng.u8(..4) == 0 { Aim::Everyone } else { Aim::Recorded };
        let me = NodeId::new("node");
        let policies = Policies { default: policy.clone(), ..Policies::default() };
        let fleet = Fleet::new(me.clone(), policies);
        let token = Token(1);
        let mut world = Self {
            started,
            now: started,
            network: Network::new(&mut rng, SERVERS),
            rng,
            heap: BinaryHeap::new(),
            next_seq: 0,
            shell: Shell::new(fleet, group.clone(), &addrs),
            group: group.clone(),
            servers,
            broker: ModelBroker::new(token),
            clients: Clients::new(aim),
            wrong: options.wrong,
            journal: Journal::new(started, options.journal),
            invariants: Invariants::new(started, policy),
            violation: None,
            counts: Counts::default(),
            troubles: false,
            round: 0,
            routine_until: started,
            wakes_at_once: 0,
            addrs,
        };
        for server in 0..SERVERS {
            world.cron_later(server);
        }
        world.after(Duration::from_millis(1), Happening::Write);
        world.tell(Event::Voters(vec![me]));
        world.tell(Event::Leadership(Leadership::Leader(token)));
        let spec =
            GroupSpec { name: Some(group), master: world.addrs[0].clone(), replicas: Vec::new() };
        world.tell(Event::Request { id: 1, request: Request::Add(vec![spec]) });
        world
    }

    /// What is agreed about the group.
    ///
    /// # Panics
    /// Before the group was committed, which takes a few milliseconds.
    pub fn entry(&self) -> &GroupEntry {
        self.broker.entry(&self.group).unwrap_or_else(|| panic!("the group is not committed yet"))
    }

    /// The group as the node shows it.
    pub fn view(&self) -> Option<GroupView> {
        self.shell.fleet.view(self.now, &self.group)
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

    /// Makes something happen to a server.
    pub fn inflict(&mut self, fault: Fault) {
        let mut out = Vec::new();
        let (index, possible) = match fault {
            Fault::Kill(index) => (index, self.servers[index].running() != Running::Dead),
            Fault::Hang(index) => (index, self.servers[index].running() == Running::Up),
            Fault::Wake(index) => (index, self.servers[index].running() == Running::Hung),
            Fault::Return(index) | Fault::ReturnEmpty(index) => {
                (index, self.servers[index].running() == Running::Dead)
            }
        };
        if !possible {
            return;
        }
        self.counts.faults += 1;
        let addr = self.addrs[index].clone();
        self.journal.note(self.now, || format!("!! {addr} {fault:?}"));
        let server = &mut self.servers[index];
        match fault {
            Fault::Kill(_) => server.kill(self.now, &mut out),
            Fault::Hang(_) => server.hang(self.now),
            Fault::Wake(_) => {
                let rng = &mut self.rng;
                server.wake(self.now, || rng.u64(..), &mut out);
            }
            Fault::Return(_) | Fault::ReturnEmpty(_) => {
                let empty = matches!(fault, Fault::ReturnEmpty(_));
                server.start(self.now, empty, self.rng.u64(..), &mut out);
                self.cron_later(index);
            }
        }
        self.effects(index, out);
    }

    /// Lets faults happen from now on: drawn ones, and a broker that fails at times.
    pub fn begin_troubles(&mut self) {
        self.troubles = true;
        self.broker.set_reliable(false);
        self.after(Duration::from_millis(1), Happening::Trouble);
    }

    /// Ends all faults: whatever hangs wakes up and whatever is dead returns within two seconds.
    pub fn end_troubles(&mut self) {
        self.troubles = false;
        self.broker.set_reliable(true);
        self.round += 1;
        self.journal.note(self.now, || "!! all faults end".to_owned());
        for index in 0..SERVERS {
            let fault = match self.servers[index].running() {
                Running::Up => continue,
                Running::Hung => Fault::Wake(index),
                Running::Dead => Fault::Return(index),
            };
            let wait = Duration::from_millis(self.rng.u64(..2_000));
            self.after(wait, Happening::Fault { fault, round: self.round });
        }
        self.after(Duration::from_secs(3), Happening::Operator);
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
        let view = self.view().ok_or_else(|| "the group is not guarded".to_owned())?;
        liveness::settled(&self.servers, self.entry(), &view)
    }

    /// Lets the next thing happen, unless it is later than this. Returns whether something did.
    fn advance(&mut self, end: Time) -> bool {
        let next = self.heap.peek().map(|Reverse(planned)| planned.at);
        let timer = self.shell.fleet.poll_timeout();
        match (timer, next) {
            (Some(timer), next) if timer <= end && next.is_none_or(|next| timer <= next) => {
                self.wakes_at_once = if timer <= self.now { self.wakes_at_once + 1 } else { 0 };
                if self.wakes_at_once > WAKES_AT_ONCE_MAX {
                    let late = self.now.since(timer).as_micros();
                    self.violate(
                        "bounded-work",
                        format!("the core asks again and again to be woken {late} µs ago"),
                    );
                }
                self.now = self.now.max(timer);
                self.shell.fleet.handle_timeout(self.now);
                self.drain();
                true
            }
            (_, Some(next)) if next <= end => {
                self.now = self.now.max(next);
                if let Some(Reverse(planned)) = self.heap.pop() {
                    self.happen(planned.happening);
                }
                true
            }
            (_, _) => false,
        }
    }

    fn happen(&mut self, happening: Happening) {
        match happening {
            Happening::Tell(event) => self.tell(event),
            Happening::Reach { server, message } => {
                let mut out = Vec::new();
                let fresh_id = self.rng.u64(..);
                self.servers[server].receive(self.now, message, fresh_id, &mut out);
                self.effects(server, out);
            }
            Happening::Hear { server, reply } => self.hear(server, reply),
            Happening::Settle { id, changes, fate } => self.settle(id, changes, fate),
            Happening::Overdue { server, id } => {
                let wishes = self.shell.overdue(self.now, server, id);
                self.grant(server, wishes);
            }
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
            Happening::Fault { round, .. } if round != self.round => {}
            Happening::Fault { fault, round } => {
                // What was written right before is what a replica may miss.
                for _ in 0..self.rng.u8(..6) {
                    self.write();
                }
                if self.rng.bool() {
                    self.inflict(fault);
                } else {
                    let wait = Duration::from_micros(self.rng.u64(..2_000));
                    self.after(wait, Happening::Fault { fault, round });
                }
            }
            Happening::Trouble => {
                if !self.troubles {
                    return;
                }
                let recorded = self.recorded();
                for (wait, fault) in faults::draw(&mut self.rng, recorded, SERVERS) {
                    self.after(wait, Happening::Fault { fault, round: self.round });
                }
                let pause = faults::pause(&mut self.rng);
                self.after(pause, Happening::Trouble);
            }
            Happening::Operator => {
                if matches!(self.entry().status, Status::Halted { .. }) {
                    let request = Request::Resume(self.group.clone());
                    self.tell(Event::Request { id: 2, request });
                }
            }
        }
    }

    fn write(&mut self) {
        let recorded = self.recorded();
        for (server, value) in self.clients.writes(recorded, &self.servers) {
            let wait = Duration::from_micros(self.rng.u64(50..500));
            self.after(wait, Happening::Reach { server, message: Message::Write { value } });
        }
    }

    fn observe(&mut self, seen: &Seen<'_>) {
        let truth = Truth {
            now: self.now,
            servers: &self.servers,
            addrs: &self.addrs,
            entry: self.broker.entry(&self.group),
            acknowledged: self.clients.acknowledged(),
            token: self.broker.token(),
        };
        if let Err((invariant, sentence)) = self.invariants.observe(seen, &truth) {
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
        self.next_seq += 1;
        self.heap.push(Reverse(Planned { at, seq: self.next_seq, happening }));
    }
}

/// Rules that people use.
fn draw_policy(rng: &mut Rng) -> Policy {
    let ms = Duration::from_millis;
    let defaults = Policy::default();
    Policy {
        check_interval: ms([100, 250, 1000][rng.usize(..3)]),
        max_down_time: ms([1000, 3000][rng.usize(..2)]),
        crash_down_time: ms([0, 0, 500][rng.usize(..3)]),
        parallel_syncs: rng.usize(1..3),
        on_failed_failover: if rng.u8(..4) == 0 {
            failover_core::policy::OnFailedFailover::Retry
        } else {
            defaults.on_failed_failover
        },
        ..defaults
    }
}
