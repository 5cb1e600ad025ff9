//! Content of media messages that goes into an object store: `moto`, which stands in for S3.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;

use serde_json::{Value, json};
use tokio::process::{Child, Command};

use super::harness::{Connection, Ended, Reply, Setup, envelope, free_address, until};

/// An object store with one bucket.
struct Store {
    address: SocketAddr,
    _server: Child,
}

const CONTENT: &str = "the content of a voice message, which is longer than two hundred and fifty-six bytes: \
    0123456789 0123456789 0123456789 0123456789 0123456789 0123456789 0123456789 0123456789 0123456789 \
    0123456789 0123456789 0123456789 0123456789 0123456789 0123456789 0123456789 0123456789";

// === impl Store ===

impl Store {
    async fn start() -> Self {
        let clients = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients");
        let program = clients.join(".venv/bin/moto_server");
        assert!(
            program.exists(),
            "{} is missing: run `tests/run`, which installs it and runs every test",
            program.display()
        );
        let address = free_address();
        let server = Command::new(program)
            .args(["-H", "127.0.0.1", "-p"])
            .arg(address.port().to_string())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        until("the store listens", || {
            std::net::TcpStream::connect(address).is_ok()
        })
        .await;
        let store = Self {
            address,
            _server: server,
        };
        assert_eq!(store.ask("PUT", "/media").await.status, 200);
        store
    }

    async fn ask(&self, method: &str, path: &str) -> Reply {
        let mut connection = Connection::open(self.address).await.unwrap();
        connection.request(method, path, &[], "").await
    }

    /// Whether it has what a reference refers to, for whoever has the address and for nobody else.
    async fn has(&self, reference: &Value, folder: &str, content: &str, mimetype: &str) {
        assert_eq!(reference["size"], content.len());
        let path = reference["path"].as_str().unwrap();
        assert!(path.starts_with(&format!("evolution/{folder}/")), "{path}");
        let anonymous = self.ask("GET", &format!("/media/{path}")).await;
        assert_eq!(anonymous.status, 403);
        let url = reference["url"].as_str().unwrap();
        let (_, target) = url.split_once(&self.address.to_string()).unwrap();
        let stored = self.ask("GET", target).await;
        assert_eq!((stored.status, &*stored.body), (200, content));
        assert_eq!(stored.header("content-type"), Some(mimetype));
    }

    /// The pipeline from stdin through the filter to stdout.
    fn pipeline(&self, keys: &str, bucket: &str) -> Setup {
        let text = format!(
            "[sources.in]\ntype = \"stdin\"\n\
             [filters.media]\ntype = \"media\"\ninputs = [\"in\"]\nmode = \"offload\"\n{keys}\n\
             [filters.media.s3]\nendpoint = \"http://{}\"\nbucket = \"{bucket}\"\nprefix = \"evolution\"\n\
             access_key = \"${{KEY_ID}}\"\nsecret_key = \"${{KEY_SECRET}}\"\npresign = \"1h\"\n\
             [sinks.out]\ntype = \"stdout\"\ninputs = [\"media\"]\n",
            self.address
        );
        Setup::pipeline(&text)
            .env("KEY_ID", "an-id")
            .env("KEY_SECRET", "a-secret")
    }
}

fn voice(instance: &str) -> Value {
    let mut numbers = serde_json::Map::new();
    for (index, byte) in CONTENT.bytes().enumerate() {
        numbers.insert(index.to_string(), byte.into());
    }
    let audio = json!({"mimetype": "audio/ogg; codecs=opus", "mediaKey": {"0": 1, "1": 2}, "content": numbers});
    let message = json!({"audioMessage": audio, "base64": "QUJD".repeat(100)});
    envelope("messages.upsert", instance, &json!({"message": message}))
}

async fn run(setup: Setup, events: &[Value]) -> Ended {
    let mut evows = setup.spawn();
    for event in events {
        evows.write_stdin(&format!("{event}\n")).await;
    }
    evows.close_stdin();
    evows.ended().await
}

fn line(ended: &Ended, id: &str) -> String {
    let begin = format!("filter `{id}`");
    let mut lines = ended.stderr.lines().filter(|line| line.contains(&begin));
    lines
        .next_back()
        .unwrap_or_else(|| panic!("{}", ended.stderr))
        .to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn content_is_in_the_store_before_the_event_goes_on() {
    let store = Store::start().await;
    let events = [voice("loja1"), voice("../loja2")];
    let ended = run(store.pipeline("", "media"), &events).await;
    assert!(ended.status.success(), "{}", ended.stderr);
    assert_eq!(ended.stdout.len(), 2, "{:?}", ended.stdout);
    for (text, folder) in ended.stdout.iter().zip(["loja1", "=2E.=2Floja2"]) {
        let event: Value = serde_json::from_str(text).unwrap();
        let message = &event["data"]["message"];
        let audio = &message["audioMessage"];
        assert_eq!(audio["mediaKey"], json!({"0": 1, "1": 2}));
        assert_eq!(message["mediaUrl"], message["base64"]["url"]);
        let voice = "ABC".repeat(100);
        for (content, expected, mimetype) in [
            (&audio["content"], CONTENT, "application/octet-stream"),
            (&message["base64"], &voice, "audio/ogg"),
        ] {
            store.has(content, folder, expected, mimetype).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_store_does_not_take_is_counted_and_never_lost() {
    let store = Store::start().await;
    let events = [voice("a"), voice("b"), voice("c")];
    let ended = run(store.pipeline("", "no-such-bucket"), &events).await;
    assert!(ended.stdout.is_empty(), "{:?}", ended.stdout);
    assert_eq!(ended.status.code(), Some(1), "{}", ended.stderr);
    let failed = line(&ended, "media");
    assert!(failed.contains("3 failed (store_failed)"), "{failed}");
    assert!(ended.stderr.contains("NoSuchBucket"), "{}", ended.stderr);

    let passing = store.pipeline("on_error = \"pass\"", "no-such-bucket");
    let ended = run(passing, &events).await;
    assert!(ended.status.success(), "{}", ended.stderr);
    let passed: Vec<Value> = ended
        .stdout
        .iter()
        .map(|text| serde_json::from_str(text).unwrap())
        .collect();
    assert_eq!(passed, events);
}
