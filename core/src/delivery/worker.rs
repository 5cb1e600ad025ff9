//! The task in front of one sink.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures_util::FutureExt;
use tokio_util::sync::CancellationToken;

use super::retry::{Backoff, DELIVERY, RESTART};
use crate::plugin::{FailedEvents, Sink, SinkError, SinkErrorKind};
use crate::topology::ledger::Ledger;
use crate::topology::plan::{Part, Rebuild};
use crate::topology::queue::{DEADLINE, Receiver};
use crate::topology::supervise::rebuild;
use crate::{Event, Outcome};

/// How many events a sink gets at once at most.
const BATCH: usize = 256;

/// Takes what waits in the queue, has the sink deliver it, tries again what is worth it, and settles
/// every event.
pub(crate) struct Worker {
    sink: Box<dyn Sink>,
    rebuild: Rebuild<Box<dyn Sink>>,
    queue: Receiver,
    ledger: Arc<Ledger>,
    complaints: Complaints,
}

/// What was last said of failing events, so that a sink that fails for good is not logged with every batch.
#[derive(Debug, Default)]
struct Complaints(Option<String>);

/// How one attempt went.
enum Attempt {
    Sent(Result<(), SinkError>),
    Panicked,
}

// === impl Worker ===

impl Worker {
    pub(crate) fn new(part: Part<Box<dyn Sink>>, queue: Receiver, ledger: Arc<Ledger>) -> Self {
        Self {
            sink: part.built,
            rebuild: part.rebuild,
            queue,
            ledger,
            complaints: Complaints::default(),
        }
    }

    /// Works until the queue ends. When `cut` comes first, what is left fails.
    pub(crate) async fn run(mut self, cut: CancellationToken) {
        let mut batch = Vec::with_capacity(BATCH);
        // Cutting drops the work at any await; the batch lives out here, so nothing in it is forgotten.
        let worked = cut.run_until_cancelled(self.work(&mut batch)).await;
        if worked.is_none() {
            self.end(batch.drain(..), Outcome::Failed, DEADLINE);
        }
        // The queue's receiver goes with `self` and fails what it still holds.
    }

    async fn work(&mut self, batch: &mut Vec<Event>) {
        // A sink that never starts has nothing to wait for once no event can come any more.
        let Self {
            sink,
            rebuild,
            queue,
            ledger,
            ..
        } = self;
        tokio::select! {
            () = connect(sink, rebuild, ledger, Backoff::new(RESTART)) => {}
            () = queue.exhausted() => return,
        }
        while self.queue.receive(batch, BATCH).await {
            self.deliver(batch).await;
        }
        match AssertUnwindSafe(self.sink.stop()).catch_unwind().await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                tracing::warn!(sink = self.id(), %error, "the sink did not stop cleanly");
            }
            Err(_) => tracing::error!(sink = self.id(), "the sink panicked while it stopped"),
        }
    }

    async fn connect(&mut self, backoff: Backoff) {
        connect(&mut self.sink, &mut self.rebuild, &self.ledger, backoff).await;
    }

    /// Delivers a batch, leaving it empty.
    async fn deliver(&mut self, batch: &mut Vec<Event>) {
        let mut backoff = Backoff::new(DELIVERY);
        while !batch.is_empty() {
            let error = match self.attempt(batch).await {
                Attempt::Sent(Ok(())) => {
                    self.complaints = Complaints::default();
                    self.end(batch.drain(..), Outcome::Delivered, "");
                    return;
                }
                Attempt::Sent(Err(error)) => error,
                Attempt::Panicked => {
                    tracing::error!(
                        sink = self.id(),
                        events = batch.len(),
                        "the sink panicked and is built again"
                    );
                    self.end(batch.drain(..), Outcome::Failed, "panic");
                    let mut backoff = Backoff::new(RESTART);
                    self.sink = replace(&mut self.rebuild, &self.ledger, &mut backoff).await;
                    self.connect(backoff).await;
                    return;
                }
            };
            self.keep_failed(batch, &error.failed);
            if batch.is_empty() {
                return;
            }
            let Some(wait) = backoff.after(error.kind) else {
                let reason = match error.kind {
                    SinkErrorKind::Permanent => "permanent",
                    _ => "retries_exhausted",
                };
                if self.complaints.is_new(&error) {
                    tracing::warn!(sink = self.id(), events = batch.len(), reason, %error, "events could not be delivered; this is said once until it changes");
                }
                self.end(batch.drain(..), Outcome::Failed, reason);
                return;
            };
            tracing::debug!(sink = self.id(), events = batch.len(), %error, ?wait, "trying again");
            self.ledger.retries.inc();
            tokio::time::sleep(wait).await;
            if error.kind == SinkErrorKind::Disconnected {
                self.connect(Backoff::new(RESTART)).await;
            }
        }
    }

    async fn attempt(&mut self, batch: &[Event]) -> Attempt {
        let sink = &mut self.sink;
        // The call itself may panic before it gives a future, so it belongs inside.
        let sending = AssertUnwindSafe(async move { sink.send(batch).await });
        match sending.catch_unwind().await {
            Ok(sent) => Attempt::Sent(sent),
            Err(_) => Attempt::Panicked,
        }
    }

    /// Settles the events that an error is not about.
    fn keep_failed(&self, batch: &mut Vec<Event>, failed: &FailedEvents) {
        let FailedEvents::At(indices) = failed else {
            return;
        };
        let mut kept = Vec::with_capacity(indices.len());
        let mut delivered = Vec::with_capacity(batch.len());
        for (index, event) in batch.drain(..).enumerate() {
            if indices.contains(&index) {
                kept.push(event);
            } else {
                delivered.push(event);
            }
        }
        self.end(delivered, Outcome::Delivered, "");
        *batch = kept;
    }

    fn end(&self, events: impl IntoIterator<Item = Event>, outcome: Outcome, reason: &'static str) {
        let mut ended = 0;
        for event in events {
            event.settle(outcome);
            ended += 1;
        }
        self.ledger.end(outcome, reason, ended);
    }

    fn id(&self) -> &str {
        self.ledger.component()
    }
}

// === impl Complaints ===

impl Complaints {
    /// Whether this differs from what was said last.
    fn is_new(&mut self, error: &SinkError) -> bool {
        let text = error.to_string();
        let is_new = self.0.as_ref() != Some(&text);
        self.0 = Some(text);
        is_new
    }
}

/// Starts a sink, again and again until it starts; one that panics is built again.
async fn connect(
    sink: &mut Box<dyn Sink>,
    rebuild: &mut Rebuild<Box<dyn Sink>>,
    ledger: &Ledger,
    mut backoff: Backoff,
) {
    let id = &**ledger.component();
    loop {
        match AssertUnwindSafe(sink.start()).catch_unwind().await {
            Ok(Ok(())) => return,
            Ok(Err(error)) => {
                let wait = backoff.next();
                tracing::warn!(sink = id, %error, ?wait, "the sink does not start");
                tokio::time::sleep(wait).await;
            }
            Err(_) => {
                tracing::error!(sink = id, "the sink panicked while it started");
                *sink = replace(rebuild, ledger, &mut backoff).await;
            }
        }
    }
}

async fn replace(
    again: &mut Rebuild<Box<dyn Sink>>,
    ledger: &Ledger,
    backoff: &mut Backoff,
) -> Box<dyn Sink> {
    ledger.restarts.inc();
    tokio::time::sleep(backoff.next()).await;
    rebuild(again, ledger.component(), backoff).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_failure_is_said_once() {
        let mut complaints = Complaints::default();
        let said = ["gone", "gone", "full", "gone"]
            .map(|message| complaints.is_new(&SinkError::permanent(message)));
        assert_eq!(said, [true, false, true, true]);
    }
}
