//! Small examples for unit tests of this crate.

use crate::addr::Addr;
use crate::event::{Health, Probed};
use crate::instance::{Facts, Flavor, Link, ReplicationId, Role};
use crate::time::Time;

pub(crate) fn addr(port: u16) -> Addr {
    Addr::new("127.0.0.1", port).expect("a valid address")
}

pub(crate) fn at(ms: u64) -> Time {
    Time::from_millis(1_000_000 + ms)
}

pub(crate) fn id(name: &str) -> ReplicationId {
    ReplicationId(name.into())
}

/// A master of the history "h" at offset 100.
pub(crate) fn master(asked_at: Time) -> Facts {
    Facts {
        asked_at,
        flavor: Flavor::Redis,
        version: "7.0.15".into(),
        run_id: Some("run-m".into()),
        role: Role::Master { replicas: Vec::new() },
        replication_id: Some(id("h")),
        second_replication_id: None,
        second_offset: None,
        offset: 100,
        priority: 100,
        ping_period_secs: None,
        can_pause_writes: true,
        keys: None,
        fence: None,
        read_only: false,
        log_is_empty: false,
    }
}

/// A replica of `of`, of the same history and at the same offset.
pub(crate) fn replica(asked_at: Time, of: &Addr, link: Link) -> Facts {
    Facts {
        role: Role::Replica { master: of.clone(), link },
        run_id: Some("run-r".into()),
        ..master(asked_at)
    }
}

pub(crate) fn reply(facts: Facts) -> Probed {
    Probed::Replied { health: Health::Fine, facts: Some(Box::new(facts)), socket: None }
}
