//! What waits for the writer.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

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
    /// As many jobs the writer waits for; a single one when it is less.
    wanted: usize,
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
        let enough = closes || [1, state.wanted].contains(&state.jobs.len());
        drop(state);
        if enough {
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
    ///
    /// When there is something it waits for as many jobs as `more` says, but not longer.
    pub(super) fn take(
        &self,
        jobs: &mut VecDeque<Job>,
        until: Option<Instant>,
        more: (usize, Duration),
    ) -> bool {
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
        if !state.jobs.is_empty() && state.jobs.len() < more.0 {
            let until = Instant::now() + more.1;
            state.wanted = more.0;
            while state.jobs.len() < more.0 && !state.ended {
                if self.filled.wait_until(&mut state, until).timed_out() {
                    break;
                }
            }
            state.wanted = 0;
        }
        state.nudged = false;
        std::mem::swap(jobs, &mut state.jobs);
        !state.ended
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_mins(1);

    fn push(queue: &Queue, count: usize) {
        for before in 0..count as u64 {
            let (reply, _) = oneshot::channel();
            queue.push(Job::Trim { before, reply });
        }
    }

    #[test]
    fn what_comes_together_is_taken_together() {
        let queue = Queue::default();
        let mut jobs = VecDeque::new();
        push(&queue, 1);
        std::thread::scope(|scope| {
            scope.spawn(|| push(&queue, 9));
            assert!(queue.take(&mut jobs, None, (10, LONG)));
        });
        assert_eq!(jobs.len(), 10);
        jobs.clear();
        push(&queue, 2);
        assert!(queue.take(&mut jobs, None, (10, Duration::from_millis(1))));
        assert_eq!(jobs.len(), 2);
    }

    #[test]
    fn the_end_is_not_waited_over() {
        let queue = Queue::default();
        let mut jobs = VecDeque::new();
        push(&queue, 1);
        let (reply, _) = oneshot::channel();
        std::thread::scope(|scope| {
            scope.spawn(|| queue.push(Job::Close { reply }));
            assert!(!queue.take(&mut jobs, None, (10, LONG)));
        });
        assert_eq!(jobs.len(), 2);
    }
}
