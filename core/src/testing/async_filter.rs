//! An async filter on the bench.

use std::mem;

use super::collected::Collected;
use super::context;
use super::keys::{configured, expect_built, problems};
use crate::Event;
use crate::config::Settings;
use crate::plugin::{AsyncFilter, AsyncFilterPlugin, BuildContext, BuildError, Verdict};

/// An async filter, and everything that it said is to become of events.
///
/// It is started before the first event, and events are given to it one by one, with the time limit that it asks for. To have
/// several under way at once, call the [`filter`](Self::filter) itself.
pub struct AsyncFilterHarness<F> {
    filter: F,
    started: bool,
    out: Collected,
}

// === impl AsyncFilterHarness ===

impl<F: AsyncFilterPlugin> AsyncFilterHarness<F> {
    /// Builds the filter from its keys, written as TOML.
    ///
    /// # Panics
    ///
    /// When the keys have problems or the build fails; see [`build_in`](Self::build_in).
    pub fn from_toml(keys: &str) -> Self {
        expect_built(Self::build_in(keys, &context(F::NAME)), F::NAME)
    }

    /// Builds the filter from its keys in a context of the caller's: parse, check, build.
    pub fn build_in(keys: &str, cx: &BuildContext) -> Result<Self, BuildError> {
        let config = configured(&Settings::from_text(keys), F::check)?;
        let ports = F::ports(&config);
        Ok(Self::new(F::build(config, cx)?, ports))
    }

    /// What the filter's check says of these keys, as one line; empty when nothing is wrong.
    pub fn problems(keys: &str) -> String {
        problems(keys, F::check)
    }
}

impl<F: AsyncFilter> AsyncFilterHarness<F> {
    /// Puts a filter on the bench that was made by hand, with the names of its ports.
    pub fn new(filter: F, ports: Vec<String>) -> Self {
        Self {
            filter,
            started: false,
            out: Collected::new(ports),
        }
    }

    /// Gives it one event, and does as it says.
    ///
    /// # Panics
    ///
    /// When the filter does not start.
    pub async fn send(&mut self, event: Event) -> &mut Self {
        if !self.started {
            if let Err(error) = self.filter.start().await {
                panic!("the filter does not start: {error}");
            }
            self.started = true;
        }
        let limit = self.filter.limits().timeout;
        let verdict = match tokio::time::timeout(limit, self.filter.apply(&event)).await {
            Ok(verdict) => verdict,
            Err(_) => self.filter.timed_out(&event),
        };
        match verdict {
            Verdict::Pass => self.out.emitted.push((None, event)),
            Verdict::Emit(events) => self.out.emitted.extend(events),
            Verdict::Discard(reason) => self.out.discarded.push((event, reason)),
            Verdict::Fail(reason) => self.out.failed.push((event, reason)),
        }
        self
    }

    /// Puts another filter in the place of this one, which has started.
    pub(crate) fn exchange(&mut self, filter: F) {
        self.filter = filter;
        self.started = true;
    }

    /// Gives it one event, written as its envelope.
    pub async fn send_json(&mut self, envelope: &str) -> &mut Self {
        self.send(super::event(envelope)).await
    }

    /// The filter itself.
    pub fn filter(&self) -> &F {
        &self.filter
    }

    /// Takes the events that came out of the unnamed output.
    pub fn emitted(&mut self) -> Vec<Event> {
        self.out.take(None)
    }

    /// Takes the events that came out of a named port.
    ///
    /// # Panics
    ///
    /// When the filter has no port of that name.
    pub fn emitted_to(&mut self, port: &str) -> Vec<Event> {
        self.out.take_named(port)
    }

    /// Takes the events that were discarded, with the reasons.
    pub fn discarded(&mut self) -> Vec<(Event, &'static str)> {
        mem::take(&mut self.out.discarded)
    }

    /// Takes the events that failed, with the reasons.
    pub fn failed(&mut self) -> Vec<(Event, &'static str)> {
        mem::take(&mut self.out.failed)
    }
}
