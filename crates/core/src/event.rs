//! Everything that can happen, a sentence per variant.

use std::ops::RangeInclusive;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::addr::Addr;
use crate::instance::Facts;
use crate::node::{GroupName, Leadership, NodeId, Token};
use crate::record::{Change, GivenRule, Outcome, Record};
use crate::time::Time;
use crate::view::{Death, How, State};

/// Numbers the questions to one instance, so that a late answer is known as one.
pub type ProbeSeq = u64;
/// Numbers the commands of one group.
pub type CommandId = u64;
/// Numbers the requests of one node's shell.
pub type RequestId = u64;

/// Names a proposal of this node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ProposalId {
    /// Made by a group, numbered by it.
    Group(GroupName, u64),
    /// Made by the fleet for a request, numbered by the fleet.
    Fleet(u64),
}

/// Something that happened outside.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Event {
    /// A probe of an instance ended.
    Probed {
        /// Which instance.
        addr: Addr,
        /// The question that this answers.
        seq: ProbeSeq,
        /// How it ended.
        outcome: Probed,
    },
    /// A fresh connection to an instance was accepted; it has not said anything on it yet.
    Accepted {
        /// Which instance.
        addr: Addr,
    },
    /// The connection to an instance ended without our doing.
    Ended {
        /// Which instance.
        addr: Addr,
    },
    /// A command to an instance ended.
    Commanded {
        /// The group that sent it.
        group: GroupName,
        /// Which command.
        id: CommandId,
        /// How it ended.
        result: CommandResult,
    },
    /// The broker says who acts.
    Leadership(Leadership),
    /// The broker says who the voters of the committed membership are.
    Voters(Vec<NodeId>),
    /// Changes were committed, by this node or another.
    Committed {
        /// The proposal of this node that they were, when they were one.
        id: Option<ProposalId>,
        /// The changes, to be applied in this order.
        changes: Vec<Change>,
    },
    /// A proposal of this node was not committed, and will not be.
    NotCommitted {
        /// Which proposal.
        id: ProposalId,
        /// Why, a sentence.
        why: String,
    },
    /// It is not known what becomes of a proposal of this node: it may still be committed, also under another leader.
    Unsettled {
        /// Which proposal.
        id: ProposalId,
        /// Why, a sentence.
        why: String,
    },
    /// The record as it stands, in place of the one before: at the start, or when this node was too far behind to hear
    /// every single change. What is in it happened earlier and is not told again.
    Restored(Record),
    /// Another node answered what it sees of a group.
    Testified {
        /// Which node.
        node: NodeId,
        /// The leadership that asked.
        token: Token,
        /// The group it was asked about.
        group: GroupName,
        /// When the question was sent: the answer is at least as new.
        asked_at: Time,
        /// What it sees.
        testimony: Testimony,
    },
    /// A follower suspects the master of a group; only its testimony will count.
    Hinted {
        /// Which group.
        group: GroupName,
    },
    /// The before-failover handlers were asked.
    Vetted {
        /// The group concerned.
        group: GroupName,
        /// The question that this answers.
        id: CommandId,
        /// The reason of the handler that said no.
        veto: Option<String>,
    },
    /// A hook was told what happened, or was given up on.
    Told {
        /// The group concerned.
        group: GroupName,
        /// The number of the occurrence.
        number: u64,
        /// Which hook; `None`: all that want to be told are done with it.
        hook: Option<String>,
    },
    /// Somebody wants something.
    Request {
        /// To be named in the answer.
        id: RequestId,
        /// What.
        request: Request,
    },
}

/// What a node sees of a group right now, asked by the leader.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Testimony {
    /// Whom this node takes for the recorded master. One that lags behind the record speaks of an older one.
    pub master: Addr,
    /// How the recorded master is dead for it; `None` when it is not, or not yet.
    pub dead: Option<Death>,
    /// Every instance as it sees it.
    pub sights: Vec<Sight>,
}

/// What a node sees of one instance. Two nodes' clocks cannot be compared, so there are only ages in it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Sight {
    /// Which instance.
    pub addr: Addr,
    /// Whether it is up.
    pub state: State,
    /// How that is known.
    pub how: How,
    /// How old the newest evidence is, in milliseconds.
    pub age_ms: u64,
    /// The facts it last reported, when it serves, and how long ago they were asked for, in microseconds. Their own
    /// `asked_at` is of the other node's clock and means nothing here.
    pub facts: Option<(Box<Facts>, u64)>,
}

/// How a probe ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Probed {
    /// The server replied in its protocol.
    Replied {
        /// What it thinks of itself.
        health: Health,
        /// What it reported, when it was willing to.
        facts: Option<Box<Facts>>,
        /// The socket address that was reached: another name of the instance.
        socket: Option<Addr>,
    },
    /// Its host says that no process listens.
    Refused,
    /// The connection was accepted and ended before a valid reply.
    Ended,
    /// What it said is not its protocol, or never ended.
    Garbage(String),
    /// It could not even be asked, for want of something on this node: that says nothing of the instance.
    NotAsked(String),
    /// The host cannot be reached.
    Unreachable(String),
    /// The name of its host cannot be resolved.
    Unresolved(String),
}

/// What a server that replies says of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Health {
    /// It serves (`PONG`; also `-MASTERDOWN`, which is a replica's honest word about its master).
    Fine,
    /// It reads its data from disk (`-LOADING`).
    Loading,
    /// It refuses writes because it cannot save (`-MISCONF`).
    Misconfigured(String),
    /// It executes a script that does not end (`-BUSY`), or takes no more clients.
    Busy(String),
    /// It does not know us or does not let us (`-NOAUTH`, `-WRONGPASS`, `-NOPERM`, protected mode).
    Auth(String),
}

/// How a command ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum CommandResult {
    /// The server accepted it; this is what it reported right after.
    Done {
        /// Read after the command.
        facts: Box<Facts>,
        /// What did not work beside it and matters to people, such as a refused `CONFIG REWRITE`.
        warnings: Vec<String>,
    },
    /// It surely changed nothing: it could not be sent, or the server said no.
    Refused(String),
    /// It was not sent, for a reason that says nothing of the instance: the leadership is over or its lease ran out, or
    /// a node stood still until its time was over.
    NotSent(String),
    /// It may have happened, or may happen later.
    Unknown(String),
}

/// A group that somebody wants guarded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupSpec {
    /// Its name; absent: the address.
    pub name: Option<GroupName>,
    /// Its master, or any instance that leads to it.
    pub master: Addr,
    /// Replicas that are known beforehand.
    pub replicas: Vec<Addr>,
}

/// What people and programs ask of the program.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Request {
    /// Guard these groups too; what is known already stays as it is.
    Add(Vec<GroupSpec>),
    /// Guard these and no others; groups that overlap with one of them are kept.
    Replace(Vec<GroupSpec>),
    /// Stop guarding; each is a group's name or the address of one of its instances. An unknown one is ignored.
    Remove(Vec<String>),
    /// Act again on a halted or paused group.
    Resume(GroupName),
    /// Do nothing to a group until it is resumed.
    Pause {
        /// Which; `None`: all that there are. Halted ones stay halted.
        group: Option<GroupName>,
        /// Why, in the words of whoever asks.
        reason: Option<String>,
        /// When the pause ends by itself.
        until: Option<Time>,
    },
    /// Act again on all halted and paused groups.
    ResumeAll,
    /// Forget a replica that is gone for good.
    Forget {
        /// Of which group.
        group: GroupName,
        /// Where it was.
        addr: Addr,
    },
    /// Set a rule on the promotion of an instance, or take it away.
    Rule {
        /// Of which group.
        group: GroupName,
        /// Which instance.
        addr: Addr,
        /// Absent: what the configuration says counts again.
        rule: Option<GivenRule>,
    },
    /// Replace a healthy master without losing anything. Answered when it has ended.
    Switchover {
        /// In which group.
        group: GroupName,
        /// By whom; the best replica when nobody is named.
        to: Option<Addr>,
        /// Until then the old master must have been demoted; else everything is undone.
        timeout: Duration,
        /// Only say what would be done.
        dry_run: bool,
    },
    /// Replace a dead or doubtful master now. Answered when it has ended.
    Failover {
        /// In which group.
        group: GroupName,
        /// By whom; the best replica when nobody is named.
        to: Option<Addr>,
        /// Although the master is not down for this node, whatever may be lost.
        force: bool,
        /// Only say what would be done.
        dry_run: bool,
    },
}

/// How long a switchover may take until its demotion, when nobody says otherwise.
pub const SWITCHOVER_TIMEOUT: Duration = Duration::from_secs(5);
/// The shortest and the longest time that can be asked for: writes wait as long.
pub const SWITCHOVER_TIMEOUTS: RangeInclusive<Duration> =
    Duration::from_millis(500)..=Duration::from_secs(60);

/// How a change of master that somebody asked for ended, or what it would be.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Replacement {
    /// Its entry of history; `None` for a dry run, and when nothing was begun.
    pub id: Option<String>,
    /// The group.
    pub group: GroupName,
    /// The master before.
    pub old_master: Addr,
    /// The master after, or the one that would be; the old one when it was undone.
    pub new_master: Addr,
    /// The epoch that it took; the last one taken, for a dry run.
    pub epoch: u64,
    /// How it ended; `None` for a dry run.
    pub outcome: Option<Outcome>,
    /// Why, and why it ended so: a sentence.
    pub reason: String,
    /// How long nobody could write.
    pub write_gap_ms: Option<f64>,
    /// What the new master may lack; `None` when that cannot be known.
    pub bytes_possibly_lost: Option<u64>,
    /// Whether nothing was done.
    pub dry_run: bool,
    /// What is done, in order, a sentence each.
    pub plan: Vec<String>,
    /// What to be careful about, a sentence each.
    pub warnings: Vec<String>,
}

/// The answer to a request, given after it was committed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Answer {
    /// It holds.
    Done,
    /// A change of master ended, as it says.
    Replaced(Box<Replacement>),
    /// Nothing was changed, or that is not known; a sentence says why.
    Refused {
        /// What kind of refusal.
        code: RefusalCode,
        /// The sentence.
        message: String,
    },
}

impl Answer {
    /// That it is not known whether it was done.
    pub fn unknown(message: String) -> Self {
        Self::Refused { code: RefusalCode::UnknownOutcome, message }
    }
}

/// Why a request was refused, for programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RefusalCode {
    /// There is no such group.
    UnknownGroup,
    /// The group has no such instance.
    UnknownInstance,
    /// The group is halted.
    Halted,
    /// It contradicts what is so.
    Refused,
    /// Too many are waiting, or something else is being done.
    Busy,
    /// Nobody acts; nothing was done.
    NoLeader,
    /// It was not committed; nothing was done.
    NoQuorum,
    /// It may have been done, or may still be.
    UnknownOutcome,
}
