//! The end of programs that have none.

use std::cell::Cell;
use std::hint::black_box;
use std::ptr;
use std::time::{Duration, Instant};

use jaq_json::Val;

/// Bytes of the stack that a program may take.
const STACK: usize = 768 << 10;

/// How deep a value may be nested that goes around in a loop. Dropping it takes stack for each level.
const LEVELS: usize = 1_000;
/// How often that is looked at. In between, a value grows by what the program says in so many rounds.
const EVERY: u32 = 16;

/// What a program had too much of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Exceeded {
    /// It would have gone on.
    #[error("the program did not end within {}", humantime::format_duration(*.0))]
    Time(Duration),
    /// It called itself too often, one call in the other, or put a value into another one again and again.
    #[error(
        "the program goes too deep: it calls itself and never comes back, or it makes a value that is nested more than {LEVELS} deep"
    )]
    Depth,
}

/// What a run has left.
pub(super) struct Limits {
    time: Duration,
    until: Instant,
    /// Where the stack was at the start.
    stack: usize,
    exceeded: Cell<Option<Exceeded>>,
    rounds: Cell<u32>,
}

// === impl Limits ===

impl Limits {
    pub(super) fn new(time: Duration) -> Self {
        Self {
            time,
            until: Instant::now() + time,
            stack: here(),
            exceeded: Cell::new(None),
            rounds: Cell::new(0),
        }
    }

    /// Called again and again by whatever could go on for ever, with what it goes on with.
    pub(super) fn spend(&self, value: &Val) -> Result<(), Exceeded> {
        self.check()?;
        let rounds = self.rounds.get().wrapping_add(1);
        self.rounds.set(rounds);
        if rounds.is_multiple_of(EVERY) && is_deep(value) {
            return self.exceed(Exceeded::Depth);
        }
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

/// Whether a value is nested deeper than [`LEVELS`].
fn is_deep(value: &Val) -> bool {
    let is_nested = |it: &&Val| matches!(it, Val::Arr(_) | Val::Obj(_));
    if !is_nested(&value) {
        return false;
    }
    let mut left = vec![(value, 0)];
    while let Some((value, depth)) = left.pop() {
        if depth > LEVELS {
            return true;
        }
        match value {
            Val::Arr(elements) => {
                left.extend(elements.iter().filter(is_nested).map(|it| (it, depth + 1)));
            }
            Val::Obj(members) => {
                left.extend(members.values().filter(is_nested).map(|it| (it, depth + 1)));
            }
            _ => {}
        }
    }
    false
}

/// Where the stack is, more or less.
#[inline(never)]
fn here() -> usize {
    let here = 0_u8;
    ptr::from_ref(black_box(&here)).addr()
}
