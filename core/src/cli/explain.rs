//! `evows explain`.

mod cases;
mod pages;

use std::fmt::Write as _;
use std::io;
use std::path::PathBuf;

use schemars::SchemaGenerator;
use serde_json::{Map, Value};

use super::{Exit, list, output};
use crate::config::section::{LIFECYCLE, PIPELINE, TRANSPORTS};
use crate::config::suggest;
use crate::registry::{self, Kind, Registration};

#[derive(Debug, clap::Args)]
pub(super) struct Options {
    /// The plugin's name, or `kind/name` where two kinds share it; or `tests`, for the keys of `[[tests]]`.
    #[arg(required_unless_present = "markdown")]
    plugin: Option<String>,
    /// Write every plugin as one Markdown page.
    #[arg(long, conflicts_with = "plugin")]
    markdown: bool,
    /// With `--markdown`: write a page for each plugin into this folder, and an index.
    #[arg(long, value_name = "DIR", requires = "markdown")]
    out: Option<PathBuf>,
    /// With `--out`: the sources that this binary was built from. Pages then begin with what a plugin's file says of it.
    #[arg(long, value_name = "DIR", requires = "out")]
    sources: Option<PathBuf>,
}

/// Shows a plugin, or every plugin of that name.
pub(super) fn run(options: &Options) -> io::Result<Exit> {
    if let Some(folder) = &options.out {
        return Ok(match pages::write(folder, options.sources.as_deref()) {
            Ok(()) => Exit::Clean,
            Err(error) => {
                output::complain(&format_args!("cannot write the pages: {error}"));
                Exit::Failed
            }
        });
    }
    let Some(plugin) = &options.plugin else {
        output::print(&page())?;
        return Ok(Exit::Clean);
    };
    if plugin == cases::NAME {
        output::print(&cases::describe())?;
        return Ok(Exit::Clean);
    }
    let (kind, name) = match plugin.split_once('/') {
        Some((word, name)) => match list::kind(word) {
            Ok(kind) => (Some(kind), name),
            Err(problem) => {
                output::complain(&format_args!("`{word}` is no kind of plugin: {problem}"));
                return Ok(Exit::Usage);
            }
        },
        None => (None, plugin.as_str()),
    };
    let plugins = registry::all();
    let of_kind = |plugin: &&&Registration| kind.is_none_or(|kind| plugin.kind == kind);
    let found: Vec<_> = plugins
        .iter()
        .filter(of_kind)
        .filter(|plugin| plugin.name == name)
        .collect();
    if found.is_empty() {
        let names = plugins.iter().filter(of_kind).map(|plugin| plugin.name);
        let help = match suggest(name, names) {
            Some(near) => format!("did you mean `{near}`?"),
            None => "`evows list` shows those that there are".to_owned(),
        };
        let kind = kind.map_or("plugin", Kind::as_str);
        output::complain(&format_args!("there is no {kind} called `{name}`; {help}"));
        return Ok(Exit::Usage);
    }
    let texts: Vec<_> = found.into_iter().map(|plugin| describe(plugin)).collect();
    output::print(&texts.join("\n"))?;
    Ok(Exit::Clean)
}

/// The reference of every plugin, as Markdown.
fn page() -> String {
    let mut text = String::from(
        "# Plugins\n\nWritten by `evows explain --markdown`; `.ci/run` checks that it is fresh.\n",
    );
    for kind in Kind::ALL {
        // Writing to a string cannot fail, here and below.
        let (title, _) = list::title(kind).split_once(':').unwrap_or_default();
        writeln!(text, "\n## The {title}").ok();
        for plugin in registry::all() {
            if plugin.kind != kind {
                continue;
            }
            writeln!(
                text,
                "\n### {}/{}\n\n{}\n",
                kind, plugin.name, plugin.summary
            )
            .ok();
            table(keys_of(plugin), &mut text);
            writeln!(text, "\n```toml\n{}\n```", example(plugin).trim_end()).ok();
        }
    }
    text.push('\n');
    text.push_str(&cases::page("##"));
    text
}

/// Adds keys as a table in Markdown.
fn table(keys: Vec<Key>, text: &mut String) {
    if !keys.is_empty() {
        text.push_str("| key | value | |\n|---|---|---|\n");
    }
    for key in keys {
        let description = key.description.replace('\n', " ").replace('|', "\\|");
        writeln!(text, "| `{}` | {} | {description} |", key.name, key.facts).ok();
    }
}

/// Adds keys as lines of text.
fn lines(keys: Vec<Key>, text: &mut String) {
    for key in keys {
        writeln!(text, "  {} ({})", key.name, key.facts).ok();
        for line in key.description.lines() {
            writeln!(text, "      {line}").ok();
        }
    }
}

fn keys_of(plugin: &Registration) -> Vec<Key> {
    let mut generator = SchemaGenerator::default();
    let schema = plugin.schema(&mut generator).to_value();
    let definitions = generator.take_definitions(true);
    let mut keys = Vec::new();
    collect(&schema, &definitions, "", &mut keys);
    keys
}

fn describe(plugin: &Registration) -> String {
    let keys = keys_of(plugin);
    let mut text = format!("{}/{}: {}\n", plugin.kind, plugin.name, plugin.summary);
    // Writing to a string cannot fail, here and below.
    writeln!(text, "from {}", plugin.origin).ok();
    if keys.is_empty() {
        text.push_str("\nIt has no keys of its own.\n");
    } else {
        text.push_str("\nKeys\n");
    }
    lines(keys, &mut text);
    text.push_str("\nExample\n");
    for line in example(plugin).lines() {
        writeln!(text, "  {line}").ok();
    }
    text
}

/// The plugin's example as it stands in a file.
fn example(plugin: &Registration) -> String {
    let mut sections = std::iter::once(&TRANSPORTS).chain(&PIPELINE);
    let mut text = String::new();
    if let Some(section) = sections.find(|section| section.kind == plugin.kind) {
        writeln!(text, "[{}.my_{}]", section.name, plugin.name).ok();
        writeln!(text, "type = \"{}\"", plugin.name).ok();
        if section.core_keys.contains(&"inputs") {
            text.push_str("inputs = [\"some_id\"]\n");
        }
    } else if plugin.kind == LIFECYCLE.kind {
        writeln!(text, "[{}]\ntype = \"{}\"", LIFECYCLE.name, plugin.name).ok();
    } else {
        writeln!(text, "# in a plugin that takes a {}", plugin.kind).ok();
        if plugin.example.trim().is_empty() {
            writeln!(text, "{} = \"{}\"", plugin.kind, plugin.name).ok();
        } else {
            writeln!(
                text,
                "[sinks.some_id.{}]\ntype = \"{}\"",
                plugin.kind, plugin.name
            )
            .ok();
        }
    }
    text.push_str(plugin.example.trim());
    text
}

struct Key {
    name: String,
    facts: String,
    description: String,
}

/// The keys of a schema, those of tables within it under dotted names.
fn collect(schema: &Value, definitions: &Map<String, Value>, prefix: &str, keys: &mut Vec<Key>) {
    let required: Vec<&str> = schema["required"]
        .as_array()
        .map_or_else(Vec::new, |names| {
            names.iter().filter_map(Value::as_str).collect()
        });
    let properties = schema["properties"].as_object();
    for (name, written) in properties.into_iter().flatten() {
        let resolved = resolve(written, definitions);
        let mut facts = type_of(resolved, definitions);
        match written.get("default").or_else(|| resolved.get("default")) {
            Some(Value::Null) => facts.push_str(", optional"),
            Some(default) => {
                write!(facts, ", default {default}").ok();
            }
            None if required.contains(&name.as_str()) => facts.push_str(", required"),
            None => facts.push_str(", optional"),
        }
        let described = written
            .get("description")
            .or_else(|| resolved.get("description"));
        let name = format!("{prefix}{name}");
        keys.push(Key {
            description: described
                .and_then(Value::as_str)
                .unwrap_or_default()
                .to_owned(),
            facts,
            name: name.clone(),
        });
        if resolved.get("properties").is_some() {
            collect(resolved, definitions, &format!("{name}."), keys);
        }
    }
}

/// What a schema stands for: behind its reference, and less `null`, which TOML does not have.
fn resolve<'s>(schema: &'s Value, definitions: &'s Map<String, Value>) -> &'s Value {
    if let Some(Value::String(reference)) = schema.get("$ref") {
        let name = reference.strip_prefix("#/$defs/");
        if let Some(definition) = name.and_then(|name| definitions.get(name)) {
            return definition;
        }
    }
    if let Some(Value::Array(choices)) = schema.get("anyOf") {
        let mut real = choices.iter().filter(|choice| choice["type"] != "null");
        if let (Some(only), None) = (real.next(), real.next()) {
            return resolve(only, definitions);
        }
    }
    schema
}

fn type_of(schema: &Value, definitions: &Map<String, Value>) -> String {
    let schema = resolve(schema, definitions);
    if let Some(constant) = schema.get("const") {
        return constant.to_string();
    }
    if let Some(Value::Array(words)) = schema.get("enum") {
        let words: Vec<_> = words
            .iter()
            .filter(|word| !word.is_null())
            .map(Value::to_string)
            .collect();
        return words.join(" or ");
    }
    for several in ["oneOf", "anyOf"] {
        if let Some(Value::Array(choices)) = schema.get(several) {
            let types: Vec<_> = choices
                .iter()
                .map(|choice| type_of(choice, definitions))
                .collect();
            return types.join(" or ");
        }
    }
    let in_words = |name: &str| match name {
        "array" => format!("array of {}", type_of(&schema["items"], definitions)),
        "object" => "table".to_owned(),
        "string" if schema["format"] == "duration" => "duration such as \"5s\"".to_owned(),
        other => other.to_owned(),
    };
    match &schema["type"] {
        Value::String(name) => in_words(name),
        Value::Array(names) => {
            let names = names.iter().filter_map(Value::as_str);
            let types: Vec<_> = names.filter(|name| *name != "null").map(in_words).collect();
            types.join(" or ")
        }
        _ => "any value".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shows_every_key_with_its_type() {
        let plugin = registry::find(Kind::Filter, "double-filter").unwrap();
        let text = describe(plugin);
        assert!(
            text.starts_with("filter/double-filter: A filter for tests.\n"),
            "{text}"
        );
        assert!(
            text.contains("  ports (array of string, default [])\n      Named ports.\n"),
            "{text}"
        );
        assert!(text.contains("  refused (string, optional)"), "{text}");
        assert!(text.contains("  burst (integer, default 0)"), "{text}");
        assert!(
            text.contains("[filters.my_double-filter]\n  type = \"double-filter\"\n  inputs ="),
            "{text}"
        );
    }

    #[test]
    fn the_example_is_a_part_of_a_file() {
        for plugin in registry::all() {
            assert!(
                toml::from_str::<toml::Table>(&example(plugin)).is_ok(),
                "{plugin:?}"
            );
        }
    }
}
