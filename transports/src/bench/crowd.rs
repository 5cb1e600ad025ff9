//! Clients that stay connected and count what they receive.

use std::cell::Cell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;

use super::Error;
use super::connection::{Connection, Event, JoinError, Target};
use super::ledger::Ledger;

/// Time for one client to connect and join.
const CONNECT_TIME: Duration = Duration::from_secs(30);
/// Time without a delivery after which nothing more is expected.
const QUIET: Duration = Duration::from_secs(3);

/// Clients, and what each of them has.
pub(super) struct Crowd {
    counts: Rc<Counts>,
    /// Ends the clients when dropped.
    _clients: JoinSet<()>,
}

struct Counts {
    received: Vec<Cell<u64>>,
    closed: Cell<u64>,
}

/// How the received differs from the posted in the end.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Loss {
    /// Deliveries that are missing.
    pub(super) events: u64,
    /// Clients that miss some.
    pub(super) clients: u64,
    /// Deliveries beyond what was posted.
    pub(super) surplus: u64,
}

/// One client and what it reports to.
struct Client {
    target: Target,
    namespace: String,
    index: usize,
    channel: usize,
    counts: Rc<Counts>,
    ledger: Rc<Ledger>,
}

// === impl Crowd ===

impl Crowd {
    /// Connects `count` clients, `at_once` at a time; client `i` follows namespace `i` modulo their number. Also tells
    /// how long it took until all had joined.
    pub(super) async fn connect(
        target: &Target,
        namespaces: &[String],
        count: u32,
        at_once: u16,
        ledger: &Rc<Ledger>,
    ) -> Result<(Self, Duration), Error> {
        let counts = Rc::new(Counts {
            received: (0..count).map(|_| Cell::new(0)).collect(),
            closed: Cell::new(0),
        });
        let turns = Rc::new(Semaphore::new(at_once.into()));
        // Holds one message per client at most.
        let (joined, mut joining) = mpsc::unbounded_channel();
        let mut clients = JoinSet::new();
        let started = Instant::now();
        for index in 0..count as usize {
            let channel = index % namespaces.len();
            let client = Client {
                target: target.clone(),
                namespace: namespaces[channel].clone(),
                index,
                channel,
                counts: Rc::clone(&counts),
                ledger: Rc::clone(ledger),
            };
            clients.spawn_local(client.run(Rc::clone(&turns), joined.clone()));
        }
        drop(joined);
        while let Some(result) = joining.recv().await {
            result.map_err(|error| Error::Failed(format!("a client cannot join: {error}")))?;
        }
        let crowd = Self {
            counts,
            _clients: clients,
        };
        Ok((crowd, started.elapsed()))
    }

    /// Clients that the server closed.
    pub(super) fn closed(&self) -> u64 {
        self.counts.closed.get()
    }

    /// Waits until every client has what was posted, or nothing comes any more; tells what is missing.
    pub(super) async fn settle(&self, ledger: &Ledger, channels: usize) -> Loss {
        let mut before = ledger.delivered.get();
        let mut changed = Instant::now();
        loop {
            let loss = self.loss(ledger, channels);
            let now = ledger.delivered.get();
            if now != before {
                before = now;
                changed = Instant::now();
            }
            if loss.events == 0 || changed.elapsed() > QUIET {
                return loss;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    fn loss(&self, ledger: &Ledger, channels: usize) -> Loss {
        let received = self.counts.received.iter().map(Cell::get).enumerate();
        Loss::of(received.map(|(index, received)| (ledger.accepted_of(index % channels), received)))
    }
}

// === impl Loss ===

impl Loss {
    /// Adds up pairs of posted and received.
    fn of(clients: impl Iterator<Item = (u64, u64)>) -> Self {
        clients.fold(Self::default(), |loss, (posted, received)| Self {
            events: loss.events + posted.saturating_sub(received),
            clients: loss.clients + u64::from(received < posted),
            surplus: loss.surplus + received.saturating_sub(posted),
        })
    }
}

// === impl Client ===

impl Client {
    async fn run(self, turns: Rc<Semaphore>, joined: mpsc::UnboundedSender<Result<(), JoinError>>) {
        let Self { counts, ledger, .. } = &self;
        let received = &counts.received[self.index];
        let mut events = |event: Event<'_>| {
            received.set(received.get() + 1);
            ledger.deliver(event.number, event.at);
        };
        let turn = turns.acquire().await.expect("never closed");
        let joining = Connection::join(&self.target, &self.namespace, None, &mut events);
        let result = match tokio::time::timeout(CONNECT_TIME, joining).await {
            Ok(result) => result,
            Err(limit) => Err(JoinError::Io(limit.into())),
        };
        drop(turn);
        let mut connection = match result {
            Ok(connection) => connection,
            Err(error) => {
                // Only the first error is waited for.
                joined.send(Err(error)).ok();
                return;
            }
        };
        joined.send(Ok(())).ok();
        drop(joined);
        while let Ok(bytes) = connection.read(&mut events).await {
            ledger.bytes.set(ledger.bytes.get() + bytes);
        }
        counts.closed.set(counts.closed.get() + 1);
        ledger.leave(self.channel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loss_is_counted_per_client() {
        let loss = Loss::of([(10, 10), (10, 7), (10, 12), (0, 0)].into_iter());
        let expected = Loss {
            events: 3,
            clients: 1,
            surplus: 2,
        };
        assert_eq!(loss, expected);
    }
}
