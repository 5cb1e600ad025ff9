//! Settings of filters that change while everything runs.

use std::fmt;
use std::future;
use std::sync::Arc;

use super::{StartError, build};
use crate::config::{Component, Config, FilterNode};
use crate::plugin::Shared;
use crate::topology::Running;

/// Reads the configuration again. `None` when that is wrong, of which the operator has been told.
pub type Reload = Box<dyn FnMut() -> Option<Config> + Send>;

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
    #[cfg(unix)]
    hangups: Option<tokio::signal::unix::Signal>,
}

/// Exchanges the filters whose settings differ, and says which ones these are. All of them, or none: what is new is built before
/// anything that runs is touched. Filters with the settings that they had are left alone.
pub(super) async fn reload(
    running: &Running,
    old: &Config,
    new: &Config,
    shared: &Arc<Shared>,
) -> Result<Parts, ReloadError> {
    let changed = changed(old, new).map_err(ReloadError::Restart)?;
    let mut filters = Vec::new();
    for component in &changed {
        filters.push((build::again(component, shared)?, component.plugin));
    }
    for (part, plugin) in filters {
        running.replace(part, plugin).await;
    }
    let ids = changed.iter().map(|it| format!("`filters.{}`", it.id));
    Ok(Parts(ids.collect()))
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

// === impl Parts ===

impl Parts {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

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
    /// From here on, SIGHUP ends the process no longer.
    #[cfg(unix)]
    pub(super) fn new(load: Reload) -> Self {
        use tokio::signal::unix::{SignalKind, signal};

        let hangups = signal(SignalKind::hangup());
        if let Err(error) = &hangups {
            tracing::error!(%error, "SIGHUP cannot be received; other settings need a restart");
        }
        Self {
            load: Some(load),
            hangups: hangups.ok(),
        }
    }

    #[cfg(not(unix))]
    pub(super) fn new(load: Reload) -> Self {
        Self { load: Some(load) }
    }

    /// Nobody ever asks.
    pub(super) fn none() -> Self {
        Self {
            load: None,
            #[cfg(unix)]
            hangups: None,
        }
    }

    /// Waits for the next SIGHUP, and loads. `None` when what was loaded is wrong. Cancel safe.
    pub(super) async fn next(&mut self) -> Option<Config> {
        self.asked().await;
        let config = self.load.as_mut()?();
        if config.is_none() {
            tracing::error!(
                "not reloaded, everything goes on as before: the configuration has errors"
            );
        }
        config
    }

    #[cfg(unix)]
    async fn asked(&mut self) {
        if let Some(hangups) = &mut self.hangups
            && hangups.recv().await.is_some()
        {
            return;
        }
        future::pending::<()>().await;
    }

    #[cfg(not(unix))]
    async fn asked(&mut self) {
        future::pending().await
    }
}
