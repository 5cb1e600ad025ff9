//! Writes the byte fields of envelopes in one dialect.
//!
//! ```toml
//! [filters.plain]
//! type = "bytes"
//! inputs = ["evolution"]
//! to = "base64"
//! ```
//!
//! Evolution has written bytes such as `mediaKey` in three ways (contract 1.4):
//!
//! | `to` | the two bytes 1 and 255 | as |
//! |---|---|---|
//! | `"base64"` | `"Af8="` | Evolution up to 2.3.2; seven times smaller than the next |
//! | `"indexed"` | `{"0":1,"1":255}` | later ones in webhooks and queues |
//! | `"attachments"` | `{"_placeholder":true,"num":0}`, and the bytes beside the envelope | 2.3.6 and later on Socket.IO |
//!
//! Objects with the keys `"0"`, `"1"` and so on, whose values are whole numbers from 0 to 255, are byte fields; so are
//! placeholders of attachments that the event has. Everything else in the envelope stays as it is written, and an event without
//! such fields keeps its bytes. Base64 looks like any text: it is not converted back.
//!
//! An attachment has one place, the first placeholder with its number. With `to = "attachments"` an event stays as it is when it
//! has placeholders of attachments that it does not have, or would get more than 1,000 attachments.
//!
//! The Socket.IO sinks convert by themselves (`binary`), and the sink `webhook` puts attachments back as indexed objects. This
//! filter is for other sinks, and for what is kept on disk, which gets smaller by it.

use evows_core::plugin::{BuildContext, BuildError, Emitter, Filter, FilterPlugin};
use evows_core::{Event, register_filter};
use evows_transports::socketio::{Dialect, convert};
use schemars::JsonSchema;
use serde::Deserialize;

/// Writes the byte fields of envelopes in one dialect.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// How byte fields are written; `"base64"` when left out.
    pub to: Dialect,
}

/// The running filter.
#[derive(Debug)]
pub struct ToDialect(Dialect);

register_filter!(
    ToDialect,
    summary = "Writes the byte fields of envelopes in one dialect.",
    example = "to = \"base64\"\n",
);

// === impl ToDialect ===

impl FilterPlugin for ToDialect {
    const NAME: &'static str = "bytes";
    type Config = Config;

    fn build(config: Config, _cx: &BuildContext) -> Result<Self, BuildError> {
        Ok(Self(config.to))
    }
}

impl Filter for ToDialect {
    fn apply(&mut self, event: Event, out: &mut Emitter<'_>) {
        out.emit(match convert(&event, self.0) {
            Some((envelope, attachments)) => {
                event.with_envelope(envelope).with_attachments(attachments)
            }
            None => event,
        });
    }
}

// === impl Config ===

impl Default for Config {
    fn default() -> Self {
        Self {
            to: Dialect::Base64,
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use evows_core::testing::{self, FilterHarness};

    use super::*;

    const BASE64: &str = r#"{"event":"e", "instance":"i","data":{"a":"Af8=","b":["Bw==",1.10]}}"#;
    const INDEXED: &str =
        r#"{"event":"e", "instance":"i","data":{"a":{"0":1,"1":255},"b":[{"0":7},1.10]}}"#;
    const ATTACHED: &str = r#"{"event":"e", "instance":"i","data":{"a":{"_placeholder":true,"num":0},"b":[{"_placeholder":true,"num":1},1.10]}}"#;

    /// An envelope as it is written on the way to a field.
    fn plain(envelope: &str) -> String {
        envelope.replace(", ", ",")
    }

    fn attached() -> Event {
        testing::event(ATTACHED).with_attachments(vec![
            Bytes::from_static(&[1, 255]),
            Bytes::from_static(&[7]),
        ])
    }

    fn run(to: &str, event: Event) -> Event {
        let mut bench = FilterHarness::<ToDialect>::from_toml(&format!("to = '{to}'"));
        let mut emitted = bench.send(event).emitted();
        assert_eq!(emitted.len(), 1);
        emitted.remove(0)
    }

    #[test]
    fn converts() {
        let indexed = || testing::event(INDEXED);
        for (to, event, expected) in [
            ("base64", indexed(), plain(BASE64)),
            ("base64", attached(), plain(BASE64)),
            ("indexed", attached(), plain(INDEXED)),
            ("attachments", indexed(), plain(ATTACHED)),
        ] {
            let made = run(to, event);
            assert_eq!(made.envelope(), &expected, "{to}");
            let expected = if to == "attachments" {
                attached().attachments().to_vec()
            } else {
                Vec::new()
            };
            assert_eq!(made.attachments(), expected, "{to}");
        }
    }

    #[test]
    fn what_is_in_the_dialect_keeps_its_bytes() {
        let other = r#"{"event":"e", "instance":"i","data":{"0":256},"x":{"0":"0"}}"#;
        for (to, event) in [
            ("base64", testing::event(BASE64)),
            ("indexed", testing::event(INDEXED)),
            ("indexed", testing::event(BASE64)),
            ("attachments", attached()),
            ("attachments", testing::event(BASE64)),
            ("base64", testing::event(other)),
            ("attachments", testing::event(other)),
        ] {
            let made = run(to, event.clone());
            assert_eq!(made.envelope(), event.envelope(), "{to}");
            assert_eq!(made.attachments(), event.attachments(), "{to}");
        }
    }

    #[test]
    fn a_made_up_placeholder_gets_no_bytes() {
        let text = r#"{"event":"e","instance":"i","data":{"a":{"0":1,"1":2},"b":{"_placeholder":true,"num":0}}}"#;
        let made = run("base64", run("attachments", testing::event(text)));
        assert_eq!(
            made.document()["data"].to_string(),
            r#"{"a":"AQI=","b":{"_placeholder":true,"num":0}}"#
        );
        assert_eq!(made.attachments().len(), 0);
    }

    #[test]
    fn attachments_of_both_kinds_are_numbered_in_their_order() {
        let mixed =
            r#"{"event":"e","instance":"i","data":[{"0":1},{"_placeholder":true,"num":0}]}"#;
        let event = testing::event(mixed).with_attachments(vec![Bytes::from_static(&[9])]);
        let made = run("attachments", event);
        assert_eq!(
            made.attachments(),
            [Bytes::from_static(&[1]), Bytes::from_static(&[9])]
        );
        assert_eq!(made.document()["data"][1]["num"], 1);
    }
}
