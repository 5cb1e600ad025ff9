//! Senders of events, one for each instance.

use std::cell::Cell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::Instant;

use super::super::envelope::Request;
use super::super::http::Http;
use super::super::poster::{AGAIN, Pace};
use super::events::Events;

/// How long a post may wait for its answer once nothing more is posted: longer than the server lets it.
const LAST_ANSWER: Duration = Duration::from_secs(30);

/// What is posted, and how fast.
pub(super) struct Load<'a> {
    pub(super) server: SocketAddr,
    /// The path of the source, with its query.
    pub(super) path: &'a str,
    pub(super) instances: &'a [String],
    /// Bytes of an event.
    pub(super) size: u32,
    /// Events per second of all instances together; `None` for as many as are answered.
    pub(super) rate: Option<u32>,
}

/// Senders at work. Each posts its next event when the one before it is answered 2xx, and tries the same again until it is.
pub(super) struct Senders {
    tasks: JoinSet<()>,
    stopped: Rc<Cell<bool>>,
}

struct Sender {
    server: SocketAddr,
    index: usize,
    request: Request,
    events: Rc<Events>,
    stopped: Rc<Cell<bool>>,
}

// === impl Load ===

impl Load<'_> {
    pub(super) fn start(&self, events: &Rc<Events>) -> Senders {
        let mut senders = Senders {
            tasks: JoinSet::new(),
            stopped: Rc::default(),
        };
        let count = u32::try_from(self.instances.len()).expect("a few thousand at most");
        let step = self.rate.map(|rate| Duration::from_secs(1) / rate);
        let now = Instant::now();
        for (index, instance) in (0..count).zip(self.instances) {
            let sender = Sender {
                server: self.server,
                index: index as usize,
                request: Request::to(self.server, self.path, instance, self.size as usize),
                events: Rc::clone(events),
                stopped: Rc::clone(&senders.stopped),
            };
            let first = now + step.unwrap_or_default() * index;
            let pace = Pace::every(step.map(|step| step * count), first);
            senders.tasks.spawn_local(sender.run(pace));
        }
        senders
    }
}

// === impl Senders ===

impl Senders {
    /// Stops posting; returns when the last post is answered.
    pub(super) async fn stop(mut self) {
        self.stopped.set(true);
        let ended = async { while self.tasks.join_next().await.is_some() {} };
        // Who is not answered by then is cut off.
        tokio::time::timeout(LAST_ANSWER, ended).await.ok();
    }
}

// === impl Sender ===

impl Sender {
    async fn run(mut self, pace: Pace) {
        let mut http = None;
        loop {
            let at = pace.wait().await;
            if self.stopped.get() {
                return;
            }
            let number = self.events.send(self.index, at);
            loop {
                match self.post(&mut http, number).await {
                    Some(200..300) => break self.events.accept(number),
                    _ => self.events.refuse(),
                }
                if self.stopped.get() {
                    return;
                }
                tokio::time::sleep(AGAIN).await;
            }
        }
    }

    /// The status, if there is an answer.
    async fn post(&mut self, open: &mut Option<Http>, number: u64) -> Option<u16> {
        let mut http = match open.take() {
            Some(http) => http,
            None => Http::connect(self.server).await.ok()?,
        };
        let status = http.exchange(self.request.numbered(number)).await.ok()?;
        *open = Some(http);
        Some(status)
    }
}
