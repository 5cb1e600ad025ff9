//! `policy = "traditional"`: an event goes to `/<instance>` when that instance is set to receive it.
//!
//! This is Evolution's traditional mode. An instance's channel opens once it was set and enabled for the
//! first time, and stays open from then on. Nothing is ever sent to `/`, but clients may connect to it,
//! as they may in the original. Events of an instance that is not known go nowhere.

use evows_core::names::same_event;
use evows_core::plugin::{BuildContext, BuildError, Instances, Policy, PolicyPlugin};
use evows_core::{Event, hub::ChannelName, register_policy};
use schemars::JsonSchema;
use serde::Deserialize;

/// It has no keys.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {}

/// Sends an event to its instance's channel, when the instance is set to receive it.
#[derive(Debug, Default)]
pub struct Traditional {}

register_policy!(
    Traditional,
    summary = "Sends an event to `/<instance>` when that instance is set to receive it.",
    example = "",
);

// === impl Traditional ===

impl Policy for Traditional {
    fn route(&self, event: &Event, instances: &dyn Instances, channels: &mut Vec<ChannelName>) {
        let Some(instance) = instances.get(event.instance()) else {
            return;
        };
        let receives = instance.websocket.as_ref().is_some_and(|set| {
            set.enabled
                && set
                    .events
                    .iter()
                    .any(|listed| same_event(listed, event.name()))
        });
        if receives {
            channels.push(instance.channel.clone());
        }
    }

    fn opens(&self, channel: &ChannelName, instances: &dyn Instances) -> bool {
        match channel.instance() {
            Some(name) => instances
                .get(name)
                .is_some_and(|instance| instance.activated),
            None => true,
        }
    }
}

impl PolicyPlugin for Traditional {
    const NAME: &'static str = "traditional";
    type Config = Config;

    fn build(_config: Config, _cx: &BuildContext) -> Result<Self, BuildError> {
        Ok(Self::default())
    }
}

#[cfg(test)]
mod tests {
    use evows_core::testing::{PolicyHarness, SomeInstances, event};

    use super::*;

    fn traditional(known: SomeInstances) -> PolicyHarness {
        PolicyHarness::from_toml::<Traditional>("").with(known)
    }

    #[test]
    fn an_event_goes_where_it_is_set() {
        let policy = traditional(
            SomeInstances::default()
                .subscribed("ana", true, &["MESSAGES_UPSERT", "GROUP_UPDATE"])
                .subscribed("off", false, &["MESSAGES_UPSERT"])
                .subscribed("none", true, &[])
                .unset("new"),
        );
        for (name, instance, channels) in [
            ("messages.upsert", "ana", &["/ana"][..]),
            ("groups.update", "ana", &["/ana"]),
            ("messages.update", "ana", &[]),
            ("CB:call", "ana", &[]),
            ("messages.upsert", "off", &[]),
            ("messages.upsert", "none", &[]),
            ("messages.upsert", "new", &[]),
            ("messages.upsert", "unknown", &[]),
            ("messages.upsert", "Ana", &[]),
        ] {
            let envelope = format!(r#"{{"event":"{name}","instance":"{instance}"}}"#);
            let found = policy.channels(&event(&envelope));
            assert_eq!(found, channels, "{name} of {instance}");
        }
    }

    #[test]
    fn a_channel_is_open_once_its_instance_was_activated() {
        let policy = traditional(
            SomeInstances::default()
                .subscribed("ana", true, &[])
                .subscribed("off", false, &[])
                .unset("new"),
        );
        assert!(policy.opens("/ana"));
        assert!(policy.opens("/off"), "it was enabled before");
        assert!(!policy.opens("/new"));
        assert!(!policy.opens("/unknown"));
        assert!(policy.opens("/"));
    }
}
