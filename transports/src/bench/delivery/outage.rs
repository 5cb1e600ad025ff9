//! An endpoint that is down for a while, behind a buffer on disk, beside one that is well and clients that follow.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use hdrhistogram::Histogram;
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::super::connection::{Connection, Event, Target};
use super::super::ledger::{self, histogram};
use super::super::packet::Protocol;
use super::super::process::Watched;
use super::super::server::Server;
use super::super::{Error, ratio};
use super::events::{Events, Inbox};
use super::receiver::{Failure, Receiver};
use super::senders::Load;
use super::{Options, Usage, instances, milliseconds, quotient, settle};

/// Time before anything is measured.
const WARM_UP: Duration = Duration::from_secs(2);
/// Time that catching up may take, beside twice the outage's.
const LONGEST_WAIT: Duration = Duration::from_mins(2);
/// Between two looks at the server's memory.
const LOOK_AT_MEMORY: Duration = Duration::from_millis(250);
/// Where it is level, an endpoint lacks no more than what was posted in a part of a second: this one.
const LEVEL: u64 = 10;

/// Socket.IO clients that follow all events.
struct Clients {
    inboxes: Vec<Rc<Inbox>>,
    latency: Rc<RefCell<Histogram<u64>>>,
    closed: Rc<Cell<u64>>,
    /// They end when this is dropped.
    tasks: JoinSet<()>,
}

/// The latencies of a while.
struct Phase {
    name: &'static str,
    /// Those of the endpoint that is well.
    other: Histogram<u64>,
    clients: Histogram<u64>,
}

/// Runs it; the result is the report.
pub(super) async fn run(options: &Options, seconds: u32) -> Result<Value, Error> {
    let failure = options.failure.unwrap_or(Failure::Refuse);
    let names = instances(options.instances.unwrap_or(50));
    let events = Events::new(names.len());
    let (down, other) = (Inbox::new(&events), Inbox::new(&events));
    let failing = Receiver::start(&down).await?;
    let healthy = Receiver::start(&other).await?;
    let pipeline = pipeline(&failing.url(), &healthy.url());
    let server = Server::launch(options.folder()?, &pipeline, Protocol::default()).await?;
    let clients = Clients::join(&server, options.clients, &events).await?;
    let peak = Rc::new(Cell::new(0));
    let mut memory = JoinSet::new();
    memory.spawn_local(watch(server.watched(), Rc::clone(&peak)));
    let load = Load {
        server: server.address,
        path: "/webhook",
        instances: &names,
        size: options.size,
        rate: Some(options.rate()),
    };
    let senders = load.start(&events);
    let usage = Usage::start(&server)?;
    let mut phases = Vec::new();
    let mut end = |name| {
        phases.push(Phase {
            name,
            other: other.take_latency(),
            clients: clients.take_latency(),
        });
    };
    tokio::time::sleep(WARM_UP).await;
    end("warm_up");
    tokio::time::sleep(options.turn()).await;
    end("before");

    let resident_before = resident(&server)?;
    failing.set(Some(failure));
    tokio::time::sleep(Duration::from_secs(seconds.into())).await;
    end("during");
    let resident_during = resident(&server)?;
    let backlog = events.accepted().saturating_sub(down.received());

    failing.set(None);
    let up = Instant::now();
    let level = u64::from(options.rate()) / LEVEL + LEVEL;
    let is_level = || events.accepted().saturating_sub(down.received()) <= level;
    let had = down.received();
    // One that gets less than what is posted never is.
    let limit = Duration::from_secs(seconds.into()) * 2 + LONGEST_WAIT;
    let caught_up = tokio::time::timeout(limit, settle(is_level, || down.received())).await;
    let catching_up = up.elapsed().as_secs_f64();
    let caught_up = caught_up.unwrap_or(false).then_some(catching_up);
    let catch_up_rate = ratio(down.received() - had, 1) / catching_up;
    end("catching_up");
    tokio::time::sleep(options.turn()).await;
    end("after");
    senders.stop().await;
    let received = || down.received() + other.received() + clients.received();
    let has_all = || down.missing(|_| true) + other.missing(|_| true) + clients.missing() == 0;
    settle(has_all, received).await;

    let mut report = json!({
        "outage_seconds": seconds,
        "failure": failure.as_str(),
        "rate": options.rate(),
        "instances": names.len(),
        "event_bytes": options.size,
        "posted": events.posted(),
        "accepted": events.accepted(),
        "refused_attempts": events.refused(),
        "down": down.report(),
        "backlog": backlog,
        "caught_up_seconds": caught_up,
        "catch_up_per_second": catch_up_rate,
        "other": other.report(),
        "other_latency_ms": latency(&phases, |phase| &phase.other),
        "clients": clients.report(),
        "clients_latency_ms": latency(&phases, |phase| &phase.clients),
        "resident": {
            "before": resident_before,
            "end_of_outage": resident_during,
            "peak": peak.get(),
            "end": resident(&server)?,
        },
    });
    usage.report(&mut report)?;
    drop((clients, memory));
    server.close().await?;
    Ok(report)
}

/// From a webhook through a buffer on disk to an endpoint that will fail, and at once to another one and to clients. It is
/// tried for ever, and often enough that what is measured is the catching up and not the wait before it.
fn pipeline(failing: &str, healthy: &str) -> String {
    format!(
        "[sources.in]\ntype = \"webhook\"\n\
         [sinks.clients]\ntype = \"socketio\"\ninputs = [\"in\"]\npolicy = \"global\"\n\
         [sinks.failing]\ntype = \"webhook\"\ninputs = [\"in\"]\nurl = \"{failing}\"\ninstances = false\n\
         buffer = {{ type = \"disk\" }}\n\
         retry = {{ attempts = 0, initial = \"500ms\", max = \"10s\" }}\nbreaker = {{ open = \"5s\" }}\n\
         [sinks.healthy]\ntype = \"webhook\"\ninputs = [\"in\"]\nurl = \"{healthy}\"\ninstances = false\n"
    )
}

fn resident(server: &Server) -> Result<Option<u64>, Error> {
    let watched = server.watched();
    Ok(watched.as_ref().map(Watched::resident).transpose()?)
}

/// Keeps the most memory that the server had.
async fn watch(server: Option<Watched>, peak: Rc<Cell<u64>>) {
    while let Some(Ok(now)) = server.as_ref().map(Watched::resident) {
        peak.set(peak.get().max(now));
        tokio::time::sleep(LOOK_AT_MEMORY).await;
    }
}

fn latency(phases: &[Phase], of: fn(&Phase) -> &Histogram<u64>) -> Value {
    let find = |name| phases.iter().find(|phase| phase.name == name).map(of);
    let mut report = json!({});
    for name in ["before", "during", "catching_up", "after"] {
        report[name] = find(name).map(ledger::latency).into();
    }
    for (name, quantile) in [
        ("during_to_before_p50", 0.5),
        ("during_to_before_p99", 0.99),
    ] {
        let at = |phase| find(phase).map(|it| milliseconds(it, quantile));
        report[name] = quotient(at("during"), at("before")).into();
    }
    report
}

// === impl Clients ===

impl Clients {
    async fn join(server: &Server, count: u32, events: &Rc<Events>) -> Result<Self, Error> {
        let target = Target::of(server);
        let mut clients = Self {
            inboxes: Vec::new(),
            latency: Rc::new(RefCell::new(histogram())),
            closed: Rc::default(),
            tasks: JoinSet::new(),
        };
        for _ in 0..count {
            let inbox = Inbox::sharing(events, &clients.latency);
            let mine = Rc::clone(&inbox);
            let mut take =
                move |event: Event<'_>| mine.take(event.number, Instant::from_std(event.at));
            let joined = Connection::join(&target, "/", None, &mut take).await;
            let mut connection =
                joined.map_err(|error| Error::Failed(format!("a client cannot join: {error}")))?;
            let closed = Rc::clone(&clients.closed);
            clients.tasks.spawn_local(async move {
                while connection.read(&mut take).await.is_ok() {}
                closed.set(closed.get() + 1);
            });
            clients.inboxes.push(inbox);
        }
        Ok(clients)
    }

    fn take_latency(&self) -> Histogram<u64> {
        self.latency.replace(histogram())
    }

    fn sum(&self, count: impl Fn(&Inbox) -> u64) -> u64 {
        self.inboxes.iter().map(|inbox| count(inbox)).sum()
    }

    fn received(&self) -> u64 {
        self.sum(Inbox::received)
    }

    fn missing(&self) -> u64 {
        self.sum(|inbox| inbox.missing(|_| true))
    }

    fn report(&self) -> Value {
        json!({
            "count": self.inboxes.len(),
            "closed": self.closed.get(),
            "missing": self.missing(),
            "duplicates": self.sum(Inbox::duplicates),
            "out_of_order": self.sum(Inbox::disorder),
        })
    }
}
