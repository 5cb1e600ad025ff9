//! An Engine.IO server that echoes every message.
//!
//! Run with `cargo run -p engineio_echo`; it listens on port 3000.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use evows::Shutdown;
use evows::config::ServerConfig;
use evows::http::{BindError, Host as _, Mount, Routes};
use evows::metrics::Metrics;
use evows::transports::Client;
use evows::transports::engineio::{
    Application, Close, Handshake, Message, Options, Outbox, Refusal, Server, Session,
};
use evows::transports::http;

struct Echo;

impl Application for Echo {
    type Session = Echo;
    type Pass = ();

    fn admit(&self, _: &Handshake<'_>) -> Result<(), Refusal> {
        Ok(())
    }

    fn open(&self, (): (), _: &Arc<Client>) -> Echo {
        Echo
    }
}

impl Session for Echo {
    fn message(&mut self, message: Message<'_>, out: &mut Outbox) -> Result<(), Close> {
        match message {
            Message::Text(text) => out.text(text),
            Message::Binary(bytes) => out.binary(bytes),
        }
        Ok(())
    }
}

#[evows::tokio::main(crate = "evows::tokio")]
async fn main() -> Result<(), BindError> {
    let options = Options {
        ping_interval: Duration::from_millis(300),
        ping_timeout: Duration::from_millis(200),
        max_payload: 1_000_000,
        ..Options::default()
    };
    let metrics = Metrics::new();
    let server = Server::new("echo", Echo, options, &metrics);
    let config = ServerConfig {
        listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 3000)),
        ..ServerConfig::default()
    };
    let bound = http::Server.bind(&Arc::new(config), &metrics).await?;
    println!("listening on http://{}/engine.io/", bound.address());
    let routes = Routes::new(vec![Mount::new("echo", "/engine.io", server.router())]);
    let routes = routes.expect("one path is no conflict");
    bound.serve(routes, Shutdown::new()).await;
    Ok(())
}
