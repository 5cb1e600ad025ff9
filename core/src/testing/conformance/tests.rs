//! Plugins that break the rules are found out.

use std::fs::File;

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::Deserialize;

use super::{Plugins, filters, names, no_io, options, policies, reloads, sources, unknown_keys};
use crate::hub::ChannelName;
use crate::plugin::{
    BuildContext, BuildError, Emitter, Filter, FilterPlugin, Instances, Policy, PolicyPlugin,
    Source, SourceError, SourcePlugin,
};
use crate::registry::{Origin, Registration};
use crate::topology::Outlet;
use crate::{Event, Shutdown};

const ORIGIN: Origin = Origin {
    package: "tests",
    file: "tests.rs",
    line: 1,
};

const SUMMARY: &str = "Breaks a rule of plugins.";

/// What a bad filter does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Deed {
    #[default]
    Pass,
    Lose,
    Keep,
    ForgetInReload,
    Discard,
    Panic,
    ReadInBuild,
    OpenInBuild,
    SpawnInBuild,
}

#[derive(Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
struct Config {
    /// What the filter does.
    deed: Deed,
}

struct Bad {
    deed: Deed,
    kept: Vec<Event>,
    _file: Option<File>,
}

impl FilterPlugin for Bad {
    const NAME: &'static str = "bad";
    type Config = Config;

    fn build(config: Config, _: &BuildContext) -> Result<Self, BuildError> {
        let deed = config.deed;
        let (mut file, failed) = (None, |error| BuildError::new(format!("{error}")));
        match deed {
            Deed::ReadInBuild => drop(std::fs::read("/proc/self/status")),
            Deed::OpenInBuild => file = Some(File::open("/dev/null").map_err(failed)?),
            Deed::SpawnInBuild => {
                // For as long as the test's process.
                std::thread::spawn(std::thread::park);
            }
            _ => {}
        }
        Ok(Self {
            deed,
            kept: Vec::new(),
            _file: file,
        })
    }

    fn take_over(&mut self, before: &mut Self) {
        before.kept.clear();
    }
}

impl Filter for Bad {
    fn apply(&mut self, event: Event, out: &mut Emitter<'_>) {
        match self.deed {
            Deed::Lose if event.instance() == "i" => drop(event),
            Deed::Keep | Deed::ForgetInReload => self.kept.push(event),
            Deed::Discard => out.discard(event, "Not a label"),
            Deed::Panic => panic!("over {}", event.name()),
            _ => out.emit(event),
        }
    }

    fn flush(&mut self, out: &mut Emitter<'_>) {
        if self.deed == Deed::ForgetInReload {
            self.kept.drain(..).for_each(|event| out.emit(event));
        }
    }
}

fn filter(example: &'static str) -> Plugins {
    let registration = Registration::filter::<Bad>(SUMMARY, example, ORIGIN);
    Plugins(vec![Box::leak(Box::new(registration))])
}

#[test]
fn a_good_one_passes() {
    let plugins = filter("deed = 'pass'");
    names(&plugins);
    unknown_keys(&plugins);
    options(&plugins);
    filters(&plugins);
    reloads(&plugins);
    no_io(&plugins);
}

#[test]
#[should_panic(expected = "the filter dropped an event")]
fn an_event_that_is_lost_in_a_reload_is_found() {
    let plugins = filter("deed = 'forget_in_reload'");
    filters(&plugins);
    reloads(&plugins);
}

#[test]
#[should_panic(
    expected = "the filter `bad` of tests (tests.rs:1): it panics: the filter dropped an event"
)]
fn a_lost_event_is_found() {
    filters(&filter("deed = 'lose'"));
}

#[test]
#[should_panic(expected = "the filter dropped an event")]
fn an_event_that_is_not_flushed_is_found() {
    filters(&filter("deed = 'keep'"));
}

#[test]
#[should_panic(expected = "is not in `snake_case`")]
fn a_reason_that_is_no_label_is_found() {
    filters(&filter("deed = 'discard'"));
}

#[test]
#[should_panic(expected = "it panics: over application.startup")]
fn a_panic_names_its_plugin() {
    filters(&filter("deed = 'panic'"));
}

#[test]
#[cfg(target_os = "linux")]
#[should_panic(expected = "`check` or `build` reads or writes")]
fn reading_in_a_build_is_found() {
    no_io(&filter("deed = 'read_in_build'"));
}

#[test]
#[cfg(target_os = "linux")]
#[should_panic(expected = "`build` opens a file or socket")]
fn opening_in_a_build_is_found() {
    no_io(&filter("deed = 'open_in_build'"));
}

#[test]
#[cfg(target_os = "linux")]
#[should_panic(expected = "`build` starts a thread")]
fn spawning_in_a_build_is_found() {
    no_io(&filter("deed = 'spawn_in_build'"));
}

/// Its schema says nothing about its key, and it takes any other.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(default)]
struct Loose {
    key: u8,
}

/// Does not listen, and repeats itself.
struct Deaf;

impl SourcePlugin for Deaf {
    const NAME: &'static str = "Deaf";
    type Config = Loose;

    fn build(_: Loose, _: &BuildContext) -> Result<Self, BuildError> {
        Ok(Self)
    }
}

#[async_trait]
impl Source for Deaf {
    async fn run(self: Box<Self>, _: Outlet, _: Shutdown) -> Result<(), SourceError> {
        std::future::pending().await
    }
}

impl PolicyPlugin for Deaf {
    const NAME: &'static str = "deaf";
    type Config = Loose;

    fn build(_: Loose, _: &BuildContext) -> Result<Self, BuildError> {
        Ok(Self)
    }
}

impl Policy for Deaf {
    fn route(&self, _: &Event, _: &dyn Instances, channels: &mut Vec<ChannelName>) {
        channels.extend([ChannelName::root(), ChannelName::root()]);
    }

    fn opens(&self, _: &ChannelName, _: &dyn Instances) -> bool {
        true
    }
}

fn deaf() -> Plugins {
    let registration = Registration::source::<Deaf>(SUMMARY, "", ORIGIN);
    Plugins(vec![Box::leak(Box::new(registration))])
}

#[test]
#[should_panic(expected = "runs on a second after it was told to stop")]
fn a_source_that_does_not_stop_is_found() {
    sources(&deaf());
}

#[test]
#[should_panic(expected = "its NAME is not in `snake_case`")]
fn a_name_in_capitals_is_found() {
    names(&deaf());
}

#[test]
#[should_panic(expected = "#[serde(deny_unknown_fields)]")]
fn a_configuration_that_takes_any_key_is_found() {
    unknown_keys(&deaf());
}

#[test]
#[should_panic(expected = "its schema allows any key")]
fn a_schema_that_allows_any_key_is_found() {
    options(&deaf());
}

#[test]
#[should_panic(expected = "names a channel twice")]
fn a_policy_that_repeats_itself_is_found() {
    let registration = Registration::policy::<Deaf>(SUMMARY, "", ORIGIN);
    policies(&Plugins(vec![Box::leak(Box::new(registration))]));
}

#[test]
#[should_panic(expected = "registers no plugin")]
fn a_crate_without_plugins_is_told() {
    Plugins::of_package("no-such-crate");
}
