//! What hooks are told: handed out on the leader, and taken out of the record when they know.

use super::{Context, Group, Work};
use crate::action::Action;
use crate::addr::Addr;
use crate::record::GroupEntry;
use crate::record::outbox::Told;
use crate::view::State;

impl Group {
    /// A hook was told, or was given up on; with no name, all that want to be.
    pub fn told(&mut self, ctx: &Context<'_>, number: u64, hook: Option<String>) {
        let untold = &self.entry.untold;
        if ctx.leadership.token().is_some() && untold.iter().any(|news| news.number == number) {
            self.told.note(number, hook);
            self.step(ctx);
        }
    }

    /// Puts what was told into an entry that is about to be proposed.
    pub fn put_told_into(&self, entry: &mut GroupEntry) {
        self.told.put_into(entry);
    }

    /// Hands out what is in the record and was not handed out under this leadership.
    pub(super) fn tell_hooks(&mut self, ctx: &Context<'_>) {
        self.told.committed(&self.entry);
        let Some(token) = ctx.leadership.token() else { return };
        for occurrence in &self.entry.untold {
            if self.told.hand_out(occurrence.number) {
                self.actions.push_back(Action::Tell {
                    group: self.name.clone(),
                    token,
                    occurrence: Box::new(occurrence.clone()),
                });
            }
        }
    }

    /// Under another leadership everything that is in the record is handed out anew.
    pub(super) fn forget_told(&mut self) {
        self.told = Told::default();
    }

    /// Has the record say what was told, when there is nothing else to do: any other decision carries it along.
    pub(super) fn note_told(&mut self, ctx: &Context<'_>) {
        let Some(token) = ctx.leadership.token() else { return };
        // A failover that waits for its time is not held up by it.
        let waits = matches!(self.work, Work::Hearing { .. }) && self.hold.is_some();
        let idle = (matches!(self.work, Work::Idle) || waits)
            && self.entry.saga.is_none()
            && self.again.is_none()
            && self.wanted.is_none();
        if idle && !self.told.is_empty() {
            let what = format!("hooks were told of {}", self.name);
            self.propose(token, what, self.entry.clone(), None);
        }
    }

    /// The recorded master and what is concluded of it, when it is down for this node.
    pub fn master_down(&self) -> Option<(&Addr, &str)> {
        let master = &self.entry.master;
        let down = self.watches.get(master).is_some_and(|watch| watch.state() == State::Down);
        (down && self.entry.confirmed).then_some((master, &self.reason))
    }
}
