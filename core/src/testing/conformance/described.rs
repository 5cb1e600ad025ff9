//! Every key is described.

use schemars::SchemaGenerator;
use serde_json::Value;

use super::Plugins;

/// The schema describes every key, those of tables within included, and allows no other.
pub fn options(plugins: &Plugins) {
    plugins.each(|plugin| {
        let mut generator = SchemaGenerator::default();
        let schema = plugin.schema(&mut generator);
        closed(schema.as_value())?;
        for definition in generator.definitions().values() {
            if definition.get("properties").is_some() {
                closed(definition)?;
            }
        }
        Ok(())
    });
}

fn closed(schema: &Value) -> Result<(), String> {
    if schema["additionalProperties"] != false {
        return Err(format!(
            "its schema allows any key; its Config needs #[serde(deny_unknown_fields)]: {schema:#}"
        ));
    }
    let properties = schema.get("properties").and_then(Value::as_object);
    for (key, property) in properties.into_iter().flatten() {
        let description = property["description"].as_str().unwrap_or_default();
        if description.len() <= 10 {
            return Err(format!(
                "its key `{key}` has no doc comment that says what it is"
            ));
        }
    }
    Ok(())
}
