//! HTTP endpoints that take events, and can fail.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::rc::Rc;

use axum::body::{Body, to_bytes};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::super::Error;
use super::super::packet::sequence;
use super::super::server::free_address;
use super::LOOK;
use super::events::Inbox;

/// Larger than any event.
const LARGEST: usize = 16 << 20;

/// How an endpoint fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Failure {
    /// It refuses connections.
    Refuse,
    /// It answers 503.
    Error,
    /// It takes requests and never answers.
    Silent,
}

/// An endpoint with a port of its own.
pub(super) struct Receiver {
    pub(super) address: SocketAddr,
    failure: watch::Sender<Option<Failure>>,
    /// Ends it when dropped.
    _tasks: JoinSet<()>,
}

// === impl Failure ===

impl Failure {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Refuse => "refuse",
            Self::Error => "error",
            Self::Silent => "silent",
        }
    }
}

// === impl Receiver ===

impl Receiver {
    /// Starts it, well and listening.
    pub(super) async fn start(inbox: &Rc<Inbox>) -> Result<Self, Error> {
        // The port stays free while the endpoint refuses connections: nothing else takes it by chance.
        let listener = TcpListener::bind(free_address()?).await?;
        let address = listener.local_addr()?;
        let (failure, failures) = watch::channel(None);
        let mut tasks = JoinSet::new();
        tasks.spawn_local(listen(listener, failures, Rc::clone(inbox)));
        Ok(Self {
            address,
            failure,
            _tasks: tasks,
        })
    }

    pub(super) fn url(&self) -> String {
        format!("http://{}/hook", self.address)
    }

    /// Makes it fail, or work again.
    pub(super) fn set(&self, failure: Option<Failure>) {
        self.failure.send_replace(failure);
    }
}

async fn listen(
    listener: TcpListener,
    mut failures: watch::Receiver<Option<Failure>>,
    inbox: Rc<Inbox>,
) {
    let Ok(address) = listener.local_addr() else {
        return;
    };
    let mut listener = Some(listener);
    let mut connections = JoinSet::new();
    let mut before = None;
    loop {
        let failure = *failures.borrow_and_update();
        if failure == Some(Failure::Refuse) {
            listener = None;
        }
        if failure == Some(Failure::Refuse) || before == Some(Failure::Silent) {
            // Those that are answered never would keep their senders waiting.
            connections.abort_all();
        }
        before = failure;
        if failure != Some(Failure::Refuse) && listener.is_none() {
            listener = TcpListener::bind(address).await.ok();
        }
        loop {
            tokio::select! {
                changed = failures.changed() => match changed {
                    Ok(()) => break,
                    Err(_) => return,
                },
                stream = accept(listener.as_ref()) => {
                    connections.spawn_local(serve(stream, failures.clone(), Rc::clone(&inbox)));
                }
                Some(_) = connections.join_next() => {}
            }
        }
    }
}

/// The next connection; never one where nobody listens.
async fn accept(listener: Option<&TcpListener>) -> TcpStream {
    let Some(listener) = listener else {
        return std::future::pending().await;
    };
    loop {
        match listener.accept().await {
            Ok((stream, _)) if stream.set_nodelay(true).is_ok() => return stream,
            // Too many files are open, or it was closed already.
            _ => tokio::time::sleep(LOOK).await,
        }
    }
}

async fn serve(stream: TcpStream, failures: watch::Receiver<Option<Failure>>, inbox: Rc<Inbox>) {
    let service = service_fn(|request| answer(request, *failures.borrow(), &inbox));
    let serving = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
    // Whoever closes a connection may come again.
    serving.await.ok();
}

async fn answer(
    request: Request<Incoming>,
    failure: Option<Failure>,
    inbox: &Inbox,
) -> Result<Response<Body>, Infallible> {
    let body = to_bytes(Body::new(request.into_body()), LARGEST).await;
    let status = match (failure, body) {
        (Some(Failure::Silent), _) => std::future::pending().await,
        (None, Ok(body)) => {
            inbox.take(sequence(&body, &mut 0), Instant::now());
            StatusCode::OK
        }
        _ => StatusCode::SERVICE_UNAVAILABLE,
    };
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    Ok(response)
}
