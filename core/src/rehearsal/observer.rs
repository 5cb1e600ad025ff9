//! A filter that is watched.

use std::sync::Arc;
use std::time::Duration;

use super::record::{Did, Recorder};
use crate::plugin::{Emitter, Filter, Stage};
use crate::{Event, EventId};

/// Does what its filter does, and has every step written down.
pub(super) struct Observed {
    filter: Box<dyn Filter>,
    node: Arc<Watched>,
    recorder: Arc<Recorder>,
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
    /// The event in hand, until it shows again.
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
        in_hand: Option<EventId>,
        out: &mut Emitter<'_>,
        act: impl FnOnce(&mut dyn Filter, &mut Emitter<'_>),
    ) -> Option<EventId> {
        let mut between = Between {
            out,
            node: &self.node,
            recorder: &self.recorder,
            in_hand,
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
        self.call(None, out, |filter, out| filter.ticked(out));
    }

    fn tick(&self) -> Option<Duration> {
        self.filter.tick()
    }

    fn flush(&mut self, out: &mut Emitter<'_>) {
        self.call(None, out, |filter, out| filter.flush(out));
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
        let did = Did::Out {
            port: port.and_then(|port| self.node.ports.get(port).cloned()),
            event: event.clone(),
            unread: !self.node.is_read(port),
        };
        self.note(event.id(), did);
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
