//! evows routes events: sources take them in, filters shape them, sinks deliver them, first of all to
//! Socket.IO clients as Evolution API does.
//!
//! This crate is the front door. A program that adds plugins of its own needs no other:
//!
//! ```no_run
//! use evows::config::Problem;
//! use evows::plugin::{BuildContext, BuildError, Emitter, Filter, FilterPlugin};
//! use evows::{Event, schemars::JsonSchema, serde::Deserialize};
//!
//! /// Lets through the events of one instance.
//! struct Only(String);
//!
//! #[derive(Deserialize, JsonSchema)]
//! #[serde(crate = "evows::serde", deny_unknown_fields)]
//! #[schemars(crate = "evows::schemars")]
//! struct Config {
//!     /// The instance.
//!     instance: String,
//! }
//!
//! impl FilterPlugin for Only {
//!     const NAME: &'static str = "only";
//!     type Config = Config;
//!
//!     fn build(config: Config, _: &BuildContext) -> Result<Self, BuildError> {
//!         Ok(Self(config.instance))
//!     }
//! }
//!
//! impl Filter for Only {
//!     fn apply(&mut self, event: Event, out: &mut Emitter<'_>) {
//!         if event.instance() == self.0 {
//!             out.emit(event);
//!         } else {
//!             out.discard(event, "other_instance");
//!         }
//!     }
//! }
//!
//! evows::register_filter!(Only, summary = "Lets through one instance.", example = "instance = \"a\"");
//!
//! fn main() -> std::process::ExitCode {
//!     evows::main()
//! }
//! ```
//!
//! `evows new` writes such a crate, with tests; [`testing`] has what they are made of. [`Embedded`] runs a pipeline inside an
//! axum application.

use std::process::ExitCode;
use std::sync::Arc;

// Plugins register themselves only in binaries that use their crate.
use evows_plugins as _;

#[doc(inline)]
pub use evows_core::runtime::{EmbedError, Embedded};
pub use evows_core::{
    EnvelopeError, Event, EventId, Line, Outcome, Receipt, Report, Shutdown, Tracker, async_trait,
    track,
};
#[doc(inline)]
pub use evows_core::{
    access, cli, config, delivery, http, hub, journal, metrics, names, plugin, registry, runtime,
    testing, topology,
};
pub use evows_core::{axum, bytes, clap, schemars, serde, serde_json, tokio, tracing};
pub use evows_core::{
    register_async_filter, register_command, register_filter, register_lifecycle, register_policy,
    register_sink, register_source, register_transport,
};
#[doc(inline)]
pub use evows_transports as transports;

/// Runs the `evows` command line with every plugin that this binary has.
pub fn main() -> ExitCode {
    evows_core::cli::main(Arc::new(evows_transports::http::Server))
}
