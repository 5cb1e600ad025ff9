//! The HTTP side of a session: who may shake hands, and what errors look like. Auth comes before the protocol version, as in Node.

use std::net::IpAddr;
use std::sync::Arc;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::http::header::{
    CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION, UPGRADE,
};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use evows_core::access::{Access, Compat, Identity};
use evows_core::http::Peer;
use evows_core::plugin::Environment;
use tower::ServiceExt;

use super::client::{Client, Clients};
use super::errors::{Refusal, with_numeric_code};
use super::oxide::Service;
use super::{Carrier, Config, HandshakeKey};
use crate::http::Connection;

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

/// Stands in front of an engine.
pub(super) struct Door {
    path: String,
    carriers: Vec<Carrier>,
    keys: KeyRule,
    clients: Arc<Clients>,
    service: Service,
}

/// Which key a handshake needs (contract 2.3).
pub(super) struct KeyRule {
    access: Arc<Access>,
    deferred: bool,
    allowed: Allowed,
}

/// The addresses that need no key: `WEBSOCKET_ALLOWED_HOSTS`.
#[derive(Debug, PartialEq, Eq)]
enum Allowed {
    Everybody,
    Listed(Vec<String>),
}

/// What the query says.
#[derive(Debug, Default)]
struct Query {
    version: Option<String>,
    transport: Option<String>,
    session: Option<String>,
    key: Option<String>,
}

// === impl Door ===

impl Door {
    pub(super) fn new(
        config: &Config,
        keys: KeyRule,
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
        let connection = request
            .extensions_mut()
            .remove::<Connection>()
            .unwrap_or_default();
        let websocket = carrier == Carrier::Websocket;

        if let Some(session) = &query.session {
            let client = self
                .clients
                .session(session)
                .ok_or(Refusal::SessionUnknown)?;
            if websocket != upgrade {
                return Err(Refusal::BadRequest);
            }
            if upgrade {
                client.upgrade(connection);
            }
            let request = reduced(request, &self.path, &query, &client);
            return tokio::select! {
                // A request may be parked here for a whole ping interval.
                () = client.closed() => Err(Refusal::SessionUnknown),
                response = self.engine(request) => Ok(response),
            };
        }

        if *request.method() != Method::GET {
            return Err(Refusal::BadMethod);
        }
        if websocket != upgrade {
            return Err(Refusal::BadRequest);
        }
        let peer = request.extensions().get::<Peer>().copied();
        let peer = peer.unwrap_or_else(nobody);
        let identity = self.keys.identify(&query, request.headers(), &peer)?;
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
        let (parts, body) = response.into_parts();
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
        Response::from_parts(parts, Body::from(body))
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
    let transport = query.transport.as_deref().unwrap_or_default();
    let mut uri = format!("{path}?EIO=4&transport={transport}");
    if let Some(session) = &query.session {
        uri.push_str("&sid=");
        uri.push_str(session);
    }
    let mut reduced = Request::new(body);
    *reduced.method_mut() = parts.method;
    *reduced.version_mut() = parts.version;
    // A session id with odd characters was not found in the table; the rest is our own text.
    *reduced.uri_mut() = uri.parse().unwrap_or_default();
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

fn nobody() -> Peer {
    let address = IpAddr::from([0, 0, 0, 0]);
    Peer {
        tcp: (address, 0).into(),
        client: address,
    }
}

// === impl KeyRule ===

impl KeyRule {
    pub(super) fn new(
        rule: Option<HandshakeKey>,
        access: Arc<Access>,
        environment: &Environment,
    ) -> Self {
        let compat = access.compat();
        let deferred = match rule {
            Some(rule) => rule == HandshakeKey::Deferred,
            None => compat == Compat::Strict,
        };
        let allowed = Allowed::new(environment.get("WEBSOCKET_ALLOWED_HOSTS"), compat);
        Self {
            access,
            deferred,
            allowed,
        }
    }

    /// Whether the key may come after the handshake.
    pub(super) fn is_deferred(&self) -> bool {
        self.deferred
    }

    fn identify(
        &self,
        query: &Query,
        headers: &HeaderMap,
        peer: &Peer,
    ) -> Result<Option<Identity>, Refusal> {
        let header = headers.get("apikey").and_then(|value| value.to_str().ok());
        let key = query
            .key
            .as_deref()
            .or(header)
            .filter(|key| !key.is_empty());
        let compat = self.access.compat() == Compat::Evolution;
        // Only a listed address of the real peer counts; under strict rules, not one that speaks for somebody else.
        let own = compat || peer.tcp.ip() == peer.client;
        let allowed = query.version.is_some() && own && self.allowed.contains(peer.tcp.ip());
        match key {
            _ if allowed && (compat || key.is_none()) => Ok(Some(Identity::Global)),
            Some(key) => {
                let identity = self.access.identify(key);
                identity.map(Some).ok_or(Refusal::KeyUnknown)
            }
            None if self.deferred => Ok(None),
            None => Err(Refusal::KeyRequired),
        }
    }
}

// === impl Allowed ===

impl Allowed {
    /// Evolution's own default is loopback; under strict rules nobody, unless the operator lists them.
    fn new(variable: Option<&str>, compat: Compat) -> Self {
        let listed = |text: &str| {
            let hosts = text.split(',').map(|host| host.trim().to_owned());
            Self::Listed(hosts.filter(|host| !host.is_empty()).collect())
        };
        match (variable.filter(|text| !text.is_empty()), compat) {
            (Some("*"), _) => Self::Everybody,
            (Some(text), _) => listed(text),
            (None, Compat::Evolution) => listed("127.0.0.1,::1,::ffff:127.0.0.1"),
            (None, Compat::Strict) => Self::Listed(Vec::new()),
        }
    }

    fn contains(&self, address: IpAddr) -> bool {
        let Self::Listed(hosts) = self else {
            return true;
        };
        if hosts.is_empty() {
            return false;
        }
        // Node on a dual-stack socket sees IPv4 peers as ::ffff:a.b.c.d, so either spelling may be listed.
        let plain = address.to_canonical().to_string();
        let mapped = format!("::ffff:{plain}");
        hosts.iter().any(|host| *host == plain || *host == mapped)
    }
}

// === impl Query ===

impl Query {
    fn parse(uri: &Uri) -> Self {
        let mut query = Self::default();
        let pairs = form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes());
        for (name, value) in pairs {
            let field = match &*name {
                "EIO" => &mut query.version,
                "transport" => &mut query.transport,
                "sid" => &mut query.session,
                "apikey" => &mut query.key,
                _ => continue,
            };
            // The first one counts, as for engineioxide.
            if field.is_none() {
                *field = Some(value.into_owned());
            }
        }
        query
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn allowed_hosts_follow_the_contract() {
        let strict = Allowed::new(None, Compat::Strict);
        assert!(!strict.contains([127, 0, 0, 1].into()));
        for (variable, address, expected) in [
            (None, "127.0.0.1", true),
            (Some(""), "::1", true),
            (None, "::ffff:127.0.0.1", true),
            (None, "10.0.0.1", false),
            (Some("*"), "10.0.0.1", true),
            (Some(" 10.0.0.1 , x"), "10.0.0.1", true),
            (Some("10.0.0.1"), "127.0.0.1", false),
            (Some("::ffff:10.0.0.1"), "10.0.0.1", true),
            (Some("10.0.0.0/8"), "10.0.0.1", false),
        ] {
            let allowed = Allowed::new(variable, Compat::Evolution);
            assert_eq!(
                allowed.contains(address.parse().unwrap()),
                expected,
                "{variable:?} {address}"
            );
        }
    }

    #[test]
    fn the_query_is_decoded() {
        let uri = "/socket.io/?EIO=4&transport=polling&apikey=a%20b&t=x"
            .parse()
            .unwrap();
        let query = Query::parse(&uri);
        assert_eq!(query.key.as_deref(), Some("a b"));
        assert_eq!(query.session, None);
    }
}
