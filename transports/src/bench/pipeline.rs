//! `bench pipeline`: what filters cost.
//!
//! The same events, made up in advance, go from `generator` to `blackhole` on one core: through nothing, and through the filters
//! that are measured. CPU time is compared and not the clock's, so that what else the machine does matters less. Then events are
//! posted in batches to a webhook source in front of two filters.

use std::fs::File;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use clap::value_parser;
use evows_core::cli::Format;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::envelope;
use super::http::Http;
use super::packet::Protocol;
use super::process::{Cores, Watched};
use super::server::Server;
use super::{Error, delivery::median};

/// Between two looks at a process.
const LOOK: Duration = Duration::from_millis(2);
/// How long one run may take.
const PATIENCE: Duration = Duration::from_mins(10);
/// Events of one posted batch.
const BATCH: u64 = 200;
/// Batches under way at a time.
const POSTERS: usize = 8;

const TWO: &str = "[filters.first]\ntype = \"events\"\ninputs = [\"in\"]\ndeny = [\"call\"]\n\
    [filters.second]\ntype = \"events\"\ninputs = [\"first\"]\ndeny_instances = [\"nobody*\"]\n\
    [sinks.out]\ntype = \"blackhole\"\ninputs = [\"second\"]\n";
const THREE: &str = "[filters.first]\ntype = \"events\"\ninputs = [\"in\"]\ndeny = [\"call\"]\n\
    [filters.second]\ntype = \"where\"\ninputs = [\"first\"]\ncondition = '.data.key.remoteJid | endswith(\"@broadcast\") | not'\n\
    [filters.third]\ntype = \"throttle\"\ninputs = [\"second\"]\nrate = 1_000_000_000\n\
    [sinks.out]\ntype = \"blackhole\"\ninputs = [\"third\"]\n";

/// Programs for `map`: those that need no jq, one of which jq runs a part, and one that it runs as a whole.
const MAPS: [(&str, &str); 6] = [
    ("set", ".data.source = \"shop\""),
    (
        "slim",
        ".data |= del(.message.messageContextInfo) | .data.chat = (.data.key.remoteJid | split(\"@\")[0])",
    ),
    (
        "build",
        "{event, instance, data: {id: .data.key.id, from: .data.key.remoteJid, text: .data.message.conversation}}",
    ),
    (
        "text",
        ".data.chat = (.data.key.remoteJid | split(\"@\") | first | ascii_downcase) | del(.data.contextInfo)",
    ),
    (
        "part",
        "select(.data.key.fromMe | not) | .data.kind = (.data.message | keys | first) | del(.data.contextInfo)",
    ),
    ("whole", ".data |= with_entries(select(.value != null))"),
];

#[derive(Debug, clap::Args)]
pub(super) struct Options {
    /// Events of each run.
    #[arg(long, default_value_t = 1_000_000, value_parser = value_parser!(u32).range(1_000..))]
    events: u32,
    /// Bytes of an event, at least.
    #[arg(long, default_value_t = 1_024, value_parser = value_parser!(u32).range(..=1_000_000))]
    size: u32,
    /// Runs of each pipeline, which alternate; medians are compared.
    #[arg(long, default_value_t = 3, value_parser = value_parser!(u32).range(1..=100))]
    turns: u32,
    /// Seconds of posting.
    #[arg(long, default_value_t = 5, value_parser = value_parser!(u32).range(1..=600))]
    seconds: u32,
    /// How to report.
    #[arg(long, default_value = "text")]
    pub(super) format: Format,
}

/// One pipeline, and the CPU time of each of its runs.
struct Line {
    name: &'static str,
    pipeline: String,
    took: Vec<f64>,
}

/// Runs it; the result is the report.
pub(super) async fn run(options: &Options) -> Result<Value, Error> {
    let sink = |input: &str| format!("[sinks.out]\ntype = \"blackhole\"\ninputs = [\"{input}\"]\n");
    let mut lines = vec![
        Line::new("nothing", sink("in")),
        Line::new("two", TWO.to_owned()),
        Line::new("three", THREE.to_owned()),
    ];
    for (name, program) in MAPS {
        let map =
            format!("[filters.map]\ntype = \"map\"\ninputs = [\"in\"]\nprogram = '{program}'\n");
        lines.push(Line::new(name, map + &sink("map")));
    }
    // Start and end of a process.
    let idle = run_once(options, 1, &sink("in")).await?;
    for _ in 0..options.turns {
        for line in &mut lines {
            let took = run_once(options, options.events, &line.pipeline).await?;
            line.took.push(took.saturating_sub(idle).as_secs_f64());
        }
    }
    let events = f64::from(options.events);
    let nanos = |name: &str| {
        let line = lines.iter().find(|line| line.name == name);
        let took = line.and_then(|line| median(line.took.clone()));
        took.map(|took| took / events * 1e9)
    };
    let floor = nanos("nothing").unwrap_or_default();
    let added = |name| nanos(name).map(|nanos| (nanos - floor).round());
    let per_second = |nanos: Option<f64>| {
        let nanos = nanos.filter(|nanos| *nanos > 0.0);
        nanos.map(|nanos| (1e9 / nanos).round())
    };
    let mut maps = json!({});
    for (name, program) in MAPS {
        maps[name] = json!({
            "program": program,
            "added_ns": added(name),
            "per_second": per_second(added(name)),
        });
    }
    let posted = post(options).await?;
    Ok(json!({
        "events": options.events,
        "event_bytes_at_least": options.size,
        "turns": options.turns,
        "generator_to_blackhole_ns": floor.round(),
        "two_filters": {
            "per_second_of_one_core": per_second(nanos("two")),
            "added_ns": added("two"),
        },
        "events_where_throttle_added_ns": added("three"),
        "map": maps,
        "posted_in_batches": posted,
    }))
}

/// Runs events through a pipeline on one core, and returns the CPU time that it took.
async fn run_once(options: &Options, events: u32, pipeline: &str) -> Result<Duration, Error> {
    let folder = tempfile::tempdir()?;
    let config = format!(
        "[server]\nlisten = \"127.0.0.1:0\"\ndata_dir = \"data\"\napi_key = \"key-of-the-bench\"\n\
         [sources.in]\ntype = \"generator\"\ncount = {events}\nsize = {}\nevents = [\"messages.upsert\"]\n{pipeline}",
        options.size
    );
    std::fs::write(folder.path().join("evows.toml"), config)?;
    if let Some(cores) = Cores::find() {
        cores.be_server()?;
    }
    let log = File::create(folder.path().join("log"))?;
    let mut process = tokio::process::Command::new(std::env::current_exe()?)
        .args(["run", "-c", "evows.toml"])
        .current_dir(folder.path())
        // What is set for an evows of this machine is not meant for this one.
        .env_clear()
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .kill_on_drop(true)
        .spawn()?;
    if let Some(cores) = Cores::find() {
        cores.be_generator()?;
    }
    let watched = process.id().map(Watched::new);
    let watched = watched.ok_or_else(|| Error::Failed("the process has ended".into()))?;
    // A process that has ended is there with its times until it is waited for.
    let patience = Instant::now() + PATIENCE;
    while !watched.has_ended()? {
        if Instant::now() > patience {
            return Err(Error::Failed("a pipeline does not come to its end".into()));
        }
        tokio::time::sleep(LOOK).await;
    }
    let took = watched.cpu()?;
    let status = process.wait().await?;
    let log = log_of(folder.path());
    let delivered = format!("`out`: {events} received, {events} delivered");
    if !status.success() || !log.contains(&delivered) {
        return Err(Error::Failed(format!(
            "the pipeline did not deliver all events:\n{log}"
        )));
    }
    Ok(took)
}

fn log_of(folder: &Path) -> String {
    std::fs::read_to_string(folder.join("log")).unwrap_or_default()
}

/// Posts batches for as long as is asked for.
async fn post(options: &Options) -> Result<Value, Error> {
    let folder: TempDir = tempfile::tempdir()?;
    let pipeline = format!("[sources.in]\ntype = \"webhook\"\n{TWO}");
    let server = Server::launch(folder, &pipeline, Protocol::default()).await?;
    let watched = server.watched();
    let cpu = || watched.as_ref().map(Watched::cpu).transpose();
    let (address, size) = (server.address, options.size as usize);
    let (start, before) = (Instant::now(), cpu()?);
    let end = start + Duration::from_secs(options.seconds.into());
    let mut posters = JoinSet::new();
    for poster in 0..POSTERS {
        let instance = format!("i{poster}");
        let request = envelope::batch(address, &instance, size, 0..BATCH);
        posters.spawn_local(async move {
            let mut http = Http::connect(address).await?;
            let mut accepted = 0;
            while Instant::now() < end {
                match http.exchange(&request).await? {
                    200..300 => accepted += BATCH,
                    status => {
                        return Err(Error::Failed(format!("a batch was answered {status}")));
                    }
                }
            }
            Ok(accepted)
        });
    }
    let mut accepted = 0;
    while let Some(poster) = posters.join_next().await {
        let poster = poster.map_err(|_| Error::Failed("a poster panicked".into()))?;
        accepted += poster?;
    }
    let (took, used) = (start.elapsed().as_secs_f64(), cpu()?);
    server.close().await?;
    let used = used
        .zip(before)
        .map(|(now, then)| now.saturating_sub(then).as_secs_f64());
    let rate = |seconds: f64| (super::ratio(accepted, 1) / seconds).round();
    Ok(json!({
        "batch": BATCH,
        "connections": POSTERS,
        "accepted": accepted,
        "per_second": rate(took),
        "per_second_of_the_server_core": used.map(rate),
        "server_cpu_share": used.map(|used| used / took),
    }))
}

// === impl Line ===

impl Line {
    fn new(name: &'static str, pipeline: String) -> Self {
        Self {
            name,
            pipeline,
            took: Vec::new(),
        }
    }
}
