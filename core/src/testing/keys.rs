//! From a plugin's keys to its configuration.

use crate::config::{Problem, Settings, list};
use crate::plugin::BuildError;

/// Reads and checks keys, as core does before it builds.
pub(super) fn configured<C: serde::de::DeserializeOwned>(
    keys: &Settings,
    check: fn(&C) -> Vec<Problem>,
) -> Result<C, BuildError> {
    let config = keys.read().map_err(BuildError::Config)?;
    let problems = check(&config);
    if problems.is_empty() {
        Ok(config)
    } else {
        Err(BuildError::Config(problems))
    }
}

/// What is wrong with keys, as one line; empty when nothing is.
pub(super) fn problems<C: serde::de::DeserializeOwned>(
    keys: &str,
    check: fn(&C) -> Vec<Problem>,
) -> String {
    match Settings::from_text(keys).read() {
        Ok(config) => list(&check(&config)),
        Err(problems) => list(&problems),
    }
}

/// Takes what was built.
///
/// # Panics
///
/// When the build failed.
pub(super) fn expect_built<T>(built: Result<T, BuildError>, name: &str) -> T {
    match built {
        Ok(built) => built,
        Err(error) => panic!("cannot build `{name}`: {error}"),
    }
}
