//! Settings of filters that change while everything runs.

use std::fmt;
use std::future;
use std::io::{self, IsTerminal};
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, join_all};
use tokio::task::JoinHandle;

use super::{StartError, build};
use crate::config::{Component, Config, FilterNode};
use crate::plugin::Shared;
use crate::shutdown::Shutdown;
use crate::topology::Running;

/// How long filters may wait for full queues before something is said.
const LONG: Duration = Duration::from_secs(10);

/// Reads the configuration again. `None` when that is wrong, of which the operator has been told. May block.
pub type Reload = Arc<dyn Fn() -> Option<Config> + Send + Sync>;

/// Why a new configuration does not take the place of the one that runs. Nothing has changed then.
#[derive(Debug, thiserror::Error)]
pub(super) enum ReloadError {
    /// It has more changes than can be made while it runs.
    #[error(
        "changes to {0} need a restart: a running evows takes other settings of the filters that it has, and nothing else"
    )]
    Restart(Parts),
    /// A filter cannot be built.
    #[error(transparent)]
    Build(#[from] StartError),
}

/// Parts of a configuration, by name.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Parts(Vec<String>);

/// Asks for the configuration when the operator wants it to be loaded again.
pub(super) struct Reloads {
    load: Option<Reload>,
    /// Under way. Apart from whoever waits for it: a file may be one that never ends.
    loading: Option<JoinHandle<Option<Config>>>,
    /// Given when the terminal is gone that the process was started in.
    stop: Shutdown,
    has_terminal: bool,
    #[cfg(unix)]
    hangups: Option<tokio::signal::unix::Signal>,
}

/// Filters that are being exchanged.
pub(super) struct Exchange {
    config: Config,
    changed: Parts,
    done: BoxFuture<'static, ()>,
}

/// Builds the filters whose settings differ, all of them before anything that runs is touched, and begins to exchange them. Filters
/// with the settings that they had are left alone; `None` where all are.
pub(super) fn reload(
    running: &Running,
    old: &Config,
    new: Config,
    shared: &Arc<Shared>,
) -> Result<Option<Exchange>, ReloadError> {
    let components = changed(old, &new).map_err(ReloadError::Restart)?;
    if components.is_empty() {
        return Ok(None);
    }
    let mut filters = Vec::new();
    for component in &components {
        filters.push((
            build::again(component, shared)?,
            component.plugin.take_over(),
        ));
    }
    let filters = filters.into_iter();
    let exchanges: Vec<_> = filters
        .map(|(part, take_over)| running.replace(part, take_over))
        .collect();
    // All at once: one that waits for a full queue may wait for what another one mends.
    let done = async {
        let all = join_all(exchanges);
        let slow = async {
            tokio::time::sleep(LONG).await;
            tracing::warn!("the reload waits for filters that wait for full queues");
            future::pending::<()>().await;
        };
        tokio::select! {
            _ = all => {}
            () = slow => {}
        }
    };
    let ids = components.iter().map(|it| format!("`filters.{}`", it.id));
    Ok(Some(Exchange {
        changed: Parts(ids.collect()),
        config: new,
        done: done.boxed(),
    }))
}

/// The filters whose settings differ; or what else does.
fn changed(old: &Config, new: &Config) -> Result<Vec<Component>, Parts> {
    let mut others = Vec::new();
    for (name, differs) in [
        ("server", old.server != new.server),
        ("hub", old.hub != new.hub),
        ("history", old.history != new.history),
        ("lifecycle", old.lifecycle != new.lifecycle),
    ] {
        if differs {
            others.push(format!("`[{name}]`"));
        }
    }
    let (was, is) = (&old.pipeline, &new.pipeline);
    compare(
        "transports",
        &old.transports,
        &new.transports,
        |it| &it.id,
        &mut others,
    );
    compare(
        "sources",
        &was.sources,
        &is.sources,
        |it| &it.id,
        &mut others,
    );
    compare(
        "sinks",
        &was.sinks,
        &is.sinks,
        |it| &it.component.id,
        &mut others,
    );
    // What a filter reads, and its ports, are edges of the graph.
    let [before, after] = [&was.filters, &is.filters].map(|filters| {
        let edges = |it: &FilterNode| {
            let FilterNode {
                component,
                inputs,
                ports,
            } = it.clone();
            (component.id, component.plugin.name, inputs, ports)
        };
        filters.iter().map(edges).collect::<Vec<_>>()
    });
    compare("filters", &before, &after, |it| &it.0, &mut others);
    if !others.is_empty() {
        return Err(Parts(others));
    }
    let filters = is.filters.iter().filter(|node| !was.filters.contains(node));
    Ok(filters.map(|node| node.component.clone()).collect())
}

/// Adds the parts of a section that are there once only, or differ.
fn compare<T: PartialEq>(
    section: &str,
    before: &[T],
    after: &[T],
    id: impl Fn(&T) -> &Arc<str>,
    differing: &mut Vec<String>,
) {
    let gone = before.iter().filter(|it| !after.contains(it));
    let came = after.iter().filter(|it| !before.contains(it));
    for it in gone.chain(came) {
        let name = format!("`{section}.{}`", id(it));
        if !differing.contains(&name) {
            differing.push(name);
        }
    }
}

// === impl Exchange ===

impl Exchange {
    /// Waits until every filter is in its place, and gives the configuration that runs then; for ever where there is none.
    /// Cancel safe.
    pub(super) async fn done(exchange: &mut Option<Self>) -> Config {
        if let Some(waited) = exchange {
            (&mut waited.done).await;
        }
        match exchange.take() {
            Some(Self {
                config, changed, ..
            }) => {
                tracing::info!("reloaded: {changed} run with other settings");
                config
            }
            None => future::pending().await,
        }
    }
}

// === impl Parts ===

impl fmt::Display for Parts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, part) in self.0.iter().enumerate() {
            let before = match index {
                0 => "",
                _ if index + 1 == self.0.len() => " and ",
                _ => ", ",
            };
            f.write_str(before)?;
            f.write_str(part)?;
        }
        Ok(())
    }
}

// === impl Reloads ===

impl Reloads {
    /// From here on, SIGHUP ends the process no longer, unless it says that the terminal is gone: then `stop` is given.
    #[cfg(unix)]
    pub(super) fn new(load: Reload, stop: Shutdown) -> Self {
        use tokio::signal::unix::{SignalKind, signal};

        let hangups = signal(SignalKind::hangup());
        if let Err(error) = &hangups {
            tracing::error!(%error, "SIGHUP cannot be received; other settings need a restart");
        }
        Self {
            load: Some(load),
            loading: None,
            stop,
            has_terminal: has_terminal(),
            hangups: hangups.ok(),
        }
    }

    #[cfg(not(unix))]
    pub(super) fn new(load: Reload, stop: Shutdown) -> Self {
        Self {
            load: Some(load),
            stop,
            ..Self::none()
        }
    }

    /// Nobody ever asks.
    pub(super) fn none() -> Self {
        Self {
            load: None,
            loading: None,
            stop: Shutdown::new(),
            has_terminal: false,
            #[cfg(unix)]
            hangups: None,
        }
    }

    /// Waits for the next SIGHUP, and loads. `None` when what was loaded is wrong. Cancel safe.
    pub(super) async fn next(&mut self) -> Option<Config> {
        if self.loading.is_none() {
            self.asked().await;
            let load = self.load.clone()?;
            self.loading = Some(tokio::task::spawn_blocking(move || load()));
        }
        let loaded = self.loading.as_mut()?.await;
        self.loading = None;
        let why = match loaded {
            Ok(Some(config)) => return Some(config),
            Ok(None) => "the configuration has errors",
            Err(_) => "reading the configuration panicked",
        };
        tracing::error!("not reloaded, everything goes on as before: {why}");
        None
    }

    async fn asked(&mut self) {
        loop {
            self.hung_up().await;
            if !self.has_terminal || has_terminal() {
                return;
            }
            tracing::info!("the terminal is gone");
            self.stop.start();
        }
    }

    #[cfg(unix)]
    async fn hung_up(&mut self) {
        if let Some(hangups) = &mut self.hangups
            && hangups.recv().await.is_some()
        {
            return;
        }
        future::pending::<()>().await;
    }

    #[cfg(not(unix))]
    async fn hung_up(&mut self) {
        future::pending().await
    }
}

/// Whether anything of the process leads to a terminal that is there. One that was closed is none any more.
fn has_terminal() -> bool {
    io::stdin().is_terminal() || io::stdout().is_terminal() || io::stderr().is_terminal()
}
