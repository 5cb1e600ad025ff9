//! `bench restart`: a server that stops and starts under its clients.

use std::cell::Cell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use clap::value_parser;
use rustix::process::Signal;
use serde_json::{Value, json};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::connection::Target;
use super::ledger::Ledger;
use super::poster::Load;
use super::returning::{BackOff, Returning, Tally};
use super::{Error, MOST_CLIENTS, ratio, server};

#[derive(Debug, clap::Args)]
pub(super) struct Options {
    #[command(flatten)]
    pub(super) server: server::Options,
    /// Clients to connect.
    #[arg(long, default_value_t = 1_000, value_parser = value_parser!(u32).range(1..=MOST_CLIENTS))]
    clients: u32,
    /// Events per second, before and after.
    #[arg(long, default_value_t = 10, value_parser = value_parser!(u32).range(1..=10_000))]
    rate: u32,
    /// Bytes of an event.
    #[arg(long, default_value_t = 900, value_parser = value_parser!(u32).range(1..=1_000_000))]
    size: u32,
    /// Seconds of events before the stop.
    #[arg(long, default_value_t = 3, value_parser = value_parser!(u32).range(1..=60))]
    settle: u32,
    /// Seconds from the stop after which clients that are not back count as lost.
    #[arg(long, default_value_t = 60, value_parser = value_parser!(u32).range(1..=600))]
    seconds: u32,
    /// Stop with SIGKILL instead of SIGTERM.
    #[arg(long)]
    kill: bool,
}

/// When each client was last seen joining.
type Joined = Rc<Vec<Cell<Option<Instant>>>>;

/// Runs it; the result is the report.
pub(super) async fn run(options: &Options) -> Result<Value, Error> {
    if !options.server.has_child() {
        let message = "a restart stops the server, so it must be one of `--engine`";
        return Err(Error::Usage(message.to_owned()));
    }
    let seconds = options.settle + options.seconds;
    Tally::check(options.clients, options.rate, seconds)?;
    let instance = options.server.instance();
    let set: Vec<_> = instance.iter().cloned().collect();
    let mut server = options.server.open(&set).await?;
    let target = Target::of(&server);
    let ledger = Rc::new(Ledger::new(&[options.clients], None));
    let tally = Tally::new(Rc::clone(&ledger));
    let joined: Joined = Rc::new((0..options.clients).map(|_| Cell::new(None)).collect());
    let turns = Rc::new(Semaphore::new(options.server.handshakes.into()));
    let clients: Vec<_> = (0..options.clients)
        .map(|_| Returning::new(&target, &options.server.namespace, &tally))
        .collect();
    let mut tasks = JoinSet::new();
    for (index, client) in clients.iter().enumerate() {
        let client = live(
            Rc::clone(client),
            Rc::clone(&turns),
            Rc::clone(&joined),
            index,
        );
        tasks.spawn_local(client);
    }
    tally.joined_at_first(options.clients).await?;
    // One poster, so that numbers are in order.
    let posting = Load::steady(&server, instance, options.size, options.rate, 1).start(&ledger);
    tokio::time::sleep(Duration::from_secs(options.settle.into())).await;

    let stopped = Instant::now();
    let signal = if options.kill {
        Signal::KILL
    } else {
        Signal::TERM
    };
    let folder = server.stop(signal).await?;
    let down = stopped.elapsed();
    server.start(folder).await?;
    let up = stopped.elapsed();
    let limit = Duration::from_secs(options.seconds.into());
    let back = |joined: &Joined| -> Vec<Duration> {
        let times = joined.iter().filter_map(Cell::get);
        let after = times.filter_map(|time| time.checked_duration_since(stopped));
        let mut after: Vec<_> = after.collect();
        after.sort_unstable();
        after
    };
    while back(&joined).len() < clients.len() && stopped.elapsed() < limit {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let times = back(&joined);
    posting.stop().await;
    tally.settle(&clients).await;

    let mut report = json!({
        "clients": options.clients,
        "signal": if options.kill { "SIGKILL" } else { "SIGTERM" },
        "rate": options.rate,
        "ended_after_seconds": down.as_secs_f64(),
        "healthy_after_seconds": up.as_secs_f64(),
        "back_percent": ratio(times.len() as u64, clients.len() as u64) * 100.0,
        "back_seconds": {
            "p50": quantile(&times, 50),
            "p95": quantile(&times, 95),
            "max": quantile(&times, 100),
        },
    });
    tally.report(&clients, &mut report);
    drop(tasks);
    server.close().await?;
    Ok(report)
}

/// One client's life: it joins, and comes back by itself when it is cut off.
async fn live(client: Rc<Returning>, turns: Rc<Semaphore>, joined: Joined, index: usize) {
    let mut connection = client.join(Some(&turns), BackOff::default()).await;
    // Nobody holds back real clients when a server comes up again.
    drop(turns);
    loop {
        joined[index].set(Some(Instant::now()));
        client.receive(&mut connection).await;
        drop(connection);
        client.leave();
        let mut back_off = BackOff::default();
        tokio::time::sleep(back_off.next()).await;
        connection = client.join(None, back_off).await;
    }
}

/// The time by which so many percent are back, in seconds.
fn quantile(sorted: &[Duration], percent: usize) -> Option<f64> {
    let rank = (sorted.len() * percent).div_ceil(100);
    let time = sorted.get(rank.checked_sub(1)?)?;
    Some(time.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_of_those_that_are_back() {
        let times: Vec<_> = (1..=20).map(Duration::from_secs).collect();
        let at = |percent| quantile(&times, percent);
        assert_eq!(
            (at(50), at(95), at(100)),
            (Some(10.0), Some(19.0), Some(20.0))
        );
        assert_eq!(quantile(&times[..1], 50), Some(1.0));
        assert_eq!(quantile(&[], 50), None);
    }
}
