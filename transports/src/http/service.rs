//! Answers one request: finds the route, and sees to what every route has in common.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::panic::AssertUnwindSafe;

use axum::Json;
use axum::body::{Body, HttpBody};
use axum::http::header::{ORIGIN, UPGRADE};
use axum::http::{Method, Request, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use evows_core::Shutdown;
use evows_core::http::{Peer, Routes, error_response};
use evows_core::metrics::Metrics;
use futures_util::FutureExt;
use hyper::body::Incoming;
use serde_json::json;
use tower::ServiceExt;

use super::COMPONENT;
use super::cors::Cors;
use super::forwarded::Proxies;
use super::guard::Connection;

const HEALTH: &str = "/healthz";

/// What answers requests, shared by every connection.
pub(super) struct Service {
    pub(super) routes: Routes,
    pub(super) cors: Cors,
    pub(super) proxies: Proxies,
    pub(super) metrics: Metrics,
    pub(super) shutdown: Shutdown,
}

// === impl Service ===

impl Service {
    /// Answers a request that came over `connection` from `tcp`.
    pub(super) async fn answer(
        &self,
        request: Request<Incoming>,
        tcp: SocketAddr,
        connection: &Connection,
    ) -> Response {
        let mut request = request.map(Body::new);
        let origin = request.headers().get(ORIGIN).cloned();
        let upgrade = request.headers().contains_key(UPGRADE);
        let peer = self.proxies.peer(tcp, request.headers());
        request.extensions_mut().insert(peer);
        request.extensions_mut().insert(connection.clone());
        let mut response = if request.method() == Method::OPTIONS {
            Cors::preflight(request.headers())
        } else {
            self.route(request).await
        };
        // A WebSocket is open to every page, as in the original; its token is what protects it.
        // Nor does the original write headers of CORS when it refuses one.
        if !upgrade {
            self.cors.apply(origin, response.headers_mut());
        }
        connection.answered();
        response
    }

    async fn route(&self, request: Request<Body>) -> Response {
        let (method, uri) = (request.method().clone(), request.uri().clone());
        if uri.path() == HEALTH && matches!(method, Method::GET | Method::HEAD) {
            return self.health(request.extensions().get());
        }
        let Some(router) = self.routes.find(uri.path()) else {
            return not_found(&method, &uri);
        };
        let handled = async { router.clone().oneshot(request).await };
        match AssertUnwindSafe(handled).catch_unwind().await {
            Ok(Ok(response)) if is_bare_not_found(&response) => not_found(&method, &uri),
            Ok(Ok(response)) => response,
            Ok(Err(never)) => match never {},
            Err(_) => {
                self.metrics.refuse(&COMPONENT, "panic");
                // The query may hold a key.
                tracing::error!(%method, path = uri.path(), "a request handler panicked");
                error_response(StatusCode::INTERNAL_SERVER_ERROR, "Internal Server Error")
            }
        }
    }

    fn health(&self, peer: Option<&Peer>) -> Response {
        if self.routes.is_stopping() || self.shutdown.is_started() {
            let body = Json(json!({ "status": "stopping" }));
            return (StatusCode::SERVICE_UNAVAILABLE, body).into_response();
        }
        let down = self.metrics.down();
        if down.is_empty() {
            return Json(json!({ "status": "ok" })).into_response();
        }
        // Errors name files and addresses: they are for this machine.
        let is_told = peer.is_some_and(|peer| peer.client.is_loopback());
        let down = down
            .iter()
            .map(|(id, error)| (&**id, is_told.then_some(&**error)));
        let down: BTreeMap<_, _> = down.collect();
        // No error of the server's: clients are served, and another start would not bring back a file that is missing.
        Json(json!({ "status": "degraded", "down": down })).into_response()
    }
}

/// Whether this is the router's own answer to a path or method that it does not have.
fn is_bare_not_found(response: &Response) -> bool {
    let status = response.status();
    matches!(
        status,
        StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED
    ) && response.body().size_hint().exact() == Some(0)
}

fn not_found(method: &Method, uri: &Uri) -> Response {
    let target = uri.path_and_query().map_or("/", |target| target.as_str());
    let message = vec![format!("Cannot {method} {target}")];
    error_response(StatusCode::NOT_FOUND, message)
}
