//! Repairs that failed: the same is tried again after a while, which grows.

use std::time::Duration;

use crate::addr::Addr;
use crate::group::{Context, Group};
use crate::node::Token;
use crate::record::Kind;
use crate::time::Time;

/// The repairs of an instance that failed in a row.
#[derive(Clone, Copy, Debug)]
pub(in crate::group) struct Failing {
    /// What the last of them was.
    kind: Kind,
    /// Before this the same is not tried again.
    until: Time,
    /// How many they are.
    failures: u32,
}

impl Group {
    /// Whether the same was tried with an instance, and failed a moment ago. That another thing failed says nothing: one
    /// that could not be made to copy may be demoted all the same.
    pub(super) fn is_failing(&self, now: Time, addr: &Addr, kind: Kind) -> bool {
        self.failing.get(addr).is_some_and(|last| last.kind == kind && now < last.until)
    }

    /// Begins a repair, or says why not yet.
    pub(in crate::group) fn repair_unless_failing(
        &mut self,
        ctx: &Context<'_>,
        token: Token,
        addr: &Addr,
        kind: Kind,
        why: String,
        drift: bool,
    ) -> Option<String> {
        if self.is_failing(ctx.now, addr, kind) {
            return Some(waits_after_failure(addr, &why));
        }
        self.begin_repair(ctx, token, addr, kind, why, drift);
        None
    }

    /// A repair failed. Its pauses grow, but those of a second master stay short: what it takes meanwhile will be lost.
    pub(super) fn note_failure(&mut self, now: Time, addr: &Addr, kind: Kind) {
        let failures = 1 + self.failing.get(addr).map_or(0, |before| before.failures);
        let longest = match kind == Kind::Demotion {
            true => self.policy.repair_interval,
            false => Duration::MAX,
        };
        let until = now + self.policy.pause_after(failures).min(longest);
        self.failing.insert(addr.clone(), Failing { kind, until, failures });
    }
}

pub(super) fn waits_after_failure(addr: &Addr, why: &str) -> String {
    format!("the last repair of {addr} failed, the next one waits: {why}")
}
