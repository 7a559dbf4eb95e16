//! What two readings of one instance tell together.

use std::time::Duration;

use super::Watch;
use crate::addr::Addr;
use crate::instance::{Facts, Link, ReplicationId, Role};
use crate::time::Time;

/// A full copy that an instance took from the master that it went on following.
#[derive(Clone, Debug)]
pub(crate) struct Copied {
    /// From whom, by the name that it has for it.
    pub(crate) of: Addr,
    /// The history that it got with it, which is the one that its master was on.
    pub(crate) id: ReplicationId,
    /// Whether it was seen taking it.
    pub(crate) was_seen: bool,
    /// When it was asked that showed it first.
    pub(crate) at: Time,
}

impl Watch {
    /// Whether it came back from wherever it was in the role that it has now.
    pub fn came_back_so(&self) -> bool {
        let seen_at = self.absence.comeback().map(|comeback| comeback.seen_at);
        self.role_since == self.answers_since || seen_at == Some(self.role_since)
    }

    /// Whether it has less than the same address had, and no run id to tell why.
    pub fn lost_writes(&self) -> bool {
        self.lost_writes.is_some()
    }

    /// Notes that it has less than it had. What it takes as one since does not make up for that, and what it gets
    /// as a replica does; whoever made it a master since knew what it had. Returns whether it lost something since it was read before.
    pub(super) fn see_loss(&mut self, facts: &Facts) -> bool {
        let Some(before) = &self.facts else { return false };
        let lost = facts.lacks_writes_of(before);
        let had = Some(before.offset).filter(|_| lost).max(self.lost_writes);
        let same_role = before.is_master() == facts.is_master();
        let lacks = |had: &u64| facts.is_master() || facts.offset < *had;
        self.lost_writes = had.filter(|had| lost || same_role && lacks(had));
        lost
    }

    /// The copy that it has by now, where it was read before it had it too. Its master may have begun that history for it, and
    /// have died before it was read again.
    pub(crate) fn copied(&self) -> Option<&Copied> {
        self.copied.as_ref()
    }

    /// Notes the end of a copy: another history, of the master that it followed before. A short copy is over between two readings.
    pub(super) fn see_copied(&mut self, facts: &Facts) {
        let Some(before) = &self.facts else { return };
        let Role::Replica { master: of, link } = &facts.role else {
            self.copied = None;
            return;
        };
        let has = facts.replication_id.as_ref();
        self.copied.take_if(|copied| copied.of != *of || Some(&copied.id) != has);
        let Role::Replica { master, link: link_before } = &before.role else { return };
        let took = master == of && before.run_id == facts.run_id;
        let ended = *link != Link::Syncing && facts.is_other_data(before);
        if let Some(id) = has.filter(|_| took && ended) {
            let was_seen = *link_before == Link::Syncing;
            let (of, id, at) = (of.clone(), id.clone(), facts.asked_at);
            self.copied = Some(Copied { of, id, was_seen, at });
        }
    }

    /// News of a master: the offset grew between two readings, or it was heard in whole seconds before the second.
    pub(super) fn hear_master(&mut self, facts: &Facts) {
        if !facts.link_up() {
            return;
        }
        let said = facts.link_last_io_secs();
        let said = said.map(|secs| facts.asked_at - Duration::from_secs(secs.saturating_add(1)));
        let grown = self.facts.as_ref().filter(|before| before.link_up());
        let grown = grown.filter(|before| facts.offset > before.offset);
        let grown = grown.map(|before| before.asked_at);
        self.heard_master = self.heard_master.max(said).max(grown);
    }
}
