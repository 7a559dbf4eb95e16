//! What servers report, in a form in which two sets of servers can be compared that share no id and no offset.

use std::fmt::Write as _;

use failover_core::addr::Addr;
use failover_core::event::Health;
use failover_core::instance::{Facts, Link, Role};
use failover_sim::model_redis::Running;
use failover_sim::stage::{Fate, Stage};

/// What one server reports; what `INFO` says beside the facts is there because writes depend on it.
#[derive(Clone, Debug)]
pub(super) struct Reading {
    pub(super) health: Health,
    pub(super) facts: Facts,
    pub(super) good_replicas: Option<u32>,
}

/// What a set of servers reports.
#[derive(Clone, Debug)]
pub(super) struct Standing {
    /// `None` for one that refuses connections or is stopped.
    pub(super) readings: Vec<Option<Reading>>,
    /// What the clients heard of their writes.
    pub(super) fates: Vec<Fate>,
}

impl Standing {
    pub(super) fn of_model(stage: &Stage, servers: usize) -> Self {
        let reading = |index: usize| {
            let (health, facts) = stage.reading(index)?;
            let server = stage.server(index);
            assert_eq!(server.running(), Running::Up);
            let is_on = facts.fence.is_some_and(|fence| fence.set.is_on());
            let good_replicas = is_on.then(|| server.good_replicas());
            Some(Reading { health, facts, good_replicas })
        };
        Self { readings: (0..servers).map(reading).collect(), fates: stage.fates().to_vec() }
    }
}

/// Numbers for the ids of one set of servers, in the order in which they appeared, and the offsets of the step before.
#[derive(Clone, Debug, Default)]
pub(super) struct Names {
    processes: Vec<String>,
    histories: Vec<String>,
    offsets: Vec<Option<u64>>,
}

impl Names {
    /// The standing in words, and the names after it.
    pub(super) fn put(mut self, standing: &Standing, addrs: &[Addr]) -> (Vec<String>, Self) {
        let mut lines = Vec::new();
        for (index, reading) in standing.readings.iter().enumerate() {
            let letter = letter(index);
            match reading {
                None => lines.push(format!("{letter}: does not answer")),
                Some(reading) => lines.push(format!("{letter}: {}", self.words(reading, addrs))),
            }
        }
        lines.extend(self.relations(standing));
        lines.push(format!("writes: {}", runs(&standing.fates)));
        let offset = |reading: &Option<Reading>| reading.as_ref().map(|it| it.facts.offset);
        self.offsets = standing.readings.iter().map(offset).collect();
        (lines, self)
    }

    fn words(&mut self, reading: &Reading, addrs: &[Addr]) -> String {
        let Reading { health, facts, good_replicas } = reading;
        let who = |addr: &Addr| {
            addrs.iter().position(|known| known == addr).map_or('?', letter).to_string()
        };
        let role = match &facts.role {
            Role::Master { replicas } => {
                let mut of: Vec<String> = replicas.iter().map(who).collect();
                of.sort();
                format!("master of [{}]", of.join(" "))
            }
            Role::Replica { master, link } => {
                let link = match link {
                    Link::Up { .. } => "up",
                    Link::Down { since_secs: Some(_) } => "down",
                    Link::Down { since_secs: None } => "never up",
                    Link::Syncing => "syncing",
                };
                format!("replica of {}, link {link}", who(master))
            }
        };
        let health = match health {
            Health::Fine => "fine",
            Health::Loading => "loading",
            Health::Misconfigured(_) => "misconfigured",
            Health::Busy(_) => "busy",
            Health::Auth(_) => "auth",
        };
        let process = name(&mut self.processes, facts.run_id.as_deref());
        let history = facts.replication_id.as_ref().map(|id| &*id.0);
        let history = name(&mut self.histories, history);
        let before = facts.second_replication_id.as_ref().map(|id| &*id.0);
        let before = name(&mut self.histories, before);
        let mut text = format!("{health}, {role}, process {process}, history {history}");
        let _ = write!(text, ", before {before}, priority {}", facts.priority);
        let _ = write!(text, ", ping period {:?}", facts.ping_period_secs);
        let _ = write!(text, ", pauses {}", facts.can_pause_writes);
        // While it loads, what it has is a part of it, and the part grows.
        if health != "loading" {
            let _ = write!(text, ", {:?} keys", facts.keys);
        }
        if let Some(fence) = &facts.fence {
            let _ = write!(text, ", writes need {}", fence.set.to_write);
            let _ = write!(text, " within {} s", fence.set.max_lag_secs);
            let _ = write!(text, " and have {} ({good_replicas:?} good)", fence.online);
        }
        text
    }

    /// How each offset stands to what it was, and to those of the same history.
    fn relations(&self, standing: &Standing) -> Vec<String> {
        let mut lines = Vec::new();
        let facts = |index: usize| standing.readings[index].as_ref().map(|reading| &reading.facts);
        for index in 0..standing.readings.len() {
            let Some(one) = facts(index) else { continue };
            if let Some(Some(before)) = self.offsets.get(index) {
                let is = one.offset.cmp(before);
                lines.push(format!("the offset of {} is {is:?} than before", letter(index)));
            }
            for other in index + 1..standing.readings.len() {
                let Some(two) = facts(other) else { continue };
                if one.replication_id == two.replication_id {
                    let is = one.offset.cmp(&two.offset);
                    let (one, two) = (letter(index), letter(other));
                    lines.push(format!("the offset of {one} is {is:?} than that of {two}"));
                }
            }
        }
        lines
    }
}

/// The number of an id; a new one is taken in.
fn name(known: &mut Vec<String>, id: Option<&str>) -> String {
    let Some(id) = id else { return "none".to_owned() };
    let index = known.iter().position(|known| known == id).unwrap_or_else(|| {
        known.push(id.to_owned());
        known.len() - 1
    });
    format!("#{index}")
}

/// How a server is called in a script.
fn letter(index: usize) -> char {
    u8::try_from(index).ok().and_then(|index| b'A'.checked_add(index)).map_or('?', char::from)
}

/// `12 Acknowledged, 1 Pending`.
fn runs(fates: &[Fate]) -> String {
    let runs = fates.chunk_by(|one, other| one == other);
    let runs: Vec<String> = runs.map(|run| format!("{} {:?}", run.len(), run[0])).collect();
    runs.join(", ")
}
