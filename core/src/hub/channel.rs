//! One channel: a bounded ring of entries.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::Waker;
use std::time::{Instant, SystemTime};

use super::cursor::{Cursor, Gap, Start};
use super::entry::{Entry, FrameKey, Variant};
use super::lookout::Lookout;
use super::past::{Beginning, Past, Reader};
use super::ring::Ring;
use super::since::{Resume, Since};
use super::sync::{AtomicBool, AtomicU64, AtomicUsize, RwLock};
use super::waiting::{Place, Waiting};
use super::{ChannelName, Epoch, Offset, Position, Retention};

/// One ordered stream that clients follow.
#[derive(Debug)]
pub struct Channel {
    name: ChannelName,
    number: u32,
    epoch: Epoch,
    retention: Retention,
    /// What it had before what is in the ring.
    past: Option<Past>,
    ring: RwLock<Ring>,
    /// The offset of the newest entry, readable without the ring's lock.
    newest: AtomicU64,
    closed: AtomicBool,
    followers: AtomicUsize,
    /// Those of them that read the past.
    in_past: AtomicUsize,
    /// How far the furthest follower has come, as a place in the ring.
    front: AtomicU64,
    waiting: Waiting,
}

/// How far a read came.
pub(super) struct Read {
    /// The place in the ring in front of the first entry that was read.
    pub(super) before: u64,
    /// The offset to take for the cursor's when it has passed all that was read.
    pub(super) reached: Offset,
    /// Whether something is left behind that.
    pub(super) more: bool,
    /// What it passed that is no longer retained.
    pub(super) gap: Option<Gap>,
}

// === impl Channel ===

impl Channel {
    /// A channel that is opened after the entry at `head`, which it therefore never had.
    pub(super) fn new(
        name: ChannelName,
        epoch: Epoch,
        retention: Retention,
        head: Offset,
        past: Option<Past>,
    ) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        Self {
            name,
            number: NEXT.fetch_add(1, Ordering::Relaxed),
            epoch,
            retention,
            past,
            ring: RwLock::new(Ring::new(head)),
            newest: AtomicU64::new(head.get()),
            closed: AtomicBool::new(false),
            followers: AtomicUsize::new(0),
            in_past: AtomicUsize::new(0),
            front: AtomicU64::new(0),
            waiting: Waiting::default(),
        }
    }

    /// Puts in what it had before it was opened, up to `head`.
    pub(super) fn fill(&self, entries: Vec<Arc<Entry>>, head: Offset) {
        let mut ring = self.ring.write();
        for entry in entries {
            ring.append(entry, &self.retention);
        }
        ring.advance(head);
        self.newest.store(head.get(), Ordering::Release);
    }

    /// Its name.
    pub fn name(&self) -> &ChannelName {
        &self.name
    }

    /// The key of its entries' frames in `variant`.
    pub fn frame_key(&self, variant: Variant) -> FrameKey {
        FrameKey::new(variant, self.number)
    }

    /// The position of its newest entry, or where it was opened.
    pub fn head(&self) -> Position {
        self.position(self.newest())
    }

    /// The position of its oldest retained entry.
    pub fn oldest(&self) -> Option<Position> {
        self.ring.read().oldest().map(|entry| entry.position)
    }

    /// How many entries it retains, and their bytes.
    pub fn retained(&self) -> (usize, usize) {
        let ring = self.ring.read();
        (ring.len(), ring.bytes())
    }

    /// How many cursors follow it.
    pub fn followers(&self) -> usize {
        self.followers.load(Ordering::Relaxed)
    }

    /// How far the furthest follower has come, if the channel may soon overrun even that one: more than half of what may be
    /// retained lies in front of it.
    pub fn crowded(&self) -> Option<u64> {
        // Who reads the past does not lose anything.
        if self.followers() <= self.in_past.load(Ordering::Relaxed) {
            return None;
        }
        let front = self.front.load(Ordering::Relaxed);
        let ring = self.ring.read();
        if self.past.is_some() && ring.has_overrun(front) {
            return None;
        }
        let (entries, bytes) = ring.ahead_of(front);
        drop(ring);
        let crowded =
            entries > self.retention.events as u64 / 2 || bytes > self.retention.bytes as u64 / 2;
        crowded.then_some(front)
    }

    /// Whether it was closed: nothing will be appended any more.
    pub fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    /// Sees that it moves, from now on.
    pub fn watch(self: &Arc<Self>) -> Lookout {
        Lookout::new(Arc::clone(self))
    }

    /// How many tasks are woken when it moves.
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// A client's place in this channel.
    pub fn follow(self: &Arc<Self>, start: Start) -> Cursor {
        self.followers.fetch_add(1, Ordering::Relaxed);
        self.cursor(start, true)
    }

    /// A place that nobody who publishes waits for.
    pub fn look(self: &Arc<Self>, start: Start) -> Cursor {
        self.cursor(start, false)
    }

    fn cursor(self: &Arc<Self>, start: Start, follows: bool) -> Cursor {
        let ring = self.ring.read();
        let (offset, past) = match start {
            Start::Head => (ring.newest(), None),
            Start::Earliest => (self.earliest(&ring), None),
            Start::After(offset) => (offset, None),
            Start::Resume(resume) => {
                let after = resume.from.offset;
                let special = resume.since.is_some() || resume.told > after;
                let past = special && ring.evicted() > after;
                let reader = || Reader::new(self, follows, resume.since, resume.told);
                (after, past.then(|| Box::new(reader())))
            }
        };
        let place = ring.place_after(offset);
        drop(ring);
        Cursor::new(Arc::clone(self), place, offset, follows, past)
    }

    /// Where a client starts that comes back: contiguous, or with the gap that it has to be told of.
    pub fn resume(&self, since: &Since) -> Resume {
        let ring = self.ring.read();
        let (head, gone) = (self.position(ring.newest()), self.gone(&ring));
        let mut time = None;
        let (after, unknown) = match since {
            Since::Earliest => (self.earliest(&ring), None),
            Since::Time(wanted) => {
                let (after, begins_later) = self.offset_before(&ring, *wanted);
                time = begins_later.then_some(*wanted);
                (after, None)
            }
            // Of another run of offsets it has nothing, and what it has not of that run is gone.
            Since::Position(there) if there.epoch != self.epoch => {
                (self.earliest(&ring), Some(*there))
            }
            // Nobody gave that out. Nothing retained may be repeated to it.
            Since::Position(there) if there.offset > head.offset => (head.offset, Some(*there)),
            Since::Position(there) => (there.offset, None),
        };
        let from = after.max(gone);
        let mut gap = (unknown.is_some() || after < gone).then(|| Gap {
            after: unknown.unwrap_or_else(|| self.position(after)),
            through: self.position(from),
        });
        let holes = self.past.as_ref().filter(|_| from < ring.evicted());
        let holes = holes.and_then(|past| past.holes(from));
        if let Some((after, through)) = holes {
            let gap = gap.get_or_insert(self.gap(after, through));
            gap.through.offset = through;
        }
        Resume {
            from: self.position(from),
            head,
            gap,
            since: time,
            told: holes.map_or(Offset::ORIGIN, |(_, through)| through),
        }
    }

    /// The offset in front of the first entry of a time, and whether earlier ones may be behind that.
    fn offset_before(&self, ring: &Ring, time: SystemTime) -> (Offset, bool) {
        let Some(past) = &self.past else {
            return (ring.offset_before(time), false);
        };
        if let Some(offset) = ring.offset_within(time) {
            return (offset, false);
        }
        match past.beginning_of(time) {
            Beginning::Behind(offset) => {
                let floor = past.floor().min(ring.evicted());
                (offset.clamp(floor, ring.evicted()), true)
            }
            Beginning::Gone => (Offset::ORIGIN, false),
        }
    }

    /// Everything up to here is gone.
    fn gone(&self, ring: &Ring) -> Offset {
        let floor = self.past.as_ref().map(Past::floor);
        floor.map_or(ring.evicted(), |floor| floor.min(ring.evicted()))
    }

    /// The offset in front of everything that can still be had.
    fn earliest(&self, ring: &Ring) -> Offset {
        let gone = self.gone(ring);
        if ring.is_empty() && gone == ring.evicted() {
            ring.newest()
        } else {
            gone
        }
    }

    /// What an entry behind `after` has to be read from, when it is not in the ring; and the end of that.
    pub(super) fn behind_ring(&self, after: Offset) -> Option<(&Past, Offset)> {
        let past = self.past.as_ref()?;
        let evicted = self.ring.read().evicted();
        (evicted > after).then_some((past, evicted))
    }

    /// Whether something behind `after` is gone.
    pub(super) fn has_lost(&self, after: Offset) -> bool {
        let ring = self.ring.read();
        ring.evicted() > after && self.gone(&ring) > after
    }

    pub(super) fn enter_past(&self) {
        self.in_past.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn leave_past(&self) {
        self.in_past.fetch_sub(1, Ordering::Relaxed);
    }

    /// The place behind everything, and its offset.
    pub(super) fn end(&self) -> (u64, Offset) {
        let ring = self.ring.read();
        (ring.end(), ring.newest())
    }

    pub(super) fn place_after(&self, offset: Offset) -> u64 {
        self.ring.read().place_after(offset)
    }

    pub(super) fn newest(&self) -> Offset {
        self.newest.load(Ordering::Acquire).into()
    }

    pub(super) fn append(&self, entry: Arc<Entry>) {
        let newest = entry.position.offset.get();
        let mut ring = self.ring.write();
        ring.append(entry, &self.retention);
        // Still locked, so that both say the same to whoever looks at the ring.
        self.newest.store(newest, Ordering::Release);
    }

    pub(super) fn wake(&self) {
        self.waiting.wake();
    }

    pub(super) fn close(&self) {
        self.closed.store(true, Ordering::Release);
        self.waiting.wake();
    }

    pub(super) fn expire(&self, now: Instant) {
        self.ring.write().expire(&self.retention, now);
    }

    /// Shows up to `most` entries behind a cursor; nothing when they have to be read back from the history.
    pub(super) fn read(
        &self,
        place: u64,
        after: Offset,
        most: usize,
        show: impl FnMut(&Arc<Entry>),
    ) -> Option<Read> {
        let ring = self.ring.read();
        let overrun = ring.evicted() > after;
        if overrun && self.past.is_some() {
            return None;
        }
        // One that comes from the past has no place yet.
        let place = if place == 0 {
            ring.place_after(after)
        } else {
            place
        };
        // The furthest reader passed what it read before. Most readers find that another one has been there.
        if self.front.load(Ordering::Relaxed) < place {
            self.front.fetch_max(place, Ordering::Relaxed);
        }
        let (before, last) = ring.read(place, most, show);
        // Where nothing is left, the newest entry may be one that this channel never had.
        let reached = last.unwrap_or_else(|| ring.newest()).max(after);
        Some(Read {
            before,
            reached,
            more: last.is_some(),
            gap: overrun.then(|| self.gap(after, ring.evicted())),
        })
    }

    /// Bytes that lie in front of a cursor.
    pub(super) fn bytes_ahead_of(&self, place: u64) -> u64 {
        self.ring.read().ahead_of(place).1
    }

    pub(super) fn register(&self, place: &mut Option<Place>, waker: &Waker) -> bool {
        self.waiting.register(place, waker)
    }

    pub(super) fn wait_no_more(&self, place: Option<Place>) {
        if let Some(place) = place {
            self.waiting.leave(&place);
        }
    }

    pub(super) fn leave(&self) {
        self.followers.fetch_sub(1, Ordering::Relaxed);
    }

    fn position(&self, offset: Offset) -> Position {
        Position {
            epoch: self.epoch,
            offset,
        }
    }

    pub(super) fn gap(&self, after: Offset, through: Offset) -> Gap {
        Gap {
            after: self.position(after),
            through: self.position(through),
        }
    }
}
