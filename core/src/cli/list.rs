//! `evows list`.

use std::fmt::Write as _;
use std::io;

use serde_json::json;

use super::Exit;
use super::output::{self, Format};
use crate::registry::{self, Kind, Registration};

#[derive(Debug, clap::Args)]
pub(super) struct Options {
    /// Only this kind: source, filter, sink, transport, policy or lifecycle.
    #[arg(long, value_parser = kind)]
    kind: Option<Kind>,
    /// How to list: `text`, or `json` as one array.
    #[arg(long, default_value = "text")]
    format: Format,
}

/// Lists the plugins of this binary.
pub(super) fn run(options: &Options) -> io::Result<Exit> {
    let mut plugins = registry::all();
    plugins.retain(|plugin| options.kind.is_none_or(|kind| plugin.kind == kind));
    output::print(&match options.format {
        Format::Json => as_json(&plugins),
        Format::Text => as_text(&plugins),
    })?;
    Ok(Exit::Clean)
}

/// Reads a kind, in the singular or the plural.
pub(super) fn kind(word: &str) -> Result<Kind, String> {
    let singular = match word {
        "policies" => "policy",
        other => other.strip_suffix('s').unwrap_or(other),
    };
    let found = Kind::ALL.into_iter().find(|kind| kind.as_str() == singular);
    found.ok_or_else(|| {
        let kinds = Kind::ALL.map(Kind::as_str);
        match crate::config::suggest(singular, kinds) {
            Some(near) => format!("there is no such kind; did you mean `{near}`?"),
            None => format!("it is one of {}", kinds.join(", ")),
        }
    })
}

fn as_json(plugins: &[&Registration]) -> String {
    let plugins: Vec<_> = plugins
        .iter()
        .map(|plugin| {
            json!({
                "kind": plugin.kind.as_str(),
                "name": plugin.name,
                "summary": plugin.summary,
                "package": plugin.origin.package,
            })
        })
        .collect();
    format!("{:#}\n", serde_json::Value::from(plugins))
}

fn as_text(plugins: &[&Registration]) -> String {
    let widest = plugins.iter().map(|plugin| plugin.name.len()).max();
    let width = widest.unwrap_or_default();
    let mut text = String::new();
    let mut before = None;
    for plugin in plugins {
        if before.replace(plugin.kind) != Some(plugin.kind) {
            let gap = if text.is_empty() { "" } else { "\n" };
            // Writing to a string cannot fail.
            writeln!(text, "{gap}{}", title(plugin.kind)).ok();
        }
        writeln!(text, "  {:width$}  {}", plugin.name, plugin.summary).ok();
    }
    text
}

pub(super) fn title(kind: Kind) -> &'static str {
    match kind {
        Kind::Source => "sources: where events enter",
        Kind::Filter => "filters: where they are passed, changed or discarded",
        Kind::Sink => "sinks: where they leave",
        Kind::Transport => "transports: how live clients are served",
        Kind::Policy => "policies: which channels an event goes to",
        Kind::Lifecycle => "lifecycles: which instances exist",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_kinds_in_singular_and_plural() {
        assert_eq!(kind("sinks"), Ok(Kind::Sink));
        assert_eq!(kind("policies"), Ok(Kind::Policy));
        assert!(kind("fliter").unwrap_err().contains("`filter`"));
    }
}
