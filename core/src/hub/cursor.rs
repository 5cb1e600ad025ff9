//! One client's place in a channel.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll};

use super::channel::Channel;
use super::entry::Entry;
use super::past::Reader;
use super::since::Resume;
use super::waiting::Place;
use super::{Offset, Position};

/// A client's place in a channel: a position, and a wait for what comes after it.
#[derive(Debug)]
pub struct Cursor {
    channel: Arc<Channel>,
    /// The place in the channel's ring of the last entry that was read past.
    place: u64,
    after: Offset,
    waiting: Option<Place>,
    /// While it reads what is not in the ring any more.
    pub(super) past: Option<Box<Reader>>,
    /// Whether who publishes waits for it.
    pub(super) follows: bool,
}

/// Where a cursor starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// Behind the newest entry: only what comes from now on.
    Head,
    /// At the oldest retained entry.
    Earliest,
    /// Behind this offset, which may no longer be retained.
    After(Offset),
    /// Where [`Channel::resume`] says.
    Resume(Resume),
}

/// Entries that a cursor asked for and that are no longer retained. Serialized as clients are told of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub struct Gap {
    /// The last position that the client has.
    pub after: Position,
    /// The newest position that is gone.
    pub through: Position,
}

/// What lies in front of a cursor: see [`Cursor::peek`].
#[derive(Debug)]
#[must_use = "the cursor moves only by what is passed to `Cursor::pass`"]
pub struct Ahead {
    before: u64,
    reached: Offset,
    shown: u64,
    more: bool,
    /// It is read back from the history.
    in_past: bool,
    /// Entries in front of those shown that are no longer retained: the client must be told, or closed.
    pub gap: Option<Gap>,
}

// === impl Cursor ===

impl Cursor {
    pub(super) fn new(
        channel: Arc<Channel>,
        place: u64,
        after: Offset,
        follows: bool,
        past: Option<Box<Reader>>,
    ) -> Self {
        Self {
            channel,
            place,
            after,
            waiting: None,
            past,
            follows,
        }
    }

    /// The channel.
    pub fn channel(&self) -> &Arc<Channel> {
        &self.channel
    }

    /// The offset of the last entry that was read past.
    pub fn offset(&self) -> Offset {
        self.after
    }

    /// The position of the last entry that was read past.
    pub fn position(&self) -> Position {
        Position {
            epoch: self.channel.head().epoch,
            offset: self.after,
        }
    }

    /// Whether entries wait.
    pub fn is_behind(&self) -> bool {
        self.channel.newest() > self.after
    }

    /// Whether entries in front of it are gone.
    pub fn is_overrun(&self) -> bool {
        self.channel.has_lost(self.after)
    }

    /// Bytes that wait in memory: envelopes, attachments, and what the log keeps beside them. While it reads the history, none are
    /// held for it.
    pub fn bytes_behind(&self) -> u64 {
        if self.is_in_past() {
            return 0;
        }
        self.channel.bytes_ahead_of(self.place)
    }

    /// Appends up to `most` entries behind the cursor to `out` and moves past them. Never waits: with a history, see
    /// [`fetched`](Self::fetched) first.
    ///
    /// `Some` means that entries between the cursor and the first of `out` are no longer retained: the
    /// client must be told, or closed. Each gap is reported once.
    pub fn read(&mut self, most: usize, out: &mut Vec<Arc<Entry>>) -> Option<Gap> {
        let ahead = self.peek(most, |entry| out.push(Arc::clone(entry)));
        let gap = ahead.gap;
        self.pass_all(&ahead);
        gap
    }

    /// Shows up to `most` entries behind the cursor, and leaves it where it is. Never waits: what lies in the history and is not
    /// [fetched](Self::poll_fetched) is not shown. The channel is locked for reading meanwhile, so `show` should do no more than
    /// keep what it needs.
    pub fn peek(&self, most: usize, mut show: impl FnMut(&Arc<Entry>)) -> Ahead {
        let mut shown = 0;
        let read = self.channel.read(self.place, self.after, most, |entry| {
            shown += 1;
            show(entry);
        });
        let Some(read) = read else {
            return self.peek_past(most, show);
        };
        Ahead {
            before: read.before,
            reached: read.reached,
            shown,
            more: read.more,
            in_past: false,
            gap: read.gap,
        }
    }

    /// Moves past everything that was shown.
    pub fn pass_all(&mut self, ahead: &Ahead) {
        self.move_to(ahead, ahead.shown, ahead.reached);
    }

    /// Moves past the first `count` of those that were shown, the last of which is at `offset`; past the gap at least.
    pub fn pass(&mut self, ahead: &Ahead, count: u64, offset: Offset) {
        if count == ahead.shown {
            self.pass_all(ahead);
            return;
        }
        let gone = ahead.gap.map_or(self.after, |gap| gap.through.offset);
        self.move_to(ahead, count, if count == 0 { gone } else { offset });
    }

    /// Moves past what is gone, and no further.
    pub fn pass_gap(&mut self, gap: &Gap) {
        // What its place is there, the next look finds out.
        self.place = 0;
        self.after = self.after.max(gap.through.offset);
    }

    fn move_to(&mut self, ahead: &Ahead, count: u64, after: Offset) {
        let moved = after > self.after;
        // Behind the ring there are no places.
        self.place = if ahead.in_past {
            0
        } else {
            ahead.before + count
        };
        self.after = after;
        if let Some(past) = &mut self.past {
            if moved {
                past.moved(ahead);
            }
            if !ahead.in_past {
                self.past = None;
            }
        }
    }

    /// Moves to the head: what waits is not read.
    pub fn skip(&mut self) {
        let (place, newest) = self.channel.end();
        self.place = place;
        self.after = self.after.max(newest);
        self.past = None;
    }

    /// Moves the cursor back to `offset`: what was read behind it will be read again.
    pub fn rewind(&mut self, offset: Offset) {
        if offset < self.after {
            self.place = self.channel.place_after(offset);
            self.after = offset;
        }
    }

    /// Whether entries wait behind the cursor; `Some(false)` when the channel is closed and nothing waits.
    pub fn is_ready(&self) -> Option<bool> {
        // In this order: what was appended before the end is seen.
        let closed = self.channel.is_closed();
        if closed {
            // What it had on the disk is nobody's any more.
            return Some(self.is_behind() && !self.is_in_past());
        }
        self.is_behind().then_some(true)
    }

    /// Whether entries wait behind the cursor and are at hand; `Ready(false)` when the channel is closed and nothing waits. While it
    /// is pending, the task is woken by everything that is appended, and when what waits has been read back from the history.
    pub fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<bool> {
        let polled = self.poll_unwatched(cx);
        if polled.is_pending() && self.channel.register(&mut self.waiting, cx.waker()) {
            // What came before the registration was told to nobody, so look again.
            return self.poll_unwatched(cx);
        }
        polled
    }

    /// As [`poll_ready`](Self::poll_ready), but the task is not woken by what is appended: somebody else is.
    pub fn poll_unwatched(&mut self, cx: &Context<'_>) -> Poll<bool> {
        match self.is_ready() {
            Some(true) => self.poll_fetched(cx).map(|()| true),
            Some(false) => Poll::Ready(false),
            None => Poll::Pending,
        }
    }

    /// Wakes nobody any more, until it is polled again.
    pub fn unwatched(&mut self) {
        self.channel.wait_no_more(self.waiting.take());
    }

    /// Waits until entries wait behind the cursor; `false` when the channel is closed. Cancel safe.
    pub async fn ready(&mut self) -> bool {
        poll_fn(|cx| self.poll_ready(cx)).await
    }
}

impl Drop for Cursor {
    fn drop(&mut self) {
        self.unwatched();
        if self.follows {
            self.channel.leave();
        }
    }
}

// === impl Ahead ===

impl Ahead {
    /// Read back from the history, where there is more until the ring begins.
    pub(super) fn in_past(shown: u64, reached: Offset, gap: Option<Gap>) -> Self {
        Self {
            before: 0,
            reached,
            shown,
            more: true,
            in_past: true,
            gap,
        }
    }

    /// Whether something is left behind what was looked at.
    pub fn has_more(&self) -> bool {
        self.more
    }

    /// Whether it is read back from the history: what else the client follows may be far ahead of it.
    pub fn is_in_past(&self) -> bool {
        self.in_past
    }

    /// How many entries were shown.
    pub fn shown(&self) -> u64 {
        self.shown
    }

    /// The offset up to which the channel was looked at: that of its newest entry when nothing is left behind those shown.
    pub fn reached(&self) -> Offset {
        self.reached
    }
}
