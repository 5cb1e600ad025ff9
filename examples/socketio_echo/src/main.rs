//! A Socket.IO server that answers what clients send, in the namespaces `/` and `/custom`.
//!
//! Run with `cargo run -p socketio_echo`; it listens on port 3000.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use evows::Shutdown;
use evows::config::ServerConfig;
use evows::http::{BindError, Host as _, Mount, Routes};
use evows::hub::{ChannelName, Hub, Retention};
use evows::metrics::Metrics;
use evows::serde_json::{Value, value::RawValue};
use evows::transports::http;
use evows::transports::socketio::native::{Native, Open, Options, Parts};
use evows::transports::socketio::{Answer, Inbound, InboundEvent};

struct Echo;

impl Inbound for Echo {
    fn joined(&self, auth: Option<&Value>, answer: &mut Answer<'_>) {
        let auth = auth.map_or_else(|| "{}".to_owned(), Value::to_string);
        answer.emit(&format!(r#"["auth",{auth}]"#), &[]);
    }

    fn event(&self, event: &InboundEvent<'_>, answer: &mut Answer<'_>) -> bool {
        let Some((name, arguments)) = event.parts() else {
            return false;
        };
        match name.as_str() {
            "message" => {
                let named = std::iter::once(r#""message-back""#);
                let data = array(named.chain(arguments.into_iter().map(RawValue::get)));
                answer.emit(&data, event.attachments);
            }
            "message-with-ack" => {
                let data = array(arguments.into_iter().map(RawValue::get));
                answer.ack(&data, event.attachments);
            }
            _ => return false,
        }
        true
    }
}

/// A JSON array of these JSON texts.
fn array<'a>(items: impl Iterator<Item = &'a str>) -> String {
    format!("[{}]", items.collect::<Vec<_>>().join(","))
}

#[evows::tokio::main(crate = "evows::tokio")]
async fn main() -> Result<(), BindError> {
    let mut options = Options::default();
    options.engineio.ping_interval = Duration::from_millis(300);
    options.engineio.ping_timeout = Duration::from_millis(200);
    options.engineio.max_payload = 1_000_000;

    let hub = Arc::new(Hub::new(Retention::default()));
    hub.open(&ChannelName::root());
    hub.open(&ChannelName::of_instance("custom").expect("a valid name"));
    let metrics = Metrics::new();
    let parts = Parts {
        hub,
        access: Arc::default(),
        metrics: metrics.clone(),
        gate: Arc::new(Open),
        inbound: Arc::new(Echo),
    };
    let native = Native::new("echo", options, parts);

    let config = ServerConfig {
        listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 3000)),
        ..ServerConfig::default()
    };
    let bound = http::Server.bind(&Arc::new(config), &metrics).await?;
    println!("listening on http://{}/socket.io/", bound.address());
    let routes = Routes::new(vec![Mount::new("echo", "/socket.io", native.router())]);
    let routes = routes.expect("one path is no conflict");
    bound.serve(routes, Shutdown::new()).await;
    Ok(())
}
