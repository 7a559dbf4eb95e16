//! What was done to the world in a run: enough to do it again without drawing anything.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::faults::Fault;
use crate::operations::Operation;

/// One thing that was done.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Deed {
    /// Something went wrong, or right again.
    Fault(Fault),
    /// Somebody on call did something.
    Operation(Operation),
    /// Clients wrote, as often.
    Writes(u8),
}

impl Deed {
    /// What kind of thing was done, where several are one kind.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Fault(fault) => match fault {
                Fault::Kill(_) => "server killed",
                Fault::Hang(_) => "server hangs",
                Fault::Wake(_) => "server goes on",
                Fault::Return(_) => "server returns",
                Fault::ReturnEmpty(_) => "server returns with nothing",
                Fault::KillNode(_) => "node killed",
                Fault::StopNode(_) => "node stopped",
                Fault::ResumeNode(_) => "node goes on",
                Fault::StartNode(_) => "node returns",
                Fault::StartNodeAt(..) => "node returns with another clock",
                Fault::SlowNode(..) => "node slow, or not any more",
                Fault::Ail(..) => "server ails, or is cured",
                Fault::Cut(..) => "path cut",
                Fault::Heal(..) => "path healed",
            },
            Self::Operation(operation) => match operation {
                Operation::Switchover { .. } => "switchover asked for",
                Operation::Failover { .. } => "failover asked for",
                Operation::Pause { .. }
                | Operation::Resume
                | Operation::PauseAll
                | Operation::ResumeAll => "pause or resume",
                Operation::PromoteByHand(_) | Operation::FollowByHand { .. } => "changed by hand",
                Operation::Rule { .. } => "rule",
                Operation::Replace | Operation::ReplaceByNone | Operation::ReplaceByAddress => {
                    "group replaced"
                }
                Operation::Forget(_) => "replica forgotten",
                Operation::AskFollower | Operation::Idle(_) => "asked for what changes nothing",
            },
            Self::Writes(_) => "writes right before",
        }
    }
}

/// A deed, and how long after the beginning of the run it was done.
pub type Timed = (Duration, Deed);
