//! How time goes for a node: what its clock says, and how long its loop takes for each thing.

use std::time::Duration;

use failover_core::time::Time;

use super::World;
use super::node::Node;
use crate::faults::Clock;

/// Products of it with what a clock counts in weeks still fit.
const MILLION: i64 = 1_000_000;

/// A clock, how fast the loop is, and until when it is busy.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    clock: Clock,
    /// When the clock was set, which is when the process started.
    set_at: Time,
    /// What one event takes.
    step: Duration,
    busy_until: Time,
}

impl Pace {
    /// Of a process that starts now.
    pub(super) fn new(now: Time, clock: Clock) -> Self {
        Self { clock, set_at: now, step: Duration::ZERO, busy_until: now }
    }

    /// From now on each event takes so long.
    pub(super) fn slow_down(&mut self, step: Duration) {
        self.step = step;
    }

    /// Whether events take longer than they should.
    pub(super) fn is_slow(&self) -> bool {
        !self.step.is_zero()
    }

    /// Until when the loop does something else.
    pub(super) fn busy_until(&self) -> Time {
        self.busy_until
    }

    /// The loop has something to do.
    pub(super) fn take(&mut self, now: Time) {
        self.busy_until = now + self.step;
    }

    /// What the clock says.
    pub(super) fn local(&self, now: Time) -> Time {
        let ran = self.since_set(now);
        self.after_set(self.ahead().saturating_add(ran.saturating_mul(self.rate()) / MILLION))
    }

    /// The first moment at which the clock says this, or more.
    pub(super) fn when(&self, local: Time) -> Time {
        let ran = self.since_set(local).saturating_sub(self.ahead());
        // Rounded up: a clock that is asked too early would be asked again and again.
        let rounded = ran.saturating_mul(MILLION).saturating_add(self.rate() - 1);
        self.after_set(rounded.div_euclid(self.rate()))
    }

    /// Microseconds from when the clock was set.
    fn since_set(&self, moment: Time) -> i64 {
        signed(moment) - signed(self.set_at)
    }

    fn after_set(&self, micros: i64) -> Time {
        Time::from_micros(
            u64::try_from(signed(self.set_at).saturating_add(micros)).unwrap_or_default(),
        )
    }

    fn ahead(&self) -> i64 {
        self.clock.ahead_ms.saturating_mul(1000)
    }

    /// Microseconds that the clock counts in a second.
    fn rate(&self) -> i64 {
        MILLION + i64::from(self.clock.fast_ppm.max(-500_000))
    }
}

fn signed(moment: Time) -> i64 {
    i64::try_from(moment.as_micros()).unwrap_or(i64::MAX)
}

impl World {
    /// What a node's clock says.
    pub(super) fn local(&self, node: usize) -> Time {
        self.nodes[node].pace.local(self.now)
    }
}

impl Node {
    /// When its core wants to be woken, and its loop can.
    pub(super) fn timer(&self) -> Option<Time> {
        Some(self.due_at?.max(self.pace.busy_until()))
    }

    /// The core was told something: it may want to be woken at another moment.
    pub(super) fn note_due(&mut self) {
        self.due_at = self.shell.fleet.poll_timeout().map(|local| self.pace.when(local));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_is_asked_for_a_moment_when_it_has_come() {
        let start = Time::from_millis(1_000_000_000);
        for (ahead_ms, fast_ppm) in [(0, 0), (-90_000, 30_001), (300_000, -50_000), (17, 199)] {
            let pace = Pace::new(start, Clock { ahead_ms, fast_ppm });
            for micros in [0, 1, 7, 999_999, 1_000_000, 123_456_789] {
                let now = start + Duration::from_micros(micros);
                let local = pace.local(now);
                let when = pace.when(local);
                assert!(when <= now && pace.local(when) >= local, "{ahead_ms} {fast_ppm} {micros}");
            }
        }
        let fast = Pace::new(start, Clock { ahead_ms: 2_000, fast_ppm: 50_000 });
        let later = start + Duration::from_secs(10);
        assert_eq!(fast.local(later), start + Duration::from_millis(12_500));
    }
}
