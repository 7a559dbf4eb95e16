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

    /// How old what this node shows may be; `None`: nobody who leads was ever heard of.
    pub(crate) fn age(&self) -> Option<Duration> {
        let network = &self.0.network;
        network.contacts.last_led().map(|at| network.clock.now().since(at))
    }
}
