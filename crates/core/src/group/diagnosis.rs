//! The names of what can be concluded about a group.

use crate::watch::Death;

/// What can be concluded about a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Diagnosis {
    /// Its instances were not heard yet.
    NotYetSeen,
    /// The master answers and is a master, and at least one replica could replace it.
    Healthy,
    /// The master's host says that no process listens.
    MasterCrashed,
    /// The master accepts connections and gives no valid reply.
    MasterHung,
    /// The master does not answer at all, and its replicas have no news of it.
    MasterUnreachable,
    /// The master does not answer here, but its replicas have news of it.
    MasterUnreachableFromHere,
    /// The master reads its data from disk.
    MasterLoading,
    /// The master restarted without its data, which others have, or may have.
    MasterRestartedEmpty,
    /// A script blocks the master, or it takes no more clients.
    MasterBusy,
    /// The master refuses writes because it cannot save.
    MasterMisconfigured,
    /// The master does not let us in.
    AuthenticationFailed,
    /// The recorded master follows another.
    MasterBecameReplica,
    /// A second instance of the group reports to be a master.
    TwoMasters,
    /// A replica follows somebody else than the recorded master.
    ReplicaOfWrongMaster,
    /// A replica answers, but its link to the master is down.
    ReplicationBroken,
    /// The master has no replica.
    NoReplicas,
    /// None of the replicas could be promoted.
    NoEligibleReplica,
    /// No instance of the group answers.
    WholeGroupUnreachable,
    /// No leader is known, or too few voters answer: nobody acts.
    QuorumLost,
    /// The master was replaced so often within a short time that every cause is waited for now.
    Flapping,
    /// All is well until an instance restarts: it cannot write down how it is fenced.
    FencingNotDurable,
}

impl Diagnosis {
    /// The conclusion about a master that is dead in this way and can be replaced.
    pub(crate) const fn of_death(death: Death) -> Self {
        match death {
            Death::Refusing => Self::MasterCrashed,
            Death::Hung => Self::MasterHung,
            Death::Unreachable => Self::MasterUnreachable,
            Death::Loading => Self::MasterLoading,
            Death::Emptied => Self::MasterRestartedEmpty,
        }
    }

    /// The name that programs may rely on.
    pub const fn name(self) -> &'static str {
        match self {
            Self::NotYetSeen => "NotYetSeen",
            Self::Healthy => "Healthy",
            Self::MasterCrashed => "MasterCrashed",
            Self::MasterHung => "MasterHung",
            Self::MasterUnreachable => "MasterUnreachable",
            Self::MasterUnreachableFromHere => "MasterUnreachableFromHere",
            Self::MasterLoading => "MasterLoading",
            Self::MasterRestartedEmpty => "MasterRestartedEmpty",
            Self::MasterBusy => "MasterBusy",
            Self::MasterMisconfigured => "MasterMisconfigured",
            Self::AuthenticationFailed => "AuthenticationFailed",
            Self::MasterBecameReplica => "MasterBecameReplica",
            Self::TwoMasters => "TwoMasters",
            Self::ReplicaOfWrongMaster => "ReplicaOfWrongMaster",
            Self::ReplicationBroken => "ReplicationBroken",
            Self::NoReplicas => "NoReplicas",
            Self::NoEligibleReplica => "NoEligibleReplica",
            Self::WholeGroupUnreachable => "WholeGroupUnreachable",
            Self::QuorumLost => "QuorumLost",
            Self::Flapping => "Flapping",
            Self::FencingNotDurable => "FencingNotDurable",
        }
    }

    /// Why nothing is done about it, where the diagnosis itself is the reason.
    pub(crate) const fn why_idle(self) -> Option<&'static str> {
        match self {
            Self::Healthy
            | Self::MasterCrashed
            | Self::MasterHung
            | Self::MasterUnreachable
            | Self::MasterUnreachableFromHere
            | Self::MasterRestartedEmpty
            | Self::WholeGroupUnreachable
            | Self::QuorumLost
            | Self::Flapping
            | Self::TwoMasters
            | Self::ReplicaOfWrongMaster => None,
            Self::NotYetSeen => Some("what has not been heard yet is not judged"),
            Self::FencingNotDurable => Some(
                "the fence holds until the restart; CONFIG REWRITE is tried again every few minutes",
            ),
            Self::MasterLoading => {
                Some("the master lives, and gets max_down_time to read its data")
            }
            Self::MasterBusy => Some(
                "the master lives: a failover would lose what its script writes; SCRIPT KILL ends one that only reads",
            ),
            Self::MasterMisconfigured => Some(
                "the master lives and has all data: free its disk, or let it write without saving",
            ),
            Self::AuthenticationFailed => Some(
                "a server that does not let us in lives; whether it serves others is not known",
            ),
            Self::MasterBecameReplica => {
                Some("a change of roles that was made by hand is reported, not undone")
            }
            Self::ReplicationBroken => {
                Some("the replica points at the right master and tries again by itself")
            }
            Self::NoEligibleReplica => Some(
                "the master lives; a replica has to come back or catch up before one could replace it",
            ),
            Self::NoReplicas => {
                Some("the master lives; a replica has to be attached before one could replace it")
            }
        }
    }
}
