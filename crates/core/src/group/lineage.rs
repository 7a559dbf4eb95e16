//! Whose writes came after whose: the histories of the group's masters, by what servers say of theirs.

use std::time::Duration;

use super::Watches;
use super::elect::Contest;
use super::restart::{EMPTY_SHARE, is_less};
use crate::instance::{Facts, Link, ReplicationId, Role};
use crate::record::GroupEntry;
use crate::time::Time;
use crate::view::Death;
use crate::watch::Watch;

/// No server starts again and feeds a replica within this.
const NOT_BACK_WITHIN: Duration = Duration::from_millis(50);

/// The histories of the group's masters, newest first. What the recorded master last said of itself counts also while
/// the record does not have it yet: a master that restarted is on a new one, and so is everyone who followed it since.
pub(super) fn lineage<'a>(contest: &Contest<'a>) -> Vec<&'a ReplicationId> {
    let own = contest
        .watches
        .get(&contest.entry.master)
        .and_then(Watch::facts)
        .filter(|facts| facts.is_master())
        .and_then(|facts| facts.replication_id.as_ref())
        // One that the record knows as an older one was read before the record went on.
        .filter(|id| !contest.emptied && !contest.entry.lineage.contains(id));
    let recorded = contest.entry.lineage.iter();
    match is_unsettled(contest) {
        // It may have lost everything, and whoever followed it with it, unless that one tells otherwise.
        true => whole_copy(contest).into_iter().chain(recorded).chain(own).collect(),
        false => copied(contest).into_iter().chain(own).chain(recorded).collect(),
    }
}

/// The history that the recorded master began for its first replica, where it died before it was read again: whoever ended a
/// copy of it has its name. It must have been seen to go, and the copy to come, or to be there when the master was gone: another
/// process of it, which nobody read, might have had nothing.
fn copied<'a>(contest: &Contest<'a>) -> Option<&'a ReplicationId> {
    let master = &contest.entry.master;
    let watch = contest.watches.get(master)?;
    // What it got from somebody else, as a replica, and passed on is not the group's.
    let read_at = watch.facts().filter(|facts| facts.is_master())?.asked_at;
    let seen_to_go = watch.death() == Some(Death::Refusing);
    if contest.emptied || !seen_to_go {
        return None;
    }
    let newest = contest
        .watches
        .values()
        .filter_map(Watch::copied)
        .filter(|copied| contest.entry.instance_of(&copied.of) == Some(master))
        .filter(|copied| {
            let in_time = copied.at <= contest.dead_since + NOT_BACK_WITHIN;
            read_at < copied.at && (copied.was_seen || in_time)
        })
        .max_by_key(|copied| copied.at)?;
    let fits = !contest.entry.lineage.contains(&newest.id)
        && !is_anothers(contest.entry, contest.watches, &newest.id);
    fits.then_some(&newest.id)
}

/// The history that the recorded master began after it restarted, where it died or fell silent before it said what it has:
/// whoever follows it has a copy of that. As many keys as others have, and had, are no copy of nothing.
fn whole_copy<'a>(contest: &Contest<'a>) -> Option<&'a ReplicationId> {
    let Contest { entry, watches, emptied, .. } = *contest;
    let counted = |watch: &Watch| watch.keys_since(Time::ZERO).max(watch.keys_before());
    let most = watches.values().filter_map(counted).max()?;
    let of_copy = |watch: &'a Watch| {
        let facts = watch.facts().filter(|facts| !facts.is_master())?;
        let Role::Replica { link, .. } = &facts.role else { return None };
        let has_link = matches!(link, Link::Up { .. } | Link::Down { since_secs: Some(_) });
        let follows = entry.instance_of(facts.follows()?) == Some(&entry.master);
        let id = facts.replication_id.as_ref().filter(|id| !entry.lineage.contains(id))?;
        let went_on = facts.second_replication_id.as_ref();
        let is_other = !went_on.is_some_and(|id| entry.lineage.contains(id));
        let is_whole = !is_less(watch.keys_now()?, most, EMPTY_SHARE);
        let fits = follows && has_link && is_other && is_whole;
        let is_its = was_fed(watch, facts) && !is_anothers(entry, watches, id);
        (fits && is_its).then_some((facts.asked_at, id))
    };
    let copies = watches.values().filter_map(of_copy).filter(|_| !emptied);
    copies.max_by_key(|(asked_at, _)| *asked_at).map(|(_, id)| id)
}

/// Whether another instance than the recorded master called a history its own. Whoever follows the recorded master and has
/// it got it through that one, which is a replica by now and does not say so.
pub(super) fn is_anothers(entry: &GroupEntry, watches: &Watches, id: &ReplicationId) -> bool {
    watches.iter().filter(|(addr, _)| **addr != entry.master).any(|(_, watch)| {
        let facts = watch.facts().filter(|facts| facts.is_master());
        facts.is_some_and(|facts| facts.replication_id.as_ref() == Some(id))
    })
}

/// Whether a replica got what it has from the master that it follows. One that was pointed at it a moment ago reports for how
/// long it has no link too, and means the one that it had to another master.
fn was_fed(watch: &Watch, facts: &Facts) -> bool {
    let copied =
        watch.copied().is_some_and(|copied| Some(&copied.id) == facts.replication_id.as_ref());
    copied
        || match &facts.role {
            Role::Replica { link: Link::Up { .. }, .. } => true,
            Role::Replica { link: Link::Down { since_secs: Some(secs) }, .. } => {
                // It counts whole seconds.
                let secs = Duration::from_secs(secs.saturating_add(1));
                facts.asked_at - secs >= watch.follows_since()
            }
            Role::Replica { link: Link::Down { since_secs: None } | Link::Syncing, .. }
            | Role::Master { .. } => false,
        }
}

/// Whether the recorded master was another process when it was read last, and it is not known yet what that one had.
pub(super) fn is_unsettled(contest: &Contest<'_>) -> bool {
    let facts = contest.watches.get(&contest.entry.master).and_then(Watch::facts);
    let run_id = facts.and_then(|facts| facts.run_id.as_ref());
    let recorded = contest.entry.master_run_id.as_ref();
    recorded.is_some() && run_id.is_some() && run_id != recorded
}

/// How many masters ago its history was the group's: 0 is the newest.
pub(super) fn history_age(lineage: &[&ReplicationId], facts: &Facts) -> usize {
    let age = |id| lineage.iter().position(|known| *known == id);
    match &facts.replication_id {
        None => 0,
        Some(own) => age(own)
            .or_else(|| facts.second_replication_id.as_ref().and_then(age))
            .unwrap_or(lineage.len()),
    }
}

/// How far an instance is in the group's history. One that was promoted behind everybody's back took writes of its own since:
/// they do not count for what the group's master acknowledged.
pub(super) fn extent_in(lineage: &[&ReplicationId], facts: &Facts) -> u64 {
    let ours = |id: &ReplicationId| lineage.contains(&id);
    let left = facts.replication_id.as_ref().is_some_and(|own| !ours(own))
        && facts.second_replication_id.as_ref().is_some_and(ours);
    facts.second_offset.filter(|_| left).map_or(facts.offset, |at| at.min(facts.offset))
}
