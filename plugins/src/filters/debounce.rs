//! Lets the latest event of each key through once no other came for a while.
//!
//! ```toml
//! [filters.settled]
//! type = "debounce"
//! inputs = ["evolution"]
//! quiet = "2s"
//! max_wait = "10s"
//! key = ["instance", "event"]
//! ```
//!
//! For storms in which only the last word counts, such as `qrcode.updated`, `connection.update` or `presence.update`: put
//! a filter `events` before it that picks them. An event waits for `quiet`; one that comes in that time with the same
//! key takes its place, and the wait begins again, up to `max_wait` after the first one. Events that are replaced count
//! under `superseded`.
//!
//! Sources wait for events that are held. Keep `max_wait` below the time that a sender has patience for, which is 25
//! seconds for the source `webhook`. At stop everything held is let go at once.

use std::collections::hash_map::Entry;
use std::collections::{BTreeSet, HashMap};
use std::mem;
use std::time::Duration;

use evows_core::config::{Period, Problem, Size};
use evows_core::plugin::{BuildContext, BuildError, Emitter, Filter, FilterPlugin};
use evows_core::{Event, register_filter};
use schemars::JsonSchema;
use serde::Deserialize;
use tokio::time::Instant;

use super::key::Key;
use super::weight;

/// How often what is held is looked through.
const TICKS: (Duration, Duration) = (Duration::from_millis(5), Duration::from_millis(100));

/// Lets the latest event of each key through once no other came for a while.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// How long no other event of the key may come before the latest one passes.
    pub quiet: Period,
    /// How long after the first event the latest one passes at the latest, however many come.
    pub max_wait: Period,
    /// Paths into the envelope: events that are equal there replace each other. All events do when empty.
    pub key: Key,
    /// Events that are held at most, one of each key. Beyond it the one that is due first passes early.
    pub max_keys: usize,
    /// Size of all events that are held at most. Beyond it the one that is due first passes early.
    pub max_bytes: Size,
}

/// The running filter.
#[derive(Debug)]
pub struct Debounce {
    config: Config,
    held: HashMap<u128, Held>,
    /// When each key is due.
    due: BTreeSet<(Instant, u128)>,
    /// What all the events held weigh.
    bytes: usize,
}

#[derive(Debug)]
struct Held {
    event: Event,
    due: Instant,
    /// When it is due, whatever comes.
    last: Instant,
}

register_filter!(
    Debounce,
    summary = "Lets the latest event of each key through once no other came for a while.",
    example = "quiet = \"2s\"\nmax_wait = \"10s\"\nkey = [\"instance\", \"event\"]\n",
);

// === impl Config ===

impl Default for Config {
    fn default() -> Self {
        Self {
            quiet: Period::seconds(1),
            max_wait: Period::seconds(10),
            key: Key::from(["instance", "event"]),
            max_keys: 10_000,
            max_bytes: Size::mib(64),
        }
    }
}

// === impl Debounce ===

impl FilterPlugin for Debounce {
    const NAME: &'static str = "debounce";
    type Config = Config;

    fn check(config: &Config) -> Vec<Problem> {
        let mut problems = config.key.check("key");
        let mut problem = |key: &str, message: String, help: &str| {
            problems.push(Problem::new("invalid", message).at_key(key).help(help));
        };
        let (quiet, max_wait) = (config.quiet, config.max_wait);
        if quiet.0.is_zero() {
            let message = "`quiet` is 0: no event waits for another".to_owned();
            problem("quiet", message, "such as \"1s\"");
        }
        if max_wait < quiet {
            let message = format!("`max_wait` is {max_wait}, less than `quiet`, {quiet}");
            problem("max_wait", message, "at least as long as `quiet`");
        }
        if config.max_keys == 0 {
            let message = "`max_keys` is 0: nothing is held".to_owned();
            problem("max_keys", message, "at least 1");
        }
        problems
    }

    fn build(config: Config, _cx: &BuildContext) -> Result<Self, BuildError> {
        Ok(Self {
            config,
            held: HashMap::new(),
            due: BTreeSet::new(),
            bytes: 0,
        })
    }

    /// What is held goes when it would have gone, or, with shorter times, as if it had come now.
    fn take_over(&mut self, before: &mut Self) {
        if self.config.key != before.config.key {
            return;
        }
        let now = Instant::now();
        let (quiet, max_wait) = (now + self.config.quiet.0, now + self.config.max_wait.0);
        for (key, mut held) in before.held.drain() {
            held.last = held.last.min(max_wait);
            held.due = held.due.min(quiet).min(held.last);
            self.due.insert((held.due, key));
            self.held.insert(key, held);
        }
        before.due.clear();
        self.bytes = mem::take(&mut before.bytes);
    }
}

impl Debounce {
    /// Lets go of the event that is due first.
    fn release_first(&mut self, out: &mut Emitter<'_>) {
        let first = self.due.pop_first();
        if let Some(held) = first.and_then(|(_, key)| self.held.remove(&key)) {
            self.bytes -= weight(&held.event);
            out.emit(held.event);
        }
    }

    fn release(&mut self, now: Instant, out: &mut Emitter<'_>) {
        while self.due.first().is_some_and(|(due, _)| *due <= now) {
            self.release_first(out);
        }
    }

    /// Holds an event, in the place of the one that it replaces.
    fn hold(&mut self, event: Event, now: Instant, out: &mut Emitter<'_>) {
        let key = self.config.key.of(&event);
        let due = now + self.config.quiet.0;
        self.bytes += weight(&event);
        match self.held.entry(key) {
            Entry::Vacant(place) => {
                self.due.insert((due, key));
                let last = now + self.config.max_wait.0;
                place.insert(Held { event, due, last });
            }
            Entry::Occupied(mut place) => {
                let held = place.get_mut();
                self.due.remove(&(held.due, key));
                held.due = due.min(held.last);
                self.due.insert((held.due, key));
                let old = mem::replace(&mut held.event, event);
                self.bytes -= weight(&old);
                out.discard(old, "superseded");
            }
        }
    }
}

impl Filter for Debounce {
    fn apply(&mut self, event: Event, out: &mut Emitter<'_>) {
        let now = Instant::now();
        // What is due already is not replaced, though its tick is still to come.
        self.release(now, out);
        self.hold(event, now, out);
        let max_bytes = self.config.max_bytes.bytes();
        while self.held.len() > self.config.max_keys || self.bytes > max_bytes {
            self.release_first(out);
        }
    }

    fn ticked(&mut self, out: &mut Emitter<'_>) {
        self.release(Instant::now(), out);
    }

    fn tick(&self) -> Option<Duration> {
        Some((self.config.quiet.0 / 10).clamp(TICKS.0, TICKS.1))
    }

    fn is_idle(&self) -> bool {
        self.due.is_empty()
    }

    fn flush(&mut self, out: &mut Emitter<'_>) {
        while !self.due.is_empty() {
            self.release_first(out);
        }
    }
}

#[cfg(test)]
mod tests {
    use evows_core::testing::{FilterHarness, event};
    use proptest::collection::vec;
    use proptest::prelude::*;
    use tokio::time::advance;

    use super::*;

    type Bench = FilterHarness<Debounce>;

    const MS: Duration = Duration::from_millis(1);

    fn numbered(instance: &str, number: usize) -> Event {
        event(&format!(
            r#"{{"event":"qrcode.updated","instance":"{instance}","data":{number}}}"#
        ))
    }

    fn number(event: &Event) -> usize {
        let number = event.document()["data"].as_u64().unwrap();
        usize::try_from(number).unwrap()
    }

    fn emitted(bench: &mut Bench) -> Vec<usize> {
        bench.emitted().iter().map(number).collect()
    }

    fn superseded(bench: &mut Bench) -> Vec<usize> {
        let discarded = bench.discarded();
        assert!(discarded.iter().all(|(_, reason)| *reason == "superseded"));
        discarded.iter().map(|(event, _)| number(event)).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn the_latest_passes_once_it_is_quiet() {
        let mut bench = Bench::from_toml("quiet = \"1s\"");
        for number in 0..3 {
            bench.send(numbered("a", number)).tick();
            advance(900 * MS).await;
        }
        assert!(emitted(bench.tick()).is_empty());
        assert_eq!(superseded(&mut bench), [0, 1]);
        advance(100 * MS).await;
        assert_eq!(emitted(bench.tick()), [2]);
        assert!(emitted(bench.flush()).is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_storm_is_put_off_for_so_long_and_no_longer() {
        let mut bench = Bench::from_toml("quiet = \"1s\"\nmax_wait = \"3s\"");
        let mut passed = Vec::new();
        for number in 0..15 {
            bench.send(numbered("a", number));
            advance(500 * MS).await;
            passed.extend(emitted(bench.tick()));
        }
        assert_eq!(passed, [5, 11]);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_due_is_not_replaced() {
        let mut bench = Bench::from_toml("quiet = \"1s\"");
        bench.send(numbered("a", 0));
        advance(1000 * MS).await;
        bench.send(numbered("a", 1));
        assert_eq!(emitted(&mut bench), [0]);
        assert!(superseded(&mut bench).is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn keys_are_apart_and_a_flush_lets_go_of_all() {
        let mut bench = Bench::from_toml("");
        for (instance, number) in [("a", 0), ("b", 1), ("a", 2)] {
            bench.send(numbered(instance, number));
            advance(MS).await;
        }
        assert!(emitted(&mut bench).is_empty());
        assert_eq!(emitted(bench.flush()), [1, 2]);
        assert_eq!(superseded(&mut bench), [0]);
        assert_eq!(bench.filter().unwrap().bytes, 0);
    }

    #[tokio::test(start_paused = true)]
    async fn beyond_the_limits_the_first_passes_early() {
        for keys in ["max_keys = 2", "max_bytes = 1300"] {
            let mut bench = Bench::from_toml(keys);
            for (number, instance) in ["a", "b", "c"].into_iter().enumerate() {
                bench.send(numbered(instance, number));
                advance(MS).await;
            }
            assert_eq!(emitted(&mut bench), [0], "{keys}");
        }
        let mut bench = Bench::from_toml("max_bytes = 100");
        bench.send(numbered("a", 0));
        assert_eq!(emitted(&mut bench), [0]);
    }

    #[test]
    fn says_what_is_wrong() {
        for (keys, message) in [
            ("quiet = \"0s\"", "`quiet` is 0"),
            (
                "quiet = \"20s\"",
                "`max_wait` is 10s, less than `quiet`, 20s",
            ),
            ("max_keys = 0", "`max_keys` is 0"),
            ("key = [\".\"]", "is not a path"),
        ] {
            let problems = Bench::problems(keys);
            assert!(problems.contains(message), "{keys}: {problems}");
        }
    }

    /// When which event passes, by the definition, where all have one key and every millisecond is ticked.
    fn expected(times: &[u64], quiet: u64, max_wait: u64) -> Vec<(u64, usize)> {
        let mut passed = Vec::new();
        let mut first = 0;
        for (number, at) in times.iter().enumerate() {
            let due = (at + quiet).min(times[first] + max_wait);
            if times.get(number + 1).is_none_or(|next| due <= *next) {
                passed.push((due, number));
                first = number + 1;
            }
        }
        passed
    }

    proptest! {
        #[test]
        fn exactly_the_latest_pass(
            pauses in vec(0_u64..60, 1..40),
            quiet in 1_u64..50,
            longer in 0_u64..100,
        ) {
            let mut at = 0;
            let times = pauses.iter().map(|pause| { at += pause; at });
            let times: Vec<u64> = times.collect();
            let max_wait = quiet + longer;
            let keys = format!("quiet = \"{quiet}ms\"\nmax_wait = \"{max_wait}ms\"");
            let mut runtime = tokio::runtime::Builder::new_current_thread();
            let runtime = runtime.enable_time().start_paused(true).build().unwrap();
            let passed = runtime.block_on(async {
                let mut bench = Bench::from_toml(&keys);
                let mut passed = Vec::new();
                let mut numbers = times.iter().enumerate().peekable();
                for now in 0..=at + max_wait {
                    passed.extend(emitted(bench.tick()).into_iter().map(|number| (now, number)));
                    while let Some((number, _)) = numbers.next_if(|(_, at)| **at == now) {
                        bench.send(numbered("a", number));
                    }
                    advance(MS).await;
                }
                assert_eq!(passed.len() + superseded(&mut bench).len(), times.len());
                passed
            });
            prop_assert_eq!(passed, expected(&times, quiet, max_wait));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_held_waits_on_with_other_times() {
        let mut bench = Bench::from_toml("quiet = '1s'");
        bench.send(numbered("a", 1));
        advance(500 * MS).await;
        assert!(emitted(bench.reload("quiet = '3s'\nmax_wait = '5s'")).is_empty());
        bench.send(numbered("a", 2));
        assert_eq!(superseded(&mut bench), [1]);
        advance(2_999 * MS).await;
        assert!(emitted(bench.tick()).is_empty());
        advance(MS).await;
        assert_eq!(emitted(bench.tick()), [2]);
        bench.send(numbered("a", 3));
        bench.reload("quiet = '100ms'");
        advance(100 * MS).await;
        assert_eq!(
            emitted(bench.tick()),
            [3],
            "it does not wait for the time that was"
        );
        bench.send(numbered("a", 4));
        // Of other keys nothing is known: it goes.
        assert_eq!(emitted(bench.reload("key = ['event']")), [4]);
    }
}
