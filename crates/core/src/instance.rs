//! The facts that an instance reported of itself.
//!
//! Facts are words of the server, read at one moment; what this node makes of them and of their absence is `watch.rs`.

use serde::{Deserialize, Serialize};

use crate::addr::Addr;
pub use crate::flavor::Flavor;
use crate::time::Time;

/// Identifies one history of writes (`master_replid`): two data sets with the same id and offset are equal.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ReplicationId(pub Box<str>);

/// What one reading of an instance said.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Facts {
    /// When the question was sent: the answer is at least as new as this.
    pub asked_at: Time,
    /// Redis, Valkey or LedisDB.
    pub flavor: Flavor,
    /// The server's own version text.
    pub version: Box<str>,
    /// Random per start of the server; `None` where the flavor has none.
    pub run_id: Option<Box<str>>,
    /// Master or replica, with what belongs to it.
    pub role: Role,
    /// The history it is on.
    pub replication_id: Option<ReplicationId>,
    /// The history it was on before its last promotion.
    pub second_replication_id: Option<ReplicationId>,
    /// How far it was when it left the history before; `None` where it does not say. Where there are no names for histories:
    /// when it was last told to be something else, as far as it was asked right before.
    #[serde(default)]
    pub second_offset: Option<u64>,
    /// How far it is in that history, in bytes (LedisDB: log entries).
    pub offset: u64,
    /// Lower is preferred, 0 is never promoted.
    pub priority: u32,
    /// How often it lets its replicas hear from it when nobody writes (`repl-ping-replica-period`), in whole seconds;
    /// `None` where it does not say.
    #[serde(default)]
    pub ping_period_secs: Option<u32>,
    /// Whether it can hold back all writes for a while and go on serving everything else.
    #[serde(default)]
    pub can_pause_writes: bool,
    /// How many keys it holds in all its databases; `None` in a reading that did not ask for it, and where it does not
    /// say. It is asked on every new connection, and now and then.
    #[serde(default)]
    pub keys: Option<u64>,
    /// How its writes depend on its replicas; `None` where it knows no such thing or does not let us read it.
    #[serde(default)]
    pub fence: Option<Fence>,
    /// A master that refuses every write until it is told otherwise; of a replica it says nothing.
    #[serde(default)]
    pub read_only: bool,
    /// It keeps no log of what it holds, because it was copied and not written to since: whoever follows it before its next
    /// write has to take over a full copy.
    #[serde(default)]
    pub log_is_empty: bool,
}

/// How the writes of a server depend on its replicas.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fence {
    /// What it is set to.
    pub set: MinReplicas,
    /// Replicas that are attached to it, have all of its data and acknowledged it a moment ago.
    pub online: u32,
}

/// The setting of a server by which it refuses writes while too few replicas acknowledge them. A replica has it too, and
/// heeds it once it is a master.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MinReplicas {
    /// Fewer replicas than this are too few (`min-replicas-to-write`); 0 is no limit.
    pub to_write: u32,
    /// One that was not heard for longer does not count (`min-replicas-max-lag`); 0 is no limit.
    pub max_lag_secs: u32,
}

impl MinReplicas {
    /// Whether it can make the server refuse a write.
    pub const fn is_on(self) -> bool {
        self.to_write > 0 && self.max_lag_secs > 0
    }
}

/// The role that an instance reports.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Role {
    /// It takes writes.
    Master {
        /// Replicas attached to it right now, as it names them.
        replicas: Vec<Addr>,
    },
    /// It follows another.
    Replica {
        /// Whom it was told to follow, as it names it.
        master: Addr,
        /// The state of its link to that master.
        link: Link,
    },
}

/// A replica's link to its master.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Link {
    /// Established, as far as the replica knows: a silent master keeps it `up` for a minute.
    Up {
        /// Whole seconds since it last heard from its master (`master_last_io_seconds_ago`); 0 where that is not said.
        last_io_secs: u64,
    },
    /// Not established.
    Down {
        /// Whole seconds since it was lost; `None` when the replica never finished a sync since its start.
        since_secs: Option<u64>,
    },
    /// A full copy is on its way: its data is old, partial or gone.
    Syncing,
}

impl Facts {
    /// Whether it reports to be a master.
    pub fn is_master(&self) -> bool {
        matches!(self.role, Role::Master { .. })
    }

    /// Whether it is a master that clients can write to.
    pub fn takes_writes(&self) -> bool {
        self.is_master() && !self.read_only
    }

    /// Whom it follows, when it is a replica.
    pub fn follows(&self) -> Option<&Addr> {
        match &self.role {
            Role::Master { .. } => None,
            Role::Replica { master, .. } => Some(master),
        }
    }

    /// Whole seconds since it last heard from its master, when it is a replica with an established link that says so.
    pub fn link_last_io_secs(&self) -> Option<u64> {
        match self.role {
            Role::Replica { link: Link::Up { last_io_secs }, .. } => {
                Some(last_io_secs).filter(|_| self.flavor.manners().tells_last_io)
            }
            Role::Replica { .. } | Role::Master { .. } => None,
        }
    }

    /// Whether it is a replica with an established link.
    pub fn link_up(&self) -> bool {
        matches!(self.role, Role::Replica { link: Link::Up { .. }, .. })
    }

    /// Whether it has less than it had, where no run id tells another process from the one before.
    pub fn lacks_writes_of(&self, before: &Self) -> bool {
        let nameless = self.run_id.is_none() && before.run_id.is_none();
        nameless && self.offset < before.offset
    }

    /// How many writes it holds, where it counts each of them and a copy comes with the count.
    pub fn writes_counted(&self) -> Option<u64> {
        let copying = matches!(self.role, Role::Replica { link: Link::Syncing, .. });
        Some(self.offset).filter(|_| self.flavor.manners().counts_alone && !copying)
    }

    /// Whether the data are others than those before, and not those and more.
    pub fn is_other_data(&self, before: &Self) -> bool {
        self.replication_id != before.replication_id
            && self.second_replication_id != before.replication_id
    }

    /// Whether two readings differ in nothing but ages, offsets and counts.
    pub fn same_standing(&self, other: &Self) -> bool {
        self.role.same_standing(&other.role)
            && self.run_id == other.run_id
            && self.replication_id == other.replication_id
            && self.priority == other.priority
            && self.flavor == other.flavor
            && self.fence == other.fence
            && self.read_only == other.read_only
            && self.log_is_empty == other.log_is_empty
    }
}

impl Role {
    fn same_standing(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Master { replicas: a }, Self::Master { replicas: b }) => a == b,
            (
                Self::Replica { master: a, link: link_a },
                Self::Replica { master: b, link: link_b },
            ) => a == b && std::mem::discriminant(link_a) == std::mem::discriminant(link_b),
            (Self::Master { .. } | Self::Replica { .. }, _) => false,
        }
    }
}
