//! Who could take over, in which order, and why the others cannot. A pure function of what is known.

use std::cmp::Reverse;

use super::Group;
use super::copies::{is_on_its_way, is_parted, judge_copy};
use super::identity::same_process;
use super::lineage::{extent_in, history_age, is_unsettled, lineage};
use super::quorum::Peers;
use super::restart::{has_nothing_beside, is_copy};
use super::rules::{judge_rules, preference, priority_of};
use crate::addr::Addr;
use crate::group::Watches;
use crate::instance::{Facts, Link, ReplicationId, Role};
use crate::mutation::Mutation;
use crate::policy::Policy;
use crate::record::{Attempt, GroupEntry, RankedCandidate};
use crate::time::{Time, millis};
use crate::view::{How, State};
use crate::watch::Watch;

/// What an election is held over.
#[derive(Clone, Copy)]
pub(crate) struct Contest<'a> {
    pub(crate) entry: &'a GroupEntry,
    pub(crate) watches: &'a Watches,
    pub(crate) policy: &'a Policy,
    /// What the other nodes see: they may reach a candidate that is away for this one.
    pub(crate) peers: &'a Peers,
    /// Candidates that were tried already.
    pub(crate) tried: &'a [Attempt],
    /// When the master died; now, when it lives and the question is who could replace it.
    pub(crate) dead_since: Time,
    /// The recorded master lost its data: whoever has data of the group is better than it, also one whose copy of what the
    /// master has now is on its way.
    pub(crate) emptied: bool,
    /// Only what was asked at or after this counts as an offset; candidates that did not answer since are out.
    pub(crate) read_after: Option<Time>,
    pub(crate) now: Time,
}

impl Group {
    /// Who could take over from a master that died now, of all who ever said anything.
    pub(super) fn contest_at(&self, now: Time) -> Contest<'_> {
        Contest {
            entry: &self.entry,
            watches: &self.watches,
            policy: &self.policy,
            peers: &self.peers,
            tried: &[],
            dead_since: now,
            emptied: self.is_emptied(),
            read_after: None,
            now,
        }
    }
}

/// The outcome of an election.
#[derive(Clone, Debug)]
pub(crate) struct Election {
    /// Everyone, best first, then the refused.
    pub(crate) ranking: Vec<RankedCandidate>,
    /// Who is to be promoted.
    pub(crate) chosen: Option<Addr>,
    /// Why it is not the first of the ranking, when it is not.
    pub(crate) note: Option<String>,
    /// How far the chosen one is behind the last known offset of the master.
    pub(crate) behind_bytes: Option<u64>,
}

/// Ranks all instances but the master: the newest history first, since offsets of two histories cannot be compared and
/// the older one has nothing of what the last master acknowledged; in one history what rules and locations prefer, then
/// lower priority, larger offset, run id. The most advanced is chosen, and the best ranked among equally advanced ones: a replica that is
/// ahead of the promoted one would be wiped by a full resync, and acknowledged writes with it. (A replica without a
/// master cannot feed another one: Redis answers `NOMASTERLINK`, so a preferred candidate that is behind cannot be fed
/// before it is promoted.)
pub(crate) fn elect(contest: &Contest<'_>) -> Election {
    let mut eligible: Vec<(&Addr, &Facts)> = Vec::new();
    let mut refused = Vec::new();
    for addr in contest.entry.instances.keys().filter(|addr| **addr != contest.entry.master) {
        match judge(contest, addr) {
            Ok(facts) => eligible.push((addr, facts)),
            Err(why) => {
                let facts = contest.watches.get(addr).and_then(Watch::facts);
                refused.push(RankedCandidate {
                    addr: addr.clone(),
                    rank: None,
                    priority: facts.map(|facts| facts.priority),
                    offset: facts.map(|facts| facts.offset),
                    refused: Some(why),
                });
            }
        }
    }
    let lineage = lineage(contest);
    let age = |facts: &Facts| history_age(&lineage, facts);
    let priority =
        |addr: &Addr, facts: &Facts| priority_of(contest.policy, contest.entry, addr, facts);
    // Two histories that nobody knows can be compared by what they hold alone.
    let unnamed = |facts: &Facts| contest.emptied && age(facts) == lineage.len();
    let extent = |addr: &Addr, facts: &Facts| match unnamed(facts) {
        true => keys_of(contest, addr).unwrap_or_default(),
        false => extent_in(&lineage, facts),
    };
    eligible.sort_by_key(|(addr, facts)| {
        let wish = (preference(contest, addr), priority(addr, facts));
        let held = Reverse((extent(addr, facts), facts.offset));
        (age(facts), wish, held, facts.run_id.as_deref(), *addr)
    });
    // Of two that left the group's history at the same place, one may have gone on.
    let place =
        |addr: &Addr, facts: &Facts| (Reverse(age(facts)), extent(addr, facts), facts.offset);
    let places = eligible.iter().map(|(addr, facts)| place(addr, facts));
    let most = match contest.policy.has(Mutation::OffsetsTurned) {
        true => places.min(),
        false => places.max(),
    };
    let chosen = eligible.iter().find(|(addr, facts)| Some(place(addr, facts)) == most).copied();
    let note = match (eligible.first(), chosen) {
        (Some((first, behind)), Some((addr, ahead))) if *first != addr => Some(format!(
            "{addr} is promoted before {first}, which has the better priority ({} against {}) or is preferred, but is {} \
             {} behind it and would lose them for good",
            priority(first, behind),
            priority(addr, ahead),
            match extent(addr, ahead).saturating_sub(extent(first, behind)) {
                0 => ahead.offset.saturating_sub(behind.offset),
                more => more,
            },
            if unnamed(ahead) { "keys" } else { ahead.flavor.manners().unit }
        )),
        _ => None,
    };
    let known = last_known_offset(contest).filter(|_| !contest.emptied && !is_unsettled(contest));
    let mut ranking: Vec<RankedCandidate> = (1..)
        .zip(&eligible)
        .map(|(rank, (addr, facts))| RankedCandidate {
            addr: (*addr).clone(),
            rank: Some(rank),
            priority: Some(priority(addr, facts)),
            offset: Some(facts.offset),
            refused: None,
        })
        .collect();
    ranking.append(&mut refused);
    Election {
        ranking,
        chosen: chosen.map(|(addr, _)| addr.clone()),
        note,
        behind_bytes: chosen
            .filter(|(_, facts)| age(facts) == 0)
            .and_then(|(_, facts)| known.map(|known| known.saturating_sub(facts.offset))),
    }
}

/// The largest offset that the master reported, if it was ever read.
fn last_known_offset(contest: &Contest<'_>) -> Option<u64> {
    contest
        .watches
        .get(&contest.entry.master)
        .and_then(Watch::facts)
        .filter(|facts| facts.is_master())
        .map(|facts| facts.offset)
}

/// Whether one instance can be promoted, or why not.
pub(crate) fn judge<'a>(contest: &Contest<'a>, addr: &Addr) -> Result<&'a Facts, String> {
    let Contest { watches, policy, tried, dead_since, now, .. } = *contest;
    if let Some(attempt) = tried.iter().find(|attempt| attempt.addr == *addr) {
        return Err(format!("was tried in this failover and given up: {}", attempt.reason));
    }
    let facts = read(contest, addr)?;
    let master = watches.get(&contest.entry.master).and_then(Watch::facts);
    if master.is_some_and(|master| same_process(master, facts)) {
        return Err("is the recorded master under another address".to_owned());
    }
    judge_rules(contest, addr, facts)?;
    judge_copy(contest, addr, facts)?;
    if contest.emptied {
        judge_rescuer(contest, addr, facts)?;
        return Ok(facts);
    }
    let unfinished = matches!(
        facts.role,
        Role::Replica { link: Link::Syncing | Link::Down { since_secs: None }, .. }
    );
    if unfinished && policy.has(Mutation::UnfinishedSync) {
        return Ok(facts);
    }
    // The link first: while it copies its master's data, a replica reports a history of its own making.
    judge_link(policy, dead_since, now, facts)?;
    if !is_parted(contest.entry, addr, facts) && !is_on_its_way(contest.entry, addr, facts) {
        judge_history(contest, facts)?;
    }
    if policy.max_lag_bytes > 0
        && let Some(known) = last_known_offset(contest)
        && known.saturating_sub(facts.offset) > policy.max_lag_bytes
    {
        return Err(format!(
            "is {} {} behind the master's last known offset, more than max_lag_bytes ({})",
            known - facts.offset,
            facts.flavor.manners().unit,
            policy.max_lag_bytes
        ));
    }
    Ok(facts)
}

/// What an instance reported, to this node or to one that reaches it.
fn read<'a>(contest: &Contest<'a>, addr: &Addr) -> Result<&'a Facts, String> {
    let away = contest.watches.get(addr).filter(|watch| watch.away());
    // What others read before it was lost here says nothing of whether they reach it.
    let read_after = away.and_then(Watch::trouble_since).max(contest.read_after);
    let borrowed =
        contest.peers.facts(contest.now, contest.policy, addr).map(|(_, facts)| facts).filter(
            |facts| away.is_some() && read_after.is_none_or(|after| facts.asked_at >= after),
        );
    match borrowed {
        Some(facts) => Ok(facts),
        None => read_here(contest, addr),
    }
}

fn read_here<'a>(contest: &Contest<'a>, addr: &Addr) -> Result<&'a Facts, String> {
    let Contest { watches, read_after, now, .. } = *contest;
    let Some(watch) = watches.get(addr) else { return Err("is not watched yet".to_owned()) };
    match watch.state() {
        State::Down => {
            return Err(format!("is down since {}", ago(now, watch.since())));
        }
        State::Unknown if watch.how() == How::Auth => {
            return Err("does not let us in: check user, password and permissions".to_owned());
        }
        State::Unknown => return Err("has not answered yet".to_owned()),
        State::Up => {}
    }
    let how = match watch.how() {
        How::Replied | How::Misconf => None,
        How::Loading => Some("is loading its data"),
        How::Busy => Some("is busy with a script that does not end, or takes no more clients"),
        // In doubt and still up: as long as nobody is to be promoted, the doubt alone refuses nobody.
        How::Refusing | How::Silent | How::Garbage | How::Unresolved if read_after.is_none() => {
            None
        }
        How::Refusing => Some("refuses connections"),
        How::Silent => Some("gives no answer"),
        How::Auth => Some("does not let us in: check user, password and permissions"),
        How::Garbage => Some("does not speak its protocol"),
        How::Unresolved => Some("has a host name that cannot be resolved"),
    };
    if let Some(how) = how {
        return Err(how.to_owned());
    }
    let Some(facts) = watch.facts() else { return Err("did not report its facts yet".to_owned()) };
    // One whose connection ended may be another by now; only its next answer tells.
    let doubted = watch.trouble_since().is_some();
    if contest.policy.has(Mutation::OldAnswers) {
        return Ok(facts);
    }
    if read_after.is_some_and(|after| facts.asked_at < after || doubted) {
        return Err("gave no answer when it was asked about the dead master".to_owned());
    }
    Ok(facts)
}

/// Whether a master that was made by hand has everything that the group's recorded master acknowledged.
pub(crate) fn judge_heir(contest: &Contest<'_>, facts: &Facts) -> Result<(), String> {
    if facts.flavor.manners().finds_common {
        return judge_history(contest, facts);
    }
    // Nothing else can be compared. The recorded master may have restarted with less than it had.
    let recorded = contest.watches.get(&contest.entry.master).and_then(Watch::facts);
    let extents = whole_replicas(contest).chain(recorded);
    match recorded.is_some() && extents.map(|facts| facts.offset).max() <= Some(facts.offset) {
        true => Ok(()),
        false => Err("may lack what the recorded master had".to_owned()),
    }
}

/// What those replicas of the recorded master report that owe no copy.
fn whole_replicas<'a>(contest: &Contest<'a>) -> impl Iterator<Item = &'a Facts> {
    let Contest { entry, watches, .. } = *contest;
    watches.iter().filter_map(|(addr, watch)| {
        let facts = watch.facts().filter(|_| watch.serves())?;
        let known = entry.instances.get(addr)?;
        let whole = known.attached && known.copy.is_none();
        let of = facts.follows().and_then(|of| entry.instance_of(of));
        (whole && of == Some(&entry.master)).then_some(facts)
    })
}

/// Whether it can take over from a master that lost its data. How its link is says nothing here: until a full copy has
/// arrived a replica keeps its data, and with it the name of its history.
fn judge_rescuer(contest: &Contest<'_>, addr: &Addr, facts: &Facts) -> Result<(), String> {
    if !facts.flavor.manners().finds_common {
        return judge_history(contest, facts);
    }
    let ours = |id: &ReplicationId| contest.entry.lineage.contains(id);
    let known = facts.replication_id.as_ref().is_some_and(ours)
        || facts.second_replication_id.as_ref().is_some_and(ours);
    if !known && !read_its_own_disk(contest, addr, facts) {
        return Err("is on a history that was never the group's".to_owned());
    }
    let watch = contest.watches.get(addr);
    let counted = watch.filter(|watch| {
        // What another node read may be another process than the one that was counted here.
        watch.facts().is_some_and(|here| here.run_id == facts.run_id)
    });
    let keys = match counted {
        Some(watch) => watch.keys_since(Time::ZERO),
        None => facts.keys.or(Some(0)),
    };
    if keys == Some(0) {
        return Err("holds no keys either, as far as is known".to_owned());
    }
    let master = contest.watches.get(&contest.entry.master).and_then(Watch::facts);
    if master.is_some_and(|master| is_copy(master, facts)) {
        return Err("has copied what the master has now".to_owned());
    }
    Ok(())
}

/// How many keys the process behind an address holds, as far as it said.
fn keys_of(contest: &Contest<'_>, addr: &Addr) -> Option<u64> {
    contest.watches.get(addr).and_then(Watch::keys_now)
}

/// Whether it is a replica of the master that came back with nothing, restarted too, and has what it read from its own disk:
/// an append-only file does not say of which history it is. It is wiped as soon as it finds its master, so nothing is lost
/// by making it one.
fn read_its_own_disk(contest: &Contest<'_>, addr: &Addr, facts: &Facts) -> bool {
    let entry = contest.entry;
    let (Some(nothing), Some(held)) = (keys_of(contest, &entry.master), keys_of(contest, addr))
    else {
        return false;
    };
    let follows = facts.follows().and_then(|of| entry.instance_of(of)) == Some(&entry.master);
    let attached = entry.instances.get(addr).is_some_and(|known| known.attached);
    follows && attached && !facts.link_up() && has_nothing_beside(nothing, held)
}

/// Its data must be of this group's history; the replication id decides, the address only where there is none.
fn judge_history(contest: &Contest<'_>, facts: &Facts) -> Result<(), String> {
    if contest.policy.has(Mutation::AnyHistory) {
        return Ok(());
    }
    let entry = contest.entry;
    let lineage = lineage(contest);
    let follows_recorded =
        facts.follows().is_some_and(|master| entry.instance_of(master) == Some(&entry.master));
    let Some(own) = &facts.replication_id else {
        return if follows_recorded {
            Ok(())
        } else {
            Err("does not follow the recorded master and has no replication id to compare"
                .to_owned())
        };
    };
    let Some(newest) = lineage.first().copied() else {
        return if follows_recorded {
            Ok(())
        } else {
            Err("does not follow the recorded master, whose history was never read".to_owned())
        };
    };
    if facts.is_master() {
        // It was promoted by somebody else, or late by us. Only one that was a replica in the newest history has all of
        // it; a former master that came back does not.
        return if own == newest || facts.second_replication_id.as_ref() == Some(newest) {
            Ok(())
        } else {
            Err(format!(
                "is a master of another history ({}…) than the group's ({}…)",
                short(&own.0),
                short(&newest.0)
            ))
        };
    }
    let ours = |id| lineage.contains(&id);
    if ours(own) || facts.second_replication_id.as_ref().is_some_and(ours) {
        Ok(())
    } else {
        Err(format!(
            "is of another history ({}…) than the group's ({}…)",
            short(&own.0),
            short(&newest.0)
        ))
    }
}

fn judge_link(policy: &Policy, dead_since: Time, now: Time, facts: &Facts) -> Result<(), String> {
    let link = match &facts.role {
        Role::Master { .. } => return Ok(()),
        Role::Replica { link, .. } => link,
    };
    match *link {
        Link::Up { .. } => Ok(()),
        Link::Syncing => {
            Err("is in the middle of a full sync: its data is old or partial".to_owned())
        }
        Link::Down { since_secs: None } => Err("never finished a sync since its start".to_owned()),
        Link::Down { since_secs: Some(secs) } => {
            let dead = now.since(dead_since);
            if secs > (dead + policy.max_link_down).as_secs() {
                Err(format!(
                    "lost its link {secs} s ago, long before the master died ({} s ago)",
                    dead.as_secs()
                ))
            } else {
                Ok(())
            }
        }
    }
}

/// The first digits of an id, enough for people to compare.
pub(crate) fn short(id: &str) -> &str {
    id.get(..8).unwrap_or(id)
}

/// How long ago something was, for sentences.
pub(crate) fn ago(now: Time, then: Time) -> String {
    let since = now.since(then);
    if since.as_secs() >= 10 {
        format!("{} s", since.as_secs())
    } else {
        format!("{:.0} ms", millis(since))
    }
}

#[cfg(test)]
mod tests;
