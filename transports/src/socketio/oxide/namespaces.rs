//! Which namespaces there are, on socketioxide.
//!
//! Each is registered once and never deleted: replacing one orphans its sockets, deleting one strands clients that are just
//! connecting, and creating them on demand races. Being open is a flag.

use std::collections::HashMap;
use std::sync::Arc;

use evows_core::hub::{Channel, ChannelName, ChannelWatcher, Offset};
use parking_lot::Mutex;
use serde_json::Value;
use socketioxide::extract::{SocketRef, TryData};
use socketioxide::handler::ConnectHandler;

use super::client::{Client, Clients};
use super::pump::Pump;
use crate::keys::{Denial, Keys, brought};

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
    pub(super) keys: Arc<Keys>,
    pub(super) clients: Arc<Clients>,
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
            return Err(Denial::Invalid.message());
        };
        match self.check(&client, auth, name, pump) {
            Ok(after) => {
                socket.extensions.insert(Joined(after));
                Ok(())
            }
            Err(denial) => {
                self.clients
                    .metrics()
                    .refuse(self.clients.component(), denial.reason());
                client.refused();
                Err(denial.message())
            }
        }
    }

    fn check(
        &self,
        client: &Client,
        auth: Option<&Value>,
        name: &ChannelName,
        pump: &Pump,
    ) -> Result<Offset, Denial> {
        let key = auth.and_then(brought);
        self.keys.check(client.identity.as_ref(), key, name)?;
        let after = pump.head().ok_or(Denial::Invalid)?;
        if client.join(self.max_namespaces) {
            if name.is_root() {
                // Noted before the CONNECT is answered, so that the order holds from the first event on.
                client.has_root(Some(after));
            }
            Ok(after)
        } else {
            Err(Denial::TooMany)
        }
    }
}

/// The client that a socket belongs to: an extension of its handshake.
fn client(socket: &SocketRef) -> Option<Arc<Client>> {
    socket.req_parts().extensions.get::<Arc<Client>>().cloned()
}
