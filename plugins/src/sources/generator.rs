//! Makes events up: realistic ones, for demonstrations, tests and measurements.
//!
//! The events have the names and shapes of Evolution API 2.3.6, bytes as index-keyed objects included, for instances
//! called `loja1`, `loja2` and so on. The same `seed` makes the same events; only `date_time` follows the clock, unless
//! `start_time` is given.
//!
//! ```toml
//! [sources.demo]
//! type = "generator"
//! rate = 50             # events per second
//! events = ["messages.upsert", "presence.update"]
//! ```
//!
//! Without a `rate` events come as fast as the pipeline takes them. To keep the generator out of the measurement, a
//! thousand events are then made in advance and repeated, `date_time` and all.

mod script;

use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use evows_core::config::{Problem, Size};
use evows_core::plugin::{BuildContext, BuildError, Source, SourceError, SourcePlugin};
use evows_core::topology::Outlet;
use evows_core::{Event, Shutdown, register_source};
use schemars::JsonSchema;
use serde::Deserialize;
use tokio::time::{MissedTickBehavior, interval};

pub use self::script::EventKind;
use self::script::{Envelope, Script};

/// Events that are sent on together at most.
const BATCH: usize = 256;
/// Events that are made in advance where they are repeated.
const POOL: usize = 1024;
/// Rates above this are kept in bursts.
const BURSTS_PER_SECOND: u32 = 100;

/// Makes events up.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// How many instances the events are of.
    pub instances: usize,
    /// Events per second; 0 means as fast as they are taken.
    pub rate: u64,
    /// How many events to make; without it there is no end.
    pub count: Option<u64>,
    /// What the events are derived from.
    pub seed: u64,
    /// Size that smaller envelopes are padded to.
    pub size: Option<Size>,
    /// Which events to make; all of them when empty.
    pub events: Vec<EventKind>,
    /// The first event's `date_time`, such as `"2026-01-01T00:00:00Z"`. Time then passes as the rate says, or by a
    /// millisecond per event. Without it, the clock's.
    pub start_time: Option<String>,
}

/// The running source.
pub struct Generator {
    script: Script,
    rate: u64,
    count: u64,
}

register_source!(
    Generator,
    summary = "Makes up realistic events, for demonstrations and measurements.",
    example = "rate = 50\ncount = 1000\n",
);

// === impl Config ===

impl Default for Config {
    fn default() -> Self {
        Self {
            instances: 3,
            rate: 0,
            count: None,
            seed: 0,
            size: None,
            events: Vec::new(),
            start_time: None,
        }
    }
}

impl Config {
    fn start_time(&self) -> Option<Result<SystemTime, humantime::TimestampError>> {
        self.start_time.as_deref().map(humantime::parse_rfc3339)
    }
}

// === impl Generator ===

impl SourcePlugin for Generator {
    const NAME: &'static str = "generator";
    type Config = Config;

    fn check(config: &Config) -> Vec<Problem> {
        let mut problems = Vec::new();
        if config.instances == 0 {
            let problem = Problem::new("invalid", "`instances` is 0: events are of an instance");
            problems.push(problem.at_key("instances").help("at least 1"));
        }
        if let Some(Err(error)) = config.start_time() {
            let problem = Problem::new("invalid", format!("`start_time` is not a time: {error}"));
            let help = "write it as \"2026-01-01T00:00:00Z\"";
            problems.push(problem.at_key("start_time").help(help));
        }
        problems
    }

    fn build(config: Config, _cx: &BuildContext) -> Result<Self, BuildError> {
        let start = config.start_time().transpose();
        let start = start.map_err(|error| BuildError::new(format!("`start_time`: {error}")))?;
        let millisecond = Duration::from_millis(1);
        let step = match u32::try_from(config.rate) {
            Ok(0) => millisecond,
            Ok(rate) => Duration::from_secs(1) / rate,
            Err(_) => Duration::ZERO,
        };
        Ok(Self {
            script: Script::new(&config, start.map(|start| (start, step))),
            rate: config.rate,
            count: config.count.unwrap_or(u64::MAX),
        })
    }
}

#[async_trait]
impl Source for Generator {
    async fn run(self: Box<Self>, outlet: Outlet, shutdown: Shutdown) -> Result<(), SourceError> {
        if self.rate == 0 {
            self.run_free(outlet, shutdown).await;
        } else {
            self.run_at_rate(outlet, shutdown).await;
        }
        Ok(())
    }
}

impl Generator {
    async fn run_free(mut self, mut outlet: Outlet, shutdown: Shutdown) {
        let size = usize::try_from(self.count).unwrap_or(POOL).min(POOL);
        let pool: Vec<_> = (0..size).map(|_| self.script.next()).collect();
        let mut events = pool.iter().cycle();
        while self.count > 0 && !shutdown.is_started() {
            let size = usize::try_from(self.count).unwrap_or(BATCH).min(BATCH);
            let now = SystemTime::now();
            let batch = events.by_ref().take(size);
            outlet
                .send(batch.map(|envelope| event(envelope, now)).collect())
                .await;
            self.count -= size as u64;
        }
    }

    async fn run_at_rate(mut self, mut outlet: Outlet, shutdown: Shutdown) {
        let bursts =
            u32::try_from(self.rate).map_or(BURSTS_PER_SECOND, |rate| rate.min(BURSTS_PER_SECOND));
        let mut ticks = interval(Duration::from_secs(1) / bursts);
        let bursts = u64::from(bursts);
        // A pipeline that could not follow for a while is not flooded afterwards.
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let mut credit = 0;
        while self.count > 0 {
            tokio::select! {
                biased;
                () = shutdown.started() => return,
                _ = ticks.tick() => {}
            }
            credit += self.rate;
            let mut due = (credit / bursts).min(self.count);
            credit %= bursts;
            self.count -= due;
            while due > 0 && !shutdown.is_started() {
                let size = due.min(BATCH as u64);
                due -= size;
                let now = SystemTime::now();
                let batch = (0..size).map(|_| event(&self.script.next(), now));
                let batch = batch.collect();
                outlet.send(batch).await;
            }
        }
    }
}

fn event(envelope: &Envelope, now: SystemTime) -> Event {
    let Envelope {
        name,
        instance,
        bytes,
    } = envelope;
    Event::from_parts(name.clone(), instance.clone(), bytes.clone(), now)
}

#[cfg(test)]
mod tests {
    use evows_core::testing::{SourceHarness, context};
    use serde_json::Value;
    use tokio::time::Instant;

    use super::*;

    async fn generate(config: Config) -> Vec<Event> {
        let source = Generator::build(config, &context("demo")).unwrap();
        let (events, ended) = SourceHarness::run(Box::new(source)).end().await;
        ended.unwrap();
        events
    }

    fn config(count: u64) -> Config {
        Config {
            count: Some(count),
            start_time: Some("2026-01-01T00:00:00Z".to_owned()),
            ..Config::default()
        }
    }

    #[tokio::test]
    async fn makes_the_envelopes_of_the_contract() {
        let mut seen = std::collections::BTreeSet::new();
        for event in generate(config(1000)).await {
            // What the generator says of an envelope must be what the door reads.
            let read = Event::parse(event.envelope().clone(), event.received_at()).unwrap();
            assert_eq!(
                (event.name(), event.instance()),
                (read.name(), read.instance())
            );
            let keys: Vec<_> = read.document().keys().map(String::as_str).collect();
            assert_eq!(
                keys,
                [
                    "event",
                    "instance",
                    "data",
                    "server_url",
                    "date_time",
                    "sender",
                    "apikey"
                ]
            );
            assert_eq!(read.document()["apikey"], Value::Null);
            assert!(evows_core::names::wire_name(read.name()).is_some());
            seen.insert(read.name().to_owned());
        }
        assert_eq!(seen.len(), 9, "{seen:?}");
    }

    #[tokio::test]
    async fn a_seed_makes_the_same_events() {
        let envelopes = async |seed: u64| -> Vec<_> {
            let config = Config { seed, ..config(20) };
            let events = generate(config).await;
            events
                .iter()
                .map(|event| event.envelope().clone())
                .collect()
        };
        assert_eq!(envelopes(7).await, envelopes(7).await);
        assert_ne!(envelopes(7).await, envelopes(8).await);
    }

    #[tokio::test]
    async fn pads_envelopes_and_keeps_to_the_kinds() {
        let events = generate(Config {
            size: Some(Size(4096)),
            events: vec![
                EventKind::Call,
                EventKind::ChatsUpdate,
                EventKind::MessagesUpsert,
            ],
            ..config(100)
        })
        .await;
        for event in events {
            assert!(["call", "chats.update", "messages.upsert"].contains(&event.name()));
            assert!(event.envelope().len() >= 4096 && event.envelope().len() < 9000);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn keeps_the_rate() {
        let started = Instant::now();
        let events = generate(Config {
            rate: 250,
            ..config(1000)
        })
        .await;
        assert_eq!(events.len(), 1000);
        let took = started.elapsed().as_millis();
        assert!((3900..=4100).contains(&took), "{took} ms");
        let last = &events[999].document()["date_time"];
        assert_eq!(last, "2026-01-01T00:00:03.996Z");
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_rate_is_one_by_one() {
        let started = Instant::now();
        assert_eq!(
            generate(Config {
                rate: 2,
                ..config(5)
            })
            .await
            .len(),
            5
        );
        assert_eq!(started.elapsed(), Duration::from_secs(2));
    }
}
