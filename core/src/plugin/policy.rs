//! Which channels an event goes to.

use schemars::JsonSchema;
use serde::de::DeserializeOwned;

use super::{BuildContext, BuildError, Instances};
use crate::Event;
use crate::config::Problem;
use crate::hub::ChannelName;

/// A policy: event and instances in, channels out. Pure and quick; called for every event.
///
/// The sink that publishes under it calls it, on the sink's task, possibly several at once: the answer depends on the arguments
/// alone. Nothing here fails or is async. A panic is one of that sink: its batch fails, and sink and policy are built again.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a policy",
    label = "implement `evows::plugin::Policy` for it"
)]
pub trait Policy: Send + Sync + 'static {
    /// Adds the channels that `event` goes to, in the order of delivery, each once. Adding none filters the event.
    fn route(&self, event: &Event, instances: &dyn Instances, channels: &mut Vec<ChannelName>);

    /// Whether clients may follow `channel` now. Asked at start for `/` and for each instance's channel,
    /// and again whenever an instance changes; a channel that events were routed to is open by itself.
    fn opens(&self, channel: &ChannelName, instances: &dyn Instances) -> bool;

    /// Whether live clients are served at all. `false` leaves the transport's routes unmounted.
    fn is_enabled(&self) -> bool {
        true
    }
}

/// How a policy comes to be.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be registered as a policy",
    label = "implement `evows::plugin::PolicyPlugin` for it"
)]
pub trait PolicyPlugin: Policy + Sized {
    /// The name that selects it: `policy = "name"`, or `policy = { type = "name", ... }`.
    const NAME: &'static str;
    /// Its keys, less `type`.
    type Config: DeserializeOwned + JsonSchema;

    /// What is wrong with a configuration that parsed, all of it. No I/O: `evows validate` runs it. Any error among the problems
    /// keeps evows from starting.
    fn check(_config: &Self::Config) -> Vec<Problem> {
        Vec::new()
    }

    /// Makes the policy. No I/O, no spawning; the environment is read through the context.
    ///
    /// The plugin that names the policy has it built, in its own build, and passes on an error as its own.
    fn build(config: Self::Config, cx: &BuildContext) -> Result<Self, BuildError>;
}
