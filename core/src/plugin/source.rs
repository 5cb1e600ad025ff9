//! Where events enter.

use std::time::Duration;

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::de::DeserializeOwned;

use super::{BoxError, BuildContext, BuildError};
use crate::config::Problem;
use crate::shutdown::Shutdown;
use crate::topology::Outlet;

/// A running source.
///
/// Core calls `run` once, on a task of its own. It returns `Ok` when the source has no more events (end of
/// standard input) or was told to stop; an error or a panic makes core build the source again and run that,
/// after a back-off that grows to half a minute. An error after the shutdown has started is only logged.
#[async_trait]
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a source",
    label = "implement `evows::plugin::Source` with `async fn run(...)`"
)]
pub trait Source: Send {
    /// Reads events and pushes them into `outlet` in batches, until `shutdown` starts.
    ///
    /// A source that can acknowledge upstream sends with [`Outlet::send_tracked`], awaits the receipt, and
    /// acknowledges only an [accepted](crate::Outcome::is_accepted) outcome. `Outlet::send` waits while
    /// the pipeline is full: that wait is the back-pressure. Whatever it waits for, it waits for `shutdown` beside it, and returns
    /// within a second of that.
    ///
    /// The future is never dropped before `shutdown` has started and the shutdown deadline has passed, so it need not be cancel
    /// safe; dropped then, events that it has not sent yet were never accepted.
    async fn run(self: Box<Self>, outlet: Outlet, shutdown: Shutdown) -> Result<(), SourceError>;
}

/// How a source comes to be.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be registered as a source",
    label = "implement `evows::plugin::SourcePlugin` for it"
)]
pub trait SourcePlugin: Source + Sized + 'static {
    /// The `type` that selects it in `evows.toml`.
    const NAME: &'static str;
    /// Its keys, less the ones that core reads (`type`).
    type Config: DeserializeOwned + JsonSchema;

    /// What is wrong with a configuration that parsed, all of it. No I/O: `evows validate` runs it. Any error among the problems
    /// keeps evows from starting.
    fn check(_config: &Self::Config) -> Vec<Problem> {
        Vec::new()
    }

    /// How long it waits to learn what became of an event until it answers its sender without that; nothing when it waits for as long as
    /// it takes, or not at all. `evows validate` warns of filters that may take longer.
    fn answers_within(_config: &Self::Config) -> Option<Duration> {
        None
    }

    /// Makes the source. No I/O, no spawning; routes are mounted through the context.
    ///
    /// Core calls it at start, for `evows validate`, and whenever the running one panicked, or its `run` failed. An error at start ends the
    /// process with exit code 78 and nothing started; later it is logged, and tried again after a back-off.
    fn build(config: Self::Config, cx: &BuildContext) -> Result<Self, BuildError>;
}

/// Why a source stopped by itself. Core restarts it with back-off.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct SourceError {
    message: String,
    #[source]
    source: Option<BoxError>,
}

// === impl SourceError ===

impl SourceError {
    /// An error described by a message alone.
    pub fn new(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            source: None,
        }
    }

    /// An error with its cause.
    pub fn with_source(message: impl Into<String>, source: impl Into<BoxError>) -> Self {
        Self {
            message: message.into(),
            source: Some(source.into()),
        }
    }
}
