//! The HTTP server.

use std::sync::Arc;

use async_trait::async_trait;
use evows_core::config::ServerConfig;
use evows_core::http::{BindError, Host, Listening};
use evows_core::metrics::Metrics;

/// The HTTP server of evows.
#[derive(Debug, Clone, Copy, Default)]
pub struct Server;

#[async_trait]
impl Host for Server {
    async fn bind(
        &self,
        config: &Arc<ServerConfig>,
        _metrics: &Metrics,
    ) -> Result<Box<dyn Listening>, BindError> {
        Err(BindError::Listen {
            address: config.listen,
            source: std::io::ErrorKind::Unsupported.into(),
        })
    }
}
