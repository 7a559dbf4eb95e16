//! What nodes tell each other beside what their broker does: what they see of a group, hints, forwarded requests, and commands to an
//! instance that the leader cannot reach.
//!
//! The asking side spawns a task for each question and turns its end into an event; the loop never waits. The answering
//! side hands what only the loop knows to the loop, through a bounded inbox.

use std::time::Duration;

use failover_core::action::Command;
use failover_core::addr::Addr;
use failover_core::event::{
    Answer, CommandId, CommandResult, Event, RefusalCode, Request, Testimony,
};
use failover_core::node::{GroupName, NodeId, Token};
use failover_core::time::Time;
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use crate::broker::Broker;
use crate::clock::Clock;
use crate::cluster::{MemberChange, Several, Status};
use crate::events::Events;
use crate::peers::{CallError, Lane, Peers};
use crate::requests::{Requests, patience};

/// Most questions of other nodes that wait for the loop; one more is answered "busy".
const INBOX_MAX: usize = 1024;
/// How long another node is waited for when it is asked what it sees. The core asks again after that.
const SIGHT_TIMEOUT: Duration = Duration::from_millis(200);
/// Most groups that are asked about in one question: the answer must fit into a frame, and be there in time.
const SIGHT_GROUPS_MAX: usize = 64;
/// How long the leader is waited for when a request is forwarded to it.
const FORWARD_TIMEOUT: Duration = Duration::from_secs(8);
/// How long this node waits until it has itself what the leader committed for a forwarded request.
const CATCH_UP_TIMEOUT: Duration = Duration::from_secs(2);

/// A question or message of another node.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Ask {
    /// What do you see of these groups?
    Sight {
        /// The leadership that asks.
        token: Token,
        /// The groups.
        groups: Vec<GroupName>,
    },
    /// I suspect the master of this group.
    Hint(GroupName),
    /// Somebody asked me for this, and you lead.
    Request(Request),
    /// I lead and cannot reach this instance: tell it this.
    Command {
        /// The group, which has the credentials.
        group: GroupName,
        /// The instance.
        addr: Addr,
        /// What.
        command: Command,
        /// Under which leadership.
        token: Token,
        /// How long the command may take.
        limit_ms: u64,
    },
    /// How are you?
    Status,
    /// Somebody asked me for this, and you lead.
    Change(MemberChange),
}

/// The answer to an [`Ask`].
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Reply {
    /// What is seen of each group that is known.
    Sights(Vec<(GroupName, Testimony)>),
    /// It was noted; nothing else is to be said.
    Noted,
    /// How a request ended, and the log index behind which everybody sees it.
    Answered(Answer, u64),
    /// How a command ended.
    Commanded(CommandResult),
    /// How the node is.
    Status(Status),
    /// How a change of the members ended.
    Changed(Result<(), (RefusalCode, String)>),
    /// It could not be done, a sentence says why; nothing was done.
    Refused(String),
}

/// What another node wants of the loop.
#[derive(Debug)]
pub(crate) enum Inbound {
    /// What this node sees.
    Sight(Vec<GroupName>, oneshot::Sender<Vec<(GroupName, Testimony)>>),
    /// A follower's suspicion.
    Hint(GroupName),
    /// Has everything been handled and shown that the broker had said before this?
    CaughtUp(oneshot::Sender<()>),
    /// A command on behalf of the leader.
    Command {
        group: GroupName,
        addr: Addr,
        command: Command,
        token: Token,
        deadline: Time,
        reply: oneshot::Sender<CommandResult>,
    },
}

/// The asking side.
#[derive(Clone, Debug)]
pub(crate) struct Talk {
    peers: Peers,
    clock: Clock,
    events: Events,
    broker: Broker,
    inbox: mpsc::Sender<Inbound>,
}

impl Talk {
    pub(crate) fn new(
        peers: Peers,
        clock: Clock,
        events: Events,
        broker: Broker,
        inbox: mpsc::Sender<Inbound>,
    ) -> Self {
        Self { peers, clock, events, broker, inbox }
    }

    /// Asks a node what it sees; what it answers comes as events, and nothing comes when it does not.
    pub(crate) fn ask_sight(&self, node: &NodeId, token: Token, groups: &[GroupName]) {
        for some in groups.chunks(SIGHT_GROUPS_MAX) {
            self.ask_sight_once(node.clone(), token, some.to_vec());
        }
    }

    fn ask_sight_once(&self, node: NodeId, token: Token, groups: Vec<GroupName>) {
        let this = self.clone();
        tokio::spawn(async move {
            let asked_at = this.clock.now();
            let ask = Ask::Sight { token, groups };
            let Ok(Reply::Sights(sights)) = this.call(&node, &ask, SIGHT_TIMEOUT).await else {
                return;
            };
            for (group, testimony) in sights {
                let node = node.clone();
                let event = Event::Testified { node, token, group, asked_at, testimony };
                this.events.send(event).await;
            }
        });
    }

    /// Tells the leader of a suspicion. When it is lost, the leader finds out by itself.
    pub(crate) fn hint(&self, leader: NodeId, group: GroupName) {
        let this = self.clone();
        tokio::spawn(async move {
            let _ = this.call(&leader, &Ask::Hint(group), SIGHT_TIMEOUT).await;
        });
    }

    /// Has another node command an instance; the end comes as an event.
    pub(crate) fn command(
        &self,
        via: NodeId,
        (group, id): (GroupName, CommandId),
        (addr, command): (Addr, Command),
        token: Token,
        deadline: Time,
    ) {
        let this = self.clone();
        tokio::spawn(async move {
            let sent_at = this.clock.now();
            let limit = deadline.since(sent_at);
            let limit_ms = u64::try_from(limit.as_millis()).unwrap_or(u64::MAX);
            let ask = Ask::Command { group: group.clone(), addr, command, token, limit_ms };
            let result = match this.call(&via, &ask, limit).await {
                Ok(Reply::Commanded(CommandResult::Done { mut facts, warnings })) => {
                    // The other node's clock means nothing here; the facts are newer than the question.
                    facts.asked_at = sent_at;
                    CommandResult::Done { facts, warnings }
                }
                Ok(Reply::Commanded(result)) => result,
                Ok(Reply::Refused(why)) | Err(CallError::NotSent(why)) => {
                    CommandResult::NotSent(format!("{via} was to send the command: {why}"))
                }
                Ok(
                    Reply::Sights(_)
                    | Reply::Noted
                    | Reply::Answered(..)
                    | Reply::Status(_)
                    | Reply::Changed(_),
                ) => CommandResult::Unknown(format!("{via} answered something else")),
                Err(CallError::Unknown(why)) => {
                    CommandResult::Unknown(format!("{via} was to send the command: {why}"))
                }
            };
            this.events.send(Event::Commanded { group, id, result }).await;
        });
    }

    /// Has the leader carry out a request. When it did, this node has the result as well.
    pub(crate) fn forward(
        &self,
        leader: NodeId,
        request: Request,
        answer: oneshot::Sender<Answer>,
    ) {
        let this = self.clone();
        tokio::spawn(async move {
            let limit = FORWARD_TIMEOUT + patience(&request);
            let reply = this.call(&leader, &Ask::Request(request), limit).await;
            let end = match reply {
                Ok(Reply::Answered(end, index)) => {
                    if matches!(end, Answer::Done | Answer::Replaced(_)) {
                        let _ = timeout(CATCH_UP_TIMEOUT, this.catch_up(index)).await;
                    }
                    end
                }
                Ok(Reply::Refused(why)) | Err(CallError::NotSent(why)) => Answer::Refused {
                    code: RefusalCode::NoLeader,
                    message: format!(
                        "the leader {leader} cannot be asked ({why}); nothing was done"
                    ),
                },
                Ok(
                    Reply::Sights(_)
                    | Reply::Noted
                    | Reply::Commanded(_)
                    | Reply::Status(_)
                    | Reply::Changed(_),
                ) => Answer::unknown(format!("the leader {leader} answered something else")),
                Err(CallError::Unknown(why)) => Answer::unknown(format!(
                    "the leader {leader} was asked and did not answer ({why}); it may still be done: read the groups and the history"
                )),
            };
            let _ = answer.send(end);
        });
    }

    /// Waits until this node shows what the log has up to an entry.
    async fn catch_up(&self, index: u64) {
        self.broker.applied(index).await;
        let (reply, caught_up) = oneshot::channel();
        if self.inbox.send(Inbound::CaughtUp(reply)).await.is_ok() {
            let _ = caught_up.await;
        }
    }

    /// Asks another node, and waits at most so long.
    pub(crate) async fn call(
        &self,
        node: &NodeId,
        ask: &Ask,
        limit: Duration,
    ) -> Result<Reply, CallError> {
        let addr = self.broker.address_of(node).ok_or_else(|| {
            CallError::NotSent(format!("the node {node} is not there: its address is not known"))
        })?;
        let body = serde_json::to_vec(ask)
            .map_err(|error| CallError::NotSent(format!("it cannot be written: {error}")))?;
        let reply = self.peers.call(&addr, Lane::Talk, body, limit).await?;
        serde_json::from_slice(&reply)
            .map_err(|error| CallError::Unknown(format!("its answer cannot be read: {error}")))
    }
}

/// The answering side.
#[derive(Clone, Debug)]
pub(crate) struct Listener {
    inbox: mpsc::Sender<Inbound>,
    requests: Requests,
    clock: Clock,
    broker: Broker,
    cluster: Several,
}

/// The way of other nodes' questions into the loop, and its end there.
pub(crate) fn inbox() -> (mpsc::Sender<Inbound>, mpsc::Receiver<Inbound>) {
    mpsc::channel(INBOX_MAX)
}

impl Listener {
    pub(crate) fn new(
        inbox: mpsc::Sender<Inbound>,
        requests: Requests,
        clock: Clock,
        broker: Broker,
        cluster: Several,
    ) -> Self {
        Self { inbox, requests, clock, broker, cluster }
    }

    /// Answers another node.
    pub(crate) async fn answer(&self, ask: Ask) -> Reply {
        match ask {
            Ask::Sight { token: _, groups } => {
                let (reply, sights) = oneshot::channel();
                self.hand_in(Inbound::Sight(groups, reply), sights, SIGHT_TIMEOUT)
                    .await
                    .map_or_else(Reply::Refused, Reply::Sights)
            }
            Ask::Hint(group) => {
                let _ = self.inbox.try_send(Inbound::Hint(group));
                Reply::Noted
            }
            Ask::Status => Reply::Status(self.cluster.status()),
            Ask::Change(change) => {
                let cluster = self.cluster.clone();
                // A task of its own: half of a change is worse than all or nothing of it, whoever waits.
                let change = tokio::spawn(async move { cluster.change_here(change).await });
                match change.await {
                    Ok(result) => {
                        Reply::Changed(result.map_err(|error| (error.code, error.message)))
                    }
                    Err(_) => Reply::Changed(Err((
                        RefusalCode::UnknownOutcome,
                        "the change broke off: read /v1/cluster".to_owned(),
                    ))),
                }
            }
            Ask::Request(request) => {
                let answer = self.requests.ask_as_leader(request).await;
                Reply::Answered(answer, self.broker.log_index())
            }
            Ask::Command { group, addr, command, token, limit_ms } => {
                let limit = Duration::from_millis(limit_ms);
                let deadline = self.clock.now() + limit;
                self.broker.confirm().await;
                let (reply, end) = oneshot::channel();
                let order = Inbound::Command { group, addr, command, token, deadline, reply };
                match self.hand_in(order, end, limit * 2).await {
                    Ok(result) => Reply::Commanded(result),
                    Err(why) => Reply::Commanded(CommandResult::Unknown(why)),
                }
            }
        }
    }

    async fn hand_in<T>(
        &self,
        inbound: Inbound,
        reply: oneshot::Receiver<T>,
        limit: Duration,
    ) -> Result<T, String> {
        self.inbox
            .try_send(inbound)
            .map_err(|_| "too many questions wait for its loop".to_owned())?;
        match timeout(limit, reply).await {
            Ok(Ok(reply)) => Ok(reply),
            Ok(Err(_)) => Err("it is stopping".to_owned()),
            Err(_) => Err("its loop did not answer in time".to_owned()),
        }
    }
}
