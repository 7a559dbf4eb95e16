//! The read-only picture that HTTP, metrics, Sentinel clients and the command line serve, in the interface's shapes.
//!
//! Every key is present in every answer, unknown is null.

use serde::{Deserialize, Serialize};

use crate::addr::Addr;
use crate::instance::Flavor;
use crate::node::{GroupName, NodeId};
use crate::record::HistoryEntry;
use crate::time::{Time, rfc3339};

/// One group, as one node sees it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct GroupView {
    /// Its stable name.
    pub name: GroupName,
    /// What its servers are.
    pub flavor: Option<Flavor>,
    /// The last epoch taken.
    pub epoch: u64,
    /// The recorded master.
    pub master: Addr,
    /// Whether something is being done with it.
    pub status: StatusView,
    /// Why it is halted or paused.
    pub status_reason: Option<String>,
    /// The conclusion about it.
    pub diagnosis: DiagnosisView,
    /// How many voters must see its master down.
    pub quorum: usize,
    /// Its instances, the master first.
    pub instances: Vec<InstanceView>,
    /// How late writes of an old master are prevented.
    pub fencing: FencingView,
    /// Its newest entry of history.
    pub last_history_id: Option<String>,
    /// Its history, newest first; served under its own address.
    #[serde(skip)]
    pub history: Vec<HistoryEntry>,
}

/// Whether something is being done with a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum StatusView {
    /// It is guarded.
    Active,
    /// A failover is on its way.
    FailingOver,
    /// A switchover is on its way.
    SwitchingOver,
    /// The program stopped acting because an operator asked it to.
    Paused,
    /// The program stopped acting after a failed failover.
    Halted,
}

/// A diagnosis with its reason and, when nothing is done about it, why not.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct DiagnosisView {
    /// Its name.
    pub name: &'static str,
    /// One sentence.
    pub reason: String,
    /// Since when it is this one.
    #[serde(serialize_with = "rfc3339::serialize")]
    pub since_at: Time,
    /// One sentence, when something is wrong and nothing is done.
    pub not_acting_because: Option<String>,
}

/// How late writes of an old master are prevented.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct FencingView {
    /// The mode: `none` or `min-replicas`.
    pub mode: &'static str,
    /// The `min-replicas-to-write` of the master that is in force, when the program manages it.
    pub min_replicas: Option<u32>,
}

/// One instance of a group.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct InstanceView {
    /// Where it is.
    pub addr: Addr,
    /// What it last said it is: `master`, `replica` or `unknown`.
    pub role: &'static str,
    /// Whether it is up.
    pub state: State,
    /// How that is known.
    pub how: How,
    /// Since when.
    #[serde(serialize_with = "rfc3339::serialize")]
    pub since_at: Time,
    /// Its offset when it was last read.
    pub offset: Option<u64>,
    /// How far it was behind the most advanced instance.
    pub lag_bytes: Option<u64>,
    /// Its link to its master: `up` or `down`.
    pub link: Option<&'static str>,
    /// For how long the link has been down.
    pub link_down_ms: Option<u64>,
    /// Lower is preferred, 0 is never promoted.
    pub priority: Option<u32>,
    /// Random per start of the server.
    pub run_id: Option<String>,
    /// The history it is on.
    pub replication_id: Option<String>,
    /// Its version text.
    pub version: Option<String>,
    /// A rule on its promotion.
    pub rule: Option<&'static str>,
    /// Where it stands.
    pub location: Option<String>,
    /// Whether it could be promoted if its master died now.
    pub eligible: bool,
    /// Why not, one sentence.
    pub not_eligible_because: Option<String>,
    /// What each node sees of it.
    pub views: Vec<NodeView>,
}

/// What one node sees of one instance.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct NodeView {
    /// Which node.
    pub node: NodeId,
    /// Whether it sees it up.
    pub state: State,
    /// How it knows.
    pub how: How,
    /// How old the newest evidence is.
    pub age_ms: u64,
}

/// Whether an instance is up, for one node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// It replies, or did so recently enough.
    Up,
    /// It does not, for longer than the policy allows.
    Down,
    /// It was never heard, or does not talk to us.
    Unknown,
}

/// How a node knows what it sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum How {
    /// It replied.
    Replied,
    /// Its host refuses connections.
    Refusing,
    /// No valid reply came.
    Silent,
    /// It reads its data from disk.
    Loading,
    /// It does not know us.
    Auth,
    /// It refuses writes because it cannot save.
    Misconf,
    /// A script blocks it, or it takes no more clients.
    Busy,
    /// It does not speak its protocol.
    Garbage,
    /// The name of its host cannot be resolved.
    Unresolved,
}

/// How a dead instance is dead.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Death {
    /// Its host says that no process listens.
    Refusing,
    /// It accepts connections and gives no valid reply.
    Hung,
    /// No answer at all.
    Unreachable,
    /// It restarted and reads its data for too long.
    Loading,
    /// It restarted without its data, which others still have: whoever follows it loses theirs too.
    Emptied,
}
