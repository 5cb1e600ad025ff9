//! Where what becomes of an event has to be waited for.

use std::any::Any;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::de::DeserializeOwned;

use super::{BoxError, BuildContext, BuildError};
use crate::Event;
use crate::config::Problem;

/// A running filter that does I/O, on a task of its own behind a bounded queue.
///
/// Core works on up to [`concurrency`](Limits::concurrency) events at once and passes on what comes of them in the order in which
/// the events came. A filter that only computes implements [`Filter`](super::Filter), which runs on the source's task and costs
/// much less.
///
/// The event that [`apply`](Self::apply) is given is a copy that need not end: core keeps the one that has to, and ends it as the
/// verdict says. So an async filter can lose nothing.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not an async filter",
    label = "implement `evows::plugin::AsyncFilter` with `async fn apply(&self, event)`"
)]
#[async_trait]
pub trait AsyncFilter: Any + Send + Sync {
    /// Opens what the filter needs. Called before the first event, and again after a back-off as long as it
    /// fails; events wait meanwhile, and `/healthz` tells of the error. When the process stops there is one last attempt,
    /// and then they fail with the reason `not_started`. Cancel safe: it may be dropped when the process stops.
    async fn start(&self) -> Result<(), BoxError> {
        Ok(())
    }

    /// Says what is to become of an event.
    ///
    /// Called for several events at once. The future is dropped when the [time limit](Limits::timeout) or the shutdown deadline
    /// passes, so it must be cancel safe. A panic fails this event alone, with the reason `panic`; the filter is then
    /// built and started again, while calls that are under way finish on the old one.
    async fn apply(&self, event: &Event) -> Verdict;

    /// Says what is to become of an event whose time is up; fails it with the reason `timeout` unless the filter
    /// says otherwise. Must not block.
    fn timed_out(&self, _event: &Event) -> Verdict {
        Verdict::Fail(TIMEOUT)
    }

    /// Whether it keeps to itself: nothing is asked over the network, and nothing is written. Tests of pipelines and
    /// `evows trace` run one that does; in the place of others they need something else.
    fn is_local(&self) -> bool {
        false
    }

    /// What core is to keep to. Asked after each build.
    fn limits(&self) -> Limits {
        Limits::default()
    }
}

/// How an async filter comes to be.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be registered as an async filter",
    label = "implement `evows::plugin::AsyncFilterPlugin` for it"
)]
pub trait AsyncFilterPlugin: AsyncFilter + Sized + 'static {
    /// The `type` that selects it in `evows.toml`. Filters of both sorts share one set of names.
    const NAME: &'static str;
    /// Its keys, less the ones that core reads (`type`, `inputs`).
    type Config: DeserializeOwned + JsonSchema;

    /// What is wrong with a configuration that parsed. No I/O.
    fn check(_config: &Self::Config) -> Vec<Problem> {
        Vec::new()
    }

    /// The named output ports, beside the unnamed one. Others read them as `inputs = ["id.port"]`.
    fn ports(_config: &Self::Config) -> Vec<String> {
        Vec::new()
    }

    /// Makes the filter. No I/O, no spawning.
    fn build(config: Self::Config, cx: &BuildContext) -> Result<Self, BuildError>;

    /// Takes from the filter whose place this one takes what still means something, such as a cache of the same service.
    ///
    /// Core calls it once, before [`start`](AsyncFilter::start), when the settings of a running filter were changed and are loaded
    /// again (SIGHUP). `before` works on until this one has started, and is dropped when it is done with what it was given.
    fn take_over(&mut self, _before: &Self) {}
}

/// What is to become of an event.
#[derive(Debug)]
pub enum Verdict {
    /// It passes on as it came, through the unnamed output.
    Pass,
    /// These pass on in its place, each through the unnamed output, or the port of this number in
    /// [`ports`](AsyncFilterPlugin::ports). Where there is none, the event is discarded as `no_output`.
    Emit(Vec<(Option<usize>, Event)>),
    /// It is discarded on purpose. The reason is a metric label: a short fixed phrase in `snake_case`.
    Discard(&'static str),
    /// It could not be handled. The reason is as for a discarded one.
    Fail(&'static str),
}

/// What core keeps to when it calls an async filter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Events that are worked on at once, those included that are done and wait for one before them.
    pub concurrency: NonZeroUsize,
    /// How long [`apply`](AsyncFilter::apply) may take for one event.
    pub timeout: Duration,
}

/// The reason of events whose time is up.
const TIMEOUT: &str = "timeout";

// === impl AsyncFilter ===

#[async_trait]
impl<F: AsyncFilter + ?Sized> AsyncFilter for Arc<F> {
    async fn start(&self) -> Result<(), BoxError> {
        (**self).start().await
    }

    async fn apply(&self, event: &Event) -> Verdict {
        (**self).apply(event).await
    }

    fn timed_out(&self, event: &Event) -> Verdict {
        (**self).timed_out(event)
    }

    fn is_local(&self) -> bool {
        (**self).is_local()
    }

    fn limits(&self) -> Limits {
        (**self).limits()
    }
}

// === impl Verdict ===

impl From<Event> for Verdict {
    /// This event passes on through the unnamed output.
    fn from(event: Event) -> Self {
        Self::Emit(vec![(None, event)])
    }
}

// === impl Limits ===

impl Default for Limits {
    /// 8 events at once, 30 seconds for each.
    fn default() -> Self {
        Self {
            concurrency: NonZeroUsize::new(8).expect("8 is not 0"),
            timeout: Duration::from_secs(30),
        }
    }
}
