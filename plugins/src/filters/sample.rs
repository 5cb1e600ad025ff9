//! Keeps a share of the events.
//!
//! ```toml
//! [filters.tenth]
//! type = "sample"
//! inputs = ["evolution"]
//! rate = 0.1                            # or: one_in = 10
//! key = ["instance", "data.key.remoteJid"]
//! ```
//!
//! Without a `key` every so-many-th event is kept, the first one included. With one, all events whose values at these
//! paths are equal share one fate, drawn from a hash of the values: whole conversations stay or go, and the share is
//! that of keys. The draw depends on the filter's id, so that it is the same after a restart, and another one in
//! another filter.
//!
//! Discarded events count under `sampled_out`.

use std::fmt;

use evows_core::config::Problem;
use evows_core::plugin::{BuildContext, BuildError, Emitter, Filter, FilterPlugin};
use evows_core::{Event, register_filter};
use schemars::JsonSchema;
use serde::de::{self, Visitor};
use serde::{Deserialize, Deserializer};
use xxhash_rust::xxh3::xxh3_64;

use super::key::Key;

/// All of the events, in the unit that [`Sample`] reckons shares in.
const ALL: u128 = 1 << 64;

/// Keeps a share of the events.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Share of the events to keep, from 0 (none) to 1 (all). Without it and `one_in`, all are kept.
    #[serde(deserialize_with = "share")]
    pub rate: Option<f64>,
    /// The share the other way: one in so many events is kept.
    pub one_in: Option<u64>,
    /// Paths into the envelope, such as `["instance", "data.key.remoteJid"]`: events that are equal there are all kept or
    /// all discarded. Every so-many-th event is kept when empty.
    pub key: Key,
}

/// The running filter.
#[derive(Debug)]
pub struct Sample {
    /// The share that is kept, from 0 to [`ALL`].
    share: u128,
    /// What the shares so far add up to, less an [`ALL`] for each event that was kept.
    sum: u128,
    key: Key,
    seed: u64,
}

register_filter!(
    Sample,
    summary = "Keeps a share of the events.",
    example = "rate = 0.1\nkey = [\"instance\", \"data.key.remoteJid\"]\n",
);

/// Reads a share, and says how to write one that is a percentage.
fn share<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<f64>, D::Error> {
    struct Share;

    impl Visitor<'_> for Share {
        type Value = f64;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a number from 0 to 1 (0.1 keeps 10 % of the events)")
        }

        fn visit_f64<E: de::Error>(self, number: f64) -> Result<f64, E> {
            Ok(number)
        }

        fn visit_i64<E: de::Error>(self, number: i64) -> Result<f64, E> {
            // What is no share is found by the check.
            Ok(i32::try_from(number).unwrap_or(i32::MAX).into())
        }
    }

    deserializer.deserialize_any(Share).map(Some)
}

// === impl Config ===

impl Default for Config {
    fn default() -> Self {
        Self {
            rate: None,
            one_in: None,
            key: Key::from([]),
        }
    }
}

impl Config {
    fn share(&self) -> u128 {
        match (self.rate, self.one_in) {
            (Some(rate), _) => {
                #[expect(
                    clippy::cast_possible_truncation,
                    clippy::cast_precision_loss,
                    clippy::cast_sign_loss,
                    reason = "a number from 0 to 2^64, which a double has as it is"
                )]
                let share = (rate.clamp(0.0, 1.0) * ALL as f64) as u128;
                share
            }
            (None, Some(many)) => ALL.div_ceil(u128::from(many.max(1))),
            (None, None) => ALL,
        }
    }
}

// === impl Sample ===

impl FilterPlugin for Sample {
    const NAME: &'static str = "sample";
    type Config = Config;

    fn check(config: &Config) -> Vec<Problem> {
        let mut problems = config.key.check("key");
        let mut problem = |key: &str, message: String, help: &str| {
            problems.push(Problem::new("invalid", message).at_key(key).help(help));
        };
        if let Some(rate) = config.rate
            && !(0.0..=1.0).contains(&rate)
        {
            let message = format!("`rate` is {rate}, which is no share of the events");
            problem("rate", message, "from 0 to 1: 0.1 keeps one in ten");
        }
        if config.one_in == Some(0) {
            let message = "`one_in` is 0: there is no such share".to_owned();
            problem("one_in", message, "10 keeps one in ten, 1 keeps all");
        }
        if config.rate.is_some() && config.one_in.is_some() {
            let message = "`rate` and `one_in` both say how much is kept".to_owned();
            problem("one_in", message, "write one of them");
        }
        problems
    }

    fn build(config: Config, cx: &BuildContext) -> Result<Self, BuildError> {
        let share = config.share();
        Ok(Self {
            share,
            // So that the first event is kept, unless none is.
            sum: ALL - share.max(1),
            key: config.key,
            seed: xxh3_64(cx.id().as_bytes()),
        })
    }

    fn take_over(&mut self, before: &mut Self) {
        if self.key == before.key {
            self.sum = before.sum;
        }
    }
}

impl Sample {
    fn keeps(&mut self, event: &Event) -> bool {
        if !self.key.is_empty() {
            let draw = self.key.seeded(event, self.seed) % ALL;
            return draw < self.share;
        }
        self.sum += self.share;
        let keeps = self.sum >= ALL;
        if keeps {
            self.sum -= ALL;
        }
        keeps
    }
}

impl Filter for Sample {
    fn apply(&mut self, event: Event, out: &mut Emitter<'_>) {
        if self.keeps(&event) {
            out.emit(event);
        } else {
            out.discard(event, "sampled_out");
        }
    }
}

#[cfg(test)]
mod tests {
    use evows_core::testing::{FilterHarness, context};

    use super::*;

    /// Which of the events are kept, by their numbers. There are ten of each conversation.
    fn kept(keys: &str, id: &str, events: usize) -> Vec<usize> {
        let mut bench = FilterHarness::<Sample>::build_in(keys, &context(id)).unwrap();
        for number in 0..events {
            let chat = number / 10;
            bench.send_json(&format!(
                r#"{{"event":"call","instance":"a","data":{{"chat":{chat},"number":{number}}}}}"#
            ));
        }
        let (emitted, discarded) = (bench.emitted(), bench.discarded());
        assert_eq!(emitted.len() + discarded.len(), events);
        assert!(discarded.iter().all(|(_, reason)| *reason == "sampled_out"));
        bench.finish();
        let number = |event: &Event| event.document()["data"]["number"].as_u64();
        let numbers = emitted.iter().filter_map(number);
        numbers
            .map(|number| usize::try_from(number).unwrap())
            .collect()
    }

    #[test]
    fn every_nth_is_kept_from_the_first_on() {
        for keys in ["one_in = 10", "rate = 0.1"] {
            let expected: Vec<_> = (0..1000).step_by(10).collect();
            assert_eq!(kept(keys, "a", 1000), expected, "{keys}");
        }
        assert_eq!(kept("one_in = 3", "a", 8), [0, 3, 6]);
        assert_eq!(kept("rate = 0.75", "a", 8), [0, 2, 3, 4, 6, 7]);
    }

    #[test]
    fn nothing_and_everything() {
        let all: Vec<_> = (0..100).collect();
        for keys in ["", "rate = 1", "one_in = 1", "rate = 1.0\nkey = [\"data\"]"] {
            assert_eq!(kept(keys, "a", 100), all, "{keys}");
        }
        for keys in ["rate = 0", "rate = 0.0\nkey = [\"data\"]"] {
            assert!(kept(keys, "a", 100).is_empty(), "{keys}");
        }
    }

    #[test]
    fn events_of_one_key_share_one_fate_that_lasts() {
        let keys = "rate = 0.25\nkey = [\"instance\", \"data.chat\"]";
        let one = kept(keys, "one", 10_000);
        for chat in one.chunks(10) {
            let first = chat[0];
            assert!(first.is_multiple_of(10));
            assert!(chat.iter().copied().eq(first..first + 10));
        }
        // A thousand chats; the draw is fixed, as the ids are.
        assert!((2000..3000).contains(&one.len()), "{}", one.len());
        assert_eq!(kept(keys, "one", 10_000), one);
        assert_ne!(kept(keys, "other", 10_000), one);
    }

    #[test]
    fn says_what_is_wrong() {
        for (keys, message) in [
            ("rate = 1.5", "`rate` is 1.5"),
            ("rate = 50", "`rate` is 50"),
            ("rate = \"10%\"", "0.1 keeps 10 % of the events"),
            ("rate = nan", "`rate` is NaN"),
            ("one_in = 0", "`one_in` is 0"),
            ("rate = 0.5\none_in = 2", "both say"),
            ("key = [\"data..id\"]", "`data..id` is not a path"),
        ] {
            let problems = FilterHarness::<Sample>::problems(keys);
            assert!(problems.contains(message), "{keys}: {problems}");
        }
    }

    #[test]
    fn every_nth_is_kept_over_a_reload() {
        let mut bench = FilterHarness::<Sample>::from_toml("one_in = 3");
        let event = r#"{"event":"call","instance":"a"}"#;
        bench.send_json(event).send_json(event);
        assert_eq!(bench.emitted().len(), 1);
        bench.reload("rate = 0.34");
        bench.send_json(event);
        assert_eq!(bench.emitted().len(), 0, "the third was not among those");
        bench.send_json(event);
        assert_eq!(bench.emitted().len(), 1);
    }
}
