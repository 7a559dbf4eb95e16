//! What happened in a run, a readable line each: when, what happened or was done, and to whom.

use std::fmt::Write as _;

use failover_core::action::{Action, Command};
use failover_core::event::{CommandResult, Event, Health, Probed};
use failover_core::instance::{Facts, Link, Role};
use failover_core::record::Change;
use failover_core::time::Time;

/// The lines of a run; kept only when somebody wants to read them.
#[derive(Debug)]
pub(crate) struct Journal {
    started: Time,
    lines: Option<Vec<String>>,
}

impl Journal {
    pub(crate) fn new(started: Time, kept: bool) -> Self {
        Self { started, lines: kept.then(Vec::new) }
    }

    /// Adds a line; the text is only made when it is kept.
    pub(crate) fn note(&mut self, now: Time, text: impl FnOnce() -> String) {
        if let Some(lines) = &mut self.lines {
            lines.push(format!("{} {}", clock(self.started, now), text()));
        }
    }

    pub(crate) fn into_lines(self) -> Vec<String> {
        self.lines.unwrap_or_default()
    }
}

/// Seconds since the start of the run, with microseconds.
pub(crate) fn clock(started: Time, now: Time) -> String {
    let since = now.since(started);
    format!("{:6}.{:06}", since.as_secs(), since.subsec_micros())
}

/// What the node is told.
pub(crate) fn event(event: &Event) -> String {
    match event {
        Event::Probed { addr, seq, outcome } => match outcome {
            Probed::Replied { health, facts, .. } => {
                let health = match health {
                    Health::Fine => "",
                    Health::Loading => " loading",
                    Health::Misconfigured(_) => " misconfigured",
                    Health::Busy(_) => " busy",
                    Health::Auth(_) => " auth",
                };
                let facts = facts.as_deref().map(self::facts).unwrap_or_default();
                format!("<- {addr} probe {seq} replied{health}: {facts}")
            }
            Probed::Refused => format!("<- {addr} probe {seq} refused"),
            Probed::Ended => format!("<- {addr} probe {seq} ended"),
            Probed::Garbage(what) => format!("<- {addr} probe {seq} garbage: {what}"),
            Probed::NotAsked(why) => format!("<- {addr} probe {seq}: not asked: {why}"),
            Probed::Unreachable(why) => format!("<- {addr} probe {seq} unreachable: {why}"),
            Probed::Unresolved(why) => format!("<- {addr} probe {seq} unresolved: {why}"),
        },
        Event::Accepted { addr } => format!("<- {addr} accepted"),
        Event::Ended { addr } => format!("<- {addr} connection ended"),
        Event::Commanded { id, result, .. } => match result {
            CommandResult::Done { facts, .. } => {
                format!("<- command {id} done: {}", self::facts(facts))
            }
            CommandResult::Refused(why) => format!("<- command {id} refused: {why}"),
            CommandResult::NotSent(why) => format!("<- command {id} not sent: {why}"),
            CommandResult::Unknown(why) => format!("<- command {id} unknown: {why}"),
        },
        Event::Leadership(leadership) => format!("<- leadership: {leadership:?}"),
        Event::Voters(voters) => format!("<- voters: {}", voters.len()),
        Event::Committed { changes, .. } => format!("<- committed: {}", whats(changes)),
        Event::Unsettled { why, .. } => format!("<- not known whether it is committed: {why}"),
        Event::Restored(record) => format!("<- the record of {} groups", record.len()),
        Event::Testified { node, testimony, .. } => match testimony.dead {
            Some(death) => format!("<- {node} sees the master dead ({death:?})"),
            None => format!("<- {node} does not see the master dead"),
        },
        Event::Hinted { .. } => "<- a follower suspects the master".to_owned(),
        Event::NotCommitted { why, .. } => format!("<- not committed: {why}"),
        Event::Told { number, .. } => format!("hooks were told of {number}"),
        Event::Vetted { veto, .. } => match veto {
            Some(veto) => format!("<- vetoed: {veto}"),
            None => "<- vetted: no objection".to_owned(),
        },
        Event::Request { id, request } => format!("<- request {id}: {request:?}"),
    }
}

/// What the node wants done.
pub(crate) fn action(action: &Action) -> String {
    match action {
        Action::Probe { addr, seq, fresh, .. } => {
            format!("-> {addr} probe {seq}{}", if *fresh { " on a fresh connection" } else { "" })
        }
        Action::Forget { addr } => format!("-> {addr} forget"),
        Action::Propose { changes, .. } => format!("-> propose: {}", whats(changes)),
        Action::Command { id, addr, command, .. } => match command {
            Command::Promote { .. } => format!("-> {addr} command {id}: promote"),
            Command::Follow { master, .. } => format!("-> {addr} command {id}: follow {master}"),
            Command::Part => format!("-> {addr} command {id}: follow nobody"),
            Command::Demote { master, .. } => format!("-> {addr} command {id}: demote to {master}"),
            Command::Pause { ms } => format!("-> {addr} command {id}: pause writes for {ms} ms"),
            Command::Unpause => format!("-> {addr} command {id}: let writes go on"),
            Command::Fence { set } => {
                format!("-> {addr} command {id}: {} replicas have to acknowledge", set.to_write)
            }
        },
        Action::Vet { old_master, candidate, .. } => {
            format!("-> vet: {candidate} instead of {old_master}")
        }
        Action::AskPeer { node, .. } => format!("-> {node} asked what it sees"),
        Action::Hint { leader, .. } => format!("-> {leader} hinted"),
        Action::Tell { occurrence, .. } => format!("hooks: {}", occurrence.event.name()),
        Action::Publish(notice) => format!("== {}", notice.sentence),
        Action::Answer { id, answer } => format!("-> answer {id}: {answer:?}"),
    }
}

fn whats(changes: &[Change]) -> String {
    changes.iter().map(|change| change.what.as_str()).collect::<Vec<_>>().join("; ")
}

fn facts(facts: &Facts) -> String {
    let mut text = match &facts.role {
        Role::Master { replicas } => format!("master of {}", replicas.len()),
        Role::Replica { master, link } => {
            let link = match link {
                Link::Up { last_io_secs } => format!("up, heard {last_io_secs} s ago"),
                Link::Down { since_secs: Some(secs) } => format!("down since {secs} s"),
                Link::Down { since_secs: None } => "never up".to_owned(),
                Link::Syncing => "syncing".to_owned(),
            };
            format!("replica of {master}, link {link}")
        }
    };
    if facts.read_only {
        text.push_str(" that refuses writes");
    }
    let id = facts.replication_id.as_ref().and_then(|id| id.0.get(..4)).unwrap_or("none");
    let _ = write!(text, ", offset {} in {id}", facts.offset);
    text
}
