//! `evows schema`.

use std::io;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde_json::{Map, Value, json};

use super::{Exit, output};
use crate::config::section::{DEFAULT_LIFECYCLE, LIFECYCLE, PIPELINE, Section, TESTS, TRANSPORTS};
use crate::config::{BufferConfig, HistoryConfig, HubConfig, ServerConfig, TestConfig};
use crate::delivery::DeliveryConfig;
use crate::registry::{self, Kind, Registration};

/// Prints the schema.
pub(super) fn run() -> io::Result<Exit> {
    output::print(&format!("{:#}\n", schema().to_value()))?;
    Ok(Exit::Clean)
}

/// The JSON Schema (draft 2020-12) of `evows.toml`, with the plugins of this binary. It describes values
/// as they are written out; a number may also be written as a string with a `${VAR}` in it.
pub fn schema() -> Schema {
    let mut generator = SchemaGenerator::default();
    let mut sections = Map::new();
    let mut add = |name: &str, schema: Value| sections.insert(name.to_owned(), schema);
    add(
        "server",
        generator.subschema_for::<ServerConfig>().to_value(),
    );
    add("hub", generator.subschema_for::<HubConfig>().to_value());
    let history = generator.subschema_for::<HistoryConfig>();
    add("history", history.to_value());
    add("lifecycle", plugins(&LIFECYCLE, &mut generator));
    for section in std::iter::once(&TRANSPORTS).chain(&PIPELINE) {
        let entries = json!({
            "type": "object",
            "propertyNames": { "pattern": "^[A-Za-z0-9_-]+$" },
            "additionalProperties": plugins(section, &mut generator),
        });
        add(section.name, entries);
    }
    let tests = generator.subschema_for::<TestConfig>();
    add(TESTS, json!({ "type": "array", "items": tests }));
    let mut schema = json_schema!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "evows.toml",
        "type": "object",
        "properties": sections,
        "required": ["sources", "sinks"],
        "additionalProperties": false,
    });
    let definitions = generator.take_definitions(true);
    if !definitions.is_empty() {
        schema.insert("$defs".to_owned(), Value::Object(definitions));
    }
    schema
}

/// Any one plugin of the section, told apart by `type`.
fn plugins(section: &Section, generator: &mut SchemaGenerator) -> Value {
    let all = registry::all().into_iter();
    let choices: Vec<Value> = all
        .filter(|plugin| plugin.kind == section.kind)
        .map(|plugin| choice(plugin, section, generator))
        .collect();
    if choices.is_empty() {
        return json!(false);
    }
    json!({ "oneOf": choices })
}

/// One plugin's keys and those that core reads.
fn choice(plugin: &Registration, section: &Section, generator: &mut SchemaGenerator) -> Value {
    let mut schema = plugin.schema(generator);
    let buffer = generator.subschema_for::<BufferConfig>().to_value();
    let delivery = DeliveryConfig::json_schema(generator).to_value();
    let object = schema.ensure_object();
    object.insert("type".to_owned(), "object".into());
    object.insert("title".to_owned(), plugin.name.into());
    object.insert("description".to_owned(), plugin.summary.into());
    let own = object.remove("properties");
    let mut properties = Map::new();
    for &key in section.core_keys {
        let schema = match key {
            "type" => json!({ "const": plugin.name }),
            "inputs" => json!({
                "description": "What it reads: `\"id\"`, or `\"id.port\"`.",
                "type": "array",
                "items": { "type": "string" },
                "minItems": 1,
                "uniqueItems": true,
            }),
            "required" => json!({
                "description": "Whether a source acknowledges an event only once this sink has it.",
                "type": "boolean",
                "default": true,
            }),
            "buffer" => buffer.clone(),
            other => delivery["properties"][other].clone(),
        };
        properties.insert(key.to_owned(), schema);
    }
    if let Some(Value::Object(own)) = own {
        properties.extend(own);
    }
    object.insert("properties".to_owned(), properties.into());
    let implied = section.kind == Kind::Lifecycle && plugin.name == DEFAULT_LIFECYCLE;
    let mandatory = section.core_keys.iter().copied();
    let mandatory = mandatory.filter(|key| match *key {
        "type" => !implied,
        other => other == "inputs",
    });
    let mut required: Vec<Value> = mandatory.map(Value::from).collect();
    if let Some(Value::Array(own)) = object.remove("required") {
        required.extend(own);
    }
    object.insert("required".to_owned(), required.into());
    schema.to_value()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reference_leads_somewhere() {
        fn visit(value: &Value, root: &Value) {
            match value {
                Value::Object(map) => {
                    if let Some(Value::String(reference)) = map.get("$ref") {
                        let pointer = reference.strip_prefix('#').unwrap();
                        assert!(root.pointer(pointer).is_some(), "{reference}");
                    }
                    map.values().for_each(|value| visit(value, root));
                }
                Value::Array(array) => array.iter().for_each(|value| visit(value, root)),
                _ => {}
            }
        }
        let root = schema().to_value();
        visit(&root, &root);
        let sinks = &root["properties"]["sinks"]["additionalProperties"]["oneOf"];
        assert!(sinks.as_array().unwrap().iter().any(|sink| {
            sink["properties"]["type"]["const"] == "double-sink"
                && sink["required"] == json!(["type", "inputs"])
                && sink["additionalProperties"] == false
        }));
    }
}
