//! The engine on the crate `socketioxide`.

mod client;
mod door;
mod errors;
mod flow;
mod namespaces;
mod pump;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use axum::Router;
use evows_core::hub::{ChannelWatcher, Hub};
use evows_core::plugin::{BuildContext, Transport, TransportError};
use socketioxide::service::SocketIoService;
use socketioxide::{SocketIoBuilder, TransportType};

use self::client::Clients;
use self::door::Door;
use self::flow::QUEUE;
use self::namespaces::{Namespaces, Rules};
use self::pump::{Options, Pump};
use super::reserved::Reserved;
use super::{Carrier, Config};
use crate::keys::Keys;

/// Clients mostly listen.
const READ_BUFFER: usize = 512;

/// What answers the requests that the door lets through.
pub(super) type Service = SocketIoService<axum::Router>;

/// The engine.
pub(super) struct Oxide {
    hub: Arc<Hub>,
    clients: Arc<Clients>,
    connect_timeout: Duration,
    namespaces: Arc<Namespaces>,
}

// === impl Oxide ===

impl Oxide {
    /// Makes the engine and its routes.
    pub(super) fn new(config: &Config, cx: &BuildContext, keys: Keys) -> (Self, Router) {
        let component: Arc<str> = cx.id().into();
        let clients = Arc::new(Clients::new(
            &component,
            cx.metrics().clone(),
            config.max_polling_sessions,
            config.max_polling_sessions_per_address,
        ));
        let keys = Arc::new(keys);
        // The door lets nothing else through, so the inner service is never asked.
        let (service, io) = builder(config).build_with_inner_svc(axum::Router::new());
        let rules = Rules {
            keys: Arc::clone(&keys),
            clients: Arc::clone(&clients),
            max_namespaces: config.max_namespaces_per_client,
        };
        let options = Options {
            clients: Arc::clone(&clients),
            dialect: config.binary,
            max_lag: config.max_lag.0,
            max_attachments: config.max_attachments,
            reserved: Reserved::default(),
            hub: Arc::clone(cx.hub()),
        };
        let pumps = Box::new(move |channel: &_| Pump::new(channel, options.clone()));
        let door = Door::new(config, keys, Arc::clone(&clients), service);
        let engine = Self {
            hub: Arc::clone(cx.hub()),
            clients,
            connect_timeout: config.connect_timeout.0,
            namespaces: Arc::new(Namespaces::new(io, rules, pumps)),
        };
        (engine, door.router())
    }
}

fn builder(config: &Config) -> SocketIoBuilder {
    let most = config.max_payload.bytes();
    let builder = socketioxide::SocketIo::builder()
        .req_path(config.path.clone())
        .ping_interval(config.ping_interval.0)
        .ping_timeout(config.ping_timeout.0)
        // Closing late joiners is done here, where it is counted. The engine only lets go of what is left of them.
        .connect_timeout(config.connect_timeout.0 + Duration::from_secs(2))
        .max_payload(config.max_payload.0)
        .max_buffer_size(QUEUE)
        .ws_read_buffer_size(READ_BUFFER)
        .ws_max_message_size(most)
        .ws_max_frame_size(most);
    let polling = config.transports.contains(&Carrier::Polling);
    let websocket = config.transports.contains(&Carrier::Websocket);
    match (polling, websocket) {
        (true, false) => builder.transports([TransportType::Polling]),
        (false, true) => builder.transports([TransportType::Websocket]),
        _ => builder.transports([TransportType::Polling, TransportType::Websocket]),
    }
}

#[async_trait]
impl Transport for Oxide {
    /// Registers a namespace for every channel there is and will be.
    async fn start(self: Arc<Self>) -> Result<(), TransportError> {
        let watcher: Arc<dyn ChannelWatcher> = Arc::<Namespaces>::clone(&self.namespaces);
        self.hub.watch(watcher);
        let clients = Arc::downgrade(&self.clients);
        tokio::spawn(Clients::expect_joins(clients, self.connect_timeout));
        Ok(())
    }

    fn clients(&self) -> usize {
        self.clients.live()
    }

    async fn drain(&self, over: Duration) {
        let is_idle = || self.namespaces.is_idle();
        self.clients.drain(over, is_idle).await;
    }
}
