//! What outlives the process of a model server: what its configuration file says, and its data as they were kept.

use std::time::Duration;

use failover_core::time::Time;

use super::{Effect, Kept, LinkState, Message, Part, Running, Server, Settings};

/// What a new process finds on its disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Disk {
    /// Every write, in an append-only file: no history outlives the process.
    Log,
    /// What was saved last, with the history that it is of; nothing, when nothing was saved.
    Saved,
    /// Nothing.
    Nothing,
}

/// What the configuration file of a server says.
#[derive(Clone, Copy, Debug)]
pub(super) struct File {
    pub(super) part: Part,
    pub(super) settings: Settings,
}

/// What a server wrote to its disk at one moment.
#[derive(Debug)]
pub(super) struct Saved {
    data: Vec<Kept>,
    /// Absent when it was on no history that anybody could go on with.
    history: Option<(u64, u64)>,
}

impl Server {
    /// Writes all data to the disk.
    pub(crate) fn save(&mut self) {
        let followed = match self.part {
            Part::Master => self.backlog.is_some(),
            Part::Replica(_) => self.cached,
        };
        let history = followed.then_some((self.replid, self.offset));
        self.saved = Some(Saved { data: self.data.clone(), history });
    }

    /// Writes down what it was told (`CONFIG REWRITE`).
    pub(super) fn rewrite(&mut self) {
        if self.settings.rewrites && !self.is_ledisdb() {
            self.file = File { part: self.part, settings: self.settings };
        }
    }

    /// Lets it write down what it is told, or not.
    pub(crate) fn set_rewrites(&mut self, rewrites: bool) {
        self.settings.rewrites = rewrites;
        self.file.settings.rewrites = rewrites;
    }

    /// A new process starts, with the role in its configuration file, and reads what it finds for so long.
    pub(crate) fn start(
        &mut self,
        now: Time,
        disk: Disk,
        loads_for: Duration,
        id: u64,
        out: &mut Vec<Effect>,
    ) {
        self.running = Running::Up;
        self.since = now;
        self.part = self.file.part;
        self.settings = self.file.settings;
        self.refusing = false;
        self.misconfigured = false;
        self.slow_by = Duration::ZERO;
        self.says_at = now;
        self.slow = false;
        self.life += 1;
        self.run_id = id;
        self.replid = id;
        self.replid2 = None;
        self.offset = 0;
        self.backlog = None;
        self.backlog_from = 0;
        self.synced = false;
        self.cached = false;
        self.link = LinkState::Down;
        self.down_since = None;
        self.good_replicas = 0;
        self.turns = 0;
        self.began = (disk, now);
        self.read(disk);
        // LedisDB opens what it has, and listens after that.
        self.loading = !loads_for.is_zero() && !self.is_ledisdb();
        if self.loading {
            let message = Message::Loaded { life: self.life, disk };
            out.push(Effect::Remind { after: loads_for, message });
        } else {
            self.loaded(now, disk, out);
        }
    }

    fn read(&mut self, disk: Disk) {
        match disk {
            Disk::Log => {}
            Disk::Nothing => {
                self.data.clear();
                self.saved = None;
            }
            Disk::Saved => {
                let saved = self.saved.as_ref().map(|saved| saved.data.as_slice());
                self.data = saved.unwrap_or_default().to_vec();
            }
        }
    }

    /// It has read all that there was: it goes on where that ends, if it is of a history.
    pub(super) fn loaded(&mut self, now: Time, disk: Disk, out: &mut Vec<Effect>) {
        if std::mem::take(&mut self.loading) {
            out.push(Effect::Serves);
        }
        if self.is_ledisdb() {
            self.begin_with_log(now, out);
            return;
        }
        let history = self.saved.as_ref().and_then(|saved| saved.history);
        if let (Disk::Saved, Some((replid, offset))) = (disk, history) {
            self.offset = offset;
            self.begin_backlog();
            match self.part {
                Part::Master => self.replid2 = Some((replid, offset)),
                Part::Replica(_) => {
                    self.replid = replid;
                    self.cached = true;
                }
            }
        }
        self.connect(now, out);
    }
}
