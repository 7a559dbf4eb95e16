//! The nodes in the world: what they are told, and what becomes of what they want done.

use std::collections::BTreeMap;
use std::time::Duration;

use failover_core::action::{Action, Command};
use failover_core::addr::Addr;
use failover_core::event::{CommandId, CommandResult, Event, Probed};
use failover_core::fleet::Policies;
use failover_core::node::{GroupName, NodeId, Token};
use failover_core::time::Time;

use super::drawn::Objection;
use super::pace::Pace;
use super::{ForNode, Happening, WAKES_AT_ONCE_MAX, World};
use crate::SERVERS;
use crate::faults::Clock;
use crate::invariants::Seen;
use crate::journal;
use crate::model_redis::{Message, Reply, Running};
use crate::network::{Place, Way};
use crate::shell::{Order, Shell, Wish, Wrong, conn_base};
use crate::twin::{departed, twinned};

/// One node: the core under test and the shell around it.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) id: NodeId,
    pub(super) running: Running,
    /// Counts its processes.
    pub(super) life: u32,
    pub(super) shell: Shell,
    /// How time goes for it.
    pub(super) pace: Pace,
    /// When its core wants to be woken, as far as it was told by then. It is asked for at every step of the world.
    pub(super) due_at: Option<Time>,
    /// The newest leadership that it heard of.
    pub(super) token: Token,
    /// How much of what was committed it has.
    pub(super) applied: usize,
    /// What happened while it was stopped.
    waiting: Vec<ForNode>,
    /// Commands that another node is to send for it, and when they were sent to that node.
    relayed: BTreeMap<CommandId, Time>,
    /// Until when the routine lane is behind.
    routine_until: Time,
    /// When it was woken last, and how often at that moment.
    woken_at: Time,
    wakes_at_once: u32,
    policies: Policies,
    group: GroupName,
    addrs: Vec<Addr>,
    has_twin: bool,
}

impl Node {
    pub(super) fn new(
        index: usize,
        policies: &Policies,
        has_twin: bool,
        group: &GroupName,
        addrs: &[Addr],
        now: Time,
    ) -> Self {
        let id = NodeId::new(&format!("node {index}"));
        Self {
            running: Running::Up,
            life: 0,
            shell: shell(&id, policies, has_twin, group, addrs, conn_base(index, 0)),
            pace: Pace::new(now, Clock::default()),
            due_at: None,
            id,
            token: Token(0),
            applied: 0,
            waiting: Vec::new(),
            relayed: BTreeMap::new(),
            routine_until: now,
            woken_at: now,
            wakes_at_once: 0,
            policies: policies.clone(),
            has_twin,
            group: group.clone(),
            addrs: addrs.to_vec(),
        }
    }
}

fn shell(
    id: &NodeId,
    policies: &Policies,
    has_twin: bool,
    group: &GroupName,
    addrs: &[Addr],
    base: u64,
) -> Shell {
    let fleet = twinned(id.clone(), policies.clone(), has_twin);
    Shell::new(fleet, group.clone(), addrs, base)
}

impl World {
    /// Something happens to a node, unless it is another process by now.
    pub(super) fn at_node(&mut self, node: usize, life: u32, what: ForNode) {
        if self.nodes[node].life != life {
            return;
        }
        match self.nodes[node].running {
            Running::Dead => return,
            Running::Hung => {
                self.nodes[node].waiting.push(what);
                return;
            }
            Running::Up => {}
        }
        let busy_until = self.nodes[node].pace.busy_until();
        if self.now < busy_until {
            self.at(busy_until, Happening::At { node, life, what });
            return;
        }
        self.nodes[node].pace.take(self.now);
        match what {
            ForNode::Tell(event) => self.tell(node, event),
            ForNode::Hear { server, reply } => {
                if self.network.is_cut(Place::Server(server), Place::Node(node)) {
                    let what = ForNode::Hear { server, reply };
                    self.stuck.push(Happening::At { node, life, what });
                } else {
                    self.hear(node, server, reply);
                }
            }
            ForNode::Overdue { server, id } => {
                let local = self.local(node);
                let wishes = self.nodes[node].shell.overdue(local, server, id);
                self.grant(node, server, wishes);
            }
            ForNode::Unanswered { id } => {
                let why = "the other node did not answer".to_owned();
                self.answered(node, id, CommandResult::Unknown(why));
            }
            ForNode::Answered { id, result } => self.answered(node, id, result),
            ForNode::Asked { by, token, asked_at } => self.asked(node, by, token, asked_at),
            ForNode::Relay { order, server } => self.order(node, server, order),
        }
    }

    fn answered(&mut self, node: usize, id: CommandId, mut result: CommandResult) {
        if let Some(sent_at) = self.nodes[node].relayed.remove(&id) {
            if let CommandResult::Done { facts, .. } = &mut result {
                // The other node's clock says nothing here.
                facts.asked_at = sent_at;
            }
            let group = self.group.clone();
            self.tell(node, Event::Commanded { group, id, result });
        }
    }

    /// Another node asks what this one sees.
    fn asked(&mut self, node: usize, by: usize, token: Token, asked_at: Time) {
        let group = self.group.clone();
        let local = self.local(node);
        let testimony = self.nodes[node].shell.fleet.testify(local, &group);
        self.drain(node);
        if let Some(testimony) = testimony {
            let dead = testimony.dead.map(|_| &testimony.master);
            self.observe(&Seen::Testified { node, dead });
            let id = self.nodes[node].id.clone();
            let event = Event::Testified { node: id, token, group, asked_at, testimony };
            self.between(node, by, ForNode::Tell(event));
        }
    }

    pub(super) fn kill_node(&mut self, node: usize) {
        let Node { running, life, waiting, .. } = &mut self.nodes[node];
        *running = Running::Dead;
        *life += 1;
        waiting.clear();
        if self.broker.leader() == Some(node) {
            self.broker.depose();
        }
    }

    pub(super) fn resume_node(&mut self, node: usize) {
        self.nodes[node].running = Running::Up;
        let life = self.nodes[node].life;
        // Whether it looks at its clock first, or at what came meanwhile, nobody knows.
        if self.rng.bool() {
            let local = self.local(node);
            self.nodes[node].shell.fleet.handle_timeout(local);
            self.drain(node);
        }
        for what in std::mem::take(&mut self.nodes[node].waiting) {
            self.at_node(node, life, what);
        }
        if self.broker.leader() == Some(node) {
            self.apply(node);
        }
    }

    pub(super) fn start_node(&mut self, node: usize, clock: Clock) {
        let now = self.now;
        let old = &self.nodes[node];
        let base = conn_base(node, old.life);
        let shell = shell(&old.id, &old.policies, old.has_twin, &old.group, &old.addrs, base);
        let new = &mut self.nodes[node];
        new.shell = shell;
        new.running = Running::Up;
        new.pace = Pace::new(now, clock);
        new.due_at = None;
        new.relayed.clear();
        new.routine_until = now;
        self.introduce(node);
        if self.nodes.len() == 1 {
            // It has nobody to be elected by.
            self.beat();
        }
    }

    /// A node's timer is due.
    pub(super) fn wake(&mut self, node: usize, timer: Time) {
        let now = self.now.max(timer);
        let Node { woken_at, wakes_at_once, .. } = &mut self.nodes[node];
        *wakes_at_once = if *woken_at == now { *wakes_at_once + 1 } else { 0 };
        *woken_at = now;
        if *wakes_at_once > WAKES_AT_ONCE_MAX {
            let late = self.now.since(timer).as_micros();
            self.violate(
                "bounded-work",
                format!("the core asks again and again to be woken {late} µs ago"),
            );
        }
        self.now = now;
        self.nodes[node].pace.take(now);
        let local = self.local(node);
        self.nodes[node].shell.fleet.handle_timeout(local);
        self.drain(node);
    }

    /// Tells the core what happened, and does what it wants done.
    pub(super) fn tell(&mut self, node: usize, event: Event) {
        if self.wrong == Some(Wrong::TurnDeaf) && self.round > 0 {
            return;
        }
        self.journal.note(self.now, || format!("{node} {}", journal::event(&event)));
        self.counts.events += 1;
        let local = self.local(node);
        self.nodes[node].shell.fleet.handle(local, event);
        self.drain(node);
    }

    fn drain(&mut self, node: usize) {
        let mut actions = 0;
        while let Some(action) = self.nodes[node].shell.fleet.poll() {
            actions += 1;
            self.act(node, action);
        }
        if actions > 0 {
            self.observe(&Seen::Did { actions });
        }
        self.nodes[node].note_due();
        let _ = self.nodes[node].shell.fleet.take_changed();
        if let Some(why) = departed(&self.nodes[node].shell.fleet) {
            let why = format!("the journal of node {node} does not lead to what it did: {why}");
            self.violate("replayed", why);
        }
    }

    fn act(&mut self, node: usize, action: Action) {
        self.journal.note(self.now, || format!("{node} {}", journal::action(&action)));
        match action {
            Action::Probe { addr, seq, fresh, .. } => {
                let Some(server) = self.index(&addr) else { return };
                let times = if self.wrong == Some(Wrong::RepeatProbes) { 500 } else { 1 };
                for _ in 0..times {
                    self.observe(&Seen::Asked { node, server });
                }
                let local = self.local(node);
                let wishes = self.nodes[node].shell.probe(local, server, seq, fresh);
                self.grant(node, server, wishes);
            }
            Action::Forget { addr } => {
                if let Some(server) = self.index(&addr) {
                    self.nodes[node].shell.forget(server);
                }
            }
            Action::Propose { id, token, changes } => self.propose(node, id, token, changes),
            Action::Command { id, addr, command, token, via, deadline, .. } => {
                let via = via.and_then(|via| self.number_of(&via));
                let epoch = self.agreed().map_or(0, |entry| entry.epoch);
                let order = Order { id, command, token, epoch, by: None, deadline };
                self.command(node, via, &addr, order);
            }
            Action::AskPeer { node: whom, token, .. } => {
                if let Some(to) = self.number_of(&whom) {
                    self.between(
                        node,
                        to,
                        ForNode::Asked { by: node, token, asked_at: self.local(node) },
                    );
                }
            }
            Action::Hint { leader, group } => {
                if let Some(to) = self.number_of(&leader) {
                    self.between(node, to, ForNode::Tell(Event::Hinted { group }));
                }
            }
            Action::Vet { group, id, candidate, .. } => {
                // One that was deposed may hold an election; it comes of it what the fence lets through: nothing.
                if self.broker.allows(node, self.nodes[node].token, self.now) {
                    self.observe(&Seen::Vetted { candidate: &candidate });
                }
                let slow = self.troubles && self.rng.u8(..20) == 0;
                let micros = self.rng.u64(5..if slow { 400_000 } else { 200 });
                let veto = match self.objection() {
                    Objection::Silence => return,
                    Objection::Veto => Some("not on a Sunday".to_owned()),
                    Objection::None => None,
                };
                let vetted = ForNode::Tell(Event::Vetted { group, id, veto });
                self.later(node, Duration::from_micros(micros), vetted);
            }
            Action::Tell { group, occurrence, .. } => {
                // Every hook that is told needs its time, and each says when it is.
                let number = occurrence.number;
                for (hook, ms) in
                    [(Some("slow".to_owned()), 40 + number % 97), (None, 60 + number % 97)]
                {
                    let told = Event::Told { group: group.clone(), number, hook };
                    self.later(node, Duration::from_millis(ms), ForNode::Tell(told));
                }
            }
            Action::Publish(_) | Action::Answer { .. } => {}
        }
    }

    fn later(&mut self, node: usize, wait: Duration, what: ForNode) {
        let life = self.nodes[node].life;
        self.after(wait, Happening::At { node, life, what });
    }

    fn command(&mut self, node: usize, via: Option<usize>, addr: &Addr, order: Order) {
        let Some(server) = self.index(addr) else { return };
        if self.broker.allows(node, order.token, self.now) {
            let Order { command, token, .. } = &order;
            self.observe(&Seen::Commanded { node, addr, command, token: *token });
        }
        let refused = self.wrong == Some(Wrong::RefuseFollow)
            && matches!(order.command, Command::Follow { .. });
        if refused {
            let result = CommandResult::Refused("-NOPERM".to_owned());
            let event = Event::Commanded { group: self.group.clone(), id: order.id, result };
            self.later(node, Duration::from_micros(200), ForNode::Tell(event));
            return;
        }
        if self.wrong == Some(Wrong::PromoteTwice)
            && matches!(order.command, Command::Promote { .. })
        {
            let other = (0..SERVERS).find(|index| *index != server && *index != self.recorded());
            if let Some(other) = other {
                let command = Command::Promote { run_id: None, at_least: None, fence: None };
                let twin = Order { id: u64::MAX - order.id, command, ..order.clone() };
                self.order(node, other, twin);
            }
        }
        match via {
            None => self.order(node, server, order),
            Some(via) => {
                let sent_at = self.local(node);
                self.nodes[node].relayed.insert(order.id, sent_at);
                let id = order.id;
                let wait = order.deadline.since(sent_at);
                self.later(node, wait, ForNode::Unanswered { id });
                let by = Some((node, self.nodes[node].life));
                let order = Order { by, deadline: self.local(via) + wait, ..order };
                self.between(node, via, ForNode::Relay { order, server });
            }
        }
    }

    fn order(&mut self, node: usize, server: usize, order: Order) {
        let local = self.local(node);
        let wait = order.deadline.since(local);
        self.later(node, wait, ForNode::Overdue { server, id: order.id });
        let wishes = self.nodes[node].shell.order(local, server, order);
        self.grant(node, server, wishes);
    }

    /// For the test that a halted group is not commanded.
    pub(super) fn command_a_halted_group(&mut self) {
        if self.wrong == Some(Wrong::CommandHalted) {
            let addr = self.addrs[0].clone();
            let leader = self.broker.leader().unwrap_or(0);
            let deadline = self.local(leader) + Duration::from_secs(1);
            let command = Command::Promote { run_id: None, at_least: None, fence: None };
            let token = self.broker.token();
            let epoch = self.agreed().map_or(0, |entry| entry.epoch);
            let order = Order { id: u64::MAX, command, token, epoch, by: None, deadline };
            self.command(leader, None, &addr, order);
        }
    }

    /// Does for the shell what it cannot do itself.
    fn grant(&mut self, node: usize, server: usize, wishes: Vec<Wish>) {
        let local = self.local(node);
        for wish in wishes {
            match wish {
                Wish::Send { conn, message } => {
                    if let Message::Order { id, .. } = &message {
                        let Some((token, command)) = self.may_send(node, server, *id) else {
                            let more = self.nodes[node].shell.not_sent(local, server, *id);
                            self.grant(node, server, more);
                            continue;
                        };
                        let addr = self.addrs[server].clone();
                        self.observe(&Seen::Sent { node, addr: &addr, command: &command, token });
                    }
                    let way = Way::Out(conn);
                    let at = self.network.arrival(&mut self.rng, self.now, way, Duration::ZERO);
                    self.at(at, Happening::Reach { from: Place::Node(node), server, message });
                }
                Wish::Abort(conn) => self.stuck.retain(|stuck| {
                    let Happening::Reach { message, .. } = stuck else { return true };
                    !matches!(message, Message::Order { conn: on, .. } if *on == conn)
                }),
                Wish::Tell(event) => self.tell_in_lanes(node, event),
                Wish::Answer { to, life, id, result } => {
                    if self.nodes[to].life == life {
                        self.between(node, to, ForNode::Answered { id, result });
                    }
                }
            }
        }
    }

    /// The fence, right before the write: under which token, when it lets the command through.
    fn may_send(&self, node: usize, server: usize, id: CommandId) -> Option<(Token, Command)> {
        let order = self.nodes[node].shell.on_its_way(server, id)?;
        if self.wrong == Some(Wrong::IgnoreLease) {
            return Some((order.token, order.command.clone()));
        }
        let may = match order.by {
            None => self.broker.allows(node, order.token, self.now),
            // Whoever sends it for the leader knows of no newer one.
            Some(_) => self.nodes[node].token == order.token,
        };
        may.then(|| (order.token, order.command.clone()))
    }

    /// What decides has a lane of its own and overtakes what is routine.
    fn tell_in_lanes(&mut self, node: usize, event: Event) {
        let routine = matches!(
            event,
            Event::Accepted { .. } | Event::Probed { outcome: Probed::Replied { .. }, .. }
        );
        let mut at = self.now;
        if routine {
            if self.rng.u8(..20) == 0 {
                at = at + Duration::from_micros(self.rng.u64(1..500));
            }
            at = at.max(self.nodes[node].routine_until);
            self.nodes[node].routine_until = at;
        }
        let life = self.nodes[node].life;
        self.at(at, Happening::At { node, life, what: ForNode::Tell(event) });
    }

    fn hear(&mut self, node: usize, server: usize, mut reply: Reply) {
        if self.wrong == Some(Wrong::TurnOffsets)
            && let Reply::Answer { facts, .. } = &mut reply
            && !facts.is_master()
        {
            facts.offset = 1_000_000_000 - facts.offset;
        }
        let local = self.local(node);
        let wishes = self.nodes[node].shell.hear(local, server, reply);
        self.grant(node, server, wishes);
    }
}
