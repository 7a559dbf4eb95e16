//! The first format of the record. A field may be added with a default; any other change is a new version.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::addr::Addr;
use crate::instance::{Flavor, MinReplicas, ReplicationId};
use crate::node::NodeId;
use crate::policy::LINEAGE_MAX;
use crate::time::Time;

mod occurrence;

pub use occurrence::{HookEvent, Occurrence};

/// What is agreed about one group.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GroupEntry {
    /// The master by record: what everyone who asks is told.
    pub master: Addr,
    /// Whether it was ever seen as a master. Until then the address is only what somebody registered.
    pub confirmed: bool,
    /// Taken by each decision to promote, never reused.
    pub epoch: u64,
    /// What the servers turned out to be.
    pub flavor: Option<Flavor>,
    /// Every known instance, the master included. None is forgotten unless somebody asks for it.
    pub instances: BTreeMap<Addr, Known>,
    /// The histories of writes that the group's masters had, newest first.
    pub lineage: Vec<ReplicationId>,
    /// The process that is the master. Another one behind its address has restarted, and may have lost its data.
    #[serde(default)]
    pub master_run_id: Option<Box<str>>,
    /// Whether the program may act on the group.
    pub status: Status,
    /// When changes that were made by hand were undone last, oldest first, by the leader's clock.
    #[serde(default)]
    pub drifts_undone: Vec<Time>,
    /// What is being changed right now.
    pub saga: Option<Saga>,
    /// Counts the entries of history.
    pub history_next: u64,
    /// Set when somebody asked that the group is not guarded any more: since when. It is gone for everybody who asks, and
    /// leaves the record when its servers have back what was changed of their settings.
    #[serde(default)]
    pub leaving: Option<Time>,
    /// What happened and hooks are still to be told of, oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub untold: Vec<Occurrence>,
    /// Counts what hooks were to be told.
    #[serde(default)]
    pub untold_next: u64,
}

impl GroupEntry {
    /// Another instance is the master from now on.
    pub fn succeed(&mut self, master: &Addr) {
        if let Some(known) = self.instances.get_mut(&self.master) {
            known.was_master = true;
        }
        self.master = master.clone();
    }

    /// A group of which only an address is known.
    pub fn new(master: Addr) -> Self {
        Self {
            instances: BTreeMap::from([(master.clone(), Known::default())]),
            master,
            confirmed: false,
            epoch: 0,
            flavor: None,
            lineage: Vec::new(),
            master_run_id: None,
            status: Status::Active,
            drifts_undone: Vec::new(),
            saga: None,
            history_next: 1,
            leaving: None,
            untold: Vec::new(),
            untold_next: 0,
        }
    }

    /// The masters go on with this history from now on.
    pub fn begin_history(&mut self, id: &ReplicationId) {
        self.lineage.retain(|known| known != id);
        self.lineage.insert(0, id.clone());
        self.lineage.truncate(LINEAGE_MAX);
    }

    /// Whether an address is one of the group's instances, or another name of one.
    pub fn instance_of(&self, addr: &Addr) -> Option<&Addr> {
        match self.instances.get_key_value(addr) {
            Some((addr, _)) => Some(addr),
            None => self
                .instances
                .iter()
                .find(|(_, known)| known.aliases.contains(addr))
                .map(|(addr, _)| addr),
        }
    }
}

/// What is agreed about one instance.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Known {
    /// Other addresses that turned out to be the same server.
    #[serde(default)]
    pub aliases: BTreeSet<Addr>,
    /// Whether it was ever seen to belong to the group, as its master or as a replica of it. One that never was is
    /// not demoted into it.
    #[serde(default)]
    pub attached: bool,
    /// Whether it was the recorded master once: whoever follows it still was left behind.
    #[serde(default)]
    pub was_master: bool,
    /// Whether its owner named it as a replica of this group before it was ever asked.
    #[serde(default)]
    pub listed: bool,
    /// Set when a promotion of it was given up while it might still take effect: the epoch of that promotion. It is
    /// demoted on sight until its role was read.
    #[serde(default)]
    pub abandoned: Option<u64>,
    /// What the history said last of this replica: that it is in this trouble, or in none.
    #[serde(default)]
    pub trouble: Option<Trouble>,
    /// A rule on its promotion that was set on request. It counts before one of the configuration.
    #[serde(default)]
    pub rule: Option<GivenRule>,
    /// What was changed of its settings so that it takes no writes without replicas.
    #[serde(default)]
    pub fenced: Option<Fenced>,
    /// How far it is with a full copy, where servers do not find out by themselves that one is due.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub copy: Option<FullCopy>,
}

/// How far an instance is with a full copy of its master's data, which is an order of ours that it does not forget by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FullCopy {
    /// It may hold what the recorded master never had: when it follows, it has to take over everything.
    Owed,
    /// It was told to, and would do it again whenever its link is lost.
    Told,
    /// It has its copy, and follows nobody for a moment so that it forgets that.
    Parted,
}

/// What was changed of an instance's settings.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fenced {
    /// What it was set to before, and is again when it is not fenced any more.
    pub former: MinReplicas,
    /// What it was decided to be set to.
    pub set: MinReplicas,
    /// Whether that outlasts its restart.
    pub kept: Kept,
}

/// Whether a changed setting outlasts a restart.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kept {
    /// It was not heard yet.
    Unknown,
    /// The server wrote it into its configuration file.
    Written,
    /// It could not.
    Lost {
        /// What it said.
        why: String,
    },
}

/// What somebody wants of the promotion of one instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Rule {
    /// It is not promoted.
    Never,
    /// It comes before others that are as advanced as it is.
    Prefer,
    /// It comes behind them.
    PreferNot,
}

impl Rule {
    /// The name as it is written in requests and answers.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Never => "never",
            Self::Prefer => "prefer",
            Self::PreferNot => "prefer_not",
        }
    }

    /// By its name.
    pub fn by_name(name: &str) -> Option<Self> {
        [Self::Never, Self::Prefer, Self::PreferNot].into_iter().find(|rule| rule.name() == name)
    }
}

/// A rule that was set on request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GivenRule {
    /// Which.
    pub rule: Rule,
    /// From when on it counts no more, by the leader's clock.
    pub expires_at: Option<Time>,
}

/// What may be wrong with a replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Trouble {
    /// It is down.
    Down,
    /// It answers, and has no link to its master for long.
    Link,
}

/// Whether the program may act on a group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Status {
    /// It may.
    Active,
    /// A failover failed after it had changed something; an operator has to resume the group.
    Halted {
        /// What failed.
        reason: String,
        /// When.
        at: Time,
    },
    /// An operator asked that nothing is done to it. It is watched all the same.
    Paused {
        /// Why, in the operator's words.
        reason: Option<String>,
        /// When it ends by itself.
        until: Option<Time>,
        /// Since when.
        at: Time,
    },
    /// A pause was ended on request: every instance is asked once more, since its master may have been changed by hand,
    /// and then the group is active again.
    Resuming,
}

/// A change of the servers that was decided and is not finished.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Saga {
    /// How far it is.
    pub phase: Phase,
    /// Whom it is about: the candidate to be promoted, or the instance to be repaired.
    pub target: Addr,
    /// The process that was elected. One that restarted since may have lost its data and is not promoted.
    #[serde(default)]
    pub target_run_id: Option<Box<str>>,
    /// When a switchover must have got to its demotion.
    #[serde(default)]
    pub deadline: Option<Time>,
    /// Somebody wants it although the master may live.
    #[serde(default)]
    pub forced: bool,
    /// How far the new master was when it was promoted, where that decides what others may keep.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub promoted_at: Option<u64>,
    /// Candidates of this failover that were given up, in order.
    pub attempts: Vec<Attempt>,
    /// Its entry of history, growing.
    pub history: HistoryEntry,
}

/// One candidate that was given up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempt {
    /// Which.
    pub addr: Addr,
    /// Under which epoch.
    pub epoch: u64,
    /// Whether a command may have reached it.
    pub changed: bool,
    /// Why it was given up.
    pub reason: String,
}

/// How far a saga is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Phase {
    /// It was decided; the command is sent, or will be. In a switchover: no role is changed yet, writes may be paused.
    Decided,
    /// Of a switchover: the old master is being demoted, or was, and the candidate promoted.
    Demoting,
    /// Of a switchover: the candidate did not become master, and the old master is made one again.
    Undoing,
    /// The candidate was seen to be master; the other replicas are being repointed.
    Promoted,
}

/// What an entry of history is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// A dead master was replaced.
    Failover,
    /// A dead or doubtful master was replaced because somebody asked for it.
    ManualFailover,
    /// A healthy master was replaced because somebody asked for it.
    Switchover,
    /// An instance that returned as a master was made a replica.
    Demotion,
    /// A replica was pointed at the recorded master.
    Repair,
    /// A master that was made by hand became the recorded one.
    Adoption,
    /// A replica went away, lost its link for long, came back, or was forgotten on request; it is named as the old
    /// master.
    ReplicaEvent,
}

/// How something ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Not yet.
    Running,
    /// As decided.
    Done,
    /// It did not work; the reason says what was left.
    Failed,
    /// A before-failover handler refused.
    Vetoed,
    /// Nothing was changed, because its reason was gone.
    Undone,
}

/// One thing that was done, with what led to it and each step's time.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HistoryEntry {
    /// Unique for ever.
    pub id: String,
    /// Which of these it is.
    pub kind: Kind,
    /// The epoch of the last decision in it.
    pub epoch: u64,
    /// The master before.
    pub old_master: Addr,
    /// The master after; `None` when no one was promoted.
    pub new_master: Option<Addr>,
    /// The name of the diagnosis that led to it.
    pub cause: String,
    /// Its reason, a sentence.
    pub reason: String,
    /// How it ended.
    pub outcome: Outcome,
    /// When it began: the first sign of the fault.
    pub started_at: Time,
    /// When it ended.
    pub finished_at: Option<Time>,
    /// Who did it.
    pub leader: NodeId,
    /// From the first sign to the verified promotion.
    pub write_gap_ms: Option<f64>,
    /// How far the promoted replica was behind the last known offset of the master, a lower bound; of a demotion, what was
    /// written to the instance while it was a second master.
    pub bytes_possibly_lost: Option<u64>,
    /// Each step with its time.
    pub steps: Vec<Step>,
    /// All candidates, best first, then those that were refused.
    pub ranking: Vec<RankedCandidate>,
}

/// One step, in ms since the first sign of the fault.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Step {
    /// One of the names that the interface lists.
    pub name: String,
    /// The instance concerned.
    pub addr: Option<Addr>,
    /// When, counted from the start of the entry.
    pub at_ms: f64,
    /// Which node did or saw it.
    pub node: NodeId,
    /// What else there is to say.
    pub note: Option<String>,
}

/// A candidate and its place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RankedCandidate {
    /// Which instance.
    pub addr: Addr,
    /// 1 is best; `None` when it was refused.
    pub rank: Option<u32>,
    /// Its priority, when it was ever read.
    pub priority: Option<u32>,
    /// Its offset, when it was ever read.
    pub offset: Option<u64>,
    /// Why it cannot be promoted.
    pub refused: Option<String>,
}
