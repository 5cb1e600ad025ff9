//! Serves events to live Socket.IO clients, the way Evolution API's websocket does.
//!
//! The sink puts events into this process's channels, `/` for every instance and `/<instance>` for one, and
//! serves them at `/socket.io/`. The policy says which events go to which channel: `env`, the default, does what
//! Evolution does under the same `WEBSOCKET_*` variables.
//!
//! ```toml
//! [sinks.clients]
//! type = "socketio"
//! inputs = ["evolution"]
//! policy = "both"
//! ```
//!
//! An event that the policy routes nowhere ends as delivered: there was nobody to deliver it to. When the policy is
//! switched off as a whole (`env` with a `WEBSOCKET_ENABLED` that is set to anything but `true`; unset, it serves), that
//! holds for every event, and `/socket.io/` is answered 404, as Evolution does.
//!
//! # Coming back
//!
//! On the native engine a client that comes back gets what it missed, as far as the log reaches, or is told of the gap. Stock
//! `socket.io-client` (4.6 and later) does so by itself where `auth` has `recover: true`: `socket.recovered` says whether it has
//! everything. In any language, `auth: { since }` with `"<epoch>:<offset>"`, a time (RFC 3339), `"-5m"` or `"earliest"` is answered, before the
//! first event, with the event `evows:ready`: `{from, head, recovered, gap}`. A client without positions may use `head` as its next `since`
//! once it has received what lies in front of it; with `auth: { positions: "envelope" }` each envelope ends with
//! `"_evows":{"position":"<epoch>:<offset>"}`, which is exact.
//!
//! # Envelopes
//!
//! Clients get an envelope byte for byte as it was received, with one exception: the member `destination`, which
//! Evolution's webhooks have and its Socket.IO envelopes have not. It is the webhook's URL, which may hold the
//! webhook's secret, and is cut out; everything else keeps its bytes and its order.

use std::sync::Arc;

use async_trait::async_trait;
use evows_core::config::Problem;
use evows_core::delivery::Delivery;
use evows_core::hub::Publisher;
use evows_core::plugin::{
    Batch, BuildContext, BuildError, Environment, PluginRef, Sink, SinkError, SinkPlugin,
    TransportPlugin,
};
use evows_core::register_sink;
use evows_core::registry::Kind;
use evows_transports::socketio::{self, SocketIo};
use schemars::JsonSchema;
use serde::Deserialize;

use super::cut::presentable;

/// Serves events to live Socket.IO clients.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Which channels an event goes to: a policy's name, or a table with its `type` and keys.
    pub policy: PluginRef,
    /// How clients are served.
    pub transport: socketio::Config,
}

/// The running sink.
pub struct SocketIoSink {
    /// Missing when the policy is switched off: there is nobody to publish to.
    publisher: Option<Publisher>,
}

register_sink!(
    SocketIoSink,
    summary = "Serves events to live Socket.IO clients, as Evolution's websocket does.",
    example = "policy = \"env\"\n",
);

// === impl Config ===

impl Default for Config {
    fn default() -> Self {
        Self {
            policy: PluginRef::named("env"),
            transport: socketio::Config::default(),
        }
    }
}

// === impl SocketIoSink ===

impl SinkPlugin for SocketIoSink {
    const NAME: &'static str = "socketio";
    type Config = Config;

    fn check(config: &Config) -> Vec<Problem> {
        let mut problems = config.policy.check(Kind::Policy, "policy");
        let transport = SocketIo::check(&config.transport);
        problems.extend(
            transport
                .into_iter()
                .map(|problem| problem.under("transport")),
        );
        problems
    }

    fn delivery(_config: &Config, _environment: &Environment) -> Delivery {
        Delivery::in_process()
    }

    fn build(config: Config, cx: &BuildContext) -> Result<Self, BuildError> {
        let policy = cx.policy(&config.policy)?;
        if !policy.is_enabled() {
            tracing::warn!(
                sink = cx.id(),
                "switched off by its policy: no client is served"
            );
            return Ok(Self { publisher: None });
        }
        let transport = Arc::new(SocketIo::build(config.transport, cx)?);
        cx.add_transport(transport);
        Ok(Self {
            publisher: Some(cx.publisher(policy)),
        })
    }
}

#[async_trait]
impl Sink for SocketIoSink {
    async fn send(&self, batch: Batch<'_>) -> Result<(), SinkError> {
        if let Some(publisher) = &self.publisher {
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
    async fn clients_do_not_learn_where_the_webhook_is() {
        let cx = context("clients");
        let config = Config {
            policy: PluginRef::named("both"),
            ..Config::default()
        };
        let sink = SocketIoSink::build(config, &cx).unwrap();
        let envelope = r#"{"event":"call","instance":"a","destination":"http://h/webhook/s3cret","apikey":null}"#;
        let root = cx.hub().open(&ChannelName::root());
        sink.send(Batch::of(&[event(envelope)])).await.unwrap();
        let mut entries = Vec::new();
        root.follow(Start::Earliest).read(2, &mut entries);
        assert_eq!(entries.len(), 1);
        assert_eq!(
            entries[0].event.envelope(),
            r#"{"event":"call","instance":"a","apikey":null}"#
        );
    }
}
