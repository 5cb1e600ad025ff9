//! Harnesses for plugin authors, one for each kind, and a suite of checks that every plugin must pass.
//!
//! | harness | what runs | what a test does |
//! |---|---|---|
//! | [`FilterHarness`] | a filter, as the topology calls it | feeds events, takes what came out; a lost event fails the test |
//! | [`AsyncFilterHarness`] | a filter that does I/O, as its task calls it | feeds events, takes what came out, in order |
//! | [`SourceHarness`] | a source on a task, its events caught | takes events, says how each one ended, stops the source |
//! | [`SinkHarness`] | a sink behind core's delivery: batches, retries, time limits | delivers events, learns their outcome, counts attempts |
//! | [`TransportHarness`] | a transport on a hub and a key of the test's | publishes, calls its routes or listens, drains |
//! | [`PolicyHarness`] | a policy over made-up instances | asks where an event goes |
//!
//! Each builds its plugin from the keys that a user would write in `evows.toml`. None sleeps: in a test with
//! `#[tokio::test(start_paused = true)]` time is virtual, so waits of hours end at once. Sockets are not part of that time: a
//! test that waits for one leaves the clock alone.
//!
//! [`conformance`](mod@conformance) walks what a crate registers; `evows::testing::conformance!();` in a test module is all it takes.
//! [`event`] makes an event, [`corpus`] many of all sorts, [`context`] a context to build any plugin in.

mod async_filter;
mod collected;
pub mod conformance;
mod context;
mod corpus;
mod filter;
mod instances;
mod keys;
mod outlet;
mod policy;
mod probe;
mod shared;
mod sink;
mod source;
mod transport;

pub use self::async_filter::AsyncFilterHarness;
pub use self::context::{NoInstances, context, context_with, event};
pub use self::corpus::corpus;
pub use self::filter::FilterHarness;
pub use self::instances::SomeInstances;
pub use self::outlet::{Inlet, outlet};
pub use self::policy::PolicyHarness;
pub use self::shared::shared;
pub use self::sink::SinkHarness;
pub use self::source::SourceHarness;
pub use self::transport::TransportHarness;
pub use crate::__conformance as conformance;

use std::time::Duration;

/// How long a harness waits for something that should happen, in the time of the test.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

/// How long a source that is told to stop may take.
pub const STOPS_WITHIN: Duration = Duration::from_secs(1);
