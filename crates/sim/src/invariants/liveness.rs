//! After the last fault, within a bound: exactly one master, the recorded one; every replica follows it with its link
//! up; the group is healthy, or halted and waits for a person.
//!
//! Three more things are left to people, who are told: a chain of replicas that was there before the group was registered, a
//! group that was registered with a replica as its master while nobody was one, and a LedisDB master that lost its data where
//! only some of the nodes could see it.

use std::time::Duration;

use failover_core::record::{GroupEntry, Status};
use failover_core::view::GroupView;

use crate::model_redis::{Part, Server};

/// What is left when all servers are back: a failed failover that is tried again after `failover_timeout` (60 s), a
/// link that is given up after `repl-timeout` (60 s), and the repairs behind it.
pub(crate) const BOUND: Duration = Duration::from_secs(180);

/// Whether it is so now; the sentence follows "after the last fault".
pub(crate) fn settled(
    servers: &[Server],
    entry: &GroupEntry,
    views: &[GroupView],
    fenced: bool,
    forgot: bool,
) -> Result<(), String> {
    if let Some(server) = servers.iter().find(|server| !server.serves()) {
        return Err(format!("{} is not back", server.addr()));
    }
    if let Status::Halted { .. } = entry.status {
        return Ok(());
    }
    if let Some(saga) = &entry.saga {
        return Err(format!("a {:?} is not finished", saga.history.kind));
    }
    if !entry.untold.is_empty() {
        return Err(format!("hooks were not told of {} occurrences", entry.untold.len()));
    }
    let says = |name: &str| views.iter().any(|view| view.diagnosis.name == name);
    // The others see a master that is well, so that there is no majority for another one.
    if forgot && says("MasterRestartedEmpty") {
        return Ok(());
    }
    let Some(master) = servers.iter().position(|server| *server.addr() == entry.master) else {
        return Err(format!("the recorded master {} does not exist", entry.master));
    };
    // Nobody is promoted for a master that was a replica already when it was registered.
    if !entry.confirmed && servers[master].part() != Part::Master {
        return Ok(());
    }
    let is_chained = |server: &Server, of: usize| {
        let attached = entry.instances.get(server.addr()).is_some_and(|known| known.attached);
        let middle = &servers[of];
        let below = middle.part() == Part::Replica(master) && middle.link_up();
        !attached && below && server.link_up() && says("ReplicaOfWrongMaster")
    };
    let mut chained = false;
    for (index, server) in servers.iter().enumerate() {
        let addr = server.addr();
        match (server.part(), index == master) {
            (Part::Master, true) if server.waits_for_replicas() => {
                return Err(format!("{addr} takes no writes for want of replicas"));
            }
            (Part::Master, true) if !server.takes_writes() => {
                return Err(format!("{addr} refuses every write"));
            }
            (Part::Master, true) => {}
            (Part::Master, false) => {
                return Err(format!("{addr} is a master beside the recorded {}", entry.master));
            }
            (Part::Replica(_), true) => {
                return Err(format!("the recorded master {addr} is a replica"));
            }
            (Part::Replica(of), false) if is_chained(server, of) => chained = true,
            (Part::Replica(of), false) if of != master => {
                return Err(format!("{addr} follows another than {}", entry.master));
            }
            (Part::Replica(_), false) if !server.link_up() => {
                return Err(format!("the link of {addr} is down"));
            }
            (Part::Replica(_), false) => {}
        }
    }
    if let Some((addr, _)) = entry.instances.iter().find(|(_, known)| known.copy.is_some()) {
        return Err(format!("{addr} does not have its full copy yet"));
    }
    // One that forgets its setting with every restart is set again ever less often.
    let open = |server: &&Server| {
        let settings = server.settings();
        fenced && settings.rewrites && !settings.min_replicas.is_on()
    };
    if let Some(open) = servers.iter().find(open) {
        return Err(format!("{} is not fenced", open.addr()));
    }
    let forgetful = fenced && servers.iter().any(|server| !server.settings().rewrites);
    for view in views {
        if view.master != entry.master {
            return Err(format!("a node shows {} as the master", view.master));
        }
        let reported = chained && view.diagnosis.name == "ReplicaOfWrongMaster"
            || forgetful && view.diagnosis.name == "FencingNotDurable";
        if view.diagnosis.name != "Healthy" && !reported {
            return Err(format!("a node says {}: {}", view.diagnosis.name, view.diagnosis.reason));
        }
    }
    Ok(())
}
