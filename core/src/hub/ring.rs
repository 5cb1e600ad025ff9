//! What a channel retains.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use super::entry::Entry;
use super::{Offset, Retention};

/// A bounded ring of entries. Its places are counted from 1 and never reused, so that a cursor finds its own without a search.
#[derive(Debug)]
pub(super) struct Ring {
    slots: VecDeque<Slot>,
    /// The place of the oldest slot.
    first: u64,
    /// Bytes that were evicted so far.
    gone: u64,
    /// The offset of the newest entry that is no longer there.
    evicted: Offset,
    /// When that entry was appended.
    evicted_at: Option<Instant>,
    newest: Offset,
}

#[derive(Debug)]
struct Slot {
    entry: Arc<Entry>,
    /// Bytes that were appended so far, this entry's included.
    through: u64,
}

// === impl Ring ===

impl Ring {
    /// An empty ring, opened after the entry at `head`.
    pub(super) fn new(head: Offset) -> Self {
        Self {
            slots: VecDeque::new(),
            first: 1,
            gone: 0,
            // What a channel of this name had before is gone as well.
            evicted: head,
            evicted_at: None,
            newest: head,
        }
    }

    /// Nothing up to `newest` but what is there was ever in it.
    pub(super) fn advance(&mut self, newest: Offset) {
        self.newest = self.newest.max(newest);
    }

    pub(super) fn len(&self) -> usize {
        self.slots.len()
    }

    pub(super) fn bytes(&self) -> usize {
        let bytes = self.through() - self.gone;
        usize::try_from(bytes).unwrap_or(usize::MAX)
    }

    pub(super) fn oldest(&self) -> Option<&Entry> {
        self.slots.front().map(|slot| &*slot.entry)
    }

    /// The offset of the newest entry, or where the channel was opened.
    pub(super) fn newest(&self) -> Offset {
        self.newest
    }

    /// The offset of the newest entry that is gone.
    pub(super) fn evicted(&self) -> Offset {
        self.evicted
    }

    pub(super) fn append(&mut self, entry: Arc<Entry>, retention: &Retention) {
        let now = entry.appended;
        self.newest = entry.position.offset;
        let through = self.through() + entry.size as u64;
        self.slots.push_back(Slot { entry, through });
        self.evict(retention, now, 1);
    }

    /// Drops what is past its age.
    pub(super) fn expire(&mut self, retention: &Retention, now: Instant) {
        self.evict(retention, now, 0);
        if self.slots.is_empty() {
            self.slots.shrink_to_fit();
        }
    }

    /// Drops the oldest until the limits hold, but for the last `keep`: a single event may be larger than the limit, and must
    /// reach the clients all the same.
    fn evict(&mut self, retention: &Retention, now: Instant, keep: usize) {
        while self.slots.len() > keep
            && let Some(Slot { entry, through }) = self.slots.front()
        {
            let full = self.len() > retention.events || self.bytes() > retention.bytes;
            let old = now.saturating_duration_since(entry.appended) > retention.age;
            if !full && !old {
                return;
            }
            self.gone = *through;
            self.evicted = entry.position.offset;
            self.evicted_at = Some(entry.appended);
            self.first += 1;
            self.slots.pop_front();
        }
    }

    /// The place of a cursor that has everything up to `offset`.
    pub(super) fn place_after(&self, offset: Offset) -> u64 {
        let had = self
            .slots
            .partition_point(|slot| slot.entry.position.offset <= offset);
        self.first - 1 + had as u64
    }

    /// The offset in front of the first entry appended at `time` or later; the one in front of every event when an entry of that
    /// time is gone. Monotonic time decides: the system's clock may have been set meanwhile.
    pub(super) fn offset_before(&self, time: SystemTime) -> Offset {
        let Some(from) = monotonic(time) else {
            // Before this machine was started: everything.
            return Offset::ORIGIN;
        };
        if self.evicted_at.is_some_and(|evicted| evicted >= from) {
            return Offset::ORIGIN;
        }
        let before = self
            .slots
            .partition_point(|slot| slot.entry.appended < from);
        match before.checked_sub(1).and_then(|at| self.slots.get(at)) {
            Some(slot) => slot.entry.position.offset,
            None if self.slots.is_empty() => self.newest,
            None => self.evicted,
        }
    }

    /// As [`offset_before`](Self::offset_before), if an entry of an earlier time is retained.
    pub(super) fn offset_within(&self, time: SystemTime) -> Option<Offset> {
        let from = monotonic(time)?;
        let oldest = self.slots.front()?.entry.appended;
        (oldest < from).then(|| self.offset_before(time))
    }

    /// The place of a cursor that has everything.
    pub(super) fn end(&self) -> u64 {
        self.first - 1 + self.slots.len() as u64
    }

    /// Whether the entry behind a place is no longer there.
    pub(super) fn has_overrun(&self, place: u64) -> bool {
        place + 1 < self.first
    }

    pub(super) fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// Entries and bytes that lie in front of a cursor at `place`.
    pub(super) fn ahead_of(&self, place: u64) -> (u64, u64) {
        let next = self.first + self.slots.len() as u64;
        let entries = next - 1 - place.min(next - 1);
        let before = match place.checked_sub(self.first) {
            Some(at) => {
                let slot = usize::try_from(at).ok().and_then(|at| self.slots.get(at));
                slot.map_or(self.through(), |slot| slot.through)
            }
            None => self.gone,
        };
        (entries, self.through() - before)
    }

    /// Shows up to `most` entries behind `place`. Returns the place in front of them, and unless nothing is left behind, the
    /// offset of the last one shown or gone.
    pub(super) fn read(
        &self,
        place: u64,
        most: usize,
        mut show: impl FnMut(&Arc<Entry>),
    ) -> (u64, Option<Offset>) {
        let before = place.max(self.first - 1);
        let start = usize::try_from(before + 1 - self.first).unwrap_or(usize::MAX);
        let start = start.min(self.slots.len());
        let end = self.slots.len().min(start.saturating_add(most));
        let mut last = self.evicted;
        for slot in self.slots.range(start..end) {
            last = slot.entry.position.offset;
            show(&slot.entry);
        }
        let left = end < self.slots.len();
        (before, left.then_some(last))
    }

    fn through(&self) -> u64 {
        self.slots.back().map_or(self.gone, |slot| slot.through)
    }
}

/// A time of the system's clock by the monotonic one; nothing when that did not run yet.
fn monotonic(time: SystemTime) -> Option<Instant> {
    // In this order: the time that passes in between makes it earlier, and not later.
    let now = Instant::now();
    let age = SystemTime::now().duration_since(time).unwrap_or_default();
    now.checked_sub(age)
}
