//! Discards events that were there a moment ago.
//!
//! ```toml
//! [filters.once]
//! type = "dedupe"
//! inputs = ["evolution"]
//! window = "5m"
//! key = ["instance", "event", "data.key.id"]
//! ```
//!
//! Events are the same when their values at the paths of `key` are equal; by default those are the instance, the event
//! and all of its `data`, and not `date_time`, `sender`, `server_url` or `apikey`, which may differ between two reports
//! of one thing. A path that is not there counts as null: with the key above, all events of one name that have no
//! `data.key.id` would be the same, so put a filter `events` before it.
//!
//! The window begins with the event that passes: what is repeated all the time passes once in each window. Discarded
//! events count under `duplicate`.
//!
//! What passed here may still fail further on, and its sender's next attempt is discarded. Where attempts are to be told
//! from new events, use `idempotency` of the source `webhook`, which knows how they ended.

use std::collections::{HashSet, VecDeque};
use std::mem;
use std::time::Duration;

use evows_core::config::{Period, Problem};
use evows_core::plugin::{BuildContext, BuildError, Emitter, Filter, FilterPlugin};
use evows_core::{Event, register_filter};
use schemars::JsonSchema;
use serde::Deserialize;
use tokio::time::Instant;

use super::key::Key;

/// Discards events that were there a moment ago.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// How long after an event passed the same one is discarded.
    pub window: Period,
    /// Paths into the envelope: events that are equal there are the same.
    pub key: Key,
    /// Events that are remembered at most, for some 50 bytes each. Beyond it the oldest is forgotten, and would pass again.
    pub max_keys: usize,
}

/// The running filter.
#[derive(Debug)]
pub struct Dedupe {
    key: Key,
    window: Duration,
    max_keys: usize,
    seen: HashSet<u128>,
    /// The keys in `seen` and when their events passed, the oldest first.
    order: VecDeque<(Instant, u128)>,
}

register_filter!(
    Dedupe,
    summary = "Discards events that were there a moment ago.",
    example = "window = \"5m\"\nkey = [\"instance\", \"event\", \"data.key.id\"]\n",
);

// === impl Config ===

impl Default for Config {
    fn default() -> Self {
        Self {
            window: Period::seconds(5 * 60),
            key: Key::from(["instance", "event", "data"]),
            max_keys: 100_000,
        }
    }
}

// === impl Dedupe ===

impl FilterPlugin for Dedupe {
    const NAME: &'static str = "dedupe";
    type Config = Config;

    fn check(config: &Config) -> Vec<Problem> {
        let mut problems = config.key.check("key");
        let mut problem = |key: &str, message: &str, help: &str| {
            problems.push(Problem::new("invalid", message).at_key(key).help(help));
        };
        if config.key.is_empty() {
            let message = "`key` is empty: all events are the same";
            problem(
                "key",
                message,
                "name paths, or leave it out to compare instance, event and data",
            );
        }
        if config.window.0.is_zero() {
            problem(
                "window",
                "`window` is 0: nothing is remembered",
                "such as \"5m\"",
            );
        }
        if config.max_keys == 0 {
            problem(
                "max_keys",
                "`max_keys` is 0: nothing is remembered",
                "at least 1",
            );
        }
        problems
    }

    fn build(config: Config, _cx: &BuildContext) -> Result<Self, BuildError> {
        Ok(Self {
            key: config.key,
            window: config.window.0,
            max_keys: config.max_keys,
            seen: HashSet::new(),
            order: VecDeque::new(),
        })
    }

    fn take_over(&mut self, before: &mut Self) {
        if self.key == before.key {
            self.seen = mem::take(&mut before.seen);
            self.order = mem::take(&mut before.order);
            while self.order.len() > self.max_keys
                && let Some(&(_, oldest)) = self.order.front()
            {
                self.forget_oldest(oldest);
            }
        }
    }
}

impl Dedupe {
    /// Whether an event of this key passes; if so, it is remembered.
    fn passes(&mut self, key: u128, now: Instant) -> bool {
        while let Some(&(at, oldest)) = self.order.front()
            && now.duration_since(at) >= self.window
        {
            self.forget_oldest(oldest);
        }
        if !self.seen.insert(key) {
            return false;
        }
        if self.order.len() >= self.max_keys
            && let Some(&(_, oldest)) = self.order.front()
        {
            self.forget_oldest(oldest);
        }
        self.order.push_back((now, key));
        true
    }

    fn forget_oldest(&mut self, key: u128) {
        self.order.pop_front();
        self.seen.remove(&key);
    }
}

impl Filter for Dedupe {
    fn apply(&mut self, event: Event, out: &mut Emitter<'_>) {
        if self.passes(self.key.of(&event), Instant::now()) {
            out.emit(event);
        } else {
            out.discard(event, "duplicate");
        }
    }
}

#[cfg(test)]
mod tests {
    use evows_core::testing::FilterHarness;
    use proptest::collection::vec;
    use proptest::prelude::*;
    use tokio::time::advance;

    use super::*;

    type Bench = FilterHarness<Dedupe>;

    const MS: Duration = Duration::from_millis(1);

    /// Whether it passes.
    fn passes(bench: &mut Bench, members: &str) -> bool {
        bench.send_json(&format!(r#"{{"event":"call","instance":"a",{members}}}"#));
        let (emitted, discarded) = (bench.emitted(), bench.discarded());
        assert_eq!(emitted.len() + discarded.len(), 1);
        assert!(discarded.iter().all(|(_, reason)| *reason == "duplicate"));
        !emitted.is_empty()
    }

    #[tokio::test(start_paused = true)]
    async fn the_same_content_passes_once_in_each_window() {
        let mut bench = Bench::from_toml("window = \"1m\"");
        let again = r#""data":{"id":1},"date_time":"2026-01-01T00:00:01.000Z""#;
        assert!(passes(
            &mut bench,
            r#""data":{"id":1},"date_time":"2026-01-01T00:00:00.000Z""#
        ));
        assert!(!passes(&mut bench, again));
        assert!(passes(&mut bench, r#""data":{"id":2}"#));
        advance(59_999 * MS).await;
        assert!(!passes(&mut bench, again));
        advance(MS).await;
        assert!(passes(&mut bench, again));
        assert!(!passes(&mut bench, again));
        assert_eq!(bench.filter().unwrap().order.len(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn the_key_says_what_is_the_same() {
        let mut bench = Bench::from_toml("key = [\"data.id\"]");
        assert!(passes(&mut bench, r#""data":{"id":1,"n":1}"#));
        assert!(!passes(&mut bench, r#""data":{"id":1,"n":2}"#));
        assert!(passes(&mut bench, r#""data":{"id":2,"n":1}"#));
    }

    #[tokio::test(start_paused = true)]
    async fn the_oldest_is_forgotten_when_there_are_too_many() {
        let mut bench = Bench::from_toml("max_keys = 2");
        let (one, two, three) = (r#""data":1"#, r#""data":2"#, r#""data":3"#);
        assert!(passes(&mut bench, one));
        assert!(passes(&mut bench, two));
        assert!(passes(&mut bench, three));
        assert!(!passes(&mut bench, two));
        assert!(passes(&mut bench, one));
        assert!(passes(&mut bench, two));
    }

    #[test]
    fn says_what_is_wrong() {
        for (keys, message) in [
            ("key = []", "`key` is empty"),
            ("key = [\"data.\"]", "is not a path"),
            ("window = \"0s\"", "`window` is 0"),
            ("max_keys = 0", "`max_keys` is 0"),
        ] {
            let problems = Bench::problems(keys);
            assert!(problems.contains(message), "{keys}: {problems}");
        }
    }

    proptest! {
        #[test]
        fn an_event_passes_unless_the_same_one_passed_in_the_window(
            steps in vec((0_u64..50, 0_u128..6), 0..200),
        ) {
            let mut bench = Bench::from_toml("window = \"100ms\"");
            let filter = bench.filter().unwrap();
            let mut now = Instant::now();
            let mut passed = std::collections::HashMap::new();
            for (pause, key) in steps {
                now += Duration::from_millis(pause);
                let fresh = passed.get(&key).is_none_or(|at| now - *at >= 100 * MS);
                if fresh {
                    passed.insert(key, now);
                }
                prop_assert_eq!(filter.passes(key, now), fresh);
                prop_assert_eq!(filter.order.len(), filter.seen.len());
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_seen_stays_seen_with_another_window() {
        let mut bench = Bench::from_toml("key = ['data']\nwindow = '1m'");
        assert!(passes(&mut bench, "\"data\":1") && passes(&mut bench, "\"data\":2"));
        bench.reload("key = ['data']\nwindow = '10s'");
        assert!(!passes(&mut bench, "\"data\":1"));
        // The older one makes room.
        bench.reload("key = ['data']\nwindow = '10s'\nmax_keys = 1");
        assert!(!passes(&mut bench, "\"data\":2"));
        assert!(passes(&mut bench, "\"data\":1"));
        advance(10_000 * MS).await;
        assert!(passes(&mut bench, "\"data\":1"));
        bench.reload("key = ['data', 'event']\nwindow = '10s'");
        assert!(
            passes(&mut bench, "\"data\":1"),
            "nothing was seen of this key"
        );
    }
}
