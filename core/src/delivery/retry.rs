//! When to try again.

use std::time::Duration;

use crate::plugin::SinkErrorKind;

/// How a component is tried again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RetryPolicy {
    /// The longest first wait.
    pub(crate) base: Duration,
    /// The longest wait of all.
    pub(crate) cap: Duration,
    /// How often a batch is sent at most, the first time included.
    pub(crate) attempts: u32,
}

/// Deliveries: about half a minute of tries on average, five seconds between two at most.
pub(crate) const DELIVERY: RetryPolicy = RetryPolicy {
    base: Duration::from_millis(100),
    cap: Duration::from_secs(5),
    attempts: 16,
};

/// Components that failed to start or panicked: tried again for as long as the process runs.
pub(crate) const RESTART: RetryPolicy = RetryPolicy {
    base: Duration::from_millis(200),
    cap: Duration::from_secs(30),
    attempts: u32::MAX,
};

/// How many steps further an overloaded receiver pushes the waits.
const OVERLOAD_STEPS: u32 = 3;

/// A sequence of waits: exponential, capped, with full jitter.
#[derive(Debug, Clone)]
pub(crate) struct Backoff {
    policy: RetryPolicy,
    waits: u32,
}

// === impl Backoff ===

impl Backoff {
    pub(crate) fn new(policy: RetryPolicy) -> Self {
        Self { policy, waits: 0 }
    }

    /// The next wait: anything from nothing to a bound that doubles each time.
    pub(crate) fn next(&mut self) -> Duration {
        self.jittered(0)
    }

    /// The wait after an error of this kind; `None` when there were tries enough.
    pub(crate) fn after(&mut self, kind: SinkErrorKind) -> Option<Duration> {
        if self.waits.saturating_add(1) >= self.policy.attempts {
            return None;
        }
        match kind {
            SinkErrorKind::Permanent => None,
            SinkErrorKind::Disconnected => Some(self.jittered(0)),
            SinkErrorKind::Overloaded => Some(self.jittered(OVERLOAD_STEPS)),
            SinkErrorKind::Transient { retry_after } => {
                // What the receiver asks for is a floor; the jitter on top spreads those it asked.
                Some(retry_after.unwrap_or_default() + self.jittered(0))
            }
        }
    }

    pub(crate) fn reset(&mut self) {
        self.waits = 0;
    }

    fn bound(&self, further: u32) -> Duration {
        let doublings = self.waits.saturating_add(further).min(20);
        let bound = self.policy.base.saturating_mul(1 << doublings);
        bound.min(self.policy.cap)
    }

    fn jittered(&mut self, further: u32) -> Duration {
        let bound = self.bound(further);
        self.waits = self.waits.saturating_add(1);
        bound.mul_f64(fastrand::f64())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_cap() {
        let mut backoff = Backoff::new(DELIVERY);
        for expected in [100, 200, 400, 800, 1600, 3200, 5000, 5000] {
            assert_eq!(backoff.bound(0), Duration::from_millis(expected));
            assert!(backoff.next() <= Duration::from_millis(expected));
        }
        backoff.reset();
        assert_eq!(backoff.bound(0), Duration::from_millis(100));
    }

    #[test]
    fn honours_what_the_receiver_asks_for() {
        let asked = Duration::from_mins(1);
        let wait = Backoff::new(DELIVERY).after(SinkErrorKind::Transient {
            retry_after: Some(asked),
        });
        assert!(wait.unwrap() >= asked);
    }

    #[test]
    fn gives_up_after_the_last_attempt() {
        let mut backoff = Backoff::new(DELIVERY);
        let waits = std::iter::from_fn(|| backoff.after(SinkErrorKind::Overloaded)).count();
        assert_eq!(waits, 15);
        let mut backoff = Backoff::new(DELIVERY);
        assert_eq!(backoff.after(SinkErrorKind::Permanent), None);
    }
}
