//! What is kept, and what is wanted at once, has its limits.

use failover_core::policy::{
    HISTORY_PER_GROUP_MAX, INSTANCES_PER_GROUP_MAX, LINEAGE_MAX, REPLICA_EVENTS_PER_GROUP_MAX,
    STEPS_MAX,
};

use super::{Seen, Truth};

/// What one event may have the core want done, for one group.
const ACTIONS_MAX: usize = 64;

pub(crate) fn observe(seen: &Seen<'_>, truth: &Truth<'_>) -> Result<(), String> {
    match seen {
        Seen::Did { actions } => below("actions of one event", *actions, ACTIONS_MAX),
        Seen::Committed { .. } => {
            let history = HISTORY_PER_GROUP_MAX + REPLICA_EVENTS_PER_GROUP_MAX;
            below("entries of history", truth.history, history)?;
            let Some(entry) = truth.entry else { return Ok(()) };
            below("instances", entry.instances.len(), INSTANCES_PER_GROUP_MAX)?;
            below("known histories", entry.lineage.len(), LINEAGE_MAX)?;
            let Some(saga) = &entry.saga else { return Ok(()) };
            below("attempts", saga.attempts.len(), entry.instances.len())?;
            below("steps", saga.history.steps.len(), STEPS_MAX)
        }
        Seen::Asked { .. }
        | Seen::Testified { .. }
        | Seen::Vetted { .. }
        | Seen::Proposed { .. }
        | Seen::Commanded { .. }
        | Seen::Sent { .. }
        | Seen::Took { .. }
        | Seen::Promoted { .. } => Ok(()),
    }
}

fn below(what: &str, count: usize, max: usize) -> Result<(), String> {
    if count > max {
        return Err(format!("{count} {what}, where {max} is the most"));
    }
    Ok(())
}
