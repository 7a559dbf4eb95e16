//! What is told to everyone who listens: logs, hooks, subscribers.

use serde::{Deserialize, Serialize};

use crate::addr::Addr;
use crate::node::GroupName;
use crate::time::Time;

/// Something worth telling, with a sentence for people.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Notice {
    /// When it happened.
    pub at: Time,
    /// Whom it concerns.
    pub group: GroupName,
    /// What, for programs.
    pub what: What,
    /// What, for people.
    pub sentence: String,
}

/// How much attention a notice wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Weight {
    /// Part of an ordinary day.
    Info,
    /// Somebody should know.
    Warning,
    /// Somebody should act.
    Error,
}

/// What a notice is about.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum What {
    /// A group is guarded from now on.
    GroupAdded,
    /// A group is no longer guarded.
    GroupRemoved,
    /// A registered address turned out to lead to this master.
    MasterFound {
        /// The master.
        master: Addr,
    },
    /// An instance that was not known belongs to the group.
    InstanceFound {
        /// Which.
        addr: Addr,
    },
    /// An instance stopped answering.
    InstanceDown {
        /// Which.
        addr: Addr,
    },
    /// An instance answers (again).
    InstanceUp {
        /// Which.
        addr: Addr,
    },
    /// The conclusion about the group is another one.
    Diagnosed {
        /// Its name.
        name: String,
        /// Whether it is the one that everybody hopes for.
        healthy: bool,
    },
    /// The history has something new of a replica: it went away, lost its link for long, came back, or was forgotten.
    ReplicaEvent {
        /// Which.
        addr: Addr,
    },
    /// A failover was decided and is committed.
    FailoverDecided {
        /// The dead master.
        old_master: Addr,
        /// The replica to be promoted.
        candidate: Addr,
        /// The epoch taken.
        epoch: u64,
    },
    /// A candidate was given up.
    CandidateAbandoned {
        /// Which.
        addr: Addr,
        /// Its epoch.
        epoch: u64,
    },
    /// The group has a new master, verified and recorded.
    MasterChanged {
        /// The master before.
        old_master: Addr,
        /// The master now.
        new_master: Addr,
        /// The epoch of the change.
        epoch: u64,
    },
    /// A replica was repointed.
    Repointed {
        /// Which.
        addr: Addr,
    },
    /// A replica could not be repointed; it is tried again as a repair.
    RepointFailed {
        /// Which.
        addr: Addr,
    },
    /// A failover is finished.
    FailoverDone {
        /// The master now.
        new_master: Addr,
    },
    /// A failover failed.
    FailoverFailed,
    /// A failover was given up before anything was changed, since the master came back.
    FailoverUndone,
    /// A switchover was decided and is committed.
    SwitchoverDecided {
        /// The master now.
        old_master: Addr,
        /// The replica that is to take over.
        candidate: Addr,
        /// The epoch taken.
        epoch: u64,
    },
    /// A switchover is finished.
    SwitchoverDone {
        /// The master now.
        new_master: Addr,
    },
    /// A switchover was undone: the old master goes on.
    SwitchoverUndone,
    /// A switchover failed, and left the group without a verified master.
    SwitchoverFailed,
    /// A handler refused a failover.
    FailoverVetoed,
    /// The program stopped acting on the group.
    Halted,
    /// The program does nothing to the group, because an operator asked.
    Paused,
    /// The program acts on the group again.
    Resumed,
    /// An instance was made to follow the recorded master.
    Repaired {
        /// Which.
        addr: Addr,
    },
    /// An instance could not be made to follow the recorded master.
    RepairFailed {
        /// Which.
        addr: Addr,
    },
    /// How an instance's writes depend on its replicas was set.
    Fenced {
        /// Which.
        addr: Addr,
        /// So many replicas have to acknowledge; 0 is no fence.
        to_write: u32,
    },
    /// Something did not work that people should know of.
    Warned {
        /// The instance concerned.
        addr: Option<Addr>,
    },
}

impl What {
    /// How much attention it wants.
    pub fn weight(&self) -> Weight {
        match self {
            Self::GroupAdded
            | Self::GroupRemoved
            | Self::MasterFound { .. }
            | Self::InstanceFound { .. }
            | Self::InstanceUp { .. }
            | Self::ReplicaEvent { .. }
            | Self::Diagnosed { healthy: true, .. }
            | Self::Repointed { .. }
            | Self::FailoverDone { .. }
            | Self::SwitchoverDecided { .. }
            | Self::SwitchoverDone { .. }
            | Self::Paused
            | Self::Resumed
            | Self::Fenced { .. }
            | Self::Repaired { .. } => Weight::Info,
            Self::InstanceDown { .. }
            | Self::Diagnosed { healthy: false, .. }
            | Self::FailoverDecided { .. }
            | Self::MasterChanged { .. }
            | Self::RepointFailed { .. }
            | Self::FailoverUndone
            | Self::SwitchoverUndone
            | Self::FailoverVetoed
            | Self::RepairFailed { .. }
            | Self::Warned { .. } => Weight::Warning,
            Self::CandidateAbandoned { .. }
            | Self::FailoverFailed
            | Self::SwitchoverFailed
            | Self::Halted => Weight::Error,
        }
    }
}
