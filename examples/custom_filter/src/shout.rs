//! Writes the text of messages in capitals.
//!
//! ```toml
//! [filters.louder]
//! type = "shout"
//! inputs = ["lines"]
//! exclamation_marks = 3
//! ```

use evows::plugin::{BuildContext, BuildError, Emitter, Filter, FilterPlugin};
use evows::{Event, register_filter};
use schemars::JsonSchema;
use serde::Deserialize;

/// Writes the text of messages in capitals.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
struct Config {
    /// How many exclamation marks follow the text.
    exclamation_marks: usize,
}

/// The running filter.
struct Shout {
    marks: String,
}

register_filter!(
    Shout,
    summary = "Writes the text of messages in capitals.",
    example = "exclamation_marks = 3\n",
);

impl FilterPlugin for Shout {
    const NAME: &'static str = "shout";
    type Config = Config;

    fn build(config: Config, _cx: &BuildContext) -> Result<Self, BuildError> {
        let marks = "!".repeat(config.exclamation_marks);
        Ok(Self { marks })
    }
}

impl Filter for Shout {
    fn apply(&mut self, mut event: Event, out: &mut Emitter<'_>) {
        // Reading first: events without a text keep their bytes as they are.
        if let Some(loud) = self.shouted(&event) {
            event.edit(|document| document["data"]["message"]["conversation"] = loud.into());
        }
        out.emit(event);
    }
}

impl Shout {
    fn shouted(&self, event: &Event) -> Option<String> {
        let data = event.document().get("data")?;
        let text = data.pointer("/message/conversation")?.as_str()?;
        Some(text.to_uppercase() + &self.marks)
    }
}
