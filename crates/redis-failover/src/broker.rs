//! How nodes agree: one contract, a closed set of brokers.
//!
//! A broker says who leads and who votes, makes proposals agreed under a fencing token, and hands out the fence that is
//! asked right before a server is changed. What is agreed is the record of the core; a broker only stores it.

pub(crate) mod raft;

use std::time::Duration;

use failover_core::event::{Event, ProposalId};
use failover_core::node::{Leadership, NodeId, Token};
use failover_core::record::Change;

use raft::RaftBroker;

/// The broker in use. A clone is the same one.
#[derive(Clone, Debug)]
pub(crate) enum Broker {
    /// One node, alone: what it proposes is committed at once, and forgotten when it ends.
    Solo {
        /// The one member.
        node: NodeId,
    },
    /// Several nodes, or one that remembers, through the Raft that is built in.
    Raft(RaftBroker),
}

/// The only term of a node that is alone.
const SOLO_TOKEN: Token = Token(1);

impl Broker {
    /// Its name in settings and answers.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Solo { .. } => "none",
            Self::Raft(_) => "raft",
        }
    }

    /// What is to be known before anything else: who votes, who leads.
    pub(crate) fn first_events(&self) -> Vec<Event> {
        match self {
            Self::Solo { node } => vec![
                Event::Voters(vec![node.clone()]),
                Event::Leadership(Leadership::Leader(SOLO_TOKEN)),
            ],
            // They come with everything else that it says by itself.
            Self::Raft(_) => Vec::new(),
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
            Self::Raft(raft) => raft.propose(id, token, changes),
        }
    }

    /// The newest entry of the log that this node has: whatever it committed is in it or before it.
    pub(crate) fn log_index(&self) -> u64 {
        match self {
            Self::Solo { .. } => 0,
            Self::Raft(raft) => raft.log_index(),
        }
    }

    /// Waits until this node has applied the log up to an entry, and told what came of it.
    pub(crate) async fn applied(&self, index: u64) {
        match self {
            Self::Solo { .. } => {}
            Self::Raft(raft) => raft.applied(index).await,
        }
    }

    /// How old what this node shows may be; `None`: it was never told anything.
    pub(crate) fn age(&self) -> Option<Duration> {
        match self {
            Self::Solo { .. } => Some(Duration::ZERO),
            Self::Raft(raft) => raft.age(),
        }
    }

    /// Why the other nodes do not take this one for one of them, when they lately said so: a sentence.
    pub(crate) fn problem(&self) -> Option<String> {
        match self {
            Self::Solo { .. } => None,
            Self::Raft(raft) => raft.problem(),
        }
    }

    /// Whether a command that was decided under this token may be written now. Asked right before each write.
    pub(crate) fn allows(&self, token: Token) -> bool {
        match self {
            Self::Solo { .. } => token == SOLO_TOKEN,
            Self::Raft(raft) => raft.allows(token),
        }
    }

    /// Whether this node may write a command for a leader that decided it under this token.
    pub(crate) fn allows_leader(&self, token: Token) -> bool {
        match self {
            Self::Solo { .. } => false,
            Self::Raft(raft) => raft.follows(token),
        }
    }
}
