//! The heartbeat: the server pings, the client answers.

use tokio::time::Instant;

use super::{Close, Options, Outbox};

/// When the next ping is due, or its answer.
#[derive(Debug)]
pub(super) struct Heart {
    due: Instant,
    awaits: bool,
}

// === impl Heart ===

impl Heart {
    pub(super) fn new(options: &Options) -> Self {
        Self {
            due: Instant::now() + options.ping_interval,
            awaits: false,
        }
    }

    /// When to call [`beat`](Heart::beat).
    pub(super) fn due(&self) -> Instant {
        self.due
    }

    /// Sends a ping, or finds that the last one was not answered.
    pub(super) fn beat(
        &mut self,
        now: Instant,
        options: &Options,
        out: &mut Outbox,
    ) -> Result<(), Close> {
        if now < self.due {
            return Ok(());
        }
        if self.awaits {
            return Err(Close("ping_timeout"));
        }
        self.awaits = true;
        self.due = now + options.ping_timeout;
        out.ping();
        Ok(())
    }

    /// The client has answered. What nobody asked for counts as an answer, too.
    pub(super) fn pong(&mut self, options: &Options) {
        self.awaits = false;
        self.due = Instant::now() + options.ping_interval;
    }
}
