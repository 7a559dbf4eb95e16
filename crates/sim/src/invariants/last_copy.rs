//! Nobody is told to follow a master that is gone, and the last one that has the data is not told to follow one that lost it.

use std::time::Duration;

use failover_core::action::Command;
use failover_core::record::Kind;

use super::{Seen, Truth};
use crate::model_redis::Running;

/// How old the leader's picture of the recorded master may be when a command is written: the decision has to be committed.
const PICTURE_AGE_MAX: Duration = Duration::from_secs(2);
/// A server that every node has reached for so long was read by them, before a command was given that is on its way for as
/// long as one may be.
const SEEN_AFTER: Duration = Duration::from_millis(350);
/// How long a master without its data is not followed for the sake of those who may have it: `empty_wait`.
const EMPTY_WAIT: Duration = Duration::from_secs(60);

/// A master with less than this part of what another one holds has nothing that would be missed.
const NOTHING_SHARE: usize = 100;

pub(crate) fn observe(seen: &Seen<'_>, truth: &Truth<'_>) -> Result<(), String> {
    let Seen::Sent { node, addr, command, .. } = seen else { return Ok(()) };
    // Whoever asks for a failover answers for whom it is to.
    let asked = truth.entry.and_then(|entry| entry.saga.as_ref());
    if asked.is_some_and(|saga| saga.history.kind == Kind::ManualFailover) {
        return Ok(());
    }
    let master = match command {
        Command::Follow { master, .. } | Command::Demote { master, .. } => master,
        Command::Promote { .. }
        | Command::Part
        | Command::Pause { .. }
        | Command::Unpause
        | Command::Fence { .. } => return Ok(()),
    };
    let (Some(server), Some(of)) = (truth.index(addr), truth.index(master)) else {
        return Err(format!("{addr} is told to follow {master}, which is not of this group"));
    };
    let (server, of) = (&truth.servers[server], &truth.servers[of]);
    let gone = match of.running() {
        Running::Dead => truth.now.since(of.running_since()),
        Running::Up | Running::Hung => Duration::ZERO,
    };
    // A node that was stopped goes on where it was, until it has looked around.
    if gone.min(truth.sight.awake_for(*node, truth.now)) > PICTURE_AGE_MAX {
        return Err(format!(
            "{addr} is told to follow {master}, which died {} ms ago",
            gone.as_millis()
        ));
    }
    let kept = server.data().len();
    // With more than this, nobody can say that it is not what the group has by now. They were counted a moment ago, and not as
    // exactly as here.
    let lost = of.data().len() + 1 < kept / NOTHING_SHARE;
    let spare = truth
        .servers
        .iter()
        .any(|other| other.addr() != *addr && other.addr() != master && other.data().len() >= kept);
    let waited = truth.now.since(of.running_since()) >= EMPTY_WAIT;
    // What nobody can see since it is so, nobody can go by.
    let seen = truth
        .index(master)
        .and_then(|index| truth.sight.by_all(index, truth.now))
        .is_some_and(|long| long > SEEN_AFTER);
    if lost && seen && !spare && !waited && of.life() > 0 {
        return Err(format!(
            "{addr} has {kept} writes and is told to follow {master}, which has {}",
            of.data().len()
        ));
    }
    Ok(())
}
