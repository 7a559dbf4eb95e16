//! When the instances of a group are asked.

use super::Group;
use crate::action::Action;
use crate::time::Time;
use crate::watch::Watch;

impl Group {
    /// The group's turn has come: from now on its instances are asked.
    pub(crate) fn begin_to_look(&mut self) {
        self.looks = true;
    }

    /// Whether each instance answered at least once, or is known not to answer.
    pub(crate) fn looked_at(&self) -> bool {
        let known = |watch: &Watch| watch.last_reply().or(watch.trouble_since()).is_some();
        self.watches.values().all(known)
    }

    /// When an instance is to be asked next, or its silence is to be judged.
    pub(super) fn look_timeout(&self) -> Option<Time> {
        let watches = self.watches.values().filter(|_| self.looks);
        watches.map(|watch| watch.timeout(&self.policy)).min()
    }

    pub(super) fn send_due_probes(&mut self, now: Time) {
        if !self.looks {
            return;
        }
        for (addr, watch) in &mut self.watches {
            if let Some((seq, fresh)) = watch.due(now, &self.policy) {
                self.actions.push_back(Action::Probe {
                    group: self.name.clone(),
                    addr: addr.clone(),
                    seq,
                    fresh,
                });
            }
        }
    }

    /// Whether every replica's link is up. Where one is not, what is concluded changes with time alone.
    pub(super) fn links_up(&self) -> bool {
        self.watches
            .values()
            .filter_map(Watch::facts)
            .all(|facts| facts.is_master() || facts.link_up())
    }
}
