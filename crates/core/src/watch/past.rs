//! What two readings of one instance tell together.

use std::time::Duration;

use super::Watch;
use crate::instance::Facts;

impl Watch {
    /// Whether it came back from wherever it was in the role that it has now.
    pub fn came_back_so(&self) -> bool {
        let seen_at = self.absence.comeback().map(|comeback| comeback.seen_at);
        self.standing_since == self.answers_since || seen_at == Some(self.standing_since)
    }

    /// Whether it is a master that has less than the same address had before, and no run id to tell why.
    pub fn lost_writes(&self) -> bool {
        self.lost_writes
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
