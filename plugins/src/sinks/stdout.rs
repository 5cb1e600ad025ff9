//! Writes envelopes to standard output, one per line.
//!
//! Each batch is one write and one flush, so a reader sees events as they come. Line breaks inside an envelope, which
//! JSON allows between values, are written as spaces. When the reader goes away (`evows run | head`), that is logged
//! once and every event from then on fails; make the sink `required = false` if the other sinks are to go on without
//! it.
//!
//! Logs go to standard error and do not mix with the events.
//!
//! ```toml
//! [sinks.print]
//! type = "stdout"
//! inputs = ["evolution"]
//! ```

use std::io;

use async_trait::async_trait;
use evows_core::delivery::Delivery;
use evows_core::plugin::{
    Batch, BuildContext, BuildError, Environment, Sink, SinkError, SinkPlugin,
};
use evows_core::{one_line, register_sink};
use schemars::JsonSchema;
use serde::Deserialize;
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::sync::Mutex;

/// Writes envelopes to standard output, one per line.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {}

/// The running sink.
pub struct Stdout(Mutex<Lines>);

struct Lines {
    output: Box<dyn AsyncWrite + Send + Unpin>,
    lines: Vec<u8>,
}

register_sink!(
    Stdout,
    summary = "Writes envelopes to standard output, one per line.",
    example = "",
);

// === impl Stdout ===

impl Stdout {
    fn new(output: impl AsyncWrite + Send + Unpin + 'static) -> Self {
        Self(Mutex::new(Lines {
            output: Box::new(output),
            lines: Vec::new(),
        }))
    }
}

// === impl Lines ===

impl Lines {
    async fn write(&mut self) -> io::Result<()> {
        self.output.write_all(&self.lines).await?;
        self.output.flush().await
    }
}

impl SinkPlugin for Stdout {
    const NAME: &'static str = "stdout";
    type Config = Config;

    fn delivery(_config: &Config, _environment: &Environment) -> Delivery {
        // A reader that takes its time holds everything up, as a pipe does.
        Delivery {
            timeout: Delivery::NO_TIMEOUT,
            ..Delivery::default()
        }
    }

    fn build(_config: Config, _cx: &BuildContext) -> Result<Self, BuildError> {
        Ok(Self::new(tokio::io::stdout()))
    }
}

#[async_trait]
impl Sink for Stdout {
    async fn send(&self, batch: Batch<'_>) -> Result<(), SinkError> {
        let mut stdout = self.0.lock().await;
        stdout.lines.clear();
        for event in batch.events() {
            stdout.lines.extend_from_slice(&one_line(event.envelope()));
            stdout.lines.push(b'\n');
        }
        // What was written cannot be taken back and a closed pipe does not open again: trying again would at best
        // print lines twice.
        let written = stdout.write().await;
        written.map_err(|error| {
            let message = match error.kind() {
                io::ErrorKind::BrokenPipe => "the reader of standard output is gone",
                _ => "cannot write to standard output",
            };
            SinkError::permanent(message).caused_by(error)
        })
    }
}

#[cfg(test)]
mod tests {
    use evows_core::Outcome;
    use evows_core::plugin::SinkErrorKind;
    use evows_core::testing::{SinkHarness, event};
    use tokio::io::AsyncReadExt;

    use super::*;

    #[tokio::test]
    async fn writes_a_line_per_event() {
        let (ours, mut theirs) = tokio::io::duplex(1024);
        let mut sink = SinkHarness::run(Stdout::new(ours), Delivery::default()).await;
        let batch = vec![
            event(r#"{"event":"call","instance":"a"}"#),
            event("{\n\"event\":\"call\",\r\n\"instance\":\"b\"}"),
        ];
        assert_eq!(sink.deliver(batch).await, Outcome::Delivered);
        assert_eq!(sink.stop().await.ended(Outcome::Delivered), 2);
        let mut text = String::new();
        theirs.read_to_string(&mut text).await.unwrap();
        assert_eq!(
            text,
            "{\"event\":\"call\",\"instance\":\"a\"}\n{ \"event\":\"call\",  \"instance\":\"b\"}\n"
        );
    }

    #[tokio::test]
    async fn fails_for_good_when_the_reader_is_gone() {
        let (ours, theirs) = tokio::io::duplex(1024);
        drop(theirs);
        let mut sink = SinkHarness::run(Stdout::new(ours), Delivery::default()).await;
        let batch = vec![event(r#"{"event":"call","instance":"a"}"#)];
        let error = sink.send(&batch).await.unwrap_err();
        assert_eq!(error.kind, SinkErrorKind::Permanent);
        assert_eq!(error.to_string(), "the reader of standard output is gone");
        assert_eq!(sink.deliver(batch).await, Outcome::Failed);
        assert_eq!(sink.attempts(), [1], "it is not tried again");
    }
}
