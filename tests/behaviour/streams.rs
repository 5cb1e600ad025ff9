//! Plain WebSocket, server-sent events and `/history`: the same channels, keys and positions as on Socket.IO.

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

use super::harness::{Connection, Evows, KEY, PATIENCE, Setup, message, until};

/// Both transports on channels that nothing else serves.
fn setup(transports: &str) -> Setup {
    Setup::pipeline(&format!(
        "[sources.in]\ntype = \"webhook\"\n\
         [sinks.live]\ntype = \"channels\"\ninputs = [\"in\"]\npolicy = \"both\"\n{transports}"
    ))
}

const BOTH: &str =
    "[transports.plain]\ntype = \"websocket\"\n[transports.events]\ntype = \"sse\"\n";

/// A plain WebSocket.
pub(super) struct Plain(WebSocketStream<MaybeTlsStream<TcpStream>>);

/// A stream of server-sent events.
pub(super) struct Events(BufReader<TcpStream>);

/// One of them.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Event {
    id: String,
    pub(super) name: String,
    pub(super) data: Value,
}

// === impl Plain ===

impl Plain {
    pub(super) async fn open(evows: &Evows, path: &str) -> Result<Self, Error> {
        let url = format!("ws://{}{path}", evows.address());
        connect_async(url).await.map(|(socket, _)| Self(socket))
    }

    /// The next message; `None` when the connection is closed.
    pub(super) async fn next(&mut self) -> Option<Value> {
        loop {
            let next = tokio::time::timeout(PATIENCE, self.0.next()).await;
            match next.expect("a message comes") {
                Some(Ok(Message::Text(text))) => {
                    return Some(serde_json::from_str(&text).unwrap());
                }
                Some(Ok(Message::Ping(_))) => {}
                Some(Ok(other)) if !other.is_close() => panic!("{other:?}"),
                _ => return None,
            }
        }
    }
}

// === impl Events ===

impl Events {
    pub(super) async fn open(evows: &Evows, path: &str, headers: &str) -> (String, Self) {
        let stream = TcpStream::connect(evows.address()).await.unwrap();
        let mut stream = BufReader::new(stream);
        // In this version of HTTP an answer is not cut into chunks.
        let request = format!("GET {path} HTTP/1.0\r\nhost: x\r\napikey: {KEY}\r\n{headers}\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut events = Self(stream);
        let mut head = String::new();
        loop {
            let line = events.line().await;
            if line.is_empty() {
                return (head, events);
            }
            head.push_str(&line.to_ascii_lowercase());
            head.push('\n');
        }
    }

    async fn line(&mut self) -> String {
        let mut line = String::new();
        let read = tokio::time::timeout(PATIENCE, self.0.read_line(&mut line)).await;
        read.expect("a line comes").unwrap();
        line.trim_end_matches(['\r', '\n']).to_owned()
    }

    /// The next event.
    pub(super) async fn next(&mut self) -> Event {
        let (mut event, mut data) = (Event::default(), String::new());
        loop {
            let line = self.line().await;
            match line.split_once(": ") {
                Some(("id", id)) => id.clone_into(&mut event.id),
                Some(("event", name)) => name.clone_into(&mut event.name),
                Some(("data", text)) => data.push_str(text),
                _ if line.is_empty() && !data.is_empty() => {
                    event.data = serde_json::from_str(&data).unwrap();
                    return event;
                }
                _ => assert!(line.is_empty(), "{line}"),
            }
        }
    }
}

/// The number behind the colon of a position.
fn offset(position: &Value) -> u64 {
    let (_, offset) = position.as_str().unwrap().split_once(':').unwrap();
    offset.parse().unwrap()
}

pub(super) fn id(envelope: &Value) -> &str {
    envelope["data"]["key"]["id"].as_str().unwrap()
}

#[tokio::test]
async fn a_plain_websocket_gets_the_envelopes_of_its_channel_in_order() {
    let evows = setup(BOTH).start().await;
    evows.create_and_set("a", &[]).await;
    evows.create_and_set("b", &[]).await;
    let path = format!("/ws?apikey={KEY}&positions=envelope");
    let mut all = Plain::open(&evows, &path).await.unwrap();
    let mut one = Plain::open(&evows, &format!("/ws/a?apikey={KEY}"))
        .await
        .unwrap();
    // Nobody answers that, and nobody minds.
    one.0.send(Message::text("hello")).await.unwrap();
    for n in 0..10 {
        evows
            .post(&message(if n % 2 == 0 { "a" } else { "b" }, &n.to_string()))
            .await;
    }
    let mut position = Value::Null;
    for n in 0..10 {
        let mut envelope = all.next().await.unwrap();
        let members = envelope.as_object_mut().unwrap();
        assert_eq!(members.keys().next_back().unwrap(), "_evows");
        position = members.shift_remove("_evows").unwrap()["position"].clone();
        assert_eq!(
            envelope,
            message(if n % 2 == 0 { "a" } else { "b" }, &n.to_string())
        );
    }
    for n in [0, 2, 4, 6, 8] {
        // To whom positions are nothing, an envelope is what it was.
        assert_eq!(one.next().await.unwrap(), message("a", &n.to_string()));
    }

    // Resumed from a position: told where it starts, then all of it.
    evows.post(&message("a", "late")).await;
    let since = position.as_str().unwrap();
    let path = format!("/ws?apikey={KEY}&since={since}");
    let mut again = Plain::open(&evows, &path).await.unwrap();
    let ready = again.next().await.unwrap()["_evows"]["ready"].clone();
    assert_eq!(
        (&ready["from"], &ready["recovered"], &ready["gap"]),
        (&position, &json!(true), &Value::Null)
    );
    assert_eq!(id(&again.next().await.unwrap()), "late");
}

#[tokio::test]
async fn a_stream_of_events_resumes_from_its_last_id() {
    let evows = setup(BOTH).start().await;
    evows.create_and_set("a", &[]).await;
    let (head, mut events) = Events::open(&evows, "/sse/a", "").await;
    // Where it starts is known before anything has come.
    assert!(events.line().await.starts_with("id: "));
    assert!(head.starts_with("http/1.0 200"), "{head}");
    assert!(head.contains("content-type: text/event-stream\n"), "{head}");
    assert!(head.contains("cache-control: no-store\n"), "{head}");
    for n in 0..3 {
        evows.post(&message("a", &n.to_string())).await;
    }
    let first = events.next().await;
    assert_eq!(
        (&*first.name, &first.data),
        ("messages.upsert", &message("a", "0"))
    );
    drop(events);

    let last = format!("last-event-id: {}\r\n", first.id);
    let (_, mut events) = Events::open(&evows, "/sse/a?since=earliest", &last).await;
    let ready = events.next().await;
    assert_eq!(
        (&*ready.name, &ready.data["from"], &ready.id),
        ("evows:ready", &json!(first.id), &first.id)
    );
    for n in 1..3 {
        assert_eq!(events.next().await.data, message("a", &n.to_string()));
    }
    // An envelope with line breaks is the same JSON on the other side.
    let pretty = serde_json::to_string_pretty(&message("a", "pretty")).unwrap();
    let headers = [("content-type", "application/json")];
    assert_eq!(
        evows
            .request("POST", "/webhook", &headers, &pretty)
            .await
            .status,
        200
    );
    assert_eq!(events.next().await.data, message("a", "pretty"));
}

#[tokio::test]
async fn keys_and_channels_are_checked_as_everywhere() {
    let evows = setup(BOTH).start().await;
    let token = evows.create_and_set("a", &[]).await;
    evows.create_and_set("b", &[]).await;
    for (path, key, status, text) in [
        ("/sse", "", 401, "apiKey is required"),
        ("/sse", "bad", 401, "Invalid global token"),
        ("/sse", &*token, 403, "does not give access"),
        ("/sse/b", &*token, 404, "Invalid namespace"),
        ("/sse/nobody", KEY, 404, "Invalid namespace"),
        ("/sse/a?since=yesterday", KEY, 400, "earliest"),
        ("/ws/a", KEY, 426, "ws://"),
        ("/ws/a?positions=all", KEY, 400, "envelope"),
        ("/history?apikey=", KEY, 200, "entries"),
        ("/history/b", &*token, 404, "no channel"),
        ("/history", &*token, 401, "Unauthorized"),
        ("/history", KEY, 200, "entries"),
        ("/history/a", &*token, 200, "entries"),
    ] {
        let bearer = format!("Bearer {key}");
        let headers = [("authorization", &*bearer)];
        let headers = if key.is_empty() { &[][..] } else { &headers };
        let reply = evows.request("GET", path, headers, "").await;
        assert_eq!(reply.status, status, "{path} {}", reply.body);
        assert!(reply.body.contains(text), "{path} {}", reply.body);
    }
    for (path, status) in [
        ("/ws/nobody?apikey=", 401),
        (&*format!("/ws/nobody?apikey={KEY}"), 404),
    ] {
        match Plain::open(&evows, path).await {
            Err(Error::Http(reply)) => assert_eq!(reply.status(), status, "{path}"),
            other => panic!("{path}: {:?}", other.err()),
        }
    }
}

#[tokio::test]
async fn history_pages_through_what_clients_got() {
    let evows = setup(BOTH).start().await;
    evows.create_and_set("a", &[]).await;
    for n in 0..5 {
        evows.post(&message("a", &n.to_string())).await;
    }
    let (mut since, mut seen) = ("earliest".to_owned(), Vec::new());
    loop {
        let path = format!("/history/a?limit=2&since={since}");
        let page = evows.call("GET", &path, &Value::Null).await.json();
        let entries = page["entries"].as_array().unwrap().clone();
        if entries.is_empty() {
            break;
        }
        seen.extend(entries.iter().map(|it| id(&it["event"]).to_owned()));
        page["next"].as_str().unwrap().clone_into(&mut since);
    }
    assert_eq!(seen, ["0", "1", "2", "3", "4"]);
}

/// A client of `/sse` that reads nothing, and more waiting for it than the sockets take.
async fn stalled(evows: &Evows) -> TcpStream {
    let (_, mut events) = Events::open(evows, "/sse", "").await;
    assert!(events.line().await.starts_with("id: "));
    let text = "x".repeat(256 * 1024);
    for n in 0..40 {
        evows.post(&message("a", &format!("{n} {text}"))).await;
    }
    events.0.into_inner()
}

async fn closed(mut stream: TcpStream) {
    let mut rest = Vec::new();
    let closed = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut rest)).await;
    assert!(closed.is_ok(), "a stalled client was kept");
}

#[tokio::test]
async fn a_stream_of_events_that_nobody_reads_is_closed_by_either_limit() {
    for (limits, reason) in [
        ("limits.max_lag = \"200ms\"\n", "slow"),
        (
            "limits.max_lag = \"10m\"\nlimits.max_lag_bytes = \"1MiB\"\n",
            "slow",
        ),
        ("limits.max_lag = \"10m\"\n[hub]\nevents = 10\n", "gap"),
    ] {
        let transports = format!("[transports.events]\ntype = \"sse\"\n{limits}");
        let evows = setup(&transports).start().await;
        let stalled = stalled(&evows).await;
        let said = format!("reason=\"{reason}\"");
        until(limits, || evows.stderr().text().contains(&said)).await;
        closed(stalled).await;
    }
}

#[tokio::test]
async fn a_stream_of_events_that_nobody_reads_does_not_keep_it_from_stopping() {
    let transports = "[transports.events]\ntype = \"sse\"\nlimits.max_lag = \"10m\"\n";
    let evows = setup(transports)
        .server("drain_timeout = \"300ms\"\nshutdown_timeout = \"15s\"")
        .start()
        .await;
    let stalled = stalled(&evows).await;
    evows.signal(rustix::process::Signal::TERM);
    let ended = evows.ended().await;
    assert!(ended.status.success(), "{}: {}", ended.status, ended.stderr);
    closed(stalled).await;
}

#[tokio::test]
async fn bytes_that_are_not_utf8_close_nobody() {
    let evows = setup(BOTH).start().await;
    let mut plain = Plain::open(&evows, &format!("/ws?apikey={KEY}"))
        .await
        .unwrap();
    let body = b"{\"event\":\"call\",\"instance\":\"a\",\"data\":\"caf\xe9\"}";
    let length = body.len();
    let head = format!("POST /webhook HTTP/1.1\r\nhost: x\r\ncontent-length: {length}\r\n\r\n");
    let mut connection = Connection::open(evows.address()).await.unwrap();
    connection
        .send(&[head.as_bytes(), body].concat())
        .await
        .unwrap();
    assert_eq!(connection.reply().await.unwrap().status, 200);
    evows.post(&message("a", "next")).await;
    assert_eq!(plain.next().await.unwrap()["data"], "caf\u{fffd}");
    assert_eq!(id(&plain.next().await.unwrap()), "next");
}

#[tokio::test]
async fn clients_are_closed_when_it_stops() {
    let evows = setup(BOTH)
        .server("drain_timeout = \"200ms\"")
        .start()
        .await;
    let mut plain = Plain::open(&evows, &format!("/ws?apikey={KEY}"))
        .await
        .unwrap();
    let (_, mut events) = Events::open(&evows, "/sse", "").await;
    evows.signal(rustix::process::Signal::TERM);
    assert_eq!(plain.next().await, None);
    let mut rest = String::new();
    while events.0.read_line(&mut rest).await.unwrap_or(0) > 0 {}
    assert!(evows.ended().await.status.success());
}

#[tokio::test]
async fn a_client_left_behind_goes_on_behind_the_gap_where_that_is_wanted() {
    let transports = "[transports.plain]\ntype = \"websocket\"\nlimits.slow_client = \"skip\"\n\
                      ping_interval = \"10m\"\n[hub]\nevents = 20\n";
    // However long it takes to post all that, it is not for this that the client goes.
    let evows = setup(transports)
        .server("tcp_user_timeout = \"10m\"")
        .start()
        .await;
    let mut plain = Plain::open(&evows, &format!("/ws?apikey={KEY}&positions=envelope"))
        .await
        .unwrap();
    // Far more than the sockets' buffers take while nothing is read.
    let text = "x".repeat(256 * 1024);
    for n in 0..100 {
        evows.post(&message("a", &format!("{n} {text}"))).await;
    }
    evows.post(&message("a", "last")).await;
    let (mut gaps, mut next, mut last) = (0, 0, false);
    // Every offset is either received or inside a gap that was told: nothing twice, nothing unsaid.
    let mut reached = 0;
    while !last {
        let envelope = plain.next().await.expect("it stays");
        let gap = &envelope["_evows"]["gap"];
        if gap.is_object() {
            gaps += 1;
            assert_eq!(offset(&gap["after"]), reached, "{gap}");
            reached = offset(&gap["through"]);
            continue;
        }
        let position = offset(&envelope["_evows"]["position"]);
        assert_eq!(position, reached + 1, "{position} behind {reached}");
        reached = position;
        match id(&envelope).split_once(' ') {
            Some((number, _)) => {
                let number: usize = number.parse().unwrap();
                assert!(number >= next, "{number} again");
                next = number + 1;
            }
            None => last = true,
        }
    }
    assert!(
        gaps > 0,
        "nothing was left out: the test does not overrun the client"
    );
}
