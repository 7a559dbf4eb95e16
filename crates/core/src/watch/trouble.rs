//! What is wrong with an instance for the moment, and when that becomes *down*.

use crate::mutation::Mutation;
use crate::policy::Policy;
use crate::time::Time;

/// Something is wrong since a moment, and no valid reply came after it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Trouble {
    /// The end of the connection, the refusal, or the sending of the first unanswered probe.
    pub(super) since: Time,
    /// Its host refuses connections since then.
    pub(super) refused: Option<Time>,
    /// A fresh connection was accepted since it began.
    pub(super) accepted: bool,
    /// The last one that was tried got no answer at all.
    pub(super) unreached: bool,
    /// When one was accepted again after some had got no answer.
    pub(super) reached: Option<Time>,
    /// A fresh connection was tried since it began.
    pub(super) tried_fresh: bool,
    /// A probe went unanswered past its deadline, or was refused: more than an ended connection.
    pub(super) away: bool,
    /// Silence does not count before this moment.
    pub(super) not_before: Time,
    /// This node stood still: a refusal does not count until there is another one.
    pub(super) unproven: bool,
}

/// It is reading its data from disk.
#[derive(Clone, Copy, Debug)]
pub(super) struct Loading {
    pub(super) since: Time,
    pub(super) restarted: bool,
}

/// When trouble becomes down.
pub(super) fn down_at(trouble: &Trouble, policy: &Policy) -> Option<Time> {
    let lasts = match policy.has(Mutation::Hasty) {
        true => policy.max_down_time / 10,
        false => policy.max_down_time,
    };
    let silent = trouble.tried_fresh.then_some((trouble.since + lasts).max(trouble.not_before));
    match trouble.refused.filter(|_| !trouble.unproven) {
        Some(since) => {
            let refused = since + policy.crash_down_time;
            Some(silent.map_or(refused, |silent| silent.min(refused)))
        }
        None => silent,
    }
}
