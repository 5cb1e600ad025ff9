//! The HTTP side of a session: who may shake hands, and what errors look like. Auth comes before the protocol version, as in Node.

use std::sync::Arc;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::http::header::{
    CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION, UPGRADE,
};
use axum::http::{HeaderValue, Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use tower::ServiceExt;

use super::Service;
use super::client::{Client, Clients};
use super::errors::with_numeric_code;
use crate::engineio::query::Query;
use crate::engineio::refusal::Refusal;
use crate::http::{Connection, peer};
use crate::keys::Keys;
use crate::socketio::{Carrier, Config};

/// The handshake's JSON is far smaller.
const LARGEST_HANDSHAKE: usize = 4096;

/// The headers that a session needs; the rest would stay in memory as long as the connection does.
const KEPT: [axum::http::HeaderName; 6] = [
    CONNECTION,
    CONTENT_LENGTH,
    CONTENT_TYPE,
    SEC_WEBSOCKET_KEY,
    SEC_WEBSOCKET_VERSION,
    UPGRADE,
];

/// What stands between packets in the answer to a poll.
const SEPARATOR: u8 = 0x1e;

/// Stands in front of an engine.
pub(super) struct Door {
    path: String,
    carriers: Vec<Carrier>,
    keys: Arc<Keys>,
    clients: Arc<Clients>,
    service: Service,
}

// === impl Door ===

impl Door {
    pub(super) fn new(
        config: &Config,
        keys: Arc<Keys>,
        clients: Arc<Clients>,
        service: Service,
    ) -> Self {
        let carriers = config.transports.clone();
        Self {
            path: config.path.clone(),
            carriers,
            keys,
            clients,
            service,
        }
    }

    pub(super) fn router(self) -> Router {
        Router::new().fallback(enter).with_state(Arc::new(self))
    }

    /// Lets the request through to the engine, or says why not.
    async fn pass(&self, mut request: Request, upgrade: bool) -> Result<Response, Refusal> {
        let query = Query::parse(request.uri());
        let carrier = query.transport.as_deref().and_then(Carrier::parse);
        let carrier = carrier.filter(|carrier| self.carriers.contains(carrier));
        let carrier = carrier.ok_or(Refusal::TransportUnknown)?;
        let Some(connection) = request.extensions_mut().remove::<Connection>() else {
            tracing::error!("not served by the server of evows: clients could not be closed");
            return Ok(StatusCode::INTERNAL_SERVER_ERROR.into_response());
        };
        let websocket = carrier == Carrier::Websocket;

        if let Some(session) = &query.session {
            let client = self
                .clients
                .session(session)
                .ok_or(Refusal::SessionUnknown)?;
            let is_get = *request.method() == Method::GET;
            if websocket != upgrade || (upgrade && (client.has_websocket() || !is_get)) {
                return Err(Refusal::BadRequest);
            }
            if !upgrade {
                return self.go_on(request, &query, &client).await;
            }
            // The session is on its new connection only once the engine has taken that.
            let response = self
                .engine(reduced(request, &self.path, &query, &client))
                .await;
            if response.status() != StatusCode::SWITCHING_PROTOCOLS {
                return Err(Refusal::BadRequest);
            }
            if !client.upgrade(connection.clone()) {
                connection.close("second_websocket");
            }
            return Ok(response);
        }

        if *request.method() != Method::GET {
            return Err(Refusal::BadMethod);
        }
        if websocket != upgrade {
            return Err(Refusal::BadRequest);
        }
        let peer = peer(&request);
        let listed = query.version.is_some();
        let key = query.key.as_deref();
        let identity = self.keys.identify(listed, key, request.headers(), &peer)?;
        if query.version.as_deref() != Some("4") {
            return Err(Refusal::Version);
        }
        if self.clients.is_draining() {
            return Err(Refusal::Draining);
        }
        let client = self
            .clients
            .admit(identity, peer, upgrade.then_some(connection))?;
        let response = self
            .engine(reduced(request, &self.path, &query, &client))
            .await;
        if upgrade {
            Ok(response)
        } else {
            Ok(self.named(&client, response).await)
        }
    }

    /// A further request of a session that began on polling.
    async fn go_on(
        &self,
        request: Request,
        query: &Query,
        client: &Arc<Client>,
    ) -> Result<Response, Refusal> {
        let posted = *request.method() == Method::POST;
        let polled = !posted && query.transport.as_deref() == Some("polling");
        let request = reduced(request, &self.path, query, client);
        let mut response = tokio::select! {
            biased;
            // A request may be parked here for a whole ping interval.
            () = client.closed() => {
                self.end(query).await;
                return Err(Refusal::SessionUnknown);
            }
            response = self.engine(request) => response,
        };
        if posted {
            match response.status() {
                StatusCode::OK => {
                    let html = HeaderValue::from_static("text/html");
                    response.headers_mut().insert(CONTENT_TYPE, html);
                }
                // As on a WebSocket, where the engine closes by itself.
                StatusCode::PAYLOAD_TOO_LARGE => client.close("too_large"),
                _ => client.close("parse_error"),
            }
        }
        if client.is_closed() {
            self.end(query).await;
        }
        if polled && response.status() == StatusCode::OK {
            return Ok(counted(client, response).await);
        }
        Ok(response)
    }

    /// Ends a closed client's session in the engine, which would otherwise keep it until a ping is missed: there is no call for
    /// it, but the client may ask for it.
    async fn end(&self, query: &Query) {
        let mut request = Request::new(Body::from("1"));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = target(&self.path, "polling", query);
        self.engine(request).await;
    }

    async fn engine(&self, request: Request) -> Response {
        let response = self.service.clone().oneshot(request).await;
        let response = response.unwrap_or_else(|never| match never {});
        with_numeric_code(response.map(Body::new)).await
    }

    /// Reads the session's id out of the answer to its handshake.
    async fn named(&self, client: &Arc<Client>, response: Response) -> Response {
        if response.status() != StatusCode::OK {
            return response;
        }
        let (mut parts, body) = response.into_parts();
        let Ok(body) = to_bytes(body, LARGEST_HANDSHAKE).await else {
            return StatusCode::INTERNAL_SERVER_ERROR.into_response();
        };
        let text = std::str::from_utf8(&body).unwrap_or_default();
        let session = text
            .split_once(r#""sid":""#)
            .and_then(|(_, rest)| rest.split_once('"'));
        if let Some((session, _)) = session {
            self.clients.name(client, session);
        }
        if self.carriers.contains(&Carrier::Websocket) {
            return Response::from_parts(parts, Body::from(body));
        }
        // The engine offers the upgrade even where it would refuse it.
        let text = text.replace(r#""upgrades":["websocket"]"#, r#""upgrades":[]"#);
        parts.headers.remove(CONTENT_LENGTH);
        Response::from_parts(parts, Body::from(text))
    }
}

async fn enter(State(door): State<Arc<Door>>, request: Request) -> Response {
    if !request.uri().path().starts_with(&door.path) {
        // Without the trailing slash this is not our path; the server says so.
        return StatusCode::NOT_FOUND.into_response();
    }
    let upgrade = request.headers().get(UPGRADE);
    let upgrade = upgrade.is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"websocket"));
    match door.pass(request, upgrade).await {
        Ok(response) => response,
        Err(refusal) => {
            door.clients.refuse(refusal);
            refusal.answer(upgrade)
        }
    }
}

/// The request with only what the engine needs, in memory of its own: header values and URI are slices of the connection's
/// read buffer, and the engine keeps them as long as the session lives. The key is left out.
fn reduced(request: Request, path: &str, query: &Query, client: &Arc<Client>) -> Request {
    let (mut parts, body) = request.into_parts();
    let on_upgrade = parts.extensions.remove::<hyper::upgrade::OnUpgrade>();
    let mut reduced = Request::new(body);
    *reduced.method_mut() = parts.method;
    *reduced.version_mut() = parts.version;
    let transport = query.transport.as_deref().unwrap_or_default();
    *reduced.uri_mut() = target(path, transport, query);
    for name in KEPT {
        if let Some(value) = parts.headers.get(&name)
            && let Ok(value) = HeaderValue::from_bytes(value.as_bytes())
        {
            reduced.headers_mut().insert(name, value);
        }
    }
    if let Some(on_upgrade) = on_upgrade {
        reduced.extensions_mut().insert(on_upgrade);
    }
    if query.session.is_none() {
        reduced.extensions_mut().insert(Arc::clone(client));
    }
    reduced
}

/// Notes how many messages a poll took.
async fn counted(client: &Client, response: Response) -> Response {
    let (parts, body) = response.into_parts();
    // The engine has it in memory, as one piece.
    let Ok(body) = to_bytes(body, usize::MAX).await else {
        return StatusCode::INTERNAL_SERVER_ERROR.into_response();
    };
    let packets = body.split(|byte| *byte == SEPARATOR);
    client.take(packets.filter(|packet| packet.starts_with(b"4")).count());
    Response::from_parts(parts, Body::from(body))
}

/// The URI that the engine sees.
fn target(path: &str, transport: &str, query: &Query) -> Uri {
    let mut uri = format!("{path}?EIO=4&transport={transport}");
    if let Some(session) = &query.session {
        uri.push_str("&sid=");
        uri.push_str(session);
    }
    // A session id with odd characters was not found in the table; the rest is our own text.
    uri.parse().unwrap_or_default()
}
