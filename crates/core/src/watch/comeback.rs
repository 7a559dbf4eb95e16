//! How an instance that was away comes back.

use crate::instance::Facts;
use crate::time::Time;

/// How an instance that was away, or was never seen before, came back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Comeback {
    /// It cannot have served anybody until this moment, or was not heard since: the last refusal, the last `LOADING`, or
    /// the beginning of its silence. `None` when this node never looked before.
    pub earliest: Option<Time>,
    /// When it was first seen to serve.
    pub seen_at: Time,
    /// The offset that it reported before it was away, when it is the same process.
    pub offset: Option<u64>,
}

/// What is known of the time in which an instance is away, and how it ended last.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Absence {
    /// It certainly served nobody at this moment, and did not serve since.
    idle_at: Option<Time>,
    comeback: Option<Comeback>,
}

impl Absence {
    /// It served nobody when it was asked then.
    pub(super) fn idle(&mut self, asked_at: Time) {
        self.idle_at = Some(asked_at);
    }

    /// It serves again, after it was in trouble since a moment.
    pub(super) fn end(
        &mut self,
        now: Time,
        trouble_since: Option<Time>,
        before: Option<&Facts>,
        after: &Facts,
    ) {
        let same = |before: &&Facts| before.run_id.is_some() && before.run_id == after.run_id;
        self.comeback = Some(Comeback {
            earliest: self.idle_at.take().or(trouble_since),
            seen_at: now,
            offset: before.filter(same).map(|before| before.offset),
        });
    }

    pub(super) fn comeback(&self) -> Option<Comeback> {
        self.comeback
    }
}
