//! The stream under a connection that has left HTTP.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
#[cfg(feature = "tls")]
use tokio_rustls::server::TlsStream;

use super::guard::Guarded;

/// A connection's stream, taken back from hyper: with it go hyper's buffers, which would be most of what an idle client costs.
pub(crate) enum Wire {
    Plain(Guarded<TcpStream>),
    #[cfg(feature = "tls")]
    Tls(Box<TlsStream<Guarded<TcpStream>>>),
    /// Not from the server of evows.
    Other(Box<TokioIo<Upgraded>>),
}

// === impl Wire ===

impl Wire {
    /// Waits until the response that switches protocols is written, and takes the stream, with what was already read from it.
    pub(crate) async fn taken(upgrade: OnUpgrade) -> Result<(Self, Bytes), hyper::Error> {
        let upgraded = upgrade.await?;
        let upgraded = match upgraded.downcast::<TokioIo<Guarded<TcpStream>>>() {
            Ok(parts) => {
                let stream = parts.io.into_inner().taken();
                return Ok((Self::Plain(stream), parts.read_buf));
            }
            Err(other) => other,
        };
        #[cfg(feature = "tls")]
        let upgraded = match upgraded.downcast::<TokioIo<TlsStream<Guarded<TcpStream>>>>() {
            Ok(parts) => {
                let stream = Box::new(parts.io.into_inner());
                return Ok((Self::Tls(stream), parts.read_buf));
            }
            Err(other) => other,
        };
        let other = Self::Other(Box::new(TokioIo::new(upgraded)));
        Ok((other, Bytes::new()))
    }

    /// Whether a read may bring something. To be asked only after one was pending, whose task is still woken when this changes.
    pub(crate) fn is_readable(&self) -> bool {
        match self {
            Self::Plain(stream) => stream.is_readable(),
            #[cfg(feature = "tls")]
            Self::Tls(_) => true,
            Self::Other(_) => true,
        }
    }

    /// Writes as [`poll_write_vectored`](AsyncWrite::poll_write_vectored) does, sooner where that is possible.
    pub(crate) fn poll_write_now(
        &mut self,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if let Self::Plain(stream) = self
            && let Some(written) = stream.try_write(slices)
        {
            return Poll::Ready(written);
        }
        Pin::new(self).poll_write_vectored(cx, slices)
    }
}

impl AsyncRead for Wire {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(cx, buffer),
            #[cfg(feature = "tls")]
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, buffer),
            Self::Other(stream) => Pin::new(stream).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for Wire {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(cx, bytes),
            #[cfg(feature = "tls")]
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Other(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
            #[cfg(feature = "tls")]
            Self::Tls(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
            Self::Other(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(cx),
            #[cfg(feature = "tls")]
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
            Self::Other(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            #[cfg(feature = "tls")]
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Other(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
