//! evows' own engine: Socket.IO 5 on the hub's cursors.
//!
//! An event is framed once for each kind of client and the bytes are shared (`framer.rs`); a client is a cursor for each namespace
//! that it joined, served by one task (`member.rs`). Between the two there is nothing to fill up: whatever waits for a client lies
//! in the hub's log, once, however many clients it waits for.

mod framer;
mod member;
mod recovery;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use axum::Router;
use evows_core::access::{Access, Identity};
use evows_core::hub::{ChannelName, Hub};
use evows_core::metrics::Metrics;
use evows_core::plugin::{Transport, TransportError};
use serde_json::Value;

use self::framer::Framer;
use self::member::Member;
use self::recovery::Signer;
use super::inbound::Inbound;
use super::{Recovery, SlowClient};
use crate::admission::Admission;
use crate::clients::{Client, Clients};
use crate::engineio::{self, Application, Handshake, Refusal};
use crate::feed::Slow;

pub use super::Dialect;
pub use crate::keys::Denial;

/// How the engine serves clients.
#[derive(Debug, Clone)]
pub struct Options {
    /// How sessions are served.
    pub engineio: engineio::Options,
    /// Time for a connected client to join its first namespace.
    pub connect_timeout: Duration,
    /// The same for one that has shown no key: it costs as much as one that has.
    pub connect_timeout_without_key: Duration,
    /// How byte fields of the envelope travel.
    pub dialect: Dialect,
    /// Attachments of one event. One with more goes without.
    pub max_attachments: usize,
    /// Namespaces that one client may join.
    pub max_namespaces: usize,
    /// Whom events carry their position to.
    pub recovery: Recovery,
    /// What happens to a client that is overrun.
    pub slow_client: SlowClient,
}

/// Who may shake hands, and who may join what.
pub trait Gate: Send + Sync + 'static {
    /// Decides about a handshake. `Ok(None)`: nobody yet.
    fn admit(&self, handshake: &Handshake<'_>) -> Result<Option<Identity>, Refusal>;

    /// Decides about a CONNECT, which `auth` may come with. Called anew each time a client comes back.
    fn join(
        &self,
        identity: Option<&Identity>,
        auth: Option<&Value>,
        channel: &ChannelName,
    ) -> Result<(), Denial>;
}

/// What an engine works with.
pub struct Parts {
    /// Whose channels it serves.
    pub hub: Arc<Hub>,
    /// Where the key comes from that positions are signed with.
    pub access: Arc<Access>,
    /// What it counts in.
    pub metrics: Metrics,
    /// Who is let in.
    pub gate: Arc<dyn Gate>,
    /// Who takes what clients send.
    pub inbound: Arc<dyn Inbound>,
}

/// Lets everybody into every open channel.
#[derive(Debug, Clone, Copy, Default)]
pub struct Open;

/// The engine: a transport, whose routes are [`Native::router`].
pub struct Native {
    shared: Arc<Shared>,
    server: engineio::Server<App>,
    access: Arc<Access>,
}

/// What all sessions share.
struct Shared {
    hub: Arc<Hub>,
    gate: Arc<dyn Gate>,
    inbound: Arc<dyn Inbound>,
    options: Options,
    framer: Framer,
    signer: Signer,
    slow: Slow,
    clients: Arc<Clients>,
}

struct App(Arc<Shared>);

// === impl Native ===

impl Native {
    /// An engine that counts under the name of `component`.
    pub fn new(component: &str, options: Options, parts: Parts) -> Self {
        let admission = Admission::new(options.engineio.max_handshakes_per_second);
        let clients = Arc::new(Clients::new(&component.into(), &parts.metrics, admission));
        let engineio = options.engineio.clone();
        let shared = Arc::new(Shared {
            hub: parts.hub,
            gate: parts.gate,
            inbound: parts.inbound,
            framer: Framer::new(&options, Arc::clone(&clients)),
            slow: Slow {
                policy: options.slow_client,
                clients: Arc::clone(&clients),
            },
            options,
            signer: Signer::default(),
            clients: Arc::clone(&clients),
        });
        let app = App(Arc::clone(&shared));
        Self {
            server: engineio::Server::with_clients(app, engineio, clients),
            shared,
            access: parts.access,
        }
    }

    /// The routes, to be mounted at the path without its last slash.
    pub fn router(&self) -> Router {
        self.server.router()
    }
}

#[async_trait]
impl Transport for Native {
    async fn start(self: Arc<Self>) -> Result<(), TransportError> {
        // The global key is known by now. What is signed with it is good for every process that has it.
        self.shared.signer.set(self.access.derive("socketio pid"));
        Ok(())
    }

    fn clients(&self) -> usize {
        self.shared.clients.live()
    }

    async fn drain(&self, over: Duration) {
        self.shared.clients.drain(over).await;
    }
}

// === impl Options ===

impl Default for Options {
    /// As in `evows.toml`.
    fn default() -> Self {
        super::Config::default().native()
    }
}

// === impl Open ===

impl Gate for Open {
    fn admit(&self, _: &Handshake<'_>) -> Result<Option<Identity>, Refusal> {
        Ok(None)
    }

    fn join(&self, _: Option<&Identity>, _: Option<&Value>, _: &ChannelName) -> Result<(), Denial> {
        Ok(())
    }
}

// === impl App ===

impl Application for App {
    type Session = Member;
    type Pass = (Option<Identity>, bool);

    fn admit(&self, handshake: &Handshake<'_>) -> Result<Self::Pass, Refusal> {
        let identity = self.0.gate.admit(handshake)?;
        // What that is worth is decided when it joins.
        let recover = handshake.asks("recover");
        Ok((identity, recover))
    }

    fn open(&self, (identity, recover): Self::Pass, client: &Arc<Client>) -> Member {
        Member::new(Arc::clone(&self.0), Arc::clone(client), identity, recover)
    }
}
