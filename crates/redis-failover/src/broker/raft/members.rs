//! Who the members are, and changing that: one step at a time, and only by the leader.
//!
//! A node that comes is a learner first, and votes once it has what the others have. What a leader leaves half done,
//! the next one finishes.

use std::collections::BTreeSet;
use std::time::Duration;

use failover_core::addr::Addr;
use failover_core::event::RefusalCode;
use failover_core::node::Token;
use openraft::error::{ChangeMembershipError, ClientWriteError, RaftError};
use openraft::{ChangeMembers, ServerState};
use tokio::sync::MutexGuard;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};

use super::message::{Answer, Ask};
use super::types::{Member, MemberId, name};
use super::{RaftBroker, Running};
use crate::cluster::{MemberView, NotChanged, Role};

/// How long a node that is to be a member may take to say who it is.
const INVITE_TIMEOUT: Duration = Duration::from_secs(2);
/// How long a new member may take to get what the others have.
const CATCH_UP_TIMEOUT: Duration = Duration::from_secs(30);
/// A new member that lacks no more entries than this has what the others have.
const CATCH_UP_ENTRIES: u64 = 50;
/// How often that is looked at.
const CATCH_UP_INTERVAL: Duration = Duration::from_millis(20);
/// How long a change may take to be agreed.
const AGREE_TIMEOUT: Duration = Duration::from_secs(10);
/// How often the leader looks whether something was left half done, or somebody is to be invited.
const TIDY_INTERVAL: Duration = Duration::from_secs(1);

type Changing<'a> = MutexGuard<'a, ()>;
type Written<T> = Result<T, RaftError<MemberId, ClientWriteError<MemberId, Member>>>;

impl RaftBroker {
    /// Everyone in the cluster, by address.
    pub(crate) fn members(&self) -> Vec<MemberView> {
        let Some(running) = self.running() else { return Vec::new() };
        let seen = running.raft.metrics().borrow().clone();
        let (network, now) = (&running.network, running.network.clock.now());
        let membership = seen.membership_config.membership();
        let voters: BTreeSet<MemberId> = membership.voter_ids().collect();
        let mut members: Vec<MemberView> = membership
            .nodes()
            .map(|(id, member)| {
                let own = *id == network.own;
                let heard = if own { Some(now) } else { network.contacts.last(*id) };
                let age = heard.map(|heard| now.since(heard));
                let replicated = seen.replication.as_ref().and_then(|all| *all.get(id)?);
                MemberView {
                    id: name(member),
                    addr: Some(member.addr.clone()),
                    http: None,
                    role: match voters.contains(id) {
                        true if seen.current_leader == Some(*id) => Role::Leader,
                        true => Role::Follower,
                        false => Role::Learner,
                    },
                    last_contact_ms: age
                        .map(|age| u64::try_from(age.as_millis()).unwrap_or(u64::MAX)),
                    log_index: if own {
                        seen.last_log_index
                    } else {
                        replicated.map(|last| last.index)
                    },
                    reachable: age.is_some_and(|age| age < network.election_max * 2),
                }
            })
            .collect();
        members.sort_by(|one, other| one.addr.cmp(&other.addr).then(one.id.cmp(&other.id)));
        members
    }

    /// Takes a node in, in the place of another if one is named. The node must run and have no record.
    ///
    /// # Errors
    /// When it is not taken in, or that is not known.
    pub(crate) async fn add(&self, addr: &Addr, replaces: Option<&Addr>) -> Result<(), NotChanged> {
        let running = self.leading()?;
        let _alone = self.alone()?;
        let mut out = BTreeSet::new();
        if let Some(replaced) = replaces {
            let ids = running.at(replaced);
            if ids.is_empty() {
                return Err(refused(format!("{replaced} is not a member")));
            }
            out.extend(ids);
        }
        if running.at(addr).iter().any(|id| running.votes(*id)) {
            return Err(refused(format!("{addr} is a member already")));
        }
        self.invite(&running, addr, out).await
    }

    /// Takes a member out.
    ///
    /// # Errors
    /// When it is not taken out, or that is not known.
    pub(crate) async fn remove(&self, addr: &Addr) -> Result<(), NotChanged> {
        let running = self.leading()?;
        let _alone = self.alone()?;
        let ids = running.at(addr);
        if ids.is_empty() {
            return Err(refused(format!("{addr} is not a member")));
        }
        let voters = running.voters();
        if voters.is_subset(&ids) {
            return Err(refused(format!(
                "{addr} is the only member that votes: a cluster without members decides nothing"
            )));
        }
        if voters.is_disjoint(&ids) {
            return running.change(ChangeMembers::RemoveNodes(ids)).await;
        }
        running.change(ChangeMembers::ReplaceAllVoters(&voters - &ids)).await
    }

    /// Answers a node that has the place of a member and wants to vote in it.
    pub(super) fn joins(&self, cluster: u64, id: MemberId, addr: Addr) -> Answer {
        let Some(running) = self.running() else {
            return Answer::Refused("this node is no member yet".to_owned());
        };
        if running.network.cluster != cluster {
            return Answer::Refused("this node belongs to another cluster".to_owned());
        }
        if self.leading().is_err() {
            return match running.leader() {
                Some(leader) => Answer::Elsewhere(leader),
                None => Answer::Refused("nobody leads now".to_owned()),
            };
        }
        if running.at(&addr).is_empty() {
            return Answer::Refused(format!(
                "no member has the address {addr}: POST /v1/cluster/members {{\"addr\":\"{addr}\"}} takes it in"
            ));
        }
        let this = self.clone();
        tokio::spawn(async move {
            let Ok(_alone) = this.alone() else { return };
            if running.votes(id) {
                return;
            }
            if let Err(error) = running.take_in(id, &addr, BTreeSet::new()).await {
                tracing::warn!("{addr} was not taken in again: {error}");
            }
        });
        Answer::Noted
    }

    /// Looks after the membership, while this node leads.
    pub(super) async fn tidy(&self) {
        let mut look = interval(TIDY_INTERVAL);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            look.tick().await;
            let Ok(running) = self.leading() else { continue };
            let newcomers = self.newcomers(&running).await;
            let Ok(_alone) = self.alone() else { continue };
            if let Err(error) = self.tidy_once(&running, newcomers).await {
                tracing::warn!("the members are not as they should be: {error}");
            }
        }
    }

    /// The nodes that are configured, no members, and ready to be.
    async fn newcomers(&self, running: &Running) -> Vec<Addr> {
        let mut newcomers = Vec::new();
        for addr in &self.0.settings.cluster {
            if running.at(addr).is_empty()
                && let Ok(Answer::Fresh(_)) = self.call(addr, &Ask::Hello, INVITE_TIMEOUT).await
            {
                newcomers.push(addr.clone());
            }
        }
        newcomers
    }

    async fn tidy_once(&self, running: &Running, newcomers: Vec<Addr>) -> Result<(), NotChanged> {
        let (joint, learner) = running.half_done();
        if joint {
            return running.change(ChangeMembers::ReplaceAllVoters(running.voters())).await;
        }
        if let Some((id, addr)) = learner {
            return running.promote(id, &addr, BTreeSet::new()).await;
        }
        for addr in newcomers {
            if running.at(&addr).is_empty() {
                tracing::info!("{addr} is in raft_cluster and no member: it is taken in");
                self.invite(running, &addr, BTreeSet::new()).await?;
            }
        }
        Ok(())
    }

    async fn invite(
        &self,
        running: &Running,
        addr: &Addr,
        out: BTreeSet<MemberId>,
    ) -> Result<(), NotChanged> {
        let Some(cluster) = self.meta().cluster else { return Err(no_leader()) };
        let id = match self.call(addr, &Ask::Invite(cluster), INVITE_TIMEOUT).await {
            Ok(Answer::Joined(id)) => id,
            Ok(Answer::Refused(why)) => {
                return Err(refused(format!("the node {addr} says: {why}")));
            }
            Ok(
                Answer::Raft(_)
                | Answer::Fresh(_)
                | Answer::Member(_)
                | Answer::Noted
                | Answer::Elsewhere(_),
            ) => {
                return Err(refused(format!("the node {addr} answered something else")));
            }
            Err(why) => {
                return Err(refused(format!(
                    "the node {addr} was not reached ({why}): start it first, with an empty raft_data_dir and with a member \
                     in its raft_cluster"
                )));
            }
        };
        running.take_in(id, addr, out).await
    }

    /// This node as the leader.
    fn leading(&self) -> Result<Running, NotChanged> {
        let running = self.running().ok_or_else(no_leader)?;
        if running.token().is_some() { Ok(running) } else { Err(no_leader()) }
    }

    fn alone(&self) -> Result<Changing<'_>, NotChanged> {
        self.0.changing.try_lock().map_err(|_| busy())
    }
}

impl Running {
    /// Under which token this node acts now.
    pub(super) fn token(&self) -> Option<Token> {
        let (token, leads) = {
            let metrics = self.raft.metrics();
            let seen = metrics.borrow();
            (Token(seen.current_term), seen.state == ServerState::Leader)
        };
        let network = &self.network;
        (leads && network.lease.allows(token, network.clock.now())).then_some(token)
    }

    /// Whether this member votes, as far as is known here.
    pub(super) fn votes(&self, id: MemberId) -> bool {
        self.raft.metrics().borrow().membership_config.voter_ids().any(|voter| voter == id)
    }

    /// Whether this node knows members, and is none of them.
    pub(super) fn is_outside(&self) -> bool {
        let metrics = self.raft.metrics();
        let seen = metrics.borrow();
        let mut members = seen.membership_config.nodes().peekable();
        members.peek().is_some() && members.all(|(id, _)| *id != self.network.own)
    }

    pub(super) fn leader(&self) -> Option<Addr> {
        let metrics = self.raft.metrics();
        let seen = metrics.borrow();
        let leader = seen.current_leader?;
        seen.membership_config.membership().get_node(&leader).map(|member| member.addr.clone())
    }

    /// The members at this address.
    fn at(&self, addr: &Addr) -> BTreeSet<MemberId> {
        let metrics = self.raft.metrics();
        let seen = metrics.borrow();
        let at = seen.membership_config.nodes().filter(|(_, member)| member.addr == *addr);
        at.map(|(id, _)| *id).collect()
    }

    /// Who votes, or will when the change that is being made is done.
    fn voters(&self) -> BTreeSet<MemberId> {
        let metrics = self.raft.metrics();
        let seen = metrics.borrow();
        seen.membership_config.membership().get_joint_config().last().cloned().unwrap_or_default()
    }

    /// Whether a change was begun and not ended, and who learns and does not vote.
    fn half_done(&self) -> (bool, Option<(MemberId, Addr)>) {
        let metrics = self.raft.metrics();
        let seen = metrics.borrow();
        let membership = seen.membership_config.membership();
        let learner = membership.learner_ids().next();
        let learner = learner.and_then(|id| Some((id, membership.get_node(&id)?.addr.clone())));
        (membership.get_joint_config().len() > 1, learner)
    }

    /// Makes a node a learner, and then a voter.
    async fn take_in(
        &self,
        id: MemberId,
        addr: &Addr,
        out: BTreeSet<MemberId>,
    ) -> Result<(), NotChanged> {
        let learner = ChangeMembers::AddNodes([(id, Member { addr: addr.clone() })].into());
        self.change_keeping(learner).await?;
        self.promote(id, addr, out).await
    }

    /// Lets a learner vote once it has what the others have, in the place of whoever else has its address.
    async fn promote(
        &self,
        id: MemberId,
        addr: &Addr,
        mut out: BTreeSet<MemberId>,
    ) -> Result<(), NotChanged> {
        if timeout(CATCH_UP_TIMEOUT, self.caught_up(id)).await.is_err() {
            self.change(ChangeMembers::RemoveNodes([id].into())).await?;
            return Err(refused(format!(
                "{addr} did not get the record within {} s, and is no member: see its log",
                CATCH_UP_TIMEOUT.as_secs()
            )));
        }
        out.extend(self.at(addr));
        let mut voters = &self.voters() - &out;
        voters.insert(id);
        self.change(ChangeMembers::ReplaceAllVoters(voters)).await?;
        tracing::info!("{addr} is a member now");
        Ok(())
    }

    async fn caught_up(&self, id: MemberId) {
        loop {
            let (own, theirs) = {
                let metrics = self.raft.metrics();
                let seen = metrics.borrow();
                let theirs = seen.replication.as_ref().and_then(|all| *all.get(&id)?);
                (seen.last_log_index.unwrap_or_default(), theirs)
            };
            if theirs.is_some_and(|last| last.index + CATCH_UP_ENTRIES >= own) {
                return;
            }
            sleep(CATCH_UP_INTERVAL).await;
        }
    }

    /// Changes the members. Who does not vote any more is none.
    async fn change(&self, change: ChangeMembers<MemberId, Member>) -> Result<(), NotChanged> {
        let written = timeout(AGREE_TIMEOUT, self.raft.change_membership(change, false)).await;
        ended(written)
    }

    /// Changes the members, and keeps everyone.
    async fn change_keeping(
        &self,
        change: ChangeMembers<MemberId, Member>,
    ) -> Result<(), NotChanged> {
        let written = timeout(AGREE_TIMEOUT, self.raft.change_membership(change, true)).await;
        ended(written)
    }
}

fn ended<T>(written: Result<Written<T>, tokio::time::error::Elapsed>) -> Result<(), NotChanged> {
    let error = match written {
        Ok(Ok(_)) => return Ok(()),
        Ok(Err(error)) => error,
        Err(_) => {
            return Err(unknown(format!(
                "the change was not agreed within {} s, and may still be: see GET /v1/cluster",
                AGREE_TIMEOUT.as_secs()
            )));
        }
    };
    Err(match error {
        RaftError::APIError(ClientWriteError::ChangeMembershipError(
            ChangeMembershipError::InProgress(_),
        )) => busy(),
        RaftError::APIError(ClientWriteError::ChangeMembershipError(error)) => {
            refused(format!("the members cannot be changed so: {error}"))
        }
        // It is given for a change too that was on its way when the lead was lost.
        RaftError::APIError(ClientWriteError::ForwardToLeader(_)) | RaftError::Fatal(_) => unknown(
            "this node lost the lead, and the change may have been made: see GET /v1/cluster"
                .to_owned(),
        ),
    })
}

fn no_leader() -> NotChanged {
    let message = "this node does not lead the cluster; nothing was done".to_owned();
    NotChanged { code: RefusalCode::NoLeader, message }
}

fn busy() -> NotChanged {
    let message = "another change of the members is being made: wait until it is done".to_owned();
    NotChanged { code: RefusalCode::Busy, message }
}

fn refused(message: String) -> NotChanged {
    NotChanged { code: RefusalCode::Refused, message }
}

fn unknown(message: String) -> NotChanged {
    NotChanged { code: RefusalCode::UnknownOutcome, message }
}
