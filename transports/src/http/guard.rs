//! The stream under every connection: it can be closed from outside, and does not wait for ever for a peer
//! that stopped reading.
//!
//! The guard lies directly on the TCP stream, under TLS, and stays there when HTTP hands the connection to a
//! WebSocket. What it enforces therefore holds for the whole life of the connection.

use std::fmt;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use evows_core::metrics::Metrics;
use futures_util::task::AtomicWaker;
use rustix::io::Errno;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::Sleep;

use super::COMPONENT;
use super::limits::Slot;

/// One client's connection. An extension of every request that came over it; cheap to clone.
#[derive(Clone, Default)]
pub struct Connection(Arc<State>);

#[derive(Default)]
struct State {
    closed: OnceLock<&'static str>,
    reader: AtomicWaker,
    writer: AtomicWaker,
    read: AtomicU64,
    written: AtomicU64,
    blocked: AtomicBool,
    /// What was read when the last response was ready.
    answered: AtomicU64,
}

/// A stream whose connection can be closed from outside and whose writes may not stall.
pub(crate) struct Guarded<S: Socket> {
    /// Given back when the stream goes, which may be long after its HTTP task has. It comes first, so that
    /// a client which sees its connection closed finds its place free.
    _slot: Slot,
    stream: S,
    connection: Connection,
    /// Runs while a write is pending, and only then costs memory.
    stall: Option<Pin<Box<Sleep>>>,
    rules: Arc<Rules>,
    /// Whether a WebSocket's task has it, which is told otherwise to close it. What is shared for that is then not looked at any
    /// more: it is not in the cache, and looking would be a good part of what a delivery costs.
    taken: bool,
}

/// What every connection's guard has in common.
pub(super) struct Rules {
    /// How long a write may take nothing.
    pub(super) stall_limit: Duration,
    pub(super) metrics: Metrics,
}

/// What the guard needs of a stream.
pub(crate) trait Socket: AsyncRead + AsyncWrite + Unpin {
    /// Makes dropping the stream throw away what the peer has not taken.
    fn discard(&self) -> io::Result<()>;
}

// === impl Connection ===

impl Connection {
    /// Closes the connection: reads and writes fail from now on, also those that wait now. The first
    /// reason stays. It has no effect once evows' own WebSocket has the connection, whose client is closed instead.
    pub fn close(&self, reason: &'static str) {
        self.close_first(reason);
    }

    /// Whether the connection was closed from this side.
    pub fn is_closed(&self) -> bool {
        self.0.closed.get().is_some()
    }

    /// Why the connection was closed from this side: the first reason given.
    pub fn closed_reason(&self) -> Option<&'static str> {
        self.0.closed.get().copied()
    }

    /// Bytes that the system took for the peer so far, TLS included, as long as HTTP or socketioxide has the connection. A number that
    /// stands still while there is something to write is a peer that does not read.
    pub fn written(&self) -> u64 {
        self.0.written.load(Ordering::Relaxed)
    }

    /// Whether a write waits for the peer to read.
    pub fn is_blocked(&self) -> bool {
        self.0.blocked.load(Ordering::Relaxed)
    }

    /// Notes that everything read so far is answered.
    pub(super) fn answered(&self) {
        let read = self.0.read.load(Ordering::Relaxed);
        self.0.answered.store(read, Ordering::Relaxed);
    }

    /// Whether the peer has sent nothing since the last response.
    pub(super) fn is_idle(&self) -> bool {
        let answered = self.0.answered.load(Ordering::Relaxed);
        answered > 0 && answered == self.0.read.load(Ordering::Relaxed)
    }

    fn close_first(&self, reason: &'static str) -> bool {
        let first = self.0.closed.set(reason).is_ok();
        if first {
            self.0.reader.wake();
            self.0.writer.wake();
        }
        first
    }

    fn check(&self) -> io::Result<()> {
        match self.closed_reason() {
            Some(reason) => Err(io::Error::new(io::ErrorKind::ConnectionAborted, reason)),
            None => Ok(()),
        }
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection")
            .field("closed", &self.closed_reason())
            .field("written", &self.written())
            .finish_non_exhaustive()
    }
}

// === impl Guarded ===

impl<S: Socket> Guarded<S> {
    pub(super) fn new(stream: S, connection: Connection, rules: Arc<Rules>, slot: Slot) -> Self {
        Self {
            _slot: slot,
            stream,
            connection,
            stall: None,
            rules,
            taken: false,
        }
    }

    fn check(&self) -> io::Result<()> {
        if self.taken {
            return Ok(());
        }
        self.connection.check()
    }

    /// Starts, checks or stops the timer by how a write went.
    fn watch<T>(
        &mut self,
        cx: &mut Context<'_>,
        outcome: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        match &outcome {
            Poll::Ready(Err(error)) => self.lost(error),
            Poll::Ready(Ok(_)) => self.stall = None,
            Poll::Pending => {}
        }
        if !self.taken {
            let blocked = &self.connection.0.blocked;
            blocked.store(outcome.is_pending(), Ordering::Relaxed);
        }
        if outcome.is_ready() {
            return outcome;
        }
        // Registered before the check, so that a close in between is seen by one of the two.
        self.connection.0.writer.register(cx.waker());
        self.check()?;
        let limit = self.rules.stall_limit;
        let stall = self
            .stall
            .get_or_insert_with(|| Box::pin(tokio::time::sleep(limit)));
        ready!(stall.as_mut().poll(cx));
        self.give_up("write_stalled");
        self.connection.check()?;
        Poll::Pending
    }

    /// Notes that the system may have given up on the peer before our own timer did.
    fn lost(&self, error: &io::Error) {
        if error.kind() == io::ErrorKind::TimedOut {
            self.give_up(match self.stall {
                Some(_) => "write_stalled",
                None => "peer_unreachable",
            });
        }
    }

    fn give_up(&self, reason: &'static str) {
        if self.connection.close_first(reason) {
            self.rules.metrics.close(&COMPONENT, reason);
        }
    }

    fn count(&self, outcome: &Poll<io::Result<usize>>) {
        if let Poll::Ready(Ok(bytes)) = outcome
            && !self.taken
        {
            let bytes = u64::try_from(*bytes).unwrap_or(u64::MAX);
            self.connection
                .0
                .written
                .fetch_add(bytes, Ordering::Relaxed);
        }
    }
}

impl Guarded<TcpStream> {
    /// A stream that its [`Connection`] closes no more, nor counts what it writes.
    pub(super) fn taken(mut self) -> Self {
        self.taken = true;
        self
    }

    /// Whether reading would not be pending, as far as the runtime knows. Unlike a read that turns out to be pending, this costs no
    /// lock, and leaves whoever waits to be woken as it is.
    pub(super) fn is_readable(&self) -> bool {
        let ready = self.stream.try_io(Interest::READABLE, || Ok(()));
        ready.is_ok() || (!self.taken && self.connection.is_closed())
    }

    /// Writes, as much as the system takes at once, without asking the runtime whether it would: mostly it does. `None` where
    /// only a poll can tell, because nothing is taken or the peer kept others waiting before.
    pub(super) fn try_write(&self, slices: &[IoSlice<'_>]) -> Option<io::Result<usize>> {
        if self.stall.is_some() {
            return None;
        }
        let written = match slices {
            [one] => rustix::io::write(&self.stream, one),
            several => rustix::io::writev(&self.stream, several),
        };
        match written {
            Err(Errno::AGAIN | Errno::INTR) => None,
            Ok(written) => Some(Ok(written)),
            Err(error) => {
                let error = io::Error::from(error);
                self.lost(&error);
                Some(Err(error))
            }
        }
    }
}

impl<S: Socket> AsyncRead for Guarded<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.check()?;
        let before = buffer.filled().len();
        let outcome = Pin::new(&mut this.stream).poll_read(cx, buffer);
        if outcome.is_pending() {
            this.connection.0.reader.register(cx.waker());
            this.check()?;
        }
        if let Poll::Ready(Err(error)) = &outcome {
            this.lost(error);
        }
        let bytes = u64::try_from(buffer.filled().len() - before).unwrap_or(u64::MAX);
        this.connection.0.read.fetch_add(bytes, Ordering::Relaxed);
        outcome
    }
}

impl<S: Socket> AsyncWrite for Guarded<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        this.check()?;
        let outcome = Pin::new(&mut this.stream).poll_write(cx, bytes);
        this.count(&outcome);
        this.watch(cx, outcome)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        this.check()?;
        let outcome = Pin::new(&mut this.stream).poll_write_vectored(cx, slices);
        this.count(&outcome);
        this.watch(cx, outcome)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.check()?;
        // A TCP stream is always flushed: that says nothing about a write that is pending.
        Pin::new(&mut this.stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.check()?;
        Pin::new(&mut this.stream).poll_shutdown(cx)
    }
}

impl<S: Socket> Drop for Guarded<S> {
    fn drop(&mut self) {
        // The kernel would keep megabytes for a peer that we gave up on.
        if self.connection.is_closed()
            && self.stall.is_some()
            && let Err(error) = self.stream.discard()
        {
            tracing::debug!(%error, "cannot discard unsent bytes");
        }
    }
}

// === impl Socket ===

impl Socket for TcpStream {
    fn discard(&self) -> io::Result<()> {
        self.set_zero_linger()
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex, split};

    use super::super::limits::Limits;
    use super::*;

    impl Socket for DuplexStream {
        fn discard(&self) -> io::Result<()> {
            Ok(())
        }
    }

    fn guarded() -> (Guarded<DuplexStream>, DuplexStream, Metrics) {
        let (near, far) = duplex(8);
        let metrics = Metrics::new();
        let slot = Limits::new(1, 1).take(None).unwrap();
        let rules = Arc::new(Rules {
            stall_limit: Duration::from_secs(20),
            metrics: metrics.clone(),
        });
        let near = Guarded::new(near, Connection::default(), rules, slot);
        (near, far, metrics)
    }

    async fn within<F: Future>(future: F) -> F::Output {
        let limit = Duration::from_mins(10);
        tokio::time::timeout(limit, future).await.expect("in time")
    }

    fn kind<T: fmt::Debug>(outcome: io::Result<T>) -> io::ErrorKind {
        outcome.unwrap_err().kind()
    }

    #[tokio::test(start_paused = true)]
    async fn a_stalled_write_fails_both_directions_and_is_counted() {
        let (near, far, metrics) = guarded();
        let connection = near.connection.clone();
        let (mut reader, mut writer) = split(near);
        let mut byte = [0];
        let (read, written) = tokio::join!(reader.read(&mut byte), writer.write_all(&[0; 64]));
        assert_eq!(kind(read), io::ErrorKind::ConnectionAborted);
        assert_eq!(kind(written), io::ErrorKind::ConnectionAborted);
        assert_eq!(connection.closed_reason(), Some("write_stalled"));
        assert_eq!(connection.written(), 8);
        assert!(
            metrics.encode().contains(
                r#"evows_clients_closed_total{component="http",reason="write_stalled"} 1"#
            )
        );
        drop(far);
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_reader_that_moves_is_left_alone() {
        let (mut near, mut far, _) = guarded();
        let connection = near.connection.clone();
        let slow = async {
            let mut bytes = [0; 8];
            for _ in 0..8 {
                tokio::time::sleep(Duration::from_secs(19)).await;
                far.read_exact(&mut bytes).await.unwrap();
            }
        };
        within(async { tokio::join!(near.write_all(&[0; 64]), slow).0 })
            .await
            .unwrap();
        assert!(!connection.is_closed());
        assert!(near.stall.is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn close_wakes_both_halves_and_keeps_the_first_reason() {
        let (near, far, _) = guarded();
        let connection = near.connection.clone();
        let (mut reader, mut writer) = split(near);
        let reading = tokio::spawn(async move { reader.read_u8().await });
        let writing = tokio::spawn(async move { writer.write_all(&[0; 64]).await });
        while connection.written() < 8 {
            tokio::task::yield_now().await;
        }
        connection.close("too_slow");
        connection.close("again");
        let (read, written) = within(async { tokio::join!(reading, writing) }).await;
        assert_eq!(kind(read.unwrap()), io::ErrorKind::ConnectionAborted);
        assert_eq!(kind(written.unwrap()), io::ErrorKind::ConnectionAborted);
        assert_eq!(connection.closed_reason(), Some("too_slow"));
        drop(far);
    }
}
