//! Which instances exist, which are set, and whose token is whose.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::{BoxError, BuildContext, BuildError};
use crate::Event;
use crate::access::Secret;
use crate::config::Problem;
use crate::hub::ChannelName;

/// The read side of a lifecycle, as policies and transports see it. Quick: called for every event.
#[diagnostic::on_unimplemented(
    message = "`{Self}` does not know any instances",
    label = "implement `evows::plugin::Instances` for it"
)]
pub trait Instances: Send + Sync {
    /// The instance of this name.
    fn get(&self, name: &str) -> Option<Arc<Instance>>;

    /// Every known instance, sorted by name.
    fn all(&self) -> Vec<Arc<Instance>>;

    /// The instance that this token belongs to, compared in constant time.
    fn owner(&self, token: &str) -> Option<Arc<Instance>>;
}

/// A lifecycle: the registry of instances and its HTTP API, which it mounts when it is built.
#[async_trait]
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a lifecycle",
    label = "implement `evows::plugin::Lifecycle` and `evows::plugin::Instances` for it"
)]
pub trait Lifecycle: Instances + 'static {
    /// Opens the store and restores every instance. Called once, before the listener accepts.
    async fn start(&self) -> Result<(), LifecycleError>;

    /// Tells `watcher` of every change, before the call that caused it is answered.
    fn watch(&self, watcher: Arc<dyn Watcher>);

    /// Sees every event that is published, to learn what it says of its instance.
    fn observe(&self, _event: &Event) {}

    /// Switches an integration of an instance off because its receiver refuses for good, and keeps that over a restart. Nothing
    /// happens when `seen` is not what the instance is set to any more. `true` when it was switched off.
    async fn switch_off(
        &self,
        _instance: &str,
        _seen: &Arc<Integration>,
    ) -> Result<bool, LifecycleError> {
        Ok(false)
    }

    /// Flushes and closes the store. Called once, after the last event.
    async fn stop(&self) -> Result<(), LifecycleError> {
        Ok(())
    }
}

/// Learns of changes to instances. Called on the changing task: it must not block.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot watch instances",
    label = "implement `evows::plugin::Watcher` for it"
)]
pub trait Watcher: Send + Sync {
    /// An instance is new, or was set.
    fn changed(&self, instance: &Arc<Instance>);
    /// An instance was deleted.
    fn removed(&self, instance: &Arc<Instance>);
}

/// How a lifecycle comes to be.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be registered as a lifecycle",
    label = "implement `evows::plugin::LifecyclePlugin` for it"
)]
pub trait LifecyclePlugin: Lifecycle + Sized {
    /// The `type` that selects it under `[lifecycle]`.
    const NAME: &'static str;
    /// Its keys, less `type`.
    type Config: DeserializeOwned + JsonSchema;

    /// What is wrong with a configuration that parsed. No I/O.
    fn check(_config: &Self::Config) -> Vec<Problem> {
        Vec::new()
    }

    /// Makes the lifecycle. No I/O, no spawning. [`BuildContext::access`] is not usable before `start`.
    fn build(config: Self::Config, cx: &BuildContext) -> Result<Self, BuildError>;
}

/// One instance, as it is at this moment.
#[derive(Debug)]
pub struct Instance {
    /// Its name, as the envelopes carry it.
    pub name: Arc<str>,
    /// Its channel: `/<name>`.
    pub channel: ChannelName,
    /// Its token, which sees only its own channel.
    pub token: Option<Secret>,
    /// Whether it was ever set and enabled: its channel stays open from then on.
    pub activated: bool,
    /// What is set for the websocket integration; `None` before the first `set`.
    pub websocket: Option<Subscription>,
    /// What is set for other integrations, at most one of each kind.
    pub integrations: Vec<Arc<Integration>>,
}

/// What an instance is set to have delivered to a place of its own. The lifecycle keeps it; what the settings mean is known to
/// the sink that delivers there. [`Debug`](fmt::Debug) does not show them: there may be keys among them.
#[derive(Clone, PartialEq)]
pub struct Integration {
    /// Which one, such as `webhook`.
    pub kind: &'static str,
    /// What is delivered.
    pub subscription: Subscription,
    /// The rest of it, under the names that the HTTP API answers.
    pub settings: Map<String, Value>,
}

/// What an instance is set to receive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subscription {
    /// Whether anything is delivered.
    pub enabled: bool,
    /// The config names (`MESSAGES_UPSERT`) that are delivered, in the order given.
    pub events: Vec<String>,
}

/// Why a lifecycle could not start or stop.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct LifecycleError {
    message: String,
    #[source]
    source: Option<BoxError>,
}

// === impl Instance ===

impl Instance {
    /// What is set for the integration of this kind.
    pub fn integration(&self, kind: &str) -> Option<&Arc<Integration>> {
        self.integrations.iter().find(|it| it.kind == kind)
    }
}

// === impl Integration ===

impl fmt::Debug for Integration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Integration")
            .field("kind", &self.kind)
            .field("subscription", &self.subscription)
            .finish_non_exhaustive()
    }
}

// === impl LifecycleError ===

impl LifecycleError {
    /// An error described by a message alone.
    pub fn new(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            source: None,
        }
    }

    /// An error with its cause.
    pub fn with_source(message: impl Into<String>, source: impl Into<BoxError>) -> Self {
        Self {
            message: message.into(),
            source: Some(source.into()),
        }
    }
}
