//! What a filter on the bench did.

use std::mem;

use crate::Event;

/// Everything that came out of a filter.
#[derive(Default)]
pub(super) struct Collected {
    /// The names of the filter's ports.
    pub(super) ports: Vec<String>,
    pub(super) emitted: Vec<(Option<usize>, Event)>,
    pub(super) discarded: Vec<(Event, &'static str)>,
    pub(super) failed: Vec<(Event, &'static str)>,
}

// === impl Collected ===

impl Collected {
    pub(super) fn new(ports: Vec<String>) -> Self {
        Self {
            ports,
            ..Self::default()
        }
    }

    /// Takes what came out of the unnamed output, or of the port of this number.
    pub(super) fn take(&mut self, port: Option<usize>) -> Vec<Event> {
        let all = mem::take(&mut self.emitted);
        let (taken, left): (Vec<_>, Vec<_>) =
            all.into_iter().partition(|(other, _)| *other == port);
        self.emitted = left;
        taken.into_iter().map(|(_, event)| event).collect()
    }

    /// Takes what came out of a named port.
    ///
    /// # Panics
    ///
    /// When the filter has no port of that name.
    pub(super) fn take_named(&mut self, port: &str) -> Vec<Event> {
        let number = self.ports.iter().position(|name| name == port);
        assert!(
            number.is_some(),
            "the filter has no port `{port}`: {:?}",
            self.ports
        );
        self.take(number)
    }
}
