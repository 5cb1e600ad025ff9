//! The floor to compare with: the least that a server must do to deliver events.
//!
//! ```sh
//! evows-floor 8080
//! ```
//!
//! One thread. POST /webhook writes the event to every client of `/` with one bare, non-blocking `write` each. There is no
//! queue: a client whose socket takes less than the whole event is closed. GET /healthz answers 200.

mod clients;
mod http;

use std::io;
use std::net::Ipv4Addr;
use std::process::ExitCode;
use std::rc::Rc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::task::{LocalSet, spawn_local};

use crate::clients::Clients;
use crate::http::{Connection, Request};

/// Socket.IO's default time between pings.
const PING: Duration = Duration::from_secs(25);

fn main() -> ExitCode {
    let port = std::env::args().nth(1).and_then(|port| port.parse().ok());
    let result = match port {
        Some(port) => run(port),
        None => Err(io::Error::other("usage: evows-floor PORT")),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("evows-floor: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(port: u16) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    LocalSet::new().block_on(&runtime, async {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await?;
        let clients = Rc::new(Clients::default());
        let pinged = Rc::clone(&clients);
        spawn_local(async move {
            loop {
                tokio::time::sleep(PING).await;
                pinged.write(&clients::frame(b"2"));
            }
        });
        loop {
            let (stream, _) = listener.accept().await?;
            let clients = Rc::clone(&clients);
            spawn_local(async move {
                // A connection that breaks is the peer's affair.
                serve(stream, &clients).await.ok();
            });
        }
    })
}

async fn serve(stream: TcpStream, clients: &Clients) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut connection = Connection::new(stream);
    while let Some(request) = connection.next().await? {
        let status = match request {
            Request::Upgrade { key } => {
                let stream = connection.upgrade(&key).await?;
                return clients.serve(stream).await;
            }
            Request::Post { path, body } if path == "/webhook" => match clients::event(&body) {
                Some(event) => {
                    clients.write(&event);
                    "200 OK"
                }
                None => "400 Bad Request",
            },
            Request::Get { path } if path == "/healthz" => "200 OK",
            Request::Post { .. } | Request::Get { .. } => "404 Not Found",
        };
        connection.answer(status).await?;
    }
    Ok(())
}
