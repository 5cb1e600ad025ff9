//! Swallows every event, for demonstrations and measurements.
//!
//! The counters `evows_events_received_total` and `evows_events_ended_total` of the sink say how many there were.
//!
//! ```toml
//! [sinks.nowhere]
//! type = "blackhole"
//! inputs = ["generator"]
//! delay = "10ms"    # a slow sink: each batch takes this long
//! ```

use async_trait::async_trait;
use evows_core::config::Period;
use evows_core::delivery::{Delivery, Order};
use evows_core::plugin::{
    Batch, BuildContext, BuildError, Environment, Sink, SinkError, SinkPlugin,
};
use evows_core::register_sink;
use schemars::JsonSchema;
use serde::Deserialize;

/// Swallows every event.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Time that each batch takes; none when absent.
    pub delay: Option<Period>,
}

/// The running sink.
#[derive(Debug)]
pub struct Blackhole {
    delay: Option<Period>,
}

register_sink!(
    Blackhole,
    summary = "Swallows every event, at once or after a delay.",
    example = "delay = \"10ms\"\n",
);

// === impl Blackhole ===

impl SinkPlugin for Blackhole {
    const NAME: &'static str = "blackhole";
    type Config = Config;

    /// What is swallowed has no order.
    fn delivery(_config: &Config, _environment: &Environment) -> Delivery {
        Delivery {
            order: Order::None,
            ..Delivery::default()
        }
    }

    fn build(config: Config, _cx: &BuildContext) -> Result<Self, BuildError> {
        let delay = config.delay;
        Ok(Self { delay })
    }
}

#[async_trait]
impl Sink for Blackhole {
    async fn send(&self, _batch: Batch<'_>) -> Result<(), SinkError> {
        if let Some(Period(delay)) = self.delay {
            tokio::time::sleep(delay).await;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::{Duration, Instant};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn takes_as_long_as_it_is_told() {
        let started = Instant::now();
        let sink = Blackhole {
            delay: Some(Period::millis(10)),
        };
        sink.send(Batch::of(&[])).await.unwrap();
        assert_eq!(started.elapsed(), Duration::from_millis(10));
    }
}
