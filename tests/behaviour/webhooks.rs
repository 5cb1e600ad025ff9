//! Events that are posted on: from a webhook to webhooks.

use std::io::Result;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

use super::harness::{PATIENCE, Setup, message};

/// A server that answers 200 to everything.
struct Receiver(TcpListener);

/// A request.
struct Request {
    target: String,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

// === impl Receiver ===

impl Receiver {
    async fn start() -> Self {
        Self(TcpListener::bind("127.0.0.1:0").await.unwrap())
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.0.local_addr().unwrap())
    }

    /// The next request on a connection of its own, which is closed then.
    async fn next(&self) -> Request {
        let read = async {
            let (stream, _) = self.0.accept().await?;
            Request::read(stream).await
        };
        let read = tokio::time::timeout(PATIENCE, read).await;
        read.expect("a request comes").unwrap()
    }
}

// === impl Request ===

impl Request {
    async fn read(stream: TcpStream) -> Result<Self> {
        let mut stream = BufReader::new(stream);
        let mut line = String::new();
        stream.read_line(&mut line).await?;
        let target = line.split(' ').nth(1).expect("a target").to_owned();
        let mut request = Self {
            target,
            headers: Vec::new(),
            body: Vec::new(),
        };
        loop {
            line.clear();
            stream.read_line(&mut line).await?;
            let Some((name, value)) = line.trim_end().split_once(": ") else {
                break;
            };
            let name = name.to_ascii_lowercase();
            request.headers.push((name, value.to_owned()));
        }
        let length = request.header("content-length").parse().expect("a length");
        request.body.resize(length, 0);
        stream.read_exact(&mut request.body).await?;
        let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
        stream.write_all(answer).await?;
        Ok(request)
    }

    fn header(&self, name: &str) -> &str {
        let found = self.headers.iter().find(|(header, _)| header == name);
        found.map_or("", |(_, value)| value)
    }

    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }
}

/// From a webhook to webhooks, which may be on this machine.
fn setup(global: &str) -> Setup {
    Setup::pipeline(&format!(
        "[sources.in]\ntype = \"webhook\"\n\
         [sinks.hooks]\ntype = \"webhook\"\ninputs = [\"in\"]\n\
         url = \"{global}\"\nallow_cidrs = [\"127.0.0.0/8\"]\n"
    ))
}

#[tokio::test]
async fn an_event_goes_to_the_global_endpoint_and_to_what_its_instance_is_set_to() {
    let (global, own) = (Receiver::start().await, Receiver::start().await);
    let evows = setup(&global.url("/all")).start().await;
    evows.create("loja1").await;
    let none = evows.call("GET", "/webhook/find/loja1", &Value::Null).await;
    assert_eq!((none.status, &*none.body), (200, "null"));

    let url = own.url("/own");
    let body = json!({"webhook": {
        "enabled": true,
        "url": url,
        "headers": {"x-key": "abc", "jwt_key": "k"},
        "byEvents": true,
        "events": ["MESSAGES_UPSERT"],
    }});
    let reply = evows.call("POST", "/webhook/set/loja1", &body).await;
    let row = reply.json();
    assert_eq!(reply.status, 201, "{row}");
    let keys: Vec<_> = row.as_object().unwrap().keys().collect();
    assert_eq!(
        keys,
        [
            "id",
            "url",
            "headers",
            "enabled",
            "events",
            "webhookByEvents",
            "webhookBase64",
            "createdAt",
            "updatedAt",
            "instanceId"
        ]
    );

    let event = message("loja1", "1");
    let (to_all, to_own, ()) = tokio::join!(global.next(), own.next(), evows.post(&event));
    assert_eq!(
        (&*to_all.target, &*to_own.target),
        ("/all", "/own/messages-upsert")
    );
    for posted in [&to_all, &to_own] {
        let mut body = posted.json();
        assert_eq!(body["destination"], url);
        body.as_object_mut().unwrap().remove("destination");
        assert_eq!(body, event);
    }
    assert_eq!(to_all.header("webhook-id"), to_own.header("webhook-id"));
    assert_eq!(
        (to_own.header("x-key"), to_all.header("x-key")),
        ("abc", "")
    );
    assert!(to_own.header("authorization").starts_with("Bearer ey"));

    // It is all there again after a restart, and the list still holds.
    let evows = evows.restart().await;
    let found = evows.call("GET", "/webhook/find/loja1", &Value::Null).await;
    assert_eq!((found.status, found.json()), (200, row));
    let call = json!({"event": "call", "instance": "loja1", "data": {}});
    let (to_all, ()) = tokio::join!(global.next(), evows.post(&call));
    assert_eq!(to_all.json()["event"], "call");
    let (to_all, to_own, ()) = tokio::join!(global.next(), own.next(), evows.post(&event));
    assert_eq!(to_all.json()["event"], "messages.upsert");
    assert_eq!(to_own.json()["event"], "messages.upsert");
}
