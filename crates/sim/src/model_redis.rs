//! A model of one Redis server: what matters to a failover and nothing else.
//!
//! It has a role, a history of writes (replication id, second id, offset), asynchronous replication with partial and
//! full resyncs, and it can be running, hung or dead. A hung one accepts connections and executes everything that was
//! sent to it when it wakes up. It knows no time of its own and sends nothing itself: what it wants sent comes out as
//! effects, which the world delivers.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use failover_core::action::Command;
use failover_core::addr::Addr;
use failover_core::time::Time;

mod look;
mod message;

pub(crate) use message::{Effect, Message, Piece, Reply};

/// A number that a client wrote.
pub type Value = u64;
/// Names one connection between the node and a server.
pub(crate) type Conn = u64;

/// What one write adds to the offset.
const WRITE_BYTES: u64 = 100;
/// What the master's keepalive adds to the offset.
const PING_BYTES: u64 = 14;
/// How many turns of the cron lie between two keepalives (`repl-ping-replica-period`).
const PING_TURNS: u32 = 10;
/// After this much silence a link is given up (`repl-timeout`).
const LINK_TIMEOUT: Duration = Duration::from_secs(60);

/// What the process of a server is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Running {
    /// It serves.
    Up,
    /// It is stopped: its host accepts connections for it, nothing is executed.
    Hung,
    /// There is no process: its host refuses connections.
    Dead,
}

/// The role of a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// It takes writes.
    Master,
    /// It follows the server with this index.
    Replica(usize),
}

/// A replica's link to its master.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum LinkState {
    /// There is none; the next turn of the cron tries again.
    Down,
    /// It asked for the stream and has no answer yet.
    Asking { since: Time },
    /// A full copy is on its way.
    Syncing,
    /// It gets the stream.
    Up { last_io: Time },
}

/// A write that a server has, and since when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kept {
    /// The write.
    pub value: Value,
    /// When it arrived here.
    pub at: Time,
}

/// One server.
#[derive(Debug)]
pub struct Server {
    index: usize,
    addrs: Vec<Addr>,
    running: Running,
    /// Since when it runs and is not stopped, or since when it is not.
    since: Time,
    /// Counts its processes.
    life: u32,
    run_id: u64,
    part: Part,
    link: LinkState,
    link_id: u64,
    down_since: Option<Time>,
    /// It finished a sync since it was started, or since it was a master.
    synced: bool,
    /// It may ask for a continuation; not after a full copy was cut off.
    cached: bool,
    replid: u64,
    replid2: Option<(u64, u64)>,
    offset: u64,
    data: Vec<Kept>,
    backlog: Vec<Piece>,
    backlog_from: u64,
    attached: BTreeMap<usize, u64>,
    priority: u32,
    conns: BTreeSet<Conn>,
    inbox: VecDeque<Message>,
    turns: u32,
}

impl Server {
    pub(crate) fn new(index: usize, addrs: &[Addr], priority: u32, now: Time, id: u64) -> Self {
        Self {
            index,
            addrs: addrs.to_vec(),
            running: Running::Up,
            since: now,
            life: 0,
            run_id: id,
            part: if index == 0 { Part::Master } else { Part::Replica(0) },
            link: LinkState::Down,
            link_id: 0,
            down_since: None,
            synced: false,
            cached: false,
            replid: id,
            replid2: None,
            offset: 0,
            data: Vec::new(),
            backlog: Vec::new(),
            backlog_from: 0,
            attached: BTreeMap::new(),
            priority,
            conns: BTreeSet::new(),
            inbox: VecDeque::new(),
            turns: 0,
        }
    }

    /// Something arrives.
    pub(crate) fn receive(
        &mut self,
        now: Time,
        message: Message,
        fresh_id: u64,
        out: &mut Vec<Effect>,
    ) {
        match self.running {
            Running::Dead => refuse(&message, out),
            Running::Hung => {
                self.accept(&message, out);
                self.inbox.push_back(message);
            }
            Running::Up => {
                self.accept(&message, out);
                self.execute(now, message, fresh_id, out);
            }
        }
    }

    /// The host's part: connections are accepted whether the server runs or hangs.
    fn accept(&mut self, message: &Message, out: &mut Vec<Effect>) {
        if let Message::Ask { conn, connect: true, .. } = message {
            self.conns.insert(*conn);
            out.push(Effect::Reply(Reply::Accepted { conn: *conn }));
        }
    }

    fn execute(&mut self, now: Time, message: Message, fresh_id: u64, out: &mut Vec<Effect>) {
        match message {
            Message::Ask { conn, seq, asked_at, .. } => {
                if self.conns.contains(&conn) {
                    let facts = Box::new(self.facts(now, asked_at));
                    out.push(Effect::Reply(Reply::Answer { conn, seq, facts }));
                }
            }
            Message::Order { conn, id, command, epoch, .. } => {
                if self.conns.contains(&conn) {
                    self.obey(now, &command, epoch, fresh_id, out);
                    let facts = Box::new(self.facts(now, now));
                    out.push(Effect::Reply(Reply::Done { conn, id, facts }));
                }
            }
            Message::Write { value } => {
                if self.part == Part::Master {
                    let end = self.offset + WRITE_BYTES;
                    self.append(now, Piece { end, value: Some(value) }, out);
                    out.push(Effect::Acknowledge { value });
                }
            }
            Message::Psync { from, link, replid, offset, cached } => {
                self.serve(from, link, (replid, offset, cached), out);
            }
            Message::Detach { from, link } => {
                if self.attached.get(&from) == Some(&link) {
                    self.attached.remove(&from);
                }
            }
            Message::Continue { link, replid } if link == self.link_id => {
                if replid != self.replid {
                    self.replid2 = Some((self.replid, self.offset));
                    self.replid = replid;
                    self.drop_replicas(out);
                }
                self.established(now);
            }
            Message::FullSync { link } if link == self.link_id => self.link = LinkState::Syncing,
            Message::Snapshot { link, replid, offset, data } if link == self.link_id => {
                self.replid = replid;
                self.replid2 = None;
                self.offset = offset;
                self.data = data.into_iter().map(|kept| Kept { at: now, ..kept }).collect();
                self.backlog.clear();
                self.backlog_from = offset;
                self.drop_replicas(out);
                self.established(now);
            }
            Message::Rejected { link } if link == self.link_id => self.link = LinkState::Down,
            Message::Stream { link, piece } if link == self.link_id => {
                if let LinkState::Up { last_io } = &mut self.link {
                    *last_io = now;
                    self.append(now, piece, out);
                }
            }
            Message::LinkLost { link } if link == self.link_id => {
                self.lose_link(now);
                self.connect(now, out);
            }
            // These are of a connection that was replaced meanwhile.
            Message::Continue { .. }
            | Message::FullSync { .. }
            | Message::Snapshot { .. }
            | Message::Rejected { .. }
            | Message::Stream { .. }
            | Message::LinkLost { .. } => {}
        }
    }

    /// Somebody types a command.
    pub(crate) fn by_hand(
        &mut self,
        now: Time,
        command: &Command,
        fresh_id: u64,
        out: &mut Vec<Effect>,
    ) {
        self.obey(now, command, 0, fresh_id, out);
    }

    /// What a server does once a second by itself.
    pub(crate) fn cron(&mut self, now: Time, out: &mut Vec<Effect>) {
        if self.running != Running::Up {
            return;
        }
        self.turns += 1;
        match (self.part, self.link) {
            (Part::Master, _) => {
                if self.turns.is_multiple_of(PING_TURNS) && !self.attached.is_empty() {
                    let end = self.offset + PING_BYTES;
                    self.append(now, Piece { end, value: None }, out);
                }
            }
            (Part::Replica(_), LinkState::Down) => self.connect(now, out),
            (Part::Replica(_), LinkState::Asking { since }) => {
                if now.since(since) > LINK_TIMEOUT {
                    self.link = LinkState::Down;
                }
            }
            (Part::Replica(_), LinkState::Up { last_io }) => {
                if now.since(last_io) > LINK_TIMEOUT {
                    self.lose_link(now);
                    self.connect(now, out);
                }
            }
            (Part::Replica(_), LinkState::Syncing) => {}
        }
    }

    /// The process dies; its data is on its disk.
    pub(crate) fn kill(&mut self, now: Time, out: &mut Vec<Effect>) {
        self.leave_master(out);
        self.drop_replicas(out);
        for conn in std::mem::take(&mut self.conns) {
            out.push(Effect::Reply(Reply::Lost { conn }));
        }
        self.inbox.clear();
        self.running = Running::Dead;
        self.since = now;
    }

    /// The process is stopped.
    pub(crate) fn hang(&mut self, now: Time) {
        self.running = Running::Hung;
        self.since = now;
    }

    /// The process goes on: everything that was sent meanwhile is executed.
    pub(crate) fn wake(
        &mut self,
        now: Time,
        mut fresh_id: impl FnMut() -> u64,
        out: &mut Vec<Effect>,
    ) {
        self.running = Running::Up;
        self.since = now;
        for message in std::mem::take(&mut self.inbox) {
            self.execute(now, message, fresh_id(), out);
        }
    }

    /// A new process starts, with the role in its configuration file. A history does not outlive its process.
    pub(crate) fn start(&mut self, now: Time, empty: bool, id: u64, out: &mut Vec<Effect>) {
        self.running = Running::Up;
        self.since = now;
        self.life += 1;
        self.run_id = id;
        self.replid = id;
        self.replid2 = None;
        self.offset = 0;
        self.backlog.clear();
        self.backlog_from = 0;
        self.synced = false;
        self.cached = false;
        self.link = LinkState::Down;
        self.down_since = None;
        self.turns = 0;
        if empty {
            self.data.clear();
        }
        self.connect(now, out);
    }

    fn obey(
        &mut self,
        now: Time,
        command: &Command,
        epoch: u64,
        fresh_id: u64,
        out: &mut Vec<Effect>,
    ) {
        match command {
            Command::Promote { .. } => {
                if self.part == Part::Master {
                    return;
                }
                self.leave_master(out);
                self.drop_replicas(out);
                self.part = Part::Master;
                self.link = LinkState::Down;
                self.down_since = None;
                self.synced = false;
                self.replid2 = Some((self.replid, self.offset));
                self.replid = fresh_id;
                out.push(Effect::Promoted { epoch });
            }
            // Nobody asks for a switchover in this world yet, so that nobody has to wait for a pause.
            Command::Pause { .. } | Command::Unpause => {}
            // Nor is a group fenced here.
            Command::Fence { .. } => {}
            Command::Follow { master, .. } | Command::Demote { master, .. } => {
                let Some(of) = self.addrs.iter().position(|addr| addr == master) else { return };
                if self.part == Part::Replica(of) || of == self.index {
                    return;
                }
                if self.part == Part::Master {
                    self.drop_replicas(out);
                    self.cached = true;
                } else {
                    self.leave_master(out);
                    self.lose_link(now);
                }
                self.part = Part::Replica(of);
                self.connect(now, out);
            }
        }
    }

    /// A replica asks for the stream.
    fn serve(
        &mut self,
        from: usize,
        link: u64,
        (replid, offset, cached): (u64, u64, bool),
        out: &mut Vec<Effect>,
    ) {
        if self.part != Part::Master && !self.link_up() {
            // -NOMASTERLINK
            out.push(Effect::Send { to: from, message: Message::Rejected { link } });
            return;
        }
        self.attached.insert(from, link);
        let known = replid == self.replid
            || self.replid2.is_some_and(|(id, valid)| replid == id && offset <= valid);
        if cached && known && (self.backlog_from..=self.offset).contains(&offset) {
            let message = Message::Continue { link, replid: self.replid };
            out.push(Effect::Send { to: from, message });
            let from_piece = self.backlog.partition_point(|piece| piece.end <= offset);
            for piece in &self.backlog[from_piece..] {
                let message = Message::Stream { link, piece: *piece };
                out.push(Effect::Send { to: from, message });
            }
            return;
        }
        out.push(Effect::Send { to: from, message: Message::FullSync { link } });
        let message = Message::Snapshot {
            link,
            replid: self.replid,
            offset: self.offset,
            data: self.data.clone(),
        };
        out.push(Effect::Send { to: from, message });
    }

    fn append(&mut self, now: Time, piece: Piece, out: &mut Vec<Effect>) {
        self.offset = piece.end;
        self.backlog.push(piece);
        if let Some(value) = piece.value {
            self.data.push(Kept { value, at: now });
        }
        for (to, link) in &self.attached {
            let message = Message::Stream { link: *link, piece };
            out.push(Effect::Send { to: *to, message });
        }
    }

    fn connect(&mut self, now: Time, out: &mut Vec<Effect>) {
        let Part::Replica(of) = self.part else { return };
        self.link_id += 1;
        self.link = LinkState::Asking { since: now };
        let message = Message::Psync {
            from: self.index,
            link: self.link_id,
            replid: self.replid,
            offset: self.offset,
            cached: self.cached,
        };
        out.push(Effect::Send { to: of, message });
    }

    fn established(&mut self, now: Time) {
        self.link = LinkState::Up { last_io: now };
        self.down_since = None;
        self.synced = true;
        self.cached = true;
    }

    fn lose_link(&mut self, now: Time) {
        match self.link {
            LinkState::Up { .. } => self.down_since = Some(now),
            // What was asked for is forgotten, so the next attempt is a full copy again.
            LinkState::Syncing => self.cached = false,
            LinkState::Down | LinkState::Asking { .. } => {}
        }
        self.link = LinkState::Down;
    }

    /// Ends its own connection to its master.
    fn leave_master(&mut self, out: &mut Vec<Effect>) {
        if let Part::Replica(of) = self.part {
            let message = Message::Detach { from: self.index, link: self.link_id };
            out.push(Effect::Send { to: of, message });
        }
        // Whatever still arrives on the old connection is not for the new one, nor for a master.
        self.link_id += 1;
        if self.link == LinkState::Syncing {
            self.cached = false;
        }
    }

    /// Ends the connections of its replicas.
    fn drop_replicas(&mut self, out: &mut Vec<Effect>) {
        for (to, link) in std::mem::take(&mut self.attached) {
            out.push(Effect::Send { to, message: Message::LinkLost { link } });
        }
    }
}

/// The answer of a host on which no process listens.
fn refuse(message: &Message, out: &mut Vec<Effect>) {
    match message {
        Message::Ask { conn, connect: true, .. } => {
            out.push(Effect::Reply(Reply::Refused { conn: *conn }));
        }
        Message::Psync { from, link, .. } => {
            out.push(Effect::Send { to: *from, message: Message::Rejected { link: *link } });
        }
        Message::Ask { .. }
        | Message::Order { .. }
        | Message::Write { .. }
        | Message::Detach { .. }
        | Message::Continue { .. }
        | Message::FullSync { .. }
        | Message::Snapshot { .. }
        | Message::Rejected { .. }
        | Message::Stream { .. }
        | Message::LinkLost { .. } => {}
    }
}
