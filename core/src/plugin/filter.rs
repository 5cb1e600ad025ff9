//! Where events are passed, changed, split or discarded.

use std::any::Any;
use std::time::Duration;

use schemars::JsonSchema;
use serde::de::DeserializeOwned;

use super::{BuildContext, BuildError};
use crate::Event;
use crate::config::Problem;

/// A running filter: a synchronous step on the hot path.
///
/// Every event given to [`apply`](Filter::apply) must end up in exactly one place: emitted, discarded,
/// failed, or kept in `self` until a later call. One that is simply dropped counts as
/// [lost](crate::Outcome::Lost) and fails its batch. A filter must not block: no I/O, no locks held by others.
///
/// Core calls it on the task of the source in front of it (or, where several sources lead to it, on a task of its own), one
/// call at a time. Nothing here is async, so nothing is cancelled halfway. A panic fails the event in hand; then the filter is
/// [flushed](Self::flush), dropped and built again, and other filters and events go on.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a filter",
    label = "implement `evows::plugin::Filter` with `fn apply(&mut self, event, out)`"
)]
pub trait Filter: Any + Send {
    /// Handles one event. Core calls it for one event at a time, in the order of arrival.
    fn apply(&mut self, event: Event, out: &mut Emitter<'_>);

    /// Lets go of events that the filter holds and that are due; called every [`tick`](Filter::tick).
    fn ticked(&mut self, _out: &mut Emitter<'_>) {}

    /// How often [`ticked`](Filter::ticked) is to be called. Asked once, after the build.
    fn tick(&self) -> Option<Duration> {
        None
    }

    /// Whether [`ticked`](Filter::ticked) has nothing to do until another event comes. Ticks pause
    /// meanwhile. Asked often, so it must be quick.
    fn is_idle(&self) -> bool {
        false
    }

    /// Lets go of every event that the filter holds: at shutdown, and before it is replaced, after a panic or by a reload. What it
    /// still holds when it is dropped is lost.
    fn flush(&mut self, _out: &mut Emitter<'_>) {}
}

/// How a filter comes to be.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be registered as a filter",
    label = "implement `evows::plugin::FilterPlugin` for it"
)]
pub trait FilterPlugin: Filter + Sized + 'static {
    /// The `type` that selects it in `evows.toml`.
    const NAME: &'static str;
    /// Its keys, less the ones that core reads (`type`, `inputs`).
    type Config: DeserializeOwned + JsonSchema;
    /// Whether it emits through its unnamed output. One that only emits to ports cannot be read without naming one.
    const UNNAMED_OUTPUT: bool = true;

    /// What is wrong with a configuration that parsed, all of it. No I/O: `evows validate` runs it. Any error among the problems
    /// keeps evows from starting.
    fn check(_config: &Self::Config) -> Vec<Problem> {
        Vec::new()
    }

    /// The named output ports, beside the unnamed one. Others read them as `inputs = ["id.port"]`.
    fn ports(_config: &Self::Config) -> Vec<String> {
        Vec::new()
    }

    /// Makes the filter. No I/O, no spawning.
    ///
    /// Core calls it at start, for `evows validate`, whenever the running one panicked, and when its settings were changed and
    /// are loaded again. An error at start ends the process with exit code 78 and nothing started; at a reload everything stays
    /// as it was; after a panic it is logged, and tried again after a back-off.
    fn build(config: Self::Config, cx: &BuildContext) -> Result<Self, BuildError>;

    /// Takes from the filter whose place this one takes what still means something: what was seen, counted or held under
    /// settings that both have.
    ///
    /// Core calls it once, after [`build`](Self::build), when the settings of a running filter were changed and are loaded again
    /// (SIGHUP). Then `before` is [flushed](Filter::flush) and dropped: events that this one took over are not among
    /// those. A filter whose settings stay the same stays as it is, and this is not called.
    fn take_over(&mut self, _before: &mut Self) {}
}

/// Where a filter puts what it is done with.
pub struct Emitter<'a> {
    stage: &'a mut dyn Stage,
}

/// What stands behind an [`Emitter`]: the rest of a chain, or a harness. Plugins do not implement it.
pub trait Stage {
    /// Takes an event for the port of this number; `None` is the unnamed output.
    fn emit(&mut self, event: Event, port: Option<usize>);
    /// Ends an event as filtered.
    fn discard(&mut self, event: Event, reason: &'static str);
    /// Ends an event as failed.
    fn fail(&mut self, event: Event, reason: &'static str);
}

// === impl Filter ===

/// A filter whose type is not known, as the topology and the harnesses hold it.
impl<F: Filter + ?Sized> Filter for Box<F> {
    fn apply(&mut self, event: Event, out: &mut Emitter<'_>) {
        (**self).apply(event, out);
    }

    fn ticked(&mut self, out: &mut Emitter<'_>) {
        (**self).ticked(out);
    }

    fn tick(&self) -> Option<Duration> {
        (**self).tick()
    }

    fn is_idle(&self) -> bool {
        (**self).is_idle()
    }

    fn flush(&mut self, out: &mut Emitter<'_>) {
        (**self).flush(out);
    }
}

// === impl Emitter ===

impl<'a> Emitter<'a> {
    /// An emitter into `stage`.
    pub fn new(stage: &'a mut dyn Stage) -> Self {
        Self { stage }
    }

    /// Passes an event on.
    pub fn emit(&mut self, event: Event) {
        self.stage.emit(event, None);
    }

    /// Passes an event on through a named port: its index in [`FilterPlugin::ports`].
    pub fn emit_to(&mut self, port: usize, event: Event) {
        self.stage.emit(event, Some(port));
    }

    /// Discards an event on purpose. `reason` is a metric label: a short fixed phrase in `snake_case`.
    pub fn discard(&mut self, event: Event, reason: &'static str) {
        self.stage.discard(event, reason);
    }

    /// Gives up on an event that could not be handled. `reason` as for [`discard`](Emitter::discard).
    pub fn fail(&mut self, event: Event, reason: &'static str) {
        self.stage.fail(event, reason);
    }
}
