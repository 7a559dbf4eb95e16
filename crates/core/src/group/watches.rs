//! The watches of a group's instances, by address.
//!
//! A sorted list, used like a map: most groups have two or three instances, and there are thousands of groups. A node of a
//! tree has room for eleven watches of half a kilobyte each, however few there are.

use std::slice;

use crate::addr::Addr;
use crate::watch::Watch;

type Item = (Addr, Watch);

/// So many are looked through one after the other.
const FIRST: usize = 4;

/// What this node sees of each instance, in the order of the addresses.
#[derive(Clone, Debug, Default)]
pub(crate) struct Watches(Vec<Item>);

impl Watches {
    fn place(&self, addr: &Addr) -> Result<usize, usize> {
        // Who asks mostly has a clone of what is listed, which takes no look at the text.
        let clone = self.0.iter().take(FIRST).position(|(known, _)| known.is_clone_of(addr));
        clone.map_or_else(|| self.0.binary_search_by(|(known, _)| known.cmp(addr)), Ok)
    }

    pub(crate) fn get(&self, addr: &Addr) -> Option<&Watch> {
        self.place(addr).ok().map(|at| &self.0[at].1)
    }

    pub(crate) fn get_mut(&mut self, addr: &Addr) -> Option<&mut Watch> {
        self.place(addr).ok().map(|at| &mut self.0[at].1)
    }

    pub(crate) fn contains_key(&self, addr: &Addr) -> bool {
        self.place(addr).is_ok()
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// One that was there is replaced.
    pub(crate) fn insert(&mut self, addr: Addr, watch: Watch) {
        match self.place(&addr) {
            Ok(at) => self.0[at].1 = watch,
            Err(at) => {
                // Room for one more and no other: lists that grow by doubling are half empty.
                self.0.reserve_exact(1);
                self.0.insert(at, (addr, watch));
            }
        }
    }

    pub(crate) fn retain(&mut self, mut keeps: impl FnMut(&Addr) -> bool) {
        self.0.retain(|(addr, _)| keeps(addr));
    }

    pub(crate) fn iter(&self) -> Iter<'_> {
        self.0.iter().map(|(addr, watch)| (addr, watch))
    }

    pub(crate) fn iter_mut(&mut self) -> IterMut<'_> {
        self.0.iter_mut().map(|(addr, watch)| (&*addr, watch))
    }

    pub(crate) fn keys(&self) -> impl Iterator<Item = &Addr> {
        self.iter().map(|(addr, _)| addr)
    }

    pub(crate) fn values(&self) -> impl Iterator<Item = &Watch> {
        self.iter().map(|(_, watch)| watch)
    }

    pub(crate) fn values_mut(&mut self) -> impl Iterator<Item = &mut Watch> {
        self.iter_mut().map(|(_, watch)| watch)
    }
}

type Iter<'a> = std::iter::Map<slice::Iter<'a, Item>, fn(&'a Item) -> (&'a Addr, &'a Watch)>;
type IterMut<'a> =
    std::iter::Map<slice::IterMut<'a, Item>, fn(&'a mut Item) -> (&'a Addr, &'a mut Watch)>;

impl<'a> IntoIterator for &'a Watches {
    type Item = (&'a Addr, &'a Watch);
    type IntoIter = Iter<'a>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl<'a> IntoIterator for &'a mut Watches {
    type Item = (&'a Addr, &'a mut Watch);
    type IntoIter = IterMut<'a>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter_mut()
    }
}

impl FromIterator<Item> for Watches {
    fn from_iter<I: IntoIterator<Item = Item>>(items: I) -> Self {
        let mut watches = Self::default();
        for (addr, watch) in items {
            watches.insert(addr, watch);
        }
        watches
    }
}

impl<const N: usize> From<[Item; N]> for Watches {
    fn from(items: [Item; N]) -> Self {
        items.into_iter().collect()
    }
}
