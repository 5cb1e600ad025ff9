//! One client's place in a channel.

use std::sync::Arc;

use tokio::sync::watch;

use super::channel::{Channel, Entry, Head};
use super::{Offset, Position};

/// A client's place in a channel: a position, and a wait for what comes after it.
#[derive(Debug)]
pub struct Cursor {
    channel: Arc<Channel>,
    after: Offset,
    head: watch::Receiver<Head>,
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

/// Entries that a cursor asked for and that are no longer retained.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gap {
    /// The last position that the client has.
    pub after: Position,
    /// The newest position that is gone.
    pub through: Position,
}

// === impl Cursor ===

impl Cursor {
    pub(super) fn new(channel: Arc<Channel>, start: Start, head: watch::Receiver<Head>) -> Self {
        let after = channel.resolve(start);
        Self {
            channel,
            after,
            head,
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

    /// Whether entries wait.
    pub fn is_behind(&self) -> bool {
        self.head.borrow().newest > self.after
    }

    /// Appends up to `most` entries behind the cursor to `out` and moves past them. Never waits.
    ///
    /// `Some` means that entries between the cursor and the first of `out` are no longer retained: the
    /// client must be told, or closed. Each gap is reported once.
    pub fn read(&mut self, most: usize, out: &mut Vec<Arc<Entry>>) -> Option<Gap> {
        let read = self.channel.read(self.after, most, out);
        self.after = read.reached;
        read.gap
    }

    /// Moves the cursor back to `offset`: what was read behind it will be read again.
    pub fn rewind(&mut self, offset: Offset) {
        self.after = self.after.min(offset);
    }

    /// Waits until entries wait behind the cursor; `false` when the channel is closed. Cancel safe.
    pub async fn ready(&mut self) -> bool {
        let after = self.after;
        let head = self
            .head
            .wait_for(|head| head.newest > after || head.closed)
            .await;
        head.is_ok_and(|head| head.newest > after)
    }
}
