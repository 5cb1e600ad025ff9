//! A process from its first to its last step, with a host that serves nobody.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use axum::Router;
use axum::body::Body;
use axum::http::Request;
use parking_lot::Mutex;
use serde::Deserialize;
use tower::ServiceExt as _;

use super::{EmbedError, Embedded, Shutdown, run_until};
use crate::cli::Exit;
use crate::config::{self, Config, Input, Period, Pipeline, ServerConfig, Settings, SinkNode};
use crate::delivery::DeliveryConfig;
use crate::http::{BindError, Host, Listening, Routes};
use crate::hub::Retention;
use crate::metrics::Metrics;
use crate::plugin::{
    Batch, BuildContext, BuildError, Environment, Instance, Instances, Lifecycle, LifecycleError,
    LifecyclePlugin, Sink, SinkError, SinkPlugin, Source, SourceError, SourcePlugin, Watcher,
};
use crate::registry::{Origin, Registration};
use crate::testing::event;
use crate::topology::Outlet;

const HERE: Origin = Origin {
    package: "evows-core",
    file: file!(),
    line: 0,
};

static FEED: Registration = Registration::source::<Feed>("", "", HERE);
static DRAIN: Registration = Registration::sink::<Bin>("", "", HERE);
static NOBODY: Registration = Registration::lifecycle::<Nobody>("", "", HERE);

/// Sends one event and ends; with a path it mounts a route and waits for the end.
struct Feed {
    stays: bool,
}

#[derive(Deserialize, schemars::JsonSchema)]
struct FeedConfig {
    path: Option<String>,
}

/// Takes everything, unless it is told to be dead or to refuse.
struct Bin {
    dead: bool,
    refuses: bool,
}

#[derive(Deserialize, schemars::JsonSchema)]
struct BinConfig {
    #[serde(default)]
    dead: bool,
    #[serde(default)]
    refuses: bool,
}

struct Nobody;

#[derive(Deserialize, schemars::JsonSchema)]
struct NoConfig {}

/// Notes what it is asked, in order.
struct Quiet {
    taken: bool,
    notes: Arc<Mutex<Vec<&'static str>>>,
}

#[async_trait]
impl Source for Feed {
    async fn run(
        self: Box<Self>,
        mut outlet: Outlet,
        shutdown: Shutdown,
    ) -> Result<(), SourceError> {
        outlet
            .send(vec![event(r#"{"event":"a","instance":"i"}"#)])
            .await;
        if self.stays {
            shutdown.started().await;
        }
        Ok(())
    }
}

impl SourcePlugin for Feed {
    const NAME: &'static str = "feed";
    type Config = FeedConfig;

    fn build(config: FeedConfig, cx: &BuildContext) -> Result<Self, BuildError> {
        let stays = config.path.is_some();
        if let Some(path) = config.path {
            cx.mount(path, Router::new());
        }
        Ok(Self { stays })
    }
}

#[async_trait]
impl Sink for Bin {
    async fn send(&self, _: Batch<'_>) -> Result<(), SinkError> {
        if self.dead {
            Err(SinkError::disconnected("dead"))
        } else if self.refuses {
            Err(SinkError::permanent("refused"))
        } else {
            Ok(())
        }
    }
}

impl SinkPlugin for Bin {
    const NAME: &'static str = "bin";
    type Config = BinConfig;

    fn build(config: BinConfig, _: &BuildContext) -> Result<Self, BuildError> {
        Ok(Self {
            dead: config.dead,
            refuses: config.refuses,
        })
    }
}

impl Instances for Nobody {
    fn get(&self, _: &str) -> Option<Arc<Instance>> {
        None
    }

    fn all(&self) -> Vec<Arc<Instance>> {
        Vec::new()
    }

    fn owner(&self, _: &str) -> Option<Arc<Instance>> {
        None
    }
}

#[async_trait]
impl Lifecycle for Nobody {
    async fn start(&self) -> Result<(), LifecycleError> {
        Ok(())
    }

    fn watch(&self, _: Arc<dyn Watcher>) {}
}

impl LifecyclePlugin for Nobody {
    const NAME: &'static str = "nobody";
    type Config = NoConfig;

    fn build(_: NoConfig, cx: &BuildContext) -> Result<Self, BuildError> {
        cx.mount("/instance", Router::new());
        Ok(Self)
    }
}

#[async_trait]
impl Host for Quiet {
    async fn bind(
        &self,
        config: &Arc<ServerConfig>,
        _: &Metrics,
    ) -> Result<Box<dyn Listening>, BindError> {
        self.notes.lock().push("bind");
        if self.taken {
            return Err(BindError::InUse(config.listen));
        }
        Ok(Box::new(Self {
            taken: false,
            notes: Arc::clone(&self.notes),
        }))
    }
}

#[async_trait]
impl Listening for Quiet {
    fn address(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], 1))
    }

    async fn serve(self: Box<Self>, routes: Routes, shutdown: Shutdown) {
        self.notes.lock().push("serve");
        shutdown.started().await;
        let ready = if routes.is_stopping() {
            "unready"
        } else {
            "ready"
        };
        self.notes.lock().extend([ready, "stop"]);
    }
}

fn component(id: &str, plugin: &'static Registration, keys: &str) -> config::Component {
    config::Component {
        id: id.into(),
        plugin,
        settings: Settings::from_text(keys),
    }
}

/// A feed into a bin, with its data in a folder.
fn config(feed: &str, bin: &str, folder: &Path) -> Config {
    let server = ServerConfig {
        data_dir: folder.join("data"),
        shutdown_timeout: Period::seconds(4),
        ..ServerConfig::default()
    };
    Config {
        history: crate::config::HistoryConfig::default(),
        server: Arc::new(server),
        hub: Retention::default(),
        lifecycle: component("lifecycle", &NOBODY, ""),
        transports: Vec::new(),
        pipeline: Pipeline {
            sources: vec![component("feed", &FEED, feed)],
            filters: Vec::new(),
            sinks: vec![SinkNode {
                delivery: DeliveryConfig::default(),
                component: component("bin", &DRAIN, bin),
                inputs: vec![Input {
                    id: "feed".into(),
                    port: None,
                }],
                buffer: config::BufferConfig::default(),
                required: true,
            }],
        },
    }
}

/// Runs a feed into a bin, and gives the exit and what the host was asked.
async fn live(feed: &str, bin: &str, taken: bool, stop: Shutdown) -> (Exit, Vec<&'static str>) {
    let folder = tempfile::tempdir().unwrap();
    let notes = Arc::default();
    let host = Arc::new(Quiet {
        taken,
        notes: Arc::clone(&notes),
    });
    let config = config(feed, bin, folder.path());
    let exit = run_until(config, host, Environment::default(), stop).await;
    let notes = notes.lock().clone();
    (exit, notes)
}

#[tokio::test]
async fn ends_with_its_sources_when_nothing_else_is_served() {
    let (exit, notes) = live("", "", false, Shutdown::new()).await;
    assert_eq!(exit, Exit::Clean);
    assert_eq!(notes, ["bind", "serve", "unready", "stop"]);
}

#[tokio::test]
async fn a_route_keeps_it_alive_until_it_is_told_to_stop() {
    let stop = Shutdown::new();
    let living = live(r#"path = "/in""#, "", false, stop.clone());
    tokio::pin!(living);
    let early = tokio::time::timeout(Duration::from_millis(300), &mut living).await;
    assert!(early.is_err(), "it ended by itself");
    stop.start();
    let (exit, _) = living.await;
    assert_eq!(exit, Exit::Clean);
}

#[tokio::test]
async fn a_dead_sink_makes_it_exit_late_and_say_so() {
    let (exit, notes) = live("", "dead = true", false, Shutdown::new()).await;
    assert_eq!(exit, Exit::Deadline);
    assert_eq!(notes.last(), Some(&"stop"));
}

#[tokio::test]
async fn events_that_a_required_sink_failed_make_a_run_to_the_end_a_failure() {
    let (exit, _) = live("", "refuses = true", false, Shutdown::new()).await;
    assert_eq!(exit, Exit::Failed);
}

#[tokio::test]
async fn a_port_in_use_starts_nothing() {
    let (exit, notes) = live("", "", true, Shutdown::new()).await;
    assert_eq!(exit, Exit::Failed);
    assert_eq!(notes, ["bind"]);
}

#[tokio::test]
async fn two_components_on_one_path_start_nothing() {
    let (exit, notes) = live(r#"path = "/instance""#, "", false, Shutdown::new()).await;
    assert_eq!(exit, Exit::Config);
    assert!(notes.is_empty());
}

fn request(path: &str) -> Request<Body> {
    Request::get(path).body(Body::empty()).unwrap()
}

#[tokio::test]
async fn embedded_it_answers_its_routes_until_it_is_stopped() {
    let folder = tempfile::tempdir().unwrap();
    let config = config(r#"path = "/in""#, "", folder.path());
    let evows = Embedded::start(config, Environment::default()).await;
    let evows = evows.unwrap();
    let answer = evows.answer(request("/in")).await.unwrap();
    assert_eq!(answer.status(), 404, "its router has no route");
    let given_back = evows.answer(request("/other")).await.unwrap_err();
    assert_eq!(given_back.uri().path(), "/other");
    let answer = evows.router().oneshot(request("/other")).await.unwrap();
    assert_eq!(answer.status(), 404);
    assert_eq!(evows.stop().await, Exit::Clean);
}

#[tokio::test]
async fn embedded_it_ends_with_its_sources_and_says_how() {
    let folder = tempfile::tempdir().unwrap();
    let config = config("", "refuses = true", folder.path());
    let evows = Embedded::start(config, Environment::default()).await;
    let mut evows = evows.unwrap();
    assert_eq!(evows.ended().await, Exit::Failed);
    assert_eq!(evows.stop().await, Exit::Failed);
}

#[tokio::test]
async fn embedded_it_shows_every_problem_of_its_configuration() {
    let text =
        "[sources.in]\ntype = \"webhok\"\n[sinks.out]\ntype = \"nothing\"\ninputs = [\"in\"]\n";
    let error = Embedded::from_text(text, "mine.toml").await.unwrap_err();
    let EmbedError::Config(shown) = error else {
        panic!("{error}");
    };
    assert!(shown.contains("mine.toml:2:8"), "{shown}");
    assert!(shown.contains("mine.toml:4:8"), "{shown}");
}
