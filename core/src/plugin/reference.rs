//! A plugin named inside another plugin's configuration.

use std::borrow::Cow;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{self, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

use crate::config::{Problem, Settings};
use crate::registry::{self, Kind};

/// Names a plugin: `policy = "env"`, or with keys of its own, `policy = { type = "env", ... }`.
#[derive(Debug, Clone, PartialEq)]
pub struct PluginRef {
    name: String,
    keys: toml::Table,
}

// === impl PluginRef ===

impl PluginRef {
    /// A reference to the plugin of this name, with no keys.
    pub fn named(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            keys: toml::Table::new(),
        }
    }

    /// The plugin's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its keys, less `type`.
    pub fn settings(&self) -> Settings {
        Settings::from_table(&self.keys)
    }

    /// What is wrong with the reference, for the `check` of the plugin that holds it under `key`.
    pub fn check(&self, kind: Kind, key: &str) -> Vec<Problem> {
        match registry::find(kind, &self.name) {
            Ok(plugin) => {
                let problems = plugin.check(&self.settings());
                problems
                    .into_iter()
                    .map(|problem| problem.under(key))
                    .collect()
            }
            Err(unknown) => vec![unknown.problem().at_key(key)],
        }
    }
}

impl<'de> Deserialize<'de> for PluginRef {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;

        impl<'de> Visitor<'de> for Either {
            type Value = PluginRef;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a plugin's name, or a table with its `type`")
            }

            fn visit_str<E: de::Error>(self, name: &str) -> Result<PluginRef, E> {
                Ok(PluginRef::named(name))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<PluginRef, A::Error> {
                let mut keys = toml::Table::new();
                while let Some((key, value)) = map.next_entry::<String, toml::Value>()? {
                    keys.insert(key, value);
                }
                match keys.remove("type") {
                    Some(toml::Value::String(name)) => Ok(PluginRef { name, keys }),
                    Some(_) => Err(de::Error::custom("`type` must be a string")),
                    None => Err(de::Error::missing_field("type")),
                }
            }
        }

        deserializer.deserialize_any(Either)
    }
}

impl JsonSchema for PluginRef {
    fn schema_name() -> Cow<'static, str> {
        "PluginRef".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "A plugin's name, or a table with its `type` and its keys.",
            "oneOf": [
                { "type": "string" },
                { "type": "object", "required": ["type"], "properties": { "type": { "type": "string" } } },
            ],
        })
    }
}
