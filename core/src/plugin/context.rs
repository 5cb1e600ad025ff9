//! What a plugin is given when it is built.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

use axum::Router;
use parking_lot::Mutex;

use super::{BuildError, Instances, Lifecycle, PluginRef, Policy, Transport};
use crate::access::Access;
use crate::config::ServerConfig;
use crate::http::Mount;
use crate::hub::{Hub, Publisher};
use crate::metrics::Metrics;
use crate::registry::{self, Kind};

/// The process environment as it was at start. Plugins read variables here and nowhere else, so that
/// `validate` and tests see what `run` sees.
#[derive(Debug, Clone, Default)]
pub struct Environment(Arc<HashMap<String, String>>);

/// What a plugin may use while it is built: names, the shared parts, and places to mount things. Nothing
/// mounted here takes effect before every plugin of the configuration is built.
pub struct BuildContext {
    id: String,
    shared: Arc<Shared>,
    mounted: Mutex<Mounted>,
}

/// The parts that every plugin of a process shares.
pub struct Shared {
    /// The channels of this process.
    pub hub: Arc<Hub>,
    /// The instances. Empty while the lifecycle itself is built.
    pub lifecycle: OnceLock<Arc<dyn Lifecycle>>,
    /// Who may do what.
    pub access: Arc<Access>,
    /// The `[server]` section.
    pub server: Arc<ServerConfig>,
    /// The counters.
    pub metrics: Metrics,
    /// The environment.
    pub environment: Environment,
}

/// What one plugin asked for while it was built.
#[derive(Default)]
pub struct Mounted {
    /// Routes for the HTTP server.
    pub routes: Vec<Mount>,
    /// Transports to start and drain.
    pub transports: Vec<Arc<dyn Transport>>,
    /// Policies that open channels.
    pub policies: Vec<Arc<dyn Policy>>,
}

// === impl Environment ===

impl Environment {
    /// The environment of this process.
    pub fn of_process() -> Self {
        std::env::vars_os()
            .filter_map(|(key, value)| Some((key.into_string().ok()?, value.into_string().ok()?)))
            .collect()
    }

    /// The value of a variable, empty ones included.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// Evolution's boolean: true only for exactly `true` (contract section 4); `None` when unset.
    pub fn flag(&self, name: &str) -> Option<bool> {
        self.get(name).map(|value| value == "true")
    }
}

impl FromIterator<(String, String)> for Environment {
    fn from_iter<I: IntoIterator<Item = (String, String)>>(variables: I) -> Self {
        Self(Arc::new(variables.into_iter().collect()))
    }
}

// === impl BuildContext ===

impl BuildContext {
    /// A context for the component `id`.
    pub fn new(id: impl Into<String>, shared: Arc<Shared>) -> Self {
        Self {
            id: id.into(),
            shared,
            mounted: Mutex::default(),
        }
    }

    /// The component's id in `evows.toml`.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The channels of this process.
    pub fn hub(&self) -> &Arc<Hub> {
        &self.shared.hub
    }

    /// Who may do what.
    pub fn access(&self) -> &Arc<Access> {
        &self.shared.access
    }

    /// The `[server]` section.
    pub fn server(&self) -> &Arc<ServerConfig> {
        &self.shared.server
    }

    /// The counters.
    pub fn metrics(&self) -> &Metrics {
        &self.shared.metrics
    }

    /// The environment as it was at start.
    pub fn environment(&self) -> &Environment {
        &self.shared.environment
    }

    /// The instances, for reading.
    ///
    /// # Panics
    ///
    /// When called while the lifecycle itself is built.
    pub fn instances(&self) -> Arc<dyn Instances> {
        Arc::clone(self.lifecycle()) as Arc<dyn Instances>
    }

    /// Serves `router` for every path that is `prefix` or lies below it. The router sees the whole path.
    pub fn mount(&self, prefix: impl Into<String>, router: Router) {
        let mount = Mount::new(&self.id, prefix, router);
        self.mounted.lock().routes.push(mount);
    }

    /// Starts, counts and drains `transport` with the process.
    pub fn add_transport(&self, transport: Arc<dyn Transport>) {
        self.mounted.lock().transports.push(transport);
    }

    /// Builds the policy that `reference` names.
    pub fn policy(&self, reference: &PluginRef) -> Result<Arc<dyn Policy>, BuildError> {
        let plugin = registry::find(Kind::Policy, reference.name())
            .map_err(|unknown| BuildError::Config(vec![unknown.problem()]))?;
        plugin.build_policy(&reference.settings(), self)
    }

    /// A publisher into the hub under `policy`, which from then on opens channels.
    pub fn publisher(&self, policy: Arc<dyn Policy>) -> Publisher {
        self.mounted.lock().policies.push(Arc::clone(&policy));
        Publisher::new(
            Arc::clone(&self.shared.hub),
            policy,
            Arc::clone(self.lifecycle()),
            self.metrics().duplicates(&self.id),
        )
    }

    /// Takes what the plugin mounted.
    pub fn take_mounted(&self) -> Mounted {
        std::mem::take(&mut self.mounted.lock())
    }

    /// The instances, for a sink that has something to tell about one.
    ///
    /// # Panics
    ///
    /// When called while the lifecycle itself is built.
    pub fn lifecycle(&self) -> &Arc<dyn Lifecycle> {
        let lifecycle = self.shared.lifecycle.get();
        lifecycle.expect("the lifecycle is built before every other plugin")
    }
}
