//! Sends each event to the channel of its instance, and those of some instances to everybody.

use evows::hub::ChannelName;
use evows::plugin::{BuildContext, BuildError, Instances, Policy, PolicyPlugin};
use evows::schemars::JsonSchema;
use evows::serde::Deserialize;
use evows::{Event, register_policy};

/// The keys in `evows.toml`. `evows explain my_policy` shows their doc comments.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(crate = "evows::serde", deny_unknown_fields, default)]
#[schemars(crate = "evows::schemars")]
struct Config {
    /// The instances whose events go to `/` as well.
    shared: Vec<String>,
}

/// The policy.
struct MyPolicy {
    shared: Vec<String>,
}

register_policy!(
    MyPolicy,
    summary = "Sends each event to its instance, and those of some to `/`.",
    example = "shared = [\"loja1\"]\n",
);

impl PolicyPlugin for MyPolicy {
    const NAME: &'static str = "my_policy";
    type Config = Config;

    fn build(config: Config, _cx: &BuildContext) -> Result<Self, BuildError> {
        Ok(Self {
            shared: config.shared,
        })
    }
}

impl Policy for MyPolicy {
    fn route(&self, event: &Event, _instances: &dyn Instances, channels: &mut Vec<ChannelName>) {
        if self.shared.iter().any(|name| name == event.instance()) {
            channels.push(ChannelName::root());
        }
        // Some names cannot be those of a channel: nobody can ask for them.
        channels.extend(ChannelName::of_instance(event.instance()));
    }

    fn opens(&self, channel: &ChannelName, instances: &dyn Instances) -> bool {
        match channel.instance() {
            Some(name) => instances.get(name).is_some(),
            None => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use evows::testing::{PolicyHarness, SomeInstances, event};

    use super::*;

    #[test]
    fn some_are_shared() {
        let policy = PolicyHarness::from_toml::<MyPolicy>("shared = ['a']");
        let of = |instance| event(&format!(r#"{{"event":"call","instance":"{instance}"}}"#));
        assert_eq!(policy.channels(&of("a")), ["/", "/a"]);
        assert_eq!(policy.channels(&of("b")), ["/b"]);
    }

    #[test]
    fn known_instances_have_a_channel() {
        let known = SomeInstances::default().unset("a");
        let policy = PolicyHarness::from_toml::<MyPolicy>("").with(known);
        assert!(policy.opens("/") && policy.opens("/a"));
        assert!(!policy.opens("/b"));
    }
}
