//! What is different about a model server that is LedisDB.
//!
//! It counts its writes and keeps them as a log, has no names for its process and for histories, and forgets its role when it
//! ends. A replica goes on from its own offset, whatever it holds; one that is ahead of its master asks in vain, without a
//! pause, until the master has more. `SLAVEOF … RESTART` drops everything, now and whenever the link is established anew. No
//! silence ends a link. While a replica connects, whoever asks for its role or changes it waits.

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use failover_core::action::{Command, Keep};
use failover_core::event::CommandId;
use failover_core::instance::{Facts, Flavor, Link, Role};
use failover_core::time::Time;

use super::replication::{Feed, LinkState};
use super::{Conn, Effect, Kept, Message, Part, Piece, Reply, Server};

/// After this pause a replica whose master could not be reached tries again.
const RETRY: Duration = Duration::from_secs(3);
/// A refused replica asks again at once. The model is kinder, so that a run has an end.
const ASTRAY_RETRY: Duration = Duration::from_millis(20);
/// Of so many moments there is one in which such a replica says that its link is down.
const FLICKER: u64 = 4;
/// One registration of a replica that comes again out of this many is lost, when its connection before is found to have ended.
const UNLISTED: u64 = 4;
const NO_FENCE: &str = "ledisdb 0.5 has no setting for how many replicas must acknowledge a write";
const LESS: &str = "it has less than when it was elected";
const BEYOND: &str = "it is beyond the place at which its new master began";

/// What only such a server has.
#[derive(Debug)]
pub(super) struct Own {
    /// As a master it refuses every write.
    pub(super) read_only: bool,
    /// It takes over a full copy whenever it finds its master.
    restart: bool,
    /// Its log begins behind this write: what was before came with a copy.
    log_from: u64,
    retry_at: Time,
    /// Who came as a replica already.
    known: BTreeSet<usize>,
    /// Who waits until it is connected.
    waiting: VecDeque<Waiting>,
    unlocked_at: Option<Time>,
}

impl Own {
    pub(super) fn new() -> Self {
        Self {
            read_only: false,
            restart: false,
            log_from: 0,
            retry_at: Time::ZERO,
            known: BTreeSet::new(),
            waiting: VecDeque::new(),
            unlocked_at: None,
        }
    }
}

#[derive(Debug)]
enum Waiting {
    /// A question or a command.
    For(Message),
    /// What it is after a command, and how far it was before it.
    Report { conn: Conn, id: CommandId, was: Option<u64> },
}

impl Server {
    /// Whether it is LedisDB.
    pub fn is_ledisdb(&self) -> bool {
        self.settings.flavor == Flavor::Ledisdb
    }

    /// Whether it is a master that does not refuse every write.
    pub fn takes_writes(&self) -> bool {
        self.part == Part::Master && !self.own.read_only
    }

    /// Whether it connects to its master, and nobody who asks what it is gets an answer before that one does.
    pub(crate) fn is_locked(&self) -> bool {
        let connects =
            matches!((self.part, self.link), (Part::Replica(_), LinkState::Asking { .. }));
        self.is_ledisdb() && connects
    }

    /// When it turned last to somebody who had waited.
    pub(crate) fn unlocked_at(&self) -> Option<Time> {
        self.own.unlocked_at
    }

    /// Keeps what has to wait until it is connected; anything else is given back.
    pub(super) fn unless_locked(&mut self, message: Message) -> Option<Message> {
        let waits = matches!(message, Message::Ask { .. } | Message::Order { .. });
        if !waits || !self.is_locked() {
            return Some(message);
        }
        self.own.waiting.push_back(Waiting::For(message));
        None
    }

    /// Turns to those who waited.
    pub(super) fn unlock(&mut self, now: Time, fresh_id: u64, out: &mut Vec<Effect>) {
        while !self.is_locked()
            && let Some(waiting) = self.own.waiting.pop_front()
        {
            self.own.unlocked_at = Some(now);
            match waiting {
                Waiting::For(message) => self.act(now, message, fresh_id, out),
                Waiting::Report { conn, id, was } => self.report(now, (conn, id), was, out),
            }
        }
    }

    /// Does what it is told, and says what it is then.
    pub(super) fn obey_and_report(
        &mut self,
        now: Time,
        command: &Command,
        (conn, id): (Conn, CommandId),
        epoch: u64,
        out: &mut Vec<Effect>,
    ) {
        match self.slaveof_as_told(now, command, epoch, out) {
            Err(why) => {
                self.say(now, Reply::Done { conn, id, done: Err(why), unwritten: false }, out);
            }
            Ok(was) if self.is_locked() => {
                self.own.waiting.push_front(Waiting::Report { conn, id, was });
            }
            Ok(was) => self.report(now, (conn, id), was, out),
        }
    }

    fn report(
        &mut self,
        now: Time,
        (conn, id): (Conn, CommandId),
        was: Option<u64>,
        out: &mut Vec<Effect>,
    ) {
        let facts = Facts { second_offset: was, ..self.facts(now, now) };
        let done = Ok(Box::new(facts));
        self.say(now, Reply::Done { conn, id, done, unwritten: false }, out);
    }

    /// Returns how far it was before, where it was asked.
    fn slaveof_as_told(
        &mut self,
        now: Time,
        command: &Command,
        epoch: u64,
        out: &mut Vec<Effect>,
    ) -> Result<Option<u64>, &'static str> {
        let was = self.offset;
        match command {
            Command::Promote { at_least: Some(least), .. } if was < *least => Err(LESS),
            Command::Promote { .. } => {
                let was = (self.part != Part::Master).then_some(was);
                let (is_new, synced) = (!self.takes_writes(), self.synced());
                self.slaveof_no_one(false, out);
                if is_new {
                    out.push(Effect::Promoted { epoch, synced });
                }
                Ok(was)
            }
            Command::Unpause => {
                self.slaveof_no_one(false, out);
                Ok(None)
            }
            Command::Pause { .. } | Command::Demote { .. } | Command::Part => {
                self.slaveof_no_one(true, out);
                Ok(None)
            }
            Command::Fence { .. } => Err(NO_FENCE),
            Command::Follow { master, keep, .. } => {
                let Some(of) = self.addrs.iter().position(|addr| addr == master) else {
                    return Ok(None);
                };
                match keep {
                    Keep::UpTo(at) if was > *at => return Err(BEYOND),
                    Keep::UpTo(_) if self.part == Part::Replica(of) => return Ok(None),
                    Keep::UpTo(_) | Keep::Nothing | Keep::Common => {}
                }
                self.slaveof(now, of, *keep == Keep::Nothing, out);
                Ok(Some(was))
            }
        }
    }

    /// Somebody types a change of its role.
    pub(super) fn slaveof_by_hand(&mut self, now: Time, command: &Command, out: &mut Vec<Effect>) {
        match command {
            Command::Promote { .. } => self.slaveof_no_one(false, out),
            Command::Follow { master, keep, .. } => {
                if let Some(of) = self.addrs.iter().position(|addr| addr == master) {
                    self.slaveof(now, of, *keep == Keep::Nothing, out);
                }
            }
            Command::Demote { .. }
            | Command::Part
            | Command::Pause { .. }
            | Command::Unpause
            | Command::Fence { .. } => {}
        }
    }

    /// Follows a server from now on. Its own replicas stay with it.
    fn slaveof(&mut self, now: Time, of: usize, restart: bool, out: &mut Vec<Effect>) {
        self.leave_master(out);
        self.part = Part::Replica(of);
        self.own.read_only = false;
        self.own.restart = restart;
        self.down_since.get_or_insert(now);
        self.ask_for(!restart, now, out);
    }

    /// Follows nobody from now on. Its own replicas stay with it.
    fn slaveof_no_one(&mut self, read_only: bool, out: &mut Vec<Effect>) {
        self.leave_master(out);
        self.part = Part::Master;
        self.link = LinkState::Down;
        self.down_since = None;
        self.own.read_only = read_only;
        self.own.restart = false;
    }

    /// What it does once a second.
    pub(super) fn look_for_master(&mut self, now: Time, out: &mut Vec<Effect>) {
        if matches!(self.link, LinkState::Down) && now >= self.own.retry_at {
            self.ask_for(!self.own.restart, now, out);
        }
    }

    /// A new process has what was on its disk, and does what its flags say.
    pub(super) fn begin_with_log(&mut self, now: Time, out: &mut Vec<Effect>) {
        self.offset = u64::try_from(self.data.len()).unwrap_or(u64::MAX);
        let log_from = self.own.log_from.min(self.offset);
        self.own = Own { log_from, ..Own::new() };
        self.replid = 0;
        self.synced = self.offset > 0;
        self.down_since = Some(now);
        self.ask_for(true, now, out);
    }

    /// The process ends: so do the connections that its host had accepted for it.
    pub(super) fn turn_away(&mut self, out: &mut Vec<Effect>) {
        self.own.waiting.clear();
        for message in self.inbox.drain(..) {
            if let Message::Psync { .. } = message {
                super::refuse(&message, out);
            }
        }
    }

    /// The number of the last write in its log; 0 when it has none, whatever it holds.
    fn last_logged(&self) -> u64 {
        if self.offset > self.own.log_from { self.offset } else { 0 }
    }

    fn is_log_empty(&self) -> bool {
        self.offset > 0 && self.last_logged() == 0
    }

    /// A replica asks for what follows its last write, or for everything.
    pub(super) fn serve_log(
        &mut self,
        now: Time,
        (from, link): (usize, u64),
        place: Option<u64>,
        fresh_id: u64,
        out: &mut Vec<Effect>,
    ) {
        let listed = self.own.known.insert(from) || !fresh_id.is_multiple_of(UNLISTED);
        let last = self.last_logged();
        // Whoever is at the end waits there, also at the end of nothing.
        let logged = |at: u64| at >= self.own.log_from || at == last;
        let online = place.is_some_and(logged);
        let feed = Feed { link, online, acked_at: now, listed };
        let send = |message| Effect::Send { to: from, message };
        match place {
            Some(at) if at > last => {
                self.attached.remove(&from);
                out.push(send(Message::Ahead { link }));
            }
            Some(at) if online => {
                self.attached.insert(from, feed);
                out.push(send(Message::Continue { link, replid: self.replid }));
                let from = if at == last { self.data.len() } else { index(at) };
                for (end, kept) in (at + 1..).zip(self.data.iter().skip(from)) {
                    let piece = Piece { end, value: Some(kept.value) };
                    out.push(send(Message::Stream { link, piece }));
                }
            }
            Some(_) | None => {
                self.attached.insert(from, feed);
                out.push(send(Message::FullSync { link }));
                out.push(Effect::Copy { to: from, link });
            }
        }
    }

    /// A copy was sent: what follows it is sent too, once there is a log.
    pub(super) fn go_on_from_copy(&mut self, to: usize, link: u64, out: &mut Vec<Effect>) {
        if self.is_log_empty() {
            self.attached.remove(&to);
            out.push(Effect::Send { to, message: Message::Ahead { link } });
        }
    }

    /// Takes a write into its log, and passes it on.
    pub(super) fn log(&mut self, now: Time, piece: Piece, out: &mut Vec<Effect>) {
        self.data.extend(piece.value.map(|value| Kept { value, at: now }));
        self.offset = piece.end;
        for (to, feed) in self.attached.iter().filter(|(_, feed)| feed.online) {
            let message = Message::Stream { link: feed.link, piece };
            out.push(Effect::Send { to: *to, message });
        }
    }

    /// Something arrives on the link to the master.
    pub(super) fn hear_log(&mut self, now: Time, message: Message, out: &mut Vec<Effect>) {
        match message {
            Message::Continue { .. } => self.linked(now),
            Message::FullSync { .. } => {
                self.hold(Vec::new(), out);
                self.synced = false;
                self.link = LinkState::Syncing { since: now };
            }
            Message::Snapshot { data, .. } => {
                let data = data.into_iter().map(|kept| Kept { at: now, ..kept }).collect();
                self.hold(data, out);
                self.own.log_from = self.offset;
                self.save();
                self.linked(now);
            }
            Message::Rejected { .. } => {
                self.link = LinkState::Down;
                self.own.retry_at = now + RETRY;
            }
            Message::Ahead { link } => {
                self.link = LinkState::Astray;
                self.down_since.get_or_insert(now);
                let message = Message::Again { link };
                out.push(Effect::Remind { after: ASTRAY_RETRY, message });
            }
            Message::Again { .. } => {
                if self.link == LinkState::Astray {
                    self.ask_for(!self.own.restart, now, out);
                }
            }
            Message::Stream { piece, .. } if self.link_up() => {
                if piece.end == self.offset + 1 {
                    self.log(now, piece, out);
                } else {
                    // What is between is gone from the log.
                    self.leave_master(out);
                    self.ask_for(false, now, out);
                }
            }
            Message::LinkLost { .. } => {
                self.down_since.get_or_insert(now);
                self.ask_for(!self.own.restart, now, out);
            }
            Message::Stream { .. }
            | Message::Ask { .. }
            | Message::Order { .. }
            | Message::Write { .. }
            | Message::Psync { .. }
            | Message::Ack { .. }
            | Message::Detach { .. }
            | Message::Copied { .. }
            | Message::Loaded { .. }
            | Message::Quick { .. }
            | Message::Say { .. }
            | Message::PauseOver => {}
        }
    }

    fn linked(&mut self, now: Time) {
        self.link = LinkState::Up { last_io: now };
        self.linked_at = now;
        self.down_since = None;
        self.synced = true;
    }

    /// It holds something else from now on, with no log of it; what its own replicas ask for next is not there.
    fn hold(&mut self, data: Vec<Kept>, out: &mut Vec<Effect>) {
        self.offset = u64::try_from(data.len()).unwrap_or(u64::MAX);
        self.data = data;
        self.own.log_from = 0;
        for (to, feed) in std::mem::take(&mut self.attached) {
            out.push(Effect::Send { to, message: Message::Ahead { link: feed.link } });
        }
    }

    /// What the program reads of it.
    pub(super) fn facts_of_log(&self, now: Time, asked_at: Time) -> Facts {
        let role = match self.part {
            Part::Master => {
                let listed = self.attached.iter().filter(|(_, feed)| feed.listed);
                Role::Master {
                    replicas: listed.map(|(from, _)| self.addrs[*from].clone()).collect(),
                }
            }
            Part::Replica(of) => {
                let down = Link::Down { since_secs: (self.offset > 0).then_some(0) };
                let flickers = (now.as_micros() / 1_000).is_multiple_of(FLICKER);
                let link = match self.link {
                    LinkState::Up { .. } => Link::Up { last_io_secs: 0 },
                    LinkState::Astray if !flickers => Link::Up { last_io_secs: 0 },
                    LinkState::Syncing { .. } => Link::Syncing,
                    LinkState::Astray | LinkState::Down | LinkState::Asking { .. } => down,
                };
                Role::Replica { master: self.addrs[of].clone(), link }
            }
        };
        Facts {
            asked_at,
            flavor: Flavor::Ledisdb,
            version: "0.5".into(),
            run_id: None,
            role,
            replication_id: None,
            second_replication_id: None,
            second_offset: None,
            offset: self.offset,
            priority: self.settings.priority,
            ping_period_secs: None,
            can_pause_writes: true,
            read_only: self.part == Part::Master && self.own.read_only,
            log_is_empty: self.is_log_empty(),
            keys: None,
            fence: None,
        }
    }
}

fn index(at: u64) -> usize {
    usize::try_from(at).unwrap_or(usize::MAX)
}
