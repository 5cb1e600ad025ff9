//! Events on their way, and how they end.

use std::sync::Arc;

use parking_lot::Mutex;

use super::inbox::Taken;
use crate::plugin::Destination;
use crate::topology::ledger::Ledger;
use crate::{Event, Outcome};

/// An event for one destination.
#[derive(Debug)]
pub(crate) struct Item {
    pub(crate) event: Event,
    pub(crate) tag: Tag,
}

/// What core has to know of an event beside it.
#[derive(Debug, Default)]
pub(crate) struct Tag {
    /// The event that this is a part of, when it goes to several destinations.
    whole: Option<Arc<Whole>>,
    /// Whether it is counted elsewhere: with another destination of the same event, which was handed out before.
    uncounted: bool,
    /// The file of dead letters that it comes from.
    again: Option<Arc<Taken>>,
    /// Where it is in the buffer on disk; 0 when there is none.
    pub(crate) offset: u64,
}

/// A batch that was taken out of its lane.
#[derive(Debug)]
pub(crate) struct Cargo {
    pub(crate) destination: Destination,
    pub(crate) events: Vec<Event>,
    pub(crate) tags: Vec<Tag>,
}

/// How a delivery ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Ending {
    /// What is counted.
    pub(crate) outcome: Outcome,
    /// What the source learns: better than what is counted when the event is among the dead letters.
    pub(crate) settled: Outcome,
    pub(crate) reason: &'static str,
}

/// An event that goes to several destinations. It ends once, with the worst of their endings.
#[derive(Debug)]
struct Whole(Mutex<Parts>);

#[derive(Debug)]
struct Parts {
    event: Option<Event>,
    left: usize,
    worst: Ending,
}

// === impl Item ===

impl Item {
    pub(crate) fn new(event: Event, offset: u64) -> Self {
        let tag = Tag {
            offset,
            ..Tag::default()
        };
        Self { event, tag }
    }

    /// One that comes from a file of dead letters.
    pub(super) fn again(event: Event, file: Arc<Taken>) -> Self {
        let tag = Tag {
            again: Some(file),
            ..Tag::default()
        };
        Self { event, tag }
    }

    /// Whether its end is counted.
    pub(super) fn counted(mut self, counted: bool) -> Self {
        self.tag.uncounted = !counted;
        self
    }

    /// One item for each of `parts` destinations, at least one.
    pub(crate) fn split(self, parts: usize) -> impl Iterator<Item = Self> {
        let Self { event, tag } = self;
        let offset = tag.offset;
        let copy = event.clone();
        let whole = Arc::new(Whole(Mutex::new(Parts {
            event: Some(event),
            left: parts,
            worst: Ending::DELIVERED,
        })));
        std::iter::repeat_with(move || Self {
            event: copy.clone(),
            tag: Tag {
                whole: Some(Arc::clone(&whole)),
                uncounted: tag.uncounted,
                again: None,
                offset,
            },
        })
        .take(parts)
    }

    /// Ends it, and counts it unless other destinations still wait for it.
    pub(crate) fn end(self, ending: Ending, ledger: &Ledger) {
        if let Some(file) = &self.tag.again
            && ending.settled.is_accepted()
        {
            file.end(1);
        }
        let Some(whole) = self.tag.whole else {
            self.event.settle(ending.settled);
            if !self.tag.uncounted {
                ledger.end(ending.outcome, ending.reason, 1);
            }
            return;
        };
        let mut parts = whole.0.lock();
        parts.worst = parts.worst.max(ending);
        parts.left -= 1;
        if parts.left == 0
            && let Some(event) = parts.event.take()
        {
            event.settle(parts.worst.settled);
            if self.tag.uncounted {
                return;
            }
            ledger.end(parts.worst.outcome, parts.worst.reason, 1);
        }
    }
}

// === impl Tag ===

impl Tag {
    /// Whether nothing is to be done at its end but to count it.
    fn is_plain(&self) -> bool {
        self.whole.is_none() && self.again.is_none() && !self.uncounted
    }
}

// === impl Cargo ===

impl Cargo {
    pub(crate) fn into_items(self) -> impl Iterator<Item = Item> {
        let items = self.events.into_iter().zip(self.tags);
        items.map(|(event, tag)| Item { event, tag })
    }

    /// Ends all of it as delivered.
    pub(crate) fn deliver(self, ledger: &Ledger) {
        let mut sole = 0;
        for item in self.into_items() {
            if item.tag.is_plain() {
                item.event.settle(Outcome::Delivered);
                sole += 1;
            } else {
                item.end(Ending::DELIVERED, ledger);
            }
        }
        ledger.end(Outcome::Delivered, "", sole);
    }
}

// === impl Ending ===

impl Ending {
    pub(crate) const DELIVERED: Self = Self {
        outcome: Outcome::Delivered,
        settled: Outcome::Delivered,
        reason: "",
    };

    pub(crate) const fn failed(reason: &'static str) -> Self {
        Self {
            outcome: Outcome::Failed,
            settled: Outcome::Failed,
            reason,
        }
    }

    /// Failed, and among the dead letters.
    pub(crate) const fn dead(reason: &'static str) -> Self {
        Self {
            outcome: Outcome::Failed,
            settled: Outcome::Held,
            reason,
        }
    }

    pub(crate) const fn filtered(reason: &'static str) -> Self {
        Self {
            outcome: Outcome::Filtered,
            settled: Outcome::Filtered,
            reason,
        }
    }
}
