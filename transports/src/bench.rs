//! `evows bench`: loads any Socket.IO server of this machine and measures what comes of it.
//!
//! Everything runs on one thread, so that the generator has one core and the server another. Clients count frames
//! without copying them. The server is at `--url`, or is this same binary, started with `--engine`.

mod account;
mod connection;
mod crowd;
mod delivery;
mod envelope;
mod fanout;
mod frames;
mod http;
mod journal;
mod ledger;
mod packet;
mod pipeline;
mod poster;
mod process;
mod replay;
mod report;
mod restart;
mod returning;
mod server;
mod stall;
mod storm;

use std::io;
use std::time::Duration;

use clap::{Parser, Subcommand};
use evows_core::cli::{CommandPlugin, Exit, Format, complain, print};
use evows_core::register_command;
use serde_json::Value;

/// Clients per process, below the 20,000 files that a process has on common systems.
const MOST_CLIENTS: i64 = 18_500;

/// Load a Socket.IO server of this machine and measure it.
#[derive(Debug, Parser)]
#[command(name = "bench")]
struct Bench {
    #[command(subcommand)]
    scenario: Scenario,
}

register_command!(Bench);

#[derive(Debug, Subcommand)]
enum Scenario {
    /// Post events to many clients: throughput, latency, loss, CPU and memory.
    Fanout(fanout::Options),
    /// Cut clients off again and again while events come; count that each gets every event exactly once.
    Storm(storm::Options),
    /// Stop and start an evows under its clients; measure how they come back.
    Restart(restart::Options),
    /// Start with much history, and let clients read all of it.
    Replay(replay::Options),
    /// Let a few clients stop reading; measure what the others notice.
    Stall(stall::Options),
    /// Post events on to HTTP endpoints that fail, or as many as can be: order, loss, latency, memory, throughput.
    Delivery(delivery::Options),
    /// Send made-up events through filters, and post some in batches: CPU time per event.
    Pipeline(pipeline::Options),
    /// Append records to a journal on the disk: throughput, against a plain file.
    Journal(journal::Options),
}

/// Why there is no report.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("{0}")]
    Usage(String),
    #[error("{0}")]
    Failed(String),
    #[error("the system refused: {0}")]
    Io(#[from] io::Error),
}

// === impl Bench ===

impl CommandPlugin for Bench {
    fn run(self) -> io::Result<Exit> {
        process::raise_file_limit()?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let local = tokio::task::LocalSet::new();
        match local.block_on(&runtime, self.scenario.run()) {
            Ok(report) => {
                print(&match self.scenario.format() {
                    Format::Text => report::text(&report),
                    Format::Json => format!("{report}\n"),
                })?;
                Ok(Exit::Clean)
            }
            Err(error) => {
                complain(&error);
                Ok(match error {
                    Error::Usage(_) => Exit::Usage,
                    Error::Failed(_) | Error::Io(_) => Exit::Failed,
                })
            }
        }
    }
}

// === impl Scenario ===

impl Scenario {
    async fn run(&self) -> Result<Value, Error> {
        match self {
            Self::Fanout(options) => fanout::run(options).await,
            Self::Storm(options) => storm::run(options).await,
            Self::Restart(options) => restart::run(options).await,
            Self::Replay(options) => replay::run(options).await,
            Self::Stall(options) => stall::run(options).await,
            Self::Delivery(options) => delivery::run(options).await,
            Self::Journal(options) => journal::run(options).await,
            Self::Pipeline(options) => pipeline::run(options).await,
        }
    }

    fn format(&self) -> Format {
        match self {
            Self::Fanout(options) => options.server.format,
            Self::Storm(options) => options.server.format,
            Self::Restart(options) => options.server.format,
            Self::Replay(options) => options.server.format,
            Self::Stall(options) => options.server.format,
            Self::Delivery(options) => options.format,
            Self::Journal(options) => options.format,
            Self::Pipeline(options) => options.format,
        }
    }
}

/// Reads a time such as `500ms` or `15s`, of ten minutes at most.
fn period(text: &str) -> Result<Duration, String> {
    let (digits, unit) = match text.strip_suffix("ms") {
        Some(digits) => (digits, 1),
        None => (text.strip_suffix('s').unwrap_or(text), 1_000),
    };
    let count: u32 = digits
        .parse()
        .map_err(|_| "write it as `500ms` or `15s`".to_owned())?;
    let period = Duration::from_millis(u64::from(count) * unit);
    if period > Duration::from_mins(10) {
        return Err("ten minutes at most".to_owned());
    }
    Ok(period)
}

/// A quotient of counts.
#[expect(clippy::cast_precision_loss, reason = "counts stay far below 2^52")]
fn ratio(part: u64, whole: u64) -> f64 {
    part as f64 / whole as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        use clap::CommandFactory as _;
        Bench::command().debug_assert();
    }

    #[test]
    fn reads_periods() {
        assert_eq!(period("15s"), Ok(Duration::from_secs(15)));
        assert_eq!(period("2"), Ok(Duration::from_secs(2)));
        assert_eq!(period("500ms"), Ok(Duration::from_millis(500)));
        for bad in ["", "s", "-1s", "601s", "1h"] {
            assert!(period(bad).is_err(), "{bad}");
        }
    }
}
