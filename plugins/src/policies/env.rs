//! `policy = "env"`: what the environment variables that Evolution reads ask for.
//!
//! | variable | value | meaning |
//! |---|---|---|
//! | `WEBSOCKET_ENABLED` | unset, or `true` | live clients are served |
//! | | anything else | live clients are not served at all |
//! | `WEBSOCKET_GLOBAL_EVENTS` | `true` | [`both`](super::both) |
//! | | unset, or anything else | [`traditional`](super::traditional) |
//!
//! Only exactly `true` is true, as in the original. Unlike there, an unset `WEBSOCKET_ENABLED` serves:
//! whoever writes a transport into the file wants it.

use evows_core::plugin::{BuildContext, BuildError, Environment, Instances, Policy, PolicyPlugin};
use evows_core::{Event, hub::ChannelName, register_policy};
use schemars::JsonSchema;
use serde::Deserialize;

use super::both::Both;
use super::traditional::Traditional;

/// It has no keys: everything comes from the environment.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {}

/// Sends an event where the policy that the environment asks for sends it.
pub struct Env {
    enabled: bool,
    chosen: Box<dyn Policy>,
}

register_policy!(
    Env,
    summary = "Does what `WEBSOCKET_ENABLED` and `WEBSOCKET_GLOBAL_EVENTS` ask for.",
    example = "",
);

// === impl Env ===

impl Env {
    fn of(environment: &Environment) -> Self {
        let global = environment
            .flag("WEBSOCKET_GLOBAL_EVENTS")
            .unwrap_or_default();
        let chosen: Box<dyn Policy> = if global {
            Box::new(Both::default())
        } else {
            Box::new(Traditional::default())
        };
        Self {
            enabled: environment.flag("WEBSOCKET_ENABLED").unwrap_or(true),
            chosen,
        }
    }
}

impl Policy for Env {
    fn route(&self, event: &Event, instances: &dyn Instances, channels: &mut Vec<ChannelName>) {
        self.chosen.route(event, instances, channels);
    }

    fn opens(&self, channel: &ChannelName, instances: &dyn Instances) -> bool {
        self.chosen.opens(channel, instances)
    }

    fn is_enabled(&self) -> bool {
        self.enabled
    }
}

impl PolicyPlugin for Env {
    const NAME: &'static str = "env";
    type Config = Config;

    fn build(_config: Config, cx: &BuildContext) -> Result<Self, BuildError> {
        let policy = Self::of(cx.environment());
        tracing::info!(
            global = cx.environment().flag("WEBSOCKET_GLOBAL_EVENTS") == Some(true),
            enabled = policy.enabled,
            "the WEBSOCKET_* variables choose who gets which events"
        );
        Ok(policy)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use evows_core::testing::{NoInstances, PolicyHarness, SomeInstances, context_with, event};

    use super::*;

    fn of(variables: &[(&str, &str)]) -> PolicyHarness {
        let owned = variables
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let cx = context_with("env", Arc::new(NoInstances), owned.collect());
        let known = SomeInstances::default().subscribed("ana", true, &["CALL"]);
        PolicyHarness::build_in::<Env>("", &cx).unwrap().with(known)
    }

    #[test]
    fn only_exactly_true_is_true() {
        assert!(of(&[]).policy().is_enabled());
        for (value, enabled) in [
            ("true", true),
            ("TRUE", false),
            ("1", false),
            (" true", false),
            ("", false),
        ] {
            let harness = of(&[("WEBSOCKET_ENABLED", value)]);
            assert_eq!(harness.policy().is_enabled(), enabled, "{value:?}");
        }
    }

    #[test]
    fn global_events_add_the_root() {
        let call = event(r#"{"event":"call","instance":"ana"}"#);
        for (variables, channels) in [
            (&[][..], &["/ana"][..]),
            (&[("WEBSOCKET_GLOBAL_EVENTS", "true")], &["/", "/ana"]),
            (&[("WEBSOCKET_GLOBAL_EVENTS", "True")], &["/ana"]),
        ] {
            assert_eq!(of(variables).channels(&call), channels, "{variables:?}");
        }
        assert!(of(&[]).opens("/"));
    }
}
