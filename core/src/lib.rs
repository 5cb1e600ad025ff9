//! The vocabulary, configuration, topology and hub of evows. Names no plugin.

pub mod access;
pub mod cli;
pub mod config;
pub mod delivery;
mod event;
pub mod files;
pub mod http;
pub mod hub;
pub mod journal;
#[cfg(feature = "jq")]
pub mod jq;
pub mod metrics;
pub mod names;
mod outcome;
pub mod plugin;
pub mod registry;
mod rehearsal;
pub mod runtime;
mod shutdown;
pub mod testing;
pub mod topology;

#[doc(hidden)]
pub use inventory;

/// For plugin authors, whose own crate then needs none of these.
pub use async_trait::async_trait;
pub use {axum, bytes, clap, schemars, serde, serde_json, tokio, tracing};

pub use self::event::{
    EnvelopeError, Event, EventId, InvalidEventId, RecordError, one_line, placeholder, utf8_lossy,
};
pub use self::outcome::{Outcome, Receipt, Tracker, track};
pub use self::shutdown::{Line, Report, Shutdown};
