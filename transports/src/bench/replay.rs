//! `bench replay`: a server that starts with much history, and clients that read all of it.

use std::cell::{Cell, RefCell};
use std::io;
use std::path::Path;
use std::rc::Rc;
use std::time::{Duration, Instant};

use clap::value_parser;
use evows_core::config::Size;
use rustix::process::Signal;
use serde::Deserialize as _;
use serde::de::IntoDeserializer as _;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::connection::{Connection, Joined, Session, Target};
use super::http::Http;
use super::poster::ANY_INSTANCE;
use super::{Error, MOST_CLIENTS, envelope, server};

/// Events of one body.
const BATCH: u64 = 100;
/// Connections that post.
const POSTERS: usize = 4;
/// Events between two looks at the folder's size.
const LOOK: u64 = 20_000;
/// Time for a client to get another event.
const PATIENCE: Duration = Duration::from_secs(30);

#[derive(Debug, clap::Args)]
pub(super) struct Options {
    #[command(flatten)]
    pub(super) server: server::Options,
    /// What the history takes on the disk before the restart, at most 3 GiB.
    #[arg(long, default_value = "64MiB", value_parser = bytes)]
    bytes: u64,
    /// Bytes of an event. Most of them are random letters and digits, which hardly compress.
    #[arg(long, default_value_t = 1_000, value_parser = value_parser!(u32).range(1..=1_000_000))]
    size: u32,
    /// Clients that had joined before the first event, and come back after the restart.
    #[arg(long, default_value_t = 1, value_parser = value_parser!(u32).range(1..=MOST_CLIENTS))]
    clients: u32,
    /// Stop with SIGKILL instead of SIGTERM.
    #[arg(long)]
    kill: bool,
}

/// What one client got.
#[derive(Debug, Default)]
struct Got {
    events: Cell<u64>,
    wrong: Cell<u64>,
    first: Cell<Option<Instant>>,
    last: Cell<Option<Instant>>,
}

/// Runs it; the result is the report.
pub(super) async fn run(options: &Options) -> Result<Value, Error> {
    if !options.server.has_child() || !options.server.has_history() {
        let message =
            "it stops the server and reads its history: give it `--engine` and `--history`";
        return Err(Error::Usage(message.to_owned()));
    }
    let instance = options.server.instance();
    let set: Vec<_> = instance.iter().cloned().collect();
    let mut server = options.server.open(&set).await?;
    let target = Target::of(&server);
    let namespace = &options.server.namespace;
    let mut sessions = Vec::new();
    for _ in 0..options.clients {
        let session = RefCell::new(Session::default());
        let joined = Connection::resume(&target, namespace, &session, |_| {}).await;
        joined.map_err(|error| Error::Failed(format!("a client could not join: {error}")))?;
        sessions.push(session);
    }
    let instance = instance.unwrap_or_else(|| ANY_INSTANCE.to_owned());
    let filling = Instant::now();
    let events = fill(&server, &instance, options).await?;
    let filled = filling.elapsed();
    let stored = server.watched().and_then(|it| it.resident().ok());

    let signal = if options.kill {
        Signal::KILL
    } else {
        Signal::TERM
    };
    let folder = server.stop(signal).await?;
    let bytes = size_of(&folder.path().join("data/history"))?;
    let started = Instant::now();
    server.start(folder).await?;
    let ready = started.elapsed();
    let fresh = server.watched().and_then(|it| it.resident().ok());

    let asked = Instant::now();
    let got: Vec<Rc<Got>> = sessions.iter().map(|_| Rc::default()).collect();
    let mut tasks = JoinSet::new();
    for (session, got) in sessions.into_iter().zip(&got) {
        let (target, namespace) = (target.clone(), namespace.clone());
        tasks.spawn_local(read(target, namespace, session, events, Rc::clone(got)));
    }
    let mut recovered = 0;
    while let Some(done) = tasks.join_next().await {
        let done = done.map_err(io::Error::other)?;
        recovered += u32::from(done? == Joined::Recovered);
    }
    let read = server.watched().and_then(|it| it.resident().ok());
    let firsts = got.iter().filter_map(|got| got.first.get());
    let first = firsts.max().map(|at| at.duration_since(asked));
    let lasts = got.iter().filter_map(|got| got.last.get());
    let last = lasts.max().map(|at| at.duration_since(asked).as_secs_f64());
    let all: u64 = got.iter().map(|got| got.events.get()).sum();
    let wrong: u64 = got.iter().map(|got| got.wrong.get()).sum();
    server.close().await?;
    #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
    Ok(json!({
        "clients": options.clients,
        "signal": if options.kill { "SIGKILL" } else { "SIGTERM" },
        "history_bytes": bytes,
        "events": events,
        "stored_per_second": (events as f64 / filled.as_secs_f64()).round(),
        "ready_seconds": ready.as_secs_f64(),
        "first_entry_seconds": first.map(|it| it.as_secs_f64()),
        "first_entry_after_start_seconds": first.map(|it| (it + (asked - started)).as_secs_f64()),
        "recovered": recovered,
        "delivered": all,
        "missing": (events * u64::from(options.clients)).saturating_sub(all - wrong),
        "out_of_order_or_twice": wrong,
        "replayed_per_second": last.map(|it| (all as f64 / it).round()),
        "resident_bytes": {"stored": stored, "started": fresh, "replayed": read},
    }))
}

/// Posts until the history is large enough; returns how many events that were.
async fn fill(server: &server::Server, instance: &str, options: &Options) -> Result<u64, Error> {
    let folder = server.folder().join("data/history");
    let next = Rc::new(Cell::new(0));
    loop {
        let until = next.get() + LOOK;
        let mut tasks = JoinSet::new();
        for _ in 0..POSTERS {
            let (next, address) = (Rc::clone(&next), server.address);
            let (instance, size) = (instance.to_owned(), options.size as usize);
            tasks.spawn_local(async move {
                let mut http = Http::connect(address).await?;
                while next.get() < until {
                    let first = next.replace(next.get() + BATCH);
                    let request = envelope::batch(address, &instance, size, first..first + BATCH);
                    match http.exchange(&request).await? {
                        200 => {}
                        status => {
                            let error = format!("a post was answered {status}");
                            return Err(Error::Failed(error));
                        }
                    }
                }
                Ok(())
            });
        }
        while let Some(done) = tasks.join_next().await {
            done.map_err(io::Error::other)??;
        }
        if size_of(&folder)? >= options.bytes {
            return Ok(next.get());
        }
    }
}

/// One client comes back, and reads everything.
async fn read(
    target: Target,
    namespace: String,
    session: RefCell<Session>,
    events: u64,
    got: Rc<Got>,
) -> Result<Joined, Error> {
    let seen = Rc::clone(&got);
    // The bodies of several posters are stored in no order, each in its own.
    let mut next = std::collections::HashMap::new();
    let mut note = move |event: super::connection::Event<'_>| {
        let Some(number) = event.number else { return };
        let expected = next.entry(number / BATCH).or_insert(number / BATCH * BATCH);
        if number == *expected {
            *expected += 1;
        } else {
            seen.wrong.set(seen.wrong.get() + 1);
        }
        if seen.first.get().is_none() {
            seen.first.set(Some(event.at));
        }
        seen.last.set(Some(event.at));
        seen.events.set(seen.events.get() + 1);
    };
    let failed = |error| Error::Failed(format!("a client lost its connection: {error}"));
    let joined = Connection::resume(&target, &namespace, &session, &mut note).await;
    let (mut connection, joined) = joined.map_err(failed)?;
    while got.events.get() < events {
        match tokio::time::timeout(PATIENCE, connection.read(&mut note)).await {
            Ok(read) => read.map_err(failed)?,
            // What is missing is reported.
            Err(_) => break,
        };
    }
    Ok(joined)
}

/// Bytes of the files in a folder and those below.
fn size_of(folder: &Path) -> io::Result<u64> {
    let mut bytes = 0;
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        // It may be gone by now.
        let Ok(about) = entry.metadata() else {
            continue;
        };
        bytes += if about.is_dir() {
            size_of(&entry.path())?
        } else {
            // Some are made large before they are written.
            std::os::unix::fs::MetadataExt::blocks(&about) * 512
        };
    }
    Ok(bytes)
}

fn bytes(text: &str) -> Result<u64, String> {
    let text: serde::de::value::StrDeserializer<'_, serde::de::value::Error> =
        text.into_deserializer();
    let size = Size::deserialize(text).map_err(|error| format!("{error}"))?;
    if size.0 > 3 << 30 {
        return Err("at most 3GiB".to_owned());
    }
    Ok(size.0)
}
