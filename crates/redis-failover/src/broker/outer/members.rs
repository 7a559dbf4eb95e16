//! Who votes: values that stay when their nodes go, so that two that died never make a majority of the third.
//!
//! A node takes its place when it is started for the first time. Everything else is done on request, by the leader.

use std::collections::BTreeSet;
use std::time::Duration;

use failover_core::addr::Addr;
use failover_core::event::RefusalCode;
use failover_core::node::{Leadership, NodeId};
use tokio::time::timeout;

use super::OuterBroker;
use super::groups::put;
use super::layout::{self, MemberInfo};
use super::store::{Expect, NotWritten, Op};
use crate::cluster::{MemberView, NotChanged, Role};

/// Most members: each one more is asked before every failover.
const MEMBERS_MAX: usize = 31;
/// How long a change may take to be agreed, and then to be seen here.
const AGREE_TIMEOUT: Duration = Duration::from_secs(5);

impl OuterBroker {
    /// Everyone in the cluster, by name.
    pub(crate) fn members(&self) -> Vec<MemberView> {
        let (own, now) = (&self.0.settings.who.node, self.0.clock.now());
        let leader = self.leader();
        let standing = self.standing();
        let view = |(id, member): (&NodeId, &MemberInfo)| {
            let present = standing.node(id);
            let is_own = id == own;
            MemberView {
                id: id.clone(),
                addr: Some(present.map_or_else(|| member.addr.clone(), |node| node.addr.clone())),
                http: present.and_then(|node| node.http.clone()),
                role: if leader.as_ref() == Some(id) { Role::Leader } else { Role::Follower },
                last_contact_ms: is_own
                    .then(|| standing.contact().map(|contact| now.since(contact)))
                    .flatten()
                    .map(|age| u64::try_from(age.as_millis()).unwrap_or(u64::MAX)),
                log_index: is_own.then(|| self.log_index()),
                reachable: present.is_some(),
            }
        };
        standing.members().iter().map(view).collect()
    }

    /// Who leads, this node included.
    pub(crate) fn leader(&self) -> Option<NodeId> {
        match self.standing().leadership(self.0.clock.now()) {
            Leadership::Leader(_) => Some(self.0.settings.who.node.clone()),
            Leadership::Follower { leader } => Some(leader),
            Leadership::None => None,
        }
    }

    /// Where another node is called, while it is there.
    pub(crate) fn address_of(&self, node: &NodeId) -> Option<Addr> {
        self.standing().node(node).map(|node| node.addr.clone())
    }

    /// Takes a node in, in the place of another if one is named. The node must be there.
    ///
    /// # Errors
    /// When it is not taken in, or that is not known.
    pub(crate) async fn add(&self, addr: &Addr, replaces: Option<&Addr>) -> Result<(), NotChanged> {
        let _alone = self.0.changing.try_lock().map_err(|_| busy())?;
        let (id, ops) = {
            let standing = self.standing();
            if standing.leading().is_none() {
                return Err(no_leader());
            }
            let mut out = BTreeSet::new();
            if let Some(replaced) = replaces {
                out = standing.at(replaced);
                if out.is_empty() {
                    return Err(refused(format!("{replaced} is not a member")));
                }
            }
            let Some((id, node)) = standing.present(addr) else {
                return Err(refused(format!(
                    "no node {addr} is there: start it first, with the same {}",
                    self.name()
                )));
            };
            if standing.members().contains_key(id) {
                return Err(refused(format!("{addr} is a member already")));
            }
            if standing.members().len() - out.len() >= MEMBERS_MAX {
                return Err(refused(format!("a cluster has at most {MEMBERS_MAX} nodes")));
            }
            let info = MemberInfo { addr: node.addr.clone() };
            let put = put(&layout::member(id), &info, Expect::Nothing).map_err(refused)?;
            let mut ops: Vec<Op> =
                out.iter().map(|id| Op::Delete { path: layout::member(id) }).collect();
            ops.push(put);
            (id.clone(), ops)
        };
        self.change(ops, |members| members.contains(&id)).await?;
        tracing::info!("{addr} is a member now");
        Ok(())
    }

    /// Takes a member out.
    ///
    /// # Errors
    /// When it is not taken out, or that is not known.
    pub(crate) async fn remove(&self, addr: &Addr) -> Result<(), NotChanged> {
        let _alone = self.0.changing.try_lock().map_err(|_| busy())?;
        let out = {
            let standing = self.standing();
            if standing.leading().is_none() {
                return Err(no_leader());
            }
            let out = standing.at(addr);
            if out.is_empty() {
                return Err(refused(format!("{addr} is not a member")));
            }
            if out.len() == standing.members().len() {
                return Err(refused(format!(
                    "{addr} is the only member: a cluster without members decides nothing"
                )));
            }
            out
        };
        let ops = out.iter().map(|id| Op::Delete { path: layout::member(id) }).collect();
        self.change(ops, |members| out.iter().all(|id| !members.contains(id))).await
    }

    /// Writes a change as the leader, and waits until it is seen here.
    async fn change(
        &self,
        ops: Vec<Op>,
        is_done: impl Fn(&[NodeId]) -> bool,
    ) -> Result<(), NotChanged> {
        let session = self.session().ok_or_else(no_leader)?;
        let own = self.standing().leading().cloned().ok_or_else(no_leader)?;
        let mut joined = self.0.joined.subscribe();
        let written = timeout(AGREE_TIMEOUT, session.write(Some(&own), &ops)).await;
        match written {
            Ok(Ok(_)) => {}
            Ok(Err(NotWritten::Fenced)) => return Err(no_leader()),
            Ok(Err(NotWritten::Conflict)) => return Err(busy()),
            Ok(Err(NotWritten::Refused(why))) => return Err(refused(why)),
            Ok(Err(NotWritten::Unknown(why))) => return Err(unknown(&why)),
            Err(_) => return Err(unknown("it was not agreed in time")),
        }
        let seen = joined.wait_for(|_| is_done(&self.standing().voters()));
        match timeout(AGREE_TIMEOUT, seen).await {
            Ok(_) => Ok(()),
            Err(_) => Err(unknown("it was agreed, and is not seen here yet")),
        }
    }

    /// What this node has to write to have its place among the members.
    pub(super) fn place_to_take(&self) -> Option<Op> {
        let who = &self.0.settings.who;
        let info = MemberInfo { addr: who.addr.clone() };
        let standing = self.standing();
        let expect = match standing.members().get(&who.node) {
            Some(known) if *known == info => return None,
            Some(_) => Expect::Anything,
            None if standing.members().len() >= MEMBERS_MAX => return None,
            None => Expect::Nothing,
        };
        put(&layout::member(&who.node), &info, expect).ok()
    }

    /// That another process has the name of this node: a sentence.
    pub(super) fn is_doubled(&self) -> Option<String> {
        let who = &self.0.settings.who;
        let standing = self.standing();
        let other = standing.node(&who.node).filter(|node| node.run != who.run)?;
        Some(format!(
            "another process (pid {}, reached at {}) has the name {} too: give each node its own node_addr",
            other.pid, other.addr, who.node
        ))
    }

    /// Why this node has no vote, once that is known: a sentence.
    pub(super) fn is_outside(&self) -> Option<String> {
        let who = &self.0.settings.who;
        let standing = self.standing();
        let knows_others = !standing.members().is_empty();
        (knows_others && !standing.members().contains_key(&who.node)).then(|| {
            format!(
                "this node is no member of its cluster: POST /v1/cluster/members {{\"addr\":\"{}\"}} on a member takes it in",
                who.node
            )
        })
    }
}

fn busy() -> NotChanged {
    NotChanged {
        code: RefusalCode::Busy,
        message: "the members are being changed already; nothing was done".to_owned(),
    }
}

fn no_leader() -> NotChanged {
    NotChanged {
        code: RefusalCode::NoLeader,
        message: "this node does not lead the cluster; nothing was done".to_owned(),
    }
}

fn refused(why: String) -> NotChanged {
    NotChanged { code: RefusalCode::Refused, message: format!("{why}; nothing was done") }
}

fn unknown(why: &str) -> NotChanged {
    NotChanged {
        code: RefusalCode::UnknownOutcome,
        message: format!("{why}; it may still happen: read /v1/cluster"),
    }
}
