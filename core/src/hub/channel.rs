//! One channel: a bounded ring of entries.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use parking_lot::RwLock;
use tokio::sync::watch;

use super::cursor::{Cursor, Gap, Start};
use super::{ChannelName, Epoch, Offset, Position, Retention};
use crate::Event;

/// One event in the log. Shared by every channel that it was published to, and by every client.
#[derive(Debug)]
pub struct Entry {
    /// Where it stands.
    pub position: Position,
    /// What happened.
    pub event: Event,
    appended: Instant,
    size: usize,
}

/// One ordered stream that clients follow.
#[derive(Debug)]
pub struct Channel {
    name: ChannelName,
    epoch: Epoch,
    retention: Retention,
    ring: RwLock<Ring>,
    head: watch::Sender<Head>,
}

/// What cursors wait on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) newest: Offset,
    pub(super) closed: bool,
}

/// How far a read came.
pub(super) struct Read {
    /// The cursor's new place.
    pub(super) reached: Offset,
    /// What it passed that is no longer retained.
    pub(super) gap: Option<Gap>,
}

#[derive(Debug)]
struct Ring {
    entries: VecDeque<Arc<Entry>>,
    bytes: usize,
    /// The offset of the newest entry that this channel no longer has.
    evicted: Offset,
    newest: Offset,
}

// === impl Entry ===

impl Entry {
    pub(super) fn new(position: Position, event: Event, appended: Instant) -> Self {
        let size = event.size();
        Self {
            position,
            event,
            appended,
            size,
        }
    }
}

// === impl Channel ===

impl Channel {
    /// A channel that is opened after the entry at `head`, which it therefore never had.
    pub(super) fn new(name: ChannelName, epoch: Epoch, retention: Retention, head: Offset) -> Self {
        let ring = Ring {
            entries: VecDeque::new(),
            bytes: 0,
            evicted: Offset::ORIGIN,
            newest: head,
        };
        let (head, _) = watch::channel(Head {
            newest: head,
            closed: false,
        });
        Self {
            name,
            epoch,
            retention,
            ring: RwLock::new(ring),
            head,
        }
    }

    /// Its name.
    pub fn name(&self) -> &ChannelName {
        &self.name
    }

    /// The position of its newest entry, or where it was opened.
    pub fn head(&self) -> Position {
        Position {
            epoch: self.epoch,
            offset: self.ring.read().newest,
        }
    }

    /// The position of its oldest retained entry.
    pub fn oldest(&self) -> Option<Position> {
        self.ring.read().entries.front().map(|entry| entry.position)
    }

    /// How many entries it retains, and their bytes.
    pub fn retained(&self) -> (usize, usize) {
        let ring = self.ring.read();
        (ring.entries.len(), ring.bytes)
    }

    /// Whether more than half of what it may retain lies behind `after`: a client there may soon be overrun.
    pub fn is_half_unread(&self, after: Offset) -> bool {
        let ring = self.ring.read();
        let first = ring
            .entries
            .partition_point(|entry| entry.position.offset <= after);
        let unread = ring.entries.len() - first;
        // Bytes are taken as spread evenly: adding them up would take as long as reading them.
        let bytes = ring.bytes / ring.entries.len().max(1) * unread;
        unread > self.retention.events / 2 || bytes > self.retention.bytes / 2
    }

    /// Whether it was closed: nothing will be appended any more.
    pub fn is_closed(&self) -> bool {
        self.head.borrow().closed
    }

    /// A client's place in this channel.
    pub fn follow(self: &Arc<Self>, start: Start) -> Cursor {
        Cursor::new(Arc::clone(self), start, self.head.subscribe())
    }

    pub(super) fn append(&self, entry: Arc<Entry>) {
        let mut ring = self.ring.write();
        ring.bytes += entry.size;
        ring.newest = entry.position.offset;
        let now = entry.appended;
        ring.entries.push_back(entry);
        ring.evict(&self.retention, now);
    }

    pub(super) fn wake(&self) {
        let newest = self.ring.read().newest;
        self.head
            .send_modify(|head| head.newest = head.newest.max(newest));
    }

    pub(super) fn close(&self) {
        self.head.send_modify(|head| head.closed = true);
    }

    pub(super) fn expire(&self, now: Instant) {
        let mut ring = self.ring.write();
        ring.evict(&self.retention, now);
        if ring.entries.is_empty() {
            ring.entries.shrink_to_fit();
        }
    }

    /// Where a cursor starts.
    pub(super) fn resolve(&self, start: Start) -> Offset {
        match start {
            Start::Head => self.ring.read().newest,
            Start::Earliest => {
                let ring = self.ring.read();
                if ring.entries.is_empty() {
                    ring.newest
                } else {
                    ring.evicted
                }
            }
            Start::After(offset) => offset,
        }
    }

    /// Copies up to `most` entries after `after` into `out`.
    pub(super) fn read(&self, after: Offset, most: usize, out: &mut Vec<Arc<Entry>>) -> Read {
        let ring = self.ring.read();
        let first = ring
            .entries
            .partition_point(|entry| entry.position.offset <= after);
        let last = ring.entries.len().min(first.saturating_add(most));
        out.extend(ring.entries.range(first..last).cloned());
        let reached = if last == ring.entries.len() {
            // Nothing is left, even where the newest entry is one that this channel never had.
            ring.newest.max(after)
        } else {
            let newest = ring.entries.range(first..last).next_back();
            newest.map_or(after, |entry| entry.position.offset)
        };
        let gap = (ring.evicted > after).then(|| Gap {
            after: Position {
                epoch: self.epoch,
                offset: after,
            },
            through: Position {
                epoch: self.epoch,
                offset: ring.evicted,
            },
        });
        Read { reached, gap }
    }
}

// === impl Ring ===

impl Ring {
    fn evict(&mut self, retention: &Retention, now: Instant) {
        while let Some(oldest) = self.entries.front() {
            let full = self.entries.len() > retention.events || self.bytes > retention.bytes;
            let old = now.saturating_duration_since(oldest.appended) > retention.age;
            if !full && !old {
                return;
            }
            self.bytes -= oldest.size;
            self.evicted = oldest.position.offset;
            self.entries.pop_front();
        }
    }
}
