//! What a plugin under test is built with.

use crate::config::ServerConfig;
use crate::plugin::{BuildContext, Environment};

use super::shared;

/// A context of its own for the plugin `id`: an empty hub, no instances, no environment.
pub fn context(id: &str) -> BuildContext {
    BuildContext::new(id, shared(ServerConfig::default(), Environment::default()))
}
