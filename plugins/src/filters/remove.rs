//! Takes members out of envelopes.
//!
//! ```toml
//! [filters.slim]
//! type = "remove"
//! inputs = ["evolution"]
//! paths = ["apikey", "data.message.base64", "data.*.jpegThumbnail"]
//! ```
//!
//! A path is names between dots, `data.key.remoteJid`; a name with a dot in it is quoted, `'data."a.b"'`. A number is an element
//! of an array, which then has one less, and `*` is every member of an object and every element of an array. What is not there
//! is no error, and an event in which nothing is there keeps its bytes. The other members keep their order. Paths are applied in
//! the order in which they stand.
//!
//! An envelope that cannot be edited (nested more than 127 deep, or with a number that no double holds, such as `1e400`) passes as
//! it is; the filter `redact` lets no such event pass. In one that is changed, numbers elsewhere may be written another way (`1e2` as `100.0`), those beyond 64 bits with
//! the precision of a double, and half of a surrogate pair becomes U+FFFD.
//!
//! `event` and `instance` cannot be removed: routing needs them. Bytes that travel beside an envelope go with their place in it.

use evows_core::config::Problem;
use evows_core::plugin::{BuildContext, BuildError, Emitter, Filter, FilterPlugin};
use evows_core::{Event, register_filter};
use schemars::JsonSchema;
use serde::Deserialize;

use super::attached;
use super::path::Path;

/// Takes members out of envelopes.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// The paths of what is taken out, such as `"data.message.base64"`; `*` is every member or element.
    pub paths: Vec<Path>,
}

/// The running filter.
#[derive(Debug)]
pub struct Remove {
    paths: Vec<Path>,
}

register_filter!(
    Remove,
    summary = "Takes members out of envelopes.",
    example = "paths = [\"apikey\", \"data.message.base64\"]\n",
);

// === impl Remove ===

impl FilterPlugin for Remove {
    const NAME: &'static str = "remove";
    type Config = Config;

    fn check(config: &Config) -> Vec<Problem> {
        let reserved = config.paths.iter().filter(|path| path.is_reserved());
        reserved
            .map(|path| {
                let message = format!("`{path}` would take out what routing needs");
                path.problem("paths", message, "`event` and `instance` stay as they are")
            })
            .collect()
    }

    fn build(config: Config, _cx: &BuildContext) -> Result<Self, BuildError> {
        Ok(Self {
            paths: config.paths,
        })
    }
}

impl Filter for Remove {
    fn apply(&mut self, event: Event, out: &mut Emitter<'_>) {
        let document = event.document();
        let is_there = |path: &Path| path.any(document, &mut |_| true);
        if !self.paths.iter().any(is_there) {
            return out.emit(event);
        }
        let event = attached::edit(event, |document| {
            for path in &self.paths {
                path.remove(document);
            }
        });
        out.emit(event);
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use evows_core::testing::{self, FilterHarness};

    use super::*;

    #[test]
    fn takes_out_what_is_there() {
        let mut bench = FilterHarness::<Remove>::from_toml(
            "paths = ['apikey', 'data.*.thumb', 'data.list.0', 'nothing.here']",
        );
        bench.send_json(r#"{"event":"e","apikey":"k","instance":"i","data":{"a":{"thumb":1,"x":2},"list":[1,2],"z":1}}"#);
        let emitted = bench.emitted();
        assert_eq!(
            emitted[0].envelope(),
            r#"{"event":"e","instance":"i","data":{"a":{"x":2},"list":[2],"z":1}}"#
        );
    }

    #[test]
    fn an_event_without_it_keeps_its_bytes() {
        let mut bench = FilterHarness::<Remove>::from_toml("paths = ['data.x', 'data.*.y']");
        let text = r#"{ "event":"e", "instance":"i", "data":{"n":1.10,"l":[]}, "n":1e2 }"#;
        assert_eq!(bench.send_json(text).emitted()[0].envelope(), text);
    }

    #[test]
    fn bytes_beside_the_envelope_go_too() {
        let mut bench = FilterHarness::<Remove>::from_toml("paths = ['data.a']");
        let text = r#"{"event":"e","instance":"i","data":{"a":{"_placeholder":true,"num":0},"b":{"_placeholder":true,"num":1}}}"#;
        let attachments = vec![Bytes::from_static(b"a"), Bytes::from_static(b"b")];
        bench.send(testing::event(text).with_attachments(attachments));
        let emitted = bench.emitted();
        assert_eq!(emitted[0].attachments(), [Bytes::from_static(b"b")]);
        assert_eq!(emitted[0].document()["data"]["b"]["num"], 0);
    }

    #[test]
    fn what_routing_needs_stays() {
        for paths in ["'event'", "'*'", "'instance.x'", "'*.x'"] {
            let problems = FilterHarness::<Remove>::problems(&format!("paths = [{paths}]"));
            assert!(problems.contains("routing needs"), "{paths}: {problems}");
        }
        let problems = FilterHarness::<Remove>::problems("paths = ['a..b']");
        assert!(problems.contains("a part of it is empty"), "{problems}");
    }
}
