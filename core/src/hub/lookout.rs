//! Waiting for a channel to move without following it.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll};

use super::Offset;
use super::channel::Channel;
use super::waiting::Place;

/// Sees that a channel has moved. For whoever serves many cursors of it: unlike one of them, it is no follower and reads nothing.
#[derive(Debug)]
pub struct Lookout {
    channel: Arc<Channel>,
    seen: Offset,
    waiting: Option<Place>,
}

// === impl Lookout ===

impl Lookout {
    pub(super) fn new(channel: Arc<Channel>) -> Self {
        Self {
            seen: channel.newest(),
            channel,
            waiting: None,
        }
    }

    /// Takes note of everything that has been appended so far: cursors that are looked at after this see it. Until it waits again,
    /// its task is woken for nothing. A task that yields while it is at work would else be back before anybody had a turn.
    pub fn look(&mut self) {
        self.channel.wait_no_more(self.waiting.take());
        self.seen = self.channel.newest();
    }

    /// Waits until something is appended that was not there at the last [`look`](Self::look); `false` when the channel is
    /// closed. Cancel safe.
    pub async fn moved(&mut self) -> bool {
        poll_fn(|cx| self.poll_moved(cx)).await
    }

    fn poll_moved(&mut self, cx: &Context<'_>) -> Poll<bool> {
        if let Some(moved) = self.has_moved() {
            return Poll::Ready(moved);
        }
        if self.channel.register(&mut self.waiting, cx.waker()) {
            // What came before the registration was told to nobody, so look again.
            return self.has_moved().map_or(Poll::Pending, Poll::Ready);
        }
        Poll::Pending
    }

    fn has_moved(&self) -> Option<bool> {
        // In this order: what was appended before the end is seen.
        let closed = self.channel.is_closed();
        let moved = self.channel.newest() > self.seen;
        (moved || closed).then_some(moved)
    }
}

impl Drop for Lookout {
    fn drop(&mut self) {
        self.channel.wait_no_more(self.waiting.take());
    }
}
