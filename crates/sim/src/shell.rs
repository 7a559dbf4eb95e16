//! A model of the shell around the core: its connections to the servers, and how their ends become events.
//!
//! It keeps one connection per server, opens another when the core wants a fresh one, sends commands on the first, and
//! answers each action exactly as the contract of the core says. It can be made to do something wrong on purpose, to
//! show that the invariants notice.

use std::collections::BTreeMap;

use failover_core::action::Command;
use failover_core::addr::Addr;
use failover_core::event::{CommandId, CommandResult, Event, Health, ProbeSeq, Probed};
use failover_core::fleet::Fleet;
use failover_core::node::GroupName;
use failover_core::time::Time;

use crate::model_redis::{Conn, Message, Reply};

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
    /// It answers each question as if the core had asked ten.
    RepeatProbes,
}

/// One connection.
#[derive(Debug)]
struct Connection {
    server: usize,
    /// It gave a valid reply.
    replied: bool,
    waiting: Vec<ProbeSeq>,
    commands: Vec<CommandId>,
}

/// The node's side of the wires.
#[derive(Debug)]
pub(crate) struct Shell {
    /// What is under test.
    pub(crate) fleet: Fleet,
    group: GroupName,
    addrs: Vec<Addr>,
    main: Vec<Option<Conn>>,
    connections: BTreeMap<Conn, Connection>,
    next_conn: Conn,
    /// Commands without an end so far; each ends once.
    open: BTreeMap<CommandId, usize>,
}

impl Shell {
    pub(crate) fn new(fleet: Fleet, group: GroupName, addrs: Vec<Addr>) -> Self {
        Self {
            fleet,
            group,
            main: vec![None; addrs.len()],
            addrs,
            connections: BTreeMap::new(),
            next_conn: 0,
            open: BTreeMap::new(),
        }
    }

    /// A question to a server, on the connection that is there or on a fresh one.
    pub(crate) fn ask(
        &mut self,
        now: Time,
        server: usize,
        seq: ProbeSeq,
        fresh: bool,
    ) -> (Conn, Message) {
        let (conn, connect) = self.connection(server, fresh);
        if let Some(connection) = self.connections.get_mut(&conn) {
            connection.waiting.push(seq);
        }
        (conn, Message::Ask { conn, connect, seq, asked_at: now })
    }

    /// A command to a server.
    pub(crate) fn order(
        &mut self,
        server: usize,
        id: CommandId,
        command: Command,
        epoch: u64,
    ) -> (Conn, Message) {
        let (conn, connect) = self.connection(server, false);
        if let Some(connection) = self.connections.get_mut(&conn) {
            connection.commands.push(id);
        }
        self.open.insert(id, server);
        (conn, Message::Order { conn, connect, id, command, epoch })
    }

    /// Closes all connections to a server.
    pub(crate) fn forget(&mut self, server: usize) {
        self.connections.retain(|_, connection| connection.server != server);
        self.main[server] = None;
    }

    /// A command's deadline passed.
    pub(crate) fn overdue(&mut self, id: CommandId) -> Option<Event> {
        self.end(id, CommandResult::Unknown("no reply came in time".to_owned()))
    }

    /// What the core is to be told when this arrives.
    pub(crate) fn hear(&mut self, reply: Reply) -> Vec<Event> {
        match reply {
            Reply::Accepted { conn } => self
                .connections
                .get(&conn)
                .map(|connection| Event::Accepted { addr: self.addrs[connection.server].clone() })
                .into_iter()
                .collect(),
            Reply::Refused { conn } => self.close(conn, &Probed::Refused, || {
                CommandResult::Refused("the connection was refused".to_owned())
            }),
            Reply::Lost { conn } => {
                let replied = self.connections.get(&conn).filter(|connection| connection.replied);
                let Some(connection) = replied else {
                    return self.close(conn, &Probed::Ended, connection_ended);
                };
                let ended = Event::Ended { addr: self.addrs[connection.server].clone() };
                if let Some(connection) = self.connections.get_mut(&conn) {
                    connection.waiting.clear();
                }
                let mut events = vec![ended];
                events.extend(self.close(conn, &Probed::Ended, connection_ended));
                events
            }
            Reply::Answer { conn, seq, facts } => {
                let Some(connection) = self.connections.get_mut(&conn) else { return Vec::new() };
                connection.replied = true;
                connection.waiting.retain(|waiting| *waiting != seq);
                let server = connection.server;
                if *self.main[server].get_or_insert(conn) != conn {
                    // It served its purpose; the one that was there before goes on.
                    self.connections.remove(&conn);
                }
                let addr = self.addrs[server].clone();
                let outcome = Probed::Replied {
                    health: Health::Fine,
                    facts: Some(facts),
                    socket: Some(addr.clone()),
                };
                vec![Event::Probed { addr, seq, outcome }]
            }
            Reply::Done { conn, id, facts } => {
                if let Some(connection) = self.connections.get_mut(&conn) {
                    connection.commands.retain(|command| *command != id);
                }
                let done = CommandResult::Done { facts, warnings: Vec::new() };
                self.end(id, done).into_iter().collect()
            }
        }
    }

    fn connection(&mut self, server: usize, fresh: bool) -> (Conn, bool) {
        if let Some(conn) = self.main[server].filter(|_| !fresh) {
            return (conn, false);
        }
        self.next_conn += 1;
        let conn = self.next_conn;
        let connection =
            Connection { server, replied: false, waiting: Vec::new(), commands: Vec::new() };
        self.connections.insert(conn, connection);
        if !fresh {
            self.main[server] = Some(conn);
        }
        (conn, true)
    }

    fn close(
        &mut self,
        conn: Conn,
        outcome: &Probed,
        result: impl Fn() -> CommandResult,
    ) -> Vec<Event> {
        let Some(connection) = self.connections.remove(&conn) else { return Vec::new() };
        let server = connection.server;
        if self.main[server] == Some(conn) {
            self.main[server] = None;
        }
        let addr = &self.addrs[server];
        let mut events: Vec<Event> = connection
            .waiting
            .iter()
            .map(|seq| Event::Probed { addr: addr.clone(), seq: *seq, outcome: outcome.clone() })
            .collect();
        for id in connection.commands {
            events.extend(self.end(id, result()));
        }
        events
    }

    fn end(&mut self, id: CommandId, result: CommandResult) -> Option<Event> {
        self.open.remove(&id)?;
        Some(Event::Commanded { group: self.group.clone(), id, result })
    }
}

fn connection_ended() -> CommandResult {
    CommandResult::Unknown("the connection ended before the reply".to_owned())
}
