//! Everything the core can ask for. Each action ends as an event again, except the ones that say they do not.

use serde::{Deserialize, Serialize};

use crate::addr::Addr;
use crate::event::{Answer, CommandId, ProbeSeq, ProposalId, RequestId};
use crate::instance::MinReplicas;
use crate::node::{GroupName, NodeId, Token};
use crate::notice::Notice;
use crate::record::{Change, Occurrence};
use crate::time::Time;

/// Something to be done outside.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Action {
    /// Ask an instance how it is. Ends as `Probed`. A newer probe of the same instance may overtake one that was not
    /// sent yet.
    Probe {
        /// Which instance, and in whose group: the group has the credentials.
        group: GroupName,
        /// Its address.
        addr: Addr,
        /// To be named in the outcome.
        seq: ProbeSeq,
        /// Ask on a new connection, beside the one that is there.
        fresh: bool,
    },
    /// Close the connections to an instance. No event follows.
    Forget {
        /// Its address.
        addr: Addr,
    },
    /// Make something agreed. Ends as `Committed` with this id, `NotCommitted` or `Unsettled`.
    Propose {
        /// To be named in the outcome.
        id: ProposalId,
        /// Under which leadership.
        token: Token,
        /// What; all or nothing.
        changes: Vec<Change>,
    },
    /// Change an instance. Ends as `Commanded`. The token is checked right before the write.
    Command {
        /// The group whose command it is.
        group: GroupName,
        /// To be named in the result.
        id: CommandId,
        /// The instance.
        addr: Addr,
        /// What.
        command: Command,
        /// Under which leadership.
        token: Token,
        /// The node that is to send it, where this one cannot reach the instance.
        via: Option<NodeId>,
        /// The result is unknown when it has not come by then.
        deadline: Time,
    },
    /// Ask another node what it sees of a group. Ends as `Testified`, or in nothing when it does not answer.
    AskPeer {
        /// Which node.
        node: NodeId,
        /// About which group.
        group: GroupName,
        /// Under which leadership.
        token: Token,
    },
    /// Tell the leader that this node suspects the master of a group. No event follows.
    Hint {
        /// Which node leads.
        leader: NodeId,
        /// Which group.
        group: GroupName,
    },
    /// Ask the before-failover handlers. Ends as `Vetted`.
    Vet {
        /// The group concerned.
        group: GroupName,
        /// To be named in the outcome.
        id: CommandId,
        /// The master that would be replaced.
        old_master: Addr,
        /// The replica that would be promoted.
        candidate: Addr,
        /// Why, a sentence.
        reason: String,
        /// When the handlers have to be done.
        deadline: Time,
    },
    /// Tell the hooks of the leader what happened, as long as it leads. Ends as `Told`, or in nothing when it leads no
    /// more: the next leader is asked the same. What is asked twice is told once.
    Tell {
        /// The group concerned.
        group: GroupName,
        /// Under which leadership.
        token: Token,
        /// What.
        occurrence: Box<Occurrence>,
    },
    /// Tell everyone who listens. No event follows.
    Publish(Notice),
    /// Answer a request. No event follows.
    Answer {
        /// Which.
        id: RequestId,
        /// With what.
        answer: Answer,
    },
}

/// A change of an instance. All are idempotent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Command {
    /// Become a master.
    Promote {
        /// Only if it is this process still; `None` where the flavor has no run ids.
        run_id: Option<Box<str>>,
        /// Only if it is this far still, where the flavor has no run ids: a process that began anew may have nothing.
        #[serde(default)]
        at_least: Option<u64>,
        /// What its writes depend on from then on; set before, in the same write.
        fence: Option<MinReplicas>,
    },
    /// Become a replica of this master, drop the clients that believe otherwise, remember it.
    Follow {
        /// Whom.
        master: Addr,
        /// The process that is the master: one that turns out to be it under another address must not follow itself.
        master_run_id: Option<Box<str>>,
        /// What becomes of its data.
        #[serde(default)]
        keep: Keep,
    },
    /// Follow nobody and take no writes, so that it forgets how it was told to follow.
    Part,
    /// Hold back all writes for at most so long, or until it is told otherwise where pauses do not end, and say how far the
    /// data is after that.
    Pause {
        /// In milliseconds.
        ms: u64,
    },
    /// Let writes go on.
    Unpause,
    /// Take no writes from now on, as fast as it can be done: as a replica of this master, or as a master that refuses them
    /// where a pause does not end.
    Demote {
        /// Whom.
        master: Addr,
        /// The process that is going to be the master.
        master_run_id: Option<Box<str>>,
    },
    /// Make its writes depend on its replicas like this, and remember it.
    Fence {
        /// How.
        set: MinReplicas,
    },
}

/// What a server that is told to follow keeps of its data.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Keep {
    /// What it has in common with its new master. The two find that out.
    #[default]
    Common,
    /// All of it, since the master began with the same: provided that it goes no further than this offset.
    UpTo(u64),
    /// Nothing: it takes over a full copy.
    Nothing,
}
