//! What people on call do, drawn from the seed: through the program, and behind its back.

use std::time::Duration;

use fastrand::Rng;
use serde::{Deserialize, Serialize};

use crate::faults::Scene;

/// Something that a person does.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Operation {
    /// Asks for another master, while the group is well.
    Switchover {
        /// Which one; the best when none is named.
        to: Option<usize>,
    },
    /// Asks for another master, whatever the group is.
    Failover {
        /// Which one; the best when none is named.
        to: Option<usize>,
        /// Although the master is not down.
        force: bool,
    },
    /// Asks that nothing is done to the group for a while.
    Pause {
        /// How long; until it is resumed when nothing is said.
        ms: Option<u64>,
    },
    /// Asks that the group is acted on again.
    Resume,
    /// Makes a replica a master, by hand.
    PromoteByHand(usize),
    /// Makes one server follow another, by hand.
    FollowByHand {
        /// Which one.
        server: usize,
        /// Whom.
        of: usize,
    },
    /// Says that a server is never to be promoted, or that what the configuration says counts again.
    Rule {
        /// Which server.
        server: usize,
        /// Never, or as it is configured.
        never: bool,
    },
    /// Stops guarding the group, and guards it anew a moment later.
    Replace,
    /// The same, by naming no group that is to be guarded.
    ReplaceByNone,
    /// The same, by naming the recorded master.
    ReplaceByAddress,
    /// Asks that nothing is done to any group.
    PauseAll,
    /// Asks that every group is acted on again.
    ResumeAll,
    /// Asks that a replica is not guarded any more.
    Forget(usize),
    /// Asks a node that does not lead.
    AskFollower,
    /// Asks for what changes nothing: only to say what would be done, or of something that there is not.
    Idle(IdleRequest),
}

/// A request that changes nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum IdleRequest {
    /// To say how a switchover would go.
    WouldSwitch,
    /// To say how a failover would go.
    WouldFailOver,
    /// To switch over to a server that is not of the group.
    SwitchToStranger,
    /// To fail over to a server that is not of the group.
    FailOverToStranger,
    /// To replace the master of a group that there is not.
    OfNoGroup,
    /// To pause a group that there is not.
    PauseNothing,
    /// To resume a group that there is not.
    ResumeNothing,
    /// A rule for a server that is not of the group.
    RuleForStranger,
    /// To forget a server that is not of the group.
    ForgetStranger,
    /// To forget the recorded master.
    ForgetMaster,
    /// To guard what is guarded.
    AddAgain,
    /// To guard its servers as another group.
    AddUnderAnotherName,
    /// To stop guarding what is not guarded.
    RemoveNothing,
    /// To guard what is guarded, and nothing else.
    ReplaceByItself,
    /// To guard what is guarded, under another name, and nothing else.
    ReplaceUnderAnotherName,
    /// To guard one server in two groups.
    AddTwice,
    /// To have switched over in no time.
    SwitchAtOnce,
}

impl IdleRequest {
    const USUAL: [Self; 13] = [
        Self::WouldSwitch,
        Self::WouldFailOver,
        Self::SwitchToStranger,
        Self::FailOverToStranger,
        Self::OfNoGroup,
        Self::PauseNothing,
        Self::ResumeNothing,
        Self::RuleForStranger,
        Self::ForgetStranger,
        Self::ForgetMaster,
        Self::AddAgain,
        Self::AddUnderAnotherName,
        Self::RemoveNothing,
    ];

    const RARE: [Self; 4] =
        [Self::ReplaceByItself, Self::ReplaceUnderAnotherName, Self::AddTwice, Self::SwitchAtOnce];
}

/// Roles are changed by hand at most this often in a run: after three times an hour the program leaves them as they are.
pub(crate) const BY_HAND_MAX: u32 = 2;

/// One thing that a person does, and what follows from it.
pub(crate) fn draw(rng: &mut Rng, scene: &Scene) -> Vec<(Duration, Operation)> {
    let now = |operation| vec![(Duration::ZERO, operation)];
    let some = |rng: &mut Rng| rng.bool().then(|| rng.usize(..scene.servers));
    match rng.u8(..100) {
        0..=44 => now(Operation::Switchover { to: some(rng) }),
        45..=54 => now(Operation::Failover { to: some(rng), force: rng.bool() }),
        55..=69 => {
            let long = rng.u64(500..40_000);
            if rng.bool() {
                return now(Operation::Pause { ms: Some(long) });
            }
            vec![
                (Duration::ZERO, Operation::Pause { ms: None }),
                (Duration::from_millis(long), Operation::Resume),
            ]
        }
        70..=71 => now(Operation::Resume),
        72..=74 => now(Operation::Idle(some_of(rng, &IdleRequest::USUAL))),
        75..=79 => now(Operation::PromoteByHand(rng.usize(..scene.servers))),
        80..=86 => {
            let (server, of) = (rng.usize(..scene.servers), rng.usize(..scene.servers));
            if server == of { Vec::new() } else { now(Operation::FollowByHand { server, of }) }
        }
        87..=94 => {
            let server = rng.usize(..scene.servers);
            let long = Duration::from_millis(rng.u64(500..60_000));
            vec![
                (Duration::ZERO, Operation::Rule { server, never: true }),
                (long, Operation::Rule { server, never: false }),
            ]
        }
        95.. => now(Operation::Replace),
    }
}

/// What people do so rarely that it is drawn apart.
pub(crate) fn draw_besides(rng: &mut Rng, scene: &Scene) -> Vec<(Duration, Operation)> {
    let now = |operation| vec![(Duration::ZERO, operation)];
    match rng.u8(..8) {
        0 => {
            let long = Duration::from_millis(rng.u64(500..40_000));
            vec![(Duration::ZERO, Operation::PauseAll), (long, Operation::ResumeAll)]
        }
        1 => now(Operation::ReplaceByNone),
        2 => now(Operation::ReplaceByAddress),
        3 | 4 => now(Operation::Forget(rng.usize(..scene.servers))),
        5 => now(Operation::AskFollower),
        6.. => now(Operation::Idle(some_of(rng, &IdleRequest::RARE))),
    }
}

fn some_of(rng: &mut Rng, requests: &[IdleRequest]) -> IdleRequest {
    requests[rng.usize(..requests.len())]
}
