//! What a node was told and what it did, as lines: an incident of a real node is gone through again in a test.
//!
//! The core has no clock and no randomness, so that a journal which begins where the node began says everything: handed
//! to [`Replay`], it leads to the same actions, unless the core is another one by now. No password is ever in it, since
//! the core is told none.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::fmt;
use std::ops::Deref;

use serde::{Deserialize, Serialize};

use crate::action::Action;
use crate::event::{Event, Testimony};
use crate::fleet::{Fleet, Policies};
use crate::node::{GroupName, NodeId};
use crate::time::Time;

/// The version of the lines that this release writes.
pub const VERSION: u32 = 1;

/// One line of a journal, in the order in which things happened to the fleet.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(clippy::large_enum_variant, reason = "there is one line at a time")]
pub enum Line<'a> {
    /// A run of a node began. What follows is its own, until there is another one.
    Began {
        /// How the lines are written.
        version: u32,
        /// Which node.
        me: Cow<'a, NodeId>,
        /// Under which rules.
        policies: Cow<'a, Policies>,
    },
    /// An event was handed in.
    Happened {
        /// When.
        at: Time,
        /// What.
        event: Cow<'a, Event>,
    },
    /// Time was let pass.
    Passed {
        /// Until when.
        at: Time,
    },
    /// Another node asked what this one sees of a group.
    Testified {
        /// When.
        at: Time,
        /// Of which group.
        group: Cow<'a, GroupName>,
    },
    /// An action was taken from the queue.
    Did(Cow<'a, Action>),
}

/// Whoever takes the lines of a journal, in their order.
pub trait Scribe {
    /// Takes the next line.
    fn write(&mut self, line: &Line<'_>);
}

/// A fleet of which everything that it is told and does is written down, when there is somebody who does. What only looks
/// at it needs no line.
#[derive(Debug)]
pub struct Recorded<S> {
    fleet: Fleet,
    scribe: Option<S>,
}

impl<S: Scribe> Recorded<S> {
    /// A new fleet, and the first line of its journal.
    pub fn new(me: NodeId, policies: Policies, mut scribe: Option<S>) -> Self {
        if let Some(scribe) = &mut scribe {
            let (me, policies) = (Cow::Borrowed(&me), Cow::Borrowed(&policies));
            scribe.write(&Line::Began { version: VERSION, me, policies });
        }
        Self { fleet: Fleet::new(me, policies), scribe }
    }

    /// Whoever writes.
    pub fn scribe(&self) -> Option<&S> {
        self.scribe.as_ref()
    }

    /// See [`Fleet::handle`].
    pub fn handle(&mut self, now: Time, event: Event) {
        self.note(|| Line::Happened { at: now, event: Cow::Borrowed(&event) });
        self.fleet.handle(now, event);
    }

    /// See [`Fleet::handle_timeout`].
    pub fn handle_timeout(&mut self, now: Time) {
        self.note(|| Line::Passed { at: now });
        self.fleet.handle_timeout(now);
    }

    /// See [`Fleet::testify`].
    pub fn testify(&mut self, now: Time, group: &GroupName) -> Option<Testimony> {
        self.note(|| Line::Testified { at: now, group: Cow::Borrowed(group) });
        self.fleet.testify(now, group)
    }

    /// See [`Fleet::poll`].
    #[must_use = "the action was taken from the queue"]
    pub fn poll(&mut self) -> Option<Action> {
        let action = self.fleet.poll()?;
        self.note(|| Line::Did(Cow::Borrowed(&action)));
        Some(action)
    }

    /// See [`Fleet::take_changed`].
    pub fn take_changed(&mut self) -> BTreeSet<GroupName> {
        self.fleet.take_changed()
    }

    fn note<'a>(&mut self, line: impl FnOnce() -> Line<'a>) {
        if let Some(scribe) = &mut self.scribe {
            scribe.write(&line());
        }
    }
}

impl<S> Deref for Recorded<S> {
    type Target = Fleet;

    fn deref(&self) -> &Fleet {
        &self.fleet
    }
}

/// What the core does now where it did something else when the journal was written.
#[derive(Clone, Debug, PartialEq)]
pub enum Departure {
    /// The lines were written by a release whose journals this one does not read.
    Version(u32),
    /// The first line is not the beginning of a run.
    NotBegun,
    /// It does not do what it did, but this, or nothing.
    Otherwise(Option<Box<Action>>),
    /// It does this besides, before the line.
    Besides(Box<Action>),
}

impl fmt::Display for Departure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Version(version) => write!(
                f,
                "the journal has version {version}, and this release reads version {VERSION}: replay it with the release \
                 that wrote it"
            ),
            Self::NotBegun => f.write_str("a journal is replayed from the beginning of a run"),
            Self::Otherwise(None) => f.write_str("the core does nothing now instead of it"),
            Self::Otherwise(Some(action)) => {
                write!(f, "the core does something else now instead of it: {action:?}")
            }
            Self::Besides(action) => {
                write!(f, "the core does more now before it: {action:?}")
            }
        }
    }
}

/// Goes through a journal again with the core as it is now.
#[derive(Debug, Default)]
pub struct Replay {
    fleet: Option<Fleet>,
}

impl Replay {
    /// Before the first line.
    pub fn new() -> Self {
        Self::default()
    }

    /// The node as it is after the lines so far; `None` before the first.
    pub fn fleet(&self) -> Option<&Fleet> {
        self.fleet.as_ref()
    }

    /// Takes the next line.
    ///
    /// # Errors
    /// The first departure from what was done; there is no use in going on after it.
    pub fn take(&mut self, line: Line<'_>) -> Result<(), Departure> {
        if let Line::Began { version, me, policies } = line {
            if version != VERSION {
                return Err(Departure::Version(version));
            }
            // What the run before left undone, it did not do: it may have been killed.
            self.fleet = Some(Fleet::new(me.into_owned(), policies.into_owned()));
            return Ok(());
        }
        let fleet = self.fleet.as_mut().ok_or(Departure::NotBegun)?;
        if let Line::Did(was) = &line {
            let now = fleet.poll();
            return match now {
                Some(now) if now == **was => Ok(()),
                other => Err(Departure::Otherwise(other.map(Box::new))),
            };
        }
        if let Some(besides) = fleet.poll() {
            return Err(Departure::Besides(Box::new(besides)));
        }
        match line {
            Line::Happened { at, event } => fleet.handle(at, event.into_owned()),
            Line::Passed { at } => fleet.handle_timeout(at),
            Line::Testified { at, group } => drop(fleet.testify(at, &group)),
            Line::Began { .. } | Line::Did(_) => {}
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{GroupSpec, Request};
    use crate::node::{Leadership, Token};
    use crate::sample::{addr, at};

    /// The lines as they are on a disk.
    #[derive(Default)]
    struct Disk(Vec<String>);

    impl Scribe for Disk {
        fn write(&mut self, line: &Line<'_>) {
            self.0.push(serde_json::to_string(line).expect("a line can be written"));
        }
    }

    /// A node that takes a group on.
    fn recorded() -> Vec<Line<'static>> {
        let me = NodeId::new("a");
        let mut fleet = Recorded::new(me.clone(), Policies::default(), Some(Disk::default()));
        let spec = GroupSpec { name: None, master: addr(1), replicas: Vec::new() };
        let mut events = vec![
            Event::Request { id: 1, request: Request::Add(vec![spec]) },
            Event::Leadership(Leadership::Leader(Token(1))),
            Event::Voters(vec![me]),
        ];
        let mut now = at(1000);
        while let Some(event) = events.pop() {
            fleet.handle(now, event);
            while let Some(action) = fleet.poll() {
                if let Action::Propose { id, changes, .. } = action {
                    events.push(Event::Committed { id: Some(id), changes });
                }
            }
            now = now + std::time::Duration::from_micros(10);
        }
        let name = GroupName::new("127.0.0.1:1").expect("a name");
        assert!(fleet.testify(now, &name).is_some());
        while fleet.poll().is_some() {}
        now = fleet.poll_timeout().expect("there is a next probe");
        fleet.handle_timeout(now);
        while fleet.poll().is_some() {}
        let Disk(lines) = fleet.scribe.expect("it writes");
        let read = |text: &String| serde_json::from_str(text).expect("a line can be read");
        lines.iter().map(read).collect()
    }

    /// Where a replay departs, and how.
    fn replay(lines: &[Line<'_>]) -> Result<Replay, (usize, Departure)> {
        let mut replay = Replay::new();
        for (number, line) in lines.iter().enumerate() {
            // As text and back, as it is on a disk.
            let text = serde_json::to_string(line).expect("a line can be written");
            let line = serde_json::from_str(&text).expect("and read");
            replay.take(line).map_err(|departure| (number, departure))?;
        }
        Ok(replay)
    }

    #[test]
    fn what_was_recorded_happens_again() {
        let lines = recorded();
        let did = |line: &&Line<'_>| matches!(line, Line::Did(_));
        assert!(lines.iter().filter(did).count() >= 3, "{lines:#?}");
        let replay = replay(&lines).expect("the core is the same");
        let fleet = replay.fleet().expect("it began");
        assert_eq!((fleet.me(), fleet.record().len()), (&NodeId::new("a"), 1));
    }

    #[test]
    fn a_departure_is_named_where_it_is() {
        let lines = recorded();
        let first =
            lines.iter().position(|line| matches!(line, Line::Did(_))).expect("it did things");
        let mut less = lines.clone();
        let Line::Did(left_out) = less.remove(first) else { panic!("it is an action") };
        let departed = replay(&less).expect_err("an action is missing");
        let is_named = match &departed.1 {
            Departure::Otherwise(Some(action)) | Departure::Besides(action) => {
                **action == *left_out
            }
            Departure::Otherwise(None) | Departure::NotBegun | Departure::Version(_) => false,
        };
        assert!(departed.0 == first && is_named, "{departed:?}");

        let mut more = lines.clone();
        more.push(Line::Did(left_out));
        let departed = replay(&more).expect_err("it does not do that");
        assert_eq!(departed, (lines.len(), Departure::Otherwise(None)));

        assert_eq!(replay(&lines[1..]).expect_err("no beginning").1, Departure::NotBegun);
    }

    #[test]
    fn another_version_is_refused_in_words() {
        let began = Line::Began {
            version: VERSION + 1,
            me: Cow::Owned(NodeId::new("a")),
            policies: Cow::Owned(Policies::default()),
        };
        let departed = replay(&[began]).expect_err("it is newer").1;
        assert!(departed.to_string().contains("replay it with the release"), "{departed}");
    }
}
