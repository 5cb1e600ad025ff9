//! Serves channels as Socket.IO namespaces.

use std::time::Duration;

use async_trait::async_trait;
use evows_core::plugin::{BuildContext, BuildError, Transport, TransportPlugin};
use schemars::JsonSchema;
use serde::Deserialize;

/// How clients are served.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {}

/// The transport.
pub struct SocketIo {}

// === impl SocketIo ===

impl TransportPlugin for SocketIo {
    const NAME: &'static str = "socketio";
    type Config = Config;

    fn build(_config: Config, _cx: &BuildContext) -> Result<Self, BuildError> {
        Ok(Self {})
    }
}

#[async_trait]
impl Transport for SocketIo {
    fn clients(&self) -> usize {
        0
    }

    async fn drain(&self, _over: Duration) {}
}
