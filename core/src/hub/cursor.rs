//! One client's place in a channel.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll};

use super::channel::Channel;
use super::entry::Entry;
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
    /// Entries in front of those shown that are no longer retained: the client must be told, or closed.
    pub gap: Option<Gap>,
}

// === impl Cursor ===

impl Cursor {
    pub(super) fn new(channel: Arc<Channel>, place: u64, after: Offset) -> Self {
        Self {
            channel,
            place,
            after,
            waiting: None,
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

    /// Whether entries in front of it are no longer retained.
    pub fn is_overrun(&self) -> bool {
        self.channel.evicted() > self.after
    }

    /// Bytes that wait: envelopes, attachments, and what the log keeps beside them.
    pub fn bytes_behind(&self) -> u64 {
        self.channel.bytes_ahead_of(self.place)
    }

    /// Appends up to `most` entries behind the cursor to `out` and moves past them. Never waits.
    ///
    /// `Some` means that entries between the cursor and the first of `out` are no longer retained: the
    /// client must be told, or closed. Each gap is reported once.
    pub fn read(&mut self, most: usize, out: &mut Vec<Arc<Entry>>) -> Option<Gap> {
        let ahead = self.peek(most, |entry| out.push(Arc::clone(entry)));
        let gap = ahead.gap;
        self.pass_all(&ahead);
        gap
    }

    /// Shows up to `most` entries behind the cursor, and leaves it where it is. Never waits. The channel is locked for
    /// reading meanwhile, so `show` should do no more than keep what it needs.
    pub fn peek(&self, most: usize, mut show: impl FnMut(&Arc<Entry>)) -> Ahead {
        let mut shown = 0;
        let read = self.channel.read(self.place, self.after, most, |entry| {
            shown += 1;
            show(entry);
        });
        Ahead {
            before: read.before,
            reached: read.reached,
            shown,
            gap: read.gap,
        }
    }

    /// Moves past everything that was shown.
    pub fn pass_all(&mut self, ahead: &Ahead) {
        self.place = ahead.before + ahead.shown;
        self.after = ahead.reached;
    }

    /// Moves past the first `count` of those that were shown, the last of which is at `offset`; past the gap at least.
    pub fn pass(&mut self, ahead: &Ahead, count: u64, offset: Offset) {
        if count == ahead.shown {
            self.pass_all(ahead);
            return;
        }
        self.place = ahead.before + count;
        let gone = ahead.gap.map_or(self.after, |gap| gap.through.offset);
        self.after = if count == 0 { gone } else { offset };
    }

    /// Moves to the head: what waits is not read.
    pub fn skip(&mut self) {
        let ahead = self.peek(usize::MAX, |_| {});
        self.pass_all(&ahead);
    }

    /// Moves the cursor back to `offset`: what was read behind it will be read again.
    pub fn rewind(&mut self, offset: Offset) {
        if offset < self.after {
            let there = self.channel.follow(Start::After(offset));
            self.place = there.place;
            self.after = offset;
        }
    }

    /// Whether entries wait behind the cursor; `Some(false)` when the channel is closed and nothing waits.
    pub fn is_ready(&self) -> Option<bool> {
        // In this order: what was appended before the end is seen.
        let closed = self.channel.is_closed();
        (self.is_behind() || closed).then(|| self.is_behind())
    }

    /// Whether entries wait behind the cursor; `Ready(false)` when the channel is closed and nothing waits. While it is
    /// pending, the task is woken by everything that is appended.
    pub fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<bool> {
        if let Some(ready) = self.is_ready() {
            return Poll::Ready(ready);
        }
        if self.channel.register(&mut self.waiting, cx.waker()) {
            // What came before the registration was told to nobody, so look again.
            return self.is_ready().map_or(Poll::Pending, Poll::Ready);
        }
        Poll::Pending
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
        self.channel.leave();
    }
}

// === impl Ahead ===

impl Ahead {
    /// How many entries were shown.
    pub fn shown(&self) -> u64 {
        self.shown
    }

    /// The offset up to which the channel was looked at: that of its newest entry when nothing is left behind those shown.
    pub fn reached(&self) -> Offset {
        self.reached
    }
}
