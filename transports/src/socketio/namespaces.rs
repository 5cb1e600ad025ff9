//! Which namespaces there are, on socketioxide.
//!
//! Each is registered once and never deleted: replacing one orphans its sockets, deleting one strands clients that are just
//! connecting, and creating them on demand races. Being open is a flag.

use std::collections::HashMap;
use std::sync::Arc;

use evows_core::access::{Access, Identity};
use evows_core::hub::{Channel, ChannelName, ChannelWatcher, Offset};
use parking_lot::Mutex;
use serde_json::Value;
use socketioxide::extract::{SocketRef, TryData};
use socketioxide::handler::ConnectHandler;

use super::client::{Client, Clients};
use super::pump::Pump;

/// What Node's server answers, and what clients look for.
const INVALID: &str = "Invalid namespace";

/// The namespaces of one transport.
pub(super) struct Namespaces {
    io: socketioxide::SocketIo,
    rules: Arc<Rules>,
    registered: Mutex<HashMap<ChannelName, Arc<Pump>>>,
    pumps: PumpFactory,
}

type PumpFactory = Box<dyn Fn(&Arc<Channel>) -> Pump + Send + Sync>;

/// Who may join.
pub(super) struct Rules {
    pub(super) access: Arc<Access>,
    pub(super) clients: Arc<Clients>,
    /// Whether a key in `auth` counts.
    pub(super) deferred: bool,
    pub(super) max_namespaces: u32,
}

/// Where a client's cursor starts: taken before its CONNECT is answered, so that nothing is missed in between.
#[derive(Debug, Clone, Copy)]
struct Joined(Offset);

// === impl Namespaces ===

impl Namespaces {
    pub(super) fn new(io: socketioxide::SocketIo, rules: Rules, pumps: PumpFactory) -> Self {
        Self {
            io,
            rules: Arc::new(rules),
            registered: Mutex::default(),
            pumps,
        }
    }

    /// How far the furthest clients have come of those channels that may overrun even them.
    pub(super) fn lags(&self) -> Vec<u64> {
        let registered = self.registered.lock();
        registered.values().filter_map(|pump| pump.lag()).collect()
    }

    /// Whether every client that takes what it is given has all there is.
    pub(super) fn is_idle(&self) -> bool {
        self.registered.lock().values().all(|pump| pump.is_idle())
    }

    fn register(&self, name: &ChannelName, pump: Arc<Pump>) {
        let (rules, gate) = (Arc::clone(&self.rules), Arc::clone(&pump));
        let own = name.clone();
        let middleware = async move |socket: SocketRef, TryData(auth): TryData<Value>| {
            rules.admit(&socket, auth.ok().as_ref(), &own, &gate)
        };
        let connect = async move |socket: SocketRef| {
            let start = socket.extensions.get::<Joined>();
            let client = client(&socket);
            if let (Some(Joined(after)), Some(client)) = (start, client) {
                pump.join(socket, client, after);
            }
        };
        self.io
            .ns(name.as_str().to_owned(), connect.with(middleware));
    }
}

impl ChannelWatcher for Namespaces {
    fn opened(&self, channel: &Arc<Channel>) {
        let mut registered = self.registered.lock();
        if let Some(pump) = registered.get(channel.name()) {
            pump.open(Arc::clone(channel));
            return;
        }
        let pump = Arc::new((self.pumps)(channel));
        registered.insert(channel.name().clone(), Arc::clone(&pump));
        self.register(channel.name(), pump);
    }

    fn closed(&self, channel: &Arc<Channel>) {
        let pump = self.registered.lock().get(channel.name()).cloned();
        if let Some(pump) = pump {
            pump.close();
        }
    }
}

// === impl Rules ===

impl Rules {
    fn admit(
        &self,
        socket: &SocketRef,
        auth: Option<&Value>,
        name: &ChannelName,
        pump: &Pump,
    ) -> Result<(), &'static str> {
        let Some(client) = client(socket) else {
            return Err(INVALID);
        };
        let admitted = self.check(&client, auth, name, pump);
        match admitted {
            Ok(after) => {
                socket.extensions.insert(Joined(after));
                Ok(())
            }
            Err(message) => {
                self.clients
                    .metrics()
                    .refuse(self.clients.component(), reason(message));
                client.refused();
                Err(message)
            }
        }
    }

    fn check(
        &self,
        client: &Client,
        auth: Option<&Value>,
        name: &ChannelName,
        pump: &Pump,
    ) -> Result<Offset, &'static str> {
        let identity = self.identify(client, auth)?;
        if !self.access.may_follow(&identity, name) {
            // To this key, the namespaces of other instances do not exist.
            return Err(if name.is_root() {
                "This key does not give access to this namespace"
            } else {
                INVALID
            });
        }
        let after = pump.head().ok_or(INVALID)?;
        if client.join(self.max_namespaces) {
            if name.is_root() {
                // Noted before the CONNECT is answered, so that the order holds from the first event on.
                client.has_root(Some(after));
            }
            Ok(after)
        } else {
            Err("Too many namespaces")
        }
    }

    fn identify(&self, client: &Client, auth: Option<&Value>) -> Result<Identity, &'static str> {
        if let Some(identity) = &client.identity {
            // The key may have been revoked, and its instance's name given to another, since the handshake.
            let stands = self.access.stands(identity).then(|| identity.clone());
            return stands.ok_or("Invalid global token");
        }
        let key = auth.filter(|_| self.deferred).and_then(|auth| {
            let key = auth.get("apikey").or_else(|| auth.get("token"));
            key.and_then(Value::as_str)
        });
        let key = key.ok_or("apiKey is required")?;
        self.access.identify(key).ok_or("Invalid global token")
    }
}

fn reason(message: &str) -> &'static str {
    match message {
        INVALID => "invalid_namespace",
        "apiKey is required" => "key_required",
        "Invalid global token" => "key_unknown",
        "Too many namespaces" => "too_many_namespaces",
        _ => "namespace_forbidden",
    }
}

/// The client that a socket belongs to: an extension of its handshake.
fn client(socket: &SocketRef) -> Option<Arc<Client>> {
    socket.req_parts().extensions.get::<Arc<Client>>().cloned()
}
