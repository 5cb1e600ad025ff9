//! evows inside another application, which owns the port.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use axum::Router;
use axum::body::Body;
use axum::extract::{ConnectInfo, Request};
use axum::http::StatusCode;
use axum::response::Response;
use parking_lot::Mutex;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tower::ServiceExt as _;

use super::reload::Reloads;
use super::{StartError, start};
use crate::Shutdown;
use crate::cli::Exit;
use crate::config::{Config, Diagnostic, ServerConfig, render};
use crate::http::{BindError, Host, Listening, Peer, Routes, error_response};
use crate::metrics::Metrics;
use crate::plugin::Environment;

/// A pipeline that runs in another axum application: on its port, in its runtime, until it says so.
///
/// The application serves [`router`](Self::router), and calls [`stop`](Self::stop) when it is told to stop, while it still
/// serves: then clients are sent away in order, and what was accepted is delivered.
///
/// Everything in the configuration counts but what is about the port and the connections on it: in `[server]`, `listen`, `tls`,
/// `cors_origin`, `trusted_proxies` and the limits of connections are the application's own affair. Logs go to the application's
/// `tracing` subscriber. There may be several in one process, each with a `data_dir` of its own.
///
/// Dropped, it stops in the background, as long as the runtime lives.
#[derive(Debug)]
pub struct Embedded {
    routes: Routes,
    stop: Shutdown,
    task: JoinHandle<Exit>,
    /// How it ended, once that is known.
    exit: Option<Exit>,
}

/// Why a pipeline does not run. Nothing is left running.
#[derive(Debug, thiserror::Error)]
pub enum EmbedError {
    /// The configuration is wrong: every problem of it, as `evows validate` shows them.
    #[error("the configuration is wrong\n{0}")]
    Config(String),
    /// It could not be started.
    #[error(transparent)]
    Start(#[from] StartError),
}

/// The application, as the runtime sees it: takes the routes, and listens by itself.
struct Application(Mutex<Option<oneshot::Sender<Routes>>>);

/// A port that somebody else has.
struct Lent(Option<oneshot::Sender<Routes>>);

// === impl Embedded ===

impl Embedded {
    /// Starts what a file says, with the environment of this process. A relative path in it is one from the current folder.
    pub async fn from_file(path: impl AsRef<Path>) -> Result<Self, EmbedError> {
        let path = path.as_ref();
        let text = Config::read_text(path);
        let text = text.map_err(|unreadable| wrong(&[*unreadable], ""))?;
        Self::from_text(&text, &path.display().to_string()).await
    }

    /// Starts what a text says, with the environment of this process. In problems it is called `name`.
    pub async fn from_text(text: &str, name: &str) -> Result<Self, EmbedError> {
        let environment = Environment::of_process();
        let loaded = Config::load(text, name, &environment);
        let (config, warnings) = loaded.map_err(|problems| wrong(&problems, text))?;
        for warning in warnings {
            tracing::warn!(file = name, line = warning.line, "{}", warning.message);
        }
        Ok(Self::start(config, environment).await?)
    }

    /// Starts a configuration. When this returns, the routes answer and the sources run.
    pub async fn start(config: Config, environment: Environment) -> Result<Self, StartError> {
        let (sender, routes) = oneshot::channel();
        let application = Arc::new(Application(Mutex::new(Some(sender))));
        let process = start(config, application, environment).await?;
        let stop = Shutdown::new();
        let stopping = stop.clone();
        let task = tokio::spawn(async move {
            let mut none = Reloads::none();
            process.live(stopping, &Shutdown::new(), &mut none).await
        });
        let mut this = Self {
            routes: Routes::default(),
            stop,
            task,
            exit: None,
        };
        // The server has begun to serve, which is to hand them out. Dropped here, it is stopped.
        this.routes = routes.await.unwrap_or_default();
        Ok(this)
    }

    /// Everything that evows serves over HTTP, as a router to [merge](Router::merge) into the application's. It answers paths that
    /// nobody else does, so the application has no fallback of its own; one that does calls [`answer`](Self::answer) in it.
    ///
    /// With [`into_make_service_with_connect_info`](Router::into_make_service_with_connect_info) for [`SocketAddr`] it is known who
    /// calls, which limits by address need, and `compat = "evolution"`, under which this machine needs no key. Behind a proxy, the application may add a [`Peer`] to a request's extensions itself.
    pub fn router(&self) -> Router {
        let routes = self.routes.clone();
        Router::new().fallback(move |request: Request| {
            let answered = answer(&routes, request);
            async move {
                match answered {
                    Ok(response) => response.await,
                    Err(request) => {
                        let (method, path) = (request.method(), request.uri().path());
                        let message = vec![format!("Cannot {method} {path}")];
                        error_response(StatusCode::NOT_FOUND, message)
                    }
                }
            }
        })
    }

    /// Answers a request whose path evows serves, and gives back any other.
    pub async fn answer(&self, request: Request) -> Result<Response, Request> {
        match answer(&self.routes, request) {
            Ok(response) => Ok(response.await),
            Err(request) => Err(request),
        }
    }

    /// Waits until the pipeline ends by itself: all of its sources have, and it serves nothing. Cancel safe.
    pub async fn ended(&mut self) -> Exit {
        if let Some(exit) = self.exit {
            return exit;
        }
        let exit = (&mut self.task).await.unwrap_or_else(|error| {
            tracing::error!(%error, "the pipeline ended with a panic");
            Exit::Internal
        });
        self.exit = Some(exit);
        exit
    }

    /// Stops in order (sources, filters, sinks, clients, stores) within the configuration's `shutdown_timeout`. To be
    /// called while the application still serves. [`Exit::Clean`] when nothing was left undone.
    pub async fn stop(mut self) -> Exit {
        self.stop.start();
        self.ended().await
    }
}

impl Drop for Embedded {
    fn drop(&mut self) {
        self.stop.start();
    }
}

fn wrong(problems: &[Diagnostic], text: &str) -> EmbedError {
    EmbedError::Config(render(problems, text, false).trim_end().to_owned())
}

/// The answer of whoever serves the path of a request, or the request.
#[expect(
    clippy::result_large_err,
    reason = "the request goes on to somebody else, once"
)]
fn answer(
    routes: &Routes,
    mut request: Request,
) -> Result<impl Future<Output = Response> + Send + use<>, Request> {
    let Some(route) = routes.find(request.uri().path()).cloned() else {
        return Err(request);
    };
    let extensions = request.extensions_mut();
    let tcp = extensions.get::<ConnectInfo<SocketAddr>>();
    if let Some(&ConnectInfo(tcp)) = tcp
        && extensions.get::<Peer>().is_none()
    {
        let client = tcp.ip();
        extensions.insert(Peer { tcp, client });
    }
    Ok(async move {
        match route.oneshot(request).await {
            Ok(response) => response.map(Body::new),
            Err(never) => match never {},
        }
    })
}

// === impl Application ===

#[async_trait]
impl Host for Application {
    async fn bind(
        &self,
        _config: &Arc<ServerConfig>,
        _metrics: &Metrics,
    ) -> Result<Box<dyn Listening>, BindError> {
        Ok(Box::new(Lent(self.0.lock().take())))
    }
}

// === impl Lent ===

#[async_trait]
impl Listening for Lent {
    fn address(&self) -> SocketAddr {
        SocketAddr::from(([0, 0, 0, 0], 0))
    }

    async fn serve(self: Box<Self>, routes: Routes, shutdown: Shutdown) {
        if let Some(taker) = self.0 {
            // Whoever started this waits for it, or has gone and stops it.
            taker.send(routes).ok();
        }
        shutdown.started().await;
    }
}
