//! Where events leave.

use std::time::Duration;

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::de::DeserializeOwned;

use super::{BoxError, BuildContext, BuildError};
use crate::Event;
use crate::config::Problem;

/// A running sink. Retrying, time limits, back-off and dead letters are core's job, not the plugin's.
#[async_trait]
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a sink",
    label = "implement `evows::plugin::Sink` with `async fn send(&mut self, batch: &[Event])`"
)]
pub trait Sink: Send {
    /// Connects. Called before the first batch, and again after [`SinkErrorKind::Disconnected`].
    async fn start(&mut self) -> Result<(), SinkError> {
        Ok(())
    }

    /// Delivers a batch, in order. `Ok` means that every event of it is where it belongs.
    ///
    /// Core calls it with one batch at a time. The future is dropped when the shutdown deadline passes:
    /// the batch then counts as failed.
    async fn send(&mut self, batch: &[Event]) -> Result<(), SinkError>;

    /// Flushes and closes. Called once, after the last batch.
    async fn stop(&mut self) -> Result<(), SinkError> {
        Ok(())
    }
}

/// How a sink comes to be.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be registered as a sink",
    label = "implement `evows::plugin::SinkPlugin` for it"
)]
pub trait SinkPlugin: Sink + Sized + 'static {
    /// The `type` that selects it in `evows.toml`.
    const NAME: &'static str;
    /// Its keys, less the ones that core reads (`type`, `inputs`, `buffer`, `required`).
    type Config: DeserializeOwned + JsonSchema;

    /// What is wrong with a configuration that parsed. No I/O.
    fn check(_config: &Self::Config) -> Vec<Problem> {
        Vec::new()
    }

    /// Makes the sink. No I/O, no spawning; routes and transports are mounted through the context.
    fn build(config: Self::Config, cx: &BuildContext) -> Result<Self, BuildError>;
}

/// Why a batch was not delivered, and what core is to do about it.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct SinkError {
    /// What to do.
    pub kind: SinkErrorKind,
    /// Which events of the batch failed; the others are delivered.
    pub failed: FailedEvents,
    message: String,
    #[source]
    source: Option<BoxError>,
}

/// What an error asks core to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SinkErrorKind {
    /// Try again, not before `retry_after`.
    Transient {
        /// What the other side asked for.
        retry_after: Option<Duration>,
    },
    /// Never try these events again: they fail.
    Permanent,
    /// Call [`Sink::start`], then try again.
    Disconnected,
    /// Try again, more slowly.
    Overloaded,
}

/// Which events of a batch an error is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FailedEvents {
    /// All of them.
    All,
    /// Those at these indices, in ascending order.
    At(Vec<usize>),
}

// === impl SinkError ===

impl SinkError {
    /// An error of the given kind about the whole batch.
    pub fn new(kind: SinkErrorKind, message: impl Into<String>) -> Self {
        Self {
            kind,
            failed: FailedEvents::All,
            message: message.into(),
            source: None,
        }
    }

    /// An error worth another try.
    pub fn transient(message: impl Into<String>) -> Self {
        Self::new(SinkErrorKind::Transient { retry_after: None }, message)
    }

    /// An error that no other try would mend.
    pub fn permanent(message: impl Into<String>) -> Self {
        Self::new(SinkErrorKind::Permanent, message)
    }

    /// The connection is gone.
    pub fn disconnected(message: impl Into<String>) -> Self {
        Self::new(SinkErrorKind::Disconnected, message)
    }

    /// Narrows the error to some events of the batch.
    #[must_use]
    pub fn only(mut self, indices: Vec<usize>) -> Self {
        self.failed = FailedEvents::At(indices);
        self
    }

    /// Adds the cause.
    #[must_use]
    pub fn caused_by(mut self, source: impl Into<BoxError>) -> Self {
        self.source = Some(source.into());
        self
    }
}
