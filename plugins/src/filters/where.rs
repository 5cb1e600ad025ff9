//! Passes the events for which a condition holds.
//!
//! ```toml
//! [filters.incoming]
//! type = "where"
//! inputs = ["evolution"]
//! condition = '.event == "messages.upsert" and (.data.key.fromMe | not)'
//! ```
//!
//! The condition is a [jq](https://jqlang.org/manual/) program over the envelope. It holds when the first value that it yields is
//! neither `false` nor `null`. Others are discarded as `condition_false`. A program that raises an error, such as
//! `.data.key` where `data` is a string, or that does not end in time, does with the event what `on_error` says.

use evows_core::config::{Period, Problem};
use evows_core::jq::{Program, Reader};
use evows_core::plugin::{BuildContext, BuildError, Emitter, Filter, FilterPlugin};
use evows_core::{Event, register_filter};
use schemars::JsonSchema;
use serde::Deserialize;

use super::fallback::Fallback;
use super::jq;

/// Passes the events for which a condition holds.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// A jq program over the envelope, such as `.data.key.fromMe | not`.
    pub condition: String,
    /// What happens to an event over which the program raises an error or does not end: `"fail"`, `"discard"` or `"pass"`.
    #[serde(default)]
    pub on_error: Fallback,
    /// Time that the program may take for one event.
    #[serde(default = "jq::time_limit")]
    pub time_limit: Period,
}

/// The running filter.
#[derive(Debug)]
pub struct Where {
    condition: Program,
    reader: Reader,
    on_error: Fallback,
    time_limit: std::time::Duration,
}

register_filter!(
    Where,
    summary = "Passes the events for which a condition in jq holds.",
    example = "condition = '.event == \"messages.upsert\" and (.data.key.fromMe | not)'\n",
);

// === impl Where ===

impl FilterPlugin for Where {
    const NAME: &'static str = "where";
    type Config = Config;

    fn check(config: &Config) -> Vec<Problem> {
        let mut problems = jq::check_condition("condition", &config.condition);
        problems.extend(jq::check_time(config.time_limit));
        problems
    }

    fn build(config: Config, _cx: &BuildContext) -> Result<Self, BuildError> {
        let condition = jq::compile("condition", &config.condition)?;
        Ok(Self {
            reader: Reader::of([&condition]),
            condition,
            on_error: config.on_error,
            time_limit: config.time_limit.0,
        })
    }
}

impl Filter for Where {
    fn apply(&mut self, event: Event, out: &mut Emitter<'_>) {
        let input = || jq::input(&self.reader, &event);
        match jq::holds(&self.condition, &event, self.time_limit, input) {
            Ok(true) => out.emit(event),
            Ok(false) => out.discard(event, "condition_false"),
            Err(error) => jq::end(self.on_error, event, &error, out),
        }
    }
}

#[cfg(test)]
mod tests {
    use evows_core::testing::FilterHarness;

    use super::*;

    const MINE: &str = r#"{"event":"call","instance":"a","data":{"key":{"fromMe":true}}}"#;
    const THEIRS: &str = r#"{ "event":"call","instance":"a","data":{"key":{"fromMe":false}} }"#;

    #[test]
    fn what_holds_passes_as_it_came() {
        let mut filter = FilterHarness::<Where>::from_toml("condition = '.data.key.fromMe | not'");
        let passed = filter.send_json(MINE).send_json(THEIRS).emitted();
        assert_eq!(passed.len(), 1);
        assert_eq!(&**passed[0].envelope(), THEIRS.as_bytes());
        assert_eq!(filter.discarded()[0].1, "condition_false");
    }

    #[test]
    fn says_what_is_wrong() {
        for (keys, message) in [
            ("condition = '.event = \"call\"'", "is an assignment"),
            (
                "condition = '.event'\ntime_limit = '0s'",
                "`time_limit` is 0",
            ),
            ("condition = '.event ='", "expected"),
        ] {
            let problems = FilterHarness::<Where>::problems(keys);
            assert!(problems.contains(message), "{keys}: {problems}");
        }
    }

    #[test]
    fn what_fails_does_what_was_asked_for() {
        for (program, reason) in [
            (".event.a", "program_error"),
            ("[repeat(1)]", "program_limit"),
        ] {
            for (on_error, fate) in [
                ("fail", (0, 0, 1)),
                ("discard", (0, 1, 0)),
                ("pass", (1, 0, 0)),
            ] {
                let keys =
                    format!("condition = '{program}'\non_error = '{on_error}'\ntime_limit = '5ms'");
                let mut filter = FilterHarness::<Where>::from_toml(&keys);
                let passed = filter.send_json(MINE).emitted();
                let (discarded, failed) = (filter.discarded(), filter.failed());
                assert_eq!(
                    (passed.len(), discarded.len(), failed.len()),
                    fate,
                    "{program}"
                );
                let reasons = discarded.iter().chain(&failed).map(|(_, reason)| *reason);
                assert!(reasons.into_iter().all(|it| it == reason), "{program}");
            }
        }
    }

    #[test]
    fn a_program_that_is_none_is_shown_where() {
        let problems = FilterHarness::<Where>::problems("condition = '.event | nott'");
        assert!(problems.contains("did you mean `not`"), "{problems}");
    }
}
