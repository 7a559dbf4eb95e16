//! What the rest of the program asks a running member: whether it may act, and how fresh is what it has.

use std::time::Duration;

use failover_core::addr::Addr;
use failover_core::node::Token;

use super::{RaftBroker, Running};

/// A refusal that is older says nothing of now.
const REFUSED_AGE_MAX: Duration = Duration::from_secs(2);

impl RaftBroker {
    /// Whether this node leads under this token, and its lease holds now.
    pub(crate) fn allows(&self, token: Token) -> bool {
        self.running().is_some_and(|running| running.token() == Some(token))
    }

    /// Whether this node follows the leader of this term, and heard of it within one election timeout: only then it may
    /// write for it.
    pub(crate) fn follows(&self, token: Token) -> bool {
        let Some(running) = self.running() else { return false };
        let term = running.raft.metrics().borrow().current_term;
        term == token.0
            && self.leader_age(&running).is_some_and(|age| age < running.network.election_max)
    }

    /// Where this node is reached by the others.
    pub(crate) fn addr(&self) -> &Addr {
        &self.0.settings.addr
    }

    /// The newest term that this node knows of.
    pub(crate) fn term(&self) -> Option<u64> {
        self.running().map(|running| running.raft.metrics().borrow().current_term)
    }

    /// Where the leader is reached by the others, this node included, as far as this one believes in it.
    pub(crate) fn leader_addr(&self) -> Option<Addr> {
        let running = self.running()?;
        if running.token().is_some() {
            return Some(self.addr().clone());
        }
        self.leader_age(&running).filter(|age| *age < running.network.election_max * 2)?;
        running.leader().filter(|leader| leader != self.addr())
    }

    /// How old what this node shows may be; `None`: nobody who leads was ever heard of.
    pub(crate) fn age(&self) -> Option<Duration> {
        self.0.contacts.last_led().map(|at| self.0.clock.now().since(at))
    }

    /// Why the others do not take this node for one of them, when they lately said so: a sentence.
    pub(crate) fn problem(&self) -> Option<String> {
        if self.age().is_some_and(|age| age < REFUSED_AGE_MAX) {
            return None;
        }
        let Some(running) = self.running() else {
            return Some(
                "this node has no record and is no member of a cluster yet: its log says what it waits for".to_owned(),
            );
        };
        if running.is_outside() {
            return Some(format!(
                "this node is no member of its cluster any more, or not yet: POST /v1/cluster/members {{\"addr\":\"{}\"}} on \
                 a member takes it in",
                self.addr()
            ));
        }
        if let Some(why) = self.waits_for_founders(&running) {
            return Some(why);
        }
        let (why, at) = self.0.contacts.refused()?;
        (self.0.clock.now().since(at) < REFUSED_AGE_MAX).then_some(why)
    }

    fn leader_age(&self, running: &Running) -> Option<Duration> {
        let leader = running.raft.metrics().borrow().current_leader?;
        let heard = self.0.contacts.leader(leader)?;
        Some(self.0.clock.now().since(heard))
    }
}
