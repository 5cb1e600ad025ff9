//! Runs a configuration until it is told to stop.

use std::sync::Arc;

use crate::cli::Exit;
use crate::config::Config;
use crate::http::Host;
use crate::plugin::Environment;

/// Runs `config` on `host`.
#[expect(clippy::unused_async, reason = "the run itself is in another change")]
pub async fn run(config: Config, host: Arc<dyn Host>, environment: Environment) -> Exit {
    drop((config, host, environment));
    tracing::error!("this build has no runtime");
    Exit::Internal
}
