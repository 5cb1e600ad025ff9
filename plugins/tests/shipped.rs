//! The shipped `evows.toml` shows every key, and shows them right.

use std::collections::BTreeSet;

use evows_core::config::{
    BufferConfig, HistoryConfig, HubConfig, ServerConfig, Settings, TestConfig,
};
use evows_core::delivery::{Delivery, DeliveryConfig};
use evows_core::registry::{self, Kind};
use evows_plugins as _;
use schemars::SchemaGenerator;
use serde_json::Value;
use toml::Table;

const SHIPPED: &str = include_str!("../../evows.toml");

/// The file as it is, or with the keys that are commented out.
fn shipped(uncomment: bool) -> Table {
    let is_key = |line: &str| line.starts_with(|c: char| c.is_ascii_lowercase());
    let lines = SHIPPED.lines().map(|line| match line.strip_prefix('#') {
        Some(key) if uncomment && is_key(key) => key,
        _ => line,
    });
    let text = lines.collect::<Vec<_>>().join("\n");
    text.parse().expect("the shipped file is TOML")
}

fn keys(schema: &Value) -> BTreeSet<&str> {
    let properties = schema["properties"].as_object();
    properties
        .into_iter()
        .flatten()
        .map(|(key, _)| key.as_str())
        .collect()
}

fn components(file: &Table, section: &str) -> Vec<(String, Table)> {
    let section = file[section].as_table().expect("a section is a table");
    section
        .iter()
        .map(|(id, keys)| {
            (
                id.clone(),
                keys.as_table().expect("a component is a table").clone(),
            )
        })
        .collect()
}

#[test]
fn every_key_of_its_plugins_is_there_and_checks_clean() {
    for (section, kind, read_by_core) in [
        ("sources", Kind::Source, &["type"][..]),
        ("filters", Kind::Filter, &["type", "inputs"]),
        (
            "sinks",
            Kind::Sink,
            &[
                "type",
                "inputs",
                "required",
                "buffer",
                "timeout",
                "concurrency",
                "order",
                "batch",
                "retry",
                "breaker",
                "dead_letter",
            ],
        ),
    ] {
        for uncomment in [false, true] {
            for (id, mut table) in components(&shipped(uncomment), section) {
                let name = table["type"].as_str().unwrap().to_owned();
                let plugin = registry::find(kind, &name).unwrap();
                for key in read_by_core {
                    assert!(table.remove(*key).is_some() || !uncomment, "{id}: {key}");
                }
                assert_eq!(plugin.check(&Settings::from_table(&table)), [], "{id}");
                if uncomment {
                    let schema = plugin.schema(&mut SchemaGenerator::default());
                    let shown: BTreeSet<_> = table.keys().map(String::as_str).collect();
                    assert_eq!(shown, keys(schema.as_value()), "{id}");
                }
            }
        }
    }
}

#[test]
fn every_key_of_the_server_is_there_with_its_default() {
    let table = shipped(true)["server"].clone();
    let schema = SchemaGenerator::default().into_root_schema_for::<ServerConfig>();
    let shown = table
        .as_table()
        .unwrap()
        .keys()
        .map(String::as_str)
        .collect();
    assert_eq!(keys(schema.as_value()), shown);

    let mut shown: ServerConfig = table.try_into().unwrap();
    // These two show an example, because their default is nothing.
    (shown.tls, shown.trusted_proxies) = (None, Vec::new());
    let text = |config: &ServerConfig| serde_json::to_string(config).unwrap();
    assert_eq!(text(&shown), text(&ServerConfig::default()));
}

#[test]
fn every_key_of_the_lifecycle_the_hub_and_the_transport_is_there() {
    let file = shipped(true);
    let mut lifecycle = file["lifecycle"].as_table().unwrap().clone();
    let name = lifecycle.remove("type").unwrap();
    let mut generator = SchemaGenerator::default();
    let plugin = registry::find(Kind::Lifecycle, name.as_str().unwrap()).unwrap();
    let transport = registry::find(Kind::Transport, "socketio").unwrap();
    let hub = generator.root_schema_for::<HubConfig>();
    let history = generator.root_schema_for::<HistoryConfig>();
    for (shown, schema) in [
        (&lifecycle, plugin.schema(&mut generator)),
        (file["hub"].as_table().unwrap(), hub),
        (file["history"].as_table().unwrap(), history),
        (
            file["sinks"]["clients"]["transport"].as_table().unwrap(),
            transport.schema(&mut generator),
        ),
    ] {
        let shown: BTreeSet<_> = shown.keys().map(String::as_str).collect();
        assert_eq!(shown, keys(schema.as_value()));
    }
    let hub: HubConfig = file["hub"].clone().try_into().unwrap();
    assert_eq!(hub, HubConfig::default());
    let history: HistoryConfig = file["history"].clone().try_into().unwrap();
    assert_eq!(history, HistoryConfig::default());
}

#[test]
fn what_core_reads_of_sinks_shows_its_defaults() {
    for (id, sink) in components(&shipped(true), "sinks") {
        let buffer: BufferConfig = sink["buffer"].clone().try_into().unwrap();
        assert_eq!(buffer, BufferConfig::default(), "{id}");
        let keys = [
            "timeout",
            "concurrency",
            "order",
            "batch",
            "retry",
            "breaker",
        ];
        let shown = sink.into_iter().filter(|(key, _)| keys.contains(&&**key));
        let shown: Table = shown.collect();
        assert_eq!(shown.len(), keys.len(), "{id}");
        let shown: DeliveryConfig = shown.try_into().unwrap();
        let expected = Delivery::in_process();
        assert_eq!(Delivery::default().with(&shown), expected, "{id}");
    }
}

#[test]
fn its_tests_show_every_key_of_tests() {
    let mut generator = SchemaGenerator::default();
    let test = generator.root_schema_for::<TestConfig>();
    let definitions = &test.as_value()["$defs"];
    let shown = shipped(true);
    let tests = shown["tests"].as_array().unwrap().iter();
    let tests: Vec<&Table> = tests.map(|test| test.as_table().unwrap()).collect();
    let inner = |key: &str| {
        let lists = tests.iter().filter_map(|test| test.get(key));
        let tables: Vec<&Table> = lists
            .flat_map(|list| match list {
                toml::Value::Array(list) => list.iter().collect(),
                toml::Value::Table(table) => table.values().collect::<Vec<_>>(),
                other => panic!("{other}"),
            })
            .map(|table| table.as_table().unwrap())
            .collect();
        tables
    };
    for (name, tables, elsewhere) in [
        ("", tests.clone(), &["failures"][..]),
        ("InputConfig", inner("inputs"), &["file"]),
        ("OutputConfig", inner("outputs"), &[]),
        ("EndConfig", inner("discards"), &[]),
        ("MockConfig", inner("mocks"), &["program"]),
    ] {
        let mut shown: BTreeSet<&str> = BTreeSet::new();
        shown.extend(tables.iter().flat_map(|table| table.keys().map(|it| &**it)));
        // Each of these is named in a comment: it would not go with the keys beside it.
        for key in elsewhere {
            assert!(
                SHIPPED.contains(&format!("`{key}`")) || SHIPPED.contains(&format!("tests.{key}"))
            );
            shown.insert(key);
        }
        let schema = match name {
            "" => test.as_value(),
            name => &definitions[name],
        };
        assert_eq!(shown, keys(schema), "{name}");
    }
}
