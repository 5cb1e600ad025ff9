//! Clients that come back and resume, as those of socket.io-client do.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::sync::Semaphore;

use super::account::{Account, Balance};
use super::connection::{Connection, Event, JoinError, Joined, Session, Target};
use super::ledger::Ledger;
use super::{Error, ratio};

/// Time for one client to connect and join: socket.io-client's `timeout`.
const CONNECT_TIME: Duration = Duration::from_secs(20);
/// Time for all clients to have joined.
const PATIENCE: Duration = Duration::from_mins(2);
/// Bytes that all accounts may have.
const MOST_ACCOUNTED: u64 = 1 << 30;
/// Time without progress after which nothing more is expected.
const QUIET: Duration = Duration::from_secs(5);

/// What all clients together have seen.
pub(super) struct Tally {
    pub(super) ledger: Rc<Ledger>,
    pub(super) joined: Cell<u32>,
    pub(super) recoveries: Cell<u64>,
    pub(super) gaps: Cell<u64>,
    /// Joins that had nothing to resume: the first of each client, and all with a server that gives no ids for it.
    pub(super) fresh: Cell<u64>,
    /// Handshakes that were answered 503.
    pub(super) overloaded: Cell<u64>,
    /// Other attempts to connect that failed.
    pub(super) failed: Cell<u64>,
}

/// One client that comes back.
pub(super) struct Returning {
    target: Target,
    namespace: String,
    session: RefCell<Session>,
    account: RefCell<Account>,
    tally: Rc<Tally>,
}

/// socket.io-client's delays between attempts: 1 s doubled to 5 s, jitter 0.5.
#[derive(Default)]
pub(super) struct BackOff {
    attempts: i32,
}

// === impl Tally ===

impl Tally {
    pub(super) fn new(ledger: Rc<Ledger>) -> Rc<Self> {
        Rc::new(Self {
            ledger,
            joined: Cell::default(),
            recoveries: Cell::default(),
            gaps: Cell::default(),
            fresh: Cell::default(),
            overloaded: Cell::default(),
            failed: Cell::default(),
        })
    }

    /// Refuses options under which the accounts, a bit for each client and event, would not fit in memory.
    pub(super) fn check(clients: u32, rate: u32, seconds: u32) -> Result<(), Error> {
        let events = u64::from(rate) * u64::from(seconds);
        if u64::from(clients).saturating_mul(events) / 8 <= MOST_ACCOUNTED {
            return Ok(());
        }
        let message = format!(
            "{clients} clients with {events} events each are more than can be accounted for: take a lower `--rate`, \
             or fewer `--clients` or `--seconds`"
        );
        Err(Error::Usage(message))
    }

    /// Waits until `clients` clients have joined, at first.
    pub(super) async fn joined_at_first(&self, clients: u32) -> Result<(), Error> {
        if self.all_joined(clients).await {
            return Ok(());
        }
        let message = format!("only {} clients could join", self.joined.get());
        Err(Error::Failed(message))
    }

    /// Waits until `clients` clients have joined; false when that takes too long.
    pub(super) async fn all_joined(&self, clients: u32) -> bool {
        let started = Instant::now();
        while self.joined.get() < clients {
            if started.elapsed() > PATIENCE {
                return false;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        true
    }

    /// Waits until every client has everything, or nothing comes any more.
    pub(super) async fn settle(&self, clients: &[Rc<Returning>]) {
        let mut before = self.ledger.delivered.get();
        let mut changed = Instant::now();
        while changed.elapsed() < QUIET {
            let now = self.ledger.delivered.get();
            if now != before {
                before = now;
                changed = Instant::now();
            }
            if clients.iter().all(|client| client.is_complete()) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// Adds the accounts of all clients to a report.
    pub(super) fn report(&self, clients: &[Rc<Returning>], report: &mut Value) {
        let mut all = Balance::default();
        let mut incomplete = 0_u64;
        for client in clients {
            let balance = client.balance();
            all.add(balance);
            incomplete += u64::from(balance.missing() > 0);
        }
        report["posts_accepted"] = self.ledger.accepted().into();
        report["posts_refused"] = self.ledger.refused().into();
        report["expected"] = all.expected.into();
        report["delivered_percent"] = match all.expected {
            0 => Value::Null,
            expected => (ratio(all.got, expected) * 100.0).into(),
        };
        report["missing"] = all.missing().into();
        report["missing_without_a_gap_told"] = all.silent.into();
        report["clients_with_missing"] = incomplete.into();
        report["duplicates"] = all.duplicates.into();
        report["before_first"] = all.early.into();
        report["recoveries"] = self.recoveries.get().into();
        report["gaps_told"] = self.gaps.get().into();
        // With a server that cannot resume, clients only know that they were away.
        let first = clients.len() as u64;
        report["not_resumable"] = self.fresh.get().saturating_sub(first).into();
        report["handshakes"] = json!({
            "refused_503": self.overloaded.get(),
            "failed": self.failed.get(),
        });
    }

    fn refuse(&self, error: &JoinError) {
        let count = match error {
            JoinError::Status(503) => &self.overloaded,
            _ => &self.failed,
        };
        count.set(count.get() + 1);
    }
}

// === impl Returning ===

impl Returning {
    pub(super) fn new(target: &Target, namespace: &str, tally: &Rc<Tally>) -> Rc<Self> {
        Rc::new(Self {
            target: target.clone(),
            namespace: namespace.to_owned(),
            session: RefCell::default(),
            account: RefCell::default(),
            tally: Rc::clone(tally),
        })
    }

    /// Connects, and tries again until that succeeds. `turns` limits the handshakes under way.
    pub(super) async fn join(
        &self,
        turns: Option<&Semaphore>,
        mut back_off: BackOff,
    ) -> Connection {
        loop {
            let turn = match turns {
                Some(turns) => turns.acquire().await.ok(),
                None => None,
            };
            let joining =
                Connection::resume(&self.target, &self.namespace, &self.session, |event| {
                    self.take(event);
                });
            let result = match tokio::time::timeout(CONNECT_TIME, joining).await {
                Ok(result) => result,
                Err(limit) => Err(JoinError::Io(limit.into())),
            };
            drop(turn);
            match result {
                Ok((connection, joined)) => {
                    self.note(joined);
                    return connection;
                }
                Err(error) => {
                    self.tally.refuse(&error);
                    tokio::time::sleep(back_off.next()).await;
                }
            }
        }
    }

    /// Receives until the connection ends. Cancel safe: what was read is counted.
    pub(super) async fn receive(&self, connection: &mut Connection) {
        let mut take = |event: Event<'_>| self.take(event);
        while let Ok(bytes) = connection.read(&mut take).await {
            let all = &self.tally.ledger.bytes;
            all.set(all.get() + bytes);
        }
    }

    /// Notes that the connection has ended.
    pub(super) fn leave(&self) {
        self.tally.joined.set(self.tally.joined.get() - 1);
        self.account.borrow_mut().cut();
    }

    fn take(&self, event: Event<'_>) {
        self.tally.ledger.deliver(event.number, event.at);
        self.session.borrow_mut().remember(event.offset);
        if let Some(number) = event.number {
            self.account.borrow_mut().note(number);
        }
    }

    fn note(&self, joined: Joined) {
        let tally = &self.tally;
        tally.joined.set(tally.joined.get() + 1);
        self.account.borrow_mut().back(joined == Joined::Gap);
        let count = match joined {
            Joined::Fresh => &tally.fresh,
            Joined::Recovered => &tally.recoveries,
            Joined::Gap => &tally.gaps,
        };
        count.set(count.get() + 1);
    }

    fn balance(&self) -> Balance {
        let ledger = &self.tally.ledger;
        let account = self.account.borrow();
        account.balance(ledger.numbered(), |number| ledger.is_uncertain(number))
    }

    fn is_complete(&self) -> bool {
        let ledger = &self.tally.ledger;
        let account = self.account.borrow();
        account.is_complete(ledger.numbered(), |number| ledger.is_uncertain(number))
    }
}

// === impl BackOff ===

impl BackOff {
    /// The next delay.
    pub(super) fn next(&mut self) -> Duration {
        self.delay(fastrand::f64(), fastrand::bool())
    }

    fn delay(&mut self, random: f64, longer: bool) -> Duration {
        let plain = 2_f64.powi(self.attempts);
        self.attempts = (self.attempts + 1).min(8);
        let deviation = random * 0.5 * plain;
        let seconds = if longer {
            plain + deviation
        } else {
            plain - deviation
        };
        Duration::from_secs_f64(seconds.min(5.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accounts_have_to_fit() {
        assert!(Tally::check(10_000, 10, 600).is_ok());
        assert!(Tally::check(18_000, 10_000, 600).is_err());
    }

    #[test]
    fn delays_double_up_to_five_seconds() {
        let mut back_off = BackOff::default();
        let delays: Vec<f64> = (0..5)
            .map(|_| back_off.delay(0.0, true).as_secs_f64())
            .collect();
        assert_eq!(delays, [1.0, 2.0, 4.0, 5.0, 5.0]);
        assert_eq!(
            BackOff::default().delay(1.0, false),
            Duration::from_millis(500)
        );
        assert_eq!(
            BackOff::default().delay(1.0, true),
            Duration::from_millis(1_500)
        );
    }
}
