//! How a model server feeds its replicas and follows its master.

use std::collections::VecDeque;
use std::time::Duration;

use failover_core::time::Time;

use super::{Effect, Kept, Message, Part, Piece, Server};

/// After this much silence a link is given up, by either end (`repl-timeout`).
const LINK_TIMEOUT: Duration = Duration::from_secs(60);

/// A replica's link to its master.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LinkState {
    /// There is none; the next turn of the cron tries again.
    Down,
    /// It asked for the stream and has no answer yet.
    Asking { since: Time },
    /// A full copy is on its way.
    Syncing { since: Time },
    /// It gets the stream.
    Up { last_io: Time },
    /// It asks in vain for what follows its own last write (LedisDB).
    Astray,
}

/// What a server knows of one of its replicas.
#[derive(Clone, Copy, Debug)]
pub(super) struct Feed {
    pub(super) link: u64,
    /// It gets the stream; before that a copy is being made for it.
    pub(super) online: bool,
    pub(super) acked_at: Time,
    /// It is named when the server is asked for its replicas.
    pub(super) listed: bool,
}

impl Server {
    /// A replica asks for the stream, or for what follows a place in a history.
    pub(super) fn serve(
        &mut self,
        now: Time,
        (from, link): (usize, u64),
        place: Option<(u64, u64)>,
        fresh_id: u64,
        out: &mut Vec<Effect>,
    ) {
        if self.loading || (self.part != Part::Master && !self.link_up()) {
            // -LOADING, -NOMASTERLINK
            out.push(Effect::Send { to: from, message: Message::Rejected { link } });
            return;
        }
        let pieces = place.and_then(|(replid, offset)| self.pieces_after(replid, offset));
        let online = pieces.is_some();
        self.attached.insert(from, Feed { link, online, acked_at: now, listed: true });
        let Some(pieces) = pieces else {
            if self.backlog.is_none() {
                // Whoever begins to count begins a history.
                self.replid = fresh_id;
                self.replid2 = None;
                self.begin_backlog();
            }
            out.push(Effect::Send { to: from, message: Message::FullSync { link } });
            out.push(Effect::Copy { to: from, link });
            return;
        };
        self.count_good_replicas(now);
        let message = Message::Continue { link, replid: self.replid };
        out.push(Effect::Send { to: from, message });
        for piece in pieces {
            out.push(Effect::Send { to: from, message: Message::Stream { link, piece } });
        }
    }

    /// What a replica misses that is at a place in a history; `None` when it must have everything.
    fn pieces_after(&self, replid: u64, offset: u64) -> Option<Vec<Piece>> {
        let backlog = self.backlog.as_ref()?;
        let known = replid == self.replid
            || self.replid2.is_some_and(|(id, valid)| replid == id && offset <= valid);
        if !known || !(self.backlog_from..=self.offset).contains(&offset) {
            return None;
        }
        let from = backlog.partition_point(|piece| piece.end <= offset);
        Some(backlog.range(from..).copied().collect())
    }

    /// A copy for a replica is complete: it is sent as it is now, and the stream behind it.
    pub(super) fn copied(&mut self, now: Time, to: usize, link: u64, out: &mut Vec<Effect>) {
        let waits = |feed: &&mut Feed| feed.link == link && !feed.online;
        let Some(feed) = self.attached.get_mut(&to).filter(waits) else { return };
        feed.online = true;
        feed.acked_at = now;
        self.count_good_replicas(now);
        let message = Message::Snapshot {
            link,
            replid: self.replid,
            offset: self.offset,
            data: self.data.clone(),
        };
        out.push(Effect::Send { to, message });
        if self.is_ledisdb() {
            self.go_on_from_copy(to, link, out);
        }
    }

    /// Something arrives on the link to the master.
    pub(super) fn hear_master(&mut self, now: Time, message: Message, out: &mut Vec<Effect>) {
        match message {
            Message::Continue { replid, .. } => {
                if replid != self.replid {
                    self.replid2 = Some((self.replid, self.offset));
                    self.replid = replid;
                    self.drop_replicas(now, out);
                }
                if self.backlog.is_none() {
                    self.begin_backlog();
                }
                self.established(now);
            }
            Message::FullSync { .. } => self.link = LinkState::Syncing { since: now },
            Message::Snapshot { replid, offset, data, .. } => {
                self.replid = replid;
                self.replid2 = None;
                self.offset = offset;
                self.data = data.into_iter().map(|kept| Kept { at: now, ..kept }).collect();
                self.begin_backlog();
                self.drop_replicas(now, out);
                self.established(now);
                // It comes as a file, which takes the place of what was saved.
                self.save();
            }
            Message::Rejected { .. } => self.link = LinkState::Down,
            // One that can neither save what it gets nor refuse it gives itself up.
            Message::Stream { piece: Piece { value: Some(_), .. }, .. } if self.misconfigured => {
                self.kill(now, out);
                out.push(Effect::Died);
            }
            Message::Stream { piece, .. } => {
                if let LinkState::Up { last_io } = &mut self.link {
                    *last_io = now;
                    self.append(now, piece, out);
                }
            }
            Message::LinkLost { .. } => {
                self.lose_link(now);
                self.connect(now, out);
            }
            Message::Ahead { .. }
            | Message::Again { .. }
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

    /// Becomes a master, on a history of its own that begins where the old one is.
    pub(super) fn promote(&mut self, now: Time, fresh_id: u64, out: &mut Vec<Effect>) {
        self.leave_master(out);
        self.drop_replicas(now, out);
        self.part = Part::Master;
        self.link = LinkState::Down;
        self.down_since = None;
        self.synced = false;
        self.replid2 = Some((self.replid, self.offset));
        self.replid = fresh_id;
    }

    /// Becomes a replica, and keeps its own replicas until it knows whether their history goes on.
    pub(super) fn follow_server(&mut self, now: Time, of: usize, out: &mut Vec<Effect>) {
        if self.part == Part::Replica(of) {
            return;
        }
        if self.part == Part::Master {
            self.cached = true;
            if self.backlog.is_none() {
                self.begin_backlog();
            }
        } else {
            self.leave_master(out);
            self.lose_link(now);
        }
        self.part = Part::Replica(of);
        self.connect(now, out);
    }

    /// Takes a piece of the stream, and passes it on.
    pub(super) fn append(&mut self, now: Time, piece: Piece, out: &mut Vec<Effect>) {
        if let Some(value) = piece.value {
            self.data.push(Kept { value, at: now });
        }
        let Some(backlog) = &mut self.backlog else { return };
        assert_eq!(piece.begin(), self.offset, "the stream of server {} has a gap", self.index);
        self.offset = piece.end;
        backlog.push_back(piece);
        while self.offset - self.backlog_from > self.settings.backlog_bytes_max
            && let Some(oldest) = backlog.pop_front()
        {
            self.backlog_from = oldest.end;
        }
        for (to, feed) in self.attached.iter().filter(|(_, feed)| feed.online) {
            let message = Message::Stream { link: feed.link, piece };
            out.push(Effect::Send { to: *to, message });
        }
    }

    pub(super) fn begin_backlog(&mut self) {
        self.backlog = Some(VecDeque::new());
        self.backlog_from = self.offset;
    }

    /// Makes itself heard by its replicas when it is time.
    pub(super) fn ping_replicas(&mut self, now: Time, out: &mut Vec<Effect>) {
        if self.turns.is_multiple_of(self.settings.ping_period_secs) && !self.attached.is_empty() {
            self.append(now, Piece::after(self.offset, None), out);
        }
    }

    /// A replica's turn: it acknowledges, gives up a silent link, and tries again.
    pub(super) fn look_after_link(&mut self, now: Time, of: usize, out: &mut Vec<Effect>) {
        match self.link {
            LinkState::Down => self.connect(now, out),
            LinkState::Asking { since } if now.since(since) > LINK_TIMEOUT => {
                self.link = LinkState::Down;
            }
            LinkState::Syncing { since: last_io } | LinkState::Up { last_io }
                if now.since(last_io) > LINK_TIMEOUT =>
            {
                self.leave_master(out);
                self.lose_link(now);
                self.connect(now, out);
            }
            LinkState::Up { .. } => {
                let message = Message::Ack { from: self.index, link: self.link_id };
                out.push(Effect::Send { to: of, message });
            }
            LinkState::Asking { .. } | LinkState::Syncing { .. } | LinkState::Astray => {}
        }
    }

    /// Asks its master for the stream.
    pub(super) fn connect(&mut self, now: Time, out: &mut Vec<Effect>) {
        self.ask_for(self.cached, now, out);
    }

    /// Asks its master for what follows its own place, or for everything.
    pub(super) fn ask_for(&mut self, rest: bool, now: Time, out: &mut Vec<Effect>) {
        let Part::Replica(of) = self.part else { return };
        self.link_id += 1;
        self.link = LinkState::Asking { since: now };
        let message = Message::Psync {
            from: self.index,
            link: self.link_id,
            replid: self.replid,
            offset: self.offset,
            cached: rest,
        };
        out.push(Effect::Send { to: of, message });
    }

    fn established(&mut self, now: Time) {
        self.link = LinkState::Up { last_io: now };
        self.linked_at = now;
        self.down_since = None;
        self.synced = true;
        self.cached = true;
    }

    fn lose_link(&mut self, now: Time) {
        if let LinkState::Up { .. } = self.link {
            self.down_since = Some(now);
        }
        self.link = LinkState::Down;
    }

    /// Ends its own connection to its master.
    pub(super) fn leave_master(&mut self, out: &mut Vec<Effect>) {
        if let Part::Replica(of) = self.part {
            let message = Message::Detach { from: self.index, link: self.link_id };
            out.push(Effect::Send { to: of, message });
        }
        // Whatever still arrives on the old connection is not for the new one, nor for a master.
        self.link_id += 1;
    }

    /// Ends the connections of its replicas.
    pub(super) fn drop_replicas(&mut self, now: Time, out: &mut Vec<Effect>) {
        for (to, feed) in std::mem::take(&mut self.attached) {
            out.push(Effect::Send { to, message: Message::LinkLost { link: feed.link } });
        }
        self.count_good_replicas(now);
    }

    /// Ends the connections of replicas that have been silent for too long.
    pub(super) fn drop_silent_replicas(&mut self, now: Time, out: &mut Vec<Effect>) {
        self.attached.retain(|to, feed| {
            let silent = feed.online && now.since(feed.acked_at) > LINK_TIMEOUT;
            if silent {
                out.push(Effect::Send { to: *to, message: Message::LinkLost { link: feed.link } });
            }
            !silent
        });
    }

    /// Replicas that get the stream and acknowledged it within so many seconds.
    pub(super) fn replicas_within(&self, now: Time, secs: u32) -> u32 {
        let good =
            |feed: &&Feed| feed.online && now.since(feed.acked_at).as_secs() <= u64::from(secs);
        u32::try_from(self.attached.values().filter(good).count()).unwrap_or(u32::MAX)
    }

    /// Counts those that writes depend on.
    pub(super) fn count_good_replicas(&mut self, now: Time) {
        self.good_replicas = self.replicas_within(now, self.settings.min_replicas.max_lag_secs);
    }
}
