//! What a plugin under test is built with.

use std::sync::{Arc, OnceLock};

use crate::access::{Access, Compat};
use crate::config::ServerConfig;
use crate::hub::{Hub, Retention};
use crate::metrics::Metrics;
use crate::plugin::{BuildContext, Environment, Shared};

/// A context of its own for the plugin `id`: an empty hub, no instances, no environment.
pub fn context(id: &str) -> BuildContext {
    let shared = Shared {
        hub: Arc::new(Hub::new(Retention::default())),
        lifecycle: OnceLock::new(),
        access: Arc::new(Access::new(Compat::Strict)),
        server: Arc::new(ServerConfig::default()),
        metrics: Metrics::new(),
        environment: Environment::default(),
    };
    BuildContext::new(id, Arc::new(shared))
}
