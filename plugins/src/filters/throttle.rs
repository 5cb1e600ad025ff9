//! Lets so many events of each key through in a time, and discards or holds the rest.
//!
//! ```toml
//! [filters.calm]
//! type = "throttle"
//! inputs = ["evolution"]
//! rate = 20
//! per = "1s"
//! burst = 100
//! key = ["instance"]
//! excess = "delay"
//! ```
//!
//! Every key has a bucket of `burst` tokens, which fills up with `rate` tokens each `per`. An event takes one token. What
//! becomes of events that find none, `excess` says:
//!
//! - `"drop"` discards them, under `throttled`.
//! - `"delay"` holds them, and lets them go in order as tokens come. More than `max_held` of a key are discarded under
//!   `held_too_many`, more than `max_bytes` in all under `held_too_much`.
//! - `"latest"` holds only the newest of each key, and discards the one that it replaces under `replaced`.
//!
//! Sources wait for events that are held. Keep `max_held` below what `rate` lets go in the time that a sender has
//! patience for, which is 25 seconds for the source `webhook`. At stop everything held is let go at once.

use std::collections::{BTreeSet, VecDeque};
use std::fmt;
use std::mem;
use std::time::Duration;

use evows_core::config::{Period, Problem, Size};
use evows_core::plugin::{BuildContext, BuildError, Emitter, Filter, FilterPlugin};
use evows_core::{Event, register_filter};
use schemars::JsonSchema;
use serde::de::{self, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use tokio::time::Instant;

use super::key::Key;
use super::recent::Recent;
use super::weight;

/// How often what is held is looked through.
const TICKS: (Duration, Duration) = (Duration::from_millis(5), Duration::from_millis(100));

/// Lets so many events of each key through in a time.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// How many events of a key pass in each `per`.
    #[serde(deserialize_with = "whole")]
    pub rate: u64,
    /// The time that `rate` is for.
    pub per: Period,
    /// How many events of a key pass at once after a pause; `rate` of them by default. What is held is let go every 5 to
    /// 100 ms, and what the rate allows in that time goes together.
    pub burst: Option<u64>,
    /// Paths into the envelope: events that are equal there share one limit. All events do when empty.
    pub key: Key,
    /// What becomes of events above the limit: `"drop"` discards them, `"delay"` holds them in order until it is their turn,
    /// `"latest"` does so with the newest of each key and discards the others.
    pub excess: Excess,
    /// Events of one key that are held at most with `excess = "delay"`; more are discarded.
    pub max_held: usize,
    /// Size of all events that are held at most; more are discarded.
    pub max_bytes: Size,
    /// Keys that are remembered at most. The one unused for longest goes: what is held of it passes, and its limit starts
    /// anew.
    pub max_keys: usize,
}

/// What becomes of events above the limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Excess {
    /// They are discarded.
    Drop,
    /// They wait for their turn, in order.
    Delay,
    /// The newest of each key waits for its turn, and the others are discarded.
    Latest,
}

/// The running filter.
#[derive(Debug)]
pub struct Throttle {
    key: Key,
    limit: Limit,
    excess: Excess,
    max_held: usize,
    max_bytes: usize,
    buckets: Recent<Bucket>,
    /// When the first event held of each key that has one may go.
    due: BTreeSet<(u64, u128)>,
    /// What all the events held weigh.
    bytes: usize,
    start: Instant,
}

/// The rate of every bucket, in nanoseconds.
#[derive(Debug, Clone, Copy)]
struct Limit {
    /// What one token takes to come.
    interval: u64,
    /// What all tokens but one take.
    slack: u64,
}

#[derive(Debug, Default)]
struct Bucket {
    /// When it is full again, in nanoseconds since the start. That says how many tokens there are at any time.
    full_at: u64,
    held: VecDeque<Event>,
}

register_filter!(
    Throttle,
    summary = "Lets so many events of each key through in a time.",
    example = "rate = 20\nburst = 100\nkey = [\"instance\"]\nexcess = \"delay\"\n",
);

/// Reads a rate, and says how to write one that is no whole number.
fn whole<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    struct Whole;

    impl Visitor<'_> for Whole {
        type Value = u64;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a whole number (for 1.5 in a second write `rate = 3` and `per = \"2s\"`)")
        }

        fn visit_i64<E: de::Error>(self, number: i64) -> Result<u64, E> {
            let unexpected = || E::invalid_value(de::Unexpected::Signed(number), &self);
            u64::try_from(number).map_err(|_| unexpected())
        }

        fn visit_u64<E: de::Error>(self, number: u64) -> Result<u64, E> {
            Ok(number)
        }
    }

    deserializer.deserialize_any(Whole)
}

// === impl Config ===

impl Default for Config {
    fn default() -> Self {
        Self {
            rate: 100,
            per: Period::seconds(1),
            burst: None,
            key: Key::from(["instance"]),
            excess: Excess::Drop,
            max_held: 1000,
            max_bytes: Size::mib(64),
            max_keys: 10_000,
        }
    }
}

// === impl Throttle ===

impl FilterPlugin for Throttle {
    const NAME: &'static str = "throttle";
    type Config = Config;

    fn check(config: &Config) -> Vec<Problem> {
        let mut problems = config.key.check("key");
        for (key, is_zero, why, help) in [
            (
                "rate",
                config.rate == 0,
                "nothing passes",
                "at least 1; for less than one event in a second, make `per` longer",
            ),
            (
                "per",
                config.per.0.is_zero(),
                "there is no rate",
                "such as \"1s\"",
            ),
            (
                "burst",
                config.burst == Some(0),
                "nothing passes",
                "at least 1",
            ),
            (
                "max_held",
                config.max_held == 0,
                "nothing is held",
                "at least 1; `excess = \"drop\"` holds nothing",
            ),
            (
                "max_keys",
                config.max_keys == 0,
                "there is no limit without a key",
                "at least 1",
            ),
        ] {
            if is_zero {
                let problem = Problem::new("invalid", format!("`{key}` is 0: {why}"));
                problems.push(problem.at_key(key).help(help));
            }
        }
        problems
    }

    fn build(config: Config, _cx: &BuildContext) -> Result<Self, BuildError> {
        let burst = config.burst.unwrap_or(config.rate);
        Ok(Self {
            limit: Limit::new(config.rate, config.per.0, burst),
            max_held: config.max_held,
            max_bytes: config.max_bytes.bytes(),
            buckets: Recent::new(config.max_keys),
            due: BTreeSet::new(),
            bytes: 0,
            start: Instant::now(),
            key: config.key,
            excess: config.excess,
        })
    }

    /// As many tokens are missing as before, or all of fewer, and what is held waits for those.
    fn take_over(&mut self, before: &mut Self) {
        let fits = self.buckets.most() >= before.buckets.most();
        let holds = self.excess == before.excess || before.due.is_empty();
        if self.key != before.key || !fits || !holds {
            return;
        }
        let most = self.buckets.most();
        self.buckets = mem::replace(&mut before.buckets, Recent::new(1));
        self.buckets.widen(most);
        self.bytes = mem::take(&mut before.bytes);
        self.start = before.start;
        before.due.clear();
        let now = self.now();
        for (key, bucket) in self.buckets.iter_mut() {
            let missing = u128::from(bucket.full_at.saturating_sub(now));
            let missing = missing * u128::from(self.limit.interval);
            let missing = missing.div_ceil(before.limit.interval.into());
            let missing = u64::try_from(missing).unwrap_or(u64::MAX);
            bucket.full_at = now.saturating_add(missing.min(self.limit.all()));
            if !bucket.held.is_empty() {
                self.due.insert((self.limit.due(bucket), key));
            }
        }
    }
}

impl Throttle {
    fn now(&self) -> u64 {
        nanos(self.start.elapsed())
    }

    /// Lets go of what is due.
    fn release(&mut self, now: u64, out: &mut Emitter<'_>) {
        while let Some(&(due, key)) = self.due.first()
            && due <= now
        {
            self.due.pop_first();
            let Some(bucket) = self.buckets.get_mut(key) else {
                continue;
            };
            let Some(event) = bucket.held.pop_front() else {
                continue;
            };
            self.bytes -= weight(&event);
            // The token is taken as of when the event was due, so that ticks between two tokens do not lower the rate;
            // but by one tick at most: after a pause because of a full queue there must not be a burst.
            let tick = nanos(self.limit.tick());
            self.limit
                .charge(&mut bucket.full_at, now.saturating_sub(tick));
            if !bucket.held.is_empty() {
                self.due.insert((self.limit.due(bucket), key));
            }
            out.emit(event);
        }
    }

    /// Holds an event of the bucket at `at`, if there is room.
    fn hold(&mut self, event: Event, key: u128, at: usize, out: &mut Emitter<'_>) {
        let bucket = self.buckets.at(at);
        let replaced = match self.excess {
            Excess::Latest => bucket.held.front(),
            _ if bucket.held.len() >= self.max_held => return out.discard(event, "held_too_many"),
            _ => None,
        };
        let bytes = self.bytes - replaced.map_or(0, weight) + weight(&event);
        if bytes > self.max_bytes {
            return out.discard(event, "held_too_much");
        }
        self.bytes = bytes;
        if replaced.is_some()
            && let Some(old) = bucket.held.pop_front()
        {
            out.discard(old, "replaced");
        }
        bucket.held.push_back(event);
        // Does nothing where another one is due already.
        self.due.insert((self.limit.due(bucket), key));
    }

    /// Lets go of all that is held of a key that is forgotten.
    fn forget(&mut self, key: u128, bucket: Bucket, out: &mut Emitter<'_>) {
        if !bucket.held.is_empty() {
            self.due.remove(&(self.limit.due(&bucket), key));
        }
        for event in bucket.held {
            self.bytes -= weight(&event);
            out.emit(event);
        }
    }
}

impl Filter for Throttle {
    fn apply(&mut self, event: Event, out: &mut Emitter<'_>) {
        let now = self.now();
        self.release(now, out);
        let key = self.key.of(&event);
        let (at, gone) = self.buckets.touch(key);
        if let Some((gone, bucket)) = gone {
            self.forget(gone, bucket, out);
        }
        let bucket = self.buckets.at(at);
        // Nothing overtakes what is held.
        if bucket.held.is_empty() && self.limit.take(&mut bucket.full_at, now) {
            return out.emit(event);
        }
        match self.excess {
            Excess::Drop => out.discard(event, "throttled"),
            Excess::Delay | Excess::Latest => self.hold(event, key, at, out),
        }
    }

    fn ticked(&mut self, out: &mut Emitter<'_>) {
        self.release(self.now(), out);
    }

    fn tick(&self) -> Option<Duration> {
        match self.excess {
            Excess::Drop => None,
            Excess::Delay | Excess::Latest => Some(self.limit.tick()),
        }
    }

    fn is_idle(&self) -> bool {
        self.due.is_empty()
    }

    fn flush(&mut self, out: &mut Emitter<'_>) {
        while let Some((_, key)) = self.due.pop_first() {
            let held = self.buckets.get_mut(key).map(|bucket| &mut bucket.held);
            for event in held.into_iter().flat_map(mem::take) {
                self.bytes -= weight(&event);
                out.emit(event);
            }
        }
    }
}

// === impl Limit ===

impl Limit {
    fn new(rate: u64, per: Duration, burst: u64) -> Self {
        // Rounded up: never more than the rate.
        let interval = nanos(per).div_ceil(rate.max(1)).max(1);
        Self {
            interval,
            slack: interval.saturating_mul(burst.saturating_sub(1)),
        }
    }

    /// What all tokens take to come.
    fn all(self) -> u64 {
        self.slack.saturating_add(self.interval)
    }

    /// Takes a token if there is one now.
    fn take(self, full_at: &mut u64, now: u64) -> bool {
        let takes = full_at.saturating_sub(now) <= self.slack;
        if takes {
            self.charge(full_at, now);
        }
        takes
    }

    /// Takes a token as of `at`.
    fn charge(self, full_at: &mut u64, at: u64) {
        *full_at = at.max(*full_at).saturating_add(self.interval);
    }

    /// When there will be a token.
    fn due(self, bucket: &Bucket) -> u64 {
        bucket.full_at.saturating_sub(self.slack)
    }

    fn tick(self) -> Duration {
        Duration::from_nanos(self.interval).clamp(TICKS.0, TICKS.1)
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
