//! Leaving a destination alone that does not answer.
//!
//! Closed, it lets everything pass and counts. Too many failures open it: nothing passes for a while. Then one attempt may pass,
//! whose end closes it or opens it again. (No crate: those there are take the system's clock, so that nothing can be tested in
//! virtual time, and have no probe that a scheduler may ask for.)

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

/// When a destination is left alone for a while.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BreakerPolicy {
    /// Attempts before it may open: failures one after the other, or attempts in the window. 0 switches it off.
    pub attempts: u32,
    /// Failures in percent of the window's attempts that open it.
    pub failures: u32,
    /// The time that is looked at.
    pub window: Duration,
    /// For how long it stays open before one attempt is made.
    pub open: Duration,
    /// What that grows to, twofold with each such attempt that fails; with `None` it stays the same.
    pub longest: Option<Duration>,
}

/// The breaker of one destination. Sinks have it from core; other plugins may keep one of their own.
#[derive(Debug)]
pub struct Breaker {
    policy: BreakerPolicy,
    state: State,
    /// Failures since the last success.
    in_a_row: u32,
    /// For how long it opens the next time.
    wait: Duration,
    /// What happened in the window, oldest first, in slices of a tenth of it.
    slices: VecDeque<Slice>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Closed,
    Open {
        until: Instant,
    },
    /// One attempt is under way.
    Probing,
}

#[derive(Debug, Clone, Copy)]
struct Slice {
    begun: Instant,
    attempts: u32,
    failures: u32,
}

/// Whether an attempt may be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pass {
    /// It may.
    Yes,
    /// One, whose end must be [noted](Breaker::note).
    Probe,
    /// Not before then.
    NotBefore(Instant),
    /// Not before the probe has ended.
    Never,
}

const SLICES: u32 = 10;

// === impl BreakerPolicy ===

impl Default for BreakerPolicy {
    fn default() -> Self {
        Self {
            attempts: 10,
            failures: 70,
            window: Duration::from_secs(30),
            open: Duration::from_secs(30),
            longest: None,
        }
    }
}

// === impl Breaker ===

impl Breaker {
    /// A closed one.
    pub fn new(policy: BreakerPolicy) -> Self {
        Self {
            policy,
            state: State::Closed,
            in_a_row: 0,
            wait: policy.open,
            slices: VecDeque::new(),
        }
    }

    /// Whether an attempt may be made now. Asking changes nothing.
    pub fn pass(&self, now: Instant) -> Pass {
        match self.state {
            State::Closed => Pass::Yes,
            State::Open { until } if now < until => Pass::NotBefore(until),
            State::Open { .. } => Pass::Probe,
            State::Probing => Pass::Never,
        }
    }

    /// Notes that an attempt begins which [may be made](Self::pass).
    pub fn begin(&mut self, now: Instant) {
        if self.pass(now) == Pass::Probe {
            self.state = State::Probing;
        }
    }

    /// Whether everything passes.
    pub fn is_closed(&self) -> bool {
        self.state == State::Closed
    }

    /// Notes how an attempt ended. `true` when that opened a closed breaker.
    pub fn note(&mut self, success: bool, now: Instant) -> bool {
        if self.policy.attempts == 0 {
            return false;
        }
        if success {
            self.in_a_row = 0;
            if self.state != State::Closed {
                self.state = State::Closed;
                self.wait = self.policy.open;
                self.slices.clear();
            }
        } else {
            self.in_a_row = self.in_a_row.saturating_add(1);
        }
        self.count(success, now);
        match self.state {
            State::Closed if !success && self.is_too_much() => {
                self.open(now);
                true
            }
            State::Probing => {
                self.open(now);
                false
            }
            // Those that were under way when it opened.
            State::Open { .. } | State::Closed => false,
        }
    }

    fn open(&mut self, now: Instant) {
        self.state = State::Open {
            until: now + self.wait,
        };
        if let Some(longest) = self.policy.longest {
            self.wait = longest.min(self.wait * 2);
        }
    }

    fn count(&mut self, success: bool, now: Instant) {
        let length = self.policy.window / SLICES;
        let is_past = |slice: &mut Slice| now - slice.begun >= self.policy.window;
        while self.slices.pop_front_if(is_past).is_some() {}
        if self.slices.back().is_none_or(|it| now - it.begun >= length) {
            self.slices.push_back(Slice {
                begun: now,
                attempts: 0,
                failures: 0,
            });
        }
        if let Some(slice) = self.slices.back_mut() {
            slice.attempts += 1;
            slice.failures += u32::from(!success);
        }
    }

    fn is_too_much(&self) -> bool {
        if self.in_a_row >= self.policy.attempts {
            return true;
        }
        let attempts: u32 = self.slices.iter().map(|it| it.attempts).sum();
        let failures: u32 = self.slices.iter().map(|it| it.failures).sum();
        attempts >= self.policy.attempts
            && u64::from(failures) * 100 >= u64::from(attempts) * u64::from(self.policy.failures)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn breaker() -> (Breaker, Instant) {
        (Breaker::new(BreakerPolicy::default()), Instant::now())
    }

    #[test]
    fn opens_after_failures_in_a_row_and_closes_after_a_probe() {
        let (mut breaker, now) = breaker();
        (0..100_000).for_each(|_| assert!(!breaker.note(true, now)));
        (0..9).for_each(|_| assert!(!breaker.note(false, now)));
        assert!(breaker.note(false, now));
        let until = now + BreakerPolicy::default().open;
        assert_eq!(breaker.pass(now), Pass::NotBefore(until));
        assert_eq!(breaker.pass(until), Pass::Probe);
        breaker.begin(until);
        assert_eq!(breaker.pass(until), Pass::Never);
        assert!(!breaker.note(false, until));
        let again = until + BreakerPolicy::default().open;
        assert_eq!(breaker.pass(until), Pass::NotBefore(again));
        breaker.begin(again);
        breaker.note(true, again);
        assert_eq!(breaker.pass(again), Pass::Yes);
    }

    #[test]
    fn stays_open_for_longer_each_time_a_probe_fails() {
        let policy = BreakerPolicy {
            open: Duration::from_secs(1),
            longest: Some(Duration::from_secs(30)),
            ..BreakerPolicy::default()
        };
        let (mut breaker, mut now) = (Breaker::new(policy), Instant::now());
        for _ in 0..2 {
            for _ in 0..10 {
                breaker.note(false, now);
            }
            for seconds in [1, 2, 4, 8, 16, 30, 30] {
                let until = now + Duration::from_secs(seconds);
                assert_eq!(breaker.pass(now), Pass::NotBefore(until));
                now = until;
                breaker.begin(now);
                breaker.note(false, now);
            }
            breaker.note(true, now);
            now += BreakerPolicy::default().window;
        }
    }

    #[test]
    fn opens_when_most_of_the_window_failed() {
        let (mut breaker, now) = breaker();
        for n in 0..9 {
            assert!(!breaker.note(n % 4 == 0, now), "{n}");
        }
        assert!(breaker.note(false, now), "7 of 10");
    }

    #[test]
    fn what_is_past_the_window_is_forgotten() {
        let (mut breaker, now) = breaker();
        (0..9).for_each(|_| assert!(!breaker.note(false, now)));
        breaker.note(true, now);
        let later = now + BreakerPolicy::default().window;
        assert!(!breaker.note(false, later), "one of one, but one is few");
    }

    #[test]
    fn can_be_switched_off() {
        let policy = BreakerPolicy {
            attempts: 0,
            ..BreakerPolicy::default()
        };
        let mut breaker = Breaker::new(policy);
        (0..100).for_each(|_| assert!(!breaker.note(false, Instant::now())));
    }
}
