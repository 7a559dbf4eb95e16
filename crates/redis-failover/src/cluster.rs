//! The cluster as it is shown and changed at run time: who its members are, and how one is taken in or out.

mod several;

use failover_core::addr::Addr;
use failover_core::event::RefusalCode;
use failover_core::node::NodeId;
use serde::Serialize;

pub(crate) use several::{MemberChange, Several, Status};

/// The cluster of this node. A clone is the same one.
#[derive(Clone, Debug)]
pub(crate) enum Cluster {
    /// A node without a broker is all there is.
    Alone {
        node: NodeId,
        /// Where its HTTP is reached, when that is one address.
        http: Option<Addr>,
    },
    /// One of several, or one that may become that.
    Several(Several),
    /// What a test says.
    #[cfg(test)]
    Pretended(std::sync::Arc<pretended::Pretended>),
}

/// What is shown of a cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct ClusterView {
    pub(crate) broker: &'static str,
    /// The fencing token's number, when the broker has terms and knows one.
    pub(crate) term: Option<u64>,
    pub(crate) members: Vec<MemberView>,
}

/// What is shown of a member.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct MemberView {
    pub(crate) id: NodeId,
    /// Its address for the other nodes.
    pub(crate) addr: Option<Addr>,
    /// Where its HTTP is reached, as far as it is known here.
    pub(crate) http: Option<Addr>,
    pub(crate) role: Role,
    /// How long ago it was last heard of, by the leader or else by this node.
    pub(crate) last_contact_ms: Option<u64>,
    /// How far its log goes.
    pub(crate) log_index: Option<u64>,
    pub(crate) reachable: bool,
}

/// What a member is in the cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Role {
    Leader,
    Follower,
    /// It gets everything and has no vote yet.
    Learner,
}

/// Why the members were not changed, or that it is not known whether they were.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub(crate) struct NotChanged {
    pub(crate) code: RefusalCode,
    pub(crate) message: String,
}

impl Cluster {
    /// Everything that is known of it now.
    pub(crate) fn view(&self) -> ClusterView {
        match self {
            Self::Alone { node, http } => ClusterView {
                broker: "none",
                term: None,
                members: vec![MemberView {
                    id: node.clone(),
                    addr: None,
                    http: http.clone(),
                    role: Role::Leader,
                    last_contact_ms: Some(0),
                    log_index: None,
                    reachable: true,
                }],
            },
            Self::Several(several) => several.view(),
            #[cfg(test)]
            Self::Pretended(pretended) => pretended.view.clone(),
        }
    }

    /// Where the leader's HTTP is reached, for clients that were refused here. A node that is alone knows no other.
    pub(crate) fn leader_http(&self) -> Option<Addr> {
        match self {
            Self::Alone { .. } => None,
            Self::Several(several) => several.leader_http(),
            #[cfg(test)]
            Self::Pretended(pretended) => pretended.leader_http.clone(),
        }
    }

    /// Takes a node in, in the place of the named member if there is one; returns when it votes. It is carried on to its
    /// end when whoever asked goes away, so this is to be called in a task of its own.
    pub(crate) async fn add(&self, addr: Addr, replaces: Option<Addr>) -> Result<(), NotChanged> {
        match self {
            Self::Alone { .. } => Err(NotChanged::alone()),
            Self::Several(several) => several.change(MemberChange::Add(addr, replaces)).await,
            #[cfg(test)]
            Self::Pretended(pretended) => {
                pretended.change(format!("add {addr} {replaces:?}")).await
            }
        }
    }

    /// Takes a member out; returns when it has no vote any more.
    pub(crate) async fn remove(&self, member: Addr) -> Result<(), NotChanged> {
        match self {
            Self::Alone { .. } => Err(NotChanged::alone()),
            Self::Several(several) => several.change(MemberChange::Remove(member)).await,
            #[cfg(test)]
            Self::Pretended(pretended) => pretended.change(format!("remove {member}")).await,
        }
    }
}

impl NotChanged {
    pub(crate) fn alone() -> Self {
        Self {
            code: RefusalCode::Refused,
            message: "this node is alone (broker none) and has no members to change; start it with raft_addr and \
                      raft_data_dir, or with zk_addr or etcd_addr, to make it one of several"
                .to_owned(),
        }
    }
}

#[cfg(test)]
pub(crate) mod pretended {
    use std::sync::Mutex;

    use super::*;

    /// A cluster that says what it is told to, and writes down what it is asked.
    #[derive(Debug)]
    pub(crate) struct Pretended {
        pub(crate) view: ClusterView,
        pub(crate) leader_http: Option<Addr>,
        /// `None`: it never answers.
        pub(crate) result: Option<Result<(), NotChanged>>,
        pub(crate) asked: Mutex<Vec<String>>,
    }

    impl Pretended {
        pub(super) async fn change(&self, what: String) -> Result<(), NotChanged> {
            self.asked.lock().expect("not poisoned").push(what);
            match &self.result {
                Some(result) => result.clone(),
                None => std::future::pending().await,
            }
        }
    }
}
