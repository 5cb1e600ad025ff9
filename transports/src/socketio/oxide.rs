//! The engine on the crate `socketioxide`.

use std::sync::Arc;
use std::time::Duration;

use evows_core::access::Access;
use evows_core::hub::{ChannelWatcher, Hub};
use socketioxide::TransportType;
use socketioxide::service::SocketIoService;

use super::client::Clients;
use super::flow::QUEUE;
use super::namespaces::{Namespaces, Rules};
use super::pump::{Options, Pump};
use super::{Carrier, Config};

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
    pub(super) fn new(
        config: &Config,
        hub: &Arc<Hub>,
        access: Arc<Access>,
        clients: &Arc<Clients>,
        deferred: bool,
    ) -> (Self, Service) {
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
        let builder = match (polling, websocket) {
            (true, false) => builder.transports([TransportType::Polling]),
            (false, true) => builder.transports([TransportType::Websocket]),
            _ => builder.transports([TransportType::Polling, TransportType::Websocket]),
        };
        // The door lets nothing else through, so the inner service is never asked.
        let (service, io) = builder.build_with_inner_svc(axum::Router::new());
        let rules = Rules {
            access,
            clients: Arc::clone(clients),
            deferred,
            max_namespaces: config.max_namespaces_per_client,
        };
        let options = Options {
            clients: Arc::clone(clients),
            dialect: config.binary,
            max_lag: config.max_lag.0,
            max_attachments: config.max_attachments,
            warned: Arc::default(),
            hub: Arc::clone(hub),
        };
        let pumps = Box::new(move |channel: &_| Pump::new(channel, options.clone()));
        let namespaces = Arc::new(Namespaces::new(io, rules, pumps));
        let engine = Self {
            hub: Arc::clone(hub),
            clients: Arc::clone(clients),
            connect_timeout: config.connect_timeout.0,
            namespaces,
        };
        (engine, service)
    }

    /// Registers a namespace for every channel there is and will be.
    pub(super) fn start(&self) {
        let watcher: Arc<dyn ChannelWatcher> = Arc::<Namespaces>::clone(&self.namespaces);
        self.hub.watch(watcher);
        let clients = Arc::downgrade(&self.clients);
        tokio::spawn(Clients::expect_joins(clients, self.connect_timeout));
    }

    /// How far the furthest clients have come of those channels that may overrun even them.
    pub(super) fn lags(&self) -> Vec<u64> {
        self.namespaces.lags()
    }

    /// Whether every client that takes what it is given has all there is.
    pub(super) fn is_idle(&self) -> bool {
        self.namespaces.is_idle()
    }
}
