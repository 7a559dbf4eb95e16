//! How often an instance is looked at while many are in trouble at the same time.

use std::time::Duration;

use super::Watch;
use crate::policy::{DENSE_INSTANCES_MAX, LOST_LOOKS_PER_SECOND_MAX, Policy};
use crate::time::Time;
use crate::view::State;

impl Watch {
    /// Whether it is away, and not merely in doubt: nothing is proven any more by looking at it more often.
    fn is_lost(&self) -> bool {
        self.trouble.is_some() && self.state != State::Up
    }

    /// A pause until the next look, at least as long as so many that are lost require; the looks that prove that one is down
    /// are not put off. One that comes back is not hurried either: many of them that answer late would be given up and
    /// called again before they could.
    pub(super) fn in_turn(&self, wait: Duration) -> Duration {
        if self.is_lost() { wait.max(self.lost_pause) } else { wait }
    }

    /// How many instances are in trouble: each of them that is lost is left alone for as long as that requires.
    pub fn share_looks(&mut self, crowd: usize, policy: &Policy) {
        let crowd = u32::try_from(crowd).unwrap_or(u32::MAX);
        let pause = Duration::from_secs(1) * crowd / LOST_LOOKS_PER_SECOND_MAX;
        self.lost_pause =
            if pause <= policy.reconnect_interval_max { Duration::ZERO } else { pause };
    }

    /// Where many instances are in trouble, one that refuses is asked again less densely: asking takes what replacing the
    /// masters among them needs, and one refusal proved already what the next ones repeat.
    pub fn make_room(&mut self, now: Time, crowd: usize, policy: &Policy) {
        let wait = self.next_probe.since(now);
        let times = u32::try_from(crowd / DENSE_INSTANCES_MAX).unwrap_or(u32::MAX).max(1);
        let longest = policy.check_interval.max(wait);
        self.next_probe = now + wait.saturating_mul(times).min(longest);
    }
}
