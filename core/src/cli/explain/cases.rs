//! The keys of `[[tests]]`.

use std::fmt::Write as _;

use schemars::{JsonSchema, SchemaGenerator};

use super::{Key, collect, lines, table};
use crate::config::{EndConfig, InputConfig, MockConfig, OutputConfig, TestConfig};

/// What `evows explain` takes for the tests.
pub(super) const NAME: &str = "tests";

pub(super) const SUMMARY: &str =
    "What is put into the pipeline and what must come out of it, for `evows test`.";

const TIME: &str = "Time is virtual: it begins at 2026-01-01T00:00:00Z, and goes on when there is nothing else to do. Only `now` in a jq program is \
    the time of day. Filters that reach out of the process (a lookup over HTTP, an upload) are not asked: say in `mocks` what they do.";

const EXAMPLE: &str = r#"[[tests]]
name = "calls are discarded"
[[tests.inputs]]
into = "some_source"
event = { event = "call", instance = "shop" }
[[tests.outputs]]
from = "some_sink"
count = 0
[[tests.discards]]
from = "some_filter"
"#;

/// The keys as text.
pub(super) fn describe() -> String {
    let mut text = format!("{NAME}: {SUMMARY}\n{TIME}\n");
    for (title, keys) in tables() {
        // Writing to a string cannot fail, here and below.
        writeln!(text, "\n{}", title.replace('`', "")).ok();
        lines(keys, &mut text);
    }
    text.push_str("\nExample\n");
    for line in EXAMPLE.lines() {
        writeln!(text, "  {line}").ok();
    }
    text
}

/// The keys as a Markdown page, its heading at this level.
pub(super) fn page(level: &str) -> String {
    let mut text = format!("{level} Tests\n\n{SUMMARY}\n\n{TIME}\n");
    for (title, keys) in tables() {
        writeln!(text, "\n{level}# `{title}`\n").ok();
        table(keys, &mut text);
    }
    writeln!(text, "\n```toml\n{}\n```", EXAMPLE.trim_end()).ok();
    text
}

/// Each table of a test with its keys.
fn tables() -> [(&'static str, Vec<Key>); 5] {
    let mut test = keys::<TestConfig>();
    // Those that are tables of their own come below.
    test.retain(|key| matches!(&*key.name, "name" | "until"));
    [
        ("[[tests]]", test),
        ("[[tests.inputs]]", keys::<InputConfig>()),
        ("[[tests.outputs]]", keys::<OutputConfig>()),
        (
            "[[tests.discards]]` and `[[tests.failures]]",
            keys::<EndConfig>(),
        ),
        ("[tests.mocks.<id>]", keys::<MockConfig>()),
    ]
}

fn keys<T: JsonSchema>() -> Vec<Key> {
    let mut generator = SchemaGenerator::default();
    let schema = T::json_schema(&mut generator).to_value();
    let definitions = generator.take_definitions(true);
    let mut keys = Vec::new();
    collect(&schema, &definitions, "", &mut keys);
    keys
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_table_is_there_and_the_example_is_toml() {
        let test = keys::<TestConfig>();
        let named: String = tables().iter().map(|(title, _)| *title).collect();
        for key in test {
            let shown = matches!(&*key.name, "name" | "until")
                || named.contains(&format!("[tests.{}", key.name));
            assert!(shown, "{}", key.name);
        }
        assert!(toml::from_str::<toml::Table>(EXAMPLE).is_ok());
    }
}
