//! In the end every replica has what its master has, in the same order. LedisDB finds no difference by itself: there it is the
//! program that has to know who may hold something else.
//!
//! It cannot where a LedisDB master lost its data and was written to again before every node looked: it has no name for its
//! process, and once it has more than before nothing tells that this is something else.

use super::Truth;
use crate::model_redis::{Part, Value};

/// What the replicas of the recorded master hold, once the group is whole again.
pub(crate) fn look(truth: &Truth<'_>) -> Result<(), String> {
    let Some(entry) = truth.entry.filter(|_| !truth.forgot()) else { return Ok(()) };
    let Some(index) = truth.index(&entry.master) else { return Ok(()) };
    let held = |server: usize| -> Vec<Value> {
        truth.servers[server].data().iter().map(|kept| kept.value).collect()
    };
    let master = held(index);
    for (other, server) in truth.servers.iter().enumerate() {
        let addr = server.addr();
        let owes = entry.instances.get(addr).is_some_and(|known| known.copy.is_some());
        if server.part() != Part::Replica(index) || !server.link_up() || owes {
            continue;
        }
        let held = held(other);
        // What is on its way yet is the end of it.
        let common = held.iter().zip(&master).take_while(|(one, another)| one == another);
        let common = common.count();
        if common < held.len() {
            return Err(format!(
                "{addr} has {} writes, of which only the first {common} are those of {}",
                held.len(),
                entry.master
            ));
        }
    }
    Ok(())
}
