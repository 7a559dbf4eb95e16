//! What a model server looks like: from outside, by its own report, and to the invariants, as it really is.

use failover_core::addr::Addr;
use failover_core::instance::{Facts, Flavor, Link, ReplicationId, Role};
use failover_core::time::Time;

use super::{Kept, LinkState, Part, Running, Server};

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
        matches!((self.part, self.link), (Part::Replica(_), LinkState::Syncing))
    }

    /// Since when its link is down, where it is and once was established.
    pub fn link_down_since(&self) -> Option<Time> {
        self.down_since
    }

    /// Whether it finished a sync since its start, or is a master.
    pub fn synced(&self) -> bool {
        self.synced || self.part == Part::Master
    }

    /// Lower is preferred, 0 is never promoted.
    pub fn priority(&self) -> u32 {
        self.priority
    }

    /// The history it is on.
    pub fn replid(&self) -> u64 {
        self.replid
    }

    /// The history before its last promotion.
    pub fn second_replid(&self) -> Option<u64> {
        self.replid2.map(|(id, _)| id)
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

    /// What it would report right now.
    pub(crate) fn facts(&self, now: Time, asked_at: Time) -> Facts {
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
                    LinkState::Syncing => Link::Syncing,
                    LinkState::Down | LinkState::Asking { .. } => Link::Down {
                        since_secs: self.down_since.map(|since| now.since(since).as_secs()),
                    },
                },
            },
        };
        Facts {
            asked_at,
            flavor: Flavor::Redis,
            version: "7.0.15".into(),
            run_id: Some(format!("{:016x}", self.run_id).into()),
            role,
            replication_id: Some(replication_id(self.replid)),
            second_replication_id: self.replid2.map(|(id, _)| replication_id(id)),
            second_offset: self.replid2.map(|(_, offset)| offset),
            offset: self.offset,
            priority: self.priority,
            ping_period_secs: None,
            can_pause_writes: true,
            keys: u64::try_from(self.data.len()).ok(),
            fence: None,
        }
    }
}

fn replication_id(id: u64) -> ReplicationId {
    ReplicationId(format!("{id:016x}").into())
}
