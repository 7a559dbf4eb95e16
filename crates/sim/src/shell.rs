//! A model of the shell around the core: its connections to the servers, and how their ends become events.
//!
//! It does what the real shell's task of an instance does: a main connection and at most one fresh one beside it, the
//! newest question in the place of one that was not sent, commands one at a time and only over a connection that
//! answered a moment ago. It can be made to do something wrong on purpose, to show that the invariants notice.

use std::collections::VecDeque;
use std::time::Duration;

use failover_core::action::Command;
use failover_core::addr::Addr;
use failover_core::event::{CommandId, CommandResult, Event, Health, ProbeSeq, Probed};
use failover_core::instance::Facts;
use failover_core::node::{GroupName, Token};
use failover_core::time::Time;

use crate::model_redis::{Conn, Message, Reply};
use crate::twin::Twinned;

/// A connection whose last reply is older than this is asked again before anything is changed over it.
const WARM: Duration = Duration::from_millis(200);
/// How long the host of a server is waited for.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// How long a fresh connection may stay silent until another one is opened in its place.
const FRESH_AGE_MAX: Duration = Duration::from_millis(1500);
/// The question that only warms a connection.
const WARMING: ProbeSeq = 0;

/// A mistake that a driver could make; see [`crate::Options::wrong`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wrong {
    /// It acts on decisions that were never committed.
    SkipCommit,
    /// It promotes a second replica with each promotion.
    PromoteTwice,
    /// It never demotes or repoints anybody.
    RefuseFollow,
    /// It turns the offsets of replicas round, so that the one that is behind looks ahead.
    TurnOffsets,
    /// It goes on commanding when the group is halted.
    CommandHalted,
    /// It sends each probe five hundred times.
    RepeatProbes,
    /// It tells the core nothing any more when the faults have ended.
    TurnDeaf,
    /// It sends commands although somebody else leads by now.
    IgnoreLease,
}

impl Wrong {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::SkipCommit,
        Self::PromoteTwice,
        Self::RefuseFollow,
        Self::TurnOffsets,
        Self::CommandHalted,
        Self::RepeatProbes,
        Self::TurnDeaf,
        Self::IgnoreLease,
    ];

    /// The name as it is written on a command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::SkipCommit => "skip-commit",
            Self::PromoteTwice => "promote-twice",
            Self::RefuseFollow => "refuse-follow",
            Self::TurnOffsets => "turn-offsets",
            Self::CommandHalted => "command-halted",
            Self::RepeatProbes => "repeat-probes",
            Self::TurnDeaf => "turn-deaf",
            Self::IgnoreLease => "ignore-lease",
        }
    }
}

/// A command on its way.
#[derive(Clone, Debug)]
pub(crate) struct Order {
    pub(crate) id: CommandId,
    pub(crate) command: Command,
    pub(crate) token: Token,
    /// The group's epoch when it was decided.
    pub(crate) epoch: u64,
    /// The node, and its life, that this one sends it for.
    pub(crate) by: Option<(usize, u32)>,
    pub(crate) deadline: Time,
}

/// The connections of one life of one node are numbered from here on.
pub(crate) fn conn_base(node: usize, life: u32) -> Conn {
    let node = u64::try_from(node).unwrap_or(u64::MAX);
    (node << 48) | (u64::from(life) << 32)
}

/// Which node, in which of its lives, opened a connection.
pub(crate) fn opener(conn: Conn) -> (usize, u32) {
    let node = usize::try_from(conn >> 48).unwrap_or(usize::MAX);
    (node, u32::try_from((conn >> 32) & 0xffff).unwrap_or(u32::MAX))
}

/// What the world is to do for the shell.
#[derive(Debug)]
pub(crate) enum Wish {
    /// Send this to the server.
    Send { conn: Conn, message: Message },
    /// It closed this connection: what has not arrived yet does not arrive any more.
    Abort(Conn),
    /// Tell the core.
    Tell(Event),
    /// Tell the node that wanted a command sent how it ended.
    Answer { to: usize, life: u32, id: CommandId, result: CommandResult },
}

/// The node's side of the wires to one server.
#[derive(Debug)]
struct Line {
    addr: Addr,
    main: Option<Main>,
    fresh: Option<Fresh>,
    probe: Option<(ProbeSeq, bool)>,
    orders: VecDeque<Order>,
    busy: Option<Busy>,
    /// What arrived while a command was on its way.
    held: Vec<Reply>,
}

/// A connection that is being opened, or was accepted and gave no answer yet.
#[derive(Clone, Copy, Debug)]
struct Fresh {
    conn: Conn,
    newest: ProbeSeq,
    since: Time,
    accepted: bool,
}

#[derive(Debug)]
struct Main {
    conn: Conn,
    last_reply: Option<Time>,
    /// The process behind it.
    run_id: Option<Box<str>>,
}

impl Main {
    /// Who is behind it, when it says so: once for all.
    fn learn(&mut self, facts: Option<&Facts>) {
        self.run_id = self.run_id.take().or_else(|| facts?.run_id.clone());
    }
}

/// The command on its way.
#[derive(Debug)]
struct Busy {
    order: Order,
    /// When it was written; before that it is refused when something goes wrong, after that it is unknown.
    written: Option<Time>,
}

/// All lines, and the core behind them.
#[derive(Debug)]
pub(crate) struct Shell {
    /// What is under test.
    pub(crate) fleet: Twinned,
    group: GroupName,
    lines: Vec<Line>,
    next_conn: Conn,
}

impl Shell {
    pub(crate) fn new(fleet: Twinned, group: GroupName, addrs: &[Addr], base: Conn) -> Self {
        let line = |addr: &Addr| Line {
            addr: addr.clone(),
            main: None,
            fresh: None,
            probe: None,
            orders: VecDeque::new(),
            busy: None,
            held: Vec::new(),
        };
        Self { fleet, group, lines: addrs.iter().map(line).collect(), next_conn: base }
    }

    /// Asks how a server is; a probe that was not sent yet is replaced.
    pub(crate) fn probe(
        &mut self,
        now: Time,
        server: usize,
        seq: ProbeSeq,
        fresh: bool,
    ) -> Vec<Wish> {
        let line = &mut self.lines[server];
        let fresh = fresh || line.probe.is_some_and(|(_, fresh)| fresh);
        line.probe = Some((seq, fresh));
        let mut wishes = Vec::new();
        self.pump(now, server, &mut wishes);
        wishes
    }

    /// Orders a change of a server.
    pub(crate) fn order(&mut self, now: Time, server: usize, order: Order) -> Vec<Wish> {
        self.lines[server].orders.push_back(order);
        let mut wishes = Vec::new();
        self.pump(now, server, &mut wishes);
        wishes
    }

    /// Closes all connections to a server.
    pub(crate) fn forget(&mut self, server: usize) {
        let line = &mut self.lines[server];
        (line.main, line.fresh, line.probe) = (None, None, None);
    }

    /// A command's deadline passed.
    pub(crate) fn overdue(&mut self, now: Time, server: usize, id: CommandId) -> Vec<Wish> {
        let mut wishes = Vec::new();
        let busy = self.lines[server].busy.as_ref().filter(|busy| busy.order.id == id);
        if let Some(busy) = busy {
            let result = if busy.written.is_some() {
                CommandResult::Unknown("no reply came before the deadline".to_owned())
            } else {
                CommandResult::Refused(
                    "the instance did not answer before the deadline; the command was not sent"
                        .to_owned(),
                )
            };
            self.end(now, server, result, &mut wishes);
        }
        wishes
    }

    /// The command that is being sent to a server.
    pub(crate) fn on_its_way(&self, server: usize, id: CommandId) -> Option<&Order> {
        let busy = self.lines[server].busy.as_ref();
        busy.map(|busy| &busy.order).filter(|order| order.id == id)
    }

    /// A command was held back by the fence.
    pub(crate) fn not_sent(&mut self, now: Time, server: usize, id: CommandId) -> Vec<Wish> {
        let mut wishes = Vec::new();
        if self.on_its_way(server, id).is_some() {
            let why = "the lease ran out".to_owned();
            self.end(now, server, CommandResult::NotSent(why), &mut wishes);
        }
        self.pump(now, server, &mut wishes);
        wishes
    }

    /// Something arrives from a server.
    pub(crate) fn hear(&mut self, now: Time, server: usize, reply: Reply) -> Vec<Wish> {
        let mut wishes = Vec::new();
        let line = &mut self.lines[server];
        if line.busy.is_none() {
            self.take(now, server, reply, &mut wishes);
        } else if line.main.as_ref().is_some_and(|main| main.conn == reply.conn()) {
            self.take_busy(now, server, reply, &mut wishes);
        } else {
            line.held.push(reply);
        }
        self.pump(now, server, &mut wishes);
        wishes
    }

    fn pump(&mut self, now: Time, server: usize, wishes: &mut Vec<Wish>) {
        if self.lines[server].busy.is_some() {
            return;
        }
        if let Some((seq, fresh)) = self.lines[server].probe.take() {
            self.ask(now, server, seq, fresh, wishes);
        }
        let Some(order) = self.lines[server].orders.pop_front() else { return };
        let line = &mut self.lines[server];
        if now >= order.deadline {
            line.busy = Some(Busy { order, written: None });
            let why = "its deadline passed while others were sent; the command was not sent";
            self.end(now, server, CommandResult::Refused(why.to_owned()), wishes);
            return;
        }
        let warm = line.main.as_ref().and_then(|main| main.last_reply);
        line.busy = Some(Busy { order, written: None });
        if warm.is_some_and(|at| now.since(at) <= WARM) {
            self.write(now, server, wishes);
            return;
        }
        let connect = line.main.is_none();
        if connect {
            self.next_conn += 1;
            line.main = Some(Main { conn: self.next_conn, last_reply: None, run_id: None });
        }
        if let Some(Main { conn, .. }) = line.main {
            let message = Message::Ask { conn, connect, seq: WARMING, asked_at: now };
            wishes.push(Wish::Send { conn, message });
        }
    }

    fn ask(
        &mut self,
        now: Time,
        server: usize,
        seq: ProbeSeq,
        fresh: bool,
        wishes: &mut Vec<Wish>,
    ) {
        let line = &mut self.lines[server];
        // One that is silent for long may have lost whoever was behind it.
        let lost = line.fresh.take_if(|fresh| {
            let patience = if fresh.accepted { FRESH_AGE_MAX } else { CONNECT_TIMEOUT };
            now.since(fresh.since) >= patience
        });
        if let Some(Fresh { newest, .. }) = lost.filter(|fresh| !fresh.accepted) {
            let why = "its host does not answer a connection attempt".to_owned();
            let (addr, outcome) = (line.addr.clone(), Probed::Unreachable(why));
            wishes.push(Wish::Tell(Event::Probed { addr, seq: newest, outcome }));
        }
        let (conn, connect) = match (&line.main, &mut line.fresh) {
            (Some(main), _) if !fresh => (main.conn, false),
            // One that is being opened is as good as another.
            (_, Some(Fresh { newest, .. })) => {
                *newest = seq;
                return;
            }
            (_, None) => {
                self.next_conn += 1;
                let conn = self.next_conn;
                line.fresh = Some(Fresh { conn, newest: seq, since: now, accepted: false });
                (conn, true)
            }
        };
        let message = Message::Ask { conn, connect, seq, asked_at: now };
        wishes.push(Wish::Send { conn, message });
    }

    /// Writes the command that is on its way.
    fn write(&mut self, now: Time, server: usize, wishes: &mut Vec<Wish>) {
        let line = &mut self.lines[server];
        let (Some(busy), Some(main)) = (&mut line.busy, &line.main) else { return };
        if let Command::Promote { run_id: Some(run_id), .. } = &busy.order.command
            && main.run_id.as_ref() != Some(run_id)
        {
            let why = "it restarted after it was elected; it was not promoted";
            self.end(now, server, CommandResult::Refused(why.to_owned()), wishes);
            return;
        }
        busy.written = Some(now);
        let Order { id, command, epoch, .. } = busy.order.clone();
        let conn = main.conn;
        wishes.push(Wish::Send { conn, message: Message::Order { conn, id, command, epoch } });
    }

    /// Something arrives on the connection that carries the command.
    fn take_busy(&mut self, now: Time, server: usize, reply: Reply, wishes: &mut Vec<Wish>) {
        let line = &mut self.lines[server];
        let written = line.busy.as_ref().and_then(|busy| busy.written);
        match reply {
            Reply::Accepted { .. } => {}
            Reply::Refused { .. } => {
                line.main = None;
                let why = "its host refuses connections; the command was not sent";
                self.end(now, server, CommandResult::Refused(why.to_owned()), wishes);
            }
            Reply::Lost { .. } if written.is_some() => {
                let why = "the connection ended after the command was sent";
                self.end(now, server, CommandResult::Unknown(why.to_owned()), wishes);
            }
            Reply::Lost { conn } => {
                line.held.push(Reply::Lost { conn });
                let why = "the connection ended; the command was not sent";
                self.end(now, server, CommandResult::Refused(why.to_owned()), wishes);
            }
            Reply::Answer { seq, health, facts, .. } => {
                let facts = said(&health, facts);
                if let Some(main) = &mut line.main {
                    main.last_reply = Some(now);
                    main.learn(facts.as_deref());
                }
                wishes.push(replied(&line.addr, seq, health, facts));
                if seq == WARMING && written.is_none() {
                    self.write(now, server, wishes);
                }
            }
            Reply::Done { id, done, unwritten, .. } => {
                if let Some(main) = &mut line.main {
                    main.last_reply = Some(now);
                }
                if line.busy.as_ref().is_some_and(|busy| busy.order.id == id) {
                    let result = match done {
                        Ok(mut facts) => {
                            facts.asked_at = written.unwrap_or(now);
                            let why = "CONFIG REWRITE failed: it has no configuration file";
                            let warnings = unwritten.then(|| why.to_owned()).into_iter().collect();
                            CommandResult::Done { facts, warnings }
                        }
                        Err(why) => CommandResult::Refused(why.to_owned()),
                    };
                    self.end(now, server, result, wishes);
                }
            }
        }
    }

    /// Something arrives while no command is on its way.
    fn take(&mut self, now: Time, server: usize, reply: Reply, wishes: &mut Vec<Wish>) {
        let line = &mut self.lines[server];
        let conn = reply.conn();
        let addr = line.addr.clone();
        let told = |seq, outcome| Wish::Tell(Event::Probed { addr: addr.clone(), seq, outcome });
        if let Some(main) = line.main.as_mut().filter(|main| main.conn == conn) {
            match reply {
                Reply::Answer { seq, health, facts, .. } => {
                    main.last_reply = Some(now);
                    line.fresh = None;
                    let facts = said(&health, facts);
                    if lets_us_in(&health) {
                        main.learn(facts.as_deref());
                    } else {
                        line.main = None;
                    }
                    wishes.push(replied(&line.addr, seq, health, facts));
                }
                Reply::Lost { .. } | Reply::Refused { .. } => {
                    line.main = None;
                    wishes.push(Wish::Tell(Event::Ended { addr: line.addr.clone() }));
                }
                Reply::Accepted { .. } | Reply::Done { .. } => {}
            }
            return;
        }
        let Some(fresh) = line.fresh.as_mut().filter(|fresh| fresh.conn == conn) else { return };
        let newest = fresh.newest;
        match reply {
            Reply::Accepted { .. } => {
                fresh.accepted = true;
                wishes.push(Wish::Tell(Event::Accepted { addr: line.addr.clone() }));
            }
            Reply::Refused { .. } => {
                line.fresh = None;
                let outcome = match line.main {
                    Some(_) => Probed::Unreachable("the old connection has not ended".to_owned()),
                    None => Probed::Refused,
                };
                wishes.push(told(newest, outcome));
            }
            Reply::Lost { .. } => {
                line.fresh = None;
                wishes.push(told(newest, Probed::Ended));
            }
            Reply::Answer { health, facts, .. } => {
                line.fresh = None;
                let facts = said(&health, facts);
                let mut main = Main { conn, last_reply: Some(now), run_id: None };
                main.learn(facts.as_deref());
                line.main = lets_us_in(&health).then_some(main);
                wishes.push(replied(&line.addr, newest, health, facts));
            }
            Reply::Done { .. } => {}
        }
    }

    /// The command on its way ended; what was held meanwhile is taken.
    fn end(&mut self, now: Time, server: usize, result: CommandResult, wishes: &mut Vec<Wish>) {
        let line = &mut self.lines[server];
        let Some(busy) = line.busy.take() else { return };
        if matches!(result, CommandResult::Unknown(_)) {
            // Replies that come late would be taken for those to newer questions.
            wishes.extend(line.main.take().map(|main| Wish::Abort(main.conn)));
        }
        let id = busy.order.id;
        wishes.push(match busy.order.by {
            Some((to, life)) => Wish::Answer { to, life, id, result },
            None => Wish::Tell(Event::Commanded { group: self.group.clone(), id, result }),
        });
        for reply in std::mem::take(&mut self.lines[server].held) {
            self.take(now, server, reply, wishes);
        }
    }
}

/// One that is busy, or lets nobody in, says nothing of itself.
fn said(health: &Health, facts: Box<Facts>) -> Option<Box<Facts>> {
    let wordless = matches!(health, Health::Busy(_) | Health::Auth(_));
    (!wordless).then_some(facts)
}

/// A login holds for a connection: one that failed is tried again on another.
fn lets_us_in(health: &Health) -> bool {
    !matches!(health, Health::Auth(_))
}

fn replied(addr: &Addr, seq: ProbeSeq, health: Health, facts: Option<Box<Facts>>) -> Wish {
    let outcome = Probed::Replied { health, facts, socket: Some(addr.clone()) };
    Wish::Tell(Event::Probed { addr: addr.clone(), seq, outcome })
}
