//! `[[tests]]`: what is put into the pipeline, and what is to come out of it.
//!
//! Read by `evows test` and `evows validate` alone: `evows run` never looks at them.

mod check;
mod file;
mod mocks;
mod nodes;

use std::collections::BTreeMap;
use std::path::PathBuf;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::value::MapAccessDeserializer;
use serde::{Deserialize, Deserializer, de};
use serde_json::Value;

pub use self::check::{Case, End, Expected, Feed, Mock, Wanted};
pub use self::file::{Cases, envelopes};

use super::Period;

/// One `[[tests]]`: events are put in, time passes, and what comes out is compared. The time is virtual.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TestConfig {
    /// What it shows, in a few words.
    pub name: String,
    /// When the pipeline is stopped, which has filters let go of what they hold. Without it: as soon as every event has ended,
    /// and one minute after the last input at the latest.
    pub until: Option<Period>,
    /// What is put in. With equal times, in this order.
    pub inputs: Vec<InputConfig>,
    /// What must come out, and where.
    #[serde(default)]
    pub outputs: Vec<OutputConfig>,
    /// What must be discarded, where and why: by a filter, or by a full queue in front of a sink.
    #[serde(default)]
    pub discards: Vec<EndConfig>,
    /// What must fail, where and why. A failure that no test expects fails the test.
    #[serde(default)]
    pub failures: Vec<EndConfig>,
    /// Filters and sinks that are something else in this test, by their ids.
    #[serde(default)]
    pub mocks: BTreeMap<String, MockConfig>,
}

/// Events that are put in.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct InputConfig {
    /// Where: the id of a source, or of a filter.
    pub into: String,
    /// One envelope, as a table or as JSON in a string.
    pub event: Option<Envelope>,
    /// Several envelopes, one at least.
    pub events: Option<Vec<Envelope>>,
    /// A file of envelopes, one JSON object after the other, as the sinks `file` and `stdout` write them. Its path is relative
    /// to the file that names it.
    pub file: Option<PathBuf>,
    /// When, counted from the start of the test.
    pub at: Option<Period>,
    /// When, counted from the last event of the input above; `"0s"` without `at`.
    pub after: Option<Period>,
    /// The time between two of its events.
    pub every: Option<Period>,
}

/// What must come out.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct OutputConfig {
    /// Where: the id of a sink, or of a filter, or `"filter.port"`.
    pub from: String,
    /// Exactly these envelopes, in this order.
    pub events: Option<Vec<Envelope>>,
    /// As many envelopes as these, in this order, each with at least these members.
    pub subset: Option<Vec<Envelope>>,
    /// How many.
    pub count: Option<usize>,
    /// A jq program that holds for each of them; without a `count` there must be one at least.
    pub condition: Option<String>,
    /// Look only at what came out until then, counted from the start of the test.
    pub by: Option<Period>,
    /// Look only at what came out before the pipeline was stopped (`"running"`), or at what it let go of then (`"stopping"`).
    pub when: Option<When>,
}

/// When something came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum When {
    /// Before the pipeline was stopped.
    Running,
    /// While the pipeline was stopped.
    Stopping,
}

/// Events that must end somewhere else than in a sink.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EndConfig {
    /// Where: the id of a source, filter or sink.
    pub from: String,
    /// Why: the word that metrics have, such as `not_wanted`. Without it, for whatever reason.
    pub reason: Option<String>,
    /// How many; one at least without it, and none with 0. None with a `reason` needs another test in which there is one: a reason that is
    /// misspelt would always fit.
    pub count: Option<u64>,
}

/// What a filter or a sink is in a test.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MockConfig {
    /// For a filter: keys that it has in this test, in place of the same ones of the file; tables are merged.
    #[schemars(with = "Option<serde_json::Map<String, Value>>")]
    pub settings: Option<toml::Table>,
    /// For a filter: keys of the file that it does not have in this test, such as `"deny"`; `"http.headers"` is one in a table. They are
    /// taken away before `settings` come, so that a table can be replaced whole.
    pub unset: Option<Vec<String>>,
    /// For a filter: a jq program that runs in its place, as in the filter `map`. What it yields is passed on; without a value the event
    /// is discarded as `no_output`, and where it raises an error the event fails as `program_error`. Filters that reach out of the
    /// process are not asked in a test: without this, events fail there as `not_mocked`.
    pub program: Option<String>,
    /// For a sink: how many attempts to deliver fail before it takes what it gets.
    pub fails: Option<u32>,
    /// For a sink: how they fail; `"transient"` by default.
    pub error: Option<ErrorKind>,
}

/// How an attempt to deliver fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ErrorKind {
    /// It is worth another try.
    Transient,
    /// No other try would mend it.
    Permanent,
    /// The connection is gone.
    Disconnected,
    /// The other side takes nothing now.
    Overloaded,
}

/// An envelope, written as a table or as JSON in a string, which can have `null`.
#[derive(Debug, Clone, PartialEq)]
pub struct Envelope(pub Value);

// === impl Envelope ===

impl<'de> Deserialize<'de> for Envelope {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;

        impl<'de> de::Visitor<'de> for Either {
            type Value = Envelope;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a table, or a string of JSON")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Envelope, E> {
                let value = serde_json::from_str(text);
                let value =
                    value.map_err(|error| E::custom(format_args!("this is not JSON: {error}")))?;
                Ok(Envelope(value))
            }

            fn visit_map<A: de::MapAccess<'de>>(self, map: A) -> Result<Envelope, A::Error> {
                let table = toml::Table::deserialize(MapAccessDeserializer::new(map))?;
                Ok(Envelope(to_json(toml::Value::Table(table))))
            }
        }

        deserializer.deserialize_any(Either)
    }
}

impl JsonSchema for Envelope {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Envelope".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": ["object", "string"] })
    }
}

/// TOML as JSON; dates, which JSON does not have, as strings.
fn to_json(value: toml::Value) -> Value {
    match value {
        toml::Value::String(text) => text.into(),
        toml::Value::Integer(number) => number.into(),
        toml::Value::Float(number) => number.into(),
        toml::Value::Boolean(truth) => truth.into(),
        toml::Value::Datetime(date) => date.to_string().into(),
        toml::Value::Array(array) => array.into_iter().map(to_json).collect(),
        toml::Value::Table(table) => {
            let members = table.into_iter();
            members.map(|(key, value)| (key, to_json(value))).collect()
        }
    }
}
