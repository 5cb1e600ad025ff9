//! A transport on the bench.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{ConnectInfo, Request};
use axum::http::Response;
use axum::middleware::{self, Next};
use axum::{Router, serve};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tower::ServiceExt as _;

use super::keys::{configured, expect_built, problems};
use super::{NoInstances, STOPS_WITHIN, context_with};
use crate::Event;
use crate::access::Secret;
use crate::config::Settings;
use crate::http::{Peer, Routes};
use crate::hub::{ChannelName, Hub, Position};
use crate::plugin::{BuildContext, BuildError, Environment, Lifecycle, Transport, TransportPlugin};

/// A transport that has started, the hub that it serves, and a global key.
pub struct TransportHarness {
    transport: Arc<dyn Transport>,
    hub: Arc<Hub>,
    routes: Routes,
    servers: JoinSet<()>,
}

// === impl TransportHarness ===

impl TransportHarness {
    /// The global key of every harness: whoever has it may follow every channel.
    pub const KEY: &'static str = "the-global-key-of-a-test";

    /// Builds a transport from its keys, written as TOML, and starts it. There are no instances; `/` is open.
    ///
    /// # Panics
    ///
    /// When the keys have problems, or the build or the start fails.
    pub async fn from_toml<T: TransportPlugin>(keys: &str) -> Self {
        let built = Self::with_instances::<T>(keys, Arc::new(NoInstances)).await;
        expect_built(built, T::NAME)
    }

    /// The same with instances, whose channels are open too.
    pub async fn with_instances<T: TransportPlugin>(
        keys: &str,
        lifecycle: Arc<dyn Lifecycle>,
    ) -> Result<Self, BuildError> {
        let cx = context_with(T::NAME, Arc::clone(&lifecycle), Environment::default());
        let config = configured(&Settings::from_text(keys), T::check)?;
        let transport = Arc::new(T::build(config, &cx)?);
        let harness = Self::of(transport, &cx)?;
        for instance in lifecycle.all() {
            harness.hub.open(&instance.channel);
        }
        let started = Arc::clone(&harness.transport).start().await;
        started.map_err(|error| BuildError::new(error.to_string()))?;
        Ok(harness)
    }

    /// Takes a transport that was built in `cx`, with what it mounted there. It is not started.
    pub fn of(transport: Arc<dyn Transport>, cx: &BuildContext) -> Result<Self, BuildError> {
        cx.access().set_global(Secret::new(Self::KEY));
        cx.hub().open(&ChannelName::root());
        let routes = Routes::new(cx.take_mounted().routes);
        Ok(Self {
            transport,
            hub: Arc::clone(cx.hub()),
            routes: routes.map_err(|conflict| BuildError::new(conflict.to_string()))?,
            servers: JoinSet::new(),
        })
    }

    /// What the transport's check says of these keys, as one line; empty when nothing is wrong.
    pub fn problems<T: TransportPlugin>(keys: &str) -> String {
        problems(keys, T::check)
    }

    /// The channels that the transport serves.
    pub fn hub(&self) -> &Arc<Hub> {
        &self.hub
    }

    /// Publishes an event to a channel, written as `/` or `/ana`. Gives its position.
    ///
    /// # Panics
    ///
    /// When no channel can have that name.
    pub fn publish(&self, channel: &str, event: &Event) -> Position {
        let channel = match channel.trim_start_matches('/') {
            "" => ChannelName::root(),
            instance => ChannelName::of_instance(instance)
                .unwrap_or_else(|error| panic!("{channel}: {error}")),
        };
        self.hub.publish([(event, &[channel][..])]).head
    }

    /// Calls a route of the transport. Its body is read while the test goes on.
    ///
    /// # Panics
    ///
    /// When no route of the transport has that path.
    pub fn call(
        &self,
        request: Request<Body>,
    ) -> impl Future<Output = Response<Body>> + Send + use<> {
        call(&self.routes, request)
    }

    /// Serves the transport's routes on a port of the loopback interface, for real clients. Not with a paused clock.
    ///
    /// # Panics
    ///
    /// When no port can be had.
    pub async fn listen(&mut self) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await;
        let listener = listener.expect("the loopback interface has a free port");
        let address = listener
            .local_addr()
            .expect("a socket that listens has an address");
        let routes = self.routes.clone();
        let find = move |request: Request| call(&routes, request);
        let app = Router::new()
            .fallback(find)
            .layer(middleware::from_fn(with_peer));
        let service = app.into_make_service_with_connect_info::<SocketAddr>();
        self.servers.spawn(async move {
            // It ends with the harness.
            serve(listener, service).await.ok();
        });
        address
    }

    /// How many clients are connected now.
    pub fn clients(&self) -> usize {
        self.transport.clients()
    }

    /// Waits until that many clients are connected.
    ///
    /// # Panics
    ///
    /// When they are not after ten seconds.
    pub async fn clients_are(&self, count: usize) {
        let reached = async {
            while self.clients() != count {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        let reached = timeout(super::PATIENCE, reached).await;
        let clients = self.clients();
        assert!(reached.is_ok(), "{clients} clients, not {count}");
    }

    /// Has the transport close its clients, spread over `over`.
    ///
    /// # Panics
    ///
    /// When it takes more than a second longer than that, or clients are left.
    pub async fn drain(&self, over: Duration) {
        let drained = timeout(over + STOPS_WITHIN, self.transport.drain(over)).await;
        assert!(
            drained.is_ok(),
            "`drain` runs on a second after its time was up"
        );
        let left = self.clients();
        assert_eq!(left, 0, "`drain` returned and {left} clients are connected");
    }
}

/// Has the route with the request's path answer it.
pub(super) fn call(
    routes: &Routes,
    request: Request<Body>,
) -> impl Future<Output = Response<Body>> + Send + use<> {
    let path = request.uri().path();
    let route = match routes.find(path) {
        Some(route) => route.clone(),
        None => panic!("nothing is mounted at `{path}`"),
    };
    async move {
        match route.oneshot(request).await {
            Ok(response) => response,
            Err(never) => match never {},
        }
    }
}

/// Says who sends a request, as the server of evows does.
async fn with_peer(
    ConnectInfo(tcp): ConnectInfo<SocketAddr>,
    mut request: Request,
    next: Next,
) -> Response<Body> {
    let client = tcp.ip();
    request.extensions_mut().insert(Peer { tcp, client });
    next.run(request).await
}
