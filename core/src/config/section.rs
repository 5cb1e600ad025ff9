//! The sections of `evows.toml`, and which keys of them core reads itself.

use super::{Problem, ServerConfig, codes};
use crate::registry::{Kind, Registration};

/// A section that holds plugins.
pub(crate) struct Section {
    /// Its name.
    pub(crate) name: &'static str,
    /// What stands in it.
    pub(crate) kind: Kind,
    /// The keys that core takes out before the plugin sees the rest.
    pub(crate) core_keys: &'static [&'static str],
}

/// Every section.
pub(crate) const SECTIONS: [&str; 9] = [
    "server",
    "hub",
    "history",
    "lifecycle",
    "transports",
    "sources",
    "filters",
    "sinks",
    TESTS,
];

/// The tables that `evows test` runs.
pub(crate) const TESTS: &str = "tests";

/// The lifecycle that runs when the file names none.
pub(crate) const DEFAULT_LIFECYCLE: &str = "evolution";

pub(crate) const LIFECYCLE: Section = Section {
    name: "lifecycle",
    kind: Kind::Lifecycle,
    core_keys: &["type"],
};

pub(crate) const TRANSPORTS: Section = Section {
    name: "transports",
    kind: Kind::Transport,
    core_keys: &["type"],
};

/// The sections that make the graph.
pub(crate) const PIPELINE: [Section; 3] = [
    Section {
        name: "sources",
        kind: Kind::Source,
        core_keys: &["type"],
    },
    Section {
        name: "filters",
        kind: Kind::Filter,
        core_keys: &["type", "inputs"],
    },
    Section {
        name: "sinks",
        kind: Kind::Sink,
        core_keys: &[
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
    },
];

/// Adds to a plugin's problem what only core knows: whose keys these are, and who has the others.
pub(super) fn explain(problem: &mut Problem, plugin: &Registration) {
    let explain = format!(
        "`evows explain {}/{}` shows its keys",
        plugin.kind, plugin.name
    );
    if problem.code == codes::MISSING_KEY && problem.help.is_none() {
        problem.help = Some(explain);
    } else if problem.code == codes::UNKNOWN_KEY {
        let of_sinks = PIPELINE[2].core_keys.iter().skip(2);
        let of_sinks = of_sinks.map(|&key| (key, "sinks"));
        for (key, owners) in of_sinks.chain([("inputs", "filters and sinks")]) {
            if problem.message.contains(&format!("`{key}`")) {
                problem.help = Some(format!("`{key}` belongs to {owners}; take it away"));
            }
        }
        problem.message = problem.message.replacen(
            " here",
            &format!(" in the {} `{}`", plugin.kind, plugin.name),
            1,
        );
    }
}

/// Whether `[server]` has this key.
pub(super) fn is_key_of_server(name: &str) -> bool {
    let schema = schemars::schema_for!(ServerConfig);
    schema
        .pointer("/properties")
        .is_some_and(|keys| keys.get(name).is_some())
}
