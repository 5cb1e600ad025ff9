//! Where events leave.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::de::DeserializeOwned;

use super::{BoxError, BuildContext, BuildError, Environment};
use crate::Event;
use crate::config::Problem;
use crate::delivery::Delivery;

/// A running sink. Retrying, time limits, back-off, batching, order and dead letters are core's job, not the plugin's.
///
/// Core may call [`send`](Self::send) for several batches at once: never two of one lane (see
/// [`Order`](crate::delivery::Order)), and never more than [`concurrency`](crate::delivery::Delivery::concurrency) for one
/// destination, which is 1 unless the plugin or the operator says otherwise.
#[async_trait]
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a sink",
    label = "implement `evows::plugin::Sink` with `async fn send(&self, batch: Batch<'_>)`"
)]
pub trait Sink: Send + Sync {
    /// Connects. Called before the first batch, and again after [`SinkErrorKind::Disconnected`]. Meanwhile no batch is begun; with a
    /// concurrency above 1, some may still be on their way.
    ///
    /// An error of any kind is logged, and `start` is called again after a back-off; meanwhile events wait in the sink's queue. Not
    /// cancel safe, and need not be: dropped at the shutdown deadline, the sink is not used any more.
    async fn start(&self) -> Result<(), SinkError> {
        Ok(())
    }

    /// Where an event goes: appends the destinations, each of which gets it on its own. Most sinks have one. An event with none
    /// is filtered. Called on the hot path, and again for an event that is read back from a disk buffer: no I/O.
    fn destinations(&self, _event: &Event, out: &mut Vec<Destination>) {
        out.push(Destination::default());
    }

    /// Delivers a batch, in order. `Ok` means that every event of it is where it belongs. What an error causes is its
    /// [kind](SinkErrorKind); a panic fails the batch, and the sink is built again.
    ///
    /// Not cancel safe, and need not be: the future is dropped when it takes longer than the sink's `timeout`, and the batch is
    /// tried again; and when the shutdown deadline passes, and the batch fails, or stays in its disk buffer.
    async fn send(&self, batch: Batch<'_>) -> Result<(), SinkError>;

    /// Flushes and closes. Called once, after the last batch, if the sink had started. An error is logged and changes nothing. The
    /// future is dropped at the shutdown deadline.
    async fn stop(&self) -> Result<(), SinkError> {
        Ok(())
    }
}

/// One of the places that a sink delivers to, under a name that stays the same over restarts. Each has its own circuit
/// breaker, its own retries and its own place in a disk buffer.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Destination(Option<Arc<str>>);

/// Events for one destination, in order; at least one.
#[derive(Debug, Clone, Copy)]
pub struct Batch<'a> {
    destination: &'a Destination,
    events: &'a [Event],
}

/// How a sink comes to be.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be registered as a sink",
    label = "implement `evows::plugin::SinkPlugin` for it"
)]
pub trait SinkPlugin: Sink + Sized + 'static {
    /// The `type` that selects it in `evows.toml`.
    const NAME: &'static str;
    /// Its keys, less the ones that core reads: `type`, `inputs`, `buffer`, `required`, and those of [`Delivery`].
    type Config: DeserializeOwned + JsonSchema;

    /// What is wrong with a configuration that parsed, all of it. No I/O: `evows validate` runs it. Any error among the problems
    /// keeps evows from starting.
    fn check(_config: &Self::Config) -> Vec<Problem> {
        Vec::new()
    }

    /// How core delivers to it where the file does not say otherwise.
    fn delivery(_config: &Self::Config, _environment: &Environment) -> Delivery {
        Delivery::default()
    }

    /// Makes the sink. No I/O, no spawning; routes and transports are mounted through the context.
    ///
    /// Core calls it at start, for `evows validate`, and whenever the running one panicked. An error at start ends the
    /// process with exit code 78 and nothing started; later it is logged, and tried again after a back-off.
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
    /// The other side takes nothing now, whatever it is sent: try again, more slowly, and not before `retry_after`.
    Overloaded {
        /// What the other side asked for.
        retry_after: Option<Duration>,
    },
}

/// Which events of a batch an error is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FailedEvents {
    /// All of them.
    All,
    /// Those at these indices, in ascending order.
    At(Vec<usize>),
}

// === impl Destination ===

impl Destination {
    /// The destination of this name, which must not be empty: that is the one of sinks with a single destination.
    pub fn named(name: impl Into<Arc<str>>) -> Self {
        Self(Some(name.into()))
    }

    /// The name; empty when the sink has a single destination.
    pub fn name(&self) -> &str {
        self.0.as_deref().unwrap_or_default()
    }
}

impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

// === impl Batch ===

impl<'a> Batch<'a> {
    /// Events for a destination.
    pub fn new(destination: &'a Destination, events: &'a [Event]) -> Self {
        Self {
            destination,
            events,
        }
    }

    /// Events for a sink with a single destination.
    pub fn of(events: &'a [Event]) -> Self {
        static ONLY: Destination = Destination(None);
        Self::new(&ONLY, events)
    }

    /// Where they go.
    pub fn destination(&self) -> &'a Destination {
        self.destination
    }

    /// The events, for as long as the batch lives.
    pub fn events(&self) -> &'a [Event] {
        self.events
    }
}

impl Deref for Batch<'_> {
    type Target = [Event];

    fn deref(&self) -> &[Event] {
        self.events
    }
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

    /// The other side takes nothing now.
    pub fn overloaded(message: impl Into<String>) -> Self {
        Self::new(SinkErrorKind::Overloaded { retry_after: None }, message)
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
