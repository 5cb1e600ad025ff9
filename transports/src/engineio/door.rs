//! The HTTP side of sessions: who may shake hands, and which request belongs to which session. Auth comes before the protocol
//! version, as in Node.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, USER_AGENT};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use evows_core::http::{Peer, is_too_large};
use evows_core::metrics::Metrics;
use hyper::upgrade::OnUpgrade;
use parking_lot::Mutex;

use super::packet::Packet;
use super::polling::Polling;
use super::query::Query;
use super::websocket::Websocket;
use super::{Application, Handshake, Options, Outbox, Refusal, Session, Sid};
use crate::admission::Admission;
use crate::clients::{Client, Clients};
use crate::http::{Limits, Wire, peer};
use crate::ws::frame::{self, Opcode};
use crate::ws::handshake;
use crate::ws::socket::{ReadError, Socket};

/// Time for a posted body to arrive.
const POST_TIME: Duration = Duration::from_secs(30);

/// Serves Engine.IO sessions to an application.
pub struct Server<A: Application>(Arc<Shared<A>>);

struct Shared<A: Application> {
    application: A,
    options: Arc<Options>,
    clients: Arc<Clients>,
    places: Limits,
    /// Those that began on long-polling; a WebSocket's session has no further requests.
    sessions: Mutex<HashMap<Sid, Arc<Polling<A::Session>>>>,
}

/// What a request comes for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Carrier {
    Polling,
    Websocket,
}

// === impl Server ===

impl<A: Application> Server<A> {
    /// A server of its own, which counts under the name of `component`.
    pub fn new(component: &str, application: A, options: Options, metrics: &Metrics) -> Self {
        let admission = Admission::new(options.max_handshakes_per_second);
        let clients = Clients::new(&component.into(), metrics, admission);
        Self::with_clients(application, options, Arc::new(clients))
    }

    pub(crate) fn with_clients(application: A, options: Options, clients: Arc<Clients>) -> Self {
        let places = Limits::new(
            options.max_polling_sessions,
            options.max_polling_sessions_per_address,
        );
        Self(Arc::new(Shared {
            application,
            options: Arc::new(options),
            clients,
            places,
            sessions: Mutex::default(),
        }))
    }

    /// The routes, to be mounted at [`Options::path`] without its last slash.
    pub fn router(&self) -> Router {
        Router::new()
            .fallback(enter::<A>)
            .with_state(Arc::clone(&self.0))
    }
}

async fn enter<A: Application>(State(shared): State<Arc<Shared<A>>>, request: Request) -> Response {
    if !request.uri().path().starts_with(&shared.options.path) {
        // Without the trailing slash this is not our path; the server says so.
        return StatusCode::NOT_FOUND.into_response();
    }
    let upgrade = handshake::is_upgrade(request.headers());
    match shared.pass(request, upgrade).await {
        Ok(response) => response,
        Err(refusal) => {
            let refusal: Refusal = refusal;
            shared.clients.refuse(refusal.reason());
            refusal.answer(upgrade)
        }
    }
}

// === impl Shared ===

impl<A: Application> Shared<A> {
    async fn pass(self: &Arc<Self>, request: Request, upgrade: bool) -> Result<Response, Refusal> {
        let query = Query::parse(request.uri());
        let carrier = match query.transport.as_deref() {
            Some("polling") if self.options.polling => Carrier::Polling,
            Some("websocket") if self.options.websocket => Carrier::Websocket,
            _ => return Err(Refusal::TransportUnknown),
        };
        if let Some(sid) = &query.session {
            let session = Sid::parse(sid).and_then(|sid| self.sessions.lock().get(&sid).cloned());
            let session = session.ok_or(Refusal::SessionUnknown)?;
            return match (carrier, upgrade) {
                (Carrier::Websocket, true) => self.move_over(request, &session),
                (Carrier::Polling, false) => self.go_on(request, &session).await,
                _ => Err(Refusal::BadRequest),
            };
        }
        if *request.method() != Method::GET {
            return Err(Refusal::BadMethod);
        }
        if (carrier == Carrier::Websocket) != upgrade {
            return Err(Refusal::BadRequest);
        }
        let peer = peer(&request);
        let pass = self.application.admit(&Handshake {
            uri: request.uri(),
            headers: request.headers(),
            peer: &peer,
            key: query.key.as_deref(),
            has_version: query.version.is_some(),
        })?;
        if query.version.as_deref() != Some("4") {
            return Err(Refusal::Version);
        }
        self.clients.may_enter()?;
        let sid = Sid::random().ok_or(Refusal::Overloaded)?;
        match carrier {
            Carrier::Websocket => self.open_websocket(request, peer, pass, sid),
            Carrier::Polling => self.open_polling(peer, pass, sid),
        }
    }

    fn open_websocket(
        self: &Arc<Self>,
        request: Request,
        peer: Peer,
        pass: A::Pass,
        sid: Sid,
    ) -> Result<Response, Refusal> {
        let (response, upgrade) = switch(request)?;
        let client = self.clients.enter(peer);
        let session = self.application.open(pass, &client);
        let mut out = Outbox::default();
        out.packet(self.open_packet(sid, false));
        let options = Arc::clone(&self.options);
        // It ends with its connection, which the server and `Clients` can close.
        tokio::spawn(async move {
            if let Some(socket) = taken(upgrade, &options, &client).await {
                // On a task of its own size: this one's is that of the handshake.
                tokio::spawn(Websocket::new(socket, session, out, client, options).run());
            }
        });
        Ok(response)
    }

    fn open_polling(
        self: &Arc<Self>,
        peer: Peer,
        pass: A::Pass,
        sid: Sid,
    ) -> Result<Response, Refusal> {
        let place = self.places.take(Some(peer.client));
        let place = place.map_err(|_| Refusal::Overloaded)?;
        let client = self.clients.enter(peer);
        let session = self.application.open(pass, &client);
        let options = Arc::clone(&self.options);
        let session = Arc::new(Polling::new(sid, session, client, options, place));
        self.sessions.lock().insert(sid, Arc::clone(&session));
        let shared = Arc::clone(self);
        // It ends with the session, which its heartbeat bounds.
        tokio::spawn(async move {
            session.watch().await;
            shared.forget(&session);
        });
        Ok(answer(self.open_packet(sid, self.options.websocket)))
    }

    /// Takes a session out of the table, unless a WebSocket still stands for it.
    fn forget(&self, session: &Polling<A::Session>) {
        if !session.is_upgraded() {
            self.sessions.lock().remove(&session.sid);
        }
    }

    /// The handshake (contract 2.1).
    fn open_packet(&self, sid: Sid, upgrade: bool) -> String {
        let Options {
            ping_interval,
            ping_timeout,
            max_payload,
            ..
        } = *self.options;
        let upgrades = if upgrade { r#"["websocket"]"# } else { "[]" };
        let (interval, timeout) = (ping_interval.as_millis(), ping_timeout.as_millis());
        format!(
            r#"0{{"sid":"{sid}","upgrades":{upgrades},"pingInterval":{interval},"pingTimeout":{timeout},"maxPayload":{max_payload}}}"#
        )
    }

    /// A further request of a session on long-polling.
    async fn go_on(
        &self,
        request: Request,
        session: &Polling<A::Session>,
    ) -> Result<Response, Refusal> {
        match *request.method() {
            Method::GET => {
                let most = most_packets(request.headers());
                session.poll(most).await.map(answer)
            }
            Method::POST => self.post(request, session).await,
            _ => Err(Refusal::BadRequest),
        }
    }

    async fn post(
        &self,
        request: Request,
        session: &Polling<A::Session>,
    ) -> Result<Response, Refusal> {
        let most = self.options.max_payload;
        let body = tokio::time::timeout(POST_TIME, to_bytes(request.into_body(), most)).await;
        let body: Bytes = match body {
            Ok(Ok(body)) => body,
            Ok(Err(error)) if is_too_large(&error) => {
                session.fail("too_large");
                return Ok(StatusCode::PAYLOAD_TOO_LARGE.into_response());
            }
            _ => {
                session.fail("transport_error");
                return Err(Refusal::BadRequest);
            }
        };
        let Ok(text) = std::str::from_utf8(&body) else {
            session.fail("parse_error");
            return Err(Refusal::BadRequest);
        };
        session.post(text)?;
        Ok(([(CONTENT_TYPE, "text/html")], "ok").into_response())
    }

    /// A WebSocket that a session on long-polling wants to move to.
    fn move_over(
        self: &Arc<Self>,
        request: Request,
        session: &Arc<Polling<A::Session>>,
    ) -> Result<Response, Refusal> {
        let (response, upgrade) = switch(request)?;
        let (shared, session) = (Arc::clone(self), Arc::clone(session));
        if !session.probe() {
            // It has one already. As in Node, the new one is opened, and closed at once.
            shared.clients.refuse("second_websocket");
            tokio::spawn(async move {
                let socket = taken(upgrade, &shared.options, session.client()).await;
                if let Some(mut socket) = socket {
                    socket.close(1008, "second_websocket");
                }
            });
            return Ok(response);
        }
        tokio::spawn(async move {
            let options = &shared.options;
            let moved = tokio::time::timeout(options.upgrade_timeout, async {
                let socket = taken(upgrade, options, session.client()).await?;
                proved(socket, &session).await
            });
            let Ok(Some(socket)) = moved.await else {
                session.stay();
                return;
            };
            if let Some((inner, out)) = session.take() {
                let (client, options) = (Arc::clone(session.client()), Arc::clone(options));
                let running = Websocket::new(socket, inner, out, client, options).run();
                // On a task of its own size. Until it ends, requests with the session's id are told that it has moved.
                tokio::spawn(async move {
                    running.await;
                    shared.sessions.lock().remove(&session.sid);
                });
            }
        });
        Ok(response)
    }
}

/// Waits until the client has shown that the WebSocket carries both ways, and has left the other one.
async fn proved<S: Session>(mut socket: Socket, session: &Polling<S>) -> Option<Socket> {
    loop {
        let mut packet = None;
        let read = std::future::poll_fn(|cx| {
            // One at a time: what comes behind the last of them is for the session.
            socket.poll_read(cx, |message| match message {
                frame::Message::Ping(_) | frame::Message::Pong => true,
                other => {
                    packet = Some(other);
                    false
                }
            })
        });
        read.await.map_err(|error: ReadError| error).ok()?;
        match packet {
            None => {}
            Some(frame::Message::Text(text)) => match Packet::parse(&text) {
                Ok(Packet::Ping(text)) if session.upgrade() => {
                    socket.queue(Opcode::Text, format!("3{text}").as_bytes());
                    std::future::poll_fn(|cx| socket.poll_write(cx, &super::Batch::default()))
                        .await
                        .ok()?;
                }
                Ok(Packet::Upgrade) => return Some(socket),
                _ => return None,
            },
            Some(_) => return None,
        }
    }
}

/// The answer that switches to WebSocket, and the promise of the connection.
fn switch(mut request: Request) -> Result<(Response, OnUpgrade), Refusal> {
    let response =
        handshake::accept(request.method(), request.headers()).map_err(|_| Refusal::BadRequest)?;
    let upgrade = request.extensions_mut().remove::<OnUpgrade>();
    upgrade
        .map(|upgrade| (response, upgrade))
        .ok_or(Refusal::BadRequest)
}

pub(crate) async fn taken(
    upgrade: OnUpgrade,
    options: &Options,
    client: &Client,
) -> Option<Socket> {
    match Wire::taken(upgrade).await {
        Ok((wire, early)) => {
            let limits = frame::Limits {
                max_message: options.max_payload,
                max_fragments: options.max_fragments,
            };
            Some(Socket::new(wire, early, limits))
        }
        Err(error) => {
            tracing::debug!(%error, client = %client.address(), "an upgrade did not come about");
            None
        }
    }
}

/// How many packets an answer to a poll may have. python-engineio refuses more than 16, and ends the session; others take any
/// number, and would fall behind if they got so few.
fn most_packets(headers: &HeaderMap) -> usize {
    let agent = headers.get(USER_AGENT).map(HeaderValue::as_bytes);
    let start = agent.and_then(|agent| agent.first_chunk::<6>());
    if start.is_some_and(|start| start.eq_ignore_ascii_case(b"python")) {
        16
    } else {
        usize::MAX
    }
}

fn answer(body: impl Into<Body>) -> Response {
    let headers = [
        (CONTENT_TYPE, "text/plain; charset=UTF-8"),
        (CACHE_CONTROL, "no-store"),
    ];
    (headers, body.into()).into_response()
}
