//! Puts events into this process's channels and serves nobody by itself: for pipelines whose clients are served by transports
//! alone.
//!
//! ```toml
//! [transports.plain]
//! type = "websocket"
//!
//! [sinks.live]
//! type = "channels"
//! inputs = ["evolution"]
//! policy = "both"
//! ```
//!
//! The sink `socketio` does the same and serves Socket.IO clients. One of the two is enough: with both, each event would be there
//! twice. Envelopes are published as that sink does it: the member `destination` is cut out.

use async_trait::async_trait;
use evows_core::config::Problem;
use evows_core::delivery::Delivery;
use evows_core::hub::Publisher;
use evows_core::plugin::{
    Batch, BuildContext, BuildError, Environment, PluginRef, Sink, SinkError, SinkPlugin,
};
use evows_core::register_sink;
use evows_core::registry::Kind;
use schemars::JsonSchema;
use serde::Deserialize;

use super::cut::presentable;

/// Puts events into channels.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Which channels an event goes to: a policy's name, or a table with its `type` and keys.
    pub policy: PluginRef,
}

/// The running sink.
pub struct Channels(Option<Publisher>);

register_sink!(
    Channels,
    summary = "Puts events into channels, for transports to serve.",
    example = "policy = \"both\"\n",
);

// === impl Config ===

impl Default for Config {
    fn default() -> Self {
        Self {
            policy: PluginRef::named("env"),
        }
    }
}

// === impl Channels ===

impl SinkPlugin for Channels {
    const NAME: &'static str = "channels";
    type Config = Config;

    fn check(config: &Config) -> Vec<Problem> {
        config.policy.check(Kind::Policy, "policy")
    }

    fn delivery(_config: &Config, _environment: &Environment) -> Delivery {
        Delivery::in_process()
    }

    fn build(config: Config, cx: &BuildContext) -> Result<Self, BuildError> {
        let policy = cx.policy(&config.policy)?;
        let enabled = policy.is_enabled();
        Ok(Self(enabled.then(|| cx.publisher(policy))))
    }
}

#[async_trait]
impl Sink for Channels {
    async fn send(&self, batch: Batch<'_>) -> Result<(), SinkError> {
        if let Some(publisher) = &self.0 {
            publisher.publish(&presentable(&batch)).await?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use evows_core::hub::{ChannelName, Start};
    use evows_core::testing::{context, event};

    use super::*;

    #[tokio::test]
    async fn events_go_where_the_policy_says() {
        let cx = context("live");
        let config = Config {
            policy: PluginRef::named("global"),
        };
        let sink = Channels::build(config, &cx).unwrap();
        let root = cx.hub().open(&ChannelName::root());
        let events = ["a", "b"]
            .map(|instance| event(&format!(r#"{{"event":"call","instance":"{instance}"}}"#)));
        sink.send(Batch::of(&events)).await.unwrap();
        let mut entries = Vec::new();
        root.follow(Start::Earliest).read(9, &mut entries);
        let instances: Vec<_> = entries.iter().map(|it| it.event.instance()).collect();
        assert_eq!(instances, ["a", "b"]);
    }
}
