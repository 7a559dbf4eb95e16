//! What is said at most once a minute of each: a node that is refused tries again many times a second.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use failover_core::time::Time;

use crate::clock::Clock;

/// How long nothing more is said of the same one.
const QUIET: Duration = Duration::from_secs(60);
/// Most that are remembered; beyond it nothing is said of any other until one of them is forgotten.
const REMEMBERED_MAX: usize = 256;

/// Warnings about nodes or hosts.
#[derive(Debug)]
pub(super) struct Warnings<K> {
    clock: Clock,
    said: Mutex<BTreeMap<K, Time>>,
}

impl<K: Ord> Warnings<K> {
    pub(super) fn new(clock: Clock) -> Self {
        Self { clock, said: Mutex::default() }
    }

    /// Logs it, unless something was logged of the same one within the last minute.
    pub(super) fn warn(&self, about: K, sentence: &str) {
        if self.is_due(about, self.clock.now()) {
            tracing::warn!("{sentence}");
        }
    }

    fn is_due(&self, about: K, now: Time) -> bool {
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        if said.get(&about).is_some_and(|at| now.since(*at) < QUIET) {
            return false;
        }
        if said.len() >= REMEMBERED_MAX {
            said.retain(|_, at| now.since(*at) < QUIET);
        }
        if said.len() >= REMEMBERED_MAX {
            return false;
        }
        said.insert(about, now);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_heard_once_a_minute_and_memory_is_bounded() {
        let warnings = Warnings::new(Clock::start());
        let at = Time::from_millis;
        assert!(warnings.is_due(1, at(0)));
        assert!(!warnings.is_due(1, at(59_999)));
        assert!(warnings.is_due(2, at(59_999)));
        assert!(warnings.is_due(1, at(60_000)));
        let heard = (10..10_000).filter(|about| warnings.is_due(*about, at(60_001))).count();
        assert_eq!(heard, REMEMBERED_MAX - 2);
        assert!(warnings.is_due(9_999, at(130_000)), "there is room again");
    }
}
