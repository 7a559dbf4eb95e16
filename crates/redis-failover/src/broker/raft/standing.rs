//! What the rest of the program asks a running member: whether it may act, and how fresh is what it has.

use std::time::Duration;

use failover_core::node::Token;

use super::RaftBroker;

impl RaftBroker {
    /// Whether this node leads under this token, and its lease holds now.
    pub(crate) fn allows(&self, token: Token) -> bool {
        let network = &self.0.network;
        network.lease.allows(token, network.clock.now())
    }

    /// How old what this node shows may be: since when nobody who leads was heard of. `None`: nobody ever was.
    pub(crate) fn age(&self) -> Option<Duration> {
        let leader = self.0.raft.metrics().borrow().current_leader;
        let network = &self.0.network;
        network.lease.quorum_age(network.clock.now()).or_else(|| self.leader_age(leader))
    }

    fn leader_age(&self, leader: Option<super::types::MemberId>) -> Option<Duration> {
        let network = &self.0.network;
        let heard = network.contacts.leader(leader?)?;
        Some(network.clock.now().since(heard))
    }
}
