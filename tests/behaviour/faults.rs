//! Crashes, endpoints that fail, disks that fail: what was answered 200 arrives all the same.
//!
//! `EVOWS_CRASHES=200 cargo test --release --test behaviour faults::` crashes it that often.

mod clocks;
mod endpoints;
mod files;
mod folders;
mod tails;

use std::collections::HashMap;
use std::io::Write as _;
use std::net::SocketAddr;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use evows::axum::Router;
use evows::axum::body::Bytes;
use evows::axum::extract::State;
use evows::axum::http::StatusCode;
use parking_lot::Mutex;
use rustix::process::Signal;
use serde_json::Value;
use tokio::task::JoinSet;

use super::harness::{Connection, Evows, KEY, PATIENCE, Setup, message, until};

/// When events say that they happened, one after the other: what clocks of senders come to.
const TIMES: [&str; 5] = [
    "2025-10-21T14:40:39.123Z",
    "2025-10-21T14:40:38.000Z",
    "1970-01-01T00:00:00.000Z",
    "2099-12-31T23:59:59.999Z",
    "2025-10-21T11:40:39.123-03:00",
];

/// An endpoint that remembers what it got.
#[derive(Clone, Default)]
struct Endpoint(Arc<Received>);

#[derive(Default)]
struct Received {
    /// How often each id came.
    counts: Mutex<HashMap<String, usize>>,
    /// The ids of each instance, in order of their first arrival.
    orders: Mutex<HashMap<String, Vec<u64>>>,
    down: AtomicBool,
    torn: AtomicU64,
}

/// Posts events one after the other, each until it is answered 200.
struct Poster {
    tasks: JoinSet<()>,
    stop: Arc<AtomicBool>,
    answered: Arc<Mutex<Vec<String>>>,
    /// How often it was answered 503.
    refused: Arc<AtomicU64>,
}

/// A small disk, filled up when that is asked for. It is gone when this is dropped.
struct SmallDisk(tempfile::TempDir);

// === impl Endpoint ===

impl Endpoint {
    /// Serves it, and returns its URL.
    async fn serve(&self) -> String {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/hook", listener.local_addr().unwrap());
        let router = Router::new().fallback(take).with_state(self.clone());
        tokio::spawn(async move { evows::axum::serve(listener, router).await });
        url
    }

    fn has_all(&self, ids: &[String]) -> bool {
        let counts = self.0.counts.lock();
        ids.iter().all(|id| counts.contains_key(id))
    }

    /// How many came more than once.
    fn duplicates(&self) -> usize {
        let counts = self.0.counts.lock();
        counts.values().map(|count| count - 1).sum()
    }
}

async fn take(State(Endpoint(received)): State<Endpoint>, body: Bytes) -> StatusCode {
    if received.down.load(Ordering::Relaxed) {
        return StatusCode::SERVICE_UNAVAILABLE;
    }
    received.take(&body);
    StatusCode::OK
}

// === impl Received ===

impl Received {
    fn take(&self, body: &[u8]) {
        let Ok(envelope) = serde_json::from_slice::<Value>(body) else {
            self.torn.fetch_add(1, Ordering::Relaxed);
            return;
        };
        let id = envelope["data"]["key"]["id"].as_str().unwrap().to_owned();
        let mut counts = self.counts.lock();
        let count = counts.entry(id.clone()).or_default();
        *count += 1;
        if *count == 1 {
            let instance = envelope["instance"].as_str().unwrap().to_owned();
            let (_, number) = id.split_once('-').unwrap();
            let mut orders = self.orders.lock();
            let order = orders.entry(instance).or_default();
            order.push(number.parse().unwrap());
        }
    }
}

// === impl Poster ===

impl Poster {
    /// As many connections as instances, each of which posts its own events in order.
    fn start(address: SocketAddr, instances: usize) -> Self {
        Self::start_as("i", address, instances)
    }

    /// The same, with names of instances that begin like this.
    fn start_as(prefix: &str, address: SocketAddr, instances: usize) -> Self {
        let mut poster = Self {
            tasks: JoinSet::new(),
            stop: Arc::default(),
            answered: Arc::default(),
            refused: Arc::default(),
        };
        for instance in 0..instances {
            let (stop, answered) = (Arc::clone(&poster.stop), Arc::clone(&poster.answered));
            let refused = Arc::clone(&poster.refused);
            let name = format!("{prefix}{instance}");
            poster.tasks.spawn(async move {
                let mut connection = None;
                let mut number = 0;
                while !stop.load(Ordering::Relaxed) {
                    let id = format!("{name}-{number}");
                    let mut body = message(&name, &id);
                    body["date_time"] = TIMES[number % TIMES.len()].into();
                    let body = body.to_string();
                    let status = post(&mut connection, address, &body).await;
                    if status == Some(200) {
                        answered.lock().push(id);
                        number += 1;
                    } else {
                        refused.fetch_add(u64::from(status == Some(503)), Ordering::Relaxed);
                        // The same event again, as a sender does that heard nothing, or an error.
                        tokio::time::sleep(Duration::from_millis(5)).await;
                    }
                }
            });
        }
        poster
    }

    fn answered(&self) -> usize {
        self.answered.lock().len()
    }

    /// Waits until so many more were answered 200.
    async fn go_on(&self, more: usize) {
        let goal = self.answered() + more;
        until("events are answered", || self.answered() >= goal).await;
    }

    /// The ids that were answered 200.
    async fn stop(mut self) -> Vec<String> {
        self.stop.store(true, Ordering::Relaxed);
        while self.tasks.join_next().await.is_some() {}
        std::mem::take(&mut *self.answered.lock())
    }
}

// === impl SmallDisk ===

impl SmallDisk {
    /// Mounts it, which only root may: `None` for others.
    fn mount() -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", "size=96m", "tmpfs"]);
        let mounted = mount.arg(folder.path()).status();
        mounted.is_ok_and(|it| it.success()).then(|| Self(folder))
    }

    fn filler(&self) -> std::path::PathBuf {
        self.0.path().join("filler")
    }

    /// Takes all the room there is.
    fn fill(&self) {
        let mut file = std::fs::File::create(self.filler()).unwrap();
        for piece in [1 << 20, 4096] {
            while file.write_all(&vec![0; piece]).is_ok() {}
        }
    }

    fn free(&self) {
        std::fs::remove_file(self.filler()).unwrap();
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let mut umount = Command::new("umount");
        umount.arg("-l").arg(self.0.path()).status().ok();
    }
}

/// The status, if there is an answer.
async fn post(open: &mut Option<Connection>, address: SocketAddr, body: &str) -> Option<u16> {
    let mut connection = match open.take() {
        Some(connection) => connection,
        None => Connection::open(address).await.ok()?,
    };
    let headers = [("content-type", "application/json")];
    let posting = connection.try_request("POST", "/webhook", &headers, body);
    let reply = tokio::time::timeout(PATIENCE * 2, posting)
        .await
        .ok()?
        .ok()?;
    *open = Some(connection);
    Some(reply.status)
}

/// From a webhook to clients, with a history, and through a buffer on disk to an endpoint.
fn setup(url: &str, more: &str) -> Setup {
    Setup::pipeline(&pipeline(url, more))
}

fn pipeline(url: &str, more: &str) -> String {
    format!(
        "[hub]\nevents = 1000000\nbytes = \"1GiB\"\nage = \"1h\"\n\
         [history]\nenabled = true\n\
         [sources.in]\ntype = \"webhook\"\nidempotency = {{}}\n\
         [sinks.clients]\ntype = \"socketio\"\npolicy = \"global\"\ninputs = [\"in\"]\n\
         [sinks.hooks]\ntype = \"webhook\"\ninputs = [\"in\"]\nurl = \"{url}\"\n\
         buffer = {{ type = \"disk\" }}\n\
         retry = {{ initial = \"10ms\", max = \"100ms\", attempts = 0 }}\n\
         breaker = {{ open = \"200ms\" }}\n{more}"
    )
}

/// Every id of the history, in order.
async fn history(evows: &Evows) -> Vec<String> {
    let (mut ids, mut since) = (Vec::new(), "earliest".to_owned());
    loop {
        let path = format!("/history?apikey={KEY}&limit=1000&since={since}");
        let page = evows.call("GET", &path, &Value::Null).await.json();
        assert_eq!(page["gap"], Value::Null, "{}", page["gap"]);
        let entries = page["entries"].as_array().unwrap();
        for entry in entries {
            let id = &entry["event"]["data"]["key"]["id"];
            ids.push(id.as_str().unwrap().to_owned());
        }
        if entries.is_empty() {
            return ids;
        }
        page["next"].as_str().unwrap().clone_into(&mut since);
    }
}

/// What holds of everything that was answered 200, whatever happened meanwhile.
async fn check(evows: &Evows, endpoint: &Endpoint, answered: &[String]) {
    check_deliveries(endpoint, answered).await;
    let mut counts: HashMap<String, usize> = HashMap::new();
    for id in history(evows).await {
        *counts.entry(id).or_default() += 1;
    }
    for id in answered {
        assert_eq!(counts.get(id), Some(&1), "{id} in the history");
    }
}

/// What holds of deliveries alone.
async fn check_deliveries(endpoint: &Endpoint, answered: &[String]) {
    until("everything is delivered", || endpoint.has_all(answered)).await;
    assert_eq!(endpoint.0.torn.load(Ordering::Relaxed), 0);
    for (instance, order) in &*endpoint.0.orders.lock() {
        assert!(order.is_sorted(), "{instance} out of order");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_answered_is_delivered_and_in_the_history_once_however_often_it_crashes() {
    let crashes = std::env::var_os("EVOWS_CRASHES");
    let crashes = crashes.and_then(|text| text.to_str()?.parse().ok());
    let crashes: u64 = crashes.unwrap_or(6);
    let endpoint = Endpoint::default();
    let mut evows = setup(&endpoint.serve().await, "").start().await;
    let poster = Poster::start(evows.address(), 4);
    for crash in 0..crashes {
        // Some right after the start, some in full flow.
        poster
            .go_on(usize::try_from(crash * 37 % 400).unwrap())
            .await;
        evows = evows.crash().await;
    }
    poster.go_on(100).await;
    let answered = poster.stop().await;
    check(&evows, &endpoint, &answered).await;
    let duplicates = endpoint.duplicates();
    println!(
        "{} answered, {duplicates} delivered more than once",
        answered.len()
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_endpoint_that_is_down_holds_up_nobody_and_gets_everything_in_order() {
    let endpoint = Endpoint::default();
    endpoint.0.down.store(true, Ordering::Relaxed);
    let evows = setup(&endpoint.serve().await, "").start().await;
    let poster = Poster::start(evows.address(), 4);
    poster.go_on(1000).await;
    // A restart in the middle does not wait for it.
    let evows = evows.restart().await;
    poster.go_on(500).await;
    assert_eq!(endpoint.0.counts.lock().len(), 0);
    endpoint.0.down.store(false, Ordering::Relaxed);
    let answered = poster.stop().await;
    check(&evows, &endpoint, &answered).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_that_is_stopped_now_and_then_loses_nothing() {
    let endpoint = Endpoint::default();
    let evows = setup(&endpoint.serve().await, "").start().await;
    let poster = Poster::start(evows.address(), 2);
    poster.go_on(50).await;
    for _ in 0..20 {
        evows.signal(Signal::STOP);
        until("it is stopped", || evows.is_stopped()).await;
        evows.signal(Signal::CONT);
        poster.go_on(5).await;
    }
    let answered = poster.stop().await;
    check(&evows, &endpoint, &answered).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_is_told_to_whoever_posts_and_passes_without_a_restart() {
    let Some(disk) = SmallDisk::mount() else {
        println!("not run: only root may mount a small disk");
        return;
    };
    let endpoint = Endpoint::default();
    let setup = setup(&endpoint.serve().await, "").data_dir(&disk.0.path().join("data"));
    let evows = setup.start().await;
    let poster = Poster::start(evows.address(), 2);
    poster.go_on(50).await;
    for _ in 0..2 {
        let refused = || poster.refused.load(Ordering::Relaxed);
        let before = refused();
        disk.fill();
        until("posts are refused", || refused() > before + 2).await;
        disk.free();
        poster.go_on(50).await;
    }
    let answered = poster.stop().await;
    check(&evows, &endpoint, &answered).await;
}
