//! What an instance takes while it is a master beside the recorded one: for how long, and how many bytes. It is lost when
//! the instance follows, so the history says it.

use super::Group;
use crate::addr::Addr;
use crate::event::CommandResult;
use crate::flavor::Manners;
use crate::instance::{Facts, ReplicationId};
use crate::time::{Time, millis};
use crate::watch::Watch;

/// The time in which one instance is a second master, as far as it went.
#[derive(Clone, Debug)]
pub(super) struct Window {
    run_id: Option<Box<str>>,
    /// The history that it writes. One that is read on another has begun to take over what it is to follow.
    history: Option<ReplicationId>,
    seen_at: Time,
    /// The latest moment before at which it certainly served nobody, or was heard last.
    earliest: Option<Time>,
    /// Its offset from which what it takes is counted.
    offset: u64,
    manners: Manners,
    begin: Begin,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Begin {
    /// It started anew. Without a replica it counts nothing.
    Started,
    /// The same process was silent for this node, and perhaps not for others.
    Silent,
    /// It became a master under the eyes of this node, or was one already.
    Standing,
}

impl Window {
    fn open(watch: &Watch, facts: &Facts, master_since: Time) -> Self {
        let comeback = watch.comeback().filter(|_| watch.returned());
        let (begin, seen_at, earliest, offset) = match comeback {
            Some(comeback) if comeback.seen_at >= master_since => {
                let begin = match (comeback.offset, comeback.earliest) {
                    (Some(_), _) => Begin::Silent,
                    (None, Some(_)) => Begin::Started,
                    (None, None) => Begin::Standing,
                };
                (begin, comeback.seen_at, comeback.earliest, comeback.offset)
            }
            Some(_) | None => {
                (Begin::Standing, watch.standing_since().max(master_since), None, None)
            }
        };
        Self {
            run_id: facts.run_id.clone(),
            history: facts.replication_id.clone(),
            seen_at,
            earliest,
            offset: offset.unwrap_or(facts.offset).min(facts.offset),
            manners: facts.flavor.manners(),
            begin,
        }
    }

    /// When it was first seen to serve beside the recorded master.
    pub(super) fn seen_at(&self) -> Time {
        self.seen_at
    }

    /// What is known of its beginning.
    pub(super) fn beginning(&self) -> String {
        let before = |at: Time| millis(self.seen_at.since(at));
        match (self.begin, self.earliest) {
            (Begin::Started, Some(at)) => {
                format!("it started anew, and served nobody {:.1} ms before", before(at))
            }
            (Begin::Silent, Some(at)) => format!(
                "the same process was silent here for {:.0} ms, and may have served others meanwhile",
                before(at)
            ),
            (Begin::Started | Begin::Silent | Begin::Standing, _) => {
                "it may have served before".to_owned()
            }
        }
    }

    /// How many bytes it took until a moment at which it had this offset; `None` when it may have taken some that it did
    /// not count.
    fn bytes(&self, offset: u64) -> Option<u64> {
        let taken = offset.checked_sub(self.offset)?;
        match self.begin {
            // What it took before it was looked at is in the offset that it began with here.
            Begin::Started if taken == 0 => None,
            Begin::Standing if taken == 0 && !self.manners.counts_alone => None,
            Begin::Started | Begin::Standing | Begin::Silent => Some(taken),
        }
    }

    /// For how long it took writes, and how many, in one sentence.
    fn end(&self, now: Time, bytes: Option<u64>) -> String {
        let ms = |since: Time| millis(now.since(since));
        let seen = ms(self.seen_at);
        let span = match (self.begin, self.earliest) {
            (Begin::Started, Some(at)) => {
                format!("it took writes for {seen:.1} ms, and for {:.1} ms at most", ms(at))
            }
            (Begin::Silent, Some(at)) => format!(
                "it took writes for {seen:.1} ms, and where it was not silent for {:.0} ms",
                ms(at)
            ),
            (Begin::Started | Begin::Silent | Begin::Standing, _) => {
                format!("it took writes for {seen:.1} ms at least")
            }
        };
        match bytes {
            Some(0) => format!("{span}; nothing was written to it"),
            Some(bytes) => {
                format!("{span}; {bytes} {} were written to it, and are lost", self.manners.unit)
            }
            None if self.manners.counts_alone => {
                format!("{span}; how much was written to it and is lost is not known")
            }
            None => format!(
                "{span}; how much was written to it and is lost is not known, since a master without a replica does not count"
            ),
        }
    }
}

impl Group {
    /// Notes who is a master beside the recorded one, from the first moment on.
    pub(super) fn note_windows(&mut self) {
        for (addr, watch) in &self.watches {
            let Some(facts) = watch.facts().filter(|_| watch.serves()) else { continue };
            if *addr == self.entry.master {
                self.windows.remove(addr);
            } else if facts.takes_writes() {
                let known = self.windows.get(addr);
                if known.is_none_or(|window| window.run_id != facts.run_id) {
                    let window = Window::open(watch, facts, self.master_since);
                    self.windows.insert(addr.clone(), window);
                }
            } else if self.entry.saga.is_none() {
                self.windows.remove(addr);
            }
        }
        let watches = &self.watches;
        self.windows.retain(|addr, _| watches.contains_key(addr));
    }

    /// Ends the time in which an instance was a second master: how it went, and how many bytes were written to it.
    /// `after` is what it reported with its demotion, before it took anything over; else its offset is another's.
    pub(super) fn close_window(
        &mut self,
        now: Time,
        addr: &Addr,
        after: Option<&Facts>,
    ) -> Option<(String, Option<u64>)> {
        let window = self.windows.remove(addr)?;
        let same = |facts: &&Facts| {
            facts.run_id == window.run_id && facts.replication_id == window.history
        };
        let left_at = |facts: &Facts| match window.manners.finds_common {
            true => Some(facts.offset),
            // By now it has dropped everything.
            false => facts.second_offset,
        };
        let bytes = after.filter(same).and_then(left_at).and_then(|at| window.bytes(at));
        Some((window.end(now, bytes), bytes))
    }
}

/// Whether the command that made an instance follow cut its clients off, so that they look again.
pub(super) fn clients_cut(result: &CommandResult) -> bool {
    match result {
        CommandResult::Done { facts, warnings } => {
            facts.flavor.manners().cuts_clients
                && !warnings.iter().any(|warning| warning.starts_with("CLIENT KILL"))
        }
        CommandResult::Refused(_) | CommandResult::NotSent(_) | CommandResult::Unknown(_) => false,
    }
}
