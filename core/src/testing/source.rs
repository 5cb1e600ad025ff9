//! A source on the bench.

use axum::body::Body;
use axum::http::{Request, Response};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::keys::{configured, expect_built, problems};
use super::{Inlet, PATIENCE, STOPS_WITHIN, context, outlet, transport};
use crate::config::Settings;
use crate::http::Routes;
use crate::plugin::{BuildContext, BuildError, Source, SourceError, SourcePlugin};
use crate::{Event, Outcome, Shutdown};

/// A source that runs, its events caught one by one.
///
/// The source waits with its next event until the test has taken the one before. A test says how each event ended, so that
/// a source that acknowledges can be seen doing so, or not doing so.
pub struct SourceHarness {
    inlet: Inlet,
    shutdown: Shutdown,
    task: JoinHandle<Result<(), SourceError>>,
    routes: Routes,
}

// === impl SourceHarness ===

impl SourceHarness {
    /// Builds a source from its keys, written as TOML, and runs it.
    ///
    /// # Panics
    ///
    /// When the keys have problems, the build fails, or there is no tokio runtime.
    pub fn from_toml<S: SourcePlugin>(keys: &str) -> Self {
        expect_built(Self::build_in::<S>(keys, &context(S::NAME)), S::NAME)
    }

    /// The same in a context of the caller's: parse, check, build, run.
    pub fn build_in<S: SourcePlugin>(keys: &str, cx: &BuildContext) -> Result<Self, BuildError> {
        let config = configured(&Settings::from_text(keys), S::check)?;
        let source = Box::new(S::build(config, cx)?);
        let mut harness = Self::run(source);
        harness.routes = Routes::new(cx.take_mounted().routes)
            .map_err(|conflict| BuildError::new(conflict.to_string()))?;
        Ok(harness)
    }

    /// Runs a source that was made by hand.
    pub fn run(source: Box<dyn Source>) -> Self {
        let (outlet, inlet) = outlet();
        let shutdown = Shutdown::new();
        let task = tokio::spawn(source.run(outlet, shutdown.clone()));
        Self {
            inlet,
            shutdown,
            task,
            routes: Routes::default(),
        }
    }

    /// What the source's check says of these keys, as one line; empty when nothing is wrong.
    pub fn problems<S: SourcePlugin>(keys: &str) -> String {
        problems(keys, S::check)
    }

    /// Waits for the next event; `None` when the source has ended. The test ends it with [`Event::settle`]. Cancel safe.
    pub async fn receive(&mut self) -> Option<Event> {
        self.inlet.receive().await
    }

    /// Takes the next `count` events and ends each of them as `outcome`.
    ///
    /// # Panics
    ///
    /// When the source ends before that, or has nothing for ten seconds.
    pub async fn take(&mut self, count: usize, outcome: Outcome) -> Vec<Event> {
        let mut taken = Vec::with_capacity(count);
        while taken.len() < count {
            let (next, have) = (timeout(PATIENCE, self.receive()).await, taken.len());
            let next = next.unwrap_or_else(|_| panic!("no event came after {have} of {count}"));
            let event = next.unwrap_or_else(|| panic!("the source ended after {have} of {count}"));
            taken.push(event.clone());
            event.settle(outcome);
        }
        taken
    }

    /// Calls a route that the source mounted. It may wait until an event that it brought has ended: then take that meanwhile.
    ///
    /// # Panics
    ///
    /// When no route of the source has that path.
    pub fn call(
        &self,
        request: Request<Body>,
    ) -> impl Future<Output = Response<Body>> + Send + use<> {
        transport::call(&self.routes, request)
    }

    /// Takes what the source still brings until it ends by itself, each event as delivered.
    ///
    /// # Panics
    ///
    /// When it panics.
    pub async fn end(mut self) -> (Vec<Event>, Result<(), SourceError>) {
        let mut taken = Vec::new();
        while let Some(event) = self.receive().await {
            taken.push(event.clone());
            event.settle(Outcome::Delivered);
        }
        (taken, ended(self.task.await))
    }

    /// Tells the source to stop, and takes what it still brings meanwhile, each event as delivered.
    ///
    /// # Panics
    ///
    /// When it has not stopped [within a second](STOPS_WITHIN), or panics.
    pub async fn stop(self) -> (Vec<Event>, Result<(), SourceError>) {
        match self.stops().await {
            Ok(ended) => ended,
            Err(late) => panic!("{late}"),
        }
    }

    /// Tells the source to stop while nobody takes its events, as when the pipeline is full and stays so.
    ///
    /// # Panics
    ///
    /// When it has not stopped [within a second](STOPS_WITHIN), or panics.
    pub async fn stop_untaken(self) -> Result<(), SourceError> {
        self.shutdown.start();
        let stopped = timeout(STOPS_WITHIN, self.task).await;
        assert!(
            stopped.is_ok(),
            "the source does not stop while the pipeline is full"
        );
        stopped.map_or(Ok(()), ended)
    }

    /// As [`stop`](Self::stop), with an error in place of a panic for a source that runs on.
    pub(super) async fn stops(self) -> Result<(Vec<Event>, Result<(), SourceError>), &'static str> {
        self.shutdown.start();
        timeout(STOPS_WITHIN, self.end()).await.map_err(|_| {
            "the source runs on a second after it was told to stop: await `shutdown.started()` beside whatever it waits for"
        })
    }
}

fn ended(
    joined: Result<Result<(), SourceError>, tokio::task::JoinError>,
) -> Result<(), SourceError> {
    match joined {
        Ok(result) => result,
        Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
        Err(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use async_trait::async_trait;

    use super::*;
    use crate::testing::event;
    use crate::topology::Outlet;

    const EVENT: &str = r#"{"event":"a","instance":"i"}"#;

    /// Sends an event again until it is accepted, then waits: for the signal, or for longer than that.
    struct Stubborn {
        heeds: bool,
    }

    #[async_trait]
    impl Source for Stubborn {
        async fn run(
            self: Box<Self>,
            mut outlet: Outlet,
            shutdown: Shutdown,
        ) -> Result<(), SourceError> {
            while !outlet
                .send_tracked(vec![event(EVENT)])
                .await
                .await
                .is_accepted()
            {}
            if self.heeds {
                shutdown.started().await;
            } else {
                std::future::pending::<()>().await;
            }
            Ok(())
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_source_learns_how_its_events_end() {
        let mut harness = SourceHarness::run(Box::new(Stubborn { heeds: true }));
        harness.take(3, Outcome::Failed).await;
        harness.take(1, Outcome::Delivered).await;
        let (rest, ended) = harness.stop().await;
        assert!(rest.is_empty() && ended.is_ok());
    }

    #[tokio::test(start_paused = true)]
    #[should_panic(expected = "runs on a second after")]
    async fn a_source_that_runs_on_is_found_out() {
        let mut harness = SourceHarness::run(Box::new(Stubborn { heeds: false }));
        harness.take(1, Outcome::Delivered).await;
        harness.stop().await.1.unwrap();
    }

    #[tokio::test(start_paused = true)]
    #[should_panic(expected = "no event came after 0 of 1")]
    async fn a_source_with_nothing_is_found_out() {
        let mut harness = SourceHarness::run(Box::new(Stubborn { heeds: true }));
        harness.take(1, Outcome::Delivered).await;
        harness.take(1, Outcome::Delivered).await;
    }
}
