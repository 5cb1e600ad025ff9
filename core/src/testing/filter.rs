//! A filter on the bench.

use std::mem;

use super::collected::Collected;
use super::context;
use super::keys::{configured, expect_built, problems};
use crate::config::Settings;
use crate::plugin::{BuildContext, BuildError, Emitter, Filter, FilterPlugin, Stage};
use crate::{Event, Outcome, Tracker, track};

/// A filter, and everything that came out of it.
///
/// Every event that goes in is tracked. When the harness ends, the filter is flushed, and the harness
/// panics if an event was neither emitted, discarded, failed nor held.
pub struct FilterHarness<F: Filter> {
    filter: Option<F>,
    out: Settled,
    tracker: Option<Tracker>,
    receipt: crate::Receipt,
}

/// What the filter did. The events are settled as they come and kept as copies, so that a test may drop what it takes.
struct Settled {
    all: Collected,
    /// The highest number of a port that was used.
    highest: Option<usize>,
}

// === impl FilterHarness ===

impl<F: FilterPlugin> FilterHarness<F> {
    /// Builds the filter from its keys, written as TOML.
    ///
    /// # Panics
    ///
    /// When the keys have problems or the build fails; see [`try_from_toml`](Self::try_from_toml).
    pub fn from_toml(keys: &str) -> Self {
        expect_built(Self::try_from_toml(keys), F::NAME)
    }

    /// Builds the filter from its keys: parse, check, build.
    pub fn try_from_toml(keys: &str) -> Result<Self, BuildError> {
        Self::build_in(keys, &context(F::NAME))
    }

    /// Builds the filter from its keys in a context of the caller's.
    pub fn build_in(keys: &str, cx: &BuildContext) -> Result<Self, BuildError> {
        let config = configured(&Settings::from_text(keys), F::check)?;
        let ports = F::ports(&config);
        Ok(Self::new(F::build(config, cx)?, ports))
    }

    /// Puts a filter with other keys in its place, as when they are loaded again: it takes over, and what the one before still
    /// holds is flushed.
    ///
    /// # Panics
    ///
    /// As [`from_toml`](Self::from_toml), and when the new one has other ports.
    pub fn reload(&mut self, keys: &str) -> &mut Self {
        let config = configured(&Settings::from_text(keys), F::check);
        let ports = config.as_ref().map(F::ports).unwrap_or_default();
        let filter = config.and_then(|config| F::build(config, &context(F::NAME)));
        let filter = expect_built(filter, F::NAME);
        assert_eq!(ports, self.out.all.ports, "other ports need a restart");
        self.exchange(filter, F::take_over)
    }

    /// What the filter's check says of these keys, as one line; empty when nothing is wrong.
    pub fn problems(keys: &str) -> String {
        problems(keys, F::check)
    }
}

impl<F: Filter> FilterHarness<F> {
    /// Puts a filter on the bench that was made by hand, with the names of its ports.
    pub fn new(filter: F, ports: Vec<String>) -> Self {
        let (tracker, receipt) = track();
        Self {
            filter: Some(filter),
            out: Settled {
                all: Collected::new(ports),
                highest: None,
            },
            tracker: Some(tracker),
            receipt,
        }
    }

    /// Puts another filter in the place of this one, which takes over and is flushed.
    pub(crate) fn exchange(
        &mut self,
        mut filter: F,
        take_over: impl FnOnce(&mut F, &mut F),
    ) -> &mut Self {
        if let Some(before) = &mut self.filter {
            take_over(&mut filter, before);
        }
        self.flush();
        self.filter = Some(filter);
        self
    }

    /// Feeds one event.
    pub fn send(&mut self, event: Event) -> &mut Self {
        let tracked = self
            .tracker
            .as_ref()
            .map(|tracker| event.clone().tracked(tracker));
        self.call(|filter, out| filter.apply(tracked.unwrap_or(event), out))
    }

    /// Feeds one event, written as its envelope.
    pub fn send_json(&mut self, envelope: &str) -> &mut Self {
        self.send(super::event(envelope))
    }

    /// Tells the filter that its tick is due.
    pub fn tick(&mut self) -> &mut Self {
        self.call(Filter::ticked)
    }

    /// Tells the filter to let go of what it holds.
    pub fn flush(&mut self) -> &mut Self {
        self.call(Filter::flush)
    }

    /// The filter itself.
    pub fn filter(&mut self) -> Option<&mut F> {
        self.filter.as_mut()
    }

    /// Takes the events that came out of the unnamed output.
    pub fn emitted(&mut self) -> Vec<Event> {
        self.out.all.take(None)
    }

    /// Takes the events that came out of a named port.
    ///
    /// # Panics
    ///
    /// When the filter has no port of that name.
    pub fn emitted_to(&mut self, port: &str) -> Vec<Event> {
        self.out.all.take_named(port)
    }

    /// Takes the events that were discarded, with the reasons.
    pub fn discarded(&mut self) -> Vec<(Event, &'static str)> {
        mem::take(&mut self.out.all.discarded)
    }

    /// Takes the events that failed, with the reasons.
    pub fn failed(&mut self) -> Vec<(Event, &'static str)> {
        mem::take(&mut self.out.all.failed)
    }

    /// Flushes and drops the filter, and checks that no event was lost, or emitted to a port that there is not. Dropping the harness does the same.
    ///
    /// # Panics
    ///
    /// When one was.
    pub fn finish(mut self) {
        self.check();
    }

    fn call(&mut self, act: impl FnOnce(&mut F, &mut Emitter<'_>)) -> &mut Self {
        if let Some(filter) = &mut self.filter {
            act(filter, &mut Emitter::new(&mut self.out));
        }
        self
    }

    fn check(&mut self) {
        if self.tracker.is_none() {
            return;
        }
        self.flush();
        self.filter = None;
        self.tracker = None;
        let outcome = futures_util::FutureExt::now_or_never(&mut self.receipt);
        assert!(
            outcome == Some(Outcome::Delivered),
            "the filter dropped an event: emit, discard, fail or hold each one"
        );
        let ports = self.out.all.ports.len();
        assert!(
            self.out.highest.is_none_or(|port| port < ports),
            "the filter emits to a port that `ports` does not name: {:?} of {ports}",
            self.out.highest
        );
    }
}

impl<F: Filter> Drop for FilterHarness<F> {
    fn drop(&mut self) {
        // A test that fails already has its message.
        if !std::thread::panicking() {
            self.check();
        }
    }
}

// === impl Settled ===

impl Stage for Settled {
    fn emit(&mut self, event: Event, port: Option<usize>) {
        self.highest = self.highest.max(port);
        self.all.emitted.push((port, event.clone()));
        event.settle(Outcome::Delivered);
    }

    fn discard(&mut self, event: Event, reason: &'static str) {
        self.all.discarded.push((event.clone(), reason));
        event.settle(Outcome::Delivered);
    }

    fn fail(&mut self, event: Event, reason: &'static str) {
        self.all.failed.push((event.clone(), reason));
        event.settle(Outcome::Delivered);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Passes the first event, holds the second, drops the third.
    #[derive(Default)]
    struct Sloppy {
        seen: usize,
        held: Option<Event>,
    }

    impl Filter for Sloppy {
        fn apply(&mut self, event: Event, out: &mut Emitter<'_>) {
            self.seen += 1;
            match self.seen {
                1 => out.emit(event),
                2 => self.held = Some(event),
                _ => drop(event),
            }
        }

        fn flush(&mut self, out: &mut Emitter<'_>) {
            self.held
                .take()
                .into_iter()
                .for_each(|event| out.emit(event));
        }
    }

    const EVENT: &str = r#"{"event":"a","instance":"i"}"#;

    #[test]
    fn a_held_event_is_not_lost() {
        let mut harness = FilterHarness::new(Sloppy::default(), Vec::new());
        harness.send_json(EVENT).send_json(EVENT);
        assert_eq!(harness.emitted().len(), 1);
        assert_eq!(harness.flush().emitted().len(), 1);
        harness.finish();
    }

    #[test]
    #[should_panic(expected = "dropped an event")]
    fn a_dropped_event_is() {
        let mut harness = FilterHarness::new(Sloppy::default(), Vec::new());
        harness.send_json(EVENT).send_json(EVENT).send_json(EVENT);
        harness.finish();
    }
}
