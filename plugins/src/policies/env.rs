//! Routes as Evolution does under the same environment variables.
//!
//! `WEBSOCKET_ENABLED=true` serves clients at all. With `WEBSOCKET_GLOBAL_EVENTS=true` every event goes to `/`; with or
//! without it, an event goes to `/<instance>` when the instance is set and its list has the event.

use evows_core::hub::ChannelName;
use evows_core::plugin::{BuildContext, BuildError, Instances, Policy, PolicyPlugin};
use evows_core::{Event, names, register_policy};
use schemars::JsonSchema;
use serde::Deserialize;

/// Routes as Evolution does under the same environment variables.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {}

/// The policy.
#[derive(Debug)]
pub struct Env {
    enabled: bool,
    global: bool,
}

register_policy!(
    Env,
    summary = "Routes as Evolution does under the same WEBSOCKET_* variables",
    example = "",
);

// === impl Env ===

impl PolicyPlugin for Env {
    const NAME: &'static str = "env";
    type Config = Config;

    fn build(_config: Config, cx: &BuildContext) -> Result<Self, BuildError> {
        let flag = |name: &str| cx.environment().flag(name).unwrap_or(false);
        Ok(Self {
            enabled: flag("WEBSOCKET_ENABLED"),
            global: flag("WEBSOCKET_GLOBAL_EVENTS"),
        })
    }
}

impl Policy for Env {
    fn route(&self, event: &Event, instances: &dyn Instances, channels: &mut Vec<ChannelName>) {
        if self.global {
            channels.push(ChannelName::root());
        }
        if let Some(instance) = instances.get(event.instance())
            && let Some(set) = &instance.websocket
            && set.enabled
            && set
                .events
                .iter()
                .any(|listed| names::same_event(listed, event.name()))
        {
            channels.push(instance.channel.clone());
        }
    }

    fn opens(&self, channel: &ChannelName, instances: &dyn Instances) -> bool {
        match channel.instance() {
            None => true,
            Some(name) => instances
                .get(name)
                .is_some_and(|instance| instance.activated),
        }
    }

    fn is_enabled(&self) -> bool {
        self.enabled
    }
}
