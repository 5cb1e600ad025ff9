//! A policy on the bench.

use super::keys::{configured, expect_built, problems};
use super::{SomeInstances, context};
use crate::Event;
use crate::config::Settings;
use crate::hub::ChannelName;
use crate::plugin::{BuildContext, BuildError, Instances, Policy, PolicyPlugin};

/// A policy, and the instances that it is asked about.
pub struct PolicyHarness {
    policy: Box<dyn Policy>,
    instances: SomeInstances,
}

// === impl PolicyHarness ===

impl PolicyHarness {
    /// Builds a policy from its keys, written as TOML. There are no instances.
    ///
    /// # Panics
    ///
    /// When the keys have problems or the build fails.
    pub fn from_toml<P: PolicyPlugin>(keys: &str) -> Self {
        expect_built(Self::build_in::<P>(keys, &context(P::NAME)), P::NAME)
    }

    /// The same in a context of the caller's, who decides about the environment: parse, check, build.
    pub fn build_in<P: PolicyPlugin>(keys: &str, cx: &BuildContext) -> Result<Self, BuildError> {
        let config = configured(&Settings::from_text(keys), P::check)?;
        Ok(Self::of(P::build(config, cx)?))
    }

    /// Takes a policy that was made by hand.
    pub fn of(policy: impl Policy) -> Self {
        Self {
            policy: Box::new(policy),
            instances: SomeInstances::default(),
        }
    }

    /// Has these instances in place of none.
    #[must_use]
    pub fn with(mut self, instances: SomeInstances) -> Self {
        self.instances = instances;
        self
    }

    /// What the policy's check says of these keys, as one line; empty when nothing is wrong.
    pub fn problems<P: PolicyPlugin>(keys: &str) -> String {
        problems(keys, P::check)
    }

    /// The policy itself.
    pub fn policy(&self) -> &dyn Policy {
        &*self.policy
    }

    /// The channels that an event goes to, in order: `/`, `/ana`.
    ///
    /// # Panics
    ///
    /// When the policy names a channel twice, takes away what others named, or says something else when it is asked again.
    pub fn channels(&self, event: &Event) -> Vec<String> {
        match routed(&*self.policy, event, &self.instances) {
            Ok(channels) => channels.iter().map(ToString::to_string).collect(),
            Err(broken) => panic!("{broken}"),
        }
    }

    /// Whether clients may follow this channel, written as `/` or `/ana`.
    ///
    /// # Panics
    ///
    /// When no channel can have that name.
    pub fn opens(&self, channel: &str) -> bool {
        let name = match channel.strip_prefix('/') {
            Some("") => Ok(ChannelName::root()),
            Some(instance) => ChannelName::of_instance(instance),
            None => panic!("a channel begins with a slash: `/{channel}`"),
        };
        let name = name.unwrap_or_else(|error| panic!("{channel}: {error}"));
        self.policy.opens(&name, &self.instances)
    }
}

/// Where a policy sends an event. It is an error when it says something else the second time, names a channel twice, or takes
/// away what others named.
pub(super) fn routed(
    policy: &dyn Policy,
    event: &Event,
    instances: &dyn Instances,
) -> Result<Vec<ChannelName>, &'static str> {
    let (mut first, mut second) = (Vec::new(), vec![ChannelName::root()]);
    policy.route(event, instances, &mut first);
    policy.route(event, instances, &mut second);
    if second.first() != Some(&ChannelName::root()) {
        return Err("`route` adds channels; it takes none away");
    }
    second.remove(0);
    if first != second {
        return Err("`route` sends the same event elsewhere when it is asked again");
    }
    let twice = first
        .iter()
        .enumerate()
        .any(|(at, name)| first.iter().take(at).any(|other| other == name));
    if twice {
        return Err("`route` names a channel twice: its clients would get the event twice");
    }
    Ok(first)
}
