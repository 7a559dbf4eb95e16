//! What is still to be told to hooks is part of the change that it tells of: whoever leads next finds it in the record.
//!
//! The node that proposes a change adds what it means; nobody works that out again when it is applied. What was told is
//! taken out by a later change, so that a leader that ends between the two has it told once more by the next one.

use std::collections::{BTreeMap, BTreeSet};

use crate::addr::Addr;
use crate::node::NodeId;
use crate::policy::{HOOK_REASON_CHARS_MAX, UNTOLD_PER_GROUP_MAX};
use crate::record::{
    Change, GroupEntry, HistoryEntry, HookEvent, Kind, Occurrence, Outcome, Phase, Status,
};
use crate::time::Time;

/// What the hooks of this leader are being told, by the numbers of the occurrences.
#[derive(Clone, Debug, Default)]
pub(crate) struct Told {
    /// The shell was asked to tell it.
    handed_out: BTreeSet<u64>,
    /// Hooks know it, and the record does not say so yet.
    by_number: BTreeMap<u64, ToldOf>,
}

#[derive(Clone, Debug)]
enum ToldOf {
    All,
    Some(BTreeSet<String>),
}

impl Told {
    /// Whether the shell was not asked to tell it yet; from now on it was.
    pub(crate) fn hand_out(&mut self, number: u64) -> bool {
        self.handed_out.insert(number)
    }

    /// One hook was told, or, with `None`, all that want to be.
    pub(crate) fn note(&mut self, number: u64, hook: Option<String>) {
        let of = self.by_number.entry(number).or_insert_with(|| ToldOf::Some(BTreeSet::new()));
        match (hook, of) {
            (None, of) => *of = ToldOf::All,
            (Some(hook), ToldOf::Some(hooks)) => drop(hooks.insert(hook)),
            (Some(_), ToldOf::All) => {}
        }
    }

    /// Puts it into an entry that is about to be proposed.
    pub(crate) fn put_into(&self, entry: &mut GroupEntry) {
        entry.untold.retain_mut(|occurrence| match self.by_number.get(&occurrence.number) {
            None => true,
            Some(ToldOf::All) => false,
            Some(ToldOf::Some(hooks)) => {
                occurrence.told.extend(hooks.iter().cloned());
                true
            }
        });
    }

    /// Forgets what the committed entry says by now.
    pub(crate) fn committed(&mut self, entry: &GroupEntry) {
        let first = entry.untold.first().map_or(u64::MAX, |occurrence| occurrence.number);
        self.handed_out = self.handed_out.split_off(&first);
        self.by_number.retain(|number, of| {
            let recorded = entry.untold.iter().find(|occurrence| occurrence.number == *number);
            match (recorded, of) {
                (None, _) => false,
                (Some(_), ToldOf::All) => true,
                (Some(recorded), ToldOf::Some(hooks)) => !hooks.is_subset(&recorded.told),
            }
        });
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.by_number.is_empty()
    }
}

/// Adds to a change what it means to hooks, as far as any wants to know.
pub(crate) fn note(
    change: &mut Change,
    before: Option<&GroupEntry>,
    wanted: &BTreeSet<HookEvent>,
    (now, me): (Time, &NodeId),
) {
    let Some(entry) = &mut change.entry else { return };
    // A group that is guarded from now on was changed by nobody.
    let Some(before) = before.filter(|_| !wanted.is_empty()) else { return };
    let mut news = happened(before, entry, change.history.as_ref());
    news.retain(|news| wanted.contains(&news.event));
    for News { event, history, old_master, new_master, addr, reason } in news {
        entry.untold_next += 1;
        let reason = reason.chars().take(HOOK_REASON_CHARS_MAX).collect();
        entry.untold.push(Occurrence {
            number: entry.untold_next,
            event,
            at: now,
            leader: me.clone(),
            epoch: entry.epoch,
            history_id: history,
            old_master,
            new_master,
            addr,
            reason,
            told: BTreeSet::new(),
        });
    }
    let excess = entry.untold.len().saturating_sub(UNTOLD_PER_GROUP_MAX);
    entry.untold.drain(..excess);
}

/// What a change means to somebody outside.
struct News {
    event: HookEvent,
    history: Option<String>,
    old_master: Option<Addr>,
    new_master: Option<Addr>,
    addr: Option<Addr>,
    reason: String,
}

impl News {
    fn of(event: HookEvent, history: &HistoryEntry) -> Self {
        Self {
            event,
            history: Some(history.id.clone()),
            old_master: Some(history.old_master.clone()),
            new_master: history.new_master.clone(),
            addr: None,
            reason: history.reason.clone(),
        }
    }
}

fn happened(before: &GroupEntry, entry: &GroupEntry, history: Option<&HistoryEntry>) -> Vec<News> {
    let mut news = Vec::new();
    if let Some(saga) = &entry.saga
        && before.saga.is_none()
        && matches!(saga.history.kind, Kind::Failover | Kind::ManualFailover)
    {
        let new_master = Some(saga.target.clone());
        news.push(News { new_master, ..News::of(HookEvent::FailoverStarted, &saga.history) });
    }
    news.extend(master_changed(before, entry, history));
    news.extend(history.and_then(|history| ended(entry, history)));
    news.extend(status_changed(before, entry));
    // Without an entry of history nothing was seen of a replica: it became something else.
    let Some(history) = history.filter(|history| history.kind == Kind::ReplicaEvent) else {
        return news;
    };
    for (addr, known) in &entry.instances {
        let Some(was) = before.instances.get(addr) else { continue };
        let event = match (was.trouble.is_some(), known.trouble.is_some()) {
            (false, true) => HookEvent::ReplicaDown,
            (true, false) => HookEvent::ReplicaUp,
            (true, true) | (false, false) => continue,
        };
        news.push(of_instance(event, history, addr, entry));
    }
    news
}

/// One that a registered address merely led to was never another before.
fn master_changed(
    before: &GroupEntry,
    entry: &GroupEntry,
    history: Option<&HistoryEntry>,
) -> Option<News> {
    if entry.master == before.master {
        return None;
    }
    if let Some(history) = history.filter(|history| history.kind == Kind::Adoption) {
        return Some(News::of(HookEvent::Switchover, history));
    }
    let saga = entry.saga.as_ref().filter(|saga| saga.phase == Phase::Promoted)?;
    let event = match saga.history.kind {
        Kind::Failover | Kind::ManualFailover => HookEvent::AfterFailover,
        Kind::Switchover => HookEvent::Switchover,
        Kind::Demotion | Kind::Repair | Kind::Adoption | Kind::ReplicaEvent => return None,
    };
    let old_master = Some(before.master.clone());
    Some(News { old_master, ..News::of(event, &saga.history) })
}

fn ended(entry: &GroupEntry, history: &HistoryEntry) -> Option<News> {
    match (history.kind, history.outcome) {
        (Kind::Failover | Kind::ManualFailover | Kind::Switchover, Outcome::Failed) => {
            Some(News::of(HookEvent::FailoverFailed, history))
        }
        (Kind::Failover | Kind::ManualFailover, Outcome::Vetoed) => {
            Some(News::of(HookEvent::FailoverVetoed, history))
        }
        // It is named as the old master.
        (Kind::Demotion, Outcome::Done) => {
            Some(of_instance(HookEvent::MasterReturned, history, &history.old_master, entry))
        }
        (
            Kind::Failover | Kind::ManualFailover,
            Outcome::Running | Outcome::Done | Outcome::Undone,
        )
        | (
            Kind::Switchover,
            Outcome::Running | Outcome::Done | Outcome::Undone | Outcome::Vetoed,
        )
        | (
            Kind::Demotion,
            Outcome::Running | Outcome::Failed | Outcome::Undone | Outcome::Vetoed,
        )
        | (Kind::Repair | Kind::Adoption | Kind::ReplicaEvent, _) => None,
    }
}

fn of_instance(event: HookEvent, history: &HistoryEntry, addr: &Addr, entry: &GroupEntry) -> News {
    let (old_master, new_master) = (None, Some(entry.master.clone()));
    News { old_master, new_master, addr: Some(addr.clone()), ..News::of(event, history) }
}

fn status_changed(before: &GroupEntry, entry: &GroupEntry) -> Option<News> {
    let of_group = |event, reason: String| News {
        event,
        history: None,
        old_master: None,
        new_master: Some(entry.master.clone()),
        addr: None,
        reason,
    };
    match (&before.status, &entry.status) {
        (
            Status::Active | Status::Paused { .. } | Status::Resuming,
            Status::Halted { reason, .. },
        ) => Some(of_group(HookEvent::Halted, reason.clone())),
        (
            Status::Active | Status::Halted { .. } | Status::Resuming,
            Status::Paused { reason, .. },
        ) => {
            let reason = match reason {
                Some(reason) => format!("the group was paused on request: {reason}"),
                None => "the group was paused on request".to_owned(),
            };
            Some(of_group(HookEvent::Paused, reason))
        }
        (Status::Halted { .. } | Status::Paused { .. } | Status::Resuming, Status::Active) => {
            Some(of_group(HookEvent::Resumed, "the group was resumed".to_owned()))
        }
        (Status::Active, Status::Active)
        | (Status::Halted { .. }, Status::Halted { .. })
        | (Status::Paused { .. }, Status::Paused { .. })
        | (_, Status::Resuming) => None,
    }
}
