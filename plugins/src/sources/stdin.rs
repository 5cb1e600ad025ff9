//! Reads events from standard input, one envelope per line.
//!
//! For pipes, replays and tries: `evows run < events.ndjson`. The source ends with its input. A line that is not
//! an event, or is longer than `max_line`, is reported with its number, counted as
//! `evows_refusals_total{reason="bad_line"}` and skipped; empty lines are skipped silently.
//!
//! ```toml
//! [sources.replay]
//! type = "stdin"
//! max_line = "8MiB"
//! ```

use std::io;
use std::sync::Arc;
use std::time::SystemTime;

use async_trait::async_trait;
use bytes::Bytes;
use evows_core::config::{Problem, Size};
use evows_core::metrics::Metrics;
use evows_core::plugin::{BuildContext, BuildError, Source, SourceError, SourcePlugin};
use evows_core::topology::Outlet;
use evows_core::{Event, Shutdown, register_source};
use schemars::JsonSchema;
use serde::Deserialize;
use tokio::io::{AsyncBufRead, AsyncBufReadExt, BufReader};

/// What is read from the system at once.
const CHUNK: usize = 64 * 1024;

/// Reads events from standard input, one envelope per line.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Size of one line; longer ones are reported and skipped.
    pub max_line: Size,
}

/// The running source.
pub struct Stdin {
    input: Box<dyn AsyncBufRead + Send + Unpin>,
    lines: Lines,
}

/// Puts lines together from what was read.
struct Lines {
    id: Arc<str>,
    metrics: Metrics,
    max: usize,
    /// The number of the line that is being read.
    number: u64,
    line: Vec<u8>,
    is_too_long: bool,
}

register_source!(
    Stdin,
    summary = "Reads events from standard input, one envelope per line.",
    example = "max_line = \"8MiB\"\n",
);

// === impl Config ===

impl Default for Config {
    fn default() -> Self {
        Self {
            max_line: Size::mib(64),
        }
    }
}

// === impl Stdin ===

impl SourcePlugin for Stdin {
    const NAME: &'static str = "stdin";
    type Config = Config;

    fn check(config: &Config) -> Vec<Problem> {
        if config.max_line > Size(0) {
            return Vec::new();
        }
        let problem = Problem::new("invalid", "`max_line` is 0: every line is longer");
        vec![problem.at_key("max_line").help("such as \"8MiB\"")]
    }

    fn build(config: Config, cx: &BuildContext) -> Result<Self, BuildError> {
        let input = BufReader::with_capacity(CHUNK, tokio::io::stdin());
        let lines = Lines::new(cx.id(), cx.metrics().clone(), config.max_line);
        Ok(Self {
            input: Box::new(input),
            lines,
        })
    }
}

#[async_trait]
impl Source for Stdin {
    async fn run(
        mut self: Box<Self>,
        mut outlet: Outlet,
        shutdown: Shutdown,
    ) -> Result<(), SourceError> {
        loop {
            let batch = tokio::select! {
                biased;
                () = shutdown.started() => return Ok(()),
                batch = self.read() => batch,
            };
            let batch = batch
                .map_err(|error| SourceError::with_source("cannot read standard input", error))?;
            match batch {
                None => return Ok(()),
                Some(batch) if batch.is_empty() => {}
                Some(batch) => outlet.send(batch).await,
            }
        }
    }
}

impl Stdin {
    /// Waits for input and takes the events that it completes; `None` at the end of the input.
    ///
    /// Cancel safe: it waits only as long as it has taken nothing.
    async fn read(&mut self) -> io::Result<Option<Vec<Event>>> {
        let input = self.input.fill_buf().await?;
        let now = SystemTime::now();
        let mut batch = Vec::new();
        let read = input.len();
        if read == 0 {
            batch.extend(self.lines.end(now));
            return Ok((!batch.is_empty()).then_some(batch));
        }
        for piece in input.split_inclusive(|byte| *byte == b'\n') {
            self.lines.push(piece);
            if piece.ends_with(b"\n") {
                batch.extend(self.lines.end(now));
            }
        }
        self.input.consume(read);
        Ok(Some(batch))
    }
}

// === impl Lines ===

impl Lines {
    fn new(id: &str, metrics: Metrics, max: Size) -> Self {
        Self {
            id: id.into(),
            metrics,
            max: max.bytes(),
            number: 1,
            line: Vec::new(),
            is_too_long: false,
        }
    }

    fn push(&mut self, piece: &[u8]) {
        // The line break does not count.
        let length = self.line.len() + piece.trim_ascii_end().len();
        self.is_too_long |= length > self.max;
        if self.is_too_long {
            self.line = Vec::new();
        } else {
            self.line.extend_from_slice(piece);
        }
    }

    /// Ends the line that is being read, and begins the next.
    fn end(&mut self, now: SystemTime) -> Option<Event> {
        let mut line = std::mem::take(&mut self.line);
        line.truncate(line.trim_ascii_end().len());
        let parsed = if std::mem::take(&mut self.is_too_long) {
            Err(format!("it is longer than {}", Size(self.max as u64)))
        } else if line.is_empty() {
            Ok(None)
        } else {
            let event = Event::parse(Bytes::from(line), now);
            event.map(Some).map_err(|error| error.to_string())
        };
        let number = self.number;
        self.number += 1;
        parsed.unwrap_or_else(|reason| {
            tracing::warn!(source = &*self.id, line = number, %reason, "skipped a line");
            self.metrics.refuse(&self.id, "bad_line");
            None
        })
    }
}

#[cfg(test)]
mod tests {
    use evows_core::testing;

    use super::*;

    async fn read(input: &'static str, max_line: u64) -> (Vec<String>, String) {
        let metrics = Metrics::new();
        let source = Box::new(Stdin {
            // Smaller than a line, so that lines are put together of pieces.
            input: Box::new(BufReader::with_capacity(7, input.as_bytes())),
            lines: Lines::new("in", metrics.clone(), Size(max_line)),
        });
        let (outlet, mut inlet) = testing::outlet();
        let run = tokio::spawn(source.run(outlet, Shutdown::new()));
        let mut envelopes = Vec::new();
        while let Some(event) = inlet.receive().await {
            envelopes.push(String::from_utf8_lossy(event.envelope()).into_owned());
        }
        run.await.unwrap().unwrap();
        (envelopes, metrics.encode())
    }

    #[tokio::test]
    async fn reads_lines_and_ends_with_them() {
        let input =
            "{\"event\":\"a\",\"instance\":\"i\"}\r\n\n{\"event\":\"b\",\"instance\":\"i\"}";
        let (envelopes, _) = read(input, 1000).await;
        assert_eq!(
            envelopes,
            [
                r#"{"event":"a","instance":"i"}"#,
                r#"{"event":"b","instance":"i"}"#
            ]
        );
    }

    #[tokio::test]
    async fn skips_and_counts_bad_lines() {
        let input = "no\n{\"event\":\"a\",\"instance\":\"a-name-that-is-too-long\"}\n{\"event\":\"a\",\"instance\":\"i\"}\n";
        let (envelopes, metrics) = read(input, 28).await;
        assert_eq!(envelopes, [r#"{"event":"a","instance":"i"}"#]);
        let counted = r#"evows_refusals_total{component="in",reason="bad_line"} 2"#;
        assert!(metrics.contains(counted), "{metrics}");
    }

    #[tokio::test]
    async fn stops_when_it_is_told() {
        let (held, input) = tokio::io::duplex(64);
        let source = Box::new(Stdin {
            input: Box::new(BufReader::new(input)),
            lines: Lines::new("in", Metrics::new(), Size(100)),
        });
        let (outlet, _inlet) = testing::outlet();
        let shutdown = Shutdown::new();
        let run = tokio::spawn(source.run(outlet, shutdown.clone()));
        shutdown.start();
        run.await.unwrap().unwrap();
        drop(held);
    }
}
