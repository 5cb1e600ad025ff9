//! Where connections come from: straight, or through a proxy; past the guard, if there is one.

use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use std::{io, vec};

use evows_core::plugin::BoxError;
use hyper::Uri;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::client::legacy::connect::dns::Name;
use hyper_util::client::legacy::connect::proxy::Tunnel;
use hyper_util::client::legacy::connect::{Connected, Connection, HttpConnector};
use hyper_util::client::proxy::matcher::Matcher;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpStream, lookup_host};
use tower_service::Service;

use super::guard::Guard;

/// How long making a connection may take.
const CONNECT: Duration = Duration::from_secs(10);

/// How often a connection that nothing is sent on shows that it is alive.
const KEEPALIVE: Duration = Duration::from_mins(1);

type Guarded = Option<Arc<Guard>>;

/// Makes connections.
#[derive(Clone)]
pub(crate) struct Connector {
    guard: Guarded,
    straight: HttpConnector<Resolver>,
    /// To a proxy, which is the operator's and needs no guard.
    to_proxy: HttpConnector<Resolver>,
    proxies: Option<Arc<Matcher>>,
}

/// Finds the addresses of a name, and leaves out those that the guard does not let through.
#[derive(Clone)]
pub(crate) struct Resolver(Guarded);

/// A connection to the endpoint, or to a proxy that is sent requests for others.
pub(crate) struct Stream {
    io: TokioIo<TcpStream>,
    is_proxied: bool,
}

type Connecting = Pin<Box<dyn Future<Output = Result<Stream, BoxError>> + Send>>;
type Resolving = Pin<Box<dyn Future<Output = Result<vec::IntoIter<SocketAddr>, BoxError>> + Send>>;

// === impl Connector ===

impl Connector {
    pub(crate) fn new(guard: Guarded, proxies: Option<Arc<Matcher>>) -> Self {
        Self {
            straight: http(Resolver(guard.clone())),
            to_proxy: http(Resolver(None)),
            guard,
            proxies,
        }
    }

    async fn connect(mut self, uri: Uri) -> Result<Stream, BoxError> {
        if let (Some(guard), Some(address)) = (&self.guard, literal(&uri)) {
            guard.check(uri.host().unwrap_or_default(), address)?;
        }
        let proxy = self.proxies.as_ref().and_then(|it| it.intercept(&uri));
        let Some(proxy) = proxy else {
            let io = self.straight.call(uri).await?;
            return Ok(Stream {
                io,
                is_proxied: false,
            });
        };
        if self.guard.is_some() && literal(&uri).is_none() {
            // The proxy looks the name up again. What that gives is the proxy's to judge; what is plainly wrong ends here.
            let host = uri.host().unwrap_or_default().to_owned();
            Resolver(self.guard.clone()).addresses(host).await?;
        }
        if proxy.uri().scheme_str() != Some("http") {
            return Err("only proxies whose URL begins with `http://` can be used".into());
        }
        if uri.scheme_str() == Some("http") {
            let io = self.to_proxy.call(proxy.uri().clone()).await?;
            return Ok(Stream {
                io,
                is_proxied: true,
            });
        }
        let mut tunnel = Tunnel::new(proxy.uri().clone(), self.to_proxy);
        if let Some(password) = proxy.basic_auth() {
            tunnel = tunnel.with_auth(password.clone());
        }
        let io = tunnel.call(uri).await?;
        Ok(Stream {
            io,
            is_proxied: false,
        })
    }
}

fn http(resolver: Resolver) -> HttpConnector<Resolver> {
    let mut connector = HttpConnector::new_with_resolver(resolver);
    connector.enforce_http(false);
    connector.set_nodelay(true);
    connector.set_keepalive(Some(KEEPALIVE));
    connector.set_connect_timeout(Some(CONNECT));
    connector
}

/// The address that stands in a URL in place of a name. Other spellings of one are looked up, and checked then.
fn literal(uri: &Uri) -> Option<IpAddr> {
    let host = uri.host()?;
    let host = host.strip_prefix('[').unwrap_or(host);
    host.strip_suffix(']').unwrap_or(host).parse().ok()
}

impl Service<Uri> for Connector {
    type Response = Stream;
    type Error = BoxError;
    type Future = Connecting;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Connecting {
        Box::pin(self.clone().connect(uri))
    }
}

// === impl Resolver ===

impl Resolver {
    async fn addresses(self, host: String) -> Result<vec::IntoIter<SocketAddr>, BoxError> {
        let found: Vec<_> = lookup_host((host.as_str(), 0)).await?.collect();
        let kept = match &self.0 {
            Some(guard) => guard.filter(&host, found)?,
            None => found,
        };
        Ok(kept.into_iter())
    }
}

impl Service<Name> for Resolver {
    type Response = vec::IntoIter<SocketAddr>;
    type Error = BoxError;
    type Future = Resolving;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, name: Name) -> Resolving {
        Box::pin(self.clone().addresses(name.as_str().to_owned()))
    }
}

// === impl Stream ===

impl Connection for Stream {
    fn connected(&self) -> Connected {
        self.io.connected().proxy(self.is_proxied)
    }
}

impl Read for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

impl Write for Stream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, slices)
    }
}
