//! What makes events the same for a filter that limits, counts or compares them: paths into the envelope.

use std::sync::LazyLock;

use evows_core::Event;
use evows_core::config::Problem;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use xxhash_rust::xxh3::xxh3_128_with_seed;

use super::path::Path;

/// Keeps senders from making up keys that meet.
static SEED: LazyLock<u64> = LazyLock::new(|| fastrand::u64(..));

/// Paths into the envelope, such as `["instance", "data.key.remoteJid"]`. Events that have the same values there have
/// the same key; a path that is not there counts as null.
///
/// Values are compared as they are written: `1` is not `1.0`, nor is an object with its members in another order the
/// same. `data` as a whole includes the attachments. An envelope that cannot be read (nested more than 127 deep, or with a
/// number that no double holds) is, at any path but `event` and `instance`, the same as one of the same bytes only.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
#[schemars(inline)]
pub struct Key(Vec<Path>);

// === impl Key ===

impl Key {
    /// Whether there is no path, so that all events have the same key.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What is wrong with the paths, for a key of the configuration named `at`.
    pub fn check(&self, at: &str) -> Vec<Problem> {
        let paths = self.0.iter().enumerate();
        let many = paths.filter(|(_, path)| path.has_every());
        many.map(|(index, path)| {
            let message = format!("`{path}` has a `*`: a key has one value at each path");
            let help = "write a path without one, such as \"instance\" or \"data.key.remoteJid\"";
            let problem = Problem::new("bad-path", message).help(help);
            problem.at_key(&format!("{at}.{index}"))
        })
        .collect()
    }

    /// The event's key, another one in every process.
    pub fn of(&self, event: &Event) -> u128 {
        self.seeded(event, *SEED)
    }

    /// The event's key, the same one wherever the seed is.
    pub fn seeded(&self, event: &Event, seed: u64) -> u128 {
        let mut hashes = self.0.iter().map(|path| hash_at(path, event, seed));
        let first = hashes.next().unwrap_or_default();
        hashes.fold(first, |so_far, hash| join(so_far, hash, seed))
    }
}

impl<const N: usize> From<[&str; N]> for Key {
    fn from(paths: [&str; N]) -> Self {
        let parsed = paths.map(|path| path.parse().expect("keys in the code are paths"));
        Self(parsed.into())
    }
}

fn hash_at(path: &Path, event: &Event, seed: u64) -> u128 {
    let hash = |text: &str| xxh3_128_with_seed(text.as_bytes(), seed);
    let member = path.member();
    match member {
        // These two need no look into the envelope.
        Some("event") => return hash(event.name()),
        Some("instance") => return hash(event.instance()),
        _ => {}
    }
    let document = event.document();
    let value = match path.get(document) {
        // What nobody can read must not pass for what is not there: one such event would be the same as any other.
        _ if document.is_empty() => xxh3_128_with_seed(event.envelope(), !seed),
        Some(Value::String(text)) => hash(text),
        // Of another seed, so that "null" is not null.
        Some(value) => xxh3_128_with_seed(value.to_string().as_bytes(), !seed),
        None => xxh3_128_with_seed(b"null", !seed),
    };
    if member != Some("data") {
        return value;
    }
    let attached = event.attachments().iter();
    attached.fold(value, |hash, bytes| {
        join(hash, xxh3_128_with_seed(bytes, seed), seed)
    })
}

/// One hash of two, in this order.
fn join(left: u128, right: u128, seed: u64) -> u128 {
    let mut both = [0; 32];
    let (first, second) = both.split_at_mut(16);
    first.copy_from_slice(&left.to_le_bytes());
    second.copy_from_slice(&right.to_le_bytes());
    xxh3_128_with_seed(&both, seed)
}

#[cfg(test)]
mod tests {
    use evows_core::config::{Place, Settings};
    use evows_core::testing::event;

    use super::*;

    fn same<const N: usize>(paths: [&str; N], one: &str, other: &str) -> bool {
        let key = Key::from(paths);
        let with = |members: &str| {
            let text = format!(r#"{{"event":"call","instance":"a",{members}}}"#);
            key.of(&event(&text))
        };
        with(one) == with(other)
    }

    #[test]
    fn what_is_not_asked_for_makes_no_difference() {
        let (one, other) = (r#""data":{"n":1},"x":1"#, r#""data":{"n":1},"x":2"#);
        assert!(same([], one, other));
        assert!(same(["event", "instance", "data"], one, other));
        assert!(!same(["event", "instance", "x"], one, other));
    }

    #[test]
    fn names_and_numbers_lead_to_a_value() {
        let one = r#""data":{"list":[{"id":"A"},{"id":"B"}]}"#;
        let other = r#""data":{"list":[{"id":"A"},{"id":"C"}]}"#;
        assert!(same(["data.list.0.id"], one, other));
        assert!(!same(["data.list.1.id"], one, other));
        assert!(!same(["data"], one, other));
    }

    #[test]
    fn a_path_that_is_not_there_is_null_and_null_is_no_text() {
        for nothing in [r#""data":{"n":null}"#, r#""data":{}"#, r#""data":[1]"#] {
            assert!(same(["data.n"], r#""x":1"#, nothing));
            assert!(!same(["data.n"], r#""data":{"n":"null"}"#, nothing));
        }
    }

    #[test]
    fn values_do_not_run_into_each_other() {
        let (one, other) = (r#""x":"ab","y":"c""#, r#""x":"a","y":"bc""#);
        assert!(!same(["x", "y"], one, other));
        assert!(!same(["x", "y"], r#""x":1,"y":2"#, r#""x":2,"y":1"#));
    }

    #[test]
    fn attachments_are_part_of_data() {
        let plain = event(r#"{"event":"call","instance":"a","data":{}}"#);
        let attached = plain.clone().with_attachments(vec!["bytes".into()]);
        let (data, x) = (Key::from(["data"]), Key::from(["x"]));
        assert_ne!(data.of(&plain), data.of(&attached));
        assert_eq!(x.of(&plain), x.of(&attached));
    }

    #[test]
    fn what_cannot_be_read_is_the_same_as_its_own_bytes_only() {
        let deep = |leaf: u8| {
            let (open, close) = ("[".repeat(200), "]".repeat(200));
            format!(r#""data":{open}{leaf}{close}"#)
        };
        for path in ["data", "data.key.id"] {
            assert!(!same([path], &deep(1), &deep(2)));
            assert!(same([path], &deep(1), &deep(1)));
            assert!(!same([path], r#""data":[1e400,1]"#, r#""data":[1e400,2]"#));
        }
        assert!(same(["instance"], &deep(1), &deep(2)));
    }

    #[test]
    fn quoted_names_lead_to_a_value() {
        let (one, other) = (
            r#""data":{"a.b":1,"a":{"b":2}}"#,
            r#""data":{"a.b":3,"a":{"b":2}}"#,
        );
        assert!(!same([r#"data."a.b""#], one, other));
        assert!(same(["data.a.b"], one, other));
    }

    #[test]
    fn bad_paths_are_found_where_they_are() {
        #[derive(Debug, Deserialize)]
        struct Config {
            key: Key,
        }
        let read = |text: &str| Settings::from_text(text).read::<Config>();
        for path in ["", "data..id", "data."] {
            let text = format!("key = ['instance', '{path}']");
            let problems = read(&text).unwrap_err();
            let Place::Span(span) = &problems[0].place else {
                panic!("{problems:?}");
            };
            assert_eq!(text.get(span.clone()), Some(&*format!("'{path}'")));
            assert!(
                problems[0].message.contains("is not a path"),
                "{problems:?}"
            );
        }
        let problems = read("key = ['instance', 'data.*']")
            .unwrap()
            .key
            .check("key");
        let place = Place::Key(vec!["key".to_owned(), "1".to_owned()]);
        assert_eq!(problems.len(), 1);
        assert_eq!(problems[0].place, place);
    }
}
