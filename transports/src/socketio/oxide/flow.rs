//! How much one client has in front of it.
//!
//! The engine ends a session whose queue has no room for a ping, and does not say how full a queue is. A client that is only slow
//! would be lost to its own backlog. So what a client was handed is counted here, against what its connection shows to have left,
//! and the queue is never filled. The count may fall behind the truth, never run ahead of it: a client is not held up by it.

use std::collections::VecDeque;

/// Packets in the engine's queue at most. Slots are made on demand, so a high limit costs nothing at rest.
pub(super) const QUEUE: usize = 512;
/// Packets that a WebSocket client has in front of it at most, each a copy of its own: what a client that stopped reading costs.
const WEBSOCKET: usize = 64;
/// The same on long-polling, where everything waits for the next poll. What waits when the client moves to a WebSocket is in the
/// queue beside what it is handed there; the rest of the queue is for the engine's own packets.
const POLLING: usize = 192;
/// Capacity that is kept at rest.
const KEPT: usize = 8;

/// What a client was handed and has not taken.
#[derive(Debug, Default)]
pub(super) struct Flow {
    bursts: VecDeque<Burst>,
    packets: usize,
    /// Packets taken by polls so far.
    polled: u64,
    /// Whether the client is on a WebSocket. What began on long-polling may end after the move, and belongs to neither count then.
    websocket: bool,
}

/// Packets that were handed over together.
#[derive(Debug)]
struct Burst {
    packets: usize,
    /// What the connection had written before.
    from: u64,
    /// They have all left when the connection has written so much.
    through: u64,
}

// === impl Flow ===

impl Flow {
    /// How many more packets the client may be handed, its WebSocket having `written` so much; `None` on long-polling.
    pub(super) fn room(&mut self, written: Option<u64>) -> usize {
        let Some(written) = written else {
            return POLLING.saturating_sub(self.packets);
        };
        while let Some(burst) = self.bursts.pop_front_if(|burst| burst.through <= written) {
            self.packets -= burst.packets;
        }
        if self.bursts.is_empty() && self.bursts.capacity() > KEPT {
            self.bursts = VecDeque::new();
        }
        WEBSOCKET.saturating_sub(self.packets)
    }

    /// Notes packets that were handed over, of `bytes` on the wire. `written` is from before that.
    pub(super) fn hand(&mut self, packets: usize, bytes: u64, written: Option<u64>) {
        if written.is_some() != self.websocket {
            return;
        }
        self.packets += packets;
        if let Some(written) = written {
            // Another channel's burst may have been handed over, and noted, since `written` was read. Then what was written in
            // between is in front of both, and counts once.
            let (from, before) = self
                .bursts
                .back()
                .map_or((0, 0), |it| (it.from, it.through));
            let through = if written < from {
                before.max(written + bytes)
            } else {
                before.max(written) + bytes
            };
            let from = from.max(written);
            self.bursts.push_back(Burst {
                packets,
                from,
                through,
            });
        }
    }

    /// Notes packets that a poll took.
    pub(super) fn take(&mut self, packets: usize) {
        if self.websocket {
            // The poll that was under way during the move may have taken what was handed over since, which then is never written.
            self.forget();
            return;
        }
        self.packets = self.packets.saturating_sub(packets);
        self.polled += packets as u64;
    }

    /// Packets taken by polls so far.
    pub(super) fn polled(&self) -> u64 {
        self.polled
    }

    /// Starts to count anew: nothing is in front of the client.
    pub(super) fn forget(&mut self) {
        self.bursts.clear();
        self.packets = 0;
    }

    /// Nothing handed over yet, on a WebSocket or else on long-polling.
    pub(super) fn new(websocket: bool) -> Self {
        Self {
            websocket,
            ..Self::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_makes_room() {
        let mut flow = Flow::new(true);
        assert_eq!(flow.room(Some(1_000)), WEBSOCKET);
        flow.hand(40, 400, Some(1_000));
        flow.hand(24, 240, Some(1_100));
        assert_eq!(flow.room(Some(1_399)), 0);
        assert_eq!(flow.room(Some(1_400)), 40);
        assert_eq!(flow.room(Some(1_640)), WEBSOCKET);
        // Bytes of others that were written meanwhile do not count for the next burst.
        flow.hand(1, 10, Some(2_000));
        assert_eq!(flow.room(Some(2_009)), WEBSOCKET - 1);
        assert_eq!(flow.room(Some(2_010)), WEBSOCKET);
    }

    #[test]
    fn polls_make_room() {
        let mut flow = Flow::new(false);
        flow.hand(POLLING, 1, None);
        assert_eq!(flow.room(None), 0);
        flow.take(5);
        assert_eq!(flow.room(None), 5);
        flow.take(POLLING);
        assert_eq!((flow.room(None), flow.polled()), (POLLING, 197));
    }

    #[test]
    fn what_began_on_long_polling_does_not_count_on_the_websocket() {
        let mut flow = Flow::new(true);
        flow.hand(2, 20, Some(100));
        // Events that were handed over just before the move.
        flow.hand(3, 30, None);
        assert_eq!(flow.room(Some(100)), WEBSOCKET - 2);
        assert_eq!(flow.room(Some(120)), WEBSOCKET);
    }

    #[test]
    fn what_a_late_poll_took_is_not_waited_for() {
        let mut flow = Flow::new(true);
        flow.hand(1, 300_000, Some(100));
        flow.take(1);
        flow.hand(WEBSOCKET, 640, Some(200));
        assert_eq!(flow.room(Some(839)), 0);
        assert_eq!(flow.room(Some(840)), WEBSOCKET);
    }

    #[test]
    fn what_was_written_between_two_channels_bursts_counts_once() {
        let mut flow = Flow::new(true);
        // The first channel read 1,000 and handed over 100 bytes, of which 50 were written before the second one looked.
        flow.hand(1, 10, Some(1_050));
        flow.hand(10, 100, Some(1_000));
        assert_eq!(flow.room(Some(1_110)), WEBSOCKET);
    }
}
