//! What waits for the writer.

use std::collections::VecDeque;
use std::time::Instant;

use bytes::Bytes;
use parking_lot::{Condvar, Mutex};
use tokio::sync::oneshot;

use super::super::JournalError;

/// Tells whoever waits what came of it.
pub(super) type Reply<T> = oneshot::Sender<Result<T, JournalError>>;

#[derive(Debug)]
pub(super) enum Job {
    Append {
        records: Vec<Bytes>,
        bytes: usize,
        reply: Reply<u64>,
    },
    Trim {
        before: u64,
        reply: Reply<()>,
    },
    Close {
        reply: Reply<()>,
    },
}

/// Jobs in order. Bounded by the permits for bytes that every append takes first.
#[derive(Debug, Default)]
pub(super) struct Queue {
    state: Mutex<State>,
    filled: Condvar,
}

#[derive(Debug, Default)]
struct State {
    jobs: VecDeque<Job>,
    /// The writer looks after something else than jobs.
    nudged: bool,
    /// No job comes any more.
    ended: bool,
}

// === impl Queue ===

impl Queue {
    /// Adds a job; `false` when nobody takes jobs any more.
    pub(super) fn push(&self, job: Job) -> bool {
        let mut state = self.state.lock();
        if state.ended {
            return false;
        }
        let closes = matches!(job, Job::Close { .. });
        state.jobs.push_back(job);
        state.ended = closes;
        let first = state.jobs.len() == 1;
        drop(state);
        if first {
            self.filled.notify_one();
        }
        true
    }

    /// Lets the writer look up.
    pub(super) fn nudge(&self) {
        let mut state = self.state.lock();
        if !state.nudged {
            state.nudged = true;
            drop(state);
            self.filled.notify_one();
        }
    }

    /// Whether jobs wait.
    pub(super) fn has_jobs(&self) -> bool {
        !self.state.lock().jobs.is_empty()
    }

    /// No job comes any more.
    pub(super) fn end(&self) {
        self.state.lock().ended = true;
        self.filled.notify_one();
    }

    /// Takes everything that waits, or nothing after `until` or a nudge. `false` when it was the last.
    pub(super) fn take(&self, jobs: &mut VecDeque<Job>, until: Option<Instant>) -> bool {
        let mut state = self.state.lock();
        while state.jobs.is_empty() && !state.ended && !state.nudged {
            match until {
                None => self.filled.wait(&mut state),
                Some(until) => {
                    if self.filled.wait_until(&mut state, until).timed_out() {
                        break;
                    }
                }
            }
        }
        state.nudged = false;
        std::mem::swap(jobs, &mut state.jobs);
        !state.ended
    }
}
