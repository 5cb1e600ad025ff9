//! Every registered plugin keeps the rules that users and the other tools rely on.

use evows_core::config::{Place, Settings};
use evows_core::registry::{self, Registration};
use evows_plugins as _;
use schemars::SchemaGenerator;
use serde_json::Value;

/// Everything that ships. A plugin that is missing here was not asked for; one that is missing in the binary was not
/// linked, which nothing else would say.
const SHIPPED: &[&str] = &[
    "source file",
    "source generator",
    "source stdin",
    "source webhook",
    "filter bytes",
    "filter debounce",
    "filter dedupe",
    "filter enrich",
    "filter events",
    "filter map",
    "filter media",
    "filter normalize",
    "filter redact",
    "filter remove",
    "filter rename",
    "filter route",
    "filter sample",
    "filter set",
    "filter throttle",
    "filter where",
    "sink blackhole",
    "sink channels",
    "sink file",
    "sink socketio",
    "sink stdout",
    "sink webhook",
    "transport socketio",
    "transport sse",
    "transport websocket",
    "policy both",
    "policy env",
    "policy global",
    "policy traditional",
    "lifecycle evolution",
];

fn each(check: impl Fn(&Registration)) {
    let plugins = registry::all();
    assert!(!plugins.is_empty(), "no plugin is linked");
    plugins.into_iter().for_each(check);
}

#[test]
fn exactly_what_ships_is_registered_once() {
    let names: Vec<_> = registry::all()
        .iter()
        .map(|plugin| format!("{} {}", plugin.kind, plugin.name))
        .collect();
    assert_eq!(names, SHIPPED);
    assert_eq!(registry::check_unique(), Ok(()));
}

#[test]
fn names_are_snake_case_and_summaries_one_line() {
    each(|plugin| {
        let is_plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
        assert!(plugin.name.chars().all(is_plain), "{plugin:?}");
        let summary = plugin.summary;
        assert!((10..=100).contains(&summary.len()), "{plugin:?}: {summary}");
        assert!(
            !summary.contains('\n') && summary.ends_with('.'),
            "{plugin:?}: {summary}"
        );
    });
}

#[test]
fn examples_and_defaults_check_clean() {
    each(|plugin| {
        let problems = plugin.check(&Settings::from_text(plugin.example));
        assert_eq!(problems, [], "{plugin:?}");
        // Where there is nothing to assume, the key that is missing is named.
        for problem in plugin.check(&Settings::from_text("")) {
            assert!(
                problem.message.contains("missing"),
                "{plugin:?}: {problem:?}"
            );
        }
    });
}

#[test]
fn an_unknown_key_is_rejected_where_it_stands() {
    each(|plugin| {
        let keys = "no_such_key = 1\n";
        let mut problems = plugin.check(&Settings::from_text(keys));
        problems.retain(|problem| problem.code != "missing-key");
        assert_eq!(problems.len(), 1, "{plugin:?}: {problems:?}");
        let problem = &problems[0];
        assert!(
            problem.message.contains("no_such_key"),
            "{plugin:?}: {problem:?}"
        );
        let Place::Span(span) = &problem.place else {
            panic!("{plugin:?}: {problem:?} has no span");
        };
        assert_eq!(keys.get(span.clone()), Some("no_such_key"), "{plugin:?}");
    });
}

#[test]
fn schemas_describe_every_key_and_allow_no_other() {
    each(|plugin| {
        let mut generator = SchemaGenerator::default();
        let schema = plugin.schema(&mut generator);
        assert_closed(plugin, schema.as_value());
        for definition in generator.definitions().values() {
            if definition.get("properties").is_some() {
                assert_closed(plugin, definition);
            }
        }
    });
}

fn assert_closed(plugin: &Registration, schema: &Value) {
    assert_eq!(
        schema["additionalProperties"], false,
        "{plugin:?}: {schema:#}"
    );
    let Some(properties) = schema.get("properties").and_then(Value::as_object) else {
        return;
    };
    for (key, property) in properties {
        let description = property["description"].as_str().unwrap_or_default();
        assert!(
            description.len() > 10,
            "{plugin:?}: `{key}` is not described"
        );
    }
}
