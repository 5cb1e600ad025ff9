//! A sink on the bench.

use std::sync::Arc;

use async_trait::async_trait;
use parking_lot::Mutex;
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout};

use super::keys::{configured, expect_built, problems};
use super::probe::{Probe, Seen};
use super::{PATIENCE, context};
use crate::config::section::PIPELINE;
use crate::config::{BufferConfig, Input, Settings};
use crate::delivery::{Delivery, DeliveryConfig};
use crate::metrics::Metrics;
use crate::plugin::{
    Batch, BuildContext, BuildError, Sink, SinkError, SinkPlugin, Source, SourceError,
};
use crate::topology::{Outlet, Part, Plan, Running, SinkPart};
use crate::{Event, Line, Outcome, Receipt, Shutdown};

/// What the sink is called.
const ID: &str = "sink";
/// What stands in front of it.
const FEED: &str = "feed";

/// A sink behind core's own delivery: its queue, its batches, retries, time limits and breaker.
///
/// In a test with a paused clock the waits between attempts take no time. [`send`](Self::send) calls the sink itself.
pub struct SinkHarness {
    sink: Arc<dyn Sink>,
    seen: Arc<Mutex<Seen>>,
    outlet: Outlet,
    running: Running,
}

/// Hands out its outlet and waits.
struct Feed(oneshot::Sender<Outlet>);

// === impl SinkHarness ===

impl SinkHarness {
    /// Builds a sink from its keys, written as TOML, and starts it. Among the keys may be those that core reads of every
    /// sink, such as `timeout` and `retry`; what is left out is as the plugin has it.
    ///
    /// # Panics
    ///
    /// When the keys have problems, the build fails, or there is no tokio runtime.
    pub async fn from_toml<S: SinkPlugin>(keys: &str) -> Self {
        expect_built(Self::build_in::<S>(keys, &context(S::NAME)).await, S::NAME)
    }

    /// The same in a context of the caller's: parse, check, build, start. One that panics is not built again.
    pub async fn build_in<S: SinkPlugin>(
        keys: &str,
        cx: &BuildContext,
    ) -> Result<Self, BuildError> {
        let settings = Settings::from_text(keys).without(PIPELINE[2].core_keys);
        let config: S::Config = configured(&settings, S::check)?;
        let delivery = S::delivery(&config, cx.environment()).with(&of_core(keys)?);
        Ok(Self::run(S::build(config, cx)?, delivery).await)
    }

    /// Starts a sink that was made by hand.
    ///
    /// # Panics
    ///
    /// When there is no tokio runtime.
    pub async fn run(sink: impl Sink + 'static, delivery: Delivery) -> Self {
        let (sink, seen): (Arc<dyn Sink>, _) = (Arc::new(sink), Arc::default());
        let probe = Probe {
            sink: Arc::clone(&sink),
            seen: Arc::clone(&seen),
        };
        let (feed, outlet) = oneshot::channel();
        let mut plan = Plan::default();
        plan.sources.push(Part {
            id: FEED.into(),
            built: Box::new(Feed(feed)),
            rebuild: Box::new(|| Err(BuildError::new("the feed of a harness does not fail"))),
        });
        plan.sinks.push(SinkPart {
            part: Part {
                id: ID.into(),
                built: Box::new(probe),
                rebuild: Box::new(|| Err(BuildError::new("a harness builds a sink once"))),
            },
            inputs: vec![Input {
                id: FEED.into(),
                port: None,
            }],
            buffer: BufferConfig::default(),
            journal: None,
            delivery,
            required: true,
        });
        let running = plan.start(&Metrics::new());
        Self {
            sink,
            seen,
            running: running.expect("one source and one sink make a graph"),
            outlet: outlet
                .await
                .expect("the feed hands its outlet out at first"),
        }
    }

    /// What the sink's check says of these keys, as one line; empty when nothing is wrong.
    pub fn problems<S: SinkPlugin>(keys: &str) -> String {
        problems(keys, S::check)
    }

    /// Has core deliver these events, and waits until the last one has ended: gives the worst outcome.
    pub async fn deliver(&mut self, events: Vec<Event>) -> Outcome {
        self.feed(events).await.await
    }

    /// Puts events into the sink's queue, and waits for nothing else.
    pub async fn feed(&mut self, events: Vec<Event>) -> Receipt {
        self.outlet.send_tracked(events).await
    }

    /// Answers the next attempt in place of the sink, with this error. Errors that are given one after the other answer as
    /// many attempts. With [`SinkError::disconnected`] the sink is started once more, as after a connection that was cut.
    pub fn fail_next(&mut self, error: SinkError) {
        self.seen.lock().scripted.push_back(error);
    }

    /// Calls the sink itself, with no delivery around it: what it says of a batch is seen as it is.
    pub async fn send(&self, events: &[Event]) -> Result<(), SinkError> {
        self.sink.send(Batch::of(events)).await
    }

    /// How often core had the sink start.
    pub fn starts(&self) -> usize {
        self.seen.lock().starts
    }

    /// How many events each attempt so far was about, those included that [`fail_next`](Self::fail_next) answered.
    pub fn attempts(&self) -> Vec<usize> {
        self.seen.lock().attempts.clone()
    }

    /// Lets what waits be delivered for ten seconds at most, stops the sink, and gives its counts.
    ///
    /// # Panics
    ///
    /// When events were lost, when the counts do not add up, or when a sink that had started was not stopped by then.
    pub async fn stop(self) -> Line {
        let by = Instant::now() + PATIENCE;
        let report = self.running.drain(by, by, &Shutdown::new()).await;
        let line = report.line(ID).expect("the sink has a line").clone();
        let ended: u64 = line.ended.iter().map(|(_, _, events)| events).sum();
        assert_eq!(line.received, ended, "events are missing: {line}");
        assert_eq!(line.ended(Outcome::Lost), 0, "events were lost: {line}");
        let seen = self.seen.lock();
        assert!(
            report.cut || seen.starts == 0 || seen.stops == 1,
            "the sink was not stopped"
        );
        drop(seen);
        line
    }
}

/// The keys that core reads.
fn of_core(keys: &str) -> Result<DeliveryConfig, BuildError> {
    let mut table: toml::Table =
        toml::from_str(keys).map_err(|error| BuildError::new(error.message()))?;
    table.retain(|key, _| PIPELINE[2].core_keys.contains(&key));
    let config = Settings::from_table(&table).read::<DeliveryConfig>();
    let config = config.map_err(BuildError::Config)?;
    let problems = config.check();
    if problems.is_empty() {
        Ok(config)
    } else {
        Err(BuildError::Config(problems))
    }
}

// === impl Feed ===

#[async_trait]
impl Source for Feed {
    async fn run(self: Box<Self>, outlet: Outlet, shutdown: Shutdown) -> Result<(), SourceError> {
        // The harness waits for it, or is gone.
        self.0.send(outlet).ok();
        shutdown.started().await;
        Ok(())
    }
}

/// How long a sink's own `start` and `stop` may take in the conformance suite.
pub(super) async fn stops(sink: &dyn Sink) -> Result<(), &'static str> {
    // That it does not start here says nothing: what it connects to may not be there.
    let started = timeout(super::STOPS_WITHIN, sink.start()).await;
    if !matches!(started, Ok(Ok(()))) {
        return Ok(());
    }
    match timeout(super::STOPS_WITHIN, sink.stop()).await {
        Ok(_) => Ok(()),
        Err(_) => Err("`stop` does not return within a second, and nothing was sent"),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::testing::event;

    /// Refuses what is called `bad`, and takes a minute over what is called `slow`.
    struct Picky;

    #[async_trait]
    impl Sink for Picky {
        async fn send(&self, batch: Batch<'_>) -> Result<(), SinkError> {
            if batch.iter().any(|event| event.name() == "slow") {
                tokio::time::sleep(Duration::from_mins(1)).await;
            }
            let bad: Vec<_> = (0..batch.len())
                .filter(|&at| batch[at].name() == "bad")
                .collect();
            if bad.is_empty() {
                return Ok(());
            }
            Err(SinkError::permanent("bad").only(bad))
        }
    }

    fn events(names: &[&str]) -> Vec<Event> {
        let envelope = |name: &&str| format!(r#"{{"event":"{name}","instance":"i"}}"#);
        names.iter().map(|name| event(&envelope(name))).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn what_fails_is_tried_again_and_counted() {
        let mut harness = SinkHarness::run(Picky, Delivery::default()).await;
        harness.fail_next(SinkError::transient("busy"));
        harness.fail_next(SinkError::disconnected("cut"));
        let outcome = harness.deliver(events(&["good", "bad"])).await;
        assert_eq!(outcome, Outcome::Failed);
        assert_eq!(harness.attempts(), [2, 2, 2]);
        assert_eq!(harness.starts(), 2);
        let line = harness.stop().await;
        assert_eq!(
            (line.ended(Outcome::Delivered), line.ended(Outcome::Failed)),
            (1, 1)
        );
    }

    #[tokio::test(start_paused = true)]
    async fn an_attempt_is_given_up_in_virtual_time() {
        let mut delivery = Delivery::default();
        delivery.retry.attempts = 2;
        let mut harness = SinkHarness::run(Picky, delivery).await;
        let begun = Instant::now();
        assert_eq!(harness.deliver(events(&["slow"])).await, Outcome::Failed);
        assert!(begun.elapsed() >= Duration::from_mins(1));
        assert_eq!(harness.attempts().len(), 2);
        harness.stop().await;
    }

    #[tokio::test(start_paused = true)]
    async fn the_sink_itself_can_be_asked() {
        let harness = SinkHarness::run(Picky, Delivery::default()).await;
        let error = harness.send(&events(&["bad"])).await.unwrap_err();
        assert_eq!(error.to_string(), "bad");
        assert_eq!(harness.stop().await.received, 0);
    }

    #[test]
    fn core_reads_its_keys_and_refuses_wrong_ones() {
        let config = of_core("url = 'x'\ntimeout = '5s'\nretry = { attempts = 2 }\n").unwrap();
        assert_eq!(config.retry.attempts, Some(2));
        assert!(of_core("timeout = '0s'").is_err());
        assert!(of_core("retry = { atempts = 2 }").is_err());
    }
}
