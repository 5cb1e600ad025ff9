//! Reads events from a file, one envelope per line, and remembers how far they were taken.
//!
//! The source goes on where it stopped: a file below `server.data_dir` says up to which line every event was accepted, that
//! is delivered, filtered, or held on the disk. It is written at most four times a second, and when the source waits or
//! ends, so that after a crash some events are read twice and none is left out. Events that are not accepted (a full queue
//! shed them, a sink gave them up) are sent again, with the up to 255 around them, until they are: a sink that is to give
//! up for good has a `dead_letter` file, or is `required = false`.
//!
//! With `follow`, the source waits for more at the end of the file, and for the file where there is none. When the file
//! is moved away and a new one is there (rotation), the old one is read to its end first, then those put aside since, then
//! the new one; such files have the name of the file followed by `.` or `-` and a number or a time. When it became shorter
//! it is read from its start. A last line without a line break is taken when the file is over, not before.
//!
//! A line that is not an event, or is longer than `max_line`, is reported with its file and number, counted as
//! `evows_refusals_total{reason="bad_line"}` and skipped; empty lines are skipped silently.
//!
//! ```toml
//! [sources.feed]
//! type = "file"
//! path = "/var/spool/evolution/events.ndjson"
//! follow = true
//! ```

mod position;
mod tail;

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use evows_core::config::{Problem, Size};
use evows_core::metrics::Metrics;
use evows_core::plugin::{BuildContext, BuildError, Source, SourceError, SourcePlugin};
use evows_core::topology::Outlet;
use evows_core::{Event, Outcome, Shutdown, register_source};
use schemars::JsonSchema;
use serde::Deserialize;
use tokio::time::{Instant, sleep, timeout};

use self::position::{Position, Store};
use self::tail::{Step, Tail};

/// How often the end of the file is looked at.
const POLL: Duration = Duration::from_millis(250);
/// How often the position is written while there is more to read.
const SAVE: Duration = Duration::from_millis(250);
/// How long a stopping source waits for what it has sent.
const LAST: Duration = Duration::from_millis(800);
/// The wait before a batch that was not accepted is sent again, which then doubles.
const FIRST_WAIT: Duration = Duration::from_millis(200);
/// The longest such wait.
const LONGEST_WAIT: Duration = Duration::from_secs(30);

/// Reads events from a file, one envelope per line.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// The file that is read.
    pub path: PathBuf,
    /// Whether it waits for more at the end of the file, as `tail -F` does. Otherwise it ends there.
    pub follow: bool,
    /// Where the first run begins: `"beginning"` or `"end"` of the file. Later ones go on where the last one stopped.
    pub start: Start,
    /// The file that says how far events were accepted. Without it, `positions/<id>` below `server.data_dir`.
    pub position: Option<PathBuf>,
    /// Size of one line; longer ones are reported and skipped.
    pub max_line: Size,
}

/// Where a run begins that finds no position.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Start {
    /// With the first line that is there.
    #[default]
    Beginning,
    /// With the first line that is added.
    End,
}

/// The running source.
pub struct FileSource {
    id: Arc<str>,
    tail: Tail,
    start: Start,
    store: Store,
}

/// Sends batches, and remembers what was accepted.
struct Sender {
    id: Arc<str>,
    outlet: Outlet,
    shutdown: Shutdown,
    store: Store,
    /// Accepted, and not yet written.
    unsaved: Option<Position>,
    saved_at: Instant,
}

register_source!(
    FileSource,
    summary = "Reads events from a file, one envelope per line, and remembers how far.",
    example = "path = \"/var/spool/evolution/events.ndjson\"\nfollow = true\nstart = \"beginning\"\nmax_line = \"8MiB\"\n",
);

// === impl Config ===

impl Default for Config {
    fn default() -> Self {
        Self {
            path: PathBuf::from("events.ndjson"),
            follow: true,
            start: Start::default(),
            position: None,
            max_line: Size::mib(64),
        }
    }
}

// === impl FileSource ===

impl SourcePlugin for FileSource {
    const NAME: &'static str = "file";
    type Config = Config;

    fn check(config: &Config) -> Vec<Problem> {
        let mut problems = Vec::new();
        let mut wrong = |key: &str, message: String, help: &str| {
            let problem = Problem::new("invalid", message);
            problems.push(problem.at_key(key).help(help));
        };
        if config.path.file_name().is_none() {
            let message = format!("`path` is {:?}, which names no file", config.path.display());
            wrong("path", message, "such as \"events.ndjson\"");
        }
        if let Some(position) = &config.position
            && position.file_name().is_none()
        {
            let message = format!(
                "`position` is {:?}, which names no file",
                position.display()
            );
            let help = "leave it out to have it in `server.data_dir`";
            wrong("position", message, help);
        }
        if config.max_line == Size(0) {
            let message = "`max_line` is 0: every line is longer".to_owned();
            wrong("max_line", message, "such as \"8MiB\"");
        }
        problems
    }

    fn build(config: Config, cx: &BuildContext) -> Result<Self, BuildError> {
        let positions = || cx.server().data_dir.join("positions").join(cx.id());
        let position = config.position.clone().unwrap_or_else(positions);
        Ok(Self::new(cx.id(), cx.metrics(), &config, position))
    }
}

#[async_trait]
impl Source for FileSource {
    async fn run(self: Box<Self>, outlet: Outlet, shutdown: Shutdown) -> Result<(), SourceError> {
        let Self {
            id,
            mut tail,
            start,
            store,
        } = *self;
        let path = tail.path().to_owned();
        let failed = |error: io::Error| {
            SourceError::with_source(format!("cannot read {}: {error}", path.display()), error)
        };
        let at = store.path().display().to_string();
        let loaded = store.load().await.map_err(|error| {
            let message = format!("cannot read the position in {at}: {error}");
            SourceError::with_source(message, error)
        })?;
        let mut sender = Sender {
            id,
            outlet,
            shutdown: shutdown.clone(),
            store,
            unsaved: None,
            saved_at: Instant::now(),
        };
        let is_first = loaded
            .as_ref()
            .is_none_or(|(position, _)| position.path != path);
        if !is_first || start == Start::End {
            let begun = blocking(&mut tail, move |tail| match loaded {
                Some((position, at)) if !is_first => tail.resume(&position, at).map(|()| None),
                _ => tail.skip_to_end(),
            });
            // What is added from now on is read, however soon the process ends.
            sender.unsaved = begun.await.map_err(&failed)?;
            sender.save().await;
        }
        let read = loop {
            if shutdown.is_started() {
                break Ok(());
            }
            match blocking(&mut tail, Tail::step).await {
                Ok(Step::Lines(events, end)) => {
                    if !sender.send(events, end).await {
                        break Ok(());
                    }
                }
                Ok(Step::Wait) => {
                    sender.save().await;
                    tokio::select! {
                        () = shutdown.started() => break Ok(()),
                        () = sleep(POLL) => {}
                    }
                }
                Ok(Step::End) => break Ok(()),
                Err(error) => break Err(failed(error)),
            }
        };
        sender.save().await;
        read
    }
}

impl FileSource {
    fn new(id: &str, metrics: &Metrics, config: &Config, position: PathBuf) -> Self {
        let id: Arc<str> = id.into();
        Self {
            tail: Tail::new(Arc::clone(&id), metrics.clone(), config),
            id,
            start: config.start,
            store: Store::new(position),
        }
    }
}

// === impl Sender ===

impl Sender {
    /// Sends a batch until it is accepted; `false` when it is not and the source must stop.
    async fn send(&mut self, events: Vec<Event>, end: Position) -> bool {
        let mut wait = FIRST_WAIT;
        // It may be put aside, and this process be killed, before anything of it was accepted.
        let begins = events.is_empty();
        while !events.is_empty() {
            let Some(outcome) = self.attempt(events.clone()).await else {
                return false;
            };
            if outcome.is_accepted() {
                break;
            }
            let (outcome, line) = (outcome.as_str(), end.line);
            let source = &*self.id;
            tracing::warn!(
                source,
                before_line = line,
                outcome,
                ?wait,
                "sends events again"
            );
            self.save().await;
            tokio::select! {
                () = self.shutdown.started() => return false,
                () = sleep(wait.mul_f64(0.5 + fastrand::f64() / 2.0)) => {}
            }
            wait = (wait * 2).min(LONGEST_WAIT);
        }
        self.unsaved = Some(end);
        if begins || self.saved_at.elapsed() >= SAVE {
            self.save().await;
        }
        true
    }

    /// Sends a batch and waits for its outcome; `None` when that is not known before the source must stop.
    async fn attempt(&mut self, events: Vec<Event>) -> Option<Outcome> {
        let shutdown = self.shutdown.clone();
        let sent = async {
            let receipt = self.outlet.send_tracked(events).await;
            receipt.await
        };
        tokio::pin!(sent);
        tokio::select! {
            biased;
            outcome = &mut sent => Some(outcome),
            // What is dropped here will be read again.
            () = shutdown.started() => timeout(LAST, sent).await.ok(),
        }
    }

    async fn save(&mut self) {
        let Some(position) = self.unsaved.take() else {
            return;
        };
        if let Err(error) = self.store.save(&position).await {
            // Events may come twice; none is left out.
            let path = self.store.path().display();
            tracing::warn!(source = &*self.id, %path, %error, "cannot write the position");
            self.unsaved = Some(position);
        }
        self.saved_at = Instant::now();
    }
}

/// Works on the file off the runtime's threads.
async fn blocking<T: Send + 'static>(
    tail: &mut Tail,
    work: impl FnOnce(&mut Tail) -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    let mut taken = tail.take();
    let work = tokio::task::spawn_blocking(move || {
        let result = work(&mut taken);
        (taken, result)
    });
    let (back, result) = work.await?;
    *tail = back;
    result
}

#[cfg(test)]
mod tests;
