//! The promoted replica was eligible, and no eligible replica with more was passed over: no acknowledged write is lost
//! that an electable replica had.
//!
//! LedisDB has no names for histories: what follows the recorded master, and owes no copy, is of its history there.
//!
//! It is judged when the election was held, by what was really so: the core cannot know what happened in the last
//! moments, so only what was so for a while counts against it.

use std::collections::BTreeSet;
use std::time::Duration;

use failover_core::addr::Addr;
use failover_core::policy::Policy;
use failover_core::record::{Attempt, FullCopy, GroupEntry, Kind, Phase, Rule};
use failover_core::time::Time;

use super::{Seen, Truth};
use crate::model_redis::{Part, Running, Server, Values};

/// A replica that has been reachable for this long was heard by the core.
const HEARD_AFTER: Duration = Duration::from_secs(3);
/// A master that has been up for this long was read by the core.
const READ_AFTER: Duration = Duration::from_millis(100);
/// What a replica said so long before its master's host refused connections counts, when the master was in doubt already.
const ANSWERED_BEFORE: Duration = Duration::from_millis(250);
/// What arrived at a replica in the last moment need not be known to the core.
const NEWS: Duration = Duration::from_millis(25);
/// The same of what a master that lost its data took since it was counted last.
const EMPTIED_NEWS: Duration = Duration::from_secs(2);

#[derive(Debug)]
pub(crate) struct BestPromoted {
    policy: Policy,
    /// Every replication id that a recorded master had.
    lineage: BTreeSet<u64>,
    /// The id of the recorded master when it was last there to be read.
    newest: u64,
    /// Who was elected last, and which of its processes.
    elected: Option<(usize, u32)>,
}

impl BestPromoted {
    pub(crate) fn new(policy: Policy) -> Self {
        Self { policy, lineage: BTreeSet::new(), newest: 0, elected: None }
    }

    pub(crate) fn observe(&mut self, seen: &Seen<'_>, truth: &Truth<'_>) -> Result<(), String> {
        let recorded = truth.entry.and_then(|entry| truth.index(&entry.master));
        if let Some(master) = recorded.map(|index| &truth.servers[index])
            && master.part() == Part::Master
        {
            self.lineage.insert(master.replid());
            // It went on with what it had as a replica: whoever has a beginning of that has one of the group's history.
            self.lineage.extend(master.second_replid());
            // What a master was for a moment between two faults, nobody could read. A leader goes by what it has read
            // itself, so that each node must have had the chance.
            let read = recorded.and_then(|index| truth.sight.by_all(index, truth.now));
            if read.is_some_and(|long| long > READ_AFTER) {
                self.newest = master.replid();
            }
        }
        // So is the history of one that was promoted under a decision, also while nobody has read that.
        let promoted = truth.entry.and_then(|entry| entry.saga.as_ref());
        let promoted = promoted.and_then(|saga| truth.index(&saga.target));
        if let Some(server) = promoted.map(|index| &truth.servers[index])
            && server.part() == Part::Master
        {
            self.lineage.insert(server.replid());
        }
        match seen {
            Seen::Vetted { candidate } => self.elected(candidate, &[], truth),
            Seen::Proposed { changes } => {
                let next =
                    changes.iter().filter_map(|change| change.entry.as_ref()).find_map(|entry| {
                        let saga = entry.saga.as_ref()?;
                        let another = truth.entry.is_none_or(|before| before.epoch != entry.epoch);
                        let decides = saga.history.kind == Kind::Failover
                            && saga.phase == Phase::Decided
                            && another
                            && !saga.attempts.is_empty();
                        decides.then_some(saga)
                    });
                match next {
                    Some(saga) => self.elected(&saga.target, &saga.attempts, truth),
                    None => Ok(()),
                }
            }
            Seen::Promoted { server, synced: false, .. } if self.restarted(*server, truth) => {
                Err(format!("{} was promoted after it had restarted", truth.addrs[*server]))
            }
            Seen::Asked { .. }
            | Seen::Committed { .. }
            | Seen::Commanded { .. }
            | Seen::Sent { .. }
            | Seen::Testified { .. }
            | Seen::Took { .. }
            | Seen::Did { .. }
            | Seen::Promoted { .. } => Ok(()),
        }
    }

    fn elected(
        &mut self,
        candidate: &Addr,
        tried: &[Attempt],
        truth: &Truth<'_>,
    ) -> Result<(), String> {
        let Some(entry) = truth.entry else { return Err("nothing is committed".to_owned()) };
        let (Some(chosen), Some(master)) = (truth.index(candidate), truth.index(&entry.master))
        else {
            return Err(format!("{candidate} is not of this group"));
        };
        self.elected = Some((chosen, truth.servers[chosen].life()));
        if chosen == master {
            return Err(format!("{candidate} was elected to replace itself"));
        }
        if forbidden(entry, candidate) {
            return Err(format!("{candidate} was elected, but a rule forbids it"));
        }
        let settled = truth.now.since(truth.servers[chosen].running_since()) > NEWS;
        // Beside a master that came back with nothing, what a replica read from its own disk is better than that.
        let emptied = truth.had_lost_its_data(master, truth.now - EMPTIED_NEWS);
        let kept = truth.servers[chosen].data().len();
        let rescues = emptied && kept > 0 && truth.servers[chosen].priority() > 0;
        if settled
            && !rescues
            && let Err(why) = self.electable(&truth.servers[chosen], master, truth)
        {
            return Err(format!("{candidate} was elected, but {why}"));
        }
        // What was elected is the process before this one, with what that had. This one is not promoted.
        if !settled && truth.servers[chosen].running() == Running::Up {
            return Ok(());
        }
        // Only what the master really has is there to be lost.
        let lost_with = Values::of(&truth.servers[master]);
        let has = Values::of(&truth.servers[chosen]);
        // One that lost its data takes writes until it is replaced, and its copies have them.
        // So does one that has just finished loading, and was not read since.
        let unread = truth.sight.by_majority(master, truth.now);
        let unread = unread.is_some_and(|long| long < EMPTIED_NEWS);
        let news = if emptied || unread { EMPTIED_NEWS } else { NEWS };
        // Nor can anybody know what a master took that came back with nothing and was read by nobody.
        if truth.forgot() {
            return Ok(());
        }
        let unread = truth.servers[master]
            .began_empty()
            .is_some_and(|began| truth.sight.lost_for(master, truth.now) >= truth.now.since(began));
        if unread {
            return Ok(());
        }
        // What a master took after it had lost everything else is a little, and goes for the sake of the rest.
        for (other, server) in truth.servers.iter().enumerate() {
            let given_up = tried.iter().any(|attempt| attempt.addr == truth.addrs[other]);
            let heard = truth.sight.by_all(other, truth.now).is_some_and(|long| long > HEARD_AFTER);
            if other == chosen
                || other == master
                || given_up
                || truth.is_forgotten(other)
                || !heard
                || forbidden(entry, &truth.addrs[other])
                || owes_copy(entry, &truth.addrs[other])
                || server.is_ledisdb() && server.part() != Part::Replica(master)
                || !self.known(server, truth.now)
            {
                continue;
            }
            let more = server
                .data()
                .iter()
                .filter(|kept| kept.at + news < truth.now)
                .filter(|kept| lost_with.contains(kept.value) && !has.contains(kept.value))
                .filter(|kept| truth.written.contains(&kept.value))
                .count();
            if more > 0 && !(emptied && server.data().len() <= kept) {
                return Err(format!(
                    "{candidate} was elected, but {} could take over too and has {more} acknowledged writes more",
                    truth.addrs[other]
                ));
            }
        }
        Ok(())
    }

    /// Whether the process that was elected last is another one by now.
    fn restarted(&self, server: usize, truth: &Truth<'_>) -> bool {
        let saga = truth.entry.and_then(|entry| entry.saga.as_ref());
        let fails_over = saga.is_some_and(|saga| {
            saga.history.kind == Kind::Failover && saga.target == truth.addrs[server]
        });
        fails_over
            && self.elected.is_some_and(|(elected, life)| {
                elected == server && life != truth.servers[server].life()
            })
    }

    fn electable(&self, server: &Server, master: usize, truth: &Truth<'_>) -> Result<(), String> {
        // Nobody is told that it was changed, and a master does not say what it would be as a replica.
        let known =
            server.part() != Part::Master && truth.now.since(server.prioritised_at()) > HEARD_AFTER;
        if server.priority() == 0 && known {
            return Err("its priority is 0".to_owned());
        }
        if !server.synced() {
            return Err("it never finished a sync since its start".to_owned());
        }
        let of_group = self.lineage.contains(&server.replid())
            || server.second_replid().is_some_and(|id| self.lineage.contains(&id));
        if !of_group {
            return Err("it is of another history".to_owned());
        }
        let gone = server.running() != Running::Up;
        // It is asked when its master is lost, and what it says then counts for as long as that is so.
        let lost_at = truth.now - truth.sight.lost_for(master, truth.now);
        let gone_first = server.running_since() + ANSWERED_BEFORE < lost_at;
        if gone && gone_first && truth.servers[master].running() != Running::Up {
            return Err("it was gone before the master was".to_owned());
        }
        Ok(())
    }

    /// Whether a replica could be elected, and the core had every chance to know it.
    fn known(&self, server: &Server, now: Time) -> bool {
        let link = match server.part() {
            Part::Master => return false,
            Part::Replica(_) if server.syncing() || server.is_locked() => return false,
            // Nor was it heard while it was locked, for as long as its master hung.
            Part::Replica(_) if server.unlocked_at().is_some_and(|at| now.since(at) < NEWS) => {
                return false;
            }
            // Until then a master that was demoted says the same of its link as a server that restarted: never up.
            Part::Replica(_) if now.since(server.linked_at()) < NEWS => return false,
            Part::Replica(_) if !server.link_up() && server.link_down_since().is_none() => {
                return false;
            }
            Part::Replica(_) => server.link_down_since(),
        };
        let newest = server.replid() == self.newest || server.second_replid() == Some(self.newest);
        newest
            && server.priority() > 0
            && now.since(server.prioritised_at()) > HEARD_AFTER
            && server.synced()
            && server.running() == Running::Up
            && now.since(server.running_since()) > HEARD_AFTER
            && link.is_none_or(|since| now.since(since) < self.policy.max_link_down)
    }
}

/// Whether it is out until it has a full copy: it may hold what the group never had.
fn owes_copy(entry: &GroupEntry, addr: &Addr) -> bool {
    match entry.instances.get(addr).and_then(|known| known.copy) {
        Some(FullCopy::Owed | FullCopy::Told) => true,
        Some(FullCopy::Parted) | None => false,
    }
}

/// Whether somebody asked that an instance is never promoted.
fn forbidden(entry: &GroupEntry, addr: &Addr) -> bool {
    let rule = entry.instances.get(addr).and_then(|known| known.rule);
    rule.is_some_and(|given| given.rule == Rule::Never)
}
