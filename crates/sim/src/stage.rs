//! Model servers alone, with nothing random about them: a stage on which one thing is done after another.
//!
//! A test plays the same script here and with real servers, and compares what they say of themselves.

use std::collections::BTreeMap;
use std::time::Duration;

use failover_core::action::Command;
use failover_core::addr::Addr;
use failover_core::event::Health;
use failover_core::instance::Facts;
use failover_core::time::Time;

use crate::model_redis::{
    Conn, Denial, Disk, Effect, Message, Part, Reply, Running, Server, Settings, Value,
};

/// What every message takes.
const WAY: Duration = Duration::from_millis(1);
/// What a copy takes of a server that is quick.
const COPY: Duration = Duration::from_millis(20);
/// How often a server does what it does by itself.
const TURN: Duration = Duration::from_secs(1);

/// What became of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Nobody answered yet.
    Pending,
    /// It is done.
    Acknowledged,
    /// It is not.
    Denied(Denial),
}

/// Something that will happen to a server.
#[derive(Debug)]
enum Next {
    Message(Message),
    Turn { life: u32 },
}

/// Servers that are all masters in the beginning, and know nothing of each other.
#[derive(Debug)]
pub struct Stage {
    now: Time,
    servers: Vec<Server>,
    next: BTreeMap<(Time, u64), (usize, Next)>,
    counted: u64,
    copies_take: Vec<Duration>,
    fates: Vec<Fate>,
    done: Option<Result<(), &'static str>>,
}

impl Stage {
    /// With a server behind each address.
    pub fn new(addrs: &[Addr], settings: Settings) -> Self {
        let mut stage = Self {
            now: Time::from_millis(1_000_000),
            servers: Vec::new(),
            next: BTreeMap::new(),
            counted: 0,
            copies_take: vec![COPY; addrs.len()],
            fates: Vec::new(),
            done: None,
        };
        for index in 0..addrs.len() {
            let id = stage.count();
            let server = Server::new(index, addrs, Part::Master, settings, stage.now, id);
            stage.servers.push(server);
            stage.plan(index, TURN, Next::Turn { life: 0 });
        }
        stage
    }

    /// One server.
    pub fn server(&self, index: usize) -> &Server {
        &self.servers[index]
    }

    /// Where the servers are.
    pub fn addrs(&self) -> Vec<Addr> {
        self.servers.iter().map(|server| server.addr().clone()).collect()
    }

    /// What it thinks of itself and what it reports; `None` when it does not run.
    pub fn reading(&self, index: usize) -> Option<(Health, Facts)> {
        let server = &self.servers[index];
        if server.running() != Running::Up {
            return None;
        }
        let mut facts = server.facts(self.now, self.now);
        facts.keys = u64::try_from(server.data().len()).ok();
        Some((server.health(), facts))
    }

    /// What became of every write so far.
    pub fn fates(&self) -> &[Fate] {
        &self.fates
    }

    /// Lets time pass.
    pub fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some(entry) = self.next.first_entry() {
            if entry.key().0 > end {
                break;
            }
            let ((at, _), (index, next)) = entry.remove_entry();
            self.now = at;
            match next {
                Next::Message(message) => self.reach(index, message),
                Next::Turn { life } => {
                    if self.servers[index].life() == life {
                        self.with(index, |server, now, out| server.cron(now, out));
                        self.plan(index, TURN, Next::Turn { life });
                    }
                }
            }
        }
        self.now = end;
    }

    /// `kill -9`.
    pub fn kill(&mut self, index: usize) {
        self.with(index, |server, now, out| server.kill(now, out));
    }

    /// SIGSTOP.
    pub fn hang(&mut self, index: usize) {
        self.servers[index].hang(self.now);
    }

    /// SIGCONT.
    pub fn wake(&mut self, index: usize) {
        let first = self.counted;
        // More ids than it can need.
        self.counted += 1_000;
        let mut ids = first..;
        self.with(index, |server, now, out| {
            server.wake(now, || ids.next().unwrap_or(u64::MAX), out);
        });
    }

    /// A new process, which reads its data for so long.
    pub fn start(&mut self, index: usize, disk: Disk, loads_for: Duration) {
        let id = self.count();
        self.with(index, |server, now, out| server.start(now, disk, loads_for, id, out));
        let life = self.servers[index].life();
        self.plan(index, TURN, Next::Turn { life });
    }

    /// `SAVE`.
    pub fn save(&mut self, index: usize) {
        self.servers[index].save();
    }

    /// Its disk is full, or has room again.
    pub fn set_misconfigured(&mut self, index: usize, misconfigured: bool) {
        self.servers[index].set_misconfigured(misconfigured);
    }

    /// `CONFIG SET replica-priority`.
    pub fn set_priority(&mut self, index: usize, priority: u32) {
        self.servers[index].set_priority(priority);
    }

    /// What its copies for replicas take from now on.
    pub fn slow_copies(&mut self, index: usize, take: Duration) {
        self.copies_take[index] = take;
    }

    /// It has read its data now.
    pub fn load(&mut self, index: usize) {
        let is_it = |entry: &&(usize, Next)| {
            entry.0 == index && matches!(entry.1, Next::Message(Message::Loaded { .. }))
        };
        let found = self.next.iter().find(|(_, entry)| is_it(entry)).map(|(key, _)| *key);
        if let Some((_, Next::Message(message))) = found.and_then(|key| self.next.remove(&key)) {
            self.reach(index, message);
        }
    }

    /// A client writes.
    pub fn write(&mut self, index: usize) {
        let value = Value::try_from(self.fates.len()).unwrap_or(Value::MAX);
        self.fates.push(Fate::Pending);
        self.reach(index, Message::Write { value });
    }

    /// The program changes it. Returns how that ended, or `None` when no answer came yet.
    pub fn order(&mut self, index: usize, command: &Command) -> Option<Result<(), &'static str>> {
        let conn: Conn = self.count();
        let asked_at = self.now;
        self.reach(index, Message::Ask { conn, connect: true, seq: 0, asked_at });
        self.done = None;
        let command = command.clone();
        self.reach(index, Message::Order { conn, id: conn, command, epoch: 0 });
        self.done.take()
    }

    fn reach(&mut self, index: usize, message: Message) {
        let id = self.count();
        self.with(index, |server, now, out| server.receive(now, message, id, out));
    }

    fn with(&mut self, index: usize, act: impl FnOnce(&mut Server, Time, &mut Vec<Effect>)) {
        let mut out = Vec::new();
        act(&mut self.servers[index], self.now, &mut out);
        for effect in out {
            match effect {
                Effect::Send { to, message } => self.plan(to, WAY, Next::Message(message)),
                Effect::Copy { to, link } => {
                    let message = Message::Copied { to, link };
                    self.plan(index, self.copies_take[index], Next::Message(message));
                }
                Effect::Remind { after, message } => {
                    self.plan(index, after, Next::Message(message));
                }
                Effect::Reply(Reply::Done { done, .. }) => self.done = Some(done.map(|_| ())),
                Effect::Acknowledge { value } => self.settle(value, Fate::Acknowledged),
                Effect::Deny { value, why } => self.settle(value, Fate::Denied(why)),
                Effect::Reply(
                    Reply::Refused { .. }
                    | Reply::Accepted { .. }
                    | Reply::Answer { .. }
                    | Reply::Lost { .. },
                )
                | Effect::Died
                | Effect::Serves
                | Effect::Promoted { .. } => {}
            }
        }
    }

    fn settle(&mut self, value: Value, fate: Fate) {
        let slot = usize::try_from(value).ok().and_then(|index| self.fates.get_mut(index));
        if let Some(slot) = slot {
            *slot = fate;
        }
    }

    fn plan(&mut self, index: usize, after: Duration, next: Next) {
        let seq = self.count();
        self.next.insert((self.now + after, seq), (index, next));
    }

    fn count(&mut self) -> u64 {
        self.counted += 1;
        self.counted
    }
}
