//! A process around a single plugin.

use std::sync::{Arc, OnceLock};
use std::time::SystemTime;

use async_trait::async_trait;
use bytes::Bytes;

use crate::Event;
use crate::access::{Access, Compat};
use crate::config::ServerConfig;
use crate::hub::{Hub, Retention};
use crate::metrics::Metrics;
use crate::plugin::{
    BuildContext, Environment, Instance, Instances, Lifecycle, LifecycleError, Shared, Watcher,
};

/// A lifecycle without instances.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoInstances;

/// An event read from its envelope.
///
/// # Panics
///
/// When the text is not an envelope.
pub fn event(envelope: &str) -> Event {
    let bytes = Bytes::copy_from_slice(envelope.as_bytes());
    match Event::parse(bytes, SystemTime::UNIX_EPOCH) {
        Ok(event) => event,
        Err(error) => panic!("{error}: {envelope}"),
    }
}

/// A context with no instances, no environment and the default `[server]`.
pub fn context(id: &str) -> BuildContext {
    context_with(id, Arc::new(NoInstances), Environment::default())
}

/// A context with a lifecycle and an environment.
pub fn context_with(
    id: &str,
    lifecycle: Arc<dyn Lifecycle>,
    environment: Environment,
) -> BuildContext {
    let access = Access::new(Compat::Strict);
    access.set_lifecycle(Arc::clone(&lifecycle));
    let shared = Shared {
        hub: Arc::new(Hub::new(Retention::default())),
        lifecycle: OnceLock::from(lifecycle),
        access: Arc::new(access),
        server: Arc::new(ServerConfig::default()),
        metrics: Metrics::new(),
        environment,
    };
    BuildContext::new(id, Arc::new(shared))
}

// === impl NoInstances ===

impl Instances for NoInstances {
    fn get(&self, _name: &str) -> Option<Arc<Instance>> {
        None
    }

    fn all(&self) -> Vec<Arc<Instance>> {
        Vec::new()
    }

    fn owner(&self, _token: &str) -> Option<Arc<Instance>> {
        None
    }
}

#[async_trait]
impl Lifecycle for NoInstances {
    async fn start(&self) -> Result<(), LifecycleError> {
        Ok(())
    }

    fn watch(&self, _watcher: Arc<dyn Watcher>) {}
}
