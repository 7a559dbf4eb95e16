//! A recorded master that restarted within its down time: whether it has its data still, before anyone follows it.
//!
//! Replicas come back to their master by themselves and take over what it has: within a second of its start, or six, they
//! are as empty as it is. Whoever still has the data is promoted before that. Offsets alone prove nothing here: a master
//! that read an append-only file has all its data, a new history, and counts from zero.

use std::time::Duration;

use super::elect::{Contest, judge};
use super::identity::same_process;
use super::{Context, Diagnosis, Group};
use crate::addr::Addr;
use crate::instance::{Facts, Flavor, Link, Role};
use crate::mutation::Mutation;
use crate::record::{HistoryEntry, Kind, Outcome, Step};
use crate::time::Time;
use crate::view::State;
use crate::watch::{Death, Watch};

/// What is known of a recorded master that runs as another process than the recorded one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Restarted {
    /// It and the others are being asked what they hold.
    Asking {
        /// Who does not answer until then has nothing to say.
        until: Time,
    },
    /// It came back with nothing, and who may have its data does not answer.
    Waiting {
        /// For so long.
        until: Time,
        /// What is known, a sentence.
        why: String,
    },
    /// Somebody has more than it has, and cannot be promoted: a sentence.
    Held(String),
    /// Somebody who can be promoted has more than it has.
    Emptied,
    /// It has what the others have, or nobody has more: it goes on.
    Kept,
}

impl Restarted {
    /// Why nobody is pointed at it for now; `None` when it goes on.
    pub(super) fn in_words(&self, master: &Addr) -> Option<String> {
        match self {
            Self::Asking { .. } => {
                Some(format!("{master} restarted, and is asked whether it has its data still"))
            }
            Self::Waiting { why, .. } | Self::Held(why) => Some(why.clone()),
            Self::Emptied => Some(format!("{master} restarted without its data")),
            Self::Kept => None,
        }
    }
}

/// A master that restarted with less than this part of the keys that one of its replicas holds lost its data: clients may
/// have written a little by the time it is looked at, and a replica may still hold what its master let expire.
pub(super) const EMPTY_SHARE: u64 = 2;
/// With less than this part of them it has nothing that would be missed, also beside data of an unknown history.
const NOTHING_SHARE: u64 = 100;

/// Fewer keys than this are not held against the recorded master: they may be all that was written in a moment.
const MISSED_KEYS_MIN: u64 = 100;

/// How old the number of a master's keys may be when the master is replaced for having too few.
const COUNT_AGE_MAX: Duration = Duration::from_secs(1);

/// Who has to be asked for what it holds.
type Ask = Vec<Addr>;

impl Group {
    /// Finds out whether a recorded master that restarted has its data; on every node, since the voters have to agree.
    pub(super) fn look_into_restart(&mut self, ctx: &Context<'_>) {
        let now = ctx.now;
        let (restarted, ask) = self.judge_restart(ctx);
        for addr in ask {
            if let Some(watch) = self.watches.get_mut(&addr) {
                watch.ask_keys(now, now - self.policy.corroboration_timeout);
            }
        }
        if restarted == Some(Restarted::Kept) {
            let facts = self.watches.get(&self.entry.master).and_then(Watch::facts);
            self.kept = facts.and_then(|facts| facts.run_id.clone());
        }
        self.changed |= restarted != self.restarted;
        self.restarted = restarted;
    }

    /// Whether the recorded master restarted without its data, which somebody has who can be promoted.
    pub(super) fn is_emptied(&self) -> bool {
        self.restarted == Some(Restarted::Emptied)
    }

    /// Why nobody is pointed at the recorded master although it answers as one.
    pub(super) fn restart_in_doubt(&self) -> Option<String> {
        self.restarted.as_ref()?.in_words(&self.entry.master)
    }

    /// As a death, with the first sign of it.
    pub(super) fn emptied(&self) -> Option<(Death, Time, Time)> {
        let watch = self.watches.get(&self.entry.master).filter(|_| self.is_emptied())?;
        Some((Death::Emptied, watch.process_since(), watch.process_since()))
    }

    /// When what is concluded of a restart changes with time alone.
    pub(super) fn restart_timeout(&self) -> Option<Time> {
        match self.restarted {
            Some(Restarted::Asking { until } | Restarted::Waiting { until, .. }) => Some(until),
            Some(Restarted::Held(_) | Restarted::Emptied | Restarted::Kept) | None => None,
        }
    }

    fn judge_restart(&self, ctx: &Context<'_>) -> (Option<Restarted>, Ask) {
        let now = ctx.now;
        let none = (None, Ask::new());
        if self.policy.has(Mutation::EmptyIsFollowed) {
            return none;
        }
        let master = &self.entry.master;
        let watch = self.watches.get(master).filter(|watch| watch.serves());
        let Some(watch) = watch else { return none };
        let forgot = |facts: &Facts| facts.run_id.is_none() && !facts.is_master();
        if watch.lost_writes() || watch.facts().is_some_and(forgot) && watch.came_back_so() {
            return (Some(self.judge_lost_writes(now)), Ask::new());
        }
        let Some(recorded) = &self.entry.master_run_id else { return none };
        // One that restarted as a replica, by an old configuration file, while nobody is a master, is asked the same.
        let answers_for_all = |facts: &&Facts| facts.is_master() || !self.has_another_master();
        let Some(facts) = watch.facts().filter(answers_for_all) else { return none };
        if facts.run_id.as_ref().is_none_or(|run_id| run_id == recorded) {
            return none;
        }
        // Another group's server behind the address has none of this group's data, however much it holds.
        let foreign = self.stranger_of(ctx, facts);
        let since = watch.process_since();
        // It may have become the recorded master long after it restarted: until then nobody asked.
        let until = since.max(self.master_since) + self.policy.corroboration_timeout;
        let asking = now < until;
        let mut ask = Ask::new();
        let keys = if foreign.is_some() { Some(0) } else { watch.keys_since(since) };
        if keys.is_none() && asking {
            ask.push(master.clone());
        }
        // Clients may have written a little by now.
        let misses = |count: Option<u64>| {
            keys.zip(count).is_some_and(|(keys, count)| has_nothing_beside(keys, count))
        };
        let mut lost_all = keys == Some(0) || misses(watch.keys_before());
        let mut absent = Vec::new();
        let mut held = None;
        for (addr, other) in self.watches.iter().filter(|(addr, _)| *addr != master) {
            if !self.entry.instances.get(addr).is_some_and(|known| known.attached) {
                continue;
            }
            // One that is in doubt since a moment still has what it said after the restart.
            let doubted = other.state() == State::Up && other.trouble_since().is_some();
            let says = |theirs: &&Facts| other.serves() || doubted && theirs.asked_at >= since;
            let Some(theirs) = other.facts().filter(says) else {
                // What it held last is perhaps on its disk.
                lost_all |= misses(other.keys_since(Time::ZERO));
                absent.push(addr.to_string());
                continue;
            };
            if same_process(facts, theirs) || is_copy(facts, theirs) {
                continue;
            }
            let count = other.keys_since(since).filter(|_| theirs.asked_at >= since);
            if count.is_none() && asking {
                ask.push(addr.clone());
                continue;
            }
            let tells = other.keys_since(Time::ZERO).is_some();
            if theirs.asked_at < since || tells && count.is_none() {
                // It is late, or says later how much it holds, and has perhaps all that is lost.
                lost_all |= misses(other.keys_since(Time::ZERO));
                ask.push(addr.clone());
                absent.push(addr.to_string());
                continue;
            }
            // One that does not say how much it holds is known by its offset alone.
            let counted = keys.zip(count);
            let less = counted.is_some_and(|(keys, other)| is_less(keys, other, EMPTY_SHARE));
            let nothing = counted.is_some_and(|(keys, other)| has_nothing_beside(keys, other));
            let began = watch.keys_first().zip(count);
            let began_with_nothing =
                began.is_some_and(|(keys, other)| has_nothing_beside(keys, other));
            // What one holds that was left behind long before says nothing of a master that has some data.
            let known_older = self.is_one_history(facts, theirs) || !nothing;
            let less = less && !(known_older && self.is_old(now, since, theirs));
            if !self.is_ahead(facts, theirs) && !less {
                continue;
            }
            match judge(&self.rescue(now), addr) {
                Ok(_) => {
                    let counted = foreign.is_some() || keys.is_none();
                    let counted = counted || watch.keys_since(now - COUNT_AGE_MAX).is_some();
                    let ask = if counted { Ask::new() } else { vec![master.clone()] };
                    return (Some(self.without_data(now, !ask.is_empty())), ask);
                }
                // What clients have written since is a little beside what nobody else has.
                Err(why) if nothing || began_with_nothing && less => {
                    held.get_or_insert(format!(
                        "{master} restarted with less data than {addr} holds, which is not promoted because it {why}; \
                         a failover with force promotes it all the same, and forgetting it lets {master} go on"
                    ));
                }
                Err(_) => {}
            }
        }
        // After a power cut it may be seen a moment before its replicas are.
        if asking && !(ask.is_empty() && absent.is_empty()) {
            return (Some(Restarted::Asking { until }), ask);
        }
        if let Some(why) = held {
            return (Some(Restarted::Held(why)), ask);
        }
        let patient = since + self.policy.empty_wait;
        // What it took since it came back with nothing is not what is waited for.
        lost_all |=
            matches!(&self.restarted, Some(Restarted::Waiting { until, .. }) if *until == patient);
        if lost_all && !absent.is_empty() && now < patient {
            // Clients fill it meanwhile, and whoever comes back is compared with what it has by then.
            if watch.keys_now().is_some() && watch.keys_since(now - COUNT_AGE_MAX).is_none() {
                ask.push(master.clone());
            }
            let why = format!(
                "{master} restarted with {}, and {} may have its data but does not answer; nobody is pointed at {master} \
                 before {patient}",
                keys_in_words(watch),
                absent.join(", ")
            );
            return (Some(Restarted::Waiting { until: patient, why }), ask);
        }
        if let Some(group) = foreign {
            let why = format!(
                "{master} has the data of the group {group}: its address was given to another server, which is left alone; \
                 nobody else can take over"
            );
            return (Some(Restarted::Held(why)), ask);
        }
        (Some(Restarted::Kept), ask)
    }

    /// A master without a run id that has less than it had: whoever still has more is promoted, if that can be.
    fn judge_lost_writes(&self, now: Time) -> Restarted {
        let rescue = self.rescue(now);
        let mut held = None;
        for addr in self.survivors() {
            match judge(&rescue, addr) {
                Ok(_) => return Restarted::Emptied,
                Err(why) => {
                    held.get_or_insert(format!(
                        "{} has less data than it had and than {addr} holds, which is not promoted because it {why}; a failover \
                         with force promotes it all the same, and forgetting it lets {} go on",
                        self.entry.master, self.entry.master
                    ));
                }
            }
        }
        held.map_or(Restarted::Kept, Restarted::Held)
    }

    /// Whether a master that restarted without its data is asked once more how much it holds, before it is replaced. It was
    /// counted a while ago, something else held its replacement up, and clients may have filled it meanwhile.
    pub(super) fn awaits_emptied(&mut self, now: Time) -> bool {
        let master = self.entry.master.clone();
        let counted = self.watches.get(&master).and_then(Watch::keys_counted_at);
        let old = counted.is_some_and(|at| now > at + self.policy.corroboration_timeout);
        // One that never said is judged by other things.
        old && self.awaits_word(now, &master)
    }

    /// What becomes of a master that lacks what another one has. Clients may have filled it since it was counted, and nobody
    /// replaces it for less than what it has by now: it is waited for once when it is asked again, and goes on being asked.
    fn without_data(&self, now: Time, asked_again: bool) -> Restarted {
        let pause = self.policy.corroboration_timeout;
        let master = self.watches.get(&self.entry.master);
        let said_at = master.and_then(Watch::last_reply);
        let until = match self.restarted {
            Some(Restarted::Emptied) => None,
            Some(Restarted::Asking { until }) if now < until => Some(until),
            // One that leaves its questions unanswered is about to be in trouble: that is another death, with a patience of its own.
            Some(Restarted::Asking { until }) => {
                Some(now + pause).filter(|_| said_at < Some(until - pause))
            }
            Some(Restarted::Waiting { .. } | Restarted::Held(_) | Restarted::Kept) | None => {
                Some(now + pause)
            }
        };
        match until.filter(|_| asked_again) {
            Some(until) => Restarted::Asking { until },
            None => Restarted::Emptied,
        }
    }

    /// Whether somebody else of the group answers as a master.
    pub(super) fn has_another_master(&self) -> bool {
        self.watches
            .iter()
            .any(|(addr, watch)| *addr != self.entry.master && watch.serves() && watch.is_master())
    }

    /// An instance of the group beside whose keys those of another one, which is to be the master, would not be missed.
    pub(super) fn holder_of_more(&self, master: &Addr) -> Option<(&Addr, u64)> {
        let held = self.watches.get(master).and_then(Watch::keys_now)?;
        self.watches.iter().filter(|(addr, _)| *addr != master).find_map(|(addr, watch)| {
            let attached = self.entry.instances.get(addr).is_some_and(|known| known.attached);
            let keys = watch.keys_now().filter(|keys| has_nothing_beside(held, *keys))?;
            (attached && watch.serves()).then_some((addr, keys))
        })
    }

    /// Whether an instance that came back, or the master that it would follow, has not said yet how much it holds, which
    /// they do on a new connection. Whoever has not is asked, and waited for a moment; also when it said so only before it was
    /// away. So is a master that seems to have next to nothing, and was counted before the instance was: clients may have
    /// filled it since.
    pub(super) fn awaits_count(&mut self, now: Time, addr: &Addr) -> bool {
        let tells =
            |addr: &Addr| self.watches.get(addr).is_some_and(|watch| watch.keys_now().is_some());
        let silent = match (tells(&self.entry.master), tells(addr)) {
            (true, false) => addr.clone(),
            (false, true) => self.entry.master.clone(),
            // It may have been filled between that count and its silence.
            (true, true) if self.is_counted_before_absence(addr) => addr.clone(),
            (true, true)
                if self.would_be_missed(addr).is_some() && self.is_counted_before(addr) =>
            {
                self.entry.master.clone()
            }
            // Where neither does, they may be servers that never do.
            (true, true) | (false, false) => return false,
        };
        self.awaits_word(now, &silent)
    }

    /// Asks an instance how much it holds, unless it was asked for long enough.
    fn awaits_word(&mut self, now: Time, addr: &Addr) -> bool {
        let Some(watch) = self.watches.get_mut(addr) else { return false };
        let until = watch.keys_asked().unwrap_or(now) + self.policy.corroboration_timeout;
        if now >= until {
            return false;
        }
        let since = watch.standing_since().max(watch.process_since());
        // One that is asked and does not say is not asked as fast as it answers.
        let asked_at = watch.facts().map_or(Time::ZERO, |facts| facts.asked_at);
        let again_at = asked_at + self.policy.corroboration_timeout / 10;
        if now < again_at && asked_at >= since {
            self.wake_at(until.min(again_at));
        } else {
            watch.ask_keys(now, since);
            self.wake_at(until);
        }
        true
    }

    /// Whether the recorded master was counted before an instance was.
    fn is_counted_before(&self, addr: &Addr) -> bool {
        let counted = |addr: &Addr| self.watches.get(addr).and_then(Watch::keys_counted_at);
        counted(&self.entry.master) < counted(addr)
    }

    /// Whether an instance was away, and was not counted since.
    fn is_counted_before_absence(&self, addr: &Addr) -> bool {
        self.watches.get(addr).is_some_and(|watch| {
            let away_at = watch.comeback().and_then(|comeback| comeback.earliest);
            watch.keys_counted_at() < away_at
        })
    }

    /// How many keys an instance holds, when next to nothing of them would be left if it followed the recorded master. One whose
    /// process once held as many was emptied by its users, and what others have of that is old.
    pub(super) fn would_be_missed(&self, addr: &Addr) -> Option<u64> {
        let master = self.watches.get(&self.entry.master)?;
        let other = self.watches.get(addr)?;
        let (held, keys) = (master.keys_now()?, other.keys_now()?);
        let missed = has_nothing_beside(held.max(master.keys_most()), keys)
            && !self.policy.has(Mutation::EmptyIsFollowed);
        (missed && keys >= MISSED_KEYS_MIN).then_some(keys)
    }

    /// Why such an instance is left alone, a sentence.
    pub(super) fn left_with_its_keys(&self, addr: &Addr, keys: u64) -> String {
        let master = &self.entry.master;
        format!(
            "{addr} holds {keys} {}, and {master}, which is the recorded master, never held more than {}: it is not told to \
             follow, which would wipe it; a failover with force makes it the master, and forgetting it gives its data up",
            self.manners().holds,
            self.watches.get(master).map(Watch::keys_most).unwrap_or_default()
        )
    }

    /// Whether the restarted master went on with the history that an instance is on. As a replica it is on it still.
    fn is_one_history(&self, master: &Facts, other: &Facts) -> bool {
        let newest = self.entry.lineage.first();
        let of_master = match master.is_master() {
            true => &master.second_replication_id,
            false => &master.replication_id,
        };
        newest.is_some() && of_master.as_ref() == newest && other.replication_id.as_ref() == newest
    }

    /// Whether an instance is further in the history that the restarted master went on with.
    fn is_ahead(&self, master: &Facts, other: &Facts) -> bool {
        self.is_one_history(master, other) && other.offset > master.offset
    }

    /// Whether a replica had no link long before its master restarted, or does not say since when.
    fn is_old(&self, now: Time, restarted_at: Time, facts: &Facts) -> bool {
        match &facts.role {
            Role::Replica { link: Link::Down { since_secs }, .. } => {
                since_secs.is_none_or(|secs| {
                    secs > (now.since(restarted_at) + self.policy.max_link_down).as_secs()
                })
            }
            Role::Replica { link: Link::Up { .. } | Link::Syncing, .. } | Role::Master { .. } => {
                false
            }
        }
    }

    /// Who could take over from a master whose data is gone.
    fn rescue(&self, now: Time) -> Contest<'_> {
        Contest { emptied: true, ..self.contest_at(now) }
    }

    /// What the history says of a master that came back with nothing when nobody has more: it cannot be helped any more.
    pub(super) fn lost_for_good(&self, ctx: &Context<'_>) -> Option<HistoryEntry> {
        let master = &self.entry.master;
        let watch = self.watches.get(master).filter(|_| self.restarted == Some(Restarted::Kept))?;
        let held = watch.keys_before().filter(|keys| *keys > 0)?;
        let since = watch.process_since();
        if watch.keys_since(since) != Some(0) {
            return None;
        }
        let (others, holds) = (self.watches.len() - 1, self.manners().holds);
        let who = match others {
            0 => "it has no replica".to_owned(),
            _ => format!(
                "none of the {others} other instances has more: whoever followed it was wiped by that"
            ),
        };
        let reason = format!(
            "{master} restarted with no data, where {held} {holds} were counted last, and {who}; only a backup can bring it \
             back"
        );
        Some(HistoryEntry {
            cause: Diagnosis::MasterRestartedEmpty.name().to_owned(),
            outcome: Outcome::Failed,
            started_at: since,
            finished_at: Some(ctx.now),
            steps: vec![Step {
                name: "first_sign".to_owned(),
                addr: Some(master.clone()),
                at_ms: 0.0,
                node: ctx.me.clone(),
                note: None,
            }],
            ..self.new_history((ctx.now, ctx.me), Kind::Failover, reason)
        })
    }
}

/// Whether an instance has taken over what the master has, and nothing else.
pub(super) fn is_copy(master: &Facts, other: &Facts) -> bool {
    other.link_up()
        && master.replication_id.is_some()
        && other.replication_id == master.replication_id
}

/// Whether so many keys are nothing that would be missed beside those of another.
pub(super) fn has_nothing_beside(keys: u64, other: u64) -> bool {
    is_less(keys, other, NOTHING_SHARE)
}

/// Whether so many keys are less than this part of another's.
pub(super) fn is_less(keys: u64, other: u64, share: u64) -> bool {
    other > 0 && (keys == 0 || other / share > keys)
}

/// How many keys an instance holds as far as it said, for sentences.
pub(super) fn keys_in_words(watch: &Watch) -> String {
    let holds = watch.facts().map_or(Flavor::Redis, |facts| facts.flavor).manners().holds;
    match watch.keys_now() {
        Some(0) => format!("no {holds}"),
        Some(keys) => format!("{keys} {holds}"),
        None => format!("an unknown number of {holds}"),
    }
}
