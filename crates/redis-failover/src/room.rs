//! How many instances this process can be connected to at a time: each connection takes a descriptor.
//!
//! The limit is only read here. The program raises it at its start; the library leaves that to its host.

use failover_core::policy::Room;
use rustix::process::{Resource, getrlimit};

/// What is kept for everything else, at least: HTTP clients, other nodes, the store, files.
const KEPT_DESCRIPTORS_MIN: u64 = 64;
/// And one in so many of all: an instance in doubt takes a second connection.
const KEPT_DESCRIPTORS_SHARE: u64 = 16;

/// What fits below the limit of open files that holds now; `None` where there is no such limit.
pub(crate) fn room() -> Option<Room> {
    getrlimit(Resource::Nofile).current.map(room_below)
}

fn room_below(limit: u64) -> Room {
    let kept = (limit / KEPT_DESCRIPTORS_SHARE).max(KEPT_DESCRIPTORS_MIN);
    let instances_max = usize::try_from(limit.saturating_sub(kept)).unwrap_or(usize::MAX);
    let why = format!(
        "it may have {limit} files and connections open and keeps {kept} for itself; raise that limit (LimitNOFILE= of its \
         systemd unit, --ulimit nofile= of its container, ulimit -n before it is started) and restart it, or let another \
         cluster guard some of the groups"
    );
    Room { instances_max, why }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn something_is_kept_of_every_limit() {
        assert_eq!(room_below(20_000).instances_max, 18_750);
        assert_eq!(room_below(256).instances_max, 192);
        assert_eq!(room_below(10).instances_max, 0);
    }
}
