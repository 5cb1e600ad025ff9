//! `bench delivery`: from a webhook on to HTTP endpoints, which this process serves, too.

mod acknowledged;
mod endpoints;
mod events;
mod outage;
mod receiver;
mod senders;

use std::path::PathBuf;
use std::time::Duration;

use clap::value_parser;
use evows_core::cli::Format;
use hdrhistogram::Histogram;
use serde_json::Value;
use tempfile::TempDir;
use tokio::time::Instant;

use self::receiver::Failure;
use super::process::Watched;
use super::server::Server;
use super::{Error, ledger};

/// Between two looks at a count that is waited for.
const LOOK: Duration = Duration::from_millis(20);
/// How long nothing may arrive before what is missing is taken for lost.
const QUIET: Duration = Duration::from_mins(1);

#[derive(Debug, clap::Args)]
#[command(group = clap::ArgGroup::new("what").required(true))]
pub(super) struct Options {
    /// One endpoint is down for so many seconds, and comes back: what it gets then, and what another one notices.
    #[arg(long, group = "what", value_name = "SECONDS", value_parser = value_parser!(u32).range(1..=3_600))]
    outage: Option<u32>,
    /// So many instances have an endpoint each, of which `--dead` fail: what the others notice.
    #[arg(long, group = "what", value_name = "COUNT", value_parser = value_parser!(u32).range(2..=2_000))]
    endpoints: Option<u32>,
    /// As many posts as can be: answered when the event is delivered, against answered when it is taken.
    #[arg(long, group = "what")]
    acknowledged: bool,

    /// Endpoints that fail, with `--endpoints`.
    #[arg(long, default_value_t = 1, value_parser = value_parser!(u32).range(1..=1_000))]
    dead: u32,
    /// How an endpoint fails; without it, `refuse` with `--outage` and `silent` with `--endpoints`.
    #[arg(long, value_enum)]
    failure: Option<Failure>,
    /// Events per second; without it, 500. `--acknowledged` posts as many as can be.
    #[arg(long, conflicts_with = "acknowledged", value_parser = value_parser!(u32).range(1..=10_000))]
    rate: Option<u32>,
    /// Instances, each with a connection that posts its events one after the other; without it, 50 with `--outage` and 256
    /// with `--acknowledged`.
    #[arg(long, conflicts_with = "endpoints", value_parser = value_parser!(u32).range(1..=1_000))]
    instances: Option<u32>,
    /// Socket.IO clients that follow all events, with `--outage`.
    #[arg(long, default_value_t = 10, value_parser = value_parser!(u32).range(0..=1_000))]
    clients: u32,
    /// Bytes of an event.
    #[arg(long, default_value_t = 900, value_parser = value_parser!(u32).range(1..=1_000_000))]
    size: u32,
    /// Seconds of what is compared: before and after an outage, or of each turn.
    #[arg(long, default_value_t = 20, value_parser = value_parser!(u32).range(1..=600))]
    seconds: u32,
    /// Turns of each kind, which alternate; medians are compared. Not with `--outage`.
    #[arg(long, default_value_t = 3, value_parser = value_parser!(u32).range(1..=100))]
    turns: u32,
    /// What waits for an endpoint is on the disk (always with `--outage`) or in memory; without it, `disk` with `--endpoints`
    /// and `memory` with `--acknowledged`.
    #[arg(long, value_enum, conflicts_with = "outage")]
    buffer: Option<Buffer>,
    /// Where events go, with `--acknowledged`.
    #[arg(long, value_enum, default_value_t = acknowledged::Sink::Webhook)]
    sink: acknowledged::Sink,
    /// A folder for the server's data; the default is in the current one, not in memory as `/tmp` may be.
    #[arg(long, default_value = ".")]
    dir: PathBuf,
    /// How to report.
    #[arg(long, default_value = "text")]
    pub(super) format: Format,
}

/// Where events wait for a sink.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Buffer {
    Memory,
    Disk,
}

/// The CPU time of the server and of this process, from some time on.
struct Usage {
    server: Option<Watched>,
    since: (Instant, Option<Duration>, Duration),
}

/// Runs it; the result is the report.
pub(super) async fn run(options: &Options) -> Result<Value, Error> {
    match (options.outage, options.endpoints) {
        (Some(seconds), _) => outage::run(options, seconds).await,
        (_, Some(count)) => endpoints::run(options, count).await,
        _ => acknowledged::run(options).await,
    }
}

// === impl Options ===

impl Options {
    /// A folder for a server.
    fn folder(&self) -> Result<TempDir, Error> {
        let mut folder = tempfile::Builder::new();
        Ok(folder.prefix("bench-delivery-").tempdir_in(&self.dir)?)
    }

    fn rate(&self) -> u32 {
        self.rate.unwrap_or(500)
    }

    fn turn(&self) -> Duration {
        Duration::from_secs(self.seconds.into())
    }
}

// === impl Usage ===

impl Usage {
    fn start(server: &Server) -> Result<Self, Error> {
        let server = server.watched();
        let since = Self::now(server.as_ref())?;
        Ok(Self { server, since })
    }

    fn now(server: Option<&Watched>) -> Result<(Instant, Option<Duration>, Duration), Error> {
        let server = server.map(Watched::cpu).transpose()?;
        Ok((Instant::now(), server, Watched::myself().cpu()?))
    }

    /// Adds to a report what part of a core each had. A load that had all of one was the limit.
    fn report(&self, report: &mut Value) -> Result<(), Error> {
        let (start, server, own) = self.since;
        let (end, server_now, own_now) = Self::now(self.server.as_ref())?;
        let share = |used: Duration| used.as_secs_f64() / (end - start).as_secs_f64();
        let server = server_now
            .zip(server)
            .map(|(now, then): (Duration, _)| now.saturating_sub(then));
        report["server_cpu_share"] = server.map(share).into();
        report["generator_cpu_share"] = share(own_now.saturating_sub(own)).into();
        Ok(())
    }
}

// === impl Buffer ===

impl Buffer {
    fn as_str(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Disk => "disk",
        }
    }
}

/// A name for each of so many instances.
fn instances(count: u32) -> Vec<String> {
    (0..count).map(|index| format!("i{index}")).collect()
}

/// Waits for a condition, for as long as `progress` changes at least once a minute; returns whether it holds.
async fn settle(mut holds: impl FnMut() -> bool, progress: impl Fn() -> u64) -> bool {
    let mut seen = progress();
    let mut changed = Instant::now();
    while !holds() {
        tokio::time::sleep(LOOK).await;
        if progress() != seen {
            seen = progress();
            changed = Instant::now();
        } else if changed.elapsed() > QUIET {
            return false;
        }
    }
    true
}

/// A latency in milliseconds.
fn milliseconds(latency: &Histogram<u64>, quantile: f64) -> f64 {
    ledger::milliseconds(latency.value_at_quantile(quantile))
}

/// The middle one, or the mean of the two in the middle.
pub(super) fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let middle = values.get(values.len() / 2)?;
    let other = values.get((values.len() - 1) / 2)?;
    Some(f64::midpoint(*middle, *other))
}

/// A quotient, where there is one.
fn quotient(value: Option<f64>, by: Option<f64>) -> Option<f64> {
    let (value, by) = value.zip(by)?;
    (by > 0.0).then(|| value / by)
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

    #[test]
    fn one_thing_at_a_time_is_measured() {
        let parse = |line: &str| {
            let arguments = std::iter::once("delivery").chain(line.split_whitespace());
            Line::try_parse_from(arguments).map(|line| line.options)
        };
        assert_eq!(parse("--outage 600").unwrap().rate(), 500);
        assert_eq!(parse("--endpoints 500").unwrap().dead, 1);
        assert!(parse("--acknowledged").unwrap().acknowledged);
        for bad in [
            "",
            "--outage 5 --acknowledged",
            "--acknowledged --rate 5",
            "--endpoints 5 --instances 5",
            "--outage 5 --buffer memory",
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn medians_are_in_the_middle() {
        assert_eq!(median(vec![3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(vec![4.0, 1.0]), Some(2.5));
        assert_eq!(median(Vec::new()), None);
        assert_eq!(quotient(Some(3.0), Some(2.0)), Some(1.5));
        assert_eq!(quotient(Some(3.0), Some(0.0)), None);
    }
}
