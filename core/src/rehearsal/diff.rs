//! Differences between JSON documents, as lines.

use serde_json::{Map, Value};
use similar::{ChangeTag, TextDiff};

use super::visible::visible;

/// How many members are told of that nobody asked for.
const TOLD: usize = 8;

/// Bytes of a string that are told.
const LENGTH: usize = 60;

/// Whether lines are coloured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Style {
    /// Text alone.
    Plain,
    /// With the escapes of terminals.
    Coloured,
}

/// What differs between two documents, with `context` lines around it; empty when nothing does. Lines are those of JSON, less the
/// commas at their ends: one is there or not because of the line below.
pub(crate) fn unified(old: &Value, new: &Value, context: usize, style: Style) -> String {
    let lines = |value: &Value| {
        let json = pretty(value);
        let lines = json.lines().map(|line| line.trim_end_matches(','));
        lines.collect::<Vec<_>>().join("\n") + "\n"
    };
    let (old, new) = (lines(old), lines(new));
    let diff = TextDiff::from_lines(&old, &new);
    let mut lines = String::new();
    for (index, group) in diff.grouped_ops(context).iter().enumerate() {
        if index > 0 {
            lines.push_str("  ...\n");
        }
        for change in group.iter().flat_map(|op| diff.iter_changes(op)) {
            let (sign, colour) = match change.tag() {
                ChangeTag::Equal => (' ', ""),
                ChangeTag::Delete => ('-', "\u{1b}[31m"),
                ChangeTag::Insert => ('+', "\u{1b}[32m"),
            };
            let line = change.value().trim_end_matches('\n');
            if style == Style::Coloured && !colour.is_empty() {
                lines.extend([colour, &sign.to_string(), " ", line, "\u{1b}[0m\n"]);
            } else {
                lines.extend([&sign.to_string(), " ", line, "\n"]);
            }
        }
    }
    lines
}

/// JSON over several lines.
pub(super) fn pretty(value: &Value) -> String {
    visible(&format!("{value:#}\n")).into_owned()
}

/// Whether two documents say the same: the order of members means nothing, and neither does how a number is written.
pub(super) fn same(one: &Value, other: &Value) -> bool {
    match (one, other) {
        (Value::Object(one), Value::Object(other)) => {
            let equal = |(key, value)| other.get(key).is_some_and(|it| same(value, it));
            one.len() == other.len() && one.iter().all(equal)
        }
        (Value::Array(one), Value::Array(other)) => {
            one.len() == other.len() && one.iter().zip(other).all(|(one, other)| same(one, other))
        }
        (Value::Number(one), Value::Number(other)) => {
            one == other || (one.is_f64() != other.is_f64() && one.as_f64() == other.as_f64())
        }
        _ => one == other,
    }
}

/// Whether a document has at least what another one has. Lists are of equal length.
pub(super) fn contains(whole: &Value, part: &Value) -> bool {
    match (whole, part) {
        (Value::Object(whole), Value::Object(part)) => {
            let has = |(key, value)| whole.get(key).is_some_and(|it| contains(it, value));
            part.iter().all(has)
        }
        (Value::Array(whole), Value::Array(part)) => {
            let each = || whole.iter().zip(part);
            whole.len() == part.len() && each().all(|(whole, part)| contains(whole, part))
        }
        _ => same(whole, part),
    }
}

/// A document with its members in the order that `like` has them, so that only what differs shows. With `only`, less those that
/// `like` does not have; where one of `like` is missing, they are there in short: it may be among them under another name.
pub(super) fn arranged(value: &Value, like: &Value, only: bool) -> Value {
    match (value, like) {
        (Value::Object(value), Value::Object(like)) => {
            let mut members = Map::new();
            for (key, other) in like {
                if let Some(value) = value.get(key) {
                    members.insert(key.clone(), arranged(value, other, only));
                }
            }
            let missing = like.keys().any(|key| !value.contains_key(key));
            let others = value.iter().filter(|(key, _)| !like.contains_key(*key));
            if !only {
                members.extend(others.map(|(key, value)| (key.clone(), value.clone())));
            } else if missing {
                let count = others.clone().count();
                let told = others.take(TOLD);
                members.extend(told.map(|(key, value)| (key.clone(), short(value))));
                if count > TOLD {
                    members.insert(
                        "\u{2026}".to_owned(),
                        format!("{} more", count - TOLD).into(),
                    );
                }
            }
            Value::Object(members)
        }
        (Value::Array(value), Value::Array(like)) => {
            let elements = value.iter().enumerate();
            let arrange = |(index, value)| match like.get(index) {
                Some(like) => arranged(value, like, only),
                None => value.clone(),
            };
            elements.map(arrange).collect()
        }
        // As it was written there.
        _ if same(value, like) => like.clone(),
        _ => value.clone(),
    }
}

/// A value in short.
fn short(value: &Value) -> Value {
    let some = |open: &str, close: &str| format!("{open}\u{2026}{close}").into();
    match value {
        Value::Object(members) if !members.is_empty() => some("{", "}"),
        Value::Array(elements) if !elements.is_empty() => some("[", "]"),
        Value::String(text) if text.len() > LENGTH => {
            let begin = text.get(..text.floor_char_boundary(LENGTH));
            format!("{}\u{2026}", begin.unwrap_or_default()).into()
        }
        _ => value.clone(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_what_differs_shows() {
        let wanted = json!([{ "a": 1, "b": { "c": 2, "d": [1, 2] } }]);
        let got = json!([{ "b": { "d": [1, 3], "c": 2.0, "more": 1 }, "a": 1 }]);
        let exact = unified(&wanted, &arranged(&got, &wanted, false), 0, Style::Plain);
        assert_eq!(
            exact,
            "-         2\n+         3\n  ...\n+       \"more\": 1\n"
        );
        let part = unified(&wanted, &arranged(&got, &wanted, true), 0, Style::Plain);
        assert_eq!(part, "-         2\n+         3\n");
    }

    #[test]
    fn where_a_member_is_missing_the_others_show_in_short() {
        let wanted = json!({ "a": { "name": "x" } });
        let long = "y".repeat(100);
        let got = json!({ "a": { "Name": "x", "b": { "c": 1 }, "d": [], "e": long }, "f": 1 });
        let diff = unified(&wanted, &arranged(&got, &wanted, true), 0, Style::Plain);
        let lines = [
            "-     \"name\": \"x\"",
            "+     \"Name\": \"x\"",
            "+     \"b\": \"{\u{2026}}\"",
            "+     \"d\": []",
            &format!("+     \"e\": \"{}\u{2026}\"", "y".repeat(60)),
        ];
        assert_eq!(diff, lines.join("\n") + "\n");
        let many: Map<String, Value> = (0..12).map(|n| (format!("m{n}"), n.into())).collect();
        let short = arranged(&many.into(), &json!({ "a": 1 }), true);
        assert_eq!(short.as_object().map(Map::len), Some(9));
        assert_eq!(short["\u{2026}"], "4 more");
    }

    #[test]
    fn parts_and_wholes() {
        let whole = json!({ "a": { "b": 1, "c": [{ "d": 1, "e": null }] }, "f": 1 });
        for part in [
            json!({}),
            json!({ "a": {} }),
            json!({ "a": { "c": [{ "e": null }] } }),
            json!({ "f": 1.0 }),
        ] {
            assert!(contains(&whole, &part), "{part}");
            assert!(!same(&whole, &part), "{part}");
        }
        for other in [
            json!({ "a": { "b": 2 } }),
            json!({ "a": { "c": [] } }),
            json!({ "g": null }),
            json!({ "f": "1" }),
        ] {
            assert!(!contains(&whole, &other), "{other}");
        }
        assert!(same(&json!({"a": 1, "b": 2}), &json!({"b": 2, "a": 1.0})));
        assert!(!same(
            &json!(9_007_199_254_740_993_u64),
            &json!(9_007_199_254_740_992_u64)
        ));
    }
}
