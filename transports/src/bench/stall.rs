//! `bench stall`: a few clients that stop reading among many that do not.

use std::cell::Cell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use clap::value_parser;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::connection::{Connection, Target};
use super::crowd::Crowd;
use super::ledger::{self, Ledger};
use super::poster::Load;
use super::process::Watched;
use super::{Error, MOST_CLIENTS, server};

/// Receive buffer of a client that will stall: so small that the server's side fills soon.
const TINY: u32 = 4096;
/// Time between two looks at the server's memory.
const LOOK: Duration = Duration::from_millis(500);
/// Time in which a stalled client that reads again learns that it was closed.
const ENDING: Duration = Duration::from_secs(2);

#[derive(Debug, clap::Args)]
pub(super) struct Options {
    #[command(flatten)]
    pub(super) server: server::Options,
    /// Clients to connect.
    #[arg(long, default_value_t = 1_000, value_parser = value_parser!(u32).range(2..=MOST_CLIENTS))]
    clients: u32,
    /// How many of them stop reading.
    #[arg(long, default_value_t = 10, value_parser = value_parser!(u32).range(1..=MOST_CLIENTS))]
    stalled: u32,
    /// Events per second.
    #[arg(long, default_value_t = 200, value_parser = value_parser!(u32).range(1..=10_000))]
    rate: u32,
    /// Bytes of an event.
    #[arg(long, default_value_t = 900, value_parser = value_parser!(u32).range(1..=1_000_000))]
    size: u32,
    /// Seconds that they do not read.
    #[arg(long, default_value_t = 60, value_parser = value_parser!(u32).range(1..=600))]
    seconds: u32,
    /// Seconds before, in which all read.
    #[arg(long, default_value_t = 10, value_parser = value_parser!(u32).range(1..=600))]
    before: u32,
}

/// What the clients that stall do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Reading,
    Stalled,
    Ending,
}

/// Runs it; the result is the report.
pub(super) async fn run(options: &Options) -> Result<Value, Error> {
    let Some(readers) = options
        .clients
        .checked_sub(options.stalled)
        .filter(|rest| *rest > 0)
    else {
        return Err(Error::Usage(
            "`--stalled` leaves no client that reads".to_owned(),
        ));
    };
    let instance = options.server.instance();
    let set: Vec<_> = instance.iter().cloned().collect();
    let server = options.server.open(&set).await?;
    let watched = server.watched();
    let target = Target::of(&server);
    let ledger = Rc::new(Ledger::new(&[readers], None));
    let namespaces = [options.server.namespace.clone()];
    let (crowd, _) = Crowd::connect(
        &target,
        &namespaces,
        readers,
        options.server.handshakes,
        &ledger,
    )
    .await?;
    let (phase, phases) = watch::channel(Phase::Reading);
    let closed = Rc::new(Cell::new(0_u64));
    let mut stalling = JoinSet::new();
    for _ in 0..options.stalled {
        let connection = Connection::join(&target, &namespaces[0], Some(TINY), |_| {}).await;
        let connection =
            connection.map_err(|error| Error::Failed(format!("a client cannot join: {error}")))?;
        stalling.spawn_local(stall(connection, phases.clone(), Rc::clone(&closed)));
    }
    let posting = Load::steady(&server, instance, options.size, options.rate, 4).start(&ledger);
    tokio::time::sleep(Duration::from_secs(1)).await;
    ledger.take_latency();
    let calm = most_resident(watched.as_ref(), options.before).await?;
    let latency_before = ledger.take_latency();
    phase.send_replace(Phase::Stalled);
    let stalled = most_resident(watched.as_ref(), options.seconds).await?;
    let latency_during = ledger.take_latency();
    posting.stop().await;
    phase.send_replace(Phase::Ending);
    let loss = crowd.settle(&ledger, 1).await;
    while stalling.join_next().await.is_some() {}

    let report = json!({
        "clients": options.clients,
        "stalled": options.stalled,
        "seconds": options.seconds,
        "rate": options.rate,
        "event_bytes": options.size,
        "latency_ms_before": ledger::latency(&latency_before),
        "latency_ms_during": ledger::latency(&latency_during),
        "resident_before": calm,
        "most_resident_during": stalled,
        "resident_growth": calm.zip(stalled).map(|(calm, stalled)| stalled.saturating_sub(calm)),
        "closed_stalled": closed.get(),
        "closed_others": crowd.closed(),
        "lost_by_others": loss.events,
        "posts_accepted": ledger.accepted(),
        "posts_refused": ledger.refused(),
    });
    drop(crowd);
    server.close().await?;
    Ok(report)
}

/// Waits some seconds; returns the most memory that the server had in them.
async fn most_resident(server: Option<&Watched>, seconds: u32) -> Result<Option<u64>, Error> {
    let until = Instant::now() + Duration::from_secs(seconds.into());
    let mut most = None;
    while Instant::now() < until {
        tokio::time::sleep(LOOK.min(until - Instant::now())).await;
        most = most.max(server.map(Watched::resident).transpose()?);
    }
    Ok(most)
}

/// One client that reads, stops reading, and in the end looks whether it was closed.
async fn stall(
    mut connection: Connection,
    mut phase: watch::Receiver<Phase>,
    closed: Rc<Cell<u64>>,
) {
    let mut ignore = |_: super::connection::Event<'_>| {};
    let mut is_open = true;
    while is_open && *phase.borrow_and_update() == Phase::Reading {
        // Both are cancel safe.
        tokio::select! {
            read = connection.read(&mut ignore) => is_open = read.is_ok(),
            changed = phase.changed() => is_open = changed.is_ok(),
        }
    }
    if phase
        .wait_for(|phase| *phase == Phase::Ending)
        .await
        .is_err()
    {
        return;
    }
    let reading = async { while connection.read(&mut ignore).await.is_ok() {} };
    let ended = tokio::time::timeout(ENDING, reading).await.is_ok();
    if !is_open || ended {
        closed.set(closed.get() + 1);
    }
}
