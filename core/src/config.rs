//! `evows.toml`: read with spans, checked as a whole, reported all at once.
//!
//! The passes: parse, take out the keys that core reads, resolve `${VAR}` in string leaves, hand the rest
//! to each plugin's own `Config`, check the graph. Every pass adds its problems and goes on.

mod cases;
pub mod codes;
mod diagnostic;
mod graph;
mod inside;
mod interpolate;
mod load;
mod mask;
mod model;
mod overrides;
mod place;
mod problem;
mod read;
pub(crate) mod section;
mod server;
mod settings;
mod suggest;
mod tree;
mod units;

pub use self::cases::{
    Case, Cases, End, EndConfig, Envelope, ErrorKind, Expected, Feed, InputConfig, Mock,
    MockConfig, OutputConfig, TestConfig, Wanted, When, envelopes,
};
pub use self::diagnostic::{Diagnostic, render};
pub use self::model::{
    BufferConfig, BufferType, Component, Config, FilterNode, HistoryConfig, HubConfig, Input,
    Pipeline, SinkNode, SyncConfig, WhenFull,
};
pub(crate) use self::place::place_keys;
pub use self::problem::{Place, Problem, Severity, list};
pub use self::server::{ServerConfig, TlsConfig};
pub use self::settings::Settings;
pub use self::suggest::suggest;
pub use self::units::{Period, Size};
