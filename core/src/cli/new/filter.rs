//! Lets through the events of some instances, and discards the others.

use evows::config::Problem;
use evows::plugin::{BuildContext, BuildError, Emitter, Filter, FilterPlugin};
use evows::schemars::JsonSchema;
use evows::serde::Deserialize;
use evows::{Event, register_filter};

/// The keys in `evows.toml`. `evows explain my_filter` shows their doc comments.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(crate = "evows::serde", deny_unknown_fields)]
#[schemars(crate = "evows::schemars")]
struct Config {
    /// The instances whose events pass.
    instances: Vec<String>,
}

/// The running filter.
struct MyFilter {
    instances: Vec<String>,
}

register_filter!(
    MyFilter,
    summary = "Lets through the events of some instances.",
    example = "instances = [\"loja1\"]\n",
);

impl FilterPlugin for MyFilter {
    const NAME: &'static str = "my_filter";
    type Config = Config;

    fn check(config: &Config) -> Vec<Problem> {
        if config.instances.is_empty() {
            let problem = Problem::new("invalid-value", "`instances` is empty: nothing would pass");
            let help = "write names of instances, such as [\"loja1\"]";
            return vec![problem.at_key("instances").help(help)];
        }
        Vec::new()
    }

    fn build(config: Config, _cx: &BuildContext) -> Result<Self, BuildError> {
        Ok(Self {
            instances: config.instances,
        })
    }
}

impl Filter for MyFilter {
    fn apply(&mut self, event: Event, out: &mut Emitter<'_>) {
        if self.instances.iter().any(|name| name == event.instance()) {
            out.emit(event);
        } else {
            out.discard(event, "other_instance");
        }
    }
}

#[cfg(test)]
mod tests {
    use evows::testing::FilterHarness;

    use super::*;

    #[test]
    fn passes_its_instances_and_discards_the_others() {
        let mut filter = FilterHarness::<MyFilter>::from_toml("instances = ['a']");
        filter.send_json(r#"{"event":"call","instance":"a"}"#);
        filter.send_json(r#"{"event":"call","instance":"b"}"#);
        assert_eq!(filter.emitted().len(), 1);
        assert_eq!(filter.discarded()[0].1, "other_instance");
        // It panics here if an event was neither emitted, discarded, failed nor held.
        filter.finish();
    }

    #[test]
    fn says_that_nothing_would_pass() {
        let problems = FilterHarness::<MyFilter>::problems("instances = []");
        assert!(problems.contains("is empty"), "{problems}");
    }
}
