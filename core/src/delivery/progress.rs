//! How far each destination of a disk buffer has come.
//!
//! One reader goes through the journal and hands events to their destinations. A destination that does not keep up is *parked*: the
//! reader passes over its events, and remembers where it left off. Once it takes events again it catches up from there with
//! a reader of its own. So one that is down holds nobody up, and costs a number.

use std::collections::{BTreeSet, HashMap};

use crate::plugin::Destination;

/// The cursor of everybody who is not parked.
const MAIN: &str = "main";
/// What the cursors of those who are parked begin with.
const PARKED: &str = "at/";

/// Whether a cursor is one of those here.
pub(super) fn is_place(name: &str) -> bool {
    name == MAIN || name.starts_with(PARKED)
}

/// How far each destination has come.
#[derive(Debug)]
pub(crate) struct Progress {
    /// Where the reader reads on.
    next: u64,
    /// Those with events that are not done with.
    places: HashMap<Destination, Place>,
    parked: usize,
}

#[derive(Debug, Default)]
struct Place {
    /// Events that were handed out and have not ended.
    under_way: BTreeSet<u64>,
    /// Where it reads on by itself.
    parked_at: Option<u64>,
}

// === impl Progress ===

impl Progress {
    /// As the cursors say, in a journal whose oldest record is at `oldest`.
    pub(crate) fn new(cursors: &[(String, u64)], oldest: u64) -> Self {
        let mut progress = Self {
            next: oldest,
            places: HashMap::new(),
            parked: 0,
        };
        for (name, offset) in cursors {
            if name == MAIN {
                progress.next = oldest.max(*offset);
            }
        }
        for (name, offset) in cursors {
            if let Some(destination) = name.strip_prefix(PARKED) {
                progress.park(&Destination::named(destination), oldest.max(*offset));
            }
        }
        progress
    }

    /// Where the reader reads on.
    pub(crate) fn next(&self) -> u64 {
        self.next
    }

    /// The reader has read everything in front of `next`.
    pub(crate) fn read_to(&mut self, next: u64) {
        self.next = next;
    }

    pub(crate) fn is_parked(&self, destination: &Destination) -> bool {
        let place = self.places.get(destination);
        place.is_some_and(|place| place.parked_at.is_some())
    }

    /// Events of a destination that are under way.
    pub(crate) fn under_way(&self, destination: &Destination) -> usize {
        let place = self.places.get(destination);
        place.map_or(0, |place| place.under_way.len())
    }

    /// Hands out an event.
    pub(crate) fn begin(&mut self, destination: &Destination, offset: u64) {
        self.place(destination).under_way.insert(offset);
    }

    /// An event has ended.
    pub(crate) fn end(&mut self, destination: &Destination, offset: u64) {
        if let Some(place) = self.places.get_mut(destination) {
            place.under_way.remove(&offset);
            if place.under_way.is_empty() && place.parked_at.is_none() {
                self.places.remove(destination);
            }
        }
    }

    /// From `offset` on the reader passes over a destination's events.
    pub(crate) fn park(&mut self, destination: &Destination, offset: u64) {
        let place = self.place(destination);
        if place.parked_at.is_none() {
            place.parked_at = Some(offset);
            self.parked += 1;
        }
    }

    /// Where those who are parked read on.
    pub(crate) fn parked(&self) -> impl Iterator<Item = (&Destination, u64)> {
        let places = self.places.iter();
        places.filter_map(|(destination, place)| Some((destination, place.parked_at?)))
    }

    /// Whether somebody is parked.
    pub(crate) fn has_parked(&self) -> bool {
        self.parked > 0
    }

    /// A parked destination has read everything in front of `next`. Where that is all there is, it is parked no longer.
    pub(crate) fn caught_up_to(&mut self, destination: &Destination, next: u64) {
        let reader = self.next;
        let Some(place) = self.places.get_mut(destination) else {
            return;
        };
        if next < reader {
            place.parked_at = Some(next);
            return;
        }
        if place.parked_at.take().is_some() {
            self.parked -= 1;
        }
        if place.under_way.is_empty() {
            self.places.remove(destination);
        }
    }

    /// The cursors to remember.
    pub(crate) fn cursors(&self) -> Vec<(String, u64)> {
        let mut cursors = vec![(MAIN.to_owned(), self.main())];
        for (destination, place) in &self.places {
            if let Some(low) = place.low()
                && place.parked_at.is_some()
            {
                cursors.push((format!("{PARKED}{destination}"), low));
            }
        }
        cursors
    }

    /// Everything in front of this has ended.
    pub(crate) fn low(&self) -> u64 {
        let lows = self.places.values().filter_map(Place::low);
        lows.min().map_or(self.next, |low| low.min(self.next))
    }

    fn main(&self) -> u64 {
        let places = self.places.values();
        let served = places.filter(|place| place.parked_at.is_none());
        let low = served.filter_map(Place::low).min();
        low.map_or(self.next, |low| low.min(self.next))
    }

    fn place(&mut self, destination: &Destination) -> &mut Place {
        if !self.places.contains_key(destination) {
            self.places.insert(destination.clone(), Place::default());
        }
        self.places.entry(destination.clone()).or_default()
    }
}

// === impl Place ===

impl Place {
    fn low(&self) -> Option<u64> {
        let first = self.under_way.first().copied();
        match (first, self.parked_at) {
            (Some(first), Some(parked)) => Some(first.min(parked)),
            (first, parked) => first.or(parked),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn to(name: &str) -> Destination {
        Destination::named(name)
    }

    #[test]
    fn the_cursor_is_behind_everything_that_has_not_ended() {
        let mut progress = Progress::new(&[], 5);
        assert_eq!((progress.next(), progress.low()), (5, 5));
        for offset in 5..9 {
            progress.begin(&to("a"), offset);
        }
        progress.begin(&to("b"), 6);
        progress.read_to(9);
        for (destination, offset, low) in [("a", 6, 5), ("a", 5, 6), ("b", 6, 7), ("a", 8, 7)] {
            progress.end(&to(destination), offset);
            assert_eq!(progress.low(), low);
        }
        progress.end(&to("a"), 7);
        assert_eq!(progress.cursors(), [("main".to_owned(), 9)]);
    }

    #[test]
    fn one_that_is_parked_does_not_hold_the_others_back() {
        let mut progress = Progress::new(&[], 1);
        progress.begin(&to("dead"), 1);
        progress.begin(&to("good"), 2);
        progress.park(&to("dead"), 3);
        progress.park(&to("dead"), 7);
        progress.end(&to("good"), 2);
        progress.read_to(10);
        let mut cursors = progress.cursors();
        cursors.sort();
        let expected = [("at/dead".to_owned(), 1), ("main".to_owned(), 10)];
        assert_eq!(cursors, expected);
        assert_eq!(progress.low(), 1);

        let mut again = Progress::new(&cursors, 1);
        assert!(again.is_parked(&to("dead")) && !again.is_parked(&to("good")));
        assert_eq!(again.parked().collect::<Vec<_>>(), [(&to("dead"), 1)]);
        again.begin(&to("dead"), 1);
        again.caught_up_to(&to("dead"), 5);
        assert!(again.has_parked());
        again.caught_up_to(&to("dead"), 10);
        assert!(!again.has_parked());
        assert_eq!(again.cursors(), [("main".to_owned(), 1)]);
        again.end(&to("dead"), 1);
        assert_eq!(again.low(), 10);
    }

    #[test]
    fn what_is_no_longer_there_is_passed_over() {
        let cursors = [("main".to_owned(), 3), ("at/dead".to_owned(), 1)];
        let progress = Progress::new(&cursors, 7);
        assert_eq!((progress.next(), progress.low()), (7, 7));
    }
}
