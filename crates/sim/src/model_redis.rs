//! A model of one Redis server: what matters to a failover and nothing else.
//!
//! It has a role, a history of writes (replication id, second id, offset), asynchronous replication with partial and
//! full resyncs, and it can be running, hung or dead. A hung one accepts connections and executes everything that was
//! sent to it when it wakes up. It knows no time of its own and sends nothing itself: what it wants sent comes out as
//! effects, which the world delivers.
//!
//! - `replication`: masters that feed, replicas that follow
//! - `writes`: what becomes of a client's write
//! - `orders`: what the program changes
//! - `disk`: what outlives a process
//! - `look`: what is seen of it
//! - `ledisdb`: what is different where it is LedisDB
//!
//! How far it is like real servers is tested with them, in the crate that talks to both.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use failover_core::addr::Addr;
use failover_core::instance::{Flavor, MinReplicas};
use failover_core::time::Time;

mod disk;
mod ledisdb;
mod look;
mod message;
mod orders;
mod replication;
mod values;
mod wordless;
mod writes;

pub use disk::Disk;
pub use message::Denial;
pub(crate) use message::{Effect, Message, Piece, Reply};
use replication::{Feed, LinkState};
pub(crate) use values::Values;
pub(crate) use wordless::Wordless;

/// A number that a client wrote.
pub type Value = u64;
/// Names one connection between the node and a server.
pub(crate) type Conn = u64;

/// Most connections of nodes to one server: each has two, and a few that it gave up in a hang.
const CONNS_MAX: usize = 256;
/// One that answers so much later than it could is as good as one that does not answer.
const SLOW_FROM: Duration = Duration::from_millis(50);

/// What the process of a server is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Running {
    /// It serves, or reads its data.
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

/// A write that a server has, and since when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kept {
    /// The write.
    pub value: Value,
    /// When it arrived here.
    pub at: Time,
}

/// What a server is, and what is set in its configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Which kind of server it is; Valkey is like Redis here.
    pub flavor: Flavor,
    /// `replica-priority`.
    pub priority: u32,
    /// `repl-backlog-size`.
    pub backlog_bytes_max: u64,
    /// `repl-ping-replica-period`, in seconds.
    pub ping_period_secs: u32,
    /// What writes depend on.
    pub min_replicas: MinReplicas,
    /// It can write down what it was told, so that its next process knows it.
    pub rewrites: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            flavor: Flavor::Redis,
            priority: 100,
            backlog_bytes_max: 1024 * 1024,
            ping_period_secs: 10,
            min_replicas: MinReplicas { to_write: 0, max_lag_secs: 10 },
            rewrites: true,
        }
    }
}

/// One server.
#[derive(Debug)]
pub struct Server {
    index: usize,
    addrs: Vec<Addr>,
    settings: Settings,
    /// Since when its priority is this one.
    prioritised_at: Time,
    /// What its configuration file says.
    file: disk::File,
    running: Running,
    /// Since when it runs and is not stopped, or since when it is not.
    since: Time,
    /// It reads its data.
    loading: bool,
    /// It accepts no new connections.
    refusing: bool,
    /// It cannot save.
    misconfigured: bool,
    /// How much later than it could it answers.
    slow_by: Duration,
    /// What it says now, it says after this.
    says_at: Time,
    /// It has answers to give that are so late that nobody counts on them.
    slow: bool,
    /// Counts its processes.
    life: u32,
    run_id: u64,
    part: Part,
    link: LinkState,
    link_id: u64,
    down_since: Option<Time>,
    /// When its link was established last.
    linked_at: Time,
    /// It finished a sync since it was started, or since it was a master.
    synced: bool,
    /// It may ask for a continuation of the history that it is on.
    cached: bool,
    replid: u64,
    replid2: Option<(u64, u64)>,
    offset: u64,
    data: Vec<Kept>,
    saved: Option<disk::Saved>,
    /// What its process found on its disk, and when.
    began: (Disk, Time),
    /// A server without one, which nobody ever followed, counts nothing.
    backlog: Option<VecDeque<Piece>>,
    backlog_from: u64,
    attached: BTreeMap<usize, Feed>,
    /// Replicas that are good enough for the writes that depend on them, when they were counted last.
    good_replicas: u32,
    /// Why it says nothing of itself.
    wordless: Option<Wordless>,
    paused_until: Option<Time>,
    held: Vec<Value>,
    /// With the moment when each was told last how many keys there are.
    conns: BTreeMap<Conn, Time>,
    inbox: VecDeque<Message>,
    turns: u32,
    /// What only LedisDB has.
    own: ledisdb::Own,
}

impl Server {
    pub(crate) fn new(
        index: usize,
        addrs: &[Addr],
        part: Part,
        settings: Settings,
        now: Time,
        id: u64,
    ) -> Self {
        Self {
            index,
            addrs: addrs.to_vec(),
            settings,
            prioritised_at: now,
            file: disk::File { part, settings },
            running: Running::Up,
            since: now,
            loading: false,
            refusing: false,
            misconfigured: false,
            slow_by: Duration::ZERO,
            says_at: now,
            slow: false,
            life: 0,
            run_id: id,
            part,
            link: LinkState::Down,
            link_id: 0,
            down_since: None,
            linked_at: now,
            synced: false,
            cached: false,
            // What has no name for its history has the same as everybody here.
            replid: if settings.flavor == Flavor::Ledisdb { 0 } else { id },
            replid2: None,
            offset: 0,
            data: Vec::new(),
            saved: None,
            began: (Disk::Log, now),
            backlog: None,
            backlog_from: 0,
            attached: BTreeMap::new(),
            good_replicas: 0,
            wordless: None,
            paused_until: None,
            held: Vec::new(),
            conns: BTreeMap::new(),
            inbox: VecDeque::new(),
            turns: 0,
            own: ledisdb::Own::new(),
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
        if self.running == Running::Dead || self.refusing && connects(&message) {
            refuse(&message, out);
            return;
        }
        // The host's part: connections are accepted whether the server runs or hangs.
        if let Message::Ask { conn, connect: true, asked_at, .. } = &message {
            // Those that a node gave up while the server was hung are never heard of again.
            if self.conns.len() >= CONNS_MAX
                && let Some((&oldest, _)) = self.conns.iter().min_by_key(|(_, keys_at)| **keys_at)
            {
                self.conns.remove(&oldest);
            }
            self.conns.insert(*conn, *asked_at);
            out.push(Effect::Reply(Reply::Accepted { conn: *conn }));
        }
        if let Some(wordless) = self.wordless
            && self.excuse(now, wordless, &message, out)
        {
            return;
        }
        if self.running == Running::Hung {
            self.inbox.push_back(message);
        } else {
            self.execute(now, message, fresh_id, out);
        }
    }

    fn execute(&mut self, now: Time, message: Message, fresh_id: u64, out: &mut Vec<Effect>) {
        if let Some(message) = self.unless_locked(message) {
            self.act(now, message, fresh_id, out);
        }
        self.unlock(now, fresh_id, out);
    }

    fn act(&mut self, now: Time, message: Message, fresh_id: u64, out: &mut Vec<Effect>) {
        match message {
            Message::Ask { conn, connect, seq, asked_at } => {
                self.answer(now, conn, connect, (seq, asked_at), out);
            }
            Message::Order { conn, id, command, epoch } => {
                if self.conns.contains_key(&conn) && self.is_ledisdb() {
                    self.obey_and_report(now, &command, (conn, id), epoch, out);
                } else if self.conns.contains_key(&conn) {
                    let done = self.obey(now, &command, (conn, epoch, fresh_id), out);
                    let unwritten = done.is_ok() && self.leaves_unwritten(&command);
                    let done = done.map(|()| Box::new(self.facts(now, now)));
                    self.say(now, Reply::Done { conn, id, done, unwritten }, out);
                }
            }
            Message::Write { value } => self.write(now, value, out),
            Message::PauseOver => self.end_pause(now, out),
            Message::Loaded { life, disk } => {
                if life == self.life {
                    self.loaded(now, disk, out);
                }
            }
            Message::Say { life, reply } => {
                if life == self.life {
                    out.push(Effect::Reply(reply));
                }
            }
            Message::Quick { life } => {
                if life == self.life && self.slow && self.slow_by < SLOW_FROM {
                    let late = self.says_at.since(now);
                    if late < SLOW_FROM {
                        self.slow = false;
                        out.push(Effect::Serves);
                    } else {
                        // It was slower before it was quicker, and what it answers now comes after all of that.
                        out.push(Effect::Remind { after: late, message: Message::Quick { life } });
                    }
                }
            }
            Message::Psync { from, link, offset, cached, .. } if self.is_ledisdb() => {
                self.serve_log(now, (from, link), cached.then_some(offset), fresh_id, out);
            }
            Message::Psync { from, link, replid, offset, cached } => {
                self.serve(now, (from, link), cached.then_some((replid, offset)), fresh_id, out);
            }
            Message::Ack { from, link } => {
                if let Some(feed) = self.attached.get_mut(&from).filter(|feed| feed.link == link) {
                    feed.acked_at = now;
                }
            }
            Message::Detach { from, link } => {
                if self.attached.get(&from).is_some_and(|feed| feed.link == link) {
                    self.attached.remove(&from);
                    self.count_good_replicas(now);
                }
            }
            Message::Copied { to, link } => self.copied(now, to, link, out),
            Message::Continue { link, .. }
            | Message::FullSync { link }
            | Message::Snapshot { link, .. }
            | Message::Ahead { link }
            | Message::Again { link }
            | Message::Rejected { link }
            | Message::Stream { link, .. }
            | Message::LinkLost { link } => {
                // Others are of a connection that was replaced meanwhile.
                if link == self.link_id && self.is_ledisdb() {
                    self.hear_log(now, message, out);
                } else if link == self.link_id {
                    self.hear_master(now, message, out);
                }
            }
        }
    }

    /// Answers, as soon as it can.
    fn say(&mut self, now: Time, reply: Reply, out: &mut Vec<Effect>) {
        let at = self.says_at.max(now + self.slow_by);
        if at <= now {
            out.push(Effect::Reply(reply));
        } else {
            self.says_at = at;
            let message = Message::Say { life: self.life, reply };
            out.push(Effect::Remind { after: at.since(now), message });
        }
    }

    /// What a server does once a second by itself.
    pub(crate) fn cron(&mut self, now: Time, out: &mut Vec<Effect>) {
        if self.running != Running::Up || self.loading {
            return;
        }
        if self.is_ledisdb() {
            self.look_for_master(now, out);
            return;
        }
        self.turns += 1;
        self.drop_silent_replicas(now, out);
        self.count_good_replicas(now);
        match self.part {
            Part::Master => self.ping_replicas(now, out),
            Part::Replica(of) => self.look_after_link(now, of, out),
        }
    }

    /// The process dies; its data is on its disk.
    pub(crate) fn kill(&mut self, now: Time, out: &mut Vec<Effect>) {
        self.leave_master(out);
        self.drop_replicas(now, out);
        for conn in std::mem::take(&mut self.conns).into_keys() {
            out.push(Effect::Reply(Reply::Lost { conn }));
        }
        if self.is_ledisdb() {
            self.turn_away(out);
        }
        self.inbox.clear();
        self.wordless = None;
        self.paused_until = None;
        self.held.clear();
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
        if self.wordless == Some(Wordless::Busy) {
            self.wordless = None;
        }
        for message in std::mem::take(&mut self.inbox) {
            // It may end by what it reads.
            if self.running == Running::Up {
                self.execute(now, message, fresh_id(), out);
            }
        }
    }

    /// Whether it accepts new connections; those that stand are not touched.
    pub(crate) fn set_refusing(&mut self, refusing: bool) {
        self.refusing = refusing;
    }

    /// Whether it can save.
    pub(crate) fn set_misconfigured(&mut self, misconfigured: bool) {
        self.misconfigured = misconfigured;
    }

    /// How much later than it could it answers; what it answers late already comes before anything else.
    pub(crate) fn set_slow_by(&mut self, slow_by: Duration, out: &mut Vec<Effect>) {
        let before = std::mem::replace(&mut self.slow_by, slow_by);
        if slow_by >= SLOW_FROM {
            self.slow = true;
        } else if self.slow {
            out.push(Effect::Remind { after: before, message: Message::Quick { life: self.life } });
        }
    }

    /// Whether it may be promoted, and how gladly; whoever sets it writes it down.
    pub(crate) fn set_priority(&mut self, now: Time, priority: u32) {
        self.prioritised_at = now;
        self.settings.priority = priority;
        self.file.settings.priority = priority;
    }
}

/// Whether it is the first message of a connection.
fn connects(message: &Message) -> bool {
    matches!(message, Message::Ask { connect: true, .. } | Message::Psync { .. })
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
        | Message::Ack { .. }
        | Message::Detach { .. }
        | Message::Copied { .. }
        | Message::Loaded { .. }
        | Message::Quick { .. }
        | Message::Say { .. }
        | Message::PauseOver
        | Message::Continue { .. }
        | Message::FullSync { .. }
        | Message::Snapshot { .. }
        | Message::Ahead { .. }
        | Message::Again { .. }
        | Message::Rejected { .. }
        | Message::Stream { .. }
        | Message::LinkLost { .. } => {}
    }
}
