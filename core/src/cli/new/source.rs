//! Makes an event every so often.

use std::time::{Duration, SystemTime};

use evows::config::{Period, Problem};
use evows::plugin::{BuildContext, BuildError, Source, SourceError, SourcePlugin};
use evows::schemars::JsonSchema;
use evows::serde::Deserialize;
use evows::serde_json::json;
use evows::topology::Outlet;
use evows::{Event, Shutdown, async_trait, register_source, tokio};

/// The keys in `evows.toml`. `evows explain my_source` shows their doc comments.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(crate = "evows::serde", deny_unknown_fields, default)]
#[schemars(crate = "evows::schemars")]
struct Config {
    /// Time between two events.
    every: Period,
    /// The instance that the events name.
    instance: String,
    /// How many events there are; without it, no end of them.
    count: Option<u64>,
}

/// The source, before it runs.
struct MySource {
    every: Duration,
    instance: String,
    count: u64,
}

register_source!(
    MySource,
    summary = "Makes an event every so often.",
    example = "every = \"1s\"\ninstance = \"clock\"\n",
);

impl Default for Config {
    fn default() -> Self {
        Self {
            every: Period::seconds(1),
            instance: "clock".to_owned(),
            count: None,
        }
    }
}

impl SourcePlugin for MySource {
    const NAME: &'static str = "my_source";
    type Config = Config;

    fn check(config: &Config) -> Vec<Problem> {
        let mut problems = Vec::new();
        if config.every.0.is_zero() {
            let problem = Problem::new("invalid-value", "`every` is no time at all");
            problems.push(problem.at_key("every").help("write \"1s\", for example"));
        }
        if config.instance.is_empty() {
            let problem = Problem::new("invalid-value", "`instance` is empty");
            problems.push(problem.at_key("instance").help("an event has an instance"));
        }
        problems
    }

    fn build(config: Config, _cx: &BuildContext) -> Result<Self, BuildError> {
        Ok(Self {
            every: config.every.0,
            instance: config.instance,
            count: config.count.unwrap_or(u64::MAX),
        })
    }
}

#[async_trait]
impl Source for MySource {
    async fn run(
        self: Box<Self>,
        mut outlet: Outlet,
        shutdown: Shutdown,
    ) -> Result<(), SourceError> {
        let mut ticks = tokio::time::interval(self.every);
        let mut number = 1;
        while number <= self.count {
            // Whatever a source waits for, it waits for the shutdown beside it.
            tokio::select! {
                _ = ticks.tick() => {}
                () = shutdown.started() => return Ok(()),
            }
            let envelope = json!({
                "event": "tick",
                "instance": self.instance,
                "data": { "number": number },
            });
            let event = Event::parse(envelope.to_string().into(), SystemTime::now());
            let event = event.map_err(|error| SourceError::with_source("no event", error))?;
            let receipt = outlet.send_tracked(vec![event]).await;
            tokio::select! {
                // What was not accepted is sent again at the next tick.
                outcome = receipt => number += u64::from(outcome.is_accepted()),
                () = shutdown.started() => return Ok(()),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use evows::Outcome;
    use evows::testing::SourceHarness;
    use evows::tokio::time::Instant;

    use super::*;

    fn number(event: &Event) -> Option<u64> {
        event.document()["data"]["number"].as_u64()
    }

    // The clock is paused: five seconds pass at once when nobody has anything else to do.
    #[tokio::test(crate = "evows::tokio", start_paused = true)]
    async fn sends_again_what_was_not_accepted() {
        let begun = Instant::now();
        let mut source = SourceHarness::from_toml::<MySource>("every = '5s'");
        let failed = source.take(1, Outcome::Failed).await;
        assert_eq!(number(&failed[0]), Some(1));
        let again = source.take(1, Outcome::Delivered).await;
        assert_eq!(number(&again[0]), Some(1));
        assert_eq!(begun.elapsed(), Duration::from_secs(5));
        source.stop().await.1.unwrap();
    }

    #[tokio::test(crate = "evows::tokio", start_paused = true)]
    async fn ends_by_itself_after_its_last_event() {
        let source = SourceHarness::from_toml::<MySource>("every = '1s'\ncount = 3");
        let (events, ended) = source.end().await;
        assert_eq!((events.len(), ended.is_ok()), (3, true));
    }

    #[test]
    fn says_what_is_wrong() {
        let problems = SourceHarness::problems::<MySource>("every = '0s'\ninstance = ''");
        assert!(problems.contains("no time at all"), "{problems}");
    }
}
