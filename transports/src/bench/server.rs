//! The server under load: one that runs already, or this same binary as a child.

use std::fs::File;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::process::Stdio;
use std::time::{Duration, Instant};

use evows_core::cli::Format;
use rustix::process::{Pid, Signal, kill_process};
use serde::Deserialize as _;
use serde::de::IntoDeserializer as _;
use tempfile::TempDir;

use super::Error;
use super::http;
use super::packet::Protocol;
use super::process::{Cores, Watched};
use crate::socketio::Engine;

/// The child's key.
const KEY: &str = "key-of-the-bench";
/// Time for a child to answer `/healthz`, or to end.
const PATIENCE: Duration = Duration::from_secs(30);

/// Which server, and how it is spoken to.
#[derive(Debug, clap::Args)]
// Every scenario has a group of that name already.
#[group(skip)]
pub(super) struct Options {
    /// A server that runs on this machine, such as `http://127.0.0.1:8080`.
    #[arg(long, value_name = "URL", value_parser = place)]
    #[arg(required_unless_present = "engine", conflicts_with = "engine")]
    url: Option<SocketAddr>,
    /// Start this evows with that Socket.IO engine, and stop it afterwards.
    #[arg(long, value_name = "ENGINE", value_parser = engine)]
    engine: Option<String>,
    /// Give that evows a history on disk.
    #[arg(long, requires = "engine")]
    history: bool,
    /// Process id of the server at `--url`, to read its memory and CPU time.
    #[arg(long, conflicts_with = "engine")]
    pid: Option<u32>,
    /// The API key of the server at `--url`.
    #[arg(
        long,
        conflicts_with = "engine",
        default_value = "",
        hide_default_value = true
    )]
    key: String,
    /// How the server speaks.
    #[arg(long, default_value = "socketio")]
    protocol: Protocol,
    /// The namespace to join: `/`, or `/` and an instance's name.
    #[arg(long, default_value = "/", value_parser = namespace)]
    pub(super) namespace: String,
    /// Handshakes under way at a time.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u16).range(1..=5_000))]
    pub(super) handshakes: u16,
    /// How to report.
    #[arg(long, default_value = "text")]
    pub(super) format: Format,
}

/// A server that answers.
pub(super) struct Server {
    pub(super) address: SocketAddr,
    pub(super) key: String,
    pub(super) protocol: Protocol,
    pid: Option<u32>,
    child: Option<Child>,
    cores: Option<Cores>,
}

/// This binary, started on a folder of its own.
struct Child {
    process: tokio::process::Child,
    folder: TempDir,
}

// === impl Options ===

impl Options {
    /// Finds or starts the server, moves the generator to its core, and makes the instances exist.
    pub(super) async fn open(&self, instances: &[String]) -> Result<Server, Error> {
        let server = match &self.engine {
            Some(engine) => {
                let policy = if instances.is_empty() {
                    "global"
                } else {
                    "traditional"
                };
                let pipeline = format!(
                    "[history]\nenabled = {}\nmax_size = \"4GiB\"\nmax_events = 100_000_000\n\
                     [sources.in]\ntype = \"webhook\"\n\
                     [sinks.out]\ntype = \"socketio\"\ninputs = [\"in\"]\npolicy = \"{policy}\"\n\
                     [sinks.out.transport]\nengine = \"{engine}\"\n",
                    self.history,
                );
                Server::launch(tempfile::tempdir()?, &pipeline, self.protocol).await?
            }
            None => self.find().await?,
        };
        for instance in instances {
            server.set(instance).await?;
        }
        Ok(server)
    }

    /// The server that runs already.
    async fn find(&self) -> Result<Server, Error> {
        let cores = Cores::find();
        let mut server = Server {
            address: self.url.unwrap_or(SocketAddr::from(([127, 0, 0, 1], 0))),
            key: self.key.clone(),
            protocol: self.protocol,
            pid: self.pid,
            child: None,
            cores,
        };
        if let Some(cores) = cores {
            cores.be_generator()?;
        }
        server.wait_until_healthy().await?;
        Ok(server)
    }

    /// The instance whose namespace is joined; none for `/`.
    pub(super) fn instance(&self) -> Option<String> {
        let name = self.namespace.strip_prefix('/')?;
        (!name.is_empty()).then(|| name.to_owned())
    }

    /// Whether it has a history.
    pub(super) fn has_history(&self) -> bool {
        self.history
    }

    /// Whether the server is a child, which can be stopped and started.
    pub(super) fn has_child(&self) -> bool {
        self.engine.is_some()
    }
}

// === impl Server ===

impl Server {
    /// Starts this binary in a folder, with `pipeline` behind `[server]`, and moves the generator to its core.
    pub(super) async fn launch(
        folder: TempDir,
        pipeline: &str,
        protocol: Protocol,
    ) -> Result<Self, Error> {
        let address = free_address()?;
        let config = format!(
            "[server]\nlisten = \"{address}\"\ndata_dir = \"data\"\napi_key = \"{KEY}\"\n\
             max_connections = 20_000\nmax_connections_per_address = 20_000\n{pipeline}"
        );
        std::fs::write(folder.path().join("evows.toml"), config)?;
        let mut server = Self {
            address,
            key: KEY.to_owned(),
            protocol,
            pid: None,
            child: None,
            cores: Cores::find(),
        };
        server.start(folder).await?;
        Ok(server)
    }

    /// Its process, if that is known.
    pub(super) fn watched(&self) -> Option<Watched> {
        let child = self.child.as_ref().and_then(|child| child.process.id());
        child.or(self.pid).map(Watched::new)
    }

    /// The folder that the child works in.
    pub(super) fn folder(&self) -> std::path::PathBuf {
        let folder = self.child.as_ref().map(|child| child.folder.path());
        folder.unwrap_or(std::path::Path::new(".")).to_owned()
    }

    /// Stops the child with `signal` and waits until it is gone.
    pub(super) async fn stop(&mut self, signal: Signal) -> Result<TempDir, Error> {
        let child = self.child.take();
        let Child {
            mut process,
            folder,
        } = child
            .ok_or_else(|| Error::Usage("only a server of `--engine` can be stopped".into()))?;
        let id = process.id().and_then(|id| i32::try_from(id).ok());
        if let Some(pid) = id.and_then(Pid::from_raw) {
            kill_process(pid, signal).map_err(io::Error::from)?;
        }
        tokio::time::timeout(PATIENCE, process.wait())
            .await
            .map_err(|_| Error::Failed("the server did not end when it was told to".into()))??;
        Ok(folder)
    }

    /// Starts the child, for the first time or again on the same port and data.
    pub(super) async fn start(&mut self, folder: TempDir) -> Result<(), Error> {
        self.spawn(folder)?;
        if let Some(cores) = self.cores {
            cores.be_generator()?;
        }
        self.wait_until_healthy().await
    }

    /// Stops the child, if there is one.
    pub(super) async fn close(mut self) -> Result<(), Error> {
        if self.child.is_some() {
            self.stop(Signal::TERM).await?;
        }
        Ok(())
    }

    /// Starts the child, and leaves this thread on the server's core.
    fn spawn(&mut self, folder: TempDir) -> Result<(), Error> {
        if let Some(cores) = self.cores {
            cores.be_server()?;
        }
        let log = File::options()
            .create(true)
            .append(true)
            .open(folder.path().join("log"))?;
        let process = tokio::process::Command::new(std::env::current_exe()?)
            .args(["run", "-c", "evows.toml", "--log", "warn"])
            .current_dir(folder.path())
            // What is set for an evows of this machine is not meant for this one.
            .env_clear()
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .kill_on_drop(true)
            .spawn()?;
        self.child = Some(Child { process, folder });
        Ok(())
    }

    async fn wait_until_healthy(&mut self) -> Result<(), Error> {
        let started = Instant::now();
        loop {
            let answer = http::get(self.address, "/healthz").await;
            if matches!(answer, Ok(200)) {
                return Ok(());
            }
            let Some(child) = &mut self.child else {
                return Err(Error::Failed(format!(
                    "{} does not answer GET /healthz with 200: start the server first",
                    self.address
                )));
            };
            let ended = child.process.try_wait()?;
            if ended.is_some() || started.elapsed() > PATIENCE {
                let log = std::fs::read_to_string(child.folder.path().join("log"))?;
                return Err(Error::Failed(format!("the server did not start:\n{log}")));
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    /// Opens the namespace of an instance, as Evolution API's clients do.
    async fn set(&self, instance: &str) -> Result<(), Error> {
        let path = format!("/websocket/set/{instance}");
        let body = r#"{"websocket":{"enabled":true,"events":[]}}"#;
        self.post(&path, body).await
    }

    /// Posts something with the key; it must be answered 2xx.
    pub(super) async fn post(&self, path: &str, body: &str) -> Result<(), Error> {
        match http::post(self.address, path, &self.key, body).await? {
            200..300 => Ok(()),
            status => Err(Error::Failed(format!("POST {path} was answered {status}"))),
        }
    }
}

/// An address that nobody has, below the range of outgoing connections: else one of those could take it between two starts.
pub(super) fn free_address() -> io::Result<SocketAddr> {
    let mut ports = std::iter::repeat_with(|| fastrand::u16(20_000..32_000)).take(100);
    let bind = |port| TcpListener::bind((Ipv4Addr::LOCALHOST, port));
    let free = ports.find_map(|port| bind(port).ok());
    free.map_or_else(|| bind(0), Ok)?.local_addr()
}

/// Reads an URL of this machine. Others are refused: this is no tool to load other people's servers with.
fn place(url: &str) -> Result<SocketAddr, String> {
    let rest = url.strip_prefix("http://");
    let rest = rest.ok_or("write it as `http://127.0.0.1:8080`; only plain HTTP is spoken")?;
    let authority = rest.strip_suffix('/').unwrap_or(rest);
    let authority = match authority.strip_prefix("localhost:") {
        Some(port) => format!("127.0.0.1:{port}"),
        None => authority.to_owned(),
    };
    let address: SocketAddr = authority
        .parse()
        .map_err(|_| "write it as `http://127.0.0.1:8080`: a loopback address and a port")?;
    let local = match address.ip() {
        IpAddr::V4(ip) => ip.is_loopback(),
        IpAddr::V6(ip) => ip.is_loopback(),
    };
    local.then_some(address).ok_or_else(|| {
        format!(
            "{} is another machine; only loopback addresses are loaded",
            address.ip()
        )
    })
}

/// Checks that this evows has the engine.
fn engine(name: &str) -> Result<String, String> {
    let name_of: serde::de::value::StrDeserializer<'_, serde::de::value::Error> =
        name.into_deserializer();
    Engine::deserialize(name_of)
        .map(|_| name.to_owned())
        .map_err(|error| format!("this evows has no such engine: {error}"))
}

fn namespace(name: &str) -> Result<String, String> {
    let instance = name.strip_prefix('/').ok_or("it starts with `/`")?;
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
    if instance.len() <= 64 && instance.bytes().all(plain) {
        Ok(name.to_owned())
    } else {
        Err("letters, digits, `-` and `_` only, at most 64 of them".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_this_machine_is_loaded() {
        for (url, address) in [
            ("http://127.0.0.1:8080", "127.0.0.1:8080"),
            ("http://127.1.2.3:1/", "127.1.2.3:1"),
            ("http://localhost:80", "127.0.0.1:80"),
            ("http://[::1]:9", "[::1]:9"),
        ] {
            assert_eq!(place(url), Ok(address.parse().unwrap()), "{url}");
        }
        assert!(
            place("http://10.0.0.1:80")
                .unwrap_err()
                .contains("10.0.0.1")
        );
        for url in [
            "https://127.0.0.1:1",
            "127.0.0.1:1",
            "http://example.org:80",
            "http://127.0.0.1",
        ] {
            assert!(place(url).is_err(), "{url}");
        }
    }

    #[test]
    fn an_engine_that_is_not_there_is_named() {
        assert_eq!(engine("socketioxide"), Ok("socketioxide".to_owned()));
        let refused = engine("warp").unwrap_err();
        assert!(
            refused.contains("warp") && refused.contains("socketioxide"),
            "{refused}"
        );
    }

    #[test]
    fn namespaces_are_plain_names() {
        assert!(namespace("/").is_ok());
        assert!(namespace("/loja-1_b").is_ok());
        for bad in ["loja1", "/a/b", "/a,b", "/\"", ""] {
            assert!(namespace(bad).is_err(), "{bad}");
        }
    }
}
