//! What a master is by its own doing that lets no group live with it.

use crate::record::{GroupEntry, Kind, Saga};
use crate::watch::Watch;

/// Why a master that answers is none that a group can live with.
pub(super) fn misconfigured(entry: &GroupEntry, watch: &Watch) -> Option<String> {
    let master = &entry.master;
    let facts = watch.facts().filter(|facts| facts.is_master())?;
    let switches = |saga: &Saga| saga.history.kind == Kind::Switchover;
    if facts.read_only && !entry.saga.as_ref().is_some_and(switches) {
        return Some(format!(
            "the master {master} refuses every write: it was made read-only, by hand or by how it was started"
        ));
    }
    facts.flavor.unfit_port(master.port()).map(|why| format!("the master {master} {why}"))
}
