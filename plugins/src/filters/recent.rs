//! State by key, for so many keys and no more: the one unused for longest makes room.

use std::collections::HashMap;
use std::mem;

/// Values by key, in a ring from the one used last to the one unused for longest, which are neighbours.
#[derive(Debug)]
pub(super) struct Recent<V> {
    most: usize,
    index: HashMap<u128, usize>,
    slots: Vec<Slot<V>>,
    newest: usize,
}

#[derive(Debug)]
struct Slot<V> {
    key: u128,
    value: V,
    newer: usize,
    older: usize,
}

// === impl Recent ===

impl<V: Default> Recent<V> {
    /// Room for `most` keys, one at least.
    pub(super) fn new(most: usize) -> Self {
        Self {
            most: most.max(1),
            index: HashMap::new(),
            slots: Vec::new(),
            newest: 0,
        }
    }

    /// Uses a key. Says where its value is until the next call, and what had to make room.
    pub(super) fn touch(&mut self, key: u128) -> (usize, Option<(u128, V)>) {
        if let Some(&at) = self.index.get(&key) {
            self.renew(at);
            return (at, None);
        }
        if self.slots.len() < self.most {
            let at = self.slots.len();
            self.slots.push(Slot {
                key,
                value: V::default(),
                newer: at,
                older: at,
            });
            self.index.insert(key, at);
            if at > 0 {
                self.link(at);
            }
            self.newest = at;
            return (at, None);
        }
        // The ring turns by one: what was the oldest is the newest.
        let at = self.oldest();
        self.newest = at;
        let slot = &mut self.slots[at];
        let gone = mem::replace(&mut slot.key, key);
        let value = mem::take(&mut slot.value);
        self.index.remove(&gone);
        self.index.insert(key, at);
        (at, Some((gone, value)))
    }

    pub(super) fn most(&self) -> usize {
        self.most
    }

    /// Makes room for more keys.
    pub(super) fn widen(&mut self, most: usize) {
        self.most = self.most.max(most);
    }

    /// Every key and its value, in no order.
    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = (u128, &mut V)> {
        let slots = self.slots.iter_mut();
        slots.map(|slot| (slot.key, &mut slot.value))
    }

    /// The value at a place that [`touch`](Self::touch) gave.
    pub(super) fn at(&mut self, at: usize) -> &mut V {
        &mut self.slots[at].value
    }

    /// The value of a key, without using it.
    pub(super) fn get_mut(&mut self, key: u128) -> Option<&mut V> {
        let at = *self.index.get(&key)?;
        Some(&mut self.slots[at].value)
    }

    fn oldest(&self) -> usize {
        self.slots[self.newest].newer
    }

    fn renew(&mut self, at: usize) {
        if at == self.newest {
            return;
        }
        if at != self.oldest() {
            let Slot { newer, older, .. } = self.slots[at];
            self.slots[older].newer = newer;
            self.slots[newer].older = older;
            self.link(at);
        }
        self.newest = at;
    }

    /// Puts a slot between the newest and the oldest.
    fn link(&mut self, at: usize) {
        let (newest, oldest) = (self.newest, self.oldest());
        self.slots[newest].newer = at;
        self.slots[oldest].older = at;
        self.slots[at].older = newest;
        self.slots[at].newer = oldest;
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_one_unused_for_longest_goes(most in 1_usize..6, keys in vec(0_u128..9, 0..200)) {
            let mut recent = Recent::<u128>::new(most);
            // The model: keys from the oldest to the newest.
            let mut model: Vec<u128> = Vec::new();
            for key in keys {
                let known = model.iter().position(|other| *other == key);
                let expected = match known {
                    Some(at) => {
                        model.remove(at);
                        None
                    }
                    None if model.len() == most => Some(model.remove(0)),
                    None => None,
                };
                model.push(key);
                let (at, gone) = recent.touch(key);
                prop_assert_eq!(gone, expected.map(|gone| (gone, gone + 1)));
                let fresh = if known.is_some() { key + 1 } else { 0 };
                prop_assert_eq!(*recent.at(at), fresh);
                *recent.at(at) = key + 1;
                for key in 0..9 {
                    let there = model.contains(&key).then_some(key + 1);
                    prop_assert_eq!(recent.get_mut(key).copied(), there);
                }
            }
        }
    }
}
