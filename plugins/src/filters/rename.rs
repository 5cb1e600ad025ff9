//! Gives members of envelopes another name, or another place.
//!
//! ```toml
//! [filters.renamed]
//! type = "rename"
//! inputs = ["evolution"]
//! paths = { "data.pushName" = "data.name", "data.key.id" = "data.id" }
//! ```
//!
//! Each key is the path of what is there, quoted, and its value the path that it gets. One after the other: the value is put
//! into its new place, where it replaces what is there and objects are made on the way, and taken out of its old one. In a new
//! place it comes last.
//!
//! What is not there is left alone, and so is what cannot be put into its new place because something that has no members is in
//! the way. An event to which nothing is done keeps its bytes. `event` and `instance` are neither renamed nor replaced.
//!
//! An envelope that cannot be edited (nested more than 127 deep, or with a number that no double holds, such as `1e400`) passes as
//! it is. In one that is changed, numbers elsewhere may be written another way (`1e2` as `100.0`), those beyond 64 bits with
//! the precision of a double, and half of a surrogate pair becomes U+FFFD.

use evows_core::config::Problem;
use evows_core::plugin::{BuildContext, BuildError, Emitter, Filter, FilterPlugin};
use evows_core::{Event, register_filter};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::attached;
use super::path::{ByPath, Path, Place};

/// Gives members of envelopes another name, or another place.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// The new paths by the old ones, such as `"data.pushName" = "data.name"`.
    pub paths: ByPath<Path>,
}

/// The running filter.
#[derive(Debug)]
pub struct Rename {
    paths: Vec<(Path, Path)>,
}

register_filter!(
    Rename,
    summary = "Gives members of envelopes another name, or another place.",
    example = "paths = { \"data.pushName\" = \"data.name\" }\n",
);

// === impl Rename ===

impl FilterPlugin for Rename {
    const NAME: &'static str = "rename";
    type Config = Config;

    fn check(config: &Config) -> Vec<Problem> {
        let mut problems = Vec::new();
        for (old, new) in &config.paths.0 {
            let message = if let Some(path) = [old, new].into_iter().find(|it| it.has_every()) {
                format!("`{path}` has a `*`: one member is renamed at a time")
            } else if let Some(path) = [old, new].into_iter().find(|it| it.is_reserved()) {
                format!("`{path}` is what routing needs")
            } else if old.is_within(new) || new.is_within(old) {
                format!("`{old}` and `{new}` are inside of one another")
            } else {
                continue;
            };
            let help = "such as `\"data.pushName\" = \"data.name\"`";
            problems.push(old.problem("paths", message, help));
        }
        problems
    }

    fn build(config: Config, _cx: &BuildContext) -> Result<Self, BuildError> {
        Ok(Self {
            paths: config.paths.0,
        })
    }
}

impl Filter for Rename {
    fn apply(&mut self, event: Event, out: &mut Emitter<'_>) {
        // Where none of them can be done now, none can be after it either.
        let is_due = |(old, new): &(Path, Path)| movable(event.document(), old, new).is_some();
        if !self.paths.iter().any(is_due) {
            return out.emit(event);
        }
        let event = attached::edit(event, |document| {
            for (old, new) in &self.paths {
                let Some(value) = movable(document, old, new).cloned() else {
                    continue;
                };
                // In its new place before it leaves the old one, so that it cannot get lost.
                if new.set(document, value).is_ok() {
                    old.remove(document);
                }
            }
        });
        out.emit(event);
    }
}

/// The value that is at `old` and can be put at `new`.
fn movable<'d>(document: &'d Map<String, Value>, old: &Path, new: &Path) -> Option<&'d Value> {
    let value = old.get(document)?;
    (new.place(document) != Place::Blocked).then_some(value)
}

#[cfg(test)]
mod tests {
    use evows_core::testing::FilterHarness;

    use super::*;

    fn run(keys: &str, envelope: &str) -> String {
        let mut bench = FilterHarness::<Rename>::from_toml(keys);
        let emitted = bench.send_json(envelope).emitted();
        assert_eq!(emitted.len(), 1);
        String::from_utf8(emitted[0].envelope().to_vec()).unwrap()
    }

    const EVENT: &str = r#"{ "event":"e","instance":"i","data":{"a":1,"b":{"x":2},"l":[3]} }"#;

    #[test]
    fn renames_and_moves() {
        for (paths, data) in [
            ("'data.a' = 'data.z'", r#"{"b":{"x":2},"l":[3],"z":1}"#),
            (
                "'data.a' = 'data.n.a'",
                r#"{"b":{"x":2},"l":[3],"n":{"a":1}}"#,
            ),
            ("'data.b' = 'data.a'", r#"{"a":{"x":2},"l":[3]}"#),
            ("'data.l.0' = 'data.b.x'", r#"{"a":1,"b":{"x":3},"l":[]}"#),
            (
                "'data.a' = 'data.z', 'data.z' = 'data.y', 'data.no' = 'data.b'",
                r#"{"b":{"x":2},"l":[3],"y":1}"#,
            ),
        ] {
            assert_eq!(
                run(&format!("paths = {{ {paths} }}"), EVENT),
                format!(r#"{{"event":"e","instance":"i","data":{data}}}"#),
                "{paths}"
            );
        }
    }

    #[test]
    fn an_event_to_which_nothing_is_done_keeps_its_bytes() {
        for paths in [
            "",
            "'x' = 'y'",
            "'data.b' = 'data.a.b'",
            "'data.a' = 'data.l.7'",
        ] {
            assert_eq!(run(&format!("paths = {{ {paths} }}"), EVENT), EVENT);
        }
    }

    #[test]
    fn says_what_cannot_be_renamed() {
        for (paths, part) in [
            ("'data.*' = 'data.a'", "has a `*`"),
            ("'data.a' = 'event'", "routing needs"),
            ("'instance' = 'data.a'", "routing needs"),
            ("'data.a' = 'data.a.b'", "inside of one another"),
            ("'data.a' = 'data.\"a\"'", "inside of one another"),
            ("data.a = 'b'", "a path such as"),
        ] {
            let problems = FilterHarness::<Rename>::problems(&format!("paths = {{ {paths} }}"));
            assert!(problems.contains(part), "{paths}: {problems}");
        }
    }
}
