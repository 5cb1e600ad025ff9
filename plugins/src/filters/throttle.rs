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
            for event in held.into_iter().flat_map(std::mem::take) {
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
mod tests {
    use evows_core::testing::{FilterHarness, event};
    use proptest::collection::vec;
    use proptest::prelude::*;
    use tokio::time::advance;

    use super::*;

    type Bench = FilterHarness<Throttle>;

    const MS: Duration = Duration::from_millis(1);

    fn numbered(instance: &str, number: usize) -> Event {
        event(&format!(
            r#"{{"event":"call","instance":"{instance}","data":{number}}}"#
        ))
    }

    fn number(event: &Event) -> usize {
        let number = event.document()["data"].as_u64().unwrap();
        usize::try_from(number).unwrap()
    }

    fn emitted(bench: &mut Bench) -> Vec<usize> {
        bench.emitted().iter().map(number).collect()
    }

    fn discarded(bench: &mut Bench) -> Vec<(usize, &'static str)> {
        let discarded = bench.discarded();
        let numbers = discarded.iter();
        numbers
            .map(|(event, reason)| (number(event), *reason))
            .collect()
    }

    #[tokio::test(start_paused = true)]
    async fn a_burst_and_then_the_rate() {
        let mut bench = Bench::from_toml("rate = 2\nburst = 3");
        for number in 0..5 {
            bench.send(numbered("a", number));
        }
        assert_eq!(emitted(&mut bench), [0, 1, 2]);
        assert_eq!(discarded(&mut bench), [(3, "throttled"), (4, "throttled")]);
        advance(499 * MS).await;
        bench.send(numbered("a", 5)).send(numbered("b", 6));
        assert_eq!(emitted(&mut bench), [6]);
        advance(MS).await;
        bench.send(numbered("a", 7)).send(numbered("a", 8));
        assert_eq!(emitted(&mut bench), [7]);
        assert_eq!(bench.filter().unwrap().tick(), None);
    }

    #[tokio::test(start_paused = true)]
    async fn delay_keeps_the_order_and_the_rate() {
        let mut bench = Bench::from_toml("rate = 10\nburst = 1\nexcess = \"delay\"");
        for number in 0..4 {
            bench.send(numbered("a", number));
        }
        assert_eq!(emitted(&mut bench), [0]);
        advance(99 * MS).await;
        assert!(emitted(bench.tick()).is_empty());
        // The next ones are charged to when they were due, not to the tick.
        advance(51 * MS).await;
        assert_eq!(emitted(bench.tick()), [1]);
        advance(50 * MS).await;
        assert_eq!(emitted(bench.tick()), [2]);
        advance(100 * MS).await;
        bench.send(numbered("a", 4));
        assert_eq!(emitted(&mut bench), [3]);
        assert_eq!(emitted(bench.flush()), [4]);
        assert_eq!(bench.filter().unwrap().bytes, 0);
    }

    #[tokio::test(start_paused = true)]
    async fn there_is_no_burst_after_a_long_wait() {
        let mut bench = Bench::from_toml("rate = 10\nburst = 1\nexcess = \"delay\"");
        for number in 0..100 {
            bench.send(numbered("a", number));
        }
        advance(5000 * MS).await;
        // The one that is due, and the one of the tick that is late.
        assert_eq!(emitted(bench.tick()), [0, 1, 2]);
    }

    #[tokio::test(start_paused = true)]
    async fn only_so_much_is_held() {
        let keys = "rate = 1\nexcess = \"delay\"\nmax_held = 2\nmax_bytes = 1800";
        let mut bench = Bench::from_toml(keys);
        for number in 0..4 {
            bench.send(numbered("a", number));
        }
        assert_eq!(discarded(&mut bench), [(3, "held_too_many")]);
        for number in 4..7 {
            bench.send(numbered("b", number));
        }
        assert_eq!(discarded(&mut bench), [(6, "held_too_much")]);
        assert_eq!(emitted(&mut bench), [0, 4]);
        let mut held = emitted(bench.flush());
        held.sort_unstable();
        assert_eq!(held, [1, 2, 5]);
        bench.send(numbered("b", 7));
        assert_eq!(emitted(bench.flush()), [7]);
    }

    #[tokio::test(start_paused = true)]
    async fn latest_holds_the_newest_of_each_key() {
        let mut bench = Bench::from_toml("rate = 1\nexcess = \"latest\"");
        for number in 0..4 {
            bench.send(numbered("a", number));
        }
        bench.send(numbered("b", 4)).send(numbered("b", 5));
        assert_eq!(emitted(&mut bench), [0, 4]);
        assert_eq!(discarded(&mut bench), [(1, "replaced"), (2, "replaced")]);
        advance(1000 * MS).await;
        let mut now = emitted(bench.tick());
        now.sort_unstable();
        assert_eq!(now, [3, 5]);
        assert_eq!(bench.filter().unwrap().bytes, 0);
    }

    #[tokio::test(start_paused = true)]
    async fn the_key_unused_for_longest_lets_go_and_starts_anew() {
        let keys = "rate = 1\nper = \"1h\"\nexcess = \"delay\"\nmax_keys = 2";
        let mut bench = Bench::from_toml(keys);
        for (instance, number) in [("a", 0), ("a", 1), ("a", 2), ("b", 3), ("b", 4)] {
            bench.send(numbered(instance, number));
        }
        assert_eq!(emitted(&mut bench), [0, 3]);
        bench.send(numbered("c", 5));
        assert_eq!(emitted(&mut bench), [1, 2, 5]);
        bench.send(numbered("a", 6));
        assert_eq!(emitted(&mut bench), [4, 6]);
        let filter = bench.filter().unwrap();
        assert_eq!((filter.bytes, filter.due.len()), (0, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_key_there_is_one_limit() {
        let mut bench = Bench::from_toml("rate = 1\nkey = []");
        bench.send(numbered("a", 0)).send(numbered("b", 1));
        assert_eq!(emitted(&mut bench), [0]);
    }

    #[test]
    fn says_what_is_wrong() {
        for (keys, message) in [
            ("rate = 0", "`rate` is 0"),
            ("rate = 1.5", "write `rate = 3` and `per = \"2s\"`"),
            ("rate = -1", "must be a whole number"),
            ("per = \"0s\"", "`per` is 0"),
            ("burst = 0", "`burst` is 0"),
            ("max_held = 0", "`max_held` is 0"),
            ("max_keys = 0", "`max_keys` is 0"),
            ("key = [\"\"]", "is not a path"),
            ("excess = \"wait\"", "wait"),
        ] {
            let problems = Bench::problems(keys);
            assert!(problems.contains(message), "{keys}: {problems}");
        }
    }

    /// Sends numbered events after these pauses, ticking as asked for, and says when which of them passed.
    fn run(keys: &str, steps: &[(u64, usize)]) -> Vec<(u64, usize)> {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = runtime.enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let start = Instant::now();
            let mut bench = Bench::from_toml(keys);
            let tick = bench.filter().unwrap().tick();
            let mut next = tick.map(|tick| start + tick);
            let mut passed = Vec::new();
            let mut discarded = 0;
            let mut note = |bench: &mut Bench| {
                let micros = u64::try_from(start.elapsed().as_micros()).unwrap();
                passed.extend(emitted(bench).into_iter().map(|number| (micros, number)));
                discarded += bench.discarded().len();
            };
            for (number, (pause, instance)) in steps.iter().enumerate() {
                let until = Instant::now() + Duration::from_micros(*pause);
                while let (Some(at), Some(tick)) = (next, tick)
                    && at <= until
                {
                    advance(at - Instant::now()).await;
                    note(bench.tick());
                    next = Some(at + tick);
                }
                advance(until - Instant::now()).await;
                note(bench.send(numbered(&instance.to_string(), number)));
            }
            note(bench.flush());
            assert_eq!(passed.len() + discarded, steps.len());
            passed
        })
    }

    proptest! {
        #[test]
        fn no_more_than_the_burst_and_the_rate_pass(
            steps in vec((0_u64..30_000, 0_usize..3), 1..200),
            rate in 1_u64..400,
            burst in 1_u64..10,
            delay: bool,
        ) {
            let excess = if delay { "delay" } else { "drop" };
            let keys = format!("rate = {rate}\nburst = {burst}\nexcess = \"{excess}\"");
            let passed = run(&keys, &steps);
            let limit = Limit::new(rate, Duration::from_secs(1), burst);
            let late = if delay { nanos(limit.tick()) } else { 0 };
            let end: u64 = steps.iter().map(|(pause, _)| pause).sum();
            for key in 0..3 {
                let of_key = passed.iter().filter(|(_, number)| steps[*number].1 == key);
                let of_key: Vec<_> = of_key.collect();
                prop_assert!(of_key.is_sorted_by(|one, other| one.1 < other.1));
                // What the flush lets go of comes last, and has no limit.
                let times: Vec<_> = of_key.iter().map(|(at, _)| *at).filter(|at| *at < end).collect();
                for (first, from) in times.iter().enumerate() {
                    for (last, to) in times.iter().enumerate().skip(first) {
                        let most = burst + ((to - from) * 1000 + late) / limit.interval;
                        prop_assert!((last - first + 1) as u64 <= most);
                    }
                }
            }
        }
    }
}
