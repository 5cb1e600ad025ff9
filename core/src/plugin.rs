//! What plugin authors implement, one kind per file.
//!
//! Each kind is two traits: what the running thing does ([`Filter`]), and how it comes to be
//! ([`FilterPlugin`]: name, configuration, `check`, `build`). `check` is pure and is what
//! `evows validate` runs; `build` neither does I/O nor spawns, so that a configuration can be rejected
//! and leave nothing behind; I/O starts in `start` or `run`.

mod async_filter;
mod context;
mod filter;
mod lifecycle;
mod policy;
mod reference;
mod sink;
mod source;
mod transport;

pub use self::async_filter::{AsyncFilter, AsyncFilterPlugin, Limits, Verdict};
pub use self::context::{BuildContext, Environment, Mounted, Shared};
pub use self::filter::{Emitter, Filter, FilterPlugin, Stage};
pub use self::lifecycle::{
    Instance, Instances, Integration, Lifecycle, LifecycleError, LifecyclePlugin, Subscription,
    Watcher,
};
pub use self::policy::{Policy, PolicyPlugin};
pub use self::reference::PluginRef;
pub use self::sink::{
    Batch, Destination, FailedEvents, Sink, SinkError, SinkErrorKind, SinkPlugin,
};
pub use self::source::{Source, SourceError, SourcePlugin};
pub use self::transport::{Transport, TransportError, TransportPlugin};

/// Why a plugin could not be built from a configuration that passed its check.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// The configuration is wrong in a way that the check should have said.
    #[error("{}", crate::config::list(.0))]
    Config(Vec<crate::config::Problem>),
    /// Something outside the configuration is wrong.
    #[error("{message}")]
    Failed {
        /// What failed, naming the value.
        message: String,
        /// Why.
        #[source]
        source: Option<BoxError>,
    },
}

/// An error of any type, as the traits pass it on.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

// === impl BuildError ===

impl BuildError {
    /// A failure described by a message alone.
    pub fn new(message: impl Into<String>) -> Self {
        Self::Failed {
            message: message.into(),
            source: None,
        }
    }
}
