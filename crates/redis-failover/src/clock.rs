//! The one place that reads a clock.

use std::time::{Duration, Instant, SystemTime};

use failover_core::time::Time;

/// Gives the core its time: anchored to the wall clock at its start, monotonic from there.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    started: Instant,
    anchor: Time,
}

impl Clock {
    /// Starts to run now.
    #[expect(clippy::disallowed_methods, reason = "this is the one place that reads a clock")]
    pub(crate) fn start() -> Self {
        let since_epoch =
            SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO);
        Self { started: Instant::now(), anchor: Time::ZERO + since_epoch }
    }

    /// What time it is.
    pub(crate) fn now(&self) -> Time {
        self.anchor + self.started.elapsed()
    }

    /// The runtime's instant for a moment, to sleep until it.
    pub(crate) fn instant(&self, time: Time) -> tokio::time::Instant {
        tokio::time::Instant::from_std(self.started + time.since(self.anchor))
    }
}
