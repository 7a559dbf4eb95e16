//! A cluster of several nodes: its members as the broker knows them, and what they say of themselves.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use failover_core::addr::Addr;
use failover_core::event::RefusalCode;
use failover_core::node::NodeId;
use failover_core::time::Time;
use serde::{Deserialize, Serialize};
use tokio::time::{MissedTickBehavior, interval};

use super::{ClusterView, MemberView, NotChanged};
use crate::broker::Broker;
use crate::clock::Clock;
use crate::peers::CallError;
use crate::talk::{Ask, Reply, Talk};

/// How often every member is asked how it is.
const MEET_INTERVAL: Duration = Duration::from_secs(1);
/// How long it may take to say so.
const MEET_TIMEOUT: Duration = Duration::from_millis(500);
/// A member that said nothing for so long is shown as not reachable.
const SILENCE_MAX: Duration = Duration::from_secs(2);
/// How long the leader may take to change the members; longer than it allows itself.
const CHANGE_TIMEOUT: Duration = Duration::from_secs(60);

/// What a member says of itself.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Status {
    /// Where its HTTP is reached.
    pub(crate) http: Option<Addr>,
    /// The end of its log.
    pub(crate) log_index: u64,
}

/// A change of the members.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum MemberChange {
    /// This node is taken in, in the place of a member if one is named.
    Add(Addr, Option<Addr>),
    /// This member is taken out.
    Remove(Addr),
}

/// This node as one of several. A clone is the same node.
#[derive(Clone, Debug)]
pub(crate) struct Several {
    me: NodeId,
    broker: Broker,
    talk: Talk,
    clock: Clock,
    /// This node's own HTTP address.
    http: Option<Addr>,
    met: Arc<Mutex<BTreeMap<NodeId, (Status, Time)>>>,
}

impl Several {
    pub(crate) fn new(
        me: NodeId,
        broker: Broker,
        talk: Talk,
        clock: Clock,
        http: Option<Addr>,
    ) -> Self {
        Self { me, broker, talk, clock, http, met: Arc::default() }
    }

    /// Goes on asking every member how it is.
    pub(crate) async fn meet(self) {
        let mut turn = interval(MEET_INTERVAL);
        turn.set_missed_tick_behavior(MissedTickBehavior::Skip);
        loop {
            turn.tick().await;
            let members = self.broker.members();
            self.met().retain(|id, _| members.iter().any(|member| member.id == *id));
            for member in members.into_iter().filter(|member| member.id != self.me) {
                tokio::spawn(self.clone().meet_one(member.id));
            }
        }
    }

    async fn meet_one(self, node: NodeId) {
        if let Ok(Reply::Status(status)) = self.talk.call(&node, &Ask::Status, MEET_TIMEOUT).await {
            let now = self.clock.now();
            self.met().insert(node, (status, now));
        }
    }

    /// What this node says of itself.
    pub(crate) fn status(&self) -> Status {
        Status { http: self.http.clone(), log_index: self.broker.log_index() }
    }

    /// Everything that is known here.
    pub(super) fn view(&self) -> ClusterView {
        let now = self.clock.now();
        let mut members = self.broker.members();
        for member in &mut members {
            self.complete(member, now);
        }
        ClusterView { broker: self.broker.name(), term: self.broker.term(), members }
    }

    fn complete(&self, member: &mut MemberView, now: Time) {
        if member.id == self.me {
            member.http = self.http.clone();
            return;
        }
        let met = self.met().get(&member.id).cloned();
        let Some((status, at)) = met else { return };
        let age = now.since(at);
        let age_ms = u64::try_from(age.as_millis()).unwrap_or(u64::MAX);
        member.http = status.http;
        member.log_index = member.log_index.max(Some(status.log_index));
        member.last_contact_ms =
            Some(member.last_contact_ms.map_or(age_ms, |contact| contact.min(age_ms)));
        member.reachable |= age < SILENCE_MAX;
    }

    pub(super) fn leader_http(&self) -> Option<Addr> {
        let leader = self.broker.leader()?;
        if leader == self.me {
            return self.http.clone();
        }
        self.met().get(&leader).and_then(|(status, _)| status.http.clone())
    }

    /// Changes the members, here if this node leads, else through the leader.
    pub(super) async fn change(&self, change: MemberChange) -> Result<(), NotChanged> {
        let no_leader = |message: String| NotChanged { code: RefusalCode::NoLeader, message };
        let Some(leader) = self.broker.leader() else {
            return Err(no_leader("no leader is known; nothing was done".to_owned()));
        };
        if leader == self.me {
            return self.change_here(change).await;
        }
        match self.talk.call(&leader, &Ask::Change(change), CHANGE_TIMEOUT).await {
            Ok(Reply::Changed(result)) => {
                result.map_err(|(code, message)| NotChanged { code, message })
            }
            Ok(Reply::Refused(why)) | Err(CallError::NotSent(why)) => Err(no_leader(format!(
                "the leader {leader} cannot be asked ({why}); nothing was done"
            ))),
            Ok(
                Reply::Sights(_)
                | Reply::Noted
                | Reply::Answered(..)
                | Reply::Commanded(_)
                | Reply::Status(_),
            ) => Err(unknown(format!("the leader {leader} answered something else"))),
            Err(CallError::Unknown(why)) => Err(unknown(format!(
                "the leader {leader} was asked and did not answer ({why}); it may still happen: read /v1/cluster"
            ))),
        }
    }

    /// Changes the members as the leader.
    pub(crate) async fn change_here(&self, change: MemberChange) -> Result<(), NotChanged> {
        match change {
            MemberChange::Add(addr, replaces) => self.broker.add(&addr, replaces.as_ref()).await,
            MemberChange::Remove(addr) => self.broker.remove(&addr).await,
        }
    }

    fn met(&self) -> std::sync::MutexGuard<'_, BTreeMap<NodeId, (Status, Time)>> {
        self.met.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn unknown(message: String) -> NotChanged {
    NotChanged { code: RefusalCode::UnknownOutcome, message }
}
