//! Starts the real binary on a folder and a port of its own, and talks to it.

pub(crate) mod frames;
pub(crate) mod http;
pub(crate) mod listener;
mod load;
mod setup;

use std::fmt::Write as _;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncWriteExt, BufReader};
use tokio::process::{Child, ChildStdin, Command};

pub(crate) use frames::{Frame, Frames};
pub(crate) use http::{Connection, Reply};
pub(crate) use listener::Listener;
pub(crate) use load::Load;
pub(crate) use setup::Setup;

/// The global key of every server that the tests start.
pub(crate) const KEY: &str = "global-key-of-the-tests";

/// How long anything may take that should take no time: generous, for a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// A running evows.
pub(crate) struct Evows {
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: Lines,
    stderr: Lines,
    address: SocketAddr,
    setup: Setup,
    folder: TempDir,
}

/// What a process printed so far, line by line.
#[derive(Clone, Default)]
pub(crate) struct Lines(Arc<Mutex<Vec<String>>>);

/// How a process ended.
pub(crate) struct Ended {
    pub(crate) status: ExitStatus,
    pub(crate) stdout: Vec<String>,
    pub(crate) stderr: String,
}

// === impl Evows ===

impl Evows {
    /// Starts it and waits until it answers `/healthz`.
    async fn start(setup: Setup) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let address = free_address();
        let mut evows = Self::spawn(setup, folder, address);
        evows.wait_until_healthy().await;
        evows
    }

    /// Starts it without waiting for anything.
    fn spawn(setup: Setup, folder: TempDir, address: SocketAddr) -> Self {
        let path = folder.path().join("evows.toml");
        std::fs::write(&path, setup.render(address, folder.path())).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_evows"));
        command
            .args(["run", "-c"])
            .arg(&path)
            .current_dir(folder.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .env_clear()
            .envs(std::env::var_os("PATH").map(|path| ("PATH", path)))
            .envs(setup.environment())
            .kill_on_drop(true);
        if let Some(user) = setup.user {
            std::os::unix::fs::chown(folder.path(), Some(user), Some(user)).unwrap();
            command.uid(user).gid(user);
        }
        let mut child = command.spawn().unwrap();
        Self {
            stdin: child.stdin.take(),
            stdout: Lines::of(child.stdout.take().unwrap()),
            stderr: Lines::of(child.stderr.take().unwrap()),
            child,
            address,
            setup,
            folder,
        }
    }

    async fn wait_until_healthy(&mut self) {
        let healthy = async {
            loop {
                if let Some(status) = self.child.try_wait().unwrap() {
                    return Some(status);
                }
                if let Ok(mut connection) = Connection::open(self.address).await
                    && let Ok(reply) = connection.try_request("GET", "/healthz", &[], "").await
                    && reply.status == 200
                {
                    return None;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let Ok(ended) = tokio::time::timeout(PATIENCE, healthy).await else {
            panic!("evows never answered /healthz:\n{}", self.stderr.text());
        };
        if let Some(status) = ended {
            panic!("evows ended with {status}:\n{}", self.stderr.text());
        }
    }

    /// Stops it with SIGTERM and starts it again on the same port and data.
    pub(crate) async fn restart(self) -> Self {
        let (ended, folder, address, setup) = self.stop(Signal::TERM).await;
        assert!(ended.status.success(), "{}: {}", ended.status, ended.stderr);
        Self::start_again(setup, folder, address).await
    }

    /// Kills it, without warning, and starts it again on the same port and data.
    pub(crate) async fn crash(self) -> Self {
        self.crash_and(|_| {}).await
    }

    /// The same, with something done to its folder before it starts again.
    pub(crate) async fn crash_and(self, harm: impl FnOnce(&Path)) -> Self {
        let (_, folder, address, setup) = self.stop(Signal::KILL).await;
        harm(folder.path());
        Self::start_again(setup, folder, address).await
    }

    async fn start_again(setup: Setup, folder: TempDir, address: SocketAddr) -> Self {
        let mut evows = Self::spawn(setup, folder, address);
        evows.wait_until_healthy().await;
        evows
    }

    async fn stop(self, signal: Signal) -> (Ended, TempDir, SocketAddr, Setup) {
        self.signal(signal);
        let Self {
            child,
            stdout,
            stderr,
            address,
            setup,
            folder,
            ..
        } = self;
        let ended = ended(child, &stdout, &stderr).await;
        (ended, folder, address, setup)
    }

    /// Sends it a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).unwrap();
    }

    /// Writes another configuration and has it loaded; gives what is said about it.
    pub(crate) async fn reload(&self, setup: &Setup) -> String {
        let path = self.folder.path().join("evows.toml");
        std::fs::write(path, setup.render(self.address, self.folder.path())).unwrap();
        let is_about = |line: &String| line.contains("reloaded");
        let about = || {
            self.stderr
                .all()
                .into_iter()
                .filter(is_about)
                .collect::<Vec<_>>()
        };
        let before = about().len();
        self.signal(Signal::HUP);
        until("it says what came of it", || about().len() > before).await;
        about().pop().unwrap_or_default()
    }

    /// Sends it a signal, which may come too late.
    pub(crate) fn try_signal(&self, signal: Signal) {
        // It is not waited for yet, so its id is no other process's.
        kill_process(self.pid(), signal).ok();
    }

    /// Takes its standard input, to keep it open for longer than its process is waited for.
    pub(crate) fn take_stdin(&mut self) -> Option<ChildStdin> {
        self.stdin.take()
    }

    /// Closes its standard input.
    pub(crate) fn close_stdin(&mut self) {
        self.stdin = None;
    }

    /// Writes to its standard input, which it must read.
    pub(crate) async fn write_stdin(&mut self, text: &str) {
        let stdin = self.stdin.as_mut().expect("still open");
        let written = tokio::time::timeout(PATIENCE, stdin.write_all(text.as_bytes())).await;
        written.expect("it reads its standard input").unwrap();
    }

    /// Waits for it to end by itself.
    pub(crate) async fn ended(self) -> Ended {
        ended(self.child, &self.stdout, &self.stderr).await
    }

    fn pid(&self) -> Pid {
        let id = self.child.id().expect("not waited for yet");
        Pid::from_raw(i32::try_from(id).unwrap()).unwrap()
    }

    /// Its resident memory in bytes.
    pub(crate) fn resident(&self) -> u64 {
        let path = format!("/proc/{}/status", self.pid().as_raw_nonzero());
        let status = std::fs::read_to_string(path).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS:"));
        let kib = line.unwrap().split_whitespace().nth(1).unwrap();
        kib.parse::<u64>().unwrap() * 1024
    }

    /// Whether a signal has stopped it.
    pub(crate) fn is_stopped(&self) -> bool {
        let path = format!("/proc/{}/status", self.pid().as_raw_nonzero());
        let status = std::fs::read_to_string(path).unwrap();
        status.lines().any(|line| line.starts_with("State:\tT"))
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub(crate) fn stdout(&self) -> &Lines {
        &self.stdout
    }

    pub(crate) fn stderr(&self) -> &Lines {
        &self.stderr
    }

    /// Where it keeps what outlives it.
    pub(crate) fn data_dir(&self) -> std::path::PathBuf {
        self.folder.path().join("data")
    }

    /// A second evows with the same data folder, on another port.
    pub(crate) fn second_on_same_data(&self) -> Evows {
        let setup = self.setup.clone().data_dir(&self.data_dir());
        Self::spawn(setup, tempfile::tempdir().unwrap(), free_address())
    }

    // What its users do:

    /// One request on a connection of its own, with the global key.
    pub(crate) async fn call(&self, method: &str, path: &str, body: &Value) -> Reply {
        let body = if body.is_null() {
            String::new()
        } else {
            body.to_string()
        };
        let headers = [("apikey", KEY), ("content-type", "application/json")];
        self.request(method, path, &headers, &body).await
    }

    /// One request on a connection of its own.
    pub(crate) async fn request(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> Reply {
        let mut connection = Connection::open(self.address).await.unwrap();
        connection.request(method, path, headers, body).await
    }

    /// Posts an event as Evolution's global webhook does; it must be accepted.
    pub(crate) async fn post(&self, event: &Value) {
        let headers = [("content-type", "application/json")];
        let reply = self
            .request("POST", "/webhook", &headers, &event.to_string())
            .await;
        assert_eq!((reply.status, reply.json()), (200, json!({"accepted": 1})));
    }

    /// Creates an instance and returns its token.
    pub(crate) async fn create(&self, instance: &str) -> String {
        let body = json!({"instanceName": instance, "integration": "WHATSAPP-BAILEYS"});
        let reply = self.call("POST", "/instance/create", &body).await;
        assert_eq!(reply.status, 201, "{}", reply.body);
        let token = reply.json()["hash"].as_str().map(str::to_owned);
        token.expect("the reply has the token under `hash`")
    }

    /// Sets which events an instance's namespace receives.
    pub(crate) async fn set(&self, instance: &str, enabled: bool, events: &[&str]) {
        let body = json!({"websocket": {"enabled": enabled, "events": events}});
        let path = format!("/websocket/set/{instance}");
        let reply = self.call("POST", &path, &body).await;
        assert_eq!(reply.status, 201, "{}", reply.body);
    }

    /// Creates an instance, enables it for `events`, and returns its token.
    pub(crate) async fn create_and_set(&self, instance: &str, events: &[&str]) -> String {
        let token = self.create(instance).await;
        self.set(instance, true, events).await;
        token
    }
}

// === impl Lines ===

impl Lines {
    pub(crate) fn of(output: impl AsyncRead + Unpin + Send + 'static) -> Self {
        let lines = Self::default();
        let filled = lines.clone();
        tokio::spawn(async move {
            let mut reader = BufReader::new(output).lines();
            while let Ok(Some(line)) = reader.next_line().await {
                filled.0.lock().push(line);
            }
        });
        lines
    }

    pub(crate) fn all(&self) -> Vec<String> {
        self.0.lock().clone()
    }

    pub(crate) fn get(&self, at: usize) -> Option<String> {
        self.0.lock().get(at).cloned()
    }

    pub(crate) fn any(&self, holds: impl FnMut(&String) -> bool) -> bool {
        self.0.lock().iter().any(holds)
    }

    pub(crate) fn text(&self) -> String {
        self.0.lock().iter().fold(String::new(), |mut text, line| {
            writeln!(text, "{line}").expect("a String takes everything");
            text
        })
    }
}

async fn ended(mut child: Child, stdout: &Lines, stderr: &Lines) -> Ended {
    let status = tokio::time::timeout(PATIENCE * 2, child.wait())
        .await
        .unwrap_or_else(|_| panic!("evows did not end:\n{}", stderr.text()))
        .unwrap();
    // The pipes are at their end once nothing but this handle shares them.
    until("its output is read", || {
        Arc::strong_count(&stdout.0) == 1 && Arc::strong_count(&stderr.0) == 1
    })
    .await;
    Ended {
        status,
        stdout: stdout.all(),
        stderr: stderr.text(),
    }
}

/// Waits for a condition.
pub(crate) async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let polled = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let result = tokio::time::timeout(PATIENCE, polled).await;
    assert!(result.is_ok(), "waited in vain: {what}");
}

/// A loopback address that is free now. Below the range that the system hands out by itself, so that no
/// outgoing connection takes it between two starts.
pub(crate) fn free_address() -> SocketAddr {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let process = u16::try_from(std::process::id() % 1200).expect("below 1200");
    loop {
        let nth = NEXT.fetch_add(1, Ordering::Relaxed) % 12_000;
        let port = 20_000 + (process * 10 + nth) % 12_000;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        if TcpListener::bind(address).is_ok() {
            return address;
        }
    }
}

/// An envelope as Evolution sends it, keys in its order.
pub(crate) fn envelope(event: &str, instance: &str, data: &Value) -> Value {
    json!({
        "event": event,
        "instance": instance,
        "data": data,
        "server_url": "http://localhost:8080",
        "date_time": "2025-10-21T14:40:39.123Z",
        "sender": "5511999990000@s.whatsapp.net",
        "apikey": null,
    })
}

/// A `messages.upsert` with an id of its own.
pub(crate) fn message(instance: &str, id: &str) -> Value {
    let data = json!({"key": {"id": id, "fromMe": false}, "message": {"conversation": "oi"}});
    envelope("messages.upsert", instance, &data)
}
