//! A filter that is watched.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use async_trait::async_trait;

use super::record::{Did, Recorder};
use crate::plugin::{AsyncFilter, BoxError, Emitter, Filter, Limits, Stage, Verdict};
use crate::topology::{NO_OUTPUT, NOT_STARTED};
use crate::{Event, EventId};

/// The reason of events that reach a filter that is not asked.
pub(super) const NOT_MOCKED: &str = "not_mocked";

/// Does what its filter does, and has every step written down.
pub(super) struct Observed {
    filter: Box<dyn Filter>,
    node: Arc<Watched>,
    recorder: Arc<Recorder>,
}

/// The same for a filter that does I/O. One that reaches out of the process is not asked.
pub(super) struct ObservedAsync {
    pub(super) filter: Arc<dyn AsyncFilter>,
    pub(super) node: Arc<Watched>,
    pub(super) recorder: Arc<Recorder>,
    /// Whether events pass one that is not asked; they fail otherwise.
    pub(super) skips: bool,
    /// Why it did not start. What it waits for does not come while time is virtual.
    pub(super) broken: OnceLock<String>,
}

/// The filter as its graph knows it.
pub(super) struct Watched {
    pub(super) id: Arc<str>,
    /// The named ports, by number.
    pub(super) ports: Vec<Arc<str>>,
    /// The outputs that somebody reads: the unnamed one, then the ports.
    pub(super) read: Vec<bool>,
}

/// What an observed filter emits into.
struct Between<'a, 'b> {
    out: &'a mut Emitter<'b>,
    node: &'a Watched,
    recorder: &'a Recorder,
    /// The event that the filter was called with.
    given: Option<EventId>,
    /// The same until it shows again.
    in_hand: Option<EventId>,
}

/// Says that the event in hand failed, when the filter panics.
struct Panics<'a> {
    node: &'a Watched,
    recorder: &'a Recorder,
    event: EventId,
}

// === impl Observed ===

impl Observed {
    pub(super) fn new(
        filter: Box<dyn Filter>,
        node: Arc<Watched>,
        recorder: Arc<Recorder>,
    ) -> Self {
        Self {
            filter,
            node,
            recorder,
        }
    }

    /// Calls the filter; gives back the event in hand if the filter did nothing with it.
    fn call(
        &mut self,
        given: Option<EventId>,
        out: &mut Emitter<'_>,
        act: impl FnOnce(&mut dyn Filter, &mut Emitter<'_>),
    ) -> Option<EventId> {
        let mut between = Between {
            out,
            node: &self.node,
            recorder: &self.recorder,
            given,
            in_hand: given,
        };
        act(&mut *self.filter, &mut Emitter::new(&mut between));
        between.in_hand
    }
}

impl Filter for Observed {
    fn apply(&mut self, event: Event, out: &mut Emitter<'_>) {
        let (id, node) = (event.id(), Arc::clone(&self.node));
        let recorder = Arc::clone(&self.recorder);
        recorder.note(&node.id, id, Did::In(event.clone()));
        let panics = Panics {
            node: &node,
            recorder: &recorder,
            event: id,
        };
        let left = self.call(Some(id), out, |filter, out| filter.apply(event, out));
        drop(panics);
        if left.is_some() {
            recorder.note(&node.id, id, Did::Held);
        }
    }

    fn ticked(&mut self, out: &mut Emitter<'_>) {
        self.call(None, out, Filter::ticked);
    }

    fn tick(&self) -> Option<Duration> {
        self.filter.tick()
    }

    fn is_idle(&self) -> bool {
        self.filter.is_idle()
    }

    fn flush(&mut self, out: &mut Emitter<'_>) {
        self.call(None, out, Filter::flush);
    }
}

// === impl ObservedAsync ===

#[async_trait]
impl AsyncFilter for ObservedAsync {
    async fn start(&self) -> Result<(), BoxError> {
        if self.filter.is_local()
            && let Err(error) = self.filter.start().await
        {
            self.broken.set(error.to_string()).ok();
        }
        Ok(())
    }

    async fn apply(&self, event: &Event) -> Verdict {
        let id = event.id();
        self.note(id, Did::In(event.clone()));
        if !self.filter.is_local() {
            return self.in_its_place(event);
        }
        if let Some(why) = self.broken.get() {
            self.note(id, Did::Refused(format!("the filter cannot start: {why}")));
            return self.noted(event, Verdict::Fail(NOT_STARTED));
        }
        let panics = Panics {
            node: &self.node,
            recorder: &self.recorder,
            event: id,
        };
        let verdict = self.filter.apply(event).await;
        drop(panics);
        self.noted(event, verdict)
    }

    fn timed_out(&self, event: &Event) -> Verdict {
        self.noted(event, self.filter.timed_out(event))
    }

    fn limits(&self) -> Limits {
        self.filter.limits()
    }
}

impl ObservedAsync {
    fn note(&self, event: EventId, did: Did) {
        self.recorder.note(&self.node.id, event, did);
    }

    fn in_its_place(&self, event: &Event) -> Verdict {
        if self.skips {
            self.note(event.id(), Did::Skipped);
            return self.noted(event, Verdict::Pass);
        }
        self.noted(event, Verdict::Fail(NOT_MOCKED))
    }

    fn noted(&self, event: &Event, verdict: Verdict) -> Verdict {
        match &verdict {
            Verdict::Pass => self.note(event.id(), self.node.out(None, event)),
            Verdict::Emit(emitted) if emitted.is_empty() => {
                self.note(event.id(), Did::Discarded(NO_OUTPUT));
            }
            Verdict::Emit(emitted) => {
                for (port, emitted) in emitted {
                    self.recorder.made(emitted.id(), event.id());
                    self.note(emitted.id(), self.node.out(*port, emitted));
                }
            }
            Verdict::Discard(reason) => self.note(event.id(), Did::Discarded(reason)),
            Verdict::Fail(reason) => self.note(event.id(), Did::Failed(reason)),
        }
        verdict
    }
}

// === impl Between ===

impl Between<'_, '_> {
    fn note(&mut self, event: EventId, did: Did) {
        self.in_hand.take_if(|id| *id == event);
        self.recorder.note(&self.node.id, event, did);
    }
}

impl Stage for Between<'_, '_> {
    fn emit(&mut self, event: Event, port: Option<usize>) {
        if let Some(given) = self.given {
            self.recorder.made(event.id(), given);
        }
        self.note(event.id(), self.node.out(port, &event));
        match port {
            None => self.out.emit(event),
            Some(port) => self.out.emit_to(port, event),
        }
    }

    fn discard(&mut self, event: Event, reason: &'static str) {
        self.note(event.id(), Did::Discarded(reason));
        self.out.discard(event, reason);
    }

    fn fail(&mut self, event: Event, reason: &'static str) {
        self.note(event.id(), Did::Failed(reason));
        self.out.fail(event, reason);
    }
}

// === impl Watched ===

impl Watched {
    fn out(&self, port: Option<usize>, event: &Event) -> Did {
        Did::Out {
            port: port.and_then(|port| self.ports.get(port).cloned()),
            event: event.clone(),
            unread: !self.is_read(port),
        }
    }

    fn is_read(&self, port: Option<usize>) -> bool {
        let output = port.map_or(0, |port| port + 1);
        self.read.get(output).copied().unwrap_or(false)
    }
}

// === impl Panics ===

impl Drop for Panics<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let did = Did::Failed("panic");
            self.recorder.note(&self.node.id, self.event, did);
        }
    }
}
