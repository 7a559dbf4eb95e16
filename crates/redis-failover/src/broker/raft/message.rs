//! What members, and nodes that want to be members, say to each other.

use failover_core::addr::Addr;
use serde::{Deserialize, Serialize};

use super::network::{self, Reply};
use super::store::Cluster;
use super::types::MemberId;

/// A message to another node.
#[derive(Serialize, Deserialize)]
pub(crate) enum Ask {
    /// Raft's own.
    Raft(network::Ask),
    /// Who are you?
    Hello,
    /// From the leader: take part in this cluster.
    Invite(Cluster),
    /// To the leader, of the cluster with this number: let me vote, in place of whoever was at my address.
    Join { cluster: u64, id: MemberId, addr: Addr },
}

/// The answer to one.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Answer {
    /// To Raft's own.
    Raft(Reply),
    /// I am nobody's member.
    Fresh(Fresh),
    /// I am a member, or on my way to be one.
    Member(About),
    /// I take part, under this number.
    Joined(MemberId),
    /// I am at it.
    Noted,
    /// Ask this one, it leads.
    Elsewhere(Addr),
    /// No; a sentence says why.
    Refused(String),
}

/// A node that is nobody's member.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Fresh {
    /// Which store it has.
    pub(crate) nonce: u64,
    /// Which nodes it was told to found a cluster with, itself among them.
    pub(crate) list: Vec<Addr>,
}

/// A member, and what it knows of its cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct About {
    pub(crate) id: MemberId,
    pub(crate) cluster: Cluster,
    /// Everyone in it, as far as this one knows: a founder may know nobody yet.
    pub(crate) members: Vec<(MemberId, Addr)>,
}
