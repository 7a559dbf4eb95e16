//! A group that is halted, or paused on request, is not touched.

use failover_core::action::Command;
use failover_core::record::Status;

use super::{Seen, Truth};

pub(crate) fn observe(seen: &Seen<'_>, truth: &Truth<'_>) -> Result<(), String> {
    let Seen::Commanded { addr, command, .. } = seen else { return Ok(()) };
    let Some(entry) = truth.entry else { return Ok(()) };
    // Who takes a group away has its servers' settings put back, whatever it is.
    if entry.leaving.is_some() && matches!(command, Command::Fence { .. }) {
        return Ok(());
    }
    let how = match entry.status {
        Status::Active => return Ok(()),
        Status::Halted { .. } => "halted",
        Status::Paused { .. } => "paused",
        Status::Resuming => "about to be looked at after a pause",
    };
    Err(format!("{addr} was commanded ({command:?}) while the group is {how}"))
}
