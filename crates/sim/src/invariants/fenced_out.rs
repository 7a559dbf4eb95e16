//! Where groups are fenced: a master that was replaced acknowledges nothing after the bound, and one that is well is not kept
//! from writing for long.

use std::time::Duration;

use failover_core::action::Command;
use failover_core::policy::Policy;
use failover_core::record::Status;
use failover_core::time::Time;

use super::{Seen, Truth};
use crate::faults::FAST_PERCENT_MAX;
use crate::model_redis::{Part, Running, Server};

/// Servers look once a second, and count whole seconds.
const COUNTED: Duration = Duration::from_millis(2_100);
/// How long a master may wait in vain for replicas that are all gone: they are seen down, lost for max-lag, a quorum is asked,
/// it is decided and sent; what fails is tried again ever later.
const OPENED_WITHIN: Duration = Duration::from_secs(15);

#[derive(Debug)]
pub(crate) struct FencedOut {
    /// For how long an acknowledgement counts.
    max_lag: Option<Duration>,
    /// Since when each server is a master that was replaced while its fence was up, and which of its processes that was.
    replaced: Vec<Option<(Time, u32)>>,
    /// Since when the recorded master, which is well, waits for replicas of which none runs.
    stopped: Option<Time>,
}

impl FencedOut {
    pub(crate) fn new(policy: &Policy, servers: usize) -> Self {
        let max_lag = policy.fence().map(|fence| Duration::from_secs(fence.max_lag_secs.into()));
        Self { max_lag, replaced: vec![None; servers], stopped: None }
    }

    pub(crate) fn observe(&mut self, seen: &Seen<'_>, truth: &Truth<'_>) -> Result<(), String> {
        let Some(max_lag) = self.max_lag else { return Ok(()) };
        let Some(entry) = truth.entry else {
            self.replaced.fill(None);
            return Ok(());
        };
        let Some(recorded) = truth.index(&entry.master) else { return Ok(()) };
        self.replaced[recorded] = None;
        match seen {
            Seen::Committed { before: Some(before) } if before.master != entry.master => {
                let fenced = before
                    .instances
                    .get(&before.master)
                    .and_then(|known| known.fenced.as_ref().filter(|fenced| fenced.set.is_on()));
                // A copy that is on its way counts as a replica when it has been sent, whether or not it arrives.
                let copied = |old| {
                    let is = |other: &Server| other.part() == Part::Replica(old) && other.syncing();
                    truth.servers.iter().any(is)
                };
                if let (Some(old), Some(_)) = (truth.index(&before.master), fenced)
                    && truth.servers[old].settings().min_replicas.is_on()
                    && !copied(old)
                {
                    self.replaced[old] = Some((truth.now, truth.servers[old].life()));
                }
            }
            // Whoever is told to be a master is opened by that, also one that is a master still.
            Seen::Sent { addr, command: Command::Promote { .. }, .. } => {
                if let Some(server) = truth.index(addr) {
                    self.replaced[server] = None;
                }
            }
            Seen::Promoted { server, .. } => self.replaced[*server] = None,
            Seen::Took { server } => return self.took(*server, max_lag, truth),
            Seen::Asked { .. } => return self.stops(recorded, max_lag, truth),
            Seen::Committed { .. }
            | Seen::Vetted { .. }
            | Seen::Proposed { .. }
            | Seen::Commanded { .. }
            | Seen::Sent { .. }
            | Seen::Testified { .. }
            | Seen::Did { .. } => {}
        }
        Ok(())
    }

    /// A server acknowledged a write.
    fn took(&mut self, server: usize, max_lag: Duration, truth: &Truth<'_>) -> Result<(), String> {
        let Some((since, life)) = self.replaced[server] else { return Ok(()) };
        let is = &truth.servers[server];
        let followed = truth.servers.iter().any(|other| other.part() == Part::Replica(server));
        let forgot = is.life() != life && !is.settings().rewrites;
        // Whoever it is that follows it: its writes are with somebody.
        if followed || forgot || truth.touched[server] {
            self.replaced[server] = Some((truth.now, life)).filter(|_| followed);
            return Ok(());
        }
        let since = truth.now.since(since);
        // One that hung finds old acknowledgements in its sockets, and takes them for new ones.
        let awake = truth.now.since(is.running_since());
        if since.min(awake) > max_lag + COUNTED {
            return Err(format!(
                "{} acknowledges writes {} ms after {} was recorded in its place",
                truth.addrs[server],
                since.as_millis(),
                truth.entry.map(|entry| entry.master.to_string()).unwrap_or_default()
            ));
        }
        Ok(())
    }

    /// Whether the recorded master waits in vain.
    fn stops(
        &mut self,
        recorded: usize,
        max_lag: Duration,
        truth: &Truth<'_>,
    ) -> Result<(), String> {
        let master = &truth.servers[recorded];
        let gone = |(index, server): (usize, &Server)| {
            index == recorded || server.running() == Running::Dead
        };
        let waits = master.waits_for_replicas()
            && master.serves()
            && truth.servers.iter().enumerate().all(gone)
            && truth.sight.by_all(recorded, truth.now).is_some()
            && !truth.touched[recorded]
            && truth.entry.is_some_and(|entry| entry.status == Status::Active);
        if !waits {
            self.stopped = None;
            return Ok(());
        }
        let since = *self.stopped.get_or_insert(truth.now);
        // A new leader begins to look anew.
        let led = truth.sight.by_all(recorded, truth.now).unwrap_or_default();
        let bound = (max_lag + OPENED_WITHIN) * (100 + FAST_PERCENT_MAX) / 100;
        if truth.now.since(since).min(led) > bound {
            return Err(format!(
                "{} takes no writes for {} s, for want of replicas that are all gone",
                truth.addrs[recorded],
                truth.now.since(since).as_secs()
            ));
        }
        Ok(())
    }
}
