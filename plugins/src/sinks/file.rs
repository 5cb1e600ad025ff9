//! Appends envelopes to a file, one per line.
//!
//! Each batch is one write, and a line is whole or not there: when a write fails half way (the disk is full), what was
//! written of it is cut off again before the batch is tried anew, and a last line that a crash has left unfinished is cut
//! off at start. Line breaks inside an envelope, which JSON allows between values, are written as spaces.
//!
//! A `*` in the name of the file is the day (UTC) on which a batch is written. With `rotate`, a file is put aside as
//! `<path>.<time>` once it is large enough or its time is over, which is looked at when a batch is written: a file that
//! nothing is written to stays. A file is larger than `size` only where a single batch is. `every` counts from midnight
//! UTC where it divides a day. A file that somebody else moves away or deletes is made anew.
//!
//! Only one process writes to a file: it is locked, and a second one waits until the first is gone.
//!
//! ```toml
//! [sinks.archive]
//! type = "file"
//! inputs = ["evolution"]
//! path = "archive/events-*.ndjson"
//! sync = "interval"
//!
//! [sinks.archive.rotate]
//! size = "100MiB"
//! every = "1h"
//! keep = 48
//! ```

mod log;
mod names;

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use evows_core::config::{Period, Problem, Size, SyncConfig};
use evows_core::delivery::{Delivery, Order};
use evows_core::plugin::{
    Batch, BuildContext, BuildError, Environment, Sink, SinkError, SinkPlugin,
};
use evows_core::{one_line, register_sink};
use parking_lot::Mutex as Cell;
use schemars::JsonSchema;
use serde::Deserialize;
use tokio::sync::{Mutex, Notify, oneshot};
use tokio_util::task::AbortOnDropHandle;

use self::log::Log;

/// How long written lines stay unsynced with `sync = "interval"`.
const SYNC_INTERVAL: Duration = Duration::from_millis(100);

/// Appends envelopes to a file, one per line.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// The file. A `*` in its name is the day (UTC). Folders that are missing are made.
    pub path: PathBuf,
    /// When a file is put aside and a new one begun.
    pub rotate: Rotate,
    /// When what is written is safe from a crash of the machine, too: `"always"`, before a batch counts as delivered;
    /// `"interval"`, ten times a second and at the end; `"os"`, when the system likes.
    pub sync: SyncConfig,
}

/// When a file is put aside and a new one begun: whichever limit is reached first.
#[derive(Debug, Clone, Copy, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Rotate {
    /// Size that a file has at most; without it, there is no limit.
    pub size: Option<Size>,
    /// Time that goes into one file, such as `"1h"` or `"1d"`; without it, there is no limit.
    pub every: Option<Period>,
    /// How many old files stay, those of former days included; the oldest are deleted. 0 keeps all.
    pub keep: usize,
}

/// Tells the time.
type Clock = Arc<dyn Fn() -> SystemTime + Send + Sync>;

/// The running sink.
pub struct FileSink {
    log: Arc<Mutex<Log>>,
    sync: SyncConfig,
    written: Arc<Notify>,
    syncing: Cell<Option<AbortOnDropHandle<()>>>,
}

register_sink!(
    FileSink,
    summary = "Appends envelopes to a file, one per line.",
    example = "path = \"archive/events.ndjson\"\nrotate = { size = \"100MiB\", every = \"1d\", keep = 10 }\nsync = \"interval\"\n",
);

// === impl Config ===

impl Default for Config {
    fn default() -> Self {
        Self {
            path: PathBuf::from("events.ndjson"),
            rotate: Rotate::default(),
            sync: SyncConfig::default(),
        }
    }
}

// === impl FileSink ===

impl SinkPlugin for FileSink {
    const NAME: &'static str = "file";
    type Config = Config;

    fn check(config: &Config) -> Vec<Problem> {
        let mut problems = Vec::new();
        let mut wrong = |key: &str, message: String, help: &str| {
            let problem = Problem::new("invalid", message);
            problems.push(problem.at_key(key).help(help));
        };
        let shown = config.path.display();
        let name = config.path.file_name().unwrap_or_default();
        let stars = |text: &std::ffi::OsStr| text.to_string_lossy().matches('*').count();
        if name.is_empty() {
            let message = format!("`path` is {shown:?}, which names no file");
            wrong("path", message, "such as \"archive/events.ndjson\"");
        } else if stars(config.path.as_os_str()) != stars(name) || stars(name) > 1 {
            let message =
                format!("`path` is {shown:?}: only its last part may have a `*`, and one");
            wrong("path", message, "such as \"archive/events-*.ndjson\"");
        }
        if config.rotate.size == Some(Size(0)) {
            let message = "`rotate.size` is 0: every file is larger".to_owned();
            let help = "such as \"100MiB\"; leave it out for no limit";
            wrong("rotate.size", message, help);
        }
        if config.rotate.every.is_some_and(|every| every.0.is_zero()) {
            let message = "`rotate.every` is no time at all".to_owned();
            let help = "such as \"1d\"; leave it out for no limit";
            wrong("rotate.every", message, help);
        }
        problems
    }

    fn delivery(_config: &Config, _environment: &Environment) -> Delivery {
        Delivery {
            order: Order::Strict,
            timeout: Duration::from_secs(30),
            ..Delivery::default()
        }
    }

    fn build(config: Config, _cx: &BuildContext) -> Result<Self, BuildError> {
        Ok(Self::new(&config, Arc::new(SystemTime::now)))
    }
}

#[async_trait]
impl Sink for FileSink {
    async fn start(&self) -> Result<(), SinkError> {
        self.work(Log::open).await?;
        if self.sync == SyncConfig::Interval {
            let syncing = sync_often(Arc::clone(&self.log), Arc::clone(&self.written));
            *self.syncing.lock() = Some(AbortOnDropHandle::new(tokio::spawn(syncing)));
        }
        Ok(())
    }

    async fn send(&self, batch: Batch<'_>) -> Result<(), SinkError> {
        let mut lines = Vec::new();
        for event in batch.events() {
            lines.extend_from_slice(&one_line(event.envelope()));
            lines.push(b'\n');
        }
        self.append(lines).await?;
        self.written.notify_one();
        Ok(())
    }

    async fn stop(&self) -> Result<(), SinkError> {
        self.syncing.lock().take();
        let is_synced = self.sync != SyncConfig::Os;
        self.work(move |log| log.close(is_synced)).await
    }
}

impl FileSink {
    fn new(config: &Config, clock: Clock) -> Self {
        Self {
            log: Arc::new(Mutex::new(Log::new(config, clock))),
            sync: config.sync,
            written: Arc::new(Notify::new()),
            syncing: Cell::default(),
        }
    }

    /// Appends lines. When it is dropped before it is done, they are not written, or cut off again: the batch will come once
    /// more.
    async fn append(&self, lines: Vec<u8>) -> Result<(), SinkError> {
        let mut log = Arc::clone(&self.log).lock_owned().await;
        let (done, result) = oneshot::channel();
        // The lock goes along, so that nobody writes before what was dropped is cut off.
        tokio::task::spawn_blocking(move || {
            if done.is_closed() {
                return;
            }
            let appended = log.append(&lines);
            if let Err(Ok(())) = done.send(appended) {
                log.take_back();
            }
        });
        let result = result.await;
        result
            .unwrap_or_else(|_| Err(io::Error::other("writing panicked")))
            .map_err(failed)
    }

    async fn work(
        &self,
        work: impl FnOnce(&mut Log) -> io::Result<()> + Send + 'static,
    ) -> Result<(), SinkError> {
        let mut log = Arc::clone(&self.log).lock_owned().await;
        let done = tokio::task::spawn_blocking(move || work(&mut log)).await;
        done.unwrap_or_else(|error| Err(error.into()))
            .map_err(failed)
    }
}

/// Syncs what is written a moment after it is, for as long as the sink lives.
async fn sync_often(log: Arc<Mutex<Log>>, written: Arc<Notify>) {
    loop {
        written.notified().await;
        tokio::time::sleep(SYNC_INTERVAL).await;
        let mut log = Arc::clone(&log).lock_owned().await;
        let synced = tokio::task::spawn_blocking(move || log.sync()).await;
        if let Err(error) = synced.unwrap_or_else(|error| Err(error.into())) {
            tracing::error!(%error, "what was written may not outlive a crash of the machine");
        }
    }
}

/// What core is to do about it: try again, and more slowly where no batch can be written at all.
fn failed(error: io::Error) -> SinkError {
    let message = error.to_string();
    let sink_error = match error.kind() {
        io::ErrorKind::StorageFull
        | io::ErrorKind::QuotaExceeded
        | io::ErrorKind::PermissionDenied
        | io::ErrorKind::ReadOnlyFilesystem => SinkError::overloaded(message),
        _ => SinkError::transient(message),
    };
    sink_error.caused_by(error)
}

#[cfg(test)]
mod tests;
