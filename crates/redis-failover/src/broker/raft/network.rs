//! Raft's messages, over the port between nodes.
//!
//! Each says which member of which cluster it is meant for: an address may have had another member before, and a
//! cluster that was cut in two by an operator must not grow together again.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use failover_core::addr::Addr;
use failover_core::node::Token;
use failover_core::time::Time;
use openraft::error::{
    InstallSnapshotError, NetworkError, RPCError, RaftError, RemoteError, Unreachable,
};
use openraft::network::{Backoff, RPCOption, RaftNetwork, RaftNetworkFactory};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, InstallSnapshotRequest, InstallSnapshotResponse,
    VoteResponse,
};
use serde::{Deserialize, Serialize};

use super::lease::Lease;
use super::message::{self, Answer};
use super::types::{Member, MemberId, Raft, SnapshotMeta, Types, Vote, VoteRequest};
use crate::clock::Clock;
use crate::peers::{Lane, Peers};

/// The pause after a member was not reached.
const BACKOFF: Duration = Duration::from_millis(50);

/// How often it is logged that other members refuse messages: each of them does, many times a second.
const REFUSED_SAY_INTERVAL: Duration = Duration::from_secs(30);

/// A message of Raft.
#[derive(Serialize, Deserialize)]
pub(crate) struct Ask {
    from: MemberId,
    to: MemberId,
    cluster: u64,
    /// Whether a majority acknowledged the sender as its leader a moment ago. One that is cut off with a minority goes on
    /// sending to it, and leads nobody.
    leads: bool,
    rpc: Rpc,
}

#[cfg(test)]
impl Ask {
    /// Of a member that wants to lead.
    pub(super) fn candidate(
        from: MemberId,
        to: MemberId,
        cluster: u64,
        request: VoteRequest,
    ) -> Self {
        Self { from, to, cluster, leads: false, rpc: Rpc::Vote(request) }
    }
}

#[derive(Serialize, Deserialize)]
enum Rpc {
    Append(AppendEntriesRequest<Types>),
    Vote(VoteRequest),
    Snapshot(Chunk),
}

/// The answer to one.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Reply {
    Append {
        reply: AppendEntriesResponse<MemberId>,
        /// For how long it elects nobody else, when it follows whoever asked.
        keeps_ms: u64,
    },
    Vote(VoteResponse<MemberId>),
    Snapshot(Result<InstallSnapshotResponse<MemberId>, InstallSnapshotError>),
    /// It was not meant for whoever got it, or that one cannot answer: a sentence.
    Refused(String),
}

/// A part of a snapshot: openraft's own, but with its bytes as digits and not as a list of numbers.
#[derive(Serialize, Deserialize)]
struct Chunk {
    vote: Vote,
    meta: SnapshotMeta,
    offset: u64,
    data: String,
    done: bool,
}

impl From<InstallSnapshotRequest<Types>> for Chunk {
    fn from(request: InstallSnapshotRequest<Types>) -> Self {
        let InstallSnapshotRequest { vote, meta, offset, data, done } = request;
        Self { vote, meta, offset, data: to_digits(&data), done }
    }
}

impl TryFrom<Chunk> for InstallSnapshotRequest<Types> {
    type Error = String;

    fn try_from(chunk: Chunk) -> Result<Self, String> {
        let Chunk { vote, meta, offset, data, done } = chunk;
        let data = from_digits(&data).ok_or("a part of a snapshot is not written in digits")?;
        Ok(Self { vote, meta, offset, data, done })
    }
}

const DIGITS: &[u8; 16] = b"0123456789abcdef";

fn to_digits(bytes: &[u8]) -> String {
    let digit = |nibble: u8| char::from(DIGITS[usize::from(nibble & 15)]);
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(*byte)]).collect()
}

fn from_digits(text: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let (pairs, []) = text.as_bytes().as_chunks::<2>() else { return None };
    pairs.iter().map(|[high, low]| Some(digit(*high)? << 4 | digit(*low)?)).collect()
}

/// When which member was last heard of.
#[derive(Clone, Default)]
pub(crate) struct Contacts(Arc<Mutex<Heard>>);

#[derive(Default)]
struct Heard {
    members: BTreeMap<MemberId, Time>,
    /// The leader this node follows, and when it last said so.
    leader: Option<(MemberId, Time)>,
    /// Why another member last refused a message, and when.
    refused: Option<(String, Time)>,
    /// When that was last logged.
    refused_said: Option<Time>,
}

/// More members than a cluster has over its life, so that nobody fills the memory with names.
const CONTACTS_MAX: usize = 256;

impl Contacts {
    /// When something was last heard of a member.
    pub(crate) fn last(&self, member: MemberId) -> Option<Time> {
        self.heard().members.get(&member).copied()
    }

    /// When this leader was last heard of, as a leader.
    pub(crate) fn leader(&self, leader: MemberId) -> Option<Time> {
        self.heard().leader.filter(|(heard, _)| *heard == leader).map(|(_, at)| at)
    }

    /// When this node last knew that it had what was agreed: a leader said so, or a majority to this node as the leader.
    pub(crate) fn last_led(&self) -> Option<Time> {
        self.heard().leader.map(|(_, at)| at)
    }

    /// Why another member last refused a message of this one, and when.
    pub(crate) fn refused(&self) -> Option<(String, Time)> {
        self.heard().refused.clone()
    }

    fn refuses(&self, why: &str, at: Time) {
        let mut heard = self.heard();
        heard.refused = Some((why.to_owned(), at));
        if heard.refused_said.is_none_or(|said| at.since(said) >= REFUSED_SAY_INTERVAL) {
            heard.refused_said = Some(at);
            tracing::warn!("{why}");
        }
    }

    fn member(&self, member: MemberId, at: Time) {
        let mut heard = self.heard();
        if heard.members.len() < CONTACTS_MAX || heard.members.contains_key(&member) {
            heard.members.insert(member, at);
        }
    }

    /// This leader was heard of, or was acknowledged by a majority.
    pub(crate) fn led(&self, leader: MemberId, at: Time) {
        self.heard().leader = Some((leader, at));
    }

    fn heard(&self) -> MutexGuard<'_, Heard> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What both sides need.
#[derive(Clone)]
pub(crate) struct Network {
    pub(crate) own: MemberId,
    pub(crate) cluster: u64,
    pub(crate) peers: Peers,
    pub(crate) clock: Clock,
    pub(crate) lease: Lease,
    pub(crate) contacts: Contacts,
    /// Answers that come later than this are not waited for: the lease does not gain from them.
    pub(crate) election_max: Duration,
}

impl Network {
    /// Answers a message of another member.
    pub(crate) async fn answer(&self, raft: &Raft, ask: Ask) -> Reply {
        let Ask { from, to, cluster, leads, rpc } = ask;
        if cluster != self.cluster {
            return Reply::Refused(format!(
                "this node belongs to the cluster {:016x}, and the message is for {cluster:016x}",
                self.cluster
            ));
        }
        if to != self.own {
            return Reply::Refused(format!(
                "this node is the member {}, and the message is for {to}, which it may have been before",
                self.own
            ));
        }
        self.contacts.member(from, self.clock.now());
        match self.serve(raft, from, leads, rpc).await {
            Ok(reply) => reply,
            Err(why) => Reply::Refused(why),
        }
    }

    async fn serve(
        &self,
        raft: &Raft,
        from: MemberId,
        leads: bool,
        rpc: Rpc,
    ) -> Result<Reply, String> {
        let gone = |error: &dyn std::fmt::Display| format!("this node cannot answer: {error}");
        Ok(match rpc {
            Rpc::Append(request) => {
                let at = self.clock.now();
                let reply = raft.append_entries(request).await.map_err(|error| gone(&error))?;
                if leads && accepted(&reply) {
                    self.contacts.led(from, at);
                }
                let keeps_ms = u64::try_from(self.election_max.as_millis()).unwrap_or(u64::MAX);
                Reply::Append { reply, keeps_ms }
            }
            Rpc::Vote(_) if !knows(raft, from) => {
                return Err(format!(
                    "the member {from} is none any more, or not yet: it was taken out, or another has its place"
                ));
            }
            // openraft lets followers keep to their leader, but a leader give itself up to whoever asks.
            Rpc::Vote(_) if self.lease.holds(self.clock.now()) => {
                let vote = raft.metrics().borrow().vote;
                Reply::Vote(VoteResponse { vote, vote_granted: false, last_log_id: None })
            }
            Rpc::Vote(request) => {
                self.lease.forget(self.clock.now());
                Reply::Vote(raft.vote(request).await.map_err(|error| gone(&error))?)
            }
            Rpc::Snapshot(chunk) => match raft.install_snapshot(chunk.try_into()?).await {
                Ok(reply) => Reply::Snapshot(Ok(reply)),
                Err(RaftError::APIError(error)) => Reply::Snapshot(Err(error)),
                Err(RaftError::Fatal(error)) => return Err(gone(&error)),
            },
        })
    }
}

/// Whether this is a member, as far as is known here. A node that knows no member yet knows everybody.
fn knows(raft: &Raft, member: MemberId) -> bool {
    let metrics = raft.metrics();
    let seen = metrics.borrow();
    let mut members = seen.membership_config.nodes().peekable();
    members.peek().is_none() || members.any(|(id, _)| *id == member)
}

/// Whether whoever answered so follows whoever asked: its log may differ, but it took the leader for its leader.
fn accepted(reply: &AppendEntriesResponse<MemberId>) -> bool {
    match reply {
        AppendEntriesResponse::Success
        | AppendEntriesResponse::PartialSuccess(_)
        | AppendEntriesResponse::Conflict => true,
        AppendEntriesResponse::HigherVote(_) => false,
    }
}

/// The way to one member.
pub(crate) struct Way {
    network: Network,
    to: MemberId,
    addr: Addr,
}

impl RaftNetworkFactory<Types> for Network {
    type Network = Way;

    async fn new_client(&mut self, target: MemberId, node: &Member) -> Way {
        Way { network: self.clone(), to: target, addr: node.addr.clone() }
    }
}

type CallError<E> = RPCError<MemberId, Member, RaftError<MemberId, E>>;

fn unreachable<E: std::error::Error>(why: String) -> CallError<E> {
    RPCError::Unreachable(Unreachable::new(&std::io::Error::other(why)))
}

fn refused<E: std::error::Error>(why: String) -> CallError<E> {
    RPCError::Network(NetworkError::new(&std::io::Error::other(why)))
}

impl Way {
    async fn call<E: std::error::Error>(
        &self,
        rpc: Rpc,
        limit: Duration,
    ) -> Result<Reply, CallError<E>> {
        let Network { own, cluster, peers, clock, contacts, lease, .. } = &self.network;
        let leads = match &rpc {
            Rpc::Append(request) => {
                let token = Token(request.vote.leader_id.term);
                lease.allows(token, clock.now())
            }
            Rpc::Vote(_) | Rpc::Snapshot(_) => false,
        };
        let (from, to, cluster) = (*own, self.to, *cluster);
        let ask = message::Ask::Raft(Ask { from, to, cluster, leads, rpc });
        let body = serde_json::to_vec(&ask).map_err(|error| refused(error.to_string()))?;
        let answer = peers
            .call(&self.addr, Lane::Raft, body, limit)
            .await
            .map_err(|error| unreachable(error.to_string()))?;
        match serde_json::from_slice(&answer) {
            Ok(Answer::Raft(Reply::Refused(why))) => {
                let why = format!("the node {} refused a message of Raft: {why}", self.addr);
                contacts.refuses(&why, clock.now());
                // Nothing changes within milliseconds about who somebody is.
                Err(unreachable(why))
            }
            // It is on its way.
            Ok(Answer::Refused(why)) => Err(unreachable(why)),
            Ok(Answer::Raft(reply)) => {
                contacts.member(self.to, clock.now());
                Ok(reply)
            }
            Ok(
                Answer::Fresh(_)
                | Answer::Member(_)
                | Answer::Joined(_)
                | Answer::Noted
                | Answer::Elsewhere(_),
            ) => Err(self.another()),
            Err(error) => Err(refused(format!(
                "the answer of the node {} cannot be read: {error}",
                self.addr
            ))),
        }
    }

    /// It follows this node for a while from when it was sent this. The lease counts on as long as this node itself would
    /// keep to a leader, so that less is as if it had been sent earlier.
    fn acked(&self, term: u64, sent: Time, keeps: Duration) {
        let Network { election_max, lease, contacts, clock, .. } = &self.network;
        let lacks = election_max.saturating_sub(keeps);
        lease.acked(self.to, term, sent - lacks);
        if lacks > Duration::ZERO {
            let why = format!(
                "the node {} has the raft_election_max_ms {}, and this one {}: give all nodes the same, or this one acts \
                 seldom or never while it leads",
                self.addr,
                keeps.as_millis(),
                election_max.as_millis()
            );
            contacts.refuses(&why, clock.now());
        }
    }

    fn another<E: std::error::Error>(&self) -> CallError<E> {
        refused(format!("the node {} answered something else", self.addr))
    }
}

impl RaftNetwork<Types> for Way {
    async fn append_entries(
        &mut self,
        request: AppendEntriesRequest<Types>,
        _option: RPCOption,
    ) -> Result<AppendEntriesResponse<MemberId>, CallError<openraft::error::Infallible>> {
        let way = Self { network: self.network.clone(), to: self.to, addr: self.addr.clone() };
        // A task of its own: openraft stops to wait after a heartbeat's time, but the lease lives from late answers too.
        let call = tokio::spawn(async move {
            let term = request.vote.leader_id.term;
            let sent = way.network.clock.now();
            let reply = way.call(Rpc::Append(request), way.network.election_max).await?;
            let Reply::Append { reply, keeps_ms } = reply else { return Err(way.another()) };
            if accepted(&reply) {
                way.acked(term, sent, Duration::from_millis(keeps_ms));
            } else {
                // Before Raft hears of it, takes that one's side, and perhaps elects it.
                way.network.lease.forget(way.network.clock.now());
            }
            Ok(reply)
        });
        match call.await {
            Ok(reply) => reply,
            Err(error) => Err(unreachable(error.to_string())),
        }
    }

    async fn install_snapshot(
        &mut self,
        request: InstallSnapshotRequest<Types>,
        option: RPCOption,
    ) -> Result<InstallSnapshotResponse<MemberId>, CallError<InstallSnapshotError>> {
        match self.call(Rpc::Snapshot(request.into()), option.hard_ttl()).await? {
            Reply::Snapshot(Ok(reply)) => Ok(reply),
            Reply::Snapshot(Err(error)) => {
                Err(RPCError::RemoteError(RemoteError::new(self.to, RaftError::APIError(error))))
            }
            Reply::Append { .. } | Reply::Vote(_) | Reply::Refused(_) => Err(self.another()),
        }
    }

    async fn vote(
        &mut self,
        request: VoteRequest,
        option: RPCOption,
    ) -> Result<VoteResponse<MemberId>, CallError<openraft::error::Infallible>> {
        match self.call(Rpc::Vote(request), option.hard_ttl()).await? {
            Reply::Vote(reply) => Ok(reply),
            Reply::Append { .. } | Reply::Snapshot(_) | Reply::Refused(_) => Err(self.another()),
        }
    }

    fn backoff(&self) -> Backoff {
        Backoff::new(std::iter::repeat(BACKOFF))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use openraft::Membership;

    use super::*;
    use crate::resolve::Resolver;

    #[tokio::test]
    async fn a_lease_is_no_longer_than_what_its_followers_keep_to() {
        let (clock, election_max) = (Clock::start(), Duration::from_secs(8));
        let addr: Addr = "127.0.0.1:12000".parse().expect("address");
        for (keeps_ms, holds) in [(8000, true), (60_000, true), (7900, true), (300, false)] {
            let network = Network {
                own: 1.into(),
                cluster: 7,
                peers: Peers::new(addr.clone(), None, Resolver::new(), clock),
                clock,
                lease: Lease::new(election_max),
                contacts: Contacts::default(),
                election_max,
            };
            let voters: BTreeSet<MemberId> = [1, 2, 3].map(MemberId::from).into();
            network.lease.set_voters(&Membership::new(vec![voters], ()));
            network.lease.leads(1.into(), 5);
            let way = Way { network: network.clone(), to: 2.into(), addr: addr.clone() };
            way.acked(5, clock.now(), Duration::from_millis(keeps_ms));
            assert_eq!(network.lease.allows(Token(5), clock.now()), holds, "{keeps_ms}");
            let refused = network.contacts.refused().map(|(why, _)| why).unwrap_or_default();
            assert_eq!(refused.contains("raft_election_max_ms"), keeps_ms < 8000, "{refused}");
        }
    }

    #[test]
    fn digits_are_bytes_again() {
        let bytes: Vec<u8> = (0..=255).collect();
        assert_eq!(from_digits(&to_digits(&bytes)), Some(bytes));
        for wrong in ["0", "0g", "é"] {
            assert_eq!(from_digits(wrong), None, "{wrong}");
        }
    }
}
