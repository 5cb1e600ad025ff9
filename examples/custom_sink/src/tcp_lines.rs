//! Sends each event as a line to a TCP service, which answers each line with a line: `ok`, or why not.
//!
//! ```toml
//! [sinks.archive]
//! type = "tcp_lines"
//! inputs = ["in"]
//! address = "127.0.0.1:7001"
//! ```

use std::io;

use evows::async_trait;
use evows::plugin::{Batch, BuildContext, BuildError, Sink, SinkError, SinkPlugin};
use evows::register_sink;
use evows::schemars::JsonSchema;
use evows::serde::Deserialize;
use evows::tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufStream};
use evows::tokio::net::TcpStream;
use evows::tokio::sync::Mutex;

/// Its keys.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(crate = "evows::serde", deny_unknown_fields)]
#[schemars(crate = "evows::schemars")]
struct Config {
    /// Where the service listens: host and port.
    address: String,
}

/// The running sink.
struct TcpLines {
    address: String,
    connection: Mutex<Option<BufStream<TcpStream>>>,
}

register_sink!(
    TcpLines,
    summary = "Sends each event as a line over TCP.",
    example = "address = \"127.0.0.1:7001\"\n",
);

impl SinkPlugin for TcpLines {
    const NAME: &'static str = "tcp_lines";
    type Config = Config;

    fn build(config: Config, _cx: &BuildContext) -> Result<Self, BuildError> {
        Ok(Self {
            address: config.address,
            connection: Mutex::new(None),
        })
    }
}

#[async_trait]
impl Sink for TcpLines {
    async fn start(&self) -> Result<(), SinkError> {
        // Core calls this again, later and later, until it succeeds.
        let stream = TcpStream::connect(&self.address).await.map_err(|error| {
            SinkError::transient(format!("cannot connect to {}", self.address)).caused_by(error)
        })?;
        *self.connection.lock().await = Some(BufStream::new(stream));
        Ok(())
    }

    async fn send(&self, batch: Batch<'_>) -> Result<(), SinkError> {
        let mut place = self.connection.lock().await;
        // Taken out, so that a call that is cut off by its time limit leaves no connection with answers on their way.
        let Some(mut connection) = place.take() else {
            return Err(SinkError::disconnected("there is no connection"));
        };
        let refused = exchange(&mut connection, batch)
            .await
            .map_err(|error| SinkError::disconnected("the connection is gone").caused_by(error))?;
        *place = Some(connection);
        match refused.first() {
            None => Ok(()),
            Some((_, why)) => {
                let message = format!("the service does not want it: {why}");
                let indices = refused.iter().map(|(at, _)| *at).collect();
                Err(SinkError::permanent(message).only(indices))
            }
        }
    }

    async fn stop(&self) -> Result<(), SinkError> {
        if let Some(mut connection) = self.connection.lock().await.take() {
            let closed = connection.shutdown().await;
            closed.map_err(|error| SinkError::transient("cannot close").caused_by(error))?;
        }
        Ok(())
    }
}

/// Sends every event and reads every answer. Gives those that were refused, and why.
async fn exchange(
    connection: &mut BufStream<TcpStream>,
    batch: Batch<'_>,
) -> io::Result<Vec<(usize, String)>> {
    for event in batch.events() {
        // A line break in an envelope can only stand between tokens.
        let envelope = event.envelope().iter().map(|byte| match byte {
            b'\r' | b'\n' => b' ',
            other => *other,
        });
        let mut line: Vec<u8> = envelope.collect();
        line.push(b'\n');
        connection.write_all(&line).await?;
    }
    connection.flush().await?;
    let mut refused = Vec::new();
    for at in 0..batch.len() {
        let mut answer = String::new();
        if connection.read_line(&mut answer).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if answer.trim_end() != "ok" {
            refused.push((at, answer.trim_end().to_owned()));
        }
    }
    Ok(refused)
}

#[cfg(test)]
mod tests {
    use evows::testing::{SinkHarness, event};
    use evows::tokio::net::TcpListener;
    use evows::{Event, Outcome, tokio};

    use super::*;

    fn events(names: &[&str]) -> Vec<Event> {
        let envelope = |name: &&str| format!("{{\"event\":\"{name}\",\n\"instance\":\"i\"}}");
        names.iter().map(|name| event(&envelope(name))).collect()
    }

    /// Answers so many lines on each connection, one connection after the other, and gives what it was sent.
    async fn serve(listener: TcpListener, answers: &[&[&str]]) -> Vec<String> {
        let mut lines = Vec::new();
        for answers in answers {
            let (stream, _) = listener.accept().await.unwrap();
            let mut stream = BufStream::new(stream);
            for answer in *answers {
                let mut line = String::new();
                stream.read_line(&mut line).await.unwrap();
                lines.push(line.trim_end().to_owned());
                stream.write_all(answer.as_bytes()).await.unwrap();
                stream.flush().await.unwrap();
            }
        }
        lines
    }

    #[tokio::test(crate = "evows::tokio")]
    async fn what_is_refused_fails_and_the_rest_is_delivered() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = tokio::spawn(serve(listener, &[&["ok\n", "too long\n"]]));
        let keys = format!("address = '{address}'");
        let mut sink = SinkHarness::from_toml::<TcpLines>(&keys).await;
        assert_eq!(sink.deliver(events(&["a", "b"])).await, Outcome::Failed);
        let lines = server.await.unwrap();
        assert_eq!(lines[0], "{\"event\":\"a\", \"instance\":\"i\"}");
        let counts = sink.stop().await;
        let ended = [Outcome::Delivered, Outcome::Failed].map(|outcome| counts.ended(outcome));
        assert_eq!(ended, [1, 1]);
    }

    #[tokio::test(crate = "evows::tokio")]
    async fn what_a_broken_connection_leaves_open_is_sent_again() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = tokio::spawn(serve(listener, &[&["ok\n"], &["ok\n", "ok\n"]]));
        // The retry is core's; here it does not wait long.
        let keys = format!("address = '{address}'\nretry = {{ initial = '1ms' }}");
        let mut sink = SinkHarness::from_toml::<TcpLines>(&keys).await;
        assert_eq!(sink.deliver(events(&["a", "b"])).await, Outcome::Delivered);
        assert_eq!(server.await.unwrap().len(), 3);
        assert_eq!(sink.starts(), 2);
        sink.stop().await;
    }
}
