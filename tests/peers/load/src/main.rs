//! Loads a Socket.IO server with websocket clients and measures the server process.
//!
//! Everything runs on one thread, so that the generator can be pinned to one core. Results are one JSON
//! object on standard output.

mod client;
mod frames;
mod poster;
mod process;

use std::io;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::rc::Rc;
use std::time::{Duration, Instant};

use clap::{Args, Parser, Subcommand};
use serde_json::{Value, json};

use crate::client::{Clients, Target};
use crate::poster::Load;
use crate::process::Watched;

/// Connections per process: a loopback address has about 28,000 ports for them.
const MOST_CLIENTS: u32 = 19_000;

#[derive(Parser)]
#[command(about)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Measures the memory of clients that do nothing.
    Idle {
        #[command(flatten)]
        connect: Connect,
        /// Seconds to let the server settle before its memory is read.
        #[arg(long, default_value_t = 3)]
        settle: u32,
    },
    /// Posts events and measures what is delivered.
    Deliver {
        #[command(flatten)]
        connect: Connect,
        /// Bytes of an event.
        #[arg(long, default_value_t = 900)]
        size: usize,
        /// Seconds to measure, after one second of warming up.
        #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=300))]
        seconds: u32,
        /// Events posted but not yet delivered to every client.
        #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=10_000))]
        window: u32,
        /// HTTP connections that post.
        #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=64))]
        posters: u32,
        /// Events per second; without it, as many as the window allows.
        #[arg(long, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
        rate: Option<u32>,
    },
    /// Measures the time from starting a command until its server answers `/healthz`.
    Startup {
        /// Where it will listen.
        #[arg(long)]
        server: SocketAddr,
        /// The command and its arguments.
        #[arg(last = true, required = true)]
        command: Vec<String>,
    },
}

#[derive(Args)]
struct Connect {
    /// Where the server listens.
    #[arg(long)]
    server: SocketAddr,
    /// Its process id.
    #[arg(long)]
    pid: u32,
    /// The key for the handshake.
    #[arg(long, default_value = "")]
    key: String,
    /// The namespace to join.
    #[arg(long, default_value = "/")]
    namespace: String,
    /// Clients to connect.
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=i64::from(MOST_CLIENTS)))]
    clients: u32,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime can be built");
    let local = tokio::task::LocalSet::new();
    match local.block_on(&runtime, run(cli.command)) {
        Ok(result) => {
            println!("{result}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("evows-load: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(command: Command) -> io::Result<Value> {
    process::raise_file_limit()?;
    match command {
        Command::Idle { connect, settle } => idle(&connect, settle).await,
        Command::Deliver {
            connect,
            size,
            seconds,
            window,
            posters,
            rate,
        } => {
            let load = Load {
                size,
                window,
                posters,
                rate,
            };
            deliver(&connect, &load, seconds).await
        }
        Command::Startup { server, command } => startup(server, &command).await,
    }
}

async fn idle(connect: &Connect, settle: u32) -> io::Result<Value> {
    let server = Watched::new(connect.pid);
    let before = server.resident()?;
    let (clients, seconds) = connect.clients().await?;
    tokio::time::sleep(Duration::from_secs(settle.into())).await;
    let after = server.resident()?;
    Ok(json!({
        "clients": connect.clients,
        "connect_seconds": seconds,
        "resident_before": before,
        "resident_after": after,
        "bytes_per_client": after.saturating_sub(before) / u64::from(connect.clients),
        "closed": clients.closed(),
    }))
}

async fn deliver(connect: &Connect, load: &Load, seconds: u32) -> io::Result<Value> {
    let (server, generator) = (Watched::new(connect.pid), Watched::myself());
    let (clients, _) = connect.clients().await?;
    load.start(connect.server, &clients).await?;
    tokio::time::sleep(Duration::from_secs(1)).await;

    let first = clients.delivered();
    let (first_bytes, first_posts) = (clients.bytes(), clients.posts_accepted());
    let (cpu, own_cpu) = (server.cpu()?, generator.cpu()?);
    let started = Instant::now();
    tokio::time::sleep(Duration::from_secs(seconds.into())).await;
    let elapsed = started.elapsed().as_secs_f64();
    let delivered = clients.delivered() - first;
    let bytes = clients.bytes() - first_bytes;
    let posts = clients.posts_accepted() - first_posts;
    let cpu = server.cpu()?.saturating_sub(cpu).as_secs_f64();
    let own_cpu = generator.cpu()?.saturating_sub(own_cpu).as_secs_f64();

    #[expect(clippy::cast_precision_loss, reason = "counts stay far below 2^52")]
    let count = delivered as f64;
    Ok(json!({
        "clients": connect.clients,
        "event_bytes": load.size,
        "seconds": elapsed,
        "deliveries": delivered,
        // Two checks on the count: one post reaches every client once, and a delivery has its size.
        "posts_accepted": posts,
        "bytes_per_delivery": bytes / delivered.max(1),
        "deliveries_per_second": count / elapsed,
        "server_cpu_share": cpu / elapsed,
        "server_cpu_microseconds_per_delivery": cpu * 1e6 / count,
        "generator_cpu_share": own_cpu / elapsed,
        "resident": server.resident()?,
        "closed": clients.closed(),
        "posts_refused": clients.posts_refused(),
    }))
}

async fn startup(server: SocketAddr, command: &[String]) -> io::Result<Value> {
    let (program, arguments) = command.split_first().expect("clap requires one");
    let started = Instant::now();
    let mut child = tokio::process::Command::new(program)
        .args(arguments)
        .stdin(std::process::Stdio::null())
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .kill_on_drop(true)
        .spawn()?;
    while !poster::is_healthy(server).await {
        if let Some(status) = child.try_wait()? {
            return Err(io::Error::other(format!("{program} ended with {status}")));
        }
        if started.elapsed() > Duration::from_secs(30) {
            return Err(io::Error::other(format!("{program} never answered")));
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let elapsed = started.elapsed();
    child.kill().await?;
    Ok(json!({"milliseconds": elapsed.as_secs_f64() * 1e3}))
}

// === impl Connect ===

impl Connect {
    /// Connects the clients; also how long that took, in seconds.
    async fn clients(&self) -> io::Result<(Rc<Clients>, f64)> {
        let started = Instant::now();
        let target = Target {
            server: self.server,
            key: self.key.clone(),
            namespace: self.namespace.clone(),
        };
        let clients = Clients::connect(&target, self.clients).await?;
        Ok((clients, started.elapsed().as_secs_f64()))
    }
}
