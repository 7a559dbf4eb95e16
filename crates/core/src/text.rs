//! Short texts that are copied and compared all the time.

use std::cmp::Ordering;
use std::hash::{Hash, Hasher};
use std::ops::Deref;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// A text whose clones share it. Names and addresses are compared more often than anything else is done, and most that
/// are equal are clones of each other, which takes no look at the letters.
#[derive(Clone, Debug, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Text(Arc<str>);

impl Text {
    /// Whether it is known to be the same without a look at the letters.
    pub(crate) fn is_clone_of(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl From<&str> for Text {
    fn from(text: &str) -> Self {
        Self(text.into())
    }
}

impl Deref for Text {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl PartialEq for Text {
    fn eq(&self, other: &Self) -> bool {
        self.is_clone_of(other) || *self.0 == *other.0
    }
}

impl Ord for Text {
    fn cmp(&self, other: &Self) -> Ordering {
        match self.is_clone_of(other) {
            true => Ordering::Equal,
            false => self.0.cmp(&other.0),
        }
    }
}

impl PartialOrd for Text {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Hash for Text {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.hash(state);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clones_and_other_copies_compare_alike() {
        let one = Text::from("one");
        let (clone, copy) = (one.clone(), Text::from("one"));
        assert!(one.is_clone_of(&clone) && !one.is_clone_of(&copy));
        assert!(one == clone && one == copy && one.cmp(&copy) == Ordering::Equal);
        let two = Text::from("two");
        assert!(one != two && one < two && two > copy);
    }
}
