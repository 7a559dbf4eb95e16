//! Names of nodes and groups, and the token under which a leader acts.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::policy::GROUP_NAME_BYTES_MAX;
use crate::text::Text;

/// One running redis-failover process, as the other nodes know it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct NodeId(Text);

impl NodeId {
    /// From the name that the broker or the configuration gives the node.
    pub fn new(name: &str) -> Self {
        Self(name.into())
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The stable name of a group: given by its owner, or the address first registered.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct GroupName(Text);

impl GroupName {
    /// Checks and wraps a name.
    ///
    /// # Errors
    /// A sentence, when the name is empty, too long, or has a character that cannot stand in a list or a path.
    pub fn new(name: &str) -> Result<Self, String> {
        if name.is_empty() {
            return Err("a group's name must not be empty".to_owned());
        }
        if name.len() > GROUP_NAME_BYTES_MAX {
            return Err(format!("a group's name has at most {GROUP_NAME_BYTES_MAX} bytes"));
        }
        let bad = |c: char| c.is_whitespace() || c.is_control() || matches!(c, ',' | '/');
        if name.chars().any(bad) {
            return Err(format!(
                "the group name {name:?} has a space, a comma, a slash or a control character"
            ));
        }
        Ok(Self(name.into()))
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<&crate::addr::Addr> for GroupName {
    /// An address is always a valid name; a host name too long for one is cut.
    fn from(addr: &crate::addr::Addr) -> Self {
        let mut text = addr.to_string();
        text.truncate(GROUP_NAME_BYTES_MAX);
        Self(Text::from(&*text))
    }
}

impl fmt::Display for GroupName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for GroupName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The fencing token: the term (Raft), lease (etcd) or session (ZooKeeper) under which something was decided.
///
/// It only grows. Every proposal and every command to a server carries it, and the shell checks it right before the
/// write: what was decided under an older one is not sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Token(pub u64);

/// Whether this node acts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Leadership {
    /// This node is the leader and acts under this token.
    Leader(Token),
    /// Another node acts.
    Follower {
        /// Which one.
        leader: NodeId,
    },
    /// Nobody is known to act.
    None,
}

impl Leadership {
    /// The token, when this node is the leader.
    pub fn token(&self) -> Option<Token> {
        match self {
            Self::Leader(token) => Some(*token),
            Self::Follower { .. } | Self::None => None,
        }
    }
}
