//! `policy = "global"`: every event of every instance goes to `/`, unfiltered.
//!
//! This is Evolution's global mode. What an instance is set to receive changes nothing here, and the
//! channels of single instances do not exist.

use evows_core::plugin::{BuildContext, BuildError, Instances, Policy, PolicyPlugin};
use evows_core::{Event, hub::ChannelName, register_policy};
use schemars::JsonSchema;
use serde::Deserialize;

/// It has no keys.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {}

/// Sends every event to the channel of every instance.
#[derive(Debug)]
pub struct Global {
    root: ChannelName,
}

register_policy!(
    Global,
    summary = "Sends every event to `/`, whatever its instance is set to.",
    example = "",
);

// === impl Global ===

impl Default for Global {
    fn default() -> Self {
        Self {
            root: ChannelName::root(),
        }
    }
}

impl Policy for Global {
    fn route(&self, _event: &Event, _instances: &dyn Instances, channels: &mut Vec<ChannelName>) {
        channels.push(self.root.clone());
    }

    fn opens(&self, channel: &ChannelName, _instances: &dyn Instances) -> bool {
        channel.is_root()
    }
}

impl PolicyPlugin for Global {
    const NAME: &'static str = "global";
    type Config = Config;

    fn build(_config: Config, _cx: &BuildContext) -> Result<Self, BuildError> {
        Ok(Self::default())
    }
}

#[cfg(test)]
mod tests {
    use evows_core::testing::{PolicyHarness, SomeInstances, event};

    use super::*;

    fn global() -> PolicyHarness {
        let known = SomeInstances::default().subscribed("ana", true, &["CALL"]);
        PolicyHarness::from_toml::<Global>("").with(known)
    }

    #[test]
    fn every_event_goes_to_the_root() {
        for envelope in [
            r#"{"event":"call","instance":"ana"}"#,
            r#"{"event":"messages.upsert","instance":"ana"}"#,
            r#"{"event":"CB:call","instance":"bob"}"#,
        ] {
            assert_eq!(global().channels(&event(envelope)), ["/"]);
        }
    }

    #[test]
    fn only_the_root_is_open() {
        assert!(global().opens("/"));
        assert!(!global().opens("/ana"));
        assert!(global().policy().is_enabled());
    }
}
