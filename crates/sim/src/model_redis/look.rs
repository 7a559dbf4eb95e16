//! What a model server looks like: from outside, by its own report, and to the invariants, as it really is.

use std::time::Duration;

use failover_core::addr::Addr;
use failover_core::event::{Health, ProbeSeq};
use failover_core::instance::{Facts, Fence, Flavor, Link, ReplicationId, Role};
use failover_core::time::Time;

use super::{Conn, Denial, Disk, Effect, Kept, LinkState, Part, Reply, Running, Server, Settings};

/// A master reports no priority, which is read as the usual one.
const PRIORITY_OF_A_MASTER: u32 = 100;
/// How often a connection is told how many keys there are.
const KEYS_INTERVAL: Duration = Duration::from_secs(30);
/// A replica whose acknowledgement is older, in seconds, is not shown as one that is counted on.
const ONLINE_LAG_SECS: u32 = 1;
/// Longer than any `check_interval`: what it had this long ago was read.
const READ_AFTER: Duration = Duration::from_millis(1_200);

impl Server {
    /// Where it listens.
    pub fn addr(&self) -> &Addr {
        &self.addrs[self.index]
    }

    /// What its process is doing.
    pub fn running(&self) -> Running {
        self.running
    }

    /// Since when it is doing that.
    pub fn running_since(&self) -> Time {
        self.since
    }

    /// Master or replica.
    pub fn part(&self) -> Part {
        self.part
    }

    /// Whether it is a replica with an established link.
    pub fn link_up(&self) -> bool {
        matches!((self.part, self.link), (Part::Replica(_), LinkState::Up { .. }))
    }

    /// Whether a full copy is on its way to it.
    pub fn syncing(&self) -> bool {
        matches!((self.part, self.link), (Part::Replica(_), LinkState::Syncing { .. }))
    }

    /// When its link was established last.
    pub(crate) fn linked_at(&self) -> Time {
        self.linked_at
    }

    /// Since when its link is down, where it is and once was established.
    pub fn link_down_since(&self) -> Option<Time> {
        self.down_since
    }

    /// Whether it finished a sync since its start, or is a master.
    pub fn synced(&self) -> bool {
        let has_data = self.is_ledisdb() && self.offset > 0;
        self.synced || self.part == Part::Master || has_data
    }

    /// Lower is preferred, 0 is never promoted.
    pub fn priority(&self) -> u32 {
        self.settings.priority
    }

    /// Whether everyone who asks it has an answer soon.
    pub fn serves(&self) -> bool {
        let answers = self.running == Running::Up && self.wordless.is_none();
        answers && !self.loading && !self.refusing && !self.slow
    }

    /// Since when its priority is this one.
    pub fn prioritised_at(&self) -> Time {
        self.prioritised_at
    }

    /// How many replicas are good enough for the writes that depend on them, as it counted last.
    pub fn good_replicas(&self) -> u32 {
        self.good_replicas
    }

    /// Whether it reads its data from its disk.
    pub fn loading(&self) -> bool {
        self.loading
    }

    /// Whether it accepts no new connections although it runs.
    pub fn refusing(&self) -> bool {
        self.refusing
    }

    /// Whether it cannot save.
    pub fn misconfigured(&self) -> bool {
        self.misconfigured
    }

    /// How much later than it could it answers.
    pub fn slow_by(&self) -> Duration {
        self.slow_by
    }

    /// The history it is on.
    pub fn replid(&self) -> u64 {
        self.replid
    }

    /// The history before its last promotion.
    pub fn second_replid(&self) -> Option<u64> {
        self.replid2.map(|(id, _)| id)
    }

    /// Where it went on with a history that it found on its disk, when it is a master that did.
    pub fn went_back_to(&self) -> Option<(u64, u64)> {
        let saved = self.began.0 == Disk::Saved && self.part == Part::Master;
        self.replid2.filter(|_| saved)
    }

    /// When its process began with nothing, if it did.
    pub fn began_empty(&self) -> Option<Time> {
        Some(self.began.1).filter(|_| self.began.0 == Disk::Nothing)
    }

    /// How many writes it surely had when it was read last, before its process ended.
    pub(crate) fn read_by_now(&self) -> u64 {
        let read = self.data.iter().take_while(|kept| kept.at + READ_AFTER < self.since).count();
        u64::try_from(read).unwrap_or(u64::MAX)
    }

    /// What it is set to.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Whether it takes no writes because too few replicas acknowledge them.
    pub fn waits_for_replicas(&self) -> bool {
        self.denial() == Some(Denial::TooFewReplicas)
    }

    /// How far it is.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// The writes it has, in order.
    pub fn data(&self) -> &[Kept] {
        &self.data
    }

    pub(crate) fn life(&self) -> u32 {
        self.life
    }

    /// Answers a question on a connection that stands.
    pub(super) fn answer(
        &mut self,
        now: Time,
        conn: Conn,
        connect: bool,
        (seq, asked_at): (ProbeSeq, Time),
        out: &mut Vec<Effect>,
    ) {
        let Some(keys_at) = self.conns.get_mut(&conn) else { return };
        let counted = connect || asked_at.since(*keys_at) >= KEYS_INTERVAL;
        if counted {
            *keys_at = asked_at;
        }
        let mut facts = Box::new(self.facts(now, asked_at));
        if counted && !self.is_ledisdb() {
            facts.keys = u64::try_from(self.data.len()).ok();
        }
        let health = self.health();
        self.say(now, Reply::Answer { conn, seq, health, facts }, out);
    }

    /// What it answers to `PING`.
    pub(crate) fn health(&self) -> Health {
        if self.misconfigured {
            Health::Misconfigured("the server answered \"MISCONF\"".to_owned())
        } else if self.loading {
            Health::Loading
        } else {
            Health::Fine
        }
    }

    pub(super) fn run_id_text(&self) -> Box<str> {
        hex(self.run_id)
    }

    /// What it would report right now, but for the number of its keys.
    pub(crate) fn facts(&self, now: Time, asked_at: Time) -> Facts {
        if self.is_ledisdb() {
            return self.facts_of_log(now, asked_at);
        }
        let role = match self.part {
            Part::Master => Role::Master {
                replicas: self.attached.keys().map(|from| self.addrs[*from].clone()).collect(),
            },
            Part::Replica(of) => Role::Replica {
                master: self.addrs[of].clone(),
                link: match self.link {
                    LinkState::Up { last_io } => {
                        Link::Up { last_io_secs: now.since(last_io).as_secs() }
                    }
                    LinkState::Syncing { .. } => Link::Syncing,
                    LinkState::Down | LinkState::Asking { .. } | LinkState::Astray => Link::Down {
                        since_secs: self.down_since.map(|since| now.since(since).as_secs()),
                    },
                },
            },
        };
        Facts {
            asked_at,
            flavor: Flavor::Redis,
            version: "7.0.15".into(),
            run_id: Some(self.run_id_text()),
            role,
            replication_id: Some(replication_id(self.replid)),
            second_replication_id: self.replid2.map(|(id, _)| replication_id(id)),
            second_offset: self.replid2.map(|(_, offset)| offset),
            offset: self.offset,
            priority: match self.part {
                Part::Master => PRIORITY_OF_A_MASTER,
                Part::Replica(_) => self.settings.priority,
            },
            ping_period_secs: Some(self.settings.ping_period_secs),
            can_pause_writes: true,
            read_only: false,
            log_is_empty: false,
            keys: None,
            fence: Some(Fence {
                set: self.settings.min_replicas,
                online: self.replicas_within(now, ONLINE_LAG_SECS),
            }),
        }
    }
}

fn replication_id(id: u64) -> ReplicationId {
    ReplicationId(hex(id))
}

/// A number as ids are written, without the cost of a formatter: it is written with every answer.
fn hex(id: u64) -> Box<str> {
    let digits = id.to_be_bytes().into_iter().flat_map(|byte| [byte >> 4, byte & 0xf]);
    digits.map(|digit| char::from(b"0123456789abcdef"[usize::from(digit)])).collect()
}
