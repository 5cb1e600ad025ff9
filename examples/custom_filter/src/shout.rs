//! Writes the text of messages in capitals.
//!
//! ```toml
//! [filters.louder]
//! type = "shout"
//! inputs = ["lines"]
//! exclamation_marks = 3
//! ```

use evows::plugin::{BuildContext, BuildError, Emitter, Filter, FilterPlugin};
use evows::schemars::JsonSchema;
use evows::serde::Deserialize;
use evows::{Event, register_filter};

/// Writes the text of messages in capitals.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(crate = "evows::serde", deny_unknown_fields, default)]
#[schemars(crate = "evows::schemars")]
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

#[cfg(test)]
mod tests {
    use evows::testing::FilterHarness;

    use super::*;

    #[test]
    fn a_text_is_louder_and_what_has_none_stays_as_it_is() {
        let mut filter = FilterHarness::<Shout>::from_toml("exclamation_marks = 1");
        let quiet = r#"{"event":"call", "instance":"a"}"#;
        filter.send_json(quiet).send_json(
            r#"{"event":"messages.upsert","instance":"a","data":{"message":{"conversation":"oi"}}}"#,
        );
        let emitted = filter.emitted();
        assert_eq!(emitted[0].envelope(), quiet);
        let text = &emitted[1].document()["data"]["message"]["conversation"];
        assert_eq!(text, "OI!");
    }
}
