//! No acknowledged write is gone but for a reason: a master that died or came back without it, or a person. A switchover is
//! none. (Whether the best was made of a reason is for `best-promoted`.)

use failover_core::record::{GroupEntry, Kind};

use super::{Seen, Truth};
use crate::model_redis::{Part, Running, Values};

#[derive(Debug, Default)]
pub(crate) struct KeptWrites {
    /// Acknowledged, and gone for a reason.
    gone: Values,
    /// The recorded master when it was looked at last, and the process that it was.
    master: Option<(usize, u32)>,
    /// Who was promoted last, and the process that it was.
    promoted: Option<(usize, u32)>,
    /// Who was promoted since the recorded master was looked at.
    heirs: Vec<(usize, u32)>,
    /// Something happened since then that may cost writes.
    excused: bool,
}

impl KeptWrites {
    pub(crate) fn observe(&mut self, seen: &Seen<'_>, truth: &Truth<'_>) -> Result<(), String> {
        if let Seen::Promoted { server, .. } = seen {
            let heir = (*server, truth.servers[*server].life());
            self.promoted = Some(heir);
            self.heirs.push(heir);
        }
        let Seen::Committed { before } = seen else { return Ok(()) };
        let kind = |entry: Option<&GroupEntry>| {
            entry.and_then(|entry| entry.saga.as_ref()).map(|saga| saga.history.kind)
        };
        let (was, is) = (kind(*before), kind(truth.entry));
        for kind in [was, is].into_iter().flatten() {
            self.excused |= match kind {
                Kind::Failover | Kind::ManualFailover | Kind::Repair | Kind::Adoption => true,
                Kind::Switchover | Kind::Demotion | Kind::ReplicaEvent => false,
            };
        }
        let another = before.is_none_or(|before| {
            was.is_none() && truth.entry.is_none_or(|entry| entry.master != before.master)
        });
        // Taken over from whoever did it by hand.
        self.excused |= another || truth.touched.contains(&true);
        if was.is_some() == is.is_some() { Ok(()) } else { self.look(truth) }
    }

    /// What the recorded master holds, after something was done.
    pub(crate) fn look(&mut self, truth: &Truth<'_>) -> Result<(), String> {
        let Some(entry) = truth.entry else { return Ok(()) };
        let Some(index) = truth.index(&entry.master) else { return Ok(()) };
        let master = &truth.servers[index];
        if master.part() != Part::Master || master.running() == Running::Dead {
            return Ok(());
        }
        let held = Values::of(master);
        let now = Some((index, master.life()));
        // One that restarted since may have lost everything by itself.
        let restarted = self.master.is_some() && self.master != now && self.promoted != now;
        // So may the one before it, that came back and was written to while nobody knew who was master.
        let old_restarted =
            self.master.is_some_and(|(old, life)| truth.servers[old].life() != life);
        // And whoever was promoted for a while, and died: those that followed it have what it came back with.
        let heir_restarted = std::mem::take(&mut self.heirs)
            .into_iter()
            .any(|(heir, life)| heir != index && truth.servers[heir].life() != life);
        let excused = std::mem::take(&mut self.excused);
        let excused = excused || truth.forgot() || restarted || old_restarted || heir_restarted;
        self.master = now;
        // One that came back may bring what was given up.
        self.gone.remove(&held);
        let mut count = 0;
        for value in truth.written.acknowledged().filter(|value| !held.contains(*value)) {
            if self.gone.insert(value) {
                count += 1;
            }
        }
        if count > 0 && !excused {
            return Err(format!("{count} acknowledged writes are gone from {}", entry.master));
        }
        Ok(())
    }
}
