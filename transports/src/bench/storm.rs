//! `bench storm`: clients that are cut off again and again, and resume.

use std::rc::Rc;
use std::time::Duration;

use clap::value_parser;
use serde_json::{Value, json};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

use super::connection::Target;
use super::ledger::Ledger;
use super::poster::Load;
use super::returning::{BackOff, Returning, Tally};
use super::{Error, MOST_CLIENTS, server};

#[derive(Debug, clap::Args)]
pub(super) struct Options {
    #[command(flatten)]
    pub(super) server: server::Options,
    /// Clients to connect.
    #[arg(long, default_value_t = 1_000, value_parser = value_parser!(u32).range(1..=MOST_CLIENTS))]
    clients: u32,
    /// Events per second.
    #[arg(long, default_value_t = 50, value_parser = value_parser!(u32).range(1..=10_000))]
    rate: u32,
    /// Bytes of an event.
    #[arg(long, default_value_t = 900, value_parser = value_parser!(u32).range(1..=1_000_000))]
    size: u32,
    /// Seconds in all.
    #[arg(long, default_value_t = 60, value_parser = value_parser!(u32).range(1..=600))]
    seconds: u32,
    /// Time between two cuts of one client; the clients take turns.
    #[arg(long, default_value = "15s", value_parser = super::period)]
    every: Duration,
    /// Time that a client stays away after a cut.
    #[arg(long, default_value = "2s", value_parser = super::period)]
    down: Duration,
}

/// Runs it; the result is the report.
pub(super) async fn run(options: &Options) -> Result<Value, Error> {
    if options.every.is_zero() {
        return Err(Error::Usage("`--every` needs some time".to_owned()));
    }
    Tally::check(options.clients, options.rate, options.seconds)?;
    let instance = options.server.instance();
    let set: Vec<_> = instance.iter().cloned().collect();
    let server = options.server.open(&set).await?;
    let target = Target::of(&server);
    let ledger = Rc::new(Ledger::new(&[options.clients], None));
    let tally = Tally::new(Rc::clone(&ledger));
    let clients: Vec<_> = (0..options.clients)
        .map(|_| Returning::new(&target, &options.server.namespace, &tally))
        .collect();

    // Says when the cuts begin, and when they end.
    let (storm, weather) = watch::channel(false);
    let turns = Rc::new(Semaphore::new(options.server.handshakes.into()));
    let mut tasks = JoinSet::new();
    for (index, client) in (0..).zip(&clients) {
        tasks.spawn_local(live(
            Rc::clone(client),
            Rc::clone(&turns),
            weather.clone(),
            // Staggered: each has its own moment within the time between two cuts.
            options.every * index / options.clients,
            (options.every, options.down),
        ));
    }
    tally.joined_at_first(options.clients).await?;
    // One poster, so that numbers are in order.
    let posting = Load::steady(&server, instance, options.size, options.rate, 1).start(&ledger);
    storm.send_replace(true);
    tokio::time::sleep(Duration::from_secs(options.seconds.into())).await;
    storm.send_replace(false);
    posting.stop().await;
    let all_back = tally.all_joined(options.clients).await;
    tally.settle(&clients).await;

    let mut report = json!({
        "clients": options.clients,
        "seconds": options.seconds,
        "rate": options.rate,
        "every_seconds": options.every.as_secs_f64(),
        "down_seconds": options.down.as_secs_f64(),
        "all_back": all_back,
    });
    tally.report(&clients, &mut report);
    drop(tasks);
    server.close().await?;
    Ok(report)
}

/// One client's life: it joins, is cut off at its moments while there is a storm, and comes back.
async fn live(
    client: Rc<Returning>,
    turns: Rc<Semaphore>,
    mut weather: watch::Receiver<bool>,
    first: Duration,
    (every, down): (Duration, Duration),
) {
    let mut connection = client.join(Some(&turns), BackOff::default()).await;
    let mut next = None;
    loop {
        let stormy = *weather.borrow_and_update();
        let now = tokio::time::Instant::now();
        let cut = *next.get_or_insert(now + if stormy { first } else { every });
        // All three are cancel safe.
        let lost = tokio::select! {
            () = client.receive(&mut connection) => true,
            () = tokio::time::sleep_until(cut), if stormy => true,
            changed = weather.changed() => {
                if changed.is_err() {
                    return;
                }
                next = None;
                false
            }
        };
        if lost {
            drop(connection);
            client.leave();
            tokio::time::sleep(down).await;
            connection = client.join(Some(&turns), BackOff::default()).await;
            while next.is_some_and(|next| next <= tokio::time::Instant::now()) {
                next = next.map(|next| next + every);
            }
        }
    }
}
