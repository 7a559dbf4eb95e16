//! What will happen, in the order in which it will.
//!
//! What happens is large, and is not moved about while its turn is looked for: the heap has only its place.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use failover_core::time::Time;

/// A list of things to come, each at its time; what was planned first happens first.
#[derive(Debug)]
pub(super) struct Agenda<T> {
    turns: BinaryHeap<Reverse<(Time, bool, u64, usize)>>,
    things: Vec<Option<T>>,
    free: Vec<usize>,
    planned: u64,
}

impl<T> Agenda<T> {
    pub(super) fn new() -> Self {
        Self { turns: BinaryHeap::new(), things: Vec::new(), free: Vec::new(), planned: 0 }
    }

    pub(super) fn plan(&mut self, at: Time, thing: T) {
        self.put(at, true, thing);
    }

    /// Plans it before everything else that happens at the same moment, whenever that is planned.
    pub(super) fn plan_first(&mut self, at: Time, thing: T) {
        self.put(at, false, thing);
    }

    fn put(&mut self, at: Time, later: bool, thing: T) {
        let place = self.free.pop().unwrap_or_else(|| {
            self.things.push(None);
            self.things.len() - 1
        });
        self.things[place] = Some(thing);
        self.planned += 1;
        self.turns.push(Reverse((at, later, self.planned, place)));
    }

    /// When the next thing happens.
    pub(super) fn next_at(&self) -> Option<Time> {
        self.turns.peek().map(|Reverse((at, ..))| *at)
    }

    /// The next thing.
    pub(super) fn take(&mut self) -> Option<T> {
        let Reverse((.., place)) = self.turns.pop()?;
        self.free.push(place);
        self.things[place].take()
    }
}
