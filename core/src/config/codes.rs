//! The codes of the problems that core reports. Plugins may add their own.

/// Every code of core with what it means, as the documentation shows them.
pub const CODES: &[(&str, &str)] = &[
    (
        UNREADABLE_CONFIG,
        "the configuration file is not there, or cannot be read as text",
    ),
    (SYNTAX, "the file is not TOML at this place"),
    (DUPLICATE_KEY, "a key or table is there twice"),
    (
        UNKNOWN_SECTION,
        "there is no section or top-level key of this name",
    ),
    (
        UNKNOWN_KEY,
        "the section, or the plugin, has no key of this name",
    ),
    (MISSING_KEY, "a key without a default is not there"),
    (
        WRONG_TYPE,
        "a value is of another type than the key expects",
    ),
    (
        INVALID_VALUE,
        "a value is of the right type and still not accepted",
    ),
    (UNKNOWN_VALUE, "a value is not one of the words that are"),
    (
        UNKNOWN_PLUGIN,
        "no plugin of this kind has the `type` that is asked for",
    ),
    (
        INVALID_ID,
        "an id has other characters than letters, digits, `_` and `-`",
    ),
    (DUPLICATE_ID, "two sections use the same id"),
    (MISSING_VARIABLE, "`${VAR}` is not set and has no default"),
    (UNREADABLE_FILE, "the file of `${file:...}` cannot be read"),
    (
        BAD_REFERENCE,
        "`${...}` is not closed, or is no variable and no file",
    ),
    (
        BAD_ENVIRONMENT,
        "an environment variable that overrides a key is unusable (a warning: the key stays)",
    ),
    (NO_SOURCE, "there is no source"),
    (NO_SINK, "there is no sink"),
    (NO_INPUT, "a filter or a sink reads nothing"),
    (UNKNOWN_INPUT, "an input names no source and no filter"),
    (DUPLICATE_INPUT, "an input is listed twice"),
    (UNKNOWN_PORT, "an input names a port that is not there"),
    (
        NOT_AN_INPUT,
        "an input names something that passes no events on, such as a sink",
    ),
    (CYCLE, "filters read each other in a circle"),
    (
        UNREACHABLE,
        "no event of any source can get to this filter or sink",
    ),
    (
        UNREAD_OUTPUT,
        "nobody reads what this source or filter puts out",
    ),
    (
        UNREAD_PORT,
        "nobody reads this port of a filter (a warning: its events are discarded)",
    ),
    (
        SHORT_TIMEOUT,
        "a source answers before a filter behind it has had its time (a warning)",
    ),
    (
        UNKNOWN_NODE,
        "a test names what the pipeline does not have, or what cannot stand there",
    ),
    (
        BAD_TEST,
        "a test cannot be run, or would show nothing, as it is written",
    ),
    (BAD_PROGRAM, "a jq program cannot be compiled"),
    (PATH_CONFLICT, "two components serve the same path"),
    (BUILD, "a component cannot be built from its keys"),
];

pub(crate) const UNREADABLE_CONFIG: &str = "unreadable-config";
pub(crate) const SYNTAX: &str = "syntax";
pub(crate) const DUPLICATE_KEY: &str = "duplicate-key";
pub(crate) const UNKNOWN_SECTION: &str = "unknown-section";
pub(crate) const UNKNOWN_KEY: &str = "unknown-key";
pub(crate) const MISSING_KEY: &str = "missing-key";
pub(crate) const WRONG_TYPE: &str = "wrong-type";
pub(crate) const INVALID_VALUE: &str = "invalid-value";
pub(crate) const UNKNOWN_VALUE: &str = "unknown-value";
pub(crate) const UNKNOWN_PLUGIN: &str = "unknown-plugin";
pub(crate) const INVALID_ID: &str = "invalid-id";
pub(crate) const DUPLICATE_ID: &str = "duplicate-id";
pub(crate) const MISSING_VARIABLE: &str = "missing-variable";
pub(crate) const UNREADABLE_FILE: &str = "unreadable-file";
pub(crate) const BAD_REFERENCE: &str = "bad-reference";
pub(crate) const BAD_ENVIRONMENT: &str = "bad-environment";
pub(crate) const NO_SOURCE: &str = "no-source";
pub(crate) const NO_SINK: &str = "no-sink";
pub(crate) const NO_INPUT: &str = "no-input";
pub(crate) const UNKNOWN_INPUT: &str = "unknown-input";
pub(crate) const DUPLICATE_INPUT: &str = "duplicate-input";
pub(crate) const UNKNOWN_PORT: &str = "unknown-port";
pub(crate) const NOT_AN_INPUT: &str = "not-an-input";
pub(crate) const CYCLE: &str = "cycle";
pub(crate) const UNREACHABLE: &str = "unreachable";
pub(crate) const UNREAD_OUTPUT: &str = "unread-output";
pub(crate) const UNREAD_PORT: &str = "unread-port";
pub(crate) const SHORT_TIMEOUT: &str = "short-timeout";
pub(crate) const UNKNOWN_NODE: &str = "unknown-node";
pub(crate) const BAD_TEST: &str = "bad-test";
pub(crate) const BAD_PROGRAM: &str = "bad-program";
pub(crate) const PATH_CONFLICT: &str = "path-conflict";
pub(crate) const BUILD: &str = "build";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_kebab_case_and_unique() {
        let mut seen = std::collections::HashSet::new();
        for (code, meaning) in CODES {
            assert!(
                code.chars().all(|c| c.is_ascii_lowercase() || c == '-'),
                "{code}"
            );
            assert!(seen.insert(code), "{code} is there twice");
            assert!(!meaning.is_empty());
        }
    }
}
