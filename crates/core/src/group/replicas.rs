//! What becomes of the replicas: going away and coming back are in the history, and one that is gone for good can be
//! forgotten.
//!
//! What was told last of a replica is in the record, so that no leader tells it twice. A replica that comes and goes is
//! told of at most once a minute and direction.

use std::time::Duration;

use super::elect::ago;
use super::identity::follows_recorded;
use super::{Context, Group, Work};
use crate::addr::Addr;
use crate::event::RefusalCode;
use crate::instance::{Facts, Link, Role};
use crate::node::{NodeId, Token};
use crate::record::{GroupEntry, HistoryEntry, Kind, Outcome, Trouble};
use crate::time::Time;
use crate::view::State;
use crate::watch::Watch;

/// The shortest pause between two entries that say the same of one replica.
const EVENT_PAUSE: Duration = Duration::from_secs(60);

impl Group {
    /// Puts into the history that a replica went away, lost its link for long, or is back.
    pub(super) fn note_replicas(&mut self, ctx: &Context<'_>, token: Token) {
        let master = self.watches.get(&self.entry.master);
        let lives = master.is_some_and(|watch| watch.serves() && watch.trouble_since().is_none());
        if !lives || !matches!(self.work, Work::Idle) || self.entry.saga.is_some() {
            return;
        }
        let mut news = None;
        for (addr, watch) in self.watches.iter().filter(|(addr, _)| **addr != self.entry.master) {
            let Some(known) = self.entry.instances.get(addr) else { continue };
            let Some((now_in, reason)) = self.trouble_of(ctx.now, addr, watch) else { continue };
            if now_in == known.trouble {
                continue;
            }
            let again_at = self
                .replica_events
                .get(&(addr.clone(), now_in.is_some()))
                .map(|told| *told + EVENT_PAUSE)
                .filter(|again_at| *again_at > ctx.now);
            match again_at {
                Some(at) => self.wake = Some(self.wake.map_or(at, |wake| wake.min(at))),
                None => news = news.or(Some((addr.clone(), now_in, reason))),
            }
        }
        let Some((addr, now_in, reason)) = news else {
            // The answer with which one came back may be older than its return, and the next one is no news by itself.
            if self.entry.instances.values().any(|known| known.trouble.is_some()) {
                let at = ctx.now + self.policy.check_interval;
                self.wake = Some(self.wake.map_or(at, |wake| wake.min(at)));
            }
            return;
        };
        self.replica_events.insert((addr.clone(), now_in.is_some()), ctx.now);
        let mut entry = self.entry.clone();
        if let Some(known) = entry.instances.get_mut(&addr) {
            known.trouble = now_in;
        }
        let what = format!("a replica of {}: {reason}", self.name);
        let history = self.replica_event((ctx.now, ctx.me), &mut entry, &addr, reason);
        self.propose(token, what, entry, Some(history));
    }

    /// What is wrong with a replica of the recorded master, and the sentence for it; `None` when it is none, or when that
    /// is not clear.
    fn trouble_of(
        &self,
        now: Time,
        addr: &Addr,
        watch: &Watch,
    ) -> Option<(Option<Trouble>, String)> {
        let facts = watch.facts()?;
        if !follows_recorded(&self.entry, &self.watches, addr, facts) {
            return None;
        }
        let master = &self.entry.master;
        match watch.state() {
            State::Unknown => None,
            State::Down => {
                let since = ago(now, watch.since());
                Some((Some(Trouble::Down), format!("the replica {addr} went down {since} ago")))
            }
            State::Up if !watch.serves() || facts.asked_at < watch.answers_since() => None,
            State::Up => match &facts.role {
                Role::Replica { link: Link::Up { .. }, .. } => {
                    Some((None, format!("the replica {addr} is back and follows {master}")))
                }
                Role::Replica { link: Link::Down { .. }, .. } => {
                    let lost = now.since(watch.standing_since());
                    (lost >= self.policy.max_down_time).then(|| {
                        let since = ago(now, watch.standing_since());
                        let reason = format!(
                            "the replica {addr} answers, but has no link to {master} for {since}"
                        );
                        (Some(Trouble::Link), reason)
                    })
                }
                Role::Replica { link: Link::Syncing, .. } | Role::Master { .. } => None,
            },
        }
    }

    /// The entry without a replica that is gone for good, and what the history says of it.
    ///
    /// # Errors
    /// A sentence that says why it cannot be forgotten.
    pub fn forgotten_entry(
        &self,
        now: Time,
        me: &NodeId,
        addr: &Addr,
    ) -> Result<(GroupEntry, HistoryEntry), (RefusalCode, String)> {
        let (name, master) = (&self.name, &self.entry.master);
        let Some(addr) = self.entry.instance_of(addr) else {
            let why = format!("{addr} is no instance of the group {name}");
            return Err((RefusalCode::UnknownInstance, why));
        };
        if addr == master {
            let why = format!(
                "{addr} is the recorded master of the group {name}, and no replica; nothing was changed"
            );
            return Err((RefusalCode::Refused, why));
        }
        if self.entry.saga.is_some() {
            let why = format!(
                "something is being done to the group {name}; ask again when it is finished"
            );
            return Err((RefusalCode::Busy, why));
        }
        let serving = |addr: &Addr| {
            self.watches.get(addr).filter(|watch| watch.serves()).and_then(Watch::facts)
        };
        let listed = serving(master).is_some_and(|facts| match &facts.role {
            Role::Master { replicas } => {
                replicas.iter().any(|replica| self.entry.instance_of(replica) == Some(addr))
            }
            Role::Replica { .. } => false,
        });
        let attached = serving(addr).filter(|facts| facts.link_up());
        let attached = attached.and_then(Facts::follows).and_then(|of| self.entry.instance_of(of))
            == Some(master);
        if listed || attached {
            let why = format!(
                "{addr} is attached to the master {master} and would be found again at once: shut it down or point it \
                 elsewhere first; nothing was changed"
            );
            return Err((RefusalCode::Refused, why));
        }
        let mut entry = self.entry.clone();
        let fenced = entry.instances.remove(addr).and_then(|known| known.fenced);
        let reason = match fenced {
            None => format!("{addr} was forgotten on request"),
            Some(fenced) => format!(
                "{addr} was forgotten on request; its min-replicas-to-write stays {}, and was {} before the program set it",
                fenced.set.to_write, fenced.former.to_write
            ),
        };
        let history = self.replica_event((now, me), &mut entry, addr, reason);
        Ok((entry, history))
    }

    /// An entry of history about a replica, numbered in `entry`.
    fn replica_event(
        &self,
        (now, me): (Time, &NodeId),
        entry: &mut GroupEntry,
        addr: &Addr,
        reason: String,
    ) -> HistoryEntry {
        let id = format!("{}-{}", self.name, entry.history_next);
        entry.history_next += 1;
        HistoryEntry {
            id,
            epoch: entry.epoch,
            old_master: addr.clone(),
            outcome: Outcome::Done,
            finished_at: Some(now),
            ..self.new_history((now, me), Kind::ReplicaEvent, reason)
        }
    }
}
