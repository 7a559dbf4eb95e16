//! What hooks are run on: the kinds, and one thing that happened and is still to be told to somebody.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::addr::Addr;
use crate::node::NodeId;
use crate::time::Time;

/// What a hook can be run on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HookEvent {
    /// A failover is about to be decided, and may be vetoed. It is a question, and never recorded.
    BeforeFailover,
    /// The leading node sees the master down. It is seen and not agreed, so that it is not recorded.
    MasterDown,
    /// The leading node sees the master up again, which was not replaced meanwhile. Not recorded either.
    MasterUp,
    /// A failover was decided.
    FailoverStarted,
    /// A dead master was replaced: the new one is verified and recorded.
    AfterFailover,
    /// A failover or switchover failed after something had been changed.
    FailoverFailed,
    /// A before-failover hook said no.
    FailoverVetoed,
    /// A healthy master was replaced, on request or by hand.
    Switchover,
    /// An old master came back as one and was made a replica.
    MasterReturned,
    /// A replica went down, or lost its link to the master for long.
    ReplicaDown,
    /// A replica is back and follows the master.
    ReplicaUp,
    /// The program stopped acting on the group after a failed failover.
    Halted,
    /// The program stopped acting on the group because somebody asked.
    Paused,
    /// The program acts on the group again.
    Resumed,
    /// This node knows no leader any more: nobody acts here. Each node says so of itself.
    QuorumLost,
    /// This node knows a leader again.
    QuorumBack,
}

impl HookEvent {
    /// All of them.
    pub const ALL: [Self; 16] = [
        Self::BeforeFailover,
        Self::MasterDown,
        Self::MasterUp,
        Self::FailoverStarted,
        Self::AfterFailover,
        Self::FailoverFailed,
        Self::FailoverVetoed,
        Self::Switchover,
        Self::MasterReturned,
        Self::ReplicaDown,
        Self::ReplicaUp,
        Self::Halted,
        Self::Paused,
        Self::Resumed,
        Self::QuorumLost,
        Self::QuorumBack,
    ];

    /// The name as it is written in settings and payloads.
    pub const fn name(self) -> &'static str {
        match self {
            Self::BeforeFailover => "before_failover",
            Self::MasterDown => "master_down",
            Self::MasterUp => "master_up",
            Self::FailoverStarted => "failover_started",
            Self::AfterFailover => "after_failover",
            Self::FailoverFailed => "failover_failed",
            Self::FailoverVetoed => "failover_vetoed",
            Self::Switchover => "switchover",
            Self::MasterReturned => "master_returned",
            Self::ReplicaDown => "replica_down",
            Self::ReplicaUp => "replica_up",
            Self::Halted => "halted",
            Self::Paused => "paused",
            Self::Resumed => "resumed",
            Self::QuorumLost => "quorum_lost",
            Self::QuorumBack => "quorum_back",
        }
    }

    /// By its name.
    pub fn by_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|event| event.name() == name)
    }
}

/// Something that happened to a group, as it is told to hooks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Occurrence {
    /// Counts the occurrences of the group.
    pub number: u64,
    /// What.
    pub event: HookEvent,
    /// When it was proposed, by the clock of the node that did.
    pub at: Time,
    /// That node.
    pub leader: NodeId,
    /// The last epoch that the group had taken by then.
    pub epoch: u64,
    /// The entry of history that it belongs to.
    pub history_id: Option<String>,
    /// The master before, where it is another or was to be.
    pub old_master: Option<Addr>,
    /// The master after, or the one that is to be.
    pub new_master: Option<Addr>,
    /// The instance concerned, where it is not the group as a whole.
    pub addr: Option<Addr>,
    /// What and why, a sentence.
    pub reason: String,
    /// The hooks that were told, or were given up on, while others still are to be told.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub told: BTreeSet<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_the_same_in_settings_payloads_and_the_record() {
        for event in HookEvent::ALL {
            assert_eq!(HookEvent::by_name(event.name()), Some(event));
            let written = serde_json::to_string(&event).expect("to text");
            assert_eq!(written, format!("\"{}\"", event.name()));
        }
    }
}
