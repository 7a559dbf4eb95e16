//! How nodes agree: one contract, a closed set of brokers.
//!
//! A broker says who leads and who votes, makes proposals agreed under a fencing token, and hands out the fence that is
//! asked right before a server is changed. What is agreed is the record of the core; a broker only stores it.

pub(crate) mod outer;
pub(crate) mod raft;

use std::time::Duration;

use failover_core::addr::Addr;
use failover_core::event::{Event, ProposalId};
use failover_core::node::{Leadership, NodeId, Token};
use failover_core::record::Change;

use crate::cluster::{MemberView, NotChanged};
use outer::OuterBroker;
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
    /// Several nodes, through an etcd or a ZooKeeper that runs apart from them.
    Outer(OuterBroker),
}

/// Why a broker does not work any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// It was told to stop.
    Stopped,
    /// It cannot go on: a sentence.
    Failed(String),
}

/// The only term of a node that is alone.
const SOLO_TOKEN: Token = Token(1);

impl Broker {
    /// Its name in settings and answers.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Solo { .. } => "none",
            Self::Raft(_) => "raft",
            Self::Outer(outer) => outer.name(),
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
            Self::Raft(_) | Self::Outer(_) => Vec::new(),
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
            Self::Outer(outer) => outer.propose(id, token, changes),
        }
    }

    /// The newest entry of the log that this node has: whatever it committed is in it or before it.
    pub(crate) fn log_index(&self) -> u64 {
        match self {
            Self::Solo { .. } => 0,
            Self::Raft(raft) => raft.log_index(),
            Self::Outer(outer) => outer.log_index(),
        }
    }

    /// Waits until this node has applied the log up to an entry, and told what came of it.
    pub(crate) async fn applied(&self, index: u64) {
        match self {
            Self::Solo { .. } => {}
            Self::Raft(raft) => raft.applied(index).await,
            Self::Outer(outer) => outer.applied(index).await,
        }
    }

    /// How old what this node shows may be; `None`: it was never told anything.
    pub(crate) fn age(&self) -> Option<Duration> {
        match self {
            Self::Solo { .. } => Some(Duration::ZERO),
            Self::Raft(raft) => raft.age(),
            Self::Outer(outer) => outer.age(),
        }
    }

    /// Why the other nodes do not take this one for one of them, when they lately said so: a sentence.
    pub(crate) fn problem(&self) -> Option<String> {
        match self {
            Self::Solo { .. } => None,
            Self::Raft(raft) => raft.problem(),
            Self::Outer(outer) => outer.problem(),
        }
    }

    /// Whether a command that was decided under this token may be written now. Asked right before each write.
    pub(crate) fn allows(&self, token: Token) -> bool {
        match self {
            Self::Solo { .. } => token == SOLO_TOKEN,
            Self::Raft(raft) => raft.allows(token),
            Self::Outer(outer) => outer.allows(token),
        }
    }

    /// Whether this node may write a command for a leader that decided it under this token.
    pub(crate) fn allows_leader(&self, token: Token) -> bool {
        match self {
            Self::Solo { .. } => false,
            Self::Raft(raft) => raft.follows(token),
            Self::Outer(outer) => outer.follows(token),
        }
    }

    /// Makes sure of who leads, where that is not known from a moment ago: before a command is written for a leader.
    pub(crate) async fn confirm(&self) {
        match self {
            Self::Solo { .. } | Self::Raft(_) => {}
            Self::Outer(outer) => outer.confirm().await,
        }
    }

    /// The newest fencing token that this node knows of, where there is more than one.
    pub(crate) fn term(&self) -> Option<u64> {
        match self {
            Self::Solo { .. } => None,
            Self::Raft(raft) => raft.term(),
            Self::Outer(outer) => outer.term(),
        }
    }

    /// Who leads, this node included, as far as this one believes in it.
    pub(crate) fn leader(&self) -> Option<NodeId> {
        match self {
            Self::Solo { node } => Some(node.clone()),
            Self::Raft(raft) => raft.leader_addr().map(|addr| NodeId::new(&addr.to_string())),
            Self::Outer(outer) => outer.leader(),
        }
    }

    /// Where another node is called; `None`: it is not known, or the node is not there.
    pub(crate) fn address_of(&self, node: &NodeId) -> Option<Addr> {
        match self {
            Self::Solo { .. } => None,
            // Its name is its address.
            Self::Raft(_) => node.to_string().parse().ok(),
            Self::Outer(outer) => outer.address_of(node),
        }
    }

    /// Everyone in the cluster.
    pub(crate) fn members(&self) -> Vec<MemberView> {
        match self {
            Self::Solo { .. } => Vec::new(),
            Self::Raft(raft) => raft.members(),
            Self::Outer(outer) => outer.members(),
        }
    }

    /// Takes a node in, in the place of another if one is named.
    ///
    /// # Errors
    /// When it is not taken in, or that is not known.
    pub(crate) async fn add(&self, addr: &Addr, replaces: Option<&Addr>) -> Result<(), NotChanged> {
        match self {
            Self::Solo { .. } => Err(NotChanged::alone()),
            Self::Raft(raft) => raft.add(addr, replaces).await,
            Self::Outer(outer) => outer.add(addr, replaces).await,
        }
    }

    /// Takes a member out.
    ///
    /// # Errors
    /// When it is not taken out, or that is not known.
    pub(crate) async fn remove(&self, addr: &Addr) -> Result<(), NotChanged> {
        match self {
            Self::Solo { .. } => Err(NotChanged::alone()),
            Self::Raft(raft) => raft.remove(addr).await,
            Self::Outer(outer) => outer.remove(addr).await,
        }
    }

    /// Completes when it does not work any more.
    pub(crate) async fn ended(&self) -> Ended {
        let mut ended = match self {
            // A node that is alone goes on as long as its process.
            Self::Solo { .. } => return std::future::pending().await,
            Self::Raft(raft) => raft.ended(),
            Self::Outer(outer) => outer.ended(),
        };
        match ended.wait_for(Option::is_some).await.as_deref() {
            Ok(Some(end)) => end.clone(),
            Ok(None) | Err(_) => Ended::Stopped,
        }
    }

    /// Ends cleanly, so that another node leads at once.
    pub(crate) async fn stop(&self) {
        match self {
            Self::Solo { .. } => {}
            Self::Raft(raft) => raft.stop().await,
            Self::Outer(outer) => outer.stop().await,
        }
    }
}
