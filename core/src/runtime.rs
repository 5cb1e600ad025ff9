//! The life of the process: build everything, start it in order, and stop it in order.

mod build;
mod embed;
mod gate;
mod patience;
mod reload;
mod slots;
#[cfg(test)]
mod tests;

use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::task::{JoinHandle, JoinSet};
use tokio::time::Instant;

use self::build::Built;
use self::gate::Gate;
use self::reload::{Exchange, Reloads};
use crate::access::{Access, GlobalKey, KeyError, KeyOrigin, global_key};
use crate::cli::Exit;
use crate::config::{BufferType, Component, Config, Problem, ServerConfig};
use crate::http::{BindError, Host, RouteConflict, Routes};
use crate::hub::{History, Hub};
use crate::journal::{self, JournalError};
use crate::metrics::Metrics;
use crate::plugin::{
    BuildError, Environment, Lifecycle, LifecycleError, Shared, Transport, TransportError,
};
use crate::registry::{self, DuplicatePlugin};
use crate::shutdown::Shutdown;
use crate::topology::{BuiltFilter, GraphError, Part, Plan, Running};
use crate::{Outcome, Report};

pub use self::embed::{EmbedError, Embedded};
pub use self::reload::Reload;

/// How often channels that nobody publishes to are looked at for old entries.
const EXPIRE_EVERY: Duration = Duration::from_secs(5);

/// For how long signals after the first are taken for the same one: `timeout` and others signal a process
/// and its group.
const SAME_SIGNAL: Duration = Duration::from_secs(1);

/// How long a process that is stopped at once may take to close its store and to report.
const FORCED_STOP: Duration = Duration::from_secs(2);

/// Why a configuration did not come to run. Nothing is left running.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The binary has two plugins of one name.
    #[error(transparent)]
    Plugins(#[from] DuplicatePlugin),
    /// The data folder cannot be made.
    #[error("cannot create `server.data_dir` {}: {source}; create it for the user that evows runs as, or name another folder", .path.display())]
    DataDir {
        /// The folder.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// There is no global key.
    #[error("{}", chain(.0))]
    Key(#[from] KeyError),
    /// A plugin refused its configuration.
    #[error("cannot build `{id}`: {}", chain(.source))]
    Build {
        /// The component's id.
        id: String,
        /// Why.
        #[source]
        source: BuildError,
    },
    /// The inputs do not make a graph.
    #[error(transparent)]
    Graph(#[from] GraphError),
    /// Two components want one path.
    #[error(transparent)]
    Routes(#[from] RouteConflict),
    /// The port cannot be taken.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// What is on the disk cannot be used.
    #[error("cannot open {what}: {source}")]
    Journal {
        /// The history, or whose buffer.
        what: String,
        /// Why.
        #[source]
        source: JournalError,
    },
    /// The instances could not be restored.
    #[error("cannot start the lifecycle: {}", chain(.0))]
    Lifecycle(#[from] LifecycleError),
    /// A transport could not start.
    #[error("cannot start a transport: {}", chain(.0))]
    Transport(#[from] TransportError),
}

/// A process that serves.
struct Process {
    config: Config,
    shared: Arc<Shared>,
    lifecycle: Arc<dyn Lifecycle>,
    transports: Vec<Arc<dyn Transport>>,
    running: Running,
    /// Given first when stopping: no longer ready.
    stopping: Shutdown,
    /// Given last: the HTTP server stops.
    host: Shutdown,
    serving: JoinHandle<()>,
    /// Whether something beside the sources may bring events or clients.
    serves: bool,
    has_sources: bool,
    /// The sinks and filters whose failures are failures of the run.
    required: Vec<Arc<str>>,
    /// Housekeeping, stopped with the process.
    _chores: JoinSet<()>,
}

/// What ended the wait of a serving process.
enum End {
    Signal,
    Sources,
    Host,
}

/// Runs a configuration until the process is told to stop (SIGINT or SIGTERM), or until every source has
/// ended and nothing else is served: no route but the lifecycle's, and no transport.
///
/// A second signal, a second or more after the first, ends the wait for whatever is still stopping. At each SIGHUP, filters whose
/// settings `reload` has otherwise are exchanged, and everything else goes on.
pub async fn run(
    config: Config,
    host: Arc<dyn Host>,
    environment: Environment,
    reload: Reload,
) -> Exit {
    let (stop, force) = (Shutdown::new(), Shutdown::new());
    let mut signals = JoinSet::new();
    signals.spawn(follow_signals(stop.clone(), force.clone()));
    let mut reloads = Reloads::new(reload, stop.clone());
    let overdue = async {
        force.started().await;
        tracing::warn!("stopping at once for a second signal");
        tokio::time::sleep(FORCED_STOP).await;
    };
    tokio::select! {
        exit = live(config, host, environment, stop, &force, &mut reloads) => exit,
        () = overdue => Exit::Deadline,
    }
}

/// Runs a configuration until `stop` is given, or until there is nothing left to do; see [`run`].
pub async fn run_until(
    config: Config,
    host: Arc<dyn Host>,
    environment: Environment,
    stop: Shutdown,
) -> Exit {
    let mut none = Reloads::none();
    live(config, host, environment, stop, &Shutdown::new(), &mut none).await
}

/// Builds everything that a configuration asks for, and starts nothing. No I/O.
pub(crate) fn check(config: Config, environment: Environment) -> Result<Vec<Problem>, StartError> {
    registry::check_unique()?;
    let shared = share(&config, Hub::new(config.hub), environment);
    let waiting = patience::waiting(&config.pipeline);
    let built = Built::new(config, &shared)?;
    built.plan.check()?;
    Routes::new(built.mounts)?;
    Ok(patience::outlasted(&waiting, &built.plan.filters))
}

/// The shared parts for filters that are built on their own, and the lifecycle, which is not started. No I/O.
pub(crate) fn share_for(
    config: &Config,
    environment: Environment,
) -> Result<Arc<Shared>, StartError> {
    let shared = share(config, Hub::new(config.hub), environment);
    build::lifecycle(config, &shared)?;
    Ok(shared)
}

/// Builds one filter. No I/O.
pub(crate) fn filter(
    component: Component,
    shared: &Arc<Shared>,
) -> Result<Part<BuiltFilter>, StartError> {
    build::filter(component, shared)
}

/// By when sources and sinks must have stopped, of a process that begins to stop now.
pub(crate) fn stop_by(server: &ServerConfig, begun: Instant) -> (Instant, Instant) {
    let total = server.shutdown_timeout.0;
    // Clients leave after the last event was published, in the last part of the time.
    let flowing = total.saturating_sub(server.drain_timeout.0.min(total / 2));
    (begun + flowing.mul_f64(0.5), begun + flowing.mul_f64(0.9))
}

async fn live(
    config: Config,
    host: Arc<dyn Host>,
    environment: Environment,
    stop: Shutdown,
    force: &Shutdown,
    reloads: &mut Reloads,
) -> Exit {
    let process = tokio::select! {
        started = start(config, host, environment) => started,
        () = stop.started() => return Exit::Clean,
    };
    match process {
        Ok(process) => process.live(stop, force, reloads).await,
        Err(error) => {
            tracing::error!("{error}");
            error.exit()
        }
    }
}

/// The parts that the plugins of one configuration share.
fn share(config: &Config, hub: Hub, environment: Environment) -> Arc<Shared> {
    Arc::new(Shared {
        hub: Arc::new(hub),
        lifecycle: OnceLock::new(),
        access: Arc::new(Access::new(config.server.compat)),
        server: Arc::clone(&config.server),
        metrics: Metrics::new(),
        environment,
    })
}

async fn start(
    config: Config,
    host: Arc<dyn Host>,
    environment: Environment,
) -> Result<Process, StartError> {
    let begun = Instant::now();
    registry::check_unique()?;
    let server = Arc::clone(&config.server);
    let hub = if config.history.enabled {
        // What cannot be built leaves nothing behind: so that is tried before there is a folder.
        check(config.clone(), environment.clone())?;
        create_data_dir(&server).await?;
        open_history(&config).await?
    } else {
        Hub::new(config.hub)
    };
    let shared = share(&config, hub, environment);
    let running_config = config.clone();
    let metrics = &shared.metrics;
    let has_sources = !config.pipeline.sources.is_empty();
    let sinks = config.pipeline.sinks.iter().filter(|sink| sink.required);
    let sinks = sinks.map(|sink| &sink.component.id);
    let filters = config.pipeline.filters.iter();
    let filters = filters.map(|filter| &filter.component.id);
    let required = sinks.chain(filters).cloned().collect();
    let Built {
        lifecycle,
        transports,
        policies,
        mounts,
        serves,
        mut plan,
    } = Built::new(config, &shared)?;
    plan.check()?;
    let stopping = Shutdown::new();
    let paths = mounts.iter().fold(String::new(), |mut text, mount| {
        // Writing into a string does not fail.
        write!(text, " {}", mount.prefix).ok();
        text
    });
    let routes = Routes::new(mounts)?.stopping_on(stopping.clone());
    create_data_dir(&server).await?;
    let listening = host.bind(&server, metrics).await?;
    let address = listening.address();
    // With the port taken, this is the process that the key is for.
    let key = global_key(server.api_key.as_deref(), &server.data_dir)?;
    tell_key(&key, &server.data_dir);

    // From here on something runs. Whatever fails below takes it down again by being dropped.
    shared.access.set_global(key.secret);
    let gate = Arc::new(Gate::new(&shared.hub, &lifecycle, policies));
    lifecycle.watch(Arc::clone(&gate) as Arc<_>);
    lifecycle.start().await?;
    gate.open_all();
    shared.hub.opened_all();
    open_buffers(&mut plan, &server).await?;
    for transport in &transports {
        Arc::clone(transport).start().await?;
    }
    let running = plan.start(metrics)?;
    let host = Shutdown::new();
    let serving = tokio::spawn(listening.serve(routes, host.clone()));
    let mut chores = JoinSet::new();
    chores.spawn(expire(Arc::clone(&shared.hub)));
    let place = if address.port() == 0 {
        "ready in another server".to_owned()
    } else {
        let scheme = server.tls.as_ref().map_or("http", |_| "https");
        format!("listening on {scheme}://{address}")
    };
    tracing::info!(
        compat = ?server.compat,
        instances = lifecycle.all().len(),
        took_ms = begun.elapsed().as_millis(),
        "{place}, serving{paths}"
    );
    Ok(Process {
        config: running_config,
        shared,
        lifecycle,
        transports,
        running,
        stopping,
        host,
        serving,
        serves,
        has_sources,
        required,
        _chores: chores,
    })
}

// === impl Process ===

impl Process {
    async fn live(mut self, stop: Shutdown, force: &Shutdown, reloads: &mut Reloads) -> Exit {
        let stays = self.serves || !self.has_sources;
        let mut exchange = None;
        let end = loop {
            tokio::select! {
                () = stop.started() => break End::Signal,
                () = self.running.ended(), if !stays => break End::Sources,
                served = &mut self.serving => {
                    if let Err(error) = served {
                        tracing::error!(%error, "the HTTP server failed");
                    }
                    break End::Host;
                }
                // One reload after the other. A signal that comes meanwhile is not forgotten.
                loaded = reloads.next(), if exchange.is_none() => {
                    exchange = loaded.and_then(|config| self.reload(config));
                }
                config = Exchange::done(&mut exchange), if exchange.is_some() => self.config = config,
            }
        };
        // Not kept: nobody would poll it, and it may have the next turn of a segment.
        if exchange.take().is_some() {
            tracing::warn!("a reload was not finished: some filters waited for full queues");
        }
        match end {
            End::Signal => tracing::info!("stopping"),
            End::Sources => tracing::info!("every source has ended; stopping"),
            End::Host => tracing::error!("the HTTP server ended by itself; stopping"),
        }
        if matches!(end, End::Sources) {
            self.flow_out(&stop).await;
        }
        let exit = self.stop(&end, force).await;
        match end {
            End::Host => Exit::Internal,
            _ => exit,
        }
    }

    /// Begins to exchange filters; `None` when there is nothing to do, or it is refused.
    fn reload(&self, config: Config) -> Option<Exchange> {
        match reload::reload(&self.running, &self.config, config, &self.shared) {
            Ok(None) => tracing::info!("reloaded: the configuration is the one that runs"),
            Ok(exchange) => return exchange,
            Err(error) => {
                tracing::error!("not reloaded, everything goes on as before: {error}");
            }
        }
        None
    }

    /// Lets what the sources left behind get to its end, as long as something moves and nobody says to stop.
    async fn flow_out(&mut self, stop: &Shutdown) {
        let mut moved = self.running.report().moved();
        loop {
            tokio::select! {
                () = self.running.drained() => return,
                () = stop.started() => return,
                () = tokio::time::sleep(self.config.server.shutdown_timeout.0) => {}
            }
            let now = self.running.report().moved();
            if now == moved {
                return;
            }
            moved = now;
        }
    }

    /// Not ready, sources, filters, sinks, clients, the port, the store: in this order, each with its share
    /// of the time; what is still waited for when `force` is given is left as it is.
    async fn stop(mut self, end: &End, force: &Shutdown) -> Exit {
        let host_is_gone = matches!(end, End::Host);
        let begun = Instant::now();
        let total = self.config.server.shutdown_timeout.0;
        let drain = self.config.server.drain_timeout.0.min(total / 2);
        let deadline = begun + total;
        let (sources_by, sinks_by) = stop_by(&self.config.server, begun);
        self.stopping.start();
        if !matches!(end, End::Sources) {
            self.running.leave_backlogs();
        }
        let report = self.running.drain(sources_by, sinks_by, force).await;
        let mut late = report.cut;
        let mut leaving = JoinSet::new();
        for transport in &self.transports {
            let transport = Arc::clone(transport);
            leaving.spawn(async move { transport.drain(drain).await });
        }
        let left = async { while leaving.join_next().await.is_some() {} };
        late |= force.before(deadline, left).await.is_none();
        self.host.start();
        if !host_is_gone && force.before(deadline, &mut self.serving).await.is_none() {
            late = true;
            self.serving.abort();
        }
        // Quick, and owed to the store even when there is no time for anything else.
        let deadline = deadline.max(Instant::now() + FORCED_STOP / 2);
        match tokio::time::timeout_at(deadline, self.lifecycle.stop()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::error!(%error, "the lifecycle did not stop cleanly"),
            Err(_) => late = true,
        }
        if let Some(history) = self.shared.hub.history() {
            match tokio::time::timeout_at(deadline, history.stop()).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::error!(%error, "the history was not closed cleanly"),
                Err(_) => late = true,
            }
        }
        let clients = self.transports.iter().map(|it| it.clients()).sum::<usize>();
        tell(&report, clients, begun.elapsed());
        if late || report.abandoned() > 0 {
            Exit::Deadline
        } else if matches!(end, End::Sources) && has_failed(&self.required, &report) {
            // A job that ran to its end and did not get everything through has not done its work.
            Exit::Failed
        } else {
            Exit::Clean
        }
    }
}

/// Whether one of these has failed or lost events.
fn has_failed(required: &[Arc<str>], report: &Report) -> bool {
    let mut lines = required.iter().filter_map(|id| report.line(id));
    lines.any(|line| line.ended(Outcome::Failed) + line.ended(Outcome::Lost) > 0)
}

// === impl StartError ===

impl StartError {
    /// What the process exits with.
    pub fn exit(&self) -> Exit {
        match self {
            Self::Build { .. } | Self::Graph(_) | Self::Routes(_) => Exit::Config,
            Self::Plugins(_) => Exit::Internal,
            Self::DataDir { .. }
            | Self::Key(_)
            | Self::Bind(_)
            | Self::Journal { .. }
            | Self::Lifecycle(_)
            | Self::Transport(_) => Exit::Failed,
        }
    }
}

/// An error and the causes behind it, as one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        // Writing into a string does not fail.
        write!(text, ": {error}").ok();
        cause = error.source();
    }
    text
}

fn tell(report: &Report, clients: usize, took: Duration) {
    for line in &report.lines {
        tracing::info!("{line}");
    }
    let took_ms = took.as_millis();
    match (report.abandoned(), clients) {
        (0, 0) => tracing::info!(took_ms, "stopped"),
        (events, clients) => tracing::warn!(
            took_ms,
            "stopped, abandoning {events} deliveries and {clients} clients"
        ),
    }
}

fn tell_key(key: &GlobalKey, data_dir: &Path) {
    let path = data_dir.join("api_key");
    match key.origin {
        // The only time that the key is shown: the operator has no other way to learn it. Not in the log,
        // which may be filtered, and collected where others read it.
        KeyOrigin::Generated => {
            let (key, path) = (key.secret.reveal(), path.display());
            // With stderr gone there is nobody left to tell, and the file still has it.
            writeln!(
                io::stderr().lock(),
                "evows: no API key was configured: made {key} and stored it in {path}"
            )
            .ok();
        }
        KeyOrigin::Stored => tracing::info!("the API key is the one in {}", path.display()),
        KeyOrigin::Configured => {}
    }
}

async fn create_data_dir(server: &ServerConfig) -> Result<(), StartError> {
    let path = &server.data_dir;
    let created = tokio::fs::create_dir_all(path).await;
    created.map_err(|source| StartError::DataDir {
        path: path.clone(),
        source,
    })
}

/// The channels, with their history.
async fn open_history(config: &Config) -> Result<Hub, StartError> {
    let failed = |source| StartError::Journal {
        what: "the history".to_owned(),
        source,
    };
    let path = config.server.data_dir.join("history");
    let journal = journal::open(path, config.history.journal()).await;
    let history = History::open(journal.map_err(failed)?, &config.hub).await;
    Ok(Hub::with_history(config.hub, history.map_err(failed)?))
}

/// Opens the buffers on disk.
async fn open_buffers(plan: &mut Plan, server: &ServerConfig) -> Result<(), StartError> {
    for sink in &mut plan.sinks {
        if sink.buffer.kind == BufferType::Disk {
            let id = &*sink.part.id;
            let path = server.data_dir.join("buffers").join(id);
            let journal = journal::open(path, sink.buffer.journal()).await;
            let journal = journal.map_err(|source| StartError::Journal {
                what: format!("the buffer of `{id}`"),
                source,
            })?;
            sink.journal = Some(journal);
        }
    }
    Ok(())
}

async fn expire(hub: Arc<Hub>) {
    let mut interval = tokio::time::interval(EXPIRE_EVERY);
    loop {
        interval.tick().await;
        hub.expire();
    }
}

/// Gives `stop` at the first signal, and `force` at the first one that comes a while later.
async fn follow_signals(stop: Shutdown, force: Shutdown) {
    for shutdown in [stop, force] {
        if let Err(error) = signal().await {
            tracing::error!(%error, "signals cannot be received; end the process by other means");
            return;
        }
        shutdown.start();
        // Only those that come while somebody waits for them are seen.
        tokio::time::sleep(SAME_SIGNAL).await;
    }
}

#[cfg(unix)]
async fn signal() -> std::io::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};

    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        interrupted = tokio::signal::ctrl_c() => interrupted,
        _ = terminate.recv() => Ok(()),
    }
}

#[cfg(not(unix))]
async fn signal() -> std::io::Result<()> {
    tokio::signal::ctrl_c().await
}
