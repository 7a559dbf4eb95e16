//! What this node sees of one instance, and when it looks again.
//!
//! A watch turns the outcomes of probes and their absence into *up*, *down* or *unknown* (design: "Down, for one
//! node"), and schedules the probes: regular ones on a grid so that the shell can send many at once, dense ones after a
//! connection ended, and one on a fresh connection before silence counts. It decides nothing about groups.

use std::collections::VecDeque;
use std::time::Duration;

use crate::addr::Addr;
use crate::event::{Health, ProbeSeq, Probed};
use crate::instance::Facts;
use crate::policy::Policy;
use crate::time::Time;
pub use crate::view::Death;
use crate::view::{How, State};
use comeback::Absence;
pub use comeback::Comeback;
use keys::Keys;
use trouble::{Loading, Trouble, down_at};

mod ask;
mod comeback;
mod crowd;
mod keys;
mod past;
mod trouble;

/// Most unanswered probes of one instance that are remembered.
const UNANSWERED_MAX: usize = 8;
/// The slots of the grid on which regular probes of all instances are spread.
const GRID_SLOTS: u32 = 20;

/// One node's sight of one instance.
#[derive(Clone, Debug)]
pub struct Watch {
    facts: Option<Facts>,
    how: How,
    /// What the server or the system said, for people.
    detail: Option<String>,
    state: State,
    since: Time,
    last_reply: Option<Time>,
    trouble: Option<Trouble>,
    loading: Option<Loading>,
    /// Whether it was away (down, silent, or started anew) since it was last seen as a replica.
    returned: bool,
    /// How it was away, and came back.
    absence: Absence,
    /// When it was first read in the role that it has now, without a gap since.
    standing_since: Time,
    /// The same of whether it is a master, or whom it follows.
    role_since: Time,
    /// When the process that it is now was first read, or read its data last.
    process_since: Time,
    keys: Keys,
    /// How far it was, when it has less since.
    lost_writes: Option<u64>,
    /// The latest moment at which it provably had news from its master.
    heard_master: Option<Time>,
    /// The copy that it was seen to end.
    copied: Option<past::Copied>,
    /// Since when it answers without trouble.
    answers_since: Time,
    unanswered: VecDeque<(ProbeSeq, Time)>,
    /// A reply to this question or an earlier one was given before the connection ended, and says nothing of now.
    stale: ProbeSeq,
    seq: ProbeSeq,
    next_probe: Time,
    next_fresh: bool,
    reconnect: Duration,
    /// The shortest pause between two looks at it while it is lost, one of many that are.
    lost_pause: Duration,
    /// Where on the grid its regular probes lie.
    phase: Duration,
}

impl Watch {
    /// Begins to look at an instance, at once.
    pub fn new(now: Time, addr: &Addr, policy: &Policy) -> Self {
        // The phase only spreads the load; any even function of the address will do.
        let mixed = addr
            .host()
            .bytes()
            .chain(addr.port().to_be_bytes())
            .fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
        Self {
            facts: None,
            how: How::Silent,
            detail: None,
            state: State::Unknown,
            since: now,
            last_reply: None,
            trouble: None,
            loading: None,
            returned: true,
            absence: Absence::default(),
            standing_since: now,
            role_since: now,
            process_since: now,
            keys: Keys::default(),
            lost_writes: None,
            heard_master: None,
            copied: None,
            answers_since: now,
            unanswered: VecDeque::new(),
            stale: 0,
            seq: 0,
            next_probe: now,
            next_fresh: true,
            reconnect: Duration::from_millis(1),
            lost_pause: Duration::ZERO,
            phase: policy.check_interval * ((mixed >> 8) % GRID_SLOTS) / GRID_SLOTS,
        }
    }

    /// The facts it last reported.
    pub fn facts(&self) -> Option<&Facts> {
        self.facts.as_ref()
    }

    /// How its state is known.
    pub fn how(&self) -> How {
        self.how
    }

    /// What was said, for people.
    pub fn detail(&self) -> Option<&str> {
        self.detail.as_deref()
    }

    /// Whether it is up; as of the last call that took the time.
    pub fn state(&self) -> State {
        self.state
    }

    /// Since when the state is this one.
    pub fn since(&self) -> Time {
        self.since
    }

    /// When it last gave a valid reply.
    pub fn last_reply(&self) -> Option<Time> {
        self.last_reply
    }

    /// When the present trouble began.
    pub fn trouble_since(&self) -> Option<Time> {
        self.trouble.map(|trouble| trouble.since)
    }

    /// When it was first read to be a master, or to follow whom it follows, without a gap since.
    pub fn follows_since(&self) -> Time {
        self.role_since
    }

    /// Since when its host refuses connections, in the present trouble.
    pub fn refused_since(&self) -> Option<Time> {
        self.trouble.and_then(|trouble| trouble.refused)
    }

    /// Since when it answers without trouble; what it was asked before may have been answered before a command that lay
    /// in its socket was executed.
    pub fn answers_since(&self) -> Time {
        self.answers_since
    }

    /// Whether it is away now: it refuses, or let a question go unanswered past its deadline.
    pub fn away(&self) -> bool {
        self.trouble.is_some_and(|trouble| trouble.away)
    }

    /// Whether the last attempt to reach it got no answer from its host.
    pub fn unreached(&self) -> bool {
        self.trouble.is_some_and(|trouble| trouble.unreached)
    }

    /// When its host accepted a connection again, in the present trouble, after some had got no answer.
    pub fn reached_at(&self) -> Option<Time> {
        self.trouble.and_then(|trouble| trouble.reached)
    }

    /// Whether it was away since it was last seen as a replica.
    pub fn returned(&self) -> bool {
        self.returned
    }

    /// How it came back when it was away last.
    pub fn comeback(&self) -> Option<Comeback> {
        self.absence.comeback()
    }

    /// When it was first read in the role that it has now, without a gap since.
    pub fn standing_since(&self) -> Time {
        self.standing_since
    }

    /// When the process that it is now was first read, or read its data last: what it holds is counted from there on.
    pub fn process_since(&self) -> Time {
        self.process_since
    }

    /// The latest moment at which it provably had news from its master.
    pub fn heard_master(&self) -> Option<Time> {
        self.heard_master
    }

    /// Whether it was last read as a master.
    pub fn is_master(&self) -> bool {
        self.facts.as_ref().is_some_and(Facts::is_master)
    }

    /// Whether it replies now, and well.
    pub fn serves(&self) -> bool {
        self.trouble.is_none()
            && self.last_reply.is_some()
            && matches!(self.how, How::Replied | How::Misconf)
    }

    /// Since when it has been in trouble, or loading after a restart.
    pub fn lost_since(&self) -> Option<Time> {
        self.trouble_since().or(self.loading_since())
    }

    /// Since when it has been loading after a restart.
    pub fn loading_since(&self) -> Option<Time> {
        self.loading.filter(|loading| loading.restarted).map(|loading| loading.since)
    }

    /// How it is dead, when it is down.
    pub fn death(&self) -> Option<Death> {
        let trouble = self.trouble.filter(|_| self.state == State::Down)?;
        Some(if trouble.refused.is_some() {
            Death::Refusing
        } else if trouble.accepted {
            Death::Hung
        } else {
            Death::Unreachable
        })
    }

    /// Takes the outcome of a probe. Returns whether more than an age may have changed by it.
    pub fn probed(&mut self, now: Time, seq: ProbeSeq, outcome: Probed, policy: &Policy) -> bool {
        let asked_at = self.take_unanswered(seq);
        match outcome {
            Probed::Replied { .. } if seq <= self.stale => false,
            Probed::Replied { health, facts, socket: _ } => {
                self.replied(now, asked_at.unwrap_or(now), health, facts, policy)
            }
            Probed::Refused => {
                let trouble = self.begin_trouble(asked_at.unwrap_or(now));
                // Only its age: a dead instance refuses many times a second.
                let known = trouble.refused.is_some() && !trouble.unproven && trouble.away;
                trouble.refused.get_or_insert(now);
                trouble.unproven = false;
                trouble.away = true;
                trouble.tried_fresh = true;
                let changed = !known || self.how != How::Refusing || self.detail.is_some();
                self.how = How::Refusing;
                self.detail = None;
                self.absence.idle(asked_at.unwrap_or(now));
                self.reconnect_later(now, policy);
                changed
            }
            Probed::Ended => {
                let trouble = self.begin_trouble(asked_at.unwrap_or(now));
                trouble.refused = None;
                trouble.accepted = true;
                trouble.tried_fresh = true;
                self.how = How::Silent;
                self.reconnect_later(now, policy);
                true
            }
            Probed::Garbage(what) => {
                self.fail(asked_at.unwrap_or(now), How::Garbage, what).accepted = true;
                self.reconnect_later(now, policy);
                true
            }
            Probed::NotAsked(why) => {
                // Nobody kept us waiting but ourselves.
                self.unanswered.clear();
                self.detail = Some(why);
                self.next_probe = now + reply_deadline(policy);
                true
            }
            Probed::Unreachable(why) => {
                self.fail(asked_at.unwrap_or(now), How::Silent, why).unreached = true;
                self.reconnect_later(now, policy);
                true
            }
            Probed::Unresolved(why) => {
                self.fail(asked_at.unwrap_or(now), How::Unresolved, why);
                self.reconnect_later(now, policy);
                true
            }
        }
    }

    /// A fresh connection was accepted. One that was dead in another way until now is back, or hangs: it gets the time to
    /// answer what it was asked on it.
    pub fn accepted(&mut self, now: Time, policy: &Policy) {
        if let Some(trouble) = &mut self.trouble {
            let news = !trouble.accepted || trouble.refused.is_some();
            if news && self.state == State::Down {
                trouble.not_before = trouble.not_before.max(now + policy.corroboration_timeout);
            }
            trouble.accepted = true;
            if std::mem::take(&mut trouble.unreached) {
                trouble.reached = Some(now);
            }
            trouble.refused = None;
            if self.how == How::Refusing {
                self.how = How::Silent;
            }
        }
    }

    /// The connection ended without our doing: look again at once, on a fresh one.
    pub fn ended(&mut self, now: Time) {
        self.unanswered.clear();
        self.stale = self.seq;
        self.begin_trouble(now);
        self.reconnect = Duration::from_millis(1);
        self.next_probe = now;
        self.next_fresh = true;
    }

    /// Silence of a time in which this node itself stood still proves nothing, and what was known before it may be over:
    /// whatever is in trouble is looked at again, and is not down until that had time to be answered.
    pub fn discard(&mut self, stalled: Duration, now: Time, policy: &Policy) {
        for (_, at) in &mut self.unanswered {
            *at = (*at + stalled).min(now);
        }
        if let Some(loading) = &mut self.loading {
            loading.since = (loading.since + stalled).min(now);
        }
        if let Some(trouble) = &mut self.trouble {
            trouble.since = (trouble.since + stalled).min(now);
            trouble.refused = trouble.refused.map(|at| (at + stalled).min(now));
            trouble.unproven = true;
            trouble.not_before = now + policy.corroboration_timeout;
            self.next_probe = now;
            self.next_fresh = true;
        }
    }

    /// Brings the state up to date. Returns whether it changed, or silence began.
    pub fn update(&mut self, now: Time, policy: &Policy) -> bool {
        let mut changed = false;
        if let Some((_, asked_at)) = self.unanswered.front().copied()
            && now >= asked_at + reply_deadline(policy)
            && self.trouble.is_none_or(|trouble| !trouble.away)
        {
            changed = true;
            let trouble = self.begin_trouble(asked_at);
            trouble.away = true;
            self.how = How::Silent;
            self.detail = None;
            self.next_probe = now;
            self.next_fresh = true;
        }
        let state = match self.trouble {
            Some(trouble) if down_at(&trouble, policy).is_some_and(|at| now >= at) => State::Down,
            // In doubt it stays up: an ended connection that comes back was never down. What was down by a refusal and
            // accepts connections again is neither, until it replies or its silence is long enough.
            Some(_) if self.last_reply.is_some() && self.state == State::Up => State::Up,
            None if self.last_reply.is_some() && self.how != How::Auth => State::Up,
            Some(_) | None => State::Unknown,
        };
        if state == self.state {
            return changed;
        }
        self.state = state;
        self.since = match (state, self.trouble) {
            (State::Down, Some(trouble)) => trouble.since,
            (State::Up | State::Down | State::Unknown, _) => now,
        };
        true
    }

    /// The probe that is due, with whether it wants a fresh connection.
    #[must_use = "the probe was noted as sent"]
    pub fn due(&mut self, now: Time, policy: &Policy) -> Option<(ProbeSeq, bool)> {
        if now < self.next_probe {
            return None;
        }
        let fresh = std::mem::take(&mut self.next_fresh) || self.trouble.is_some();
        self.seq += 1;
        if self.unanswered.len() == UNANSWERED_MAX {
            // The oldest stays: silence is counted from it.
            self.unanswered.remove(1);
        }
        self.unanswered.push_back((self.seq, now));
        if fresh && let Some(trouble) = &mut self.trouble {
            trouble.tried_fresh = true;
        }
        self.next_probe = if self.trouble.is_some() {
            now + self.in_turn(reply_deadline(policy))
        } else {
            self.next_regular(now, policy)
        };
        Some((self.seq, fresh))
    }

    /// When something is to be done next: a probe, or a verdict on silence.
    pub fn timeout(&self, policy: &Policy) -> Time {
        let mut at = self.next_probe;
        if let Some((_, asked_at)) = self.unanswered.front()
            && self.trouble.is_none_or(|trouble| !trouble.away)
        {
            at = at.min(*asked_at + reply_deadline(policy));
        }
        if self.state != State::Down
            && let Some(down) = self.trouble.and_then(|trouble| down_at(&trouble, policy))
        {
            at = at.min(down);
        }
        at
    }

    fn replied(
        &mut self,
        now: Time,
        asked_at: Time,
        health: Health,
        facts: Option<Box<Facts>>,
        policy: &Policy,
    ) -> bool {
        let trouble = self.trouble.take();
        let was_away = trouble.is_some_and(|trouble| trouble.away);
        let mut changed = trouble.is_some() || self.last_reply.is_none();
        if trouble.is_some() {
            self.answers_since = now;
        }
        self.last_reply = Some(now);
        self.reconnect = Duration::from_millis(1);
        if trouble.is_some() || self.next_probe <= now {
            self.next_probe = self.next_regular(now, policy);
        }
        if trouble.is_some() && !self.unanswered.is_empty() {
            // They were asked during the silence that is over, some on connections that were given up: that they have
            // no answer says nothing of now.
            self.unanswered.clear();
            self.next_probe = now;
        }
        let (how, detail) = match health {
            Health::Fine => (How::Replied, None),
            Health::Loading => (How::Loading, None),
            Health::Misconfigured(what) => (How::Misconf, Some(what)),
            Health::Busy(what) => (How::Busy, Some(what)),
            Health::Auth(what) => (How::Auth, Some(what)),
        };
        changed |= how != self.how;
        self.how = how;
        self.detail = detail;
        // A process without a name may be another one whenever its connection ended.
        let nameless = |after: &Facts| after.run_id.is_none() && trouble.is_some();
        let restarted = match (&self.facts, &facts) {
            (Some(before), Some(after)) => before.run_id != after.run_id || nameless(after),
            (_, None) | (None, Some(_)) => false,
        };
        if how != How::Loading && self.loading.is_some() {
            // What it holds was not counted while it read a part of it.
            self.process_since = asked_at;
            self.ask_fresh(now);
        }
        self.loading = match (how == How::Loading, self.loading) {
            (true, Some(loading)) => Some(loading),
            (true, None) => Some(Loading { since: now, restarted: restarted || trouble.is_some() }),
            (false, _) => None,
        };
        if how == How::Loading {
            self.absence.idle(asked_at);
        }
        let returned = was_away || restarted || self.state == State::Down;
        self.returned |= returned;
        if let Some(after) = facts.as_ref().filter(|_| returned || self.facts.is_none()) {
            let since = trouble.map(|trouble| trouble.since);
            self.absence.end(now, since, self.facts.as_ref(), after);
        }
        if trouble.is_some() {
            (self.standing_since, self.role_since) = (now, now);
        }
        if let Some(facts) = facts {
            changed |= self.read(now, *facts);
        }
        changed
    }

    /// Takes facts that were read, by a probe or right after a command. Returns whether more than ages and offsets
    /// changed.
    pub fn read(&mut self, now: Time, mut facts: Facts) -> bool {
        if self.facts.as_ref().is_some_and(|before| before.asked_at > facts.asked_at) {
            return false;
        }
        if facts.is_master()
            && let Some(before) = &self.facts
        {
            // A master does not say how gladly it would be promoted: what it said as a replica holds.
            facts.priority = before.priority;
        }
        if !facts.is_master() && facts.asked_at >= self.answers_since {
            self.returned = false;
        }
        self.hear_master(&facts);
        self.see_copied(&facts);
        let lost = self.see_loss(&facts);
        let before = self.facts.as_ref();
        let another = before.is_none_or(|before| before.run_id != facts.run_id) || lost;
        if another || self.how == How::Loading {
            self.process_since = facts.asked_at;
        }
        self.count(now, &facts, another);
        let changed = self.facts.as_ref().is_none_or(|before| !before.same_standing(&facts));
        if changed {
            self.standing_since = now;
        }
        if self.facts.as_ref().is_none_or(|before| before.follows() != facts.follows()) {
            self.role_since = now;
        }
        self.facts = Some(facts);
        changed
    }

    fn fail(&mut self, since: Time, how: How, detail: String) -> &mut Trouble {
        self.how = how;
        self.detail = Some(detail);
        let trouble = self.begin_trouble(since);
        trouble.refused = None;
        trouble.away = true;
        trouble.tried_fresh = true;
        trouble
    }

    fn begin_trouble(&mut self, since: Time) -> &mut Trouble {
        self.trouble.get_or_insert(Trouble {
            since,
            refused: None,
            accepted: false,
            unreached: false,
            reached: None,
            tried_fresh: false,
            away: false,
            not_before: Time::ZERO,
            unproven: false,
        })
    }

    fn take_unanswered(&mut self, seq: ProbeSeq) -> Option<Time> {
        let mut asked_at = None;
        while let Some((front, at)) = self.unanswered.front().copied()
            && front <= seq
        {
            asked_at = Some(at);
            self.unanswered.pop_front();
        }
        asked_at
    }

    fn reconnect_later(&mut self, now: Time, policy: &Policy) {
        let dense =
            self.trouble.is_some_and(|trouble| now.since(trouble.since) < policy.reconnect_dense);
        let wait = if dense { self.reconnect } else { policy.dead_interval.max(self.reconnect) };
        let wait = self.in_turn(wait);
        self.reconnect = (self.reconnect * 2).min(policy.reconnect_interval_max);
        self.next_probe = now + wait;
        self.next_fresh = true;
    }

    fn next_regular(&self, now: Time, policy: &Policy) -> Time {
        let settled = self.facts.as_ref().is_some_and(Facts::link_up);
        let intervals = if settled { policy.settled_replica_intervals } else { 1 };
        let interval = policy.check_interval * intervals.max(1);
        let interval = u64::try_from(interval.as_micros()).unwrap_or(u64::MAX).max(1);
        let phase = u64::try_from(self.phase.as_micros()).unwrap_or(0);
        // The next moment of its own place on the grid that is at least half an interval away.
        let from = now.as_micros() + interval / 2;
        let past = (from + interval - phase % interval) % interval;
        Time::from_micros(from + interval - past)
    }
}

/// When a probe without a reply becomes silence that is looked into.
fn reply_deadline(policy: &Policy) -> Duration {
    policy.check_interval.min(policy.max_down_time / 2)
}

#[cfg(test)]
mod tests;
