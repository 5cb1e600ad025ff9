//! Changes events with a jq program.
//!
//! ```toml
//! [filters.slim]
//! type = "map"
//! inputs = ["evolution"]
//! program = '''
//! .data |= del(.message.messageContextInfo)
//! | .data.chat = (.data.key.remoteJid | split("@")[0])
//! '''
//! ```
//!
//! The [jq](https://jqlang.org/manual/) program is given the envelope. Each value that it yields becomes an event, which keeps the
//! id and the attachments of the one that came in; it must be an object with the strings `event` and `instance`. A program
//! that yields nothing discards the event as `no_output`. One that yields what it was given leaves the bytes as they were.
//! A program that raises an error, yields something else than an envelope, or does not end in time does with the event what
//! `on_error` says, and nothing of what it yielded before goes on.

use std::time::Duration;

use evows_core::config::{Period, Problem};
use evows_core::jq::{Program, Reader, Val};
use evows_core::plugin::{BuildContext, BuildError, Emitter, Filter, FilterPlugin};
use evows_core::{Event, register_filter};
use schemars::JsonSchema;
use serde::Deserialize;

use super::jq::{self, Failure, OnError};

/// Changes events with a jq program.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// A jq program over the envelope, such as `.data.source = "shop"`.
    pub program: String,
    /// What happens to an event over which the program raises an error or does not end: `"fail"`, `"discard"` or `"pass"`.
    #[serde(default)]
    pub on_error: OnError,
    /// Time that the program may take for one event.
    #[serde(default = "jq::time_limit")]
    pub time_limit: Period,
}

/// The running filter.
#[derive(Debug)]
pub struct Map {
    program: Program,
    reader: Reader,
    on_error: OnError,
    time_limit: Duration,
    /// What the program yielded.
    values: Vec<Val>,
}

register_filter!(
    Map,
    summary = "Changes events with a jq program.",
    example = "program = '.data.source = \"shop\"'\n",
);

// === impl Map ===

impl FilterPlugin for Map {
    const NAME: &'static str = "map";
    type Config = Config;

    fn check(config: &Config) -> Vec<Problem> {
        jq::check("program", &config.program)
    }

    fn build(config: Config, _cx: &BuildContext) -> Result<Self, BuildError> {
        let program = jq::compile("program", &config.program)?;
        Ok(Self {
            reader: Reader::of([&program]),
            program,
            on_error: config.on_error,
            time_limit: config.time_limit.0,
            values: Vec::new(),
        })
    }
}

impl Map {
    /// What becomes of an event. All of it, or nothing.
    fn map(&mut self, event: &Event) -> Result<Vec<Event>, Failure> {
        let values = &mut self.values;
        values.clear();
        let run = self.program.run(jq::input(&self.reader, event)?, self.time_limit, |value| values.push(value));
        run?;
        values.drain(..).map(|value| jq::output(event, &value)).collect()
    }
}

impl Filter for Map {
    fn apply(&mut self, event: Event, out: &mut Emitter<'_>) {
        let mut mapped = match self.map(&event) {
            Ok(mapped) => mapped,
            Err(failure) => return self.on_error.end(event, &failure, out),
        };
        let Some(last) = mapped.pop() else {
            return out.discard(event, "no_output");
        };
        for other in mapped {
            out.emit(event.fork().in_form_of(&other));
        }
        out.emit(event.in_form_of(&last));
    }
}
