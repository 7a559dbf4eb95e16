//! A second master is demoted soon after it is there, as long as the recorded one serves and the group may be acted on; and a
//! switchover makes none, not even for a moment. A master that refuses every write (LedisDB) is none.
//!
//! LedisDB comes back with its first role. One that was away since the group was registered, and is a master then, was never seen
//! to be of the group: it is a person who makes it one.

use std::time::Duration;

use failover_core::action::Command;
use failover_core::record::{Kind, Status};
use failover_core::time::Time;

use super::{Seen, Truth};
use crate::model_redis::Part;

/// A probe, a look at the recorded master, a decision, a command, and a broker that is slow at times.
const DEMOTED_WITHIN: Duration = Duration::from_secs(8);
/// A master with less than this part of what another one holds has nothing that would be missed.
const NOTHING_SHARE: usize = 100;
/// How long a role that was changed by hand stands: `drift_wait`.
const DRIFT_WAIT: Duration = Duration::from_secs(10);
/// How long it waits for those who may have the data of an emptied master: `empty_wait`.
const EMPTY_WAIT: Duration = Duration::from_secs(60);
/// How long the core may go by an old number of keys: servers are asked for it no more often.
const COUNTED_WITHIN: Duration = Duration::from_secs(32);

/// What restarted a moment ago was read before that.
const RESTARTED_BEFORE: Duration = Duration::from_secs(5);
/// Whoever is in its place for so long was seen there: settled replicas are asked every second time.
const ATTACHED_AFTER: Duration = Duration::from_millis(2_500);

#[derive(Debug, Default)]
pub(crate) struct OneMaster {
    /// Since when each server has been a master beside a recorded one that serves.
    beside: Vec<Option<Time>>,
    /// When the recorded master was seen to have lost its data last.
    emptied_at: Option<Time>,
    /// Who was surely seen to belong to the group since it was registered. To the nodes a master that was not may be
    /// somebody else's, whatever it was in a group that was given up, so that it is left to people.
    attached: Vec<bool>,
}

impl OneMaster {
    pub(crate) fn observe(&mut self, seen: &Seen<'_>, truth: &Truth<'_>) -> Result<(), String> {
        self.beside.resize(truth.servers.len(), None);
        let Some(entry) = truth.entry else {
            self.attached.clear();
            return Ok(());
        };
        let Some(recorded) = truth.index(&entry.master) else { return Ok(()) };
        if let Seen::Sent { addr, command: Command::Promote { .. }, .. } = seen
            && **addr != entry.master
            && entry
                .saga
                .as_ref()
                .is_some_and(|saga| saga.history.kind == Kind::Switchover && saga.target == **addr)
        {
            let old = &truth.servers[recorded];
            // One that was demoted, died and came back is a master again before anybody can know it.
            let long = truth.now.since(old.running_since()) > RESTARTED_BEFORE;
            if old.takes_writes() && old.serves() && long && !truth.touched[recorded] {
                return Err(format!(
                    "{addr} is promoted in a switchover while {} is a master still",
                    entry.master
                ));
            }
        }
        let serves = |index: usize| {
            let server = &truth.servers[index];
            server.takes_writes() && server.serves()
        };
        self.attached.resize(truth.servers.len(), false);
        for (index, server) in truth.servers.iter().enumerate() {
            let since = match server.part() {
                Part::Master => Some(server.running_since()).filter(|_| index == recorded),
                Part::Replica(of) => {
                    Some(server.linked_at()).filter(|_| of == recorded && server.link_up())
                }
            };
            let read = truth.sight.by_all(index, truth.now).unwrap_or_default();
            self.attached[index] |= read > ATTACHED_AFTER
                && since.is_some_and(|since| truth.now.since(since) > ATTACHED_AFTER)
                && entry.status == Status::Active;
        }
        // One that restarted without its data is as good as dead, and nobody is made to follow it.
        let emptied = truth.lost_its_data(recorded);
        if emptied {
            self.emptied_at = Some(truth.now);
        }
        let doubted = self.emptied_at.is_some_and(|at| truth.now.since(at) < COUNTED_WITHIN);
        // For the sake of whoever is away and may have its data, nobody is pointed at one that came back with nothing.
        let waited_for = truth.servers[recorded]
            .began_empty()
            .is_some_and(|at| truth.now.since(at) < EMPTY_WAIT + DEMOTED_WITHIN);
        let doubted = doubted || waited_for;
        let acted_on = serves(recorded) && !doubted && entry.status == Status::Active;
        // What leads a server that is not of the group may be of another one.
        let leads_forgotten = |index: usize| {
            (0..truth.servers.len()).any(|other| {
                truth.is_forgotten(other) && truth.servers[other].part() == Part::Replica(index)
            })
        };
        for (index, since) in self.beside.iter_mut().enumerate() {
            let reached = |server| truth.sight.by_all(server, truth.now).is_some();
            // For whoever has so much more, a person decides.
            let held = |server: usize| truth.servers[server].data().len();
            let is_missed = held(recorded) < held(index) / NOTHING_SHARE;
            let is_stranger = truth.servers[index].is_ledisdb()
                && !entry.instances.get(&truth.addrs[index]).is_some_and(|known| known.attached);
            if !acted_on
                || index == recorded
                || !serves(index)
                || !self.attached[index]
                || is_missed
                || is_stranger
                || truth.is_forgotten(index)
                || leads_forgotten(index)
                || !reached(index)
                || !reached(recorded)
            {
                *since = None;
                continue;
            }
            // A new leader begins to look anew.
            let led = truth.sight.by_all(index, truth.now).unwrap_or_default();
            let since = (*since.get_or_insert(truth.now)).max(truth.now - led);
            // What was done by hand stands for a while.
            let patience = if truth.touched[index] { DRIFT_WAIT } else { Duration::ZERO };
            if truth.now.since(since) > DEMOTED_WITHIN + patience {
                return Err(format!(
                    "{} has been a master beside {} for {} s",
                    truth.addrs[index],
                    entry.master,
                    truth.now.since(since).as_secs()
                ));
            }
        }
        Ok(())
    }
}
