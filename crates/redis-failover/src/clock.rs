//! The one place that reads a clock.

use std::time::{Duration, SystemTime};

use failover_core::time::Time;
use rustix::time::{ClockId, clock_gettime};
use tokio::time::Instant;

/// Gives the core its time: anchored to the wall clock at its start, monotonic from there.
///
/// It goes on while the system is suspended, which the usual monotonic clock does not: a leader that wakes up from that
/// would believe that its lease was young, long after the others elected another one.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    started: Duration,
    anchor: Time,
}

impl Clock {
    /// Starts to run now.
    #[expect(clippy::disallowed_methods, reason = "this is the one place that reads a clock")]
    pub(crate) fn start() -> Self {
        let since_epoch =
            SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO);
        Self { started: since_boot(), anchor: Time::ZERO + since_epoch }
    }

    /// What time it is.
    pub(crate) fn now(&self) -> Time {
        self.anchor + since_boot().saturating_sub(self.started)
    }

    /// The runtime's instant for a moment, to sleep until it. The runtime stands still while the system is suspended, so
    /// that one made before that is late by as much; whoever wakes up looks at the time again.
    pub(crate) fn instant(&self, time: Time) -> Instant {
        let (now, instant) = (self.now(), Instant::now());
        let past = instant.checked_sub(now.since(time)).unwrap_or(instant);
        past + time.since(now)
    }
}

/// The time since the system was started, also while it was suspended.
fn since_boot() -> Duration {
    // It is neither before the start nor ever refused.
    Duration::try_from(clock_gettime(ClockId::Boottime)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_the_same_instant_by_both_clocks() {
        let clock = Clock::start();
        let (now, instant) = (clock.now(), Instant::now());
        let off = |one: Instant, other: Instant| {
            one.checked_duration_since(other).unwrap_or_else(|| other - one)
        };
        for ms in [0, 1, 1000, 60_000] {
            let away = Duration::from_millis(ms);
            assert!(off(clock.instant(now + away), instant + away) < Duration::from_millis(50));
        }
        let past = clock.instant(now - Duration::from_millis(10));
        assert!(off(past + Duration::from_millis(10), instant) < Duration::from_millis(50));
        assert!(clock.now() >= now);
    }
}
