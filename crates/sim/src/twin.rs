//! A core whose journal is written and gone through again while it runs: the twin has only what a file would have.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::ops::Deref;

use failover_core::action::Action;
use failover_core::event::{Event, Testimony};
use failover_core::fleet::{Fleet, Policies};
use failover_core::journal::{Line, Replay, VERSION};
use failover_core::node::{GroupName, NodeId};
use failover_core::time::Time;

/// A core, and its twin in the runs that have one.
#[derive(Debug)]
pub(crate) struct Twinned {
    fleet: Fleet,
    twin: Option<Replay>,
    departed: Option<String>,
}

impl Twinned {
    pub(crate) fn new(me: NodeId, policies: Policies, has_twin: bool) -> Self {
        let mut this =
            Self { fleet: Fleet::new(me.clone(), policies.clone()), twin: None, departed: None };
        if has_twin {
            this.twin = Some(Replay::new());
            let (me, policies) = (Cow::Owned(me), Cow::Owned(policies));
            this.note(|| Line::Began { version: VERSION, me, policies });
        }
        this
    }

    /// How the twin departed, once it did.
    pub(crate) fn departed(&self) -> Option<&str> {
        self.departed.as_deref()
    }

    pub(crate) fn handle(&mut self, now: Time, event: Event) {
        self.note(|| Line::Happened { at: now, event: Cow::Borrowed(&event) });
        self.fleet.handle(now, event);
    }

    pub(crate) fn handle_timeout(&mut self, now: Time) {
        self.note(|| Line::Passed { at: now });
        self.fleet.handle_timeout(now);
    }

    pub(crate) fn testify(&mut self, now: Time, group: &GroupName) -> Option<Testimony> {
        self.note(|| Line::Testified { at: now, group: Cow::Borrowed(group) });
        self.fleet.testify(now, group)
    }

    pub(crate) fn poll(&mut self) -> Option<Action> {
        let action = self.fleet.poll()?;
        self.note(|| Line::Did(Cow::Borrowed(&action)));
        Some(action)
    }

    pub(crate) fn take_changed(&mut self) -> BTreeSet<GroupName> {
        self.fleet.take_changed()
    }

    fn note<'a>(&mut self, line: impl FnOnce() -> Line<'a>) {
        let Some(twin) = &mut self.twin else { return };
        let through = serde_json::to_vec(&line())
            .and_then(|text| Ok(twin.take(serde_json::from_slice(&text)?)))
            .map_err(|why| why.to_string())
            .and_then(|taken| taken.map_err(|departure| departure.to_string()));
        if let Err(why) = through {
            self.departed.get_or_insert(why);
        }
    }
}

impl Deref for Twinned {
    type Target = Fleet;

    fn deref(&self) -> &Fleet {
        &self.fleet
    }
}

#[cfg(test)]
mod tests {
    use failover_core::node::{Leadership, Token};

    use super::*;

    fn lead(at_both: bool) -> Twinned {
        let me = NodeId::new("a");
        let mut node = Twinned::new(me, Policies::default(), true);
        let now = Time::from_millis(1000);
        let leads = Event::Leadership(Leadership::Leader(Token(1)));
        match at_both {
            true => node.handle(now, leads),
            false => node.fleet.handle(now, leads),
        }
        let spec = failover_core::event::GroupSpec {
            name: None,
            master: failover_core::addr::Addr::new("10.0.0.1", 6379).expect("an address"),
            replicas: Vec::new(),
        };
        let request = failover_core::event::Request::Add(vec![spec]);
        node.handle(now, Event::Request { id: 1, request });
        while node.poll().is_some() {}
        node
    }

    #[test]
    fn a_twin_that_was_not_told_everything_departs() {
        assert_eq!(lead(true).departed(), None);
        let departed = lead(false);
        let why = departed.departed().expect("it refuses what the other one proposes");
        assert!(why.contains("something else"), "{why}");
    }
}
