//! What makes events the same for a filter that limits, counts or compares them: paths into the envelope.

use std::sync::LazyLock;

use evows_core::Event;
use evows_core::config::Problem;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use xxhash_rust::xxh3::xxh3_128_with_seed;

/// Keeps senders from making up keys that meet.
static SEED: LazyLock<u64> = LazyLock::new(|| fastrand::u64(..));

/// Paths into the envelope, such as `["instance", "data.key.remoteJid"]`. Events that have the same values there have
/// the same key; a path that is not there counts as null.
///
/// Values are compared as they are written: `1` is not `1.0`, nor is an object with its members in another order the
/// same. `data` as a whole includes the attachments.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
#[schemars(inline)]
pub struct Key(Vec<String>);

// === impl Key ===

impl Key {
    /// Whether there is no path, so that all events have the same key.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What is wrong with the paths, for a key of the configuration named `at`.
    pub fn check(&self, at: &str) -> Vec<Problem> {
        let mut problems = Vec::new();
        for (index, path) in self.0.iter().enumerate() {
            let reason = match path.as_str() {
                "" => "it is empty",
                path if path.split('.').any(str::is_empty) => "a name is missing beside a dot",
                _ => continue,
            };
            let message = format!("`{path}` is not a path: {reason}");
            let help = "write names with dots between them, such as \"instance\" or \"data.key.remoteJid\"";
            let problem = Problem::new("bad-path", message).help(help);
            problems.push(problem.at_key(&format!("{at}.{index}")));
        }
        problems
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
        Self(paths.map(str::to_owned).into())
    }
}

fn hash_at(path: &str, event: &Event, seed: u64) -> u128 {
    let hash = |text: &str| xxh3_128_with_seed(text.as_bytes(), seed);
    match path {
        // These two need no look into the envelope.
        "event" => return hash(event.name()),
        "instance" => return hash(event.instance()),
        _ => {}
    }
    let value = match walk(event.document(), path) {
        Some(Value::String(text)) => hash(text),
        // Of another seed, so that "null" is not null.
        Some(value) => xxh3_128_with_seed(value.to_string().as_bytes(), !seed),
        None => xxh3_128_with_seed(b"null", !seed),
    };
    if path != "data" {
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

/// What is at a path: names of members, or numbers of elements, with dots between them.
fn walk<'a>(document: &'a Map<String, Value>, path: &str) -> Option<&'a Value> {
    let mut names = path.split('.');
    let first = document.get(names.next()?)?;
    names.try_fold(first, |value, name| match value {
        Value::Object(members) => members.get(name),
        Value::Array(elements) => elements.get(name.parse::<usize>().ok()?),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use evows_core::config::Place;
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
    fn bad_paths_are_found_where_they_are() {
        let key = Key::from(["instance", "", "data..id", "data."]);
        let problems = key.check("key");
        assert_eq!(problems.len(), 3);
        assert_eq!(problems[0].message, "`` is not a path: it is empty");
        for (problem, index) in problems.iter().zip(["1", "2", "3"]) {
            let place = Place::Key(vec!["key".to_owned(), index.to_owned()]);
            assert_eq!(problem.place, place);
        }
    }
}
