//! What a seed means for a whole run: the rules of the group, and what is peculiar to its hooks and servers. Each is drawn apart, so
//! that what else a seed means does not depend on it.

use std::collections::BTreeSet;
use std::time::Duration;

use failover_core::policy::{Fencing, Policy};
use failover_core::record::HookEvent;
use fastrand::Rng;

use super::World;
use crate::model_redis::Server;

/// Draws whether there are hooks.
const HOOKS_SALT: u64 = 0x7059;
/// Draws whether a hook has something against failovers.
const OBJECTIONS_SALT: u64 = 0x0b1e;
/// In one run of so many one has.
const OBJECTING_RUNS: u8 = 12;

/// Rules that people use.
pub(super) fn draw_policy(rng: &mut Rng) -> Policy {
    let ms = Duration::from_millis;
    let defaults = Policy::default();
    Policy {
        check_interval: ms([100, 250, 1000][rng.usize(..3)]),
        max_down_time: ms([1000, 3000][rng.usize(..2)]),
        crash_down_time: ms([0, 0, 500][rng.usize(..3)]),
        parallel_syncs: rng.usize(1..3),
        on_failed_failover: if rng.u8(..4) == 0 {
            failover_core::policy::OnFailedFailover::Retry
        } else {
            defaults.on_failed_failover
        },
        ..defaults
    }
}

/// Whether masters are fenced. It is drawn apart, so that what else a seed means does not depend on it.
pub(super) fn draw_fencing(seed: u64, policy: &mut Policy, servers: &mut [Server]) {
    let mut rng = Rng::with_seed(seed ^ 0xfe9cf1);
    if rng.u8(..4) == 0 {
        policy.fencing = Fencing::MinReplicas;
        // One in eight cannot write down what it was told.
        for server in servers {
            server.set_rewrites(rng.u8(..8) != 0);
        }
    }
}

/// What hooks are told of. It is drawn apart, too.
pub(super) fn draw_told(seed: u64) -> BTreeSet<HookEvent> {
    let has_hooks = Rng::with_seed(seed ^ HOOKS_SALT).u8(..3) == 0;
    if has_hooks { HookEvent::ALL.into() } else { BTreeSet::new() }
}

/// Whether a hook has something against failovers.
pub(super) fn draw_objections(seed: u64, draw: bool) -> Option<Rng> {
    let mut rng = Rng::with_seed(seed ^ OBJECTIONS_SALT);
    (draw && rng.u8(..OBJECTING_RUNS) == 0).then_some(rng)
}

/// What a hook says before a failover.
pub(super) enum Objection {
    None,
    Veto,
    Silence,
}

impl World {
    /// While there is trouble, a hook that has something against failovers says so at times, or never answers.
    pub(super) fn objection(&mut self) -> Objection {
        match self.objections.as_mut().filter(|_| self.troubles) {
            Some(rng) => match rng.u8(..6) {
                0 => Objection::Veto,
                1 => Objection::Silence,
                _ => Objection::None,
            },
            None => Objection::None,
        }
    }
}
