//! What must always be so, one file each. The checks see everything that happens and the truth behind it, and none of
//! what the core believes.

use std::time::Duration;

use failover_core::action::Command;
use failover_core::addr::Addr;
use failover_core::node::Token;
use failover_core::policy::Policy;
use failover_core::record::{Change, GroupEntry};
use failover_core::time::Time;

use crate::clients::Written;
use crate::model_redis::Server;

pub(crate) mod best_promoted;
pub(crate) mod bounded_state;
pub(crate) mod bounded_work;
pub(crate) mod current_term;
pub(crate) mod decided_first;
pub(crate) mod fenced_out;
pub(crate) mod hands_off;
pub(crate) mod kept_writes;
pub(crate) mod last_copy;
pub(crate) mod liveness;
pub(crate) mod no_false_alarm;
pub(crate) mod one_master;
pub(crate) mod one_promotion;
pub(crate) mod quorum;
pub(crate) mod true_copies;
pub(crate) mod true_master;

/// The names of all invariants, with what they say.
pub const ALL: [(&str, &str); 17] = [
    ("one-promotion", "an epoch is taken once, and at most one replica is promoted under it"),
    (
        "quorum",
        "nobody is promoted unasked unless a majority said a moment ago that the master is down",
    ),
    ("current-term", "no command is decided or written under a leadership that is over"),
    (
        "decided-first",
        "a decision is committed before its first command, and asks for each of them",
    ),
    ("hands-off", "a group that is halted or paused is not touched"),
    (
        "best-promoted",
        "the promoted replica was eligible, and none that had more acknowledged writes was passed over",
    ),
    ("no-false-alarm", "a master that serves, or was silent for a moment, is not replaced unasked"),
    ("kept-writes", "no acknowledged write is gone without a reason, and a switchover is none"),
    (
        "last-copy",
        "nobody is told to follow a master that is gone, nor the last copy one that lost its data",
    ),
    (
        "true-master",
        "the record names only what is a master, and a failover that failed half done halts the group",
    ),
    ("one-master", "a second master is demoted soon while the recorded one serves"),
    (
        "fenced-out",
        "where groups are fenced, a master that was replaced acknowledges nothing after the bound, and one that is well writes",
    ),
    ("bounded-work", "no probe storm, no repair loop, no timer that is always due"),
    ("bounded-state", "queues, histories and what is wanted at once stay below their limits"),
    ("true-copies", "in the end every replica has what its master has, in the same order"),
    ("replayed", "what is written down of a node leads to the same actions again"),
    (
        "liveness",
        "after the last fault there is one master, all follow it, and the group is healthy or halted",
    ),
];

/// An invariant that did not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Its name.
    pub invariant: &'static str,
    /// When, in seconds since the start of the run.
    pub at: String,
    /// What was seen.
    pub sentence: String,
}

/// Something that happened.
#[derive(Debug)]
pub(crate) enum Seen<'a> {
    /// The core sent a probe.
    Asked { node: usize, server: usize },
    /// The core held an election and asked the handlers about its winner.
    Vetted { candidate: &'a Addr },
    /// A core proposed something.
    Proposed { changes: &'a [Change] },
    /// The broker committed something; the truth has the entry after it.
    Committed { before: Option<&'a GroupEntry> },
    /// The core of the leader wants a command sent.
    Commanded { node: usize, addr: &'a Addr, command: &'a Command, token: Token },
    /// A command is written to a server, behind the fence.
    Sent { node: usize, addr: &'a Addr, command: &'a Command, token: Token },
    /// A node was asked what it sees, and named the recorded master when it is down for it.
    Testified { node: usize, dead: Option<&'a Addr> },
    /// A server acknowledged a write.
    Took { server: usize },
    /// So much the core wanted done after one event.
    Did { actions: usize },
    /// A server became a master by a command.
    Promoted { server: usize, epoch: u64, synced: bool },
}

/// How things really are.
#[derive(Debug)]
pub(crate) struct Truth<'a> {
    pub(crate) now: Time,
    pub(crate) servers: &'a [Server],
    pub(crate) addrs: &'a [Addr],
    pub(crate) entry: Option<&'a GroupEntry>,
    pub(crate) written: &'a Written,
    pub(crate) token: Token,
    /// How many entries the group's history has.
    pub(crate) history: usize,
    pub(crate) sight: &'a Sight,
    /// Whose role was changed by hand last.
    pub(crate) touched: &'a [bool],
    /// Whom somebody asked to forget.
    pub(crate) forgotten: &'a [bool],
}

/// Whoever is reached for this long was read: it is longer than any `check_interval`.
const READ_AFTER: Duration = Duration::from_millis(1_200);

/// Who really sees what: which nodes run and reach a server that runs, and since when.
#[derive(Debug)]
pub(crate) struct Sight {
    /// Per server: which nodes reach it, since when it is so, and since when a majority does.
    servers: Vec<Reached>,
    led_since: Time,
    /// Since when each node runs without a stop.
    awake_since: Vec<Option<Time>>,
    /// The recorded master lost its data, and is not seen by every node yet.
    losing: Option<usize>,
    /// It once did.
    has_lost: bool,
    /// It did, and not every node saw what it had then and remembers it.
    missed_loss: bool,
}

#[derive(Clone, Debug)]
struct Reached {
    by: Vec<bool>,
    by_majority_since: Option<Time>,
    /// Until when a majority reached it for so long that they all read it.
    read_until: Time,
    by_all_since: Option<Time>,
}

impl Sight {
    pub(crate) fn new(servers: usize, now: Time) -> Self {
        let reached = Reached {
            by: Vec::new(),
            by_majority_since: Some(now),
            read_until: now,
            by_all_since: Some(now),
        };
        Self {
            servers: vec![reached; servers],
            led_since: now,
            awake_since: Vec::new(),
            losing: None,
            has_lost: false,
            missed_loss: false,
        }
    }

    /// Which nodes reach a server now.
    pub(crate) fn note(&mut self, server: usize, now: Time, by: &[bool]) {
        let reached = &mut self.servers[server];
        let count = by.iter().filter(|seen| **seen).count();
        if reached.by_majority_since.is_some_and(|since| now.since(since) > READ_AFTER) {
            reached.read_until = now;
        }
        let since = |so: bool, since: Option<Time>| so.then(|| since.unwrap_or(now));
        reached.by_majority_since = since(count > by.len() / 2, reached.by_majority_since);
        reached.by_all_since = since(count == by.len(), reached.by_all_since);
        reached.by = by.to_vec();
        if self.losing == Some(server) {
            self.missed_loss |= reached.by_all_since.is_none();
            self.losing = None;
        }
    }

    /// Which nodes run now.
    pub(crate) fn note_nodes(&mut self, now: Time, awake: impl Iterator<Item = bool>) {
        self.awake_since = awake
            .enumerate()
            .map(|(node, awake)| {
                let since = self.awake_since.get(node).copied().flatten();
                self.missed_loss |= self.has_lost && awake && since.is_none();
                awake.then(|| since.unwrap_or(now))
            })
            .collect();
    }

    /// The recorded master begins anew with less than it had, which shows or does not.
    pub(crate) fn note_loss(&mut self, server: usize, shows: bool) {
        self.losing = Some(server);
        self.has_lost = true;
        self.missed_loss |= !shows;
    }

    /// Whether there is somebody who cannot know by comparison that the recorded master once lost its data: what it had is in no
    /// record, so that a node that starts afterwards is one.
    pub(crate) fn missed_loss(&self) -> bool {
        self.missed_loss
    }

    /// For how long a node has run without a stop.
    pub(crate) fn awake_for(&self, node: usize, now: Time) -> Duration {
        let since = self.awake_since.get(node).copied().flatten();
        since.map_or(Duration::ZERO, |since| now.since(since))
    }

    pub(crate) fn leader_changed(&mut self, now: Time) {
        self.led_since = now;
    }

    /// How long a majority of the nodes has reached a server.
    pub(crate) fn by_majority(&self, server: usize, now: Time) -> Option<Duration> {
        self.servers[server].by_majority_since.map(|since| now.since(since))
    }

    /// For how long a server has been away that was read by a majority before.
    pub(crate) fn lost_for(&self, server: usize, now: Time) -> Duration {
        let reached = &self.servers[server];
        match reached.by_majority_since {
            Some(since) if now.since(since) > READ_AFTER => Duration::ZERO,
            Some(_) | None => now.since(reached.read_until),
        }
    }

    /// How long every node has reached a server, under one leader.
    pub(crate) fn by_all(&self, server: usize, now: Time) -> Option<Duration> {
        self.servers[server].by_all_since.map(|since| now.since(since.max(self.led_since)))
    }
}

impl Truth<'_> {
    pub(crate) fn index(&self, addr: &Addr) -> Option<usize> {
        self.addrs.iter().position(|known| known == addr)
    }

    /// Whether a server is none of the group because somebody asked for that.
    pub(crate) fn is_forgotten(&self, server: usize) -> bool {
        let known = |entry: &GroupEntry| entry.instances.contains_key(&self.addrs[server]);
        self.forgotten[server] && !self.entry.is_some_and(known)
    }

    /// Whether a LedisDB master once lost its data where somebody could not see it, and the program is not to blame for what
    /// goes on from there: nothing tells such a process from the one before.
    pub(crate) fn forgot(&self) -> bool {
        self.servers[0].is_ledisdb() && self.sight.missed_loss()
    }

    /// Whether a master has so much less than another server that it must have restarted without its data, or went back to
    /// what it had saved while another one is further in the same history.
    pub(crate) fn lost_its_data(&self, master: usize) -> bool {
        self.had_lost_its_data(master, self.now)
    }

    /// The same, when only what the master had at a moment counts: whoever counts it learns later how much it takes.
    pub(crate) fn had_lost_its_data(&self, master: usize, before: Time) -> bool {
        let went_back = self.servers[master].went_back_to().is_some_and(|(replid, offset)| {
            self.servers.iter().any(|other| other.replid() == replid && other.offset() > offset)
        });
        if went_back {
            return true;
        }
        // Where a master has no name for its process, what it had is known by its offset alone, and nobody tells why it has less.
        let is = &self.servers[master];
        if is.is_ledisdb() && is.life() > 0 {
            return self.servers.iter().any(|other| other.offset() > is.offset());
        }
        let held = |server: &Server| server.data().len();
        let most = self.servers.iter().map(held).max().unwrap_or_default();
        let master = &self.servers[master];
        // What arrived later stands further behind.
        master.data().partition_point(|kept| kept.at <= before) < most.div_ceil(2)
    }
}

/// Nothing, or which invariant does not hold, and why.
pub(crate) type Judgement = Result<(), (&'static str, String)>;

/// The invariants that are checked at every step.
#[derive(Debug)]
pub(crate) struct Invariants {
    one_promotion: one_promotion::OnePromotion,
    quorum: quorum::Quorum,
    best_promoted: best_promoted::BestPromoted,
    no_false_alarm: no_false_alarm::NoFalseAlarm,
    kept_writes: kept_writes::KeptWrites,
    true_master: true_master::TrueMaster,
    one_master: one_master::OneMaster,
    fenced_out: fenced_out::FencedOut,
    bounded_work: bounded_work::BoundedWork,
}

impl Invariants {
    pub(crate) fn new(started: Time, policy: &Policy, nodes: usize) -> Self {
        Self {
            one_promotion: one_promotion::OnePromotion::default(),
            quorum: quorum::Quorum::new(nodes),
            best_promoted: best_promoted::BestPromoted::new(policy.clone()),
            no_false_alarm: no_false_alarm::NoFalseAlarm::new(policy.clone()),
            kept_writes: kept_writes::KeptWrites::default(),
            true_master: true_master::TrueMaster::new(policy.clone()),
            one_master: one_master::OneMaster::default(),
            fenced_out: fenced_out::FencedOut::new(policy, crate::SERVERS),
            bounded_work: bounded_work::BoundedWork::new(started, nodes),
        }
    }

    /// Checks all of them; the first that does not hold is named.
    pub(crate) fn observe(&mut self, seen: &Seen<'_>, truth: &Truth<'_>) -> Judgement {
        let named = |name: &'static str| move |sentence| (name, sentence);
        self.one_promotion.observe(seen, truth).map_err(named("one-promotion"))?;
        current_term::observe(seen, truth).map_err(named("current-term"))?;
        self.quorum.observe(seen, truth).map_err(named("quorum"))?;
        hands_off::observe(seen, truth).map_err(named("hands-off"))?;
        decided_first::observe(seen, truth).map_err(named("decided-first"))?;
        self.best_promoted.observe(seen, truth).map_err(named("best-promoted"))?;
        self.no_false_alarm.observe(seen, truth).map_err(named("no-false-alarm"))?;
        self.kept_writes.observe(seen, truth).map_err(named("kept-writes"))?;
        self.true_master.observe(seen, truth).map_err(named("true-master"))?;
        last_copy::observe(seen, truth).map_err(named("last-copy"))?;
        self.one_master.observe(seen, truth).map_err(named("one-master"))?;
        self.fenced_out.observe(seen, truth).map_err(named("fenced-out"))?;
        bounded_state::observe(seen, truth).map_err(named("bounded-state"))?;
        self.bounded_work.observe(seen, truth).map_err(named("bounded-work"))
    }

    /// Checks what is only looked at now and then, at the end.
    pub(crate) fn finish(&mut self, truth: &Truth<'_>) -> Judgement {
        self.kept_writes.look(truth).map_err(|sentence| ("kept-writes", sentence))?;
        true_copies::look(truth).map_err(|sentence| ("true-copies", sentence))
    }
}
