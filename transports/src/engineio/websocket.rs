//! A session on a WebSocket: one task, which shares it with whoever goes round its channels' clients.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use parking_lot::Mutex;
use pin_project_lite::pin_project;
use tokio::time::{Instant, Sleep};

use super::heart::Heart;
use super::outbox::{Outbox, Outgoing};
use super::packet::Packet;
use super::{Close, Message, Options, Session};
use crate::clients::{Client, Clients, Told};
use crate::feed::Batch;
use crate::rounds::{Driven, Driver};
use crate::ws::frame::{self, Opcode};
use crate::ws::socket::{ReadError, Socket};

/// Turns that a client has before others have theirs.
const TURNS: usize = 4;
/// Bytes of answers that may wait while more is read.
const MOST_UNANSWERED: usize = 64 * 1024;

/// A session on a WebSocket.
///
/// Here and in what it consists of, what a delivery needs comes first and stays together: most of what a delivery costs on this
/// side is waiting for memory.
#[repr(C)]
pub(crate) struct Websocket<S> {
    /// What wakes this task.
    waker: Option<Waker>,
    /// What ended it while somebody else wrote to it.
    broken: Option<Close>,
    inner: Inner<S>,
    socket: Socket,
    /// What [`Clients::orders`] was when this client looked at its own.
    orders: u64,
}

pin_project! {
    /// A WebSocket that is served. Written out, because it is most of what an idle client costs.
    pub(crate) struct Running<S> {
        shared: Arc<Shared<S>>,
        #[pin]
        sleep: Sleep,
    }
}

/// What its own task and the rounds have in common. Whoever has the lock holds it for as long as some writes take that do not wait.
struct Shared<S>(Mutex<Websocket<S>>);

/// The session, and what reading from its socket may change.
#[repr(C)]
struct Inner<S> {
    /// Of the client, which itself is not looked at for each delivery.
    clients: Arc<Clients>,
    /// Since when the peer has taken nothing, while something waits.
    stalled: Option<Instant>,
    finishing: bool,
    out: Outbox,
    session: S,
    heart: Heart,
    client: Arc<Client>,
    options: Arc<Options>,
    inbound: Inbound,
}

/// How much a client sends.
#[derive(Debug)]
struct Inbound {
    since: Instant,
    count: u32,
}

// === impl Websocket ===

impl<S: Session> Websocket<S> {
    pub(crate) fn new(
        socket: Socket,
        session: S,
        out: Outbox,
        client: Arc<Client>,
        options: Arc<Options>,
    ) -> Self {
        let inner = Inner {
            clients: Arc::clone(client.clients()),
            stalled: None,
            finishing: false,
            out,
            session,
            heart: Heart::new(&options),
            client,
            options,
            inbound: Inbound::new(),
        };
        Self {
            waker: None,
            broken: None,
            inner,
            socket,
            orders: 0,
        }
    }

    /// Serves the client until one side has had enough.
    pub(crate) fn run(self) -> Running<S> {
        let sleep = tokio::time::sleep_until(self.inner.next_time());
        let rounds = Arc::clone(&self.inner.clients.rounds);
        let shared = Arc::new(Shared(Mutex::new(self)));
        let client: Weak<Shared<S>> = Arc::downgrade(&shared);
        let driver = Driver { rounds, client };
        shared.0.lock().inner.session.seat(&driver);
        Running { shared, sleep }
    }

    /// Writes some of what waits, if the peer takes it at once; `true` when there is more. Everything else is left to its own
    /// task, which `cx` wakes.
    fn write_some(&mut self, cx: &mut Context<'_>) -> bool {
        let inner = &self.inner;
        if self.broken.is_some() || inner.stalled.is_some() || inner.finishing {
            // There it is seen whether too much waits by now, or nothing any more.
            cx.waker().wake_by_ref();
            return false;
        }
        if self.socket.is_behind() {
            // It is at the rest of what was begun, and goes on from there.
            return false;
        }
        match self.poll_write(cx) {
            Poll::Ready(Ok(())) if self.socket.is_behind() => {
                // The peer took a part.
                cx.waker().wake_by_ref();
                false
            }
            Poll::Ready(Ok(())) => {
                let session = &self.inner.session;
                if session.is_behind() && !session.is_owed() {
                    // It reads the history, which concerns it alone.
                    cx.waker().wake_by_ref();
                    return false;
                }
                session.is_behind()
            }
            Poll::Ready(Err(close)) => {
                self.broken = Some(close);
                cx.waker().wake_by_ref();
                false
            }
            Poll::Pending => {
                if self.inner.stalled.is_some() {
                    // The time for that runs there.
                    cx.waker().wake_by_ref();
                }
                false
            }
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>, mut sleep: Pin<&mut Sleep>) -> Poll<&'static str> {
        // Whatever wakes this task has its waker from the time before, unless the runtime gave it another one.
        let known = self
            .waker
            .as_ref()
            .is_some_and(|it| it.will_wake(cx.waker()));
        if !known {
            self.waker = Some(cx.waker().clone());
            self.socket.moved();
        }
        if let Some(Close(reason)) = self.broken {
            return Poll::Ready(reason);
        }
        let orders = self.inner.clients.orders();
        // Who is finishing is told so until it is gone, and each time by the waker that it gave last.
        if !known || orders != self.orders || self.inner.finishing {
            self.orders = orders;
            match self.inner.client.told(cx) {
                Some(Told::Close(reason)) => return Poll::Ready(reason),
                Some(Told::Finish) => self.inner.finishing = true,
                None => {}
            }
        }
        if (!known || sleep.is_elapsed())
            && let Err(Close(reason)) = self.on_time(cx, sleep.as_mut())
        {
            return Poll::Ready(reason);
        }
        // What has nothing more to give has told the runtime to wake this task, and is not asked again.
        let (mut reads, mut writes) = (true, true);
        for _ in 0..TURNS {
            if reads && !self.is_held() {
                match self.poll_read(cx) {
                    Poll::Ready(Ok(())) => writes = true,
                    Poll::Ready(Err(Close(reason))) => return Poll::Ready(reason),
                    Poll::Pending => reads = false,
                }
            }
            if writes {
                match self.poll_write(cx) {
                    Poll::Ready(Ok(())) => {}
                    Poll::Ready(Err(Close(reason))) => return Poll::Ready(reason),
                    Poll::Pending => writes = false,
                }
            }
            if !reads && !writes {
                break;
            }
        }
        // Nothing else makes the next time come earlier.
        if self.inner.stalled.is_some()
            && self.inner.next_time() < sleep.deadline()
            && let Err(Close(reason)) = self.on_time(cx, sleep)
        {
            return Poll::Ready(reason);
        }
        if self.inner.finishing && !self.is_owed() {
            return Poll::Ready("shutdown");
        }
        if reads && !self.is_held() || writes {
            cx.waker().wake_by_ref();
        }
        Poll::Pending
    }

    /// Does what is due, and sets the timer for what is next.
    fn on_time(&mut self, cx: &mut Context<'_>, mut sleep: Pin<&mut Sleep>) -> Result<(), Close> {
        loop {
            self.inner.on_time(Instant::now())?;
            sleep.as_mut().reset(self.inner.next_time());
            if sleep.as_mut().poll(cx).is_pending() {
                return Ok(());
            }
        }
    }

    fn is_owed(&self) -> bool {
        self.socket.is_behind() || !self.inner.out.is_empty() || self.inner.session.is_owed()
    }

    /// Whether nothing more is read until answers are taken.
    fn is_held(&self) -> bool {
        self.socket.queued() + self.inner.out.bytes() >= MOST_UNANSWERED
    }

    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Close>> {
        let inner = &mut self.inner;
        let mut outcome = Ok(());
        let mut controls = Vec::new();
        let read = self.socket.poll_read(cx, |message| {
            outcome = inner.take(message, &mut controls);
            outcome.is_ok()
        });
        for (opcode, payload) in controls {
            self.socket.queue(opcode, &payload);
        }
        outcome?;
        read.map_err(|error| match error {
            ReadError::Closed => Close("transport_close"),
            ReadError::Io(error) => lost(&error),
            ReadError::Violation(violation) => Close(violation.reason()),
        })
    }

    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Close>> {
        let inner = &mut self.inner;
        let mut batch = Batch::default();
        // With something begun, the peer's buffer was full a moment ago: whatever waits can be looked up when that is gone.
        let filled = if self.socket.is_behind() {
            Poll::Pending
        } else {
            inner.session.poll_fill(cx, &mut batch, &mut inner.out)
        };
        if let Poll::Ready(Err(close)) = filled {
            return Poll::Ready(Err(close));
        }
        if !inner.out.is_empty() {
            queue::<S>(&mut self.socket, inner.out.take());
        }
        if batch.is_empty() && !self.socket.is_behind() {
            return filled;
        }
        match self.socket.poll_write(cx, &batch) {
            Poll::Ready(Ok(count)) => {
                inner.session.passed(&batch, count);
                let delivered = batch.deliveries(count);
                inner.clients.deliveries.inc_by(delivered);
                inner.stalled = None;
                Poll::Ready(Ok(()))
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(lost(&error))),
            Poll::Pending => inner
                .stall(Instant::now())
                .map_or_else(|close| Poll::Ready(Err(close)), |()| Poll::Pending),
        }
    }
}

// === impl Running ===

impl<S: Session> Future for Running<S> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.project();
        let websocket = &mut *this.shared.0.lock();
        websocket.poll(cx, this.sleep).map(|reason| {
            // Nobody writes to it from now on.
            websocket.waker = None;
            websocket.inner.client.ended(reason);
            websocket.socket.close(close_code(reason), reason);
        })
    }
}

// === impl Shared ===

impl<S: Session> Driven for Shared<S> {
    fn drive(&self) -> bool {
        let websocket = &mut *self.0.lock();
        // Without it, its own task has not begun, or is over.
        let Some(waker) = websocket.waker.take() else {
            return false;
        };
        let cx = &mut Context::from_waker(&waker);
        // A defect that one client's events bring to light must not end the round of all.
        let more = catch_unwind(AssertUnwindSafe(|| websocket.write_some(cx)));
        let more = more.unwrap_or_else(|_| {
            tracing::error!("writing to a client panicked");
            websocket.broken = Some(Close("panic"));
            waker.wake_by_ref();
            false
        });
        websocket.waker = Some(waker);
        more
    }

    fn wake(&self) {
        if let Some(waker) = &self.0.lock().waker {
            waker.wake_by_ref();
        }
    }
}

// === impl Inner ===

impl<S: Session> Inner<S> {
    fn take(
        &mut self,
        message: frame::Message,
        controls: &mut Vec<(Opcode, Vec<u8>)>,
    ) -> Result<(), Close> {
        self.inbound.count(self.options.max_inbound_rate)?;
        match message {
            frame::Message::Text(text) if S::PLAIN => {
                self.session.message(Message::Text(&text), &mut self.out)
            }
            frame::Message::Text(text) => self.packet(&text),
            frame::Message::Binary(bytes) => {
                self.session.message(Message::Binary(bytes), &mut self.out)
            }
            frame::Message::Ping(payload) => {
                controls.push((Opcode::Pong, payload));
                Ok(())
            }
            frame::Message::Pong => {
                if S::PLAIN {
                    self.heart.pong(&self.options);
                }
                Ok(())
            }
            frame::Message::Close(_) => Err(Close("transport_close")),
        }
    }

    fn packet(&mut self, text: &str) -> Result<(), Close> {
        match Packet::parse(text) {
            Ok(Packet::Message(text)) => self.session.message(Message::Text(text), &mut self.out),
            Ok(Packet::Pong(_)) => {
                self.heart.pong(&self.options);
                Ok(())
            }
            Ok(Packet::Close) => Err(Close("transport_close")),
            Ok(Packet::Noop | Packet::Upgrade) => Ok(()),
            // In this revision only the server pings.
            Ok(Packet::Open | Packet::Ping(_)) | Err(_) => Err(Close("parse_error")),
        }
    }

    fn on_time(&mut self, now: Instant) -> Result<(), Close> {
        self.heart.beat(now, &self.options, &mut self.out)?;
        if self.session.deadline().is_some_and(|due| due <= now) {
            self.session.expired()?;
        }
        self.stall_limits(now)
    }

    /// Notes that the peer takes nothing.
    fn stall(&mut self, now: Instant) -> Result<(), Close> {
        self.stalled.get_or_insert(now);
        self.stall_limits(now)
    }

    fn stall_limits(&mut self, now: Instant) -> Result<(), Close> {
        let Some(since) = self.stalled else {
            return Ok(());
        };
        let late = now.duration_since(since) >= self.options.max_lag;
        let much = || self.session.bytes_behind() > self.options.max_lag_bytes;
        if late || self.session.is_overrun() || much() {
            self.stalled = None;
            self.session.lags(&mut self.out)?;
            if self.out.bytes() > MOST_UNANSWERED {
                // It does not even take what it is told of that.
                return Err(Close("slow"));
            }
        }
        Ok(())
    }

    /// When something is due that nobody wakes this task for.
    fn next_time(&self) -> Instant {
        let lag = self.stalled.map(|since| since + self.options.max_lag);
        let others = [lag, self.session.deadline()];
        others
            .into_iter()
            .flatten()
            .fold(self.heart.due(), Instant::min)
    }
}

// === impl Inbound ===

impl Inbound {
    fn new() -> Self {
        Self {
            since: Instant::now(),
            count: 0,
        }
    }

    fn count(&mut self, most: u32) -> Result<(), Close> {
        self.count += 1;
        if self.count <= most {
            return Ok(());
        }
        let now = Instant::now();
        if now.duration_since(self.since) < Duration::from_secs(1) {
            return Err(Close("flood"));
        }
        (self.since, self.count) = (now, 1);
        Ok(())
    }
}

/// Queues packets, each in a frame.
fn queue<S: Session>(socket: &mut Socket, packets: impl IntoIterator<Item = Outgoing>) {
    for packet in packets {
        match packet {
            Outgoing::Text(text) => socket.queue(Opcode::Text, text.as_bytes()),
            Outgoing::Ping if S::PLAIN => socket.queue(Opcode::Ping, b""),
            Outgoing::Ping => socket.queue(Opcode::Text, b"2"),
            Outgoing::Binary(bytes) => socket.queue(Opcode::Binary, &bytes),
        }
    }
}

fn lost(error: &io::Error) -> Close {
    match error.kind() {
        // The guard of the connection gave up on the peer.
        io::ErrorKind::ConnectionAborted | io::ErrorKind::TimedOut => Close("write_stalled"),
        io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => Close("transport_close"),
        _ => Close("transport_error"),
    }
}

/// The code of the close frame (RFC 6455, 7.4.1).
fn close_code(reason: &str) -> u16 {
    match reason {
        "transport_close" => 1000,
        "shutdown" => 1001,
        "invalid_frame" => 1002,
        "too_large" | "too_many_fragments" => 1009,
        "slow" | "gap" => 1013,
        _ => 1008,
    }
}
