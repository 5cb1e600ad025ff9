//! The shared parts of a process, made for a test.

use std::sync::{Arc, OnceLock};

use crate::access::Access;
use crate::config::ServerConfig;
use crate::hub::{Hub, Retention};
use crate::metrics::Metrics;
use crate::plugin::{Environment, Shared};

/// The parts that plugins share, with nothing in them: enough for a
/// [`BuildContext`](crate::plugin::BuildContext).
pub fn shared(server: ServerConfig, environment: Environment) -> Arc<Shared> {
    Arc::new(Shared {
        hub: Arc::new(Hub::new(Retention::default())),
        lifecycle: OnceLock::new(),
        access: Arc::new(Access::new(server.compat)),
        server: Arc::new(server),
        metrics: Metrics::new(),
        environment,
    })
}
