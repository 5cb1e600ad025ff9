//! Posts events over HTTP connections that stay open.

use std::cell::Cell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::Instant;

use super::envelope::Request;
use super::http::Http;
use super::ledger::Ledger;
use super::server::Server;

/// The instance that events are of where it does not matter.
pub(super) const ANY_INSTANCE: &str = "loja1";
/// Time before a poster connects anew.
pub(super) const AGAIN: Duration = Duration::from_millis(50);

/// What is posted, and how fast.
pub(super) struct Load {
    pub(super) server: SocketAddr,
    /// Instances, one per channel of the ledger.
    pub(super) instances: Vec<String>,
    /// Bytes of an event.
    pub(super) size: usize,
    /// HTTP connections.
    pub(super) posters: u32,
    /// Events per second over all connections; `None` for as many as the ledger's window allows.
    pub(super) rate: Option<u32>,
}

/// The posters at work.
pub(super) struct Posting {
    ledger: Rc<Ledger>,
    tasks: JoinSet<()>,
}

/// Spreads events evenly over time.
pub(super) struct Pace {
    step: Option<Duration>,
    next: Cell<Instant>,
}

// === impl Load ===

impl Load {
    /// So many events of one instance each second, which is of any name where clients follow `/`.
    pub(super) fn steady(
        server: &Server,
        instance: Option<String>,
        size: u32,
        rate: u32,
        posters: u32,
    ) -> Self {
        Self {
            server: server.address,
            instances: vec![instance.unwrap_or_else(|| ANY_INSTANCE.to_owned())],
            size: size as usize,
            posters,
            rate: Some(rate),
        }
    }

    /// Starts posting.
    pub(super) fn start(&self, ledger: &Rc<Ledger>) -> Posting {
        let requests: Vec<_> = self
            .instances
            .iter()
            .map(|instance| Request::new(self.server, instance, self.size))
            .collect();
        let pace = Rc::new(Pace::new(self.rate));
        let mut tasks = JoinSet::new();
        for _ in 0..self.posters {
            let poster = post(
                self.server,
                Rc::clone(ledger),
                requests.clone(),
                Rc::clone(&pace),
            );
            tasks.spawn_local(poster);
        }
        Posting {
            ledger: Rc::clone(ledger),
            tasks,
        }
    }
}

// === impl Posting ===

impl Posting {
    /// Stops posting; returns when the last post is answered.
    pub(super) async fn stop(mut self) {
        self.ledger.stop();
        while self.tasks.join_next().await.is_some() {}
    }
}

async fn post(server: SocketAddr, ledger: Rc<Ledger>, mut requests: Vec<Request>, pace: Rc<Pace>) {
    let mut http = None;
    loop {
        pace.wait().await;
        ledger.take_turn().await;
        let mut connection = loop {
            if ledger.is_stopped() {
                return;
            }
            match http.take() {
                Some(http) => break http,
                None => http = Http::connect(server).await.ok(),
            }
            if http.is_none() {
                tokio::time::sleep(AGAIN).await;
            }
        };
        let (number, channel) = ledger.next();
        let request = requests[channel].numbered(number);
        ledger.send(number, channel);
        match connection.exchange(request).await {
            Ok(200..300) => {
                ledger.accept(channel);
                http = Some(connection);
            }
            Ok(_) => {
                ledger.refuse(number);
                http = Some(connection);
            }
            Err(_) => ledger.refuse(number),
        }
    }
}

// === impl Pace ===

impl Pace {
    fn new(rate: Option<u32>) -> Self {
        let step = rate.map(|rate| Duration::from_secs(1) / rate);
        Self::every(step, Instant::now())
    }

    /// An event for each `step`, from `first` on; without one, as soon as can be.
    pub(super) fn every(step: Option<Duration>, first: Instant) -> Self {
        Self {
            step,
            next: Cell::new(first),
        }
    }

    /// Waits for the next event's turn; returns when that was, which is earlier than now for one that was held up.
    pub(super) async fn wait(&self) -> Instant {
        let Some(step) = self.step else {
            return Instant::now();
        };
        // What was held up for long is not made up for all at once.
        let earliest = Instant::now() - Duration::from_secs(1);
        let mine = self.next.get().max(earliest);
        self.next.set(mine + step);
        if mine <= Instant::now() {
            return mine;
        }
        tokio::time::sleep_until(mine).await;
        // The timer rounds up, which holds up nothing.
        Instant::now()
    }
}
