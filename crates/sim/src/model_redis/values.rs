//! Sets of written values, which are counted from 0: one bit each.

use super::{Server, Value};

/// Some of the values that were written.
#[derive(Clone, Debug, Default)]
pub(crate) struct Values(Vec<u64>);

impl Values {
    /// All that a server holds.
    pub(crate) fn of(server: &Server) -> Self {
        let mut values = Self::default();
        for kept in server.data() {
            values.insert(kept.value);
        }
        values
    }

    /// Whether it is one of them.
    pub(crate) fn contains(&self, value: Value) -> bool {
        let (word, bit) = place(value);
        self.0.get(word).is_some_and(|bits| bits & bit != 0)
    }

    /// Takes it in. Returns whether it was none of them before.
    pub(crate) fn insert(&mut self, value: Value) -> bool {
        let (word, bit) = place(value);
        if self.0.len() <= word {
            self.0.resize(word + 1, 0);
        }
        let before = self.0[word];
        self.0[word] |= bit;
        before & bit == 0
    }

    /// Leaves out all of the others.
    pub(crate) fn remove(&mut self, others: &Self) {
        for (bits, other) in self.0.iter_mut().zip(&others.0) {
            *bits &= !other;
        }
    }
}

fn place(value: Value) -> (usize, u64) {
    (usize::try_from(value / 64).unwrap_or(usize::MAX), 1 << (value % 64))
}
