//! A session on long-polling: it lies between requests, and requests take turns with it.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use parking_lot::Mutex;
use tokio::time::{Instant, Sleep};

use super::heart::Heart;
use super::outbox::{Outbox, Outgoing};
use super::packet::{Malformed, Packet};
use super::payload::{Item, decode, push_binary, push_text};
use super::{Close, Message, Options, Refusal, Session, Sid};
use crate::clients::{Client, Told};
use crate::feed::Batch;
use crate::http::Slot;
use crate::ws::frame::server_frames;

/// Bytes of one answer, more or less.
const MOST_BYTES: usize = 1024 * 1024;

/// A session that began on long-polling.
pub(super) struct Polling<S> {
    pub(super) sid: Sid,
    client: Arc<Client>,
    options: Arc<Options>,
    state: Mutex<State<S>>,
}

struct State<S> {
    phase: Phase,
    /// Gone once the session has moved to a WebSocket.
    session: Option<S>,
    out: Outbox,
    heart: Heart,
    /// Whether a request waits for something to come.
    polled: bool,
    /// That request's task.
    poll: Option<Waker>,
    /// When the last one was answered.
    idle_since: Instant,
    /// The task that watches over the session.
    watch: Option<Waker>,
    _place: Slot,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Open,
    /// A WebSocket has been opened for it.
    Probed,
    /// The WebSocket has proved to work; polls are sent away.
    Upgrading,
    Upgraded,
    Closed(Last),
}

/// What a poll that waits is answered when the session is closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Last {
    /// Nothing more: the client has closed it.
    Noop,
    /// That it is closed, because the client broke the protocol.
    Close,
    /// That there is no such session. After a close packet python-socketio would stay away; after this every client comes back.
    Unknown,
}

/// Ends the session when a request is given up before it was answered: what it took is lost.
struct Answering<'a, S: Session>(Option<&'a Polling<S>>);

// === impl Polling ===

impl<S: Session> Polling<S> {
    pub(super) fn new(
        sid: Sid,
        session: S,
        client: Arc<Client>,
        options: Arc<Options>,
        place: Slot,
    ) -> Self {
        let state = State {
            phase: Phase::Open,
            session: Some(session),
            out: Outbox::default(),
            heart: Heart::new(&options),
            polled: false,
            poll: None,
            idle_since: Instant::now(),
            watch: None,
            _place: place,
        };
        Self {
            sid,
            client,
            options,
            state: Mutex::new(state),
        }
    }

    pub(super) fn client(&self) -> &Arc<Client> {
        &self.client
    }

    /// Pings, and closes the session when it is time to. Ends when the session has ended or moved on.
    pub(super) async fn watch(&self) {
        let due = self.state.lock().next_time(&self.options);
        let mut sleep = pin!(tokio::time::sleep_until(due));
        poll_fn(|cx| {
            let mut state = self.state.lock();
            state.watch = Some(cx.waker().clone());
            match state.phase {
                Phase::Closed(_) | Phase::Upgraded => return Poll::Ready(()),
                Phase::Open | Phase::Probed | Phase::Upgrading => {}
            }
            self.look(&mut state, cx, sleep.as_mut())
        })
        .await;
    }

    fn look(
        &self,
        state: &mut State<S>,
        cx: &mut Context<'_>,
        mut sleep: std::pin::Pin<&mut Sleep>,
    ) -> Poll<()> {
        // Under the lock, so that a WebSocket which takes the session over is the one that is told from then on.
        match self.client.told(cx) {
            Some(Told::Close(reason)) => return self.over(state, reason),
            Some(Told::Finish) if !state.is_owed() => return self.over(state, "shutdown"),
            _ => {}
        }
        while sleep.as_mut().poll(cx).is_ready() {
            if let Err(Close(reason)) = state.on_time(&self.options) {
                return self.over(state, reason);
            }
            sleep.as_mut().reset(state.next_time(&self.options));
        }
        Poll::Pending
    }

    fn over(&self, state: &mut State<S>, reason: &'static str) -> Poll<()> {
        self.close(state, reason, Last::Unknown);
        Poll::Ready(())
    }

    fn close(&self, state: &mut State<S>, reason: &'static str, last: Last) {
        if matches!(state.phase, Phase::Closed(_) | Phase::Upgraded) {
            return;
        }
        state.phase = Phase::Closed(last);
        // Its cursors go with it.
        state.session = None;
        state.wake();
        self.client.ended(reason);
    }

    /// Waits for what comes next, and takes it: the body of an answer, of so many packets at the most.
    pub(super) async fn poll(&self, most: usize) -> Result<Vec<u8>, Refusal> {
        {
            let mut state = self.state.lock();
            match state.phase {
                Phase::Upgraded | Phase::Closed(_) => return Err(Refusal::BadRequest),
                Phase::Open | Phase::Probed | Phase::Upgrading => {}
            }
            if state.polled {
                // Two answers would be in no order.
                self.close(&mut state, "concurrent_polls", Last::Close);
                return Err(Refusal::BadRequest);
            }
            state.polled = true;
        }
        let mut answering = Answering(Some(self));
        let body = poll_fn(|cx| {
            let mut state = self.state.lock();
            let body = match state.phase {
                Phase::Upgrading | Phase::Upgraded | Phase::Closed(Last::Noop) => {
                    Ok(Some(b"6".to_vec()))
                }
                Phase::Closed(Last::Close) => Ok(Some(b"1".to_vec())),
                Phase::Closed(Last::Unknown) => Err(Refusal::SessionUnknown),
                Phase::Open | Phase::Probed => {
                    state.take(cx, &self.client, most).map_err(|close| {
                        self.close(&mut state, close.0, Last::Unknown);
                        Refusal::SessionUnknown
                    })
                }
            };
            if let Ok(None) = body {
                state.poll = Some(cx.waker().clone());
                return Poll::Pending;
            }
            state.polled = false;
            state.poll = None;
            state.idle_since = Instant::now();
            Poll::Ready(body.map(Option::unwrap_or_default))
        })
        .await;
        answering.0 = None;
        body
    }

    /// Takes a body that the client posted.
    pub(super) fn post(&self, body: &str) -> Result<(), Refusal> {
        let mut state = self.state.lock();
        if matches!(state.phase, Phase::Upgraded | Phase::Closed(_)) {
            return Err(Refusal::BadRequest);
        }
        for item in decode(body) {
            match state.packet(item, &self.options) {
                Ok(()) => {}
                Err(Close("transport_close")) => {
                    self.close(&mut state, "transport_close", Last::Noop);
                    return Ok(());
                }
                Err(Close(reason)) => {
                    self.close(&mut state, reason, Last::Close);
                    return Err(Refusal::BadRequest);
                }
            }
        }
        if let Some(poll) = state.poll.take() {
            poll.wake();
        }
        Ok(())
    }

    /// The client broke a rule of HTTP that the session stands on.
    pub(super) fn fail(&self, reason: &'static str) {
        self.close(&mut self.state.lock(), reason, Last::Close);
    }

    /// A WebSocket was opened for the session; `false` when it has one.
    pub(super) fn probe(&self) -> bool {
        let mut state = self.state.lock();
        let open = state.phase == Phase::Open;
        if open {
            state.phase = Phase::Probed;
        }
        open
    }

    /// The WebSocket works: whoever polls is sent away, so that the client can move.
    pub(super) fn upgrade(&self) -> bool {
        let mut state = self.state.lock();
        let probed = state.phase == Phase::Probed;
        if probed {
            state.phase = Phase::Upgrading;
            state.wake();
        }
        probed
    }

    /// The WebSocket does not work after all.
    pub(super) fn stay(&self) {
        let mut state = self.state.lock();
        if matches!(state.phase, Phase::Probed | Phase::Upgrading) {
            state.phase = Phase::Open;
            state.wake();
        }
    }

    /// Whether the session has moved to a WebSocket.
    pub(super) fn is_upgraded(&self) -> bool {
        self.state.lock().phase == Phase::Upgraded
    }

    /// Hands the session over.
    pub(super) fn take(&self) -> Option<(S, Outbox)> {
        let mut state = self.state.lock();
        if state.phase != Phase::Upgrading {
            return None;
        }
        state.phase = Phase::Upgraded;
        state.wake();
        let out = std::mem::take(&mut state.out);
        state.session.take().map(|session| (session, out))
    }
}

// === impl State ===

impl<S: Session> State<S> {
    fn wake(&mut self) {
        for waker in [self.poll.take(), self.watch.take()].into_iter().flatten() {
            waker.wake();
        }
    }

    fn is_owed(&self) -> bool {
        let session = self.session.as_ref();
        !self.out.is_empty() || session.is_some_and(Session::is_owed)
    }

    /// What waits, as a body; `None`, and the task will be woken, when nothing does.
    fn take(
        &mut self,
        cx: &mut Context<'_>,
        client: &Client,
        most: usize,
    ) -> Result<Option<Vec<u8>>, Close> {
        let (mut body, mut packets) = (Vec::new(), 0);
        while body.len() < MOST_BYTES && packets < most {
            let mut batch = Batch::default();
            let Some(session) = &mut self.session else {
                break;
            };
            let filled = session.poll_fill(cx, &mut batch, &mut self.out);
            for packet in self.out.take() {
                packets += 1;
                match packet {
                    Outgoing::Text(text) => push_text(&mut body, text.as_bytes()),
                    Outgoing::Ping => push_text(&mut body, b"2"),
                    Outgoing::Binary(bytes) => push_binary(&mut body, &bytes),
                }
            }
            match filled {
                Poll::Ready(filled) => filled?,
                Poll::Pending => break,
            }
            let mut count = 0;
            for item in batch.items() {
                let bytes = item.frame().map_or(Vec::new(), |it| it.pieces().concat());
                let own = server_frames(&bytes).count();
                let full = body.len() >= MOST_BYTES || packets + own > most;
                if full && !body.is_empty() {
                    break;
                }
                count += 1;
                packets += own;
                for (is_text, payload) in server_frames(&bytes) {
                    if is_text {
                        push_text(&mut body, payload);
                    } else {
                        push_binary(&mut body, payload);
                    }
                }
            }
            session.passed(&batch, count);
            client.clients().deliveries.inc_by(batch.deliveries(count));
            if count < batch.len() {
                break;
            }
        }
        Ok(Some(body).filter(|body| !body.is_empty()))
    }

    fn packet(
        &mut self,
        item: Result<Item<'_>, Malformed>,
        options: &Options,
    ) -> Result<(), Close> {
        let Some(session) = &mut self.session else {
            return Ok(());
        };
        match item {
            Ok(Item::Packet(Packet::Message(text))) => {
                session.message(Message::Text(text), &mut self.out)
            }
            Ok(Item::Binary(bytes)) => session.message(Message::Binary(bytes), &mut self.out),
            Ok(Item::Packet(Packet::Pong(_))) => {
                self.heart.pong(options);
                Ok(())
            }
            Ok(Item::Packet(Packet::Close)) => Err(Close("transport_close")),
            Ok(Item::Packet(Packet::Noop)) => Ok(()),
            Ok(Item::Packet(Packet::Open | Packet::Ping(_) | Packet::Upgrade)) | Err(Malformed) => {
                Err(Close("parse_error"))
            }
        }?;
        if self.out.bytes() > MOST_BYTES {
            // It asks and asks, and never polls for the answers.
            return Err(Close("flood"));
        }
        Ok(())
    }

    fn on_time(&mut self, options: &Options) -> Result<(), Close> {
        let now = Instant::now();
        self.heart.beat(now, options, &mut self.out)?;
        let Some(session) = &mut self.session else {
            return Ok(());
        };
        if session.deadline().is_some_and(|due| due <= now) {
            session.expired()?;
        }
        let late = !self.polled && now.duration_since(self.idle_since) >= options.max_lag;
        let much = session.bytes_behind() > options.max_lag_bytes;
        if session.is_behind() && (late || much || session.is_overrun()) {
            session.lags(&mut self.out)?;
            self.idle_since = now;
        }
        if let Some(poll) = self.poll.take() {
            poll.wake();
        }
        Ok(())
    }

    fn next_time(&self, options: &Options) -> Instant {
        // Nobody says when a client stops polling, so it is looked for.
        let lag = Instant::now() + options.max_lag / 4;
        let deadline = self.session.as_ref().and_then(Session::deadline);
        let due = self.heart.due().min(lag);
        deadline.map_or(due, |deadline| due.min(deadline))
    }
}

// === impl Answering ===

impl<S: Session> Drop for Answering<'_, S> {
    fn drop(&mut self) {
        if let Some(polling) = self.0 {
            polling.fail("transport_close");
        }
    }
}
