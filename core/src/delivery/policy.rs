//! How core delivers to a sink.

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::breaker::BreakerPolicy;
use super::retry::RetryPolicy;
use crate::config::{Period, Problem, Size, codes};

/// How core delivers to a sink. A plugin gives its own defaults with [`SinkPlugin::delivery`](crate::plugin::SinkPlugin::delivery);
/// what the file says comes before them.
#[derive(Debug, Clone, PartialEq)]
pub struct Delivery {
    /// How long one call of [`Sink::send`](crate::plugin::Sink::send) may take.
    pub timeout: Duration,
    /// Calls of `send` at once for one destination.
    pub concurrency: NonZeroUsize,
    /// Which events may overtake others.
    pub order: Order,
    /// How much is sent at once.
    pub batch: BatchPolicy,
    /// What is done with what fails.
    pub retry: RetryPolicy,
    /// When a destination is left alone for a while.
    pub breaker: BreakerPolicy,
    /// Where events go that cannot be delivered: a path whose `*` becomes the day. Without it they fail.
    pub dead_letter: Option<PathBuf>,
}

/// Which events wait for which. A lane is a queue to one destination whose events are sent one batch after the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Order {
    /// A lane for each destination: no event overtakes another one.
    Strict,
    /// A lane for each destination and instance: an instance whose event fails does not delay the others.
    Instance,
    /// No order: whatever is there is sent as soon as there is room.
    None,
}

/// How much is sent at once. A batch is sent when one of the limits is reached, and at once when evows stops.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchPolicy {
    /// Events of one batch at most.
    pub max_events: NonZeroUsize,
    /// Bytes of one batch at most; a larger event goes alone.
    pub max_bytes: usize,
    /// How long the first event of a batch waits for others. With 0, whatever waits is sent.
    pub max_wait: Duration,
}

/// The keys of a sink that say how it is delivered to. What is left out is as the plugin has it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct DeliveryConfig {
    /// How long one attempt may take.
    pub timeout: Option<Period>,
    /// Attempts at once for one destination.
    pub concurrency: Option<NonZeroUsize>,
    /// Which events may overtake others.
    pub order: Option<Order>,
    /// How much is sent at once.
    pub batch: BatchConfig,
    /// What is done with what fails.
    pub retry: RetryConfig,
    /// When a destination is left alone for a while.
    pub breaker: BreakerConfig,
    /// Where events go that cannot be delivered: a file for each day, which `*` in the path stands for. Without it they fail.
    pub dead_letter: Option<PathBuf>,
}

/// How much is sent at once: whichever limit is reached first.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct BatchConfig {
    /// Events of one batch at most.
    pub max_events: Option<NonZeroUsize>,
    /// Bytes of one batch at most; a larger event goes alone.
    pub max_bytes: Option<Size>,
    /// How long the first event of a batch waits for others; with "0s", whatever waits is sent.
    pub max_wait: Option<Period>,
}

/// What is done with events that fail.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RetryConfig {
    /// Attempts in all, the first one included; 0 for no limit. Those at a destination whose breaker is open do not count.
    pub attempts: Option<u32>,
    /// The wait before the second attempt, which then doubles.
    pub initial: Option<Period>,
    /// The longest wait.
    pub max: Option<Period>,
    /// Retries in percent of what is delivered, beside ten a second; what is beyond waits.
    pub budget: Option<u32>,
}

/// When a destination is left alone for a while.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct BreakerConfig {
    /// Attempts in the window before it may open; 0 switches it off.
    pub attempts: Option<u32>,
    /// Failures in percent of them that open it.
    pub failures: Option<u32>,
    /// The time that is looked at.
    pub window: Option<Period>,
    /// For how long it stays open before one attempt is made.
    pub open: Option<Period>,
}

// === impl DeliveryConfig ===

impl DeliveryConfig {
    /// What is wrong with the values.
    pub(crate) fn check(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        let mut wrong = |key: &str, message: &str, help: &str| {
            let problem = Problem::new(codes::INVALID_VALUE, message).help(help);
            problems.push(problem.at_key(key));
        };
        let is_zero = |period: Option<Period>| period.is_some_and(|it| it.0.is_zero());
        if is_zero(self.timeout) {
            wrong(
                "timeout",
                "no attempt ends in no time",
                "write \"30s\", for example",
            );
        }
        if is_zero(self.retry.initial) || is_zero(self.retry.max) {
            let help =
                "`initial` and `max` are longer than nothing; `attempts = 1` switches retries off";
            wrong("retry", "retries must wait", help);
        }
        if is_zero(self.breaker.window) || is_zero(self.breaker.open) {
            let help =
                "`window` and `open` are longer than nothing; `attempts = 0` switches it off";
            wrong("breaker", "a `breaker` takes time", help);
        }
        if self
            .breaker
            .failures
            .is_some_and(|part| !(1..=100).contains(&part))
        {
            let help = "`failures` is a number from 1 to 100";
            wrong("breaker", "`breaker.failures` is in percent", help);
        }
        problems
    }
}

// === impl Delivery ===

impl Default for Delivery {
    fn default() -> Self {
        Self {
            timeout: Duration::from_secs(30),
            concurrency: NonZeroUsize::MIN,
            order: Order::Strict,
            batch: BatchPolicy::default(),
            retry: RetryPolicy::default(),
            breaker: BreakerPolicy::default(),
            dead_letter: None,
        }
    }
}

impl Delivery {
    /// For sinks that may take as long as they like.
    pub const NO_TIMEOUT: Duration = Duration::from_hours(24 * 365 * 10);

    /// For sinks that publish in this process. They wait for clients to keep up within limits of their own, and cut off they
    /// would publish twice; they fail only where the history cannot be written, which whoever posts is to be told soon.
    pub fn in_process() -> Self {
        let mut delivery = Self {
            timeout: Self::NO_TIMEOUT,
            ..Self::default()
        };
        delivery.retry.attempts = 3;
        delivery.breaker.attempts = 0;
        delivery
    }

    /// With what the file says in place of what it says.
    #[must_use]
    pub fn with(mut self, config: &DeliveryConfig) -> Self {
        fn set<T>(place: &mut T, value: Option<T>) {
            if let Some(value) = value {
                *place = value;
            }
        }
        let period = |period: Option<Period>| period.map(|period| period.0);
        set(&mut self.timeout, period(config.timeout));
        set(&mut self.concurrency, config.concurrency);
        set(&mut self.order, config.order);
        set(&mut self.batch.max_events, config.batch.max_events);
        let bytes = config.batch.max_bytes.map(Size::bytes);
        set(&mut self.batch.max_bytes, bytes);
        set(&mut self.batch.max_wait, period(config.batch.max_wait));
        let attempts = config.retry.attempts;
        // None is no limit.
        let attempts = attempts.map(|most| if most == 0 { u32::MAX } else { most });
        set(&mut self.retry.attempts, attempts);
        set(&mut self.retry.initial, period(config.retry.initial));
        set(&mut self.retry.max, period(config.retry.max));
        set(&mut self.retry.budget, config.retry.budget);
        set(&mut self.breaker.attempts, config.breaker.attempts);
        set(&mut self.breaker.failures, config.breaker.failures);
        set(&mut self.breaker.window, period(config.breaker.window));
        set(&mut self.breaker.open, period(config.breaker.open));
        if config.dead_letter.is_some() {
            self.dead_letter.clone_from(&config.dead_letter);
        }
        self
    }
}

// === impl BatchPolicy ===

impl Default for BatchPolicy {
    fn default() -> Self {
        Self {
            max_events: NonZeroUsize::new(256).unwrap_or(NonZeroUsize::MIN),
            max_bytes: 8 * 1024 * 1024,
            max_wait: Duration::ZERO,
        }
    }
}
