//! The end of programs that have none.

use std::cell::Cell;
use std::hint::black_box;
use std::ptr;
use std::time::{Duration, Instant};

/// Bytes of the stack that a program may take.
const STACK: usize = 768 << 10;

/// What a program had too much of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Exceeded {
    /// It would have gone on.
    #[error("the program did not end within {}", humantime::format_duration(*.0))]
    Time(Duration),
    /// It called itself too often, one call in the other.
    #[error("the program is nested too deep: it calls itself and never comes back")]
    Depth,
}

/// What a run has left.
pub(super) struct Limits {
    time: Duration,
    until: Instant,
    /// Where the stack was at the start.
    stack: usize,
    exceeded: Cell<Option<Exceeded>>,
}

// === impl Limits ===

impl Limits {
    pub(super) fn new(time: Duration) -> Self {
        Self {
            time,
            until: Instant::now() + time,
            stack: here(),
            exceeded: Cell::new(None),
        }
    }

    /// Called again and again by whatever could go on for ever.
    pub(super) fn spend(&self) -> Result<(), Exceeded> {
        self.check()?;
        if self.stack.abs_diff(here()) > STACK {
            return self.exceed(Exceeded::Depth);
        }
        // Each time: what lies between two calls may take long.
        if Instant::now() > self.until {
            return self.exceed(Exceeded::Time(self.time));
        }
        Ok(())
    }

    /// Whether it had too much of something before.
    pub(super) fn check(&self) -> Result<(), Exceeded> {
        self.exceeded.get().map_or(Ok(()), Err)
    }

    fn exceed(&self, exceeded: Exceeded) -> Result<(), Exceeded> {
        self.exceeded.set(Some(exceeded));
        Err(exceeded)
    }
}

/// Where the stack is, more or less.
#[inline(never)]
fn here() -> usize {
    let here = 0_u8;
    ptr::from_ref(black_box(&here)).addr()
}
