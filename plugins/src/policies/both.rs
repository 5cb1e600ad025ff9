//! `policy = "both"`: every event goes to `/`, and to `/<instance>` when that instance is set to receive it.
//!
//! Evolution evaluates its two modes independently of each other, `/` first; so does this.

use evows_core::plugin::{BuildContext, BuildError, Instances, Policy, PolicyPlugin};
use evows_core::{Event, hub::ChannelName, register_policy};
use schemars::JsonSchema;
use serde::Deserialize;

use super::global::Global;
use super::traditional::Traditional;

/// It has no keys.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {}

/// Sends an event where [`Global`] sends it, then where [`Traditional`] does.
#[derive(Debug, Default)]
pub struct Both {
    global: Global,
    traditional: Traditional,
}

register_policy!(
    Both,
    summary =
        "Sends every event to `/`, and to `/<instance>` when that instance is set to receive it.",
    example = "",
);

// === impl Both ===

impl Policy for Both {
    fn route(&self, event: &Event, instances: &dyn Instances, channels: &mut Vec<ChannelName>) {
        self.global.route(event, instances, channels);
        self.traditional.route(event, instances, channels);
    }

    fn opens(&self, channel: &ChannelName, instances: &dyn Instances) -> bool {
        self.global.opens(channel, instances) || self.traditional.opens(channel, instances)
    }
}

impl PolicyPlugin for Both {
    const NAME: &'static str = "both";
    type Config = Config;

    fn build(_config: Config, _cx: &BuildContext) -> Result<Self, BuildError> {
        Ok(Self::default())
    }
}

#[cfg(test)]
mod tests {
    use evows_core::testing::{PolicyHarness, SomeInstances, event};

    use super::*;

    #[test]
    fn the_root_comes_first() {
        let known = SomeInstances::default().subscribed("ana", true, &["CALL"]);
        let both = PolicyHarness::from_toml::<Both>("").with(known);
        for (envelope, channels) in [
            (r#"{"event":"call","instance":"ana"}"#, &["/", "/ana"][..]),
            (r#"{"event":"messages.upsert","instance":"ana"}"#, &["/"]),
            (r#"{"event":"call","instance":"unknown"}"#, &["/"]),
        ] {
            assert_eq!(both.channels(&event(envelope)), channels, "{envelope}");
        }
        assert!(both.opens("/"));
        assert!(both.opens("/ana"));
        assert!(!both.opens("/unknown"));
    }
}
