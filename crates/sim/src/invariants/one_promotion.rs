//! At most one promotion per group and epoch; an epoch is taken by one decision and never again.

use std::collections::BTreeMap;

use failover_core::record::{GroupEntry, Kind, Phase};

use super::{Seen, Truth};

#[derive(Debug, Default)]
pub(crate) struct OnePromotion {
    /// Who became a master under which epoch.
    promoted: BTreeMap<u64, usize>,
    /// The largest epoch that a decision took.
    taken: u64,
}

impl OnePromotion {
    pub(crate) fn observe(&mut self, seen: &Seen<'_>, truth: &Truth<'_>) -> Result<(), String> {
        match seen {
            Seen::Promoted { server, epoch, .. } => {
                let first = *self.promoted.entry(*epoch).or_insert(*server);
                if first == *server {
                    return Ok(());
                }
                Err(format!(
                    "{} and {} were both promoted under epoch {epoch}",
                    truth.addrs[first], truth.addrs[*server]
                ))
            }
            Seen::Committed { before } => {
                let Some(entry) = truth.entry else {
                    // Guarded again, the group counts anew.
                    *self = Self::default();
                    return Ok(());
                };
                let (Some(decided), was) = (decision(entry), before.and_then(decision)) else {
                    return Ok(());
                };
                if was == Some(decided) {
                    return Ok(());
                }
                if entry.epoch <= self.taken {
                    return Err(format!("epoch {} was taken a second time", entry.epoch));
                }
                self.taken = entry.epoch;
                Ok(())
            }
            Seen::Asked { .. }
            | Seen::Vetted { .. }
            | Seen::Proposed { .. }
            | Seen::Commanded { .. }
            | Seen::Sent { .. }
            | Seen::Took { .. }
            | Seen::Testified { .. }
            | Seen::Did { .. } => Ok(()),
        }
    }
}

/// The promotion that is decided and not done: of which history entry, which try.
fn decision(entry: &GroupEntry) -> Option<(&str, usize)> {
    entry
        .saga
        .as_ref()
        .filter(|saga| saga.history.kind == Kind::Failover && saga.phase == Phase::Decided)
        .map(|saga| (saga.history.id.as_str(), saga.attempts.len()))
}
