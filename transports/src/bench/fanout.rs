//! `bench fanout`: events to many clients at once.

use std::rc::Rc;
use std::time::{Duration, Instant};

use clap::value_parser;
use serde_json::{Value, json};

use super::connection::Target;
use super::crowd::Crowd;
use super::ledger::{self, Ledger};
use super::poster::{ANY_INSTANCE, Load};
use super::process::Watched;
use super::server;
use super::{Error, MOST_CLIENTS, ratio};

/// A generator that is busier than this is the limit, not the server.
const SATURATED: f64 = 0.9;

#[derive(Debug, clap::Args)]
pub(super) struct Options {
    #[command(flatten)]
    pub(super) server: server::Options,
    /// Clients to connect.
    #[arg(long, default_value_t = 1_000, value_parser = value_parser!(u32).range(1..=MOST_CLIENTS))]
    clients: u32,
    /// Events per second; without it, as many as the window allows.
    #[arg(long, value_parser = value_parser!(u32).range(1..=1_000_000))]
    rate: Option<u32>,
    /// Without a rate: events posted but not yet delivered to every client.
    #[arg(long, default_value_t = 64, value_parser = value_parser!(u32).range(1..=10_000))]
    window: u32,
    /// Bytes of an event.
    #[arg(long, default_value_t = 900, value_parser = value_parser!(u32).range(1..=1_000_000))]
    size: u32,
    /// Seconds to measure, after one second of warming up.
    #[arg(long, default_value_t = 10, value_parser = value_parser!(u32).range(1..=600))]
    seconds: u32,
    /// Spread clients and events over the instances `c0`, `c1`, ... of this number.
    #[arg(long, value_parser = value_parser!(u32).range(1..=10_000))]
    channels: Option<u32>,
    /// Seconds to let the server settle before the memory of idle clients is read.
    #[arg(long, default_value_t = 3, value_parser = value_parser!(u32).range(0..=60))]
    settle: u32,
    /// HTTP connections that post.
    #[arg(long, default_value_t = 8, value_parser = value_parser!(u32).range(1..=64))]
    posters: u32,
    /// Connect and measure the memory of idle clients, and post nothing.
    #[arg(long)]
    idle: bool,
}

/// What is read at both ends of a measurement.
struct Mark {
    at: Instant,
    delivered: u64,
    bytes: u64,
    posted: u64,
    server: Option<Duration>,
    generator: Duration,
}

/// Runs it; the result is the report.
pub(super) async fn run(options: &Options) -> Result<Value, Error> {
    let channels = options.channels()?;
    let server = options.server.open(&channels.set).await?;
    let watched = server.watched();
    let resident = || watched.as_ref().map(Watched::resident).transpose();
    let window = options.rate.is_none().then_some(options.window);
    let ledger = Rc::new(Ledger::new(&channels.followers(options.clients), window));

    let before = resident()?;
    let (crowd, connecting) = Crowd::connect(
        &Target::of(&server),
        &channels.namespaces,
        options.clients,
        options.server.handshakes,
        &ledger,
    )
    .await?;
    tokio::time::sleep(Duration::from_secs(options.settle.into())).await;
    let idle = resident()?;
    let per_client = before
        .zip(idle)
        .map(|(before, idle)| idle.saturating_sub(before) / u64::from(options.clients));
    let mut report = json!({
        "clients": options.clients,
        "channels": channels.namespaces.len(),
        "connect_seconds": connecting.as_secs_f64(),
        "connects_per_second": f64::from(options.clients) / connecting.as_secs_f64(),
        "idle_bytes_per_client": per_client,
        "idle_resident": idle,
    });

    if !options.idle {
        let load = Load {
            server: server.address,
            instances: channels.instances.clone(),
            size: options.size as usize,
            posters: options.posters,
            rate: options.rate,
        };
        let posting = load.start(&ledger);
        tokio::time::sleep(Duration::from_secs(1)).await;
        ledger.take_latency();
        let first = Mark::now(&ledger, watched.as_ref())?;
        tokio::time::sleep(Duration::from_secs(options.seconds.into())).await;
        let last = Mark::now(&ledger, watched.as_ref())?;
        let latency = ledger.take_latency();
        let loaded = resident()?;
        posting.stop().await;
        let loss = crowd.settle(&ledger, channels.namespaces.len()).await;
        report["event_bytes"] = options.size.into();
        report["rate"] = options.rate.into();
        report["window"] = window.into();
        last.since(&first, &mut report);
        report["latency_ms"] = ledger::latency(&latency);
        report["resident"] = loaded.into();
        report["posts_accepted"] = ledger.accepted().into();
        report["posts_refused"] = ledger.refused().into();
        report["lost"] = loss.events.into();
        report["lost_clients"] = loss.clients.into();
        report["surplus"] = loss.surplus.into();
        report["unknown"] = ledger.unknown.get().into();
    }
    report["closed"] = crowd.closed().into();
    drop(crowd);
    server.close().await?;
    Ok(report)
}

// === impl Mark ===

impl Mark {
    fn now(ledger: &Ledger, server: Option<&Watched>) -> Result<Self, Error> {
        Ok(Self {
            at: Instant::now(),
            delivered: ledger.delivered.get(),
            bytes: ledger.bytes.get(),
            posted: ledger.accepted(),
            server: server.map(Watched::cpu).transpose()?,
            generator: Watched::myself().cpu()?,
        })
    }

    /// Adds to the report what happened since `first`.
    fn since(&self, first: &Self, report: &mut Value) {
        let seconds = (self.at - first.at).as_secs_f64();
        let delivered = self.delivered - first.delivered;
        let posted = self.posted - first.posted;
        let cpu = self.server.zip(first.server);
        let cpu = cpu.map(|(last, first)| last.saturating_sub(first).as_secs_f64());
        let own = self.generator.saturating_sub(first.generator).as_secs_f64();
        report["seconds"] = seconds.into();
        report["events"] = posted.into();
        report["events_per_second"] = (ratio(posted, 1) / seconds).into();
        report["deliveries"] = delivered.into();
        report["deliveries_per_second"] = (ratio(delivered, 1) / seconds).into();
        report["bytes_per_delivery"] = ((self.bytes - first.bytes) / delivered.max(1)).into();
        report["server_cpu_us_per_delivery"] =
            cpu.map(|cpu| cpu * 1e6 / ratio(delivered, 1)).into();
        report["server_cpu_share"] = cpu.map(|cpu| cpu / seconds).into();
        report["generator_cpu_share"] = (own / seconds).into();
        report["generator_saturated"] = (own / seconds > SATURATED).into();
    }
}

/// Which instances there are and where their clients connect.
struct Channels {
    instances: Vec<String>,
    namespaces: Vec<String>,
    /// Instances that must be set first.
    set: Vec<String>,
}

// === impl Options ===

impl Options {
    fn channels(&self) -> Result<Channels, Error> {
        let Some(count) = self.channels else {
            return Ok(match self.server.instance() {
                Some(name) => Channels {
                    namespaces: vec![format!("/{name}")],
                    set: vec![name.clone()],
                    instances: vec![name],
                },
                None => Channels {
                    instances: vec![ANY_INSTANCE.to_owned()],
                    namespaces: vec!["/".to_owned()],
                    set: Vec::new(),
                },
            });
        };
        if self.server.instance().is_some() {
            let message = "`--channels` has namespaces of its own: leave `--namespace` out";
            return Err(Error::Usage(message.to_owned()));
        }
        if count > self.clients {
            let message = format!("{count} channels need at least as many clients");
            return Err(Error::Usage(message));
        }
        let instances: Vec<_> = (0..count).map(|index| format!("c{index}")).collect();
        Ok(Channels {
            namespaces: instances.iter().map(|name| format!("/{name}")).collect(),
            set: instances.clone(),
            instances,
        })
    }
}

// === impl Channels ===

impl Channels {
    /// How many of `clients` follow each.
    fn followers(&self, clients: u32) -> Vec<u32> {
        let count = u32::try_from(self.namespaces.len()).expect("at most 10,000");
        (0..count)
            .map(|index| clients / count + u32::from(index < clients % count))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        options: Options,
    }

    fn options(line: &str) -> Result<Options, clap::Error> {
        let arguments = ["fanout", "--engine", "socketioxide"].into_iter();
        Line::try_parse_from(arguments.chain(line.split_whitespace())).map(|line| line.options)
    }

    #[test]
    fn clients_are_spread_over_channels() {
        let options = options("--clients 7 --channels 3").unwrap();
        let channels = options.channels().unwrap();
        assert_eq!(channels.namespaces, ["/c0", "/c1", "/c2"]);
        assert_eq!(channels.followers(7), [3, 2, 2]);
    }

    #[test]
    fn a_namespace_of_its_own_is_set_first() {
        let channels = options("--namespace /loja9").unwrap().channels().unwrap();
        assert_eq!(channels.set, ["loja9"]);
        let channels = options("").unwrap().channels().unwrap();
        assert_eq!(
            (channels.namespaces, channels.set.len()),
            (vec!["/".to_owned()], 0)
        );
    }

    #[test]
    fn runs_are_bounded() {
        for bad in [
            "--clients 18501",
            "--clients 0",
            "--seconds 601",
            "--rate 0",
            "--url http://127.0.0.1:1",
            "--pid 1",
        ] {
            assert!(options(bad).is_err(), "{bad}");
        }
        for bad in ["--clients 2 --channels 3", "--channels 2 --namespace /a"] {
            assert!(options(bad).unwrap().channels().is_err(), "{bad}");
        }
    }
}
