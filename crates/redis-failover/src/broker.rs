//! How nodes agree: one contract, a closed set of brokers.
//!
//! A broker says who leads and who votes, makes proposals agreed under a fencing token, and hands out the fence that is
//! asked right before a server is changed. What is agreed is the record of the core; a broker only stores it.

#[expect(dead_code, reason = "not chosen by any setting yet")]
mod raft;

use failover_core::event::{Event, ProposalId};
use failover_core::node::{Leadership, NodeId, Token};
use failover_core::record::Change;

/// The broker in use. A clone is the same one.
#[derive(Clone, Debug)]
pub(crate) enum Broker {
    /// One node, alone: what it proposes is committed at once, and forgotten when it ends.
    Solo {
        /// The one member.
        node: NodeId,
    },
}

/// The only term of a node that is alone.
const SOLO_TOKEN: Token = Token(1);

impl Broker {
    /// Its name in settings and answers.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Solo { .. } => "none",
        }
    }

    /// What is to be known before anything else: who votes, who leads.
    pub(crate) fn first_events(&self) -> Vec<Event> {
        match self {
            Self::Solo { node } => vec![
                Event::Voters(vec![node.clone()]),
                Event::Leadership(Leadership::Leader(SOLO_TOKEN)),
            ],
        }
    }

    /// Makes changes agreed. The answer comes as an event, here and now when there is nobody to wait for.
    pub(crate) fn propose(
        &mut self,
        id: ProposalId,
        token: Token,
        changes: Vec<Change>,
    ) -> Option<Event> {
        match self {
            Self::Solo { .. } if token == SOLO_TOKEN => {
                Some(Event::Committed { id: Some(id), changes })
            }
            Self::Solo { .. } => Some(Event::NotCommitted {
                id,
                why: "it was decided under a term that is over".to_owned(),
            }),
        }
    }

    /// The newest entry of the log that this node has: whatever it committed is in it or before it.
    pub(crate) fn log_index(&self) -> u64 {
        match self {
            Self::Solo { .. } => 0,
        }
    }

    /// Waits until this node has applied the log up to an entry, and told what came of it.
    pub(crate) async fn applied(&self, _index: u64) {
        match self {
            Self::Solo { .. } => {}
        }
    }

    /// What is asked right before a server is changed.
    pub(crate) fn fence(&self) -> Fence {
        match self {
            Self::Solo { .. } => Fence::Solo,
        }
    }
}

/// Whether this node may still act under a token.
#[derive(Clone, Debug)]
pub(crate) enum Fence {
    /// A node that is alone is never deposed.
    Solo,
}

impl Fence {
    /// Whether a command that was decided under this token may be written now.
    pub(crate) fn allows(&self, token: Token) -> bool {
        match self {
            Self::Solo => token == SOLO_TOKEN,
        }
    }

    /// Whether this node may write for a leader that acts under this token.
    pub(crate) fn allows_leader(&self, _token: Token) -> bool {
        match self {
            Self::Solo => false,
        }
    }
}
