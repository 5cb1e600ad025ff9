//! Leaving something outside alone that does not answer, and saying so once.

use std::fmt::Display;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use evows_core::delivery::{Breaker, BreakerPolicy, Pass};
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

/// The reason of events for which nothing was tried.
pub(super) const LEFT_ALONE: &str = "left_alone";

/// What a filter knows and has said of what it depends on.
pub(super) struct Outage {
    filter: String,
    what: What,
    is_failing: AtomicBool,
    breaker: Mutex<Breaker>,
    /// Told when it is left alone from now on.
    opened: Notify,
    /// How long an attempt may take. One that is dropped long before was not the other side's failure.
    limit: Duration,
}

/// What is said.
pub(super) struct What {
    pub(super) failed: &'static str,
    pub(super) works: &'static str,
}

/// An attempt that is under way. One that is dropped has had no answer.
pub(super) struct Attempt<'o> {
    outage: &'o Outage,
    begun: Instant,
    is_probe: bool,
    has_ended: bool,
}

/// Five in a row without an answer are enough.
const POLICY: BreakerPolicy = BreakerPolicy {
    attempts: 5,
    failures: 100,
    window: Duration::from_secs(30),
    open: Duration::from_secs(1),
    longest: Some(Duration::from_secs(30)),
};

// === impl Outage ===

impl Outage {
    pub(super) fn new(filter: &str, what: What, limit: Duration) -> Self {
        Self {
            filter: filter.to_owned(),
            what,
            is_failing: AtomicBool::new(false),
            breaker: Mutex::new(Breaker::new(POLICY)),
            opened: Notify::new(),
            limit,
        }
    }

    /// Begins an attempt; `None` while what does not answer is left alone.
    pub(super) fn attempt(&self) -> Option<Attempt<'_>> {
        let now = Instant::now();
        let mut breaker = self.breaker.lock();
        let is_probe = match breaker.pass(now) {
            Pass::Yes => false,
            Pass::Probe => true,
            Pass::NotBefore(_) | Pass::Never => return None,
        };
        breaker.begin(now);
        Some(Attempt {
            outage: self,
            begun: now,
            is_probe,
            has_ended: false,
        })
    }

    /// Something failed. This is said once, until it works again; the rest at the level debug.
    pub(super) fn failed(&self, error: &dyn Display) {
        let (filter, what) = (&*self.filter, self.what.failed);
        if self.is_failing.swap(true, Ordering::Relaxed) {
            tracing::debug!(filter, %error, "{what}");
        } else {
            tracing::warn!(filter, %error, "{what}; what follows is told of at the level debug");
        }
    }
}

// === impl Attempt ===

impl Attempt<'_> {
    /// Does the work of the attempt; `None` when meanwhile others found that nobody answers: this one would
    /// hold up the events behind its own for nothing. Cancel safe if the work is.
    pub(super) async fn make<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            biased;
            done = work => Some(done),
            () = self.outage.opened.notified(), if !self.is_probe => None,
        }
    }

    /// It worked.
    pub(super) fn worked(mut self) {
        self.end(true);
        let outage = self.outage;
        if outage.is_failing.swap(false, Ordering::Relaxed) {
            tracing::info!(filter = &*outage.filter, "{}", outage.what.works);
        }
    }

    /// There was an answer, which was an error.
    pub(super) fn refused(mut self, error: &dyn Display) {
        self.end(true);
        self.outage.failed(error);
    }

    /// There was no answer.
    pub(super) fn failed(mut self, error: &dyn Display) {
        self.end(false);
        self.outage.failed(error);
    }

    fn end(&mut self, answered: bool) {
        self.has_ended = true;
        let mut breaker = self.outage.breaker.lock();
        // One that began before it was left alone says nothing about the probe.
        if !answered && !self.is_probe && !breaker.is_closed() {
            return;
        }
        if breaker.note(answered, Instant::now()) {
            self.outage.opened.notify_waiters();
        }
    }
}

impl Drop for Attempt<'_> {
    fn drop(&mut self) {
        let is_long = self.begun.elapsed() >= self.outage.limit / 2;
        // Whatever became of a probe, another one must be possible.
        if !self.has_ended && (is_long || self.is_probe) {
            self.end(false);
        }
    }
}

#[cfg(test)]
impl Outage {
    /// Whether it was said that it fails, and not yet that it works.
    pub(super) fn is_failing(&self) -> bool {
        self.is_failing.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(4);

    fn outage() -> Outage {
        let what = What {
            failed: "failed",
            works: "works",
        };
        Outage::new("test", what, LIMIT)
    }

    #[tokio::test(start_paused = true)]
    async fn what_does_not_answer_is_left_alone_and_tried_by_one() {
        let outage = outage();
        for _ in 0..5 {
            let attempt = outage.attempt();
            tokio::time::advance(LIMIT).await;
            assert!(attempt.is_some(), "dropped at its time limit");
        }
        assert!(outage.attempt().is_none());
        tokio::time::advance(POLICY.open).await;
        let probe = outage.attempt();
        assert!(probe.is_some() && outage.attempt().is_none());
        drop(probe);
        tokio::time::advance(POLICY.open).await;
        assert!(outage.attempt().is_none(), "twice as long");
        tokio::time::advance(POLICY.open).await;
        assert!(!outage.is_failing(), "nobody said so");
        outage.failed(&"no answer");
        assert!(outage.is_failing());
        outage.attempt().unwrap().worked();
        assert!(!outage.is_failing());
        assert!(outage.attempt().is_some() && outage.attempt().is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn attempts_that_are_under_way_end_when_it_is_left_alone() {
        let outage = outage();
        let early: Vec<_> = (0..5).map(|_| outage.attempt().unwrap()).collect();
        tokio::time::advance(LIMIT / 2).await;
        let late = outage.attempt().unwrap();
        let silence = std::future::pending::<()>;
        let (mut ended, ()) = tokio::join!(late.make(silence()), async { drop(early) });
        assert_eq!(ended, None);
        tokio::time::advance(POLICY.open).await;
        let probe = outage.attempt().unwrap();
        drop(late);
        assert!(outage.attempt().is_none(), "the probe is under way");
        ended = probe.make(async {}).await;
        assert_eq!(ended, Some(()));
        probe.worked();
        assert!(outage.attempt().is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn errors_that_are_answers_and_waits_that_are_cut_short_leave_nobody_alone() {
        let outage = outage();
        for _ in 0..20 {
            outage.attempt().unwrap().refused(&"500");
            let attempt = outage.attempt().unwrap();
            tokio::time::advance(LIMIT / 3).await;
            drop(attempt);
        }
        assert!(outage.attempt().is_some());
    }
}
