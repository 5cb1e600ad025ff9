//! How live clients are served out of the hub.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::de::DeserializeOwned;

use super::{BoxError, BuildContext, BuildError};
use crate::config::Problem;

/// A transport: serves the hub's channels to clients that stay connected.
///
/// It mounts its routes through the [`BuildContext`] when it is built, gives each client a
/// [cursor](crate::hub::Cursor), and asks [`Access`](crate::access::Access) who may follow what. Its routes are called by the
/// HTTP server, one task for each connection; a panic there ends that connection and no other.
#[async_trait]
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a transport",
    label = "implement `evows::plugin::Transport` for it"
)]
pub trait Transport: Send + Sync + 'static {
    /// Starts what the transport needs beside its routes. Called once, after the instances are
    /// restored and before the listener accepts. An error ends the process with exit code 1. Not cancel safe, and need not be: who
    /// drops it ends the process.
    async fn start(self: Arc<Self>) -> Result<(), TransportError> {
        Ok(())
    }

    /// How many clients are connected now. Called at any time, from any task: it must not block.
    fn clients(&self) -> usize;

    /// Refuses new clients in a way that makes them try again elsewhere, and closes the connected ones,
    /// spread evenly over `over`. Returns when the last is gone. Called once, after the last event was published and while the
    /// server still serves; core drops it at its deadline, and cuts whatever connections are left.
    async fn drain(&self, over: Duration);
}

/// How a transport comes to be.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be registered as a transport",
    label = "implement `evows::plugin::TransportPlugin` for it"
)]
pub trait TransportPlugin: Transport + Sized {
    /// The `type` that selects it in `evows.toml`.
    const NAME: &'static str;
    /// Its keys, less the ones that core reads (`type`).
    type Config: DeserializeOwned + JsonSchema;

    /// What is wrong with a configuration that parsed, all of it. No I/O: `evows validate` runs it. Any error among the problems
    /// keeps evows from starting.
    fn check(_config: &Self::Config) -> Vec<Problem> {
        Vec::new()
    }

    /// Makes the transport and mounts its routes. No I/O, no spawning.
    ///
    /// Core calls it at start and for `evows validate`. An error ends the process with exit code 78, and nothing was started.
    fn build(config: Self::Config, cx: &BuildContext) -> Result<Self, BuildError>;
}

/// Why a transport could not start.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct TransportError {
    message: String,
    #[source]
    source: Option<BoxError>,
}

// === impl TransportError ===

impl TransportError {
    /// An error with its cause.
    pub fn new(message: impl Into<String>, source: impl Into<BoxError>) -> Self {
        Self {
            message: message.into(),
            source: Some(source.into()),
        }
    }
}
