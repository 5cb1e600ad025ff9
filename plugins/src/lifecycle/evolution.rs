//! `[lifecycle] type = "evolution"`: instances, their tokens and what they are set to, with Evolution's HTTP API.
//!
//! | route | does |
//! |---|---|
//! | `POST /instance/create` | makes an instance; needs the global key |
//! | `GET /instance/fetchInstances` | lists all instances, or with an instance's token that one |
//! | `GET /instance/connectionState/{instance}` | the state that the last `connection.update` event told |
//! | `DELETE /instance/delete/{instance}` | forgets an instance and closes its channel |
//! | `POST /websocket/set/{instance}` | sets what an instance receives |
//! | `GET /websocket/find/{instance}` | shows what an instance is set to |
//! | `POST /webhook/set/{instance}` | sets an instance's own webhook, which the sink `webhook` delivers to |
//! | `GET /webhook/find/{instance}` | shows it |
//!
//! The key goes into the header `apikey`: the global one, or the token of the instance in the path. Everything
//! is kept in `instances.redb` below `server.data_dir`; a call is answered once its change is on the disk.
//!
//! Three things differ from the original on purpose. Keys are checked before anything else is told, unless
//! `server.compat = "evolution"`. `enabled: false` keeps the list of events. The query cannot name another
//! instance than the path.

mod api;
mod body;
mod registry;
mod row;
mod store;
mod validation;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use async_trait::async_trait;
use evows_core::plugin::{
    BuildContext, BuildError, Instance, Instances, Integration, Lifecycle, LifecycleError,
    LifecyclePlugin, Watcher,
};
use evows_core::{Event, register_lifecycle};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use self::registry::Registry;

/// How instances come to be known.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// What `POST /websocket/set` and `POST /webhook/set` do with an instance that nobody created: `"create"` makes it when the
    /// global key asks, `"reject"` answers 404 as the original does.
    pub unknown_instances: UnknownInstances,
}

/// What a `set` does with an unknown instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum UnknownInstances {
    /// Makes it, when the global key asks.
    #[default]
    Create,
    /// Answers 404.
    Reject,
}

/// The registry of instances and its HTTP API.
pub struct Evolution(Arc<Registry>);

register_lifecycle!(
    Evolution,
    summary = "Keeps instances, tokens and `set` states, with Evolution's HTTP API.",
    example = "unknown_instances = \"create\"",
);

// === impl Evolution ===

impl Instances for Evolution {
    fn get(&self, name: &str) -> Option<Arc<Instance>> {
        self.0.get(name)
    }

    fn all(&self) -> Vec<Arc<Instance>> {
        self.0.all()
    }

    fn owner(&self, token: &str) -> Option<Arc<Instance>> {
        self.0.owner(token)
    }
}

#[async_trait]
impl Lifecycle for Evolution {
    async fn start(&self) -> Result<(), LifecycleError> {
        self.0.start().await
    }

    fn watch(&self, watcher: Arc<dyn Watcher>) {
        self.0.watch(watcher);
    }

    fn observe(&self, event: &Event) {
        self.0.observe(event);
    }

    async fn switch_off(
        &self,
        instance: &str,
        seen: &Arc<Integration>,
    ) -> Result<bool, LifecycleError> {
        let done = self.0.switch_off(instance, seen).await;
        done.map_err(|refused| {
            let message = format!("cannot switch the {} of `{instance}` off", seen.kind);
            LifecycleError::with_source(message, refused)
        })
    }

    async fn stop(&self) -> Result<(), LifecycleError> {
        self.0.stop().await
    }
}

impl LifecyclePlugin for Evolution {
    const NAME: &'static str = "evolution";
    type Config = Config;

    fn build(config: Config, cx: &BuildContext) -> Result<Self, BuildError> {
        let path = cx.server().data_dir.join("instances.redb");
        let registry = Arc::new(Registry::new(
            path,
            config.unknown_instances,
            Arc::clone(cx.access()),
        ));
        cx.mount("/websocket", api::websocket(Arc::clone(&registry)));
        for prefix in ["/webhook/set", "/webhook/find"] {
            cx.mount(prefix, api::webhook(Arc::clone(&registry)));
        }
        cx.mount("/instance", api::instance(Arc::clone(&registry)));
        Ok(Self(registry))
    }
}
