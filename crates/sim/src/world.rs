//! The world: a heap of virtual time, three servers, their clients, a broker and one node, and nothing that is random
//! but the seed.

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;
use std::time::Duration;

use failover_core::action::{Action, Command};
use failover_core::addr::Addr;
use failover_core::event::{CommandId, Event, GroupSpec, Probed, ProposalId, Request};
use failover_core::fleet::{Fleet, Policies};
use failover_core::node::{GroupName, Leadership, NodeId, Token};
use failover_core::policy::Policy;
use failover_core::record::{Change, GroupEntry, Kind, Status};
use failover_core::time::Time;
use failover_core::view::GroupView;
use fastrand::Rng;

use crate::clients::{Aim, Clients};
use crate::faults::{self, Fault};
use crate::invariants::{Invariants, Seen, Truth, Violation, liveness};
use crate::journal::{self, Journal};
use crate::model_broker::{Fate, ModelBroker};
use crate::model_redis::{Effect, Message, Reply, Running, Server, Value};
use crate::network::{Network, Way};
use crate::shell::{Order, Shell, Wish, Wrong};
use crate::{Options, SERVERS};

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

    /// Tells the core what happened, and does what it wants done.
    fn tell(&mut self, event: Event) {
        if self.wrong == Some(Wrong::TurnDeaf) && self.round > 0 {
            return;
        }
        self.journal.note(self.now, || journal::event(&event));
        self.counts.events += 1;
        self.shell.fleet.handle(self.now, event);
        self.drain();
    }

    fn drain(&mut self) {
        while let Some(action) = self.shell.fleet.poll() {
            self.act(action);
        }
        let _ = self.shell.fleet.take_changed();
    }

    fn act(&mut self, action: Action) {
        self.journal.note(self.now, || journal::action(&action));
        match action {
            Action::Probe { addr, seq, fresh, .. } => {
                let Some(server) = self.index(&addr) else { return };
                let times = if self.wrong == Some(Wrong::RepeatProbes) { 500 } else { 1 };
                for _ in 0..times {
                    self.observe(&Seen::Asked { server });
                }
                let wishes = self.shell.probe(self.now, server, seq, fresh);
                self.grant(server, wishes);
            }
            Action::Forget { addr } => {
                if let Some(server) = self.index(&addr) {
                    self.shell.forget(server);
                }
            }
            Action::Propose { id, token, changes } => {
                self.observe(&Seen::Proposed { changes: &changes });
                let (at, fate) = self.broker.propose(&mut self.rng, self.now, token);
                self.at(at, Happening::Settle { id, changes, fate });
            }
            Action::Command { id, addr, command, token, deadline, .. } => {
                self.command(id, &addr, command, token, deadline);
            }
            Action::Vet { group, id, candidate, .. } => {
                self.observe(&Seen::Vetted { candidate: &candidate });
                let slow = self.troubles && self.rng.u8(..20) == 0;
                let micros = self.rng.u64(5..if slow { 400_000 } else { 200 });
                let vetted = Event::Vetted { group, id, veto: None };
                self.after(Duration::from_micros(micros), Happening::Tell(vetted));
            }
            Action::Publish(_) | Action::Answer { .. } => {}
        }
    }

    fn command(
        &mut self,
        id: CommandId,
        addr: &Addr,
        command: Command,
        token: Token,
        deadline: Time,
    ) {
        let Some(server) = self.index(addr) else { return };
        self.observe(&Seen::Commanded { addr, command: &command, token });
        let epoch = self.broker.entry(&self.group).map_or(0, |entry| entry.epoch);
        let refused =
            self.wrong == Some(Wrong::RefuseFollow) && matches!(command, Command::Follow { .. });
        if refused {
            let result = failover_core::event::CommandResult::Refused("-NOPERM".to_owned());
            let event = Event::Commanded { group: self.group.clone(), id, result };
            self.after(Duration::from_micros(200), Happening::Tell(event));
            return;
        }
        if self.wrong == Some(Wrong::PromoteTwice) && matches!(command, Command::Promote { .. }) {
            let other = (0..SERVERS).find(|index| *index != server && *index != self.recorded());
            if let Some(other) = other {
                self.order(
                    other,
                    Order {
                        id: u64::MAX - id,
                        command: Command::Promote { run_id: None },
                        epoch,
                        deadline,
                    },
                );
            }
        }
        self.order(server, Order { id, command, epoch, deadline });
    }

    fn order(&mut self, server: usize, order: Order) {
        self.at(order.deadline, Happening::Overdue { server, id: order.id });
        let wishes = self.shell.order(self.now, server, order);
        self.grant(server, wishes);
    }

    /// Does for the shell what it cannot do itself.
    fn grant(&mut self, server: usize, wishes: Vec<Wish>) {
        for wish in wishes {
            match wish {
                Wish::Send { conn, message } => {
                    let way = Way::Out(conn);
                    let at = self.network.arrival(&mut self.rng, self.now, way, Duration::ZERO);
                    self.at(at, Happening::Reach { server, message });
                }
                Wish::Tell(event) => self.tell_in_lanes(event),
            }
        }
    }

    /// What decides has a lane of its own and overtakes what is routine.
    fn tell_in_lanes(&mut self, event: Event) {
        let routine = matches!(
            event,
            Event::Accepted { .. } | Event::Probed { outcome: Probed::Replied { .. }, .. }
        );
        let mut at = self.now;
        if routine {
            if self.rng.u8(..20) == 0 {
                at = at + Duration::from_micros(self.rng.u64(1..500));
            }
            at = at.max(self.routine_until);
            self.routine_until = at;
        }
        self.at(at, Happening::Tell(event));
    }

    fn settle(&mut self, id: ProposalId, changes: Vec<Change>, fate: Fate) {
        if self.wrong == Some(Wrong::SkipCommit)
            && changes.iter().any(|change| {
                change.entry.as_ref().is_some_and(|entry| {
                    entry.saga.as_ref().is_some_and(|saga| saga.history.kind == Kind::Failover)
                })
            })
        {
            self.tell(Event::Committed { id: Some(id), changes });
            return;
        }
        let before = self.broker.entry(&self.group).cloned();
        let fate = match fate {
            Fate::Committed => self.broker.commit(&changes),
            Fate::NotCommitted(_) => fate,
        };
        match fate {
            Fate::NotCommitted(why) => {
                self.tell(Event::NotCommitted { id, why: why.to_owned() });
            }
            Fate::Committed => {
                self.observe(&Seen::Committed { before: before.as_ref() });
                self.operator_looks(before.as_ref());
                self.tell(Event::Committed { id: Some(id), changes });
            }
        }
    }

    /// An operator comes some time after the group was halted.
    fn operator_looks(&mut self, before: Option<&GroupEntry>) {
        let halted = |entry: &GroupEntry| matches!(entry.status, Status::Halted { .. });
        if halted(self.entry()) && !before.is_some_and(halted) {
            self.counts.halts += 1;
            if self.wrong == Some(Wrong::CommandHalted) {
                let addr = self.addrs[0].clone();
                let deadline = self.now + Duration::from_secs(1);
                let command = Command::Promote { run_id: None };
                self.command(u64::MAX, &addr, command, self.broker.token(), deadline);
            }
            if self.troubles {
                let wait = Duration::from_millis(self.rng.u64(100..60_000));
                self.after(wait, Happening::Operator);
            }
        }
    }

    fn hear(&mut self, server: usize, mut reply: Reply) {
        if self.wrong == Some(Wrong::TurnOffsets)
            && let Reply::Answer { facts, .. } = &mut reply
            && !facts.is_master()
        {
            facts.offset = 1_000_000_000 - facts.offset;
        }
        let wishes = self.shell.hear(self.now, server, reply);
        self.grant(server, wishes);
    }

    /// Delivers what a server wants sent.
    fn effects(&mut self, server: usize, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Send { to, message } => self.send_between(server, to, message),
                Effect::Reply(reply) => {
                    let conn = match &reply {
                        Reply::Refused { conn }
                        | Reply::Accepted { conn }
                        | Reply::Answer { conn, .. }
                        | Reply::Done { conn, .. }
                        | Reply::Lost { conn } => *conn,
                    };
                    let way = Way::Back(conn);
                    let at = self.network.arrival(&mut self.rng, self.now, way, Duration::ZERO);
                    self.at(at, Happening::Hear { server, reply });
                }
                Effect::Acknowledge { value } => self.acknowledge(server, value),
                Effect::Promoted { epoch } => {
                    self.counts.promotions += 1;
                    let addr = self.addrs[server].clone();
                    self.journal.note(self.now, || format!("** {addr} becomes a master"));
                    self.observe(&Seen::Promoted { server, epoch });
                }
            }
        }
    }

    fn acknowledge(&mut self, server: usize, value: Value) {
        if server == self.recorded() {
            self.clients.acknowledge(value);
            self.counts.acknowledged += 1;
        }
    }

    fn send_between(&mut self, from: usize, to: usize, message: Message) {
        let at = match &message {
            // The end of a connection overtakes what was not sent yet: that is the tail that is lost.
            Message::LinkLost { .. } => {
                self.now + Duration::from_micros(self.rng.u64(1_000..5_000))
            }
            Message::Snapshot { .. } => {
                let micros = match self.rng.u8(..20) {
                    0 => self.rng.u64(500_000..5_000_000),
                    1.. => self.rng.u64(3_000..500_000),
                };
                let way = Way::Servers(from, to);
                let extra = Duration::from_micros(micros);
                self.network.arrival(&mut self.rng, self.now, way, extra)
            }
            Message::Ask { .. }
            | Message::Order { .. }
            | Message::Write { .. }
            | Message::Psync { .. }
            | Message::Detach { .. }
            | Message::Continue { .. }
            | Message::FullSync { .. }
            | Message::Rejected { .. }
            | Message::Stream { .. } => {
                let way = Way::Servers(from, to);
                self.network.arrival(&mut self.rng, self.now, way, Duration::ZERO)
            }
        };
        self.at(at, Happening::Reach { server: to, message });
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
