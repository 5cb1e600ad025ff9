//! Prints a line for each event.

use std::fmt::Write as _;

use evows::async_trait;
use evows::plugin::{Batch, BuildContext, BuildError, Sink, SinkError, SinkPlugin};
use evows::register_sink;
use evows::schemars::JsonSchema;
use evows::serde::Deserialize;
use evows::tokio::io::{AsyncWrite, AsyncWriteExt, stdout};
use evows::tokio::sync::Mutex;

/// The keys in `evows.toml`. `evows explain my_sink` shows their doc comments.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(crate = "evows::serde", deny_unknown_fields, default)]
#[schemars(crate = "evows::schemars")]
struct Config {
    /// What each line begins with.
    prefix: String,
}

/// The running sink.
struct MySink {
    prefix: String,
    output: Mutex<Box<dyn AsyncWrite + Send + Unpin>>,
}

register_sink!(
    MySink,
    summary = "Prints a line for each event.",
    example = "prefix = \"- \"\n",
);

impl SinkPlugin for MySink {
    const NAME: &'static str = "my_sink";
    type Config = Config;

    fn build(config: Config, _cx: &BuildContext) -> Result<Self, BuildError> {
        Ok(Self {
            prefix: config.prefix,
            output: Mutex::new(Box::new(stdout())),
        })
    }
}

#[async_trait]
impl Sink for MySink {
    async fn send(&self, batch: Batch<'_>) -> Result<(), SinkError> {
        let mut lines = String::new();
        for event in batch.events() {
            let (name, instance) = (event.name(), event.instance());
            // Writing into a string does not fail.
            writeln!(lines, "{}{name} of {instance}", self.prefix).ok();
        }
        let mut output = self.output.lock().await;
        let written = async {
            output.write_all(lines.as_bytes()).await?;
            output.flush().await
        };
        // Core tries again what is transient. What it should do instead is the kind of the error.
        written
            .await
            .map_err(|error| SinkError::transient("cannot write").caused_by(error))
    }
}

#[cfg(test)]
mod tests {
    use evows::delivery::Delivery;
    use evows::testing::{SinkHarness, event};
    use evows::tokio::io::{AsyncReadExt, duplex};
    use evows::{Outcome, tokio};

    use super::*;

    // The clock is paused: the wait before the second attempt takes no time.
    #[tokio::test(crate = "evows::tokio", start_paused = true)]
    async fn prints_a_line_for_each_event() {
        let (ours, mut theirs) = duplex(1024);
        let sink = MySink {
            prefix: "- ".to_owned(),
            output: Mutex::new(Box::new(ours)),
        };
        let mut sink = SinkHarness::run(sink, Delivery::default()).await;
        sink.fail_next(SinkError::transient("not yet"));
        let events = vec![
            event(r#"{"event":"call","instance":"a"}"#),
            event(r#"{"event":"call","instance":"b"}"#),
        ];
        assert_eq!(sink.deliver(events).await, Outcome::Delivered);
        assert_eq!(sink.attempts(), [2, 2]);
        assert_eq!(sink.stop().await.ended(Outcome::Delivered), 2);

        let mut printed = String::new();
        theirs.read_to_string(&mut printed).await.unwrap();
        assert_eq!(printed, "- call of a\n- call of b\n");
    }
}
