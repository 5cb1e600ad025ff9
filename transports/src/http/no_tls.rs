//! What stands in for TLS in a build without it.

use std::convert::Infallible;

use evows_core::config::TlsConfig;
use evows_core::http::BindError;

/// TLS that cannot be.
pub(super) struct Tls(pub(super) Infallible);

// === impl Tls ===

impl Tls {
    #[expect(clippy::unused_async, reason = "the real one reads files")]
    pub(super) async fn load(_: &TlsConfig) -> Result<Self, BindError> {
        Err(BindError::Tls(
            "this build of evows has no TLS: build it with the feature `tls`, or remove `[server.tls]`"
                .to_owned(),
        ))
    }
}
