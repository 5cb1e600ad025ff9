//! When to try again.

use std::time::Duration;

use tokio::time::Instant;

use crate::plugin::SinkErrorKind;

/// How deliveries to one destination are tried again.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RetryPolicy {
    /// Attempts in all, the first one included; `u32::MAX` for no limit.
    pub attempts: u32,
    /// The wait before the second attempt, before jitter.
    pub initial: Duration,
    /// The longest wait, before jitter.
    pub max: Duration,
    /// Whether waits double each time.
    pub doubles: bool,
    /// How waits are spread.
    pub jitter: Jitter,
    /// Retries in percent of what is delivered, beside ten a second; what is beyond waits.
    pub budget: u32,
}

/// How waits are spread, so that those who failed together do not come back together.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Jitter {
    /// Anything from nothing to the wait.
    Full,
    /// The wait, more or less by this part of it, but not less than the first wait.
    Around(f64),
}

/// Components that failed to start or panicked: tried again for as long as the process runs.
pub(crate) const RESTART: RetryPolicy = RetryPolicy {
    attempts: u32::MAX,
    initial: Duration::from_millis(200),
    max: Duration::from_secs(30),
    doubles: true,
    jitter: Jitter::Full,
    budget: 0,
};

/// How many steps further an overloaded receiver pushes the waits.
const OVERLOAD_STEPS: u32 = 3;
/// The longest time that a receiver may ask for.
pub(super) const LONGEST_ASKED: Duration = Duration::from_hours(24);

/// Retries that are always allowed, per second.
const FREE_RETRIES: f64 = 10.0;
/// The time over which unused ones add up, in seconds.
const SAVED: f64 = 10.0;

/// A sequence of waits.
#[derive(Debug, Clone)]
pub(crate) struct Backoff {
    policy: RetryPolicy,
    waits: u32,
}

/// How many retries a destination is still worth: a token bucket that deliveries fill.
#[derive(Debug)]
pub(crate) struct Budget {
    per_delivery: f64,
    tokens: f64,
    filled: Option<Instant>,
}

// === impl RetryPolicy ===

impl Default for RetryPolicy {
    /// About half a minute of tries on average.
    fn default() -> Self {
        Self {
            attempts: 16,
            initial: Duration::from_millis(100),
            max: Duration::from_secs(5),
            doubles: true,
            jitter: Jitter::Full,
            budget: 20,
        }
    }
}

impl RetryPolicy {
    /// The wait behind the `failures`th failure, which was of this kind.
    pub(crate) fn wait(&self, failures: u32, kind: SinkErrorKind) -> Duration {
        let (steps, asked) = match kind {
            SinkErrorKind::Overloaded { retry_after } if self.doubles => {
                (OVERLOAD_STEPS, retry_after)
            }
            SinkErrorKind::Overloaded { retry_after }
            | SinkErrorKind::Transient { retry_after } => (0, retry_after),
            SinkErrorKind::Disconnected | SinkErrorKind::Permanent => (0, None),
        };
        // What the receiver asks for is a floor; the jitter on top spreads those it asked.
        let asked = asked.unwrap_or_default().min(LONGEST_ASKED);
        asked + self.jittered(failures.saturating_sub(1).saturating_add(steps))
    }

    fn bound(&self, doublings: u32) -> Duration {
        let doublings = if self.doubles { doublings.min(20) } else { 0 };
        self.initial.saturating_mul(1 << doublings).min(self.max)
    }

    fn jittered(&self, doublings: u32) -> Duration {
        let bound = self.bound(doublings);
        match self.jitter {
            Jitter::Full => bound.mul_f64(fastrand::f64()),
            Jitter::Around(part) => {
                let factor = 1.0 + part.clamp(0.0, 1.0) * (2.0 * fastrand::f64() - 1.0);
                bound.mul_f64(factor).max(self.initial)
            }
        }
    }
}

// === impl Backoff ===

impl Backoff {
    pub(crate) fn new(policy: RetryPolicy) -> Self {
        Self { policy, waits: 0 }
    }

    /// The next wait.
    pub(crate) fn next(&mut self) -> Duration {
        let wait = self.policy.jittered(self.waits);
        self.waits = self.waits.saturating_add(1);
        wait
    }

    pub(crate) fn reset(&mut self) {
        self.waits = 0;
    }
}

// === impl Budget ===

impl Budget {
    pub(crate) fn new(policy: &RetryPolicy) -> Self {
        Self {
            per_delivery: f64::from(policy.budget) / 100.0,
            tokens: FREE_RETRIES * SAVED,
            filled: None,
        }
    }

    /// Notes deliveries.
    pub(crate) fn deposit(&mut self, deliveries: usize) {
        // Counts of one batch, far below what a float holds.
        #[expect(clippy::cast_precision_loss)]
        let earned = deliveries as f64 * self.per_delivery;
        let most = (FREE_RETRIES * SAVED).max(self.tokens);
        self.tokens = (self.tokens + earned).min(most);
    }

    /// Takes one retry, or says when to ask again.
    pub(crate) fn withdraw(&mut self, now: Instant) -> Result<(), Instant> {
        let since = self.filled.replace(now).map(|then| now - then);
        let fresh = since.unwrap_or_default().as_secs_f64() * FREE_RETRIES;
        self.tokens = (self.tokens + fresh).min(FREE_RETRIES * SAVED);
        if self.tokens >= 1.0 {
            self.tokens -= 1.0;
            return Ok(());
        }
        let missing = (1.0 - self.tokens) / FREE_RETRIES;
        Err(now + Duration::from_secs_f64(missing))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_cap() {
        let policy = RetryPolicy::default();
        for (doublings, expected) in [100, 200, 400, 800, 1600, 3200, 5000, 5000]
            .into_iter()
            .enumerate()
        {
            let doublings = u32::try_from(doublings).unwrap();
            assert_eq!(policy.bound(doublings), Duration::from_millis(expected));
            assert!(policy.jittered(doublings) <= Duration::from_millis(expected));
        }
    }

    #[test]
    fn honours_what_the_receiver_asks_for_within_reason() {
        let asks = |retry_after| {
            let kind = SinkErrorKind::Transient {
                retry_after: Some(retry_after),
            };
            RetryPolicy::default().wait(1, kind)
        };
        assert!(asks(Duration::from_mins(1)) >= Duration::from_mins(1));
        assert!(asks(Duration::MAX) <= LONGEST_ASKED + Duration::from_millis(100));
    }

    #[test]
    fn the_schedule_of_the_original_is_within_a_fifth_and_never_below_its_first_wait() {
        let policy = RetryPolicy {
            attempts: 10,
            initial: Duration::from_secs(5),
            max: Duration::from_mins(5),
            jitter: Jitter::Around(0.2),
            ..RetryPolicy::default()
        };
        for (failures, expected) in (1..).zip([5.0, 10.0, 20.0, 40.0, 80.0, 160.0, 300.0, 300.0]) {
            let kind = SinkErrorKind::Transient { retry_after: None };
            let wait = policy.wait(failures, kind).as_secs_f64();
            assert!((expected * 0.8..=expected * 1.2).contains(&wait) && wait >= 5.0);
        }
    }

    #[test]
    fn retries_beyond_the_budget_wait() {
        let mut now = Instant::now();
        let mut budget = Budget::new(&RetryPolicy::default());
        let free = std::iter::from_fn(|| budget.withdraw(now).ok()).count();
        assert_eq!(free, 100);
        now = budget.withdraw(now).unwrap_err() + Duration::from_millis(1);
        assert_eq!(budget.withdraw(now), Ok(()));
        assert!(budget.withdraw(now).is_err());
        budget.deposit(10);
        assert_eq!(budget.withdraw(now), Ok(()));
        assert_eq!(budget.withdraw(now), Ok(()));
        assert!(budget.withdraw(now).is_err());
    }
}
