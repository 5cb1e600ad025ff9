//! `evows bench`: loads any Socket.IO server of this machine and measures what comes of it.
//!
//! Everything runs on one thread, so that the generator has one core and the server another. Clients count frames
//! without copying them. The server is at `--url`, or is this same binary, started with `--engine`.

mod connection;
mod crowd;
mod envelope;
mod fanout;
mod frames;
mod http;
mod ledger;
mod packet;
mod poster;
mod process;
mod report;
mod server;

use std::io;

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
        }
    }

    fn format(&self) -> Format {
        match self {
            Self::Fanout(options) => options.server.format,
        }
    }
}

/// A quotient of counts.
#[expect(clippy::cast_precision_loss, reason = "counts stay far below 2^52")]
fn ratio(part: u64, whole: u64) -> f64 {
    part as f64 / whole as f64
}
