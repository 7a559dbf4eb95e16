//! When an instance is asked because somebody wants to know, and not because its turn has come.

use std::time::Duration;

use super::Watch;
use crate::time::Time;
use crate::view::How;

/// How long one is left alone that answered, and said nothing of itself.
const WORDLESS_PAUSE: Duration = Duration::from_millis(50);

impl Watch {
    /// Asks for a probe at a moment or earlier, unless one that was sent at `since` or later has no answer yet. An
    /// instance in trouble is asked at its own pace already, and refusals come back as fast as they are asked for.
    pub fn ask(&mut self, at: Time, since: Time) {
        // One that answers and says nothing of itself would be asked as fast as it answers.
        let wordless = matches!(self.how, How::Busy | How::Auth);
        let pause = self.last_reply.filter(|_| wordless).map(|reply| reply + WORDLESS_PAUSE);
        let at = pause.map_or(at, |pause| at.max(pause));
        let asked = self.unanswered.iter().any(|(_, asked_at)| *asked_at >= since);
        if !asked && self.trouble.is_none() {
            self.next_probe = self.next_probe.min(at);
        }
    }
}
