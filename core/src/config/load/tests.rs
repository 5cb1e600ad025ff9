//! Loads whole files, with plugins that exist here alone.

use std::sync::Arc;

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::Deserialize;

use super::*;
use crate::plugin::{
    Batch, BuildContext, BuildError, Emitter, Filter, FilterPlugin, Instance, Instances, Lifecycle,
    LifecycleError, LifecyclePlugin, Sink, SinkError, SinkPlugin, Source, SourceError,
    SourcePlugin, Watcher,
};
use crate::topology::Outlet;
use crate::{Event, Shutdown, register_filter, register_lifecycle, register_sink, register_source};

struct Double;

/// The double's keys.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
struct Keys {
    /// Named ports.
    ports: Vec<String>,
    /// Refused by the check.
    refused: Option<String>,
    burst: u32,
}

fn refuse(keys: &Keys) -> Vec<Problem> {
    let refused = keys.refused.iter();
    refused
        .map(|word| Problem::new("refused", format!("not `{word}`")).at_key("refused"))
        .collect()
}

#[async_trait]
impl Source for Double {
    async fn run(self: Box<Self>, _: Outlet, _: Shutdown) -> Result<(), SourceError> {
        Ok(())
    }
}

impl SourcePlugin for Double {
    const NAME: &'static str = "double-source";
    type Config = Keys;

    fn build(_: Keys, _: &BuildContext) -> Result<Self, BuildError> {
        Ok(Self)
    }
}

impl Filter for Double {
    fn apply(&mut self, event: Event, out: &mut Emitter<'_>) {
        out.emit(event);
    }
}

impl FilterPlugin for Double {
    const NAME: &'static str = "double-filter";
    type Config = Keys;

    fn check(keys: &Keys) -> Vec<Problem> {
        refuse(keys)
    }

    fn ports(keys: &Keys) -> Vec<String> {
        keys.ports.clone()
    }

    fn build(_: Keys, _: &BuildContext) -> Result<Self, BuildError> {
        Ok(Self)
    }
}

#[async_trait]
impl Sink for Double {
    async fn send(&self, _: Batch<'_>) -> Result<(), SinkError> {
        Ok(())
    }
}

impl SinkPlugin for Double {
    const NAME: &'static str = "double-sink";
    type Config = Keys;

    fn build(_: Keys, _: &BuildContext) -> Result<Self, BuildError> {
        Ok(Self)
    }
}

impl Instances for Double {
    fn get(&self, _: &str) -> Option<Arc<Instance>> {
        None
    }

    fn all(&self) -> Vec<Arc<Instance>> {
        Vec::new()
    }

    fn owner(&self, _: &str) -> Option<Arc<Instance>> {
        None
    }
}

#[async_trait]
impl Lifecycle for Double {
    async fn start(&self) -> Result<(), LifecycleError> {
        Ok(())
    }

    fn watch(&self, _: Arc<dyn Watcher>) {}
}

impl LifecyclePlugin for Double {
    const NAME: &'static str = "double-lifecycle";
    type Config = Keys;

    fn build(_: Keys, _: &BuildContext) -> Result<Self, BuildError> {
        Ok(Self)
    }
}

register_source!(Double, summary = "A source for tests.", example = "");
register_filter!(Double, summary = "A filter for tests.", example = "");
register_sink!(Double, summary = "A sink for tests.", example = "");
register_lifecycle!(Double, summary = "A lifecycle for tests.", example = "");

const SOUND: &str = r#"
[lifecycle]
type = "double-lifecycle"
[sources.in]
type = "double-source"
[filters.split]
type = "double-filter"
inputs = ["in"]
ports = ["left"]
[sinks.out]
type = "double-sink"
inputs = ["split", "split.left"]
"#;

fn environment() -> Environment {
    [("SECRET", "hunter2-hunter2"), ("SIZE", "7")]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into_iter()
        .collect()
}

fn diagnostics(text: &str) -> Vec<Diagnostic> {
    match Config::load(text, "evows.toml", &environment()) {
        Ok((_, warnings)) => warnings,
        Err(diagnostics) => diagnostics,
    }
}

/// Code and excerpt of everything that is wrong with `text`.
fn found(text: &str) -> Vec<(&'static str, String)> {
    diagnostics(text)
        .into_iter()
        .map(|diagnostic| {
            let span = diagnostic.span.unwrap_or_default();
            (diagnostic.code, text.get(span).unwrap().to_owned())
        })
        .collect()
}

fn with(from: &str, to: &str) -> String {
    assert!(SOUND.contains(from));
    SOUND.replacen(from, to, 1)
}

#[test]
fn a_sound_file_gives_every_part() {
    let text = format!(
        "{SOUND}\nrequired = false\nbuffer = {{ events = '${{SIZE}}', when_full = 'drop_oldest' }}\n\
         [hub]\nevents = 5\n[server]\nlisten = '127.0.0.1:${{SIZE}}'"
    );
    let (config, warnings) = Config::load(&text, "evows.toml", &environment()).unwrap();
    assert_eq!(warnings, []);
    assert_eq!(config.hub.events, 5);
    assert_eq!(config.server.listen.port(), 7);
    assert_eq!(config.lifecycle.plugin.name, "double-lifecycle");
    assert_eq!(config.pipeline.filters[0].ports, ["left"]);
    let sink = &config.pipeline.sinks[0];
    assert_eq!(sink.inputs[1], Input::parse("split.left"));
    assert_eq!((sink.required, sink.buffer.events), (false, 7));
    let keys: Keys = config.pipeline.filters[0]
        .component
        .settings
        .read()
        .unwrap();
    assert_eq!(keys.ports, ["left"]);
}

#[test]
fn every_problem_of_a_file_is_reported_in_its_order() {
    let text = r#"
lisen = 1
[server]
listen = "nowhere"
max_connections = "many"
[lifecycle]
type = "double-lifecycl"
[sources.in]
type = "double-source"
brust = 1
[filters.f]
type = "double-filter"
inputs = ["inn"]
burst = "${NONE}"
[sinks."a b"]
type = "double-filter"
inputs = ["f", "f.left"]
buffer = { evens = 1 }
"#;
    let found = found(text);
    let found: Vec<_> = found
        .iter()
        .map(|(code, at)| (*code, at.as_str()))
        .collect();
    assert_eq!(
        found,
        [
            (codes::UNKNOWN_SECTION, "lisen"),
            (codes::INVALID_VALUE, "\"nowhere\""),
            (codes::WRONG_TYPE, "\"many\""),
            (codes::UNKNOWN_PLUGIN, "\"double-lifecycl\""),
            (codes::UNKNOWN_KEY, "brust"),
            (codes::UNKNOWN_INPUT, "\"inn\""),
            (codes::MISSING_VARIABLE, "\"${NONE}\""),
            (codes::INVALID_ID, "\"a b\""),
            (codes::UNKNOWN_PLUGIN, "\"double-filter\""),
            (codes::UNKNOWN_KEY, "evens"),
        ]
    );
}

#[test]
fn keys_of_core_in_the_wrong_section_are_explained() {
    let text = with(
        "type = \"double-source\"",
        "type = \"double-source\"\ninputs = [\"x\"]",
    );
    let found = diagnostics(&text);
    assert_eq!(
        found[0].help.as_deref(),
        Some("`inputs` belongs to filters and sinks; take it away")
    );
    let text = with("inputs = [\"in\"]", "input = [\"in\"]");
    assert_eq!(
        diagnostics(&text)
            .into_iter()
            .map(|d| (d.code, d.help))
            .collect::<Vec<_>>(),
        [(
            codes::UNKNOWN_KEY,
            Some("did you mean `inputs`?".to_owned())
        )]
    );
}

#[test]
fn a_check_speaks_of_its_key_and_hides_what_is_secret() {
    let text = with(
        "ports = [\"left\"]",
        "ports = [\"left\"]\nrefused = \"${SECRET}\"",
    );
    let found = diagnostics(&text);
    assert_eq!(found[0].message, "not `${SECRET}`");
    assert_eq!(
        text.get(found[0].span.clone().unwrap()),
        Some("\"${SECRET}\"")
    );
}

#[test]
fn syntax_errors_do_not_hide_the_rest_nor_add_to_it() {
    let text = with("ports = [\"left\"]", "ports = = 3\nbrust = 1");
    let codes: Vec<_> = found(&text).into_iter().map(|(code, _)| code).collect();
    assert!(codes.contains(&codes::SYNTAX), "{codes:?}");
    assert!(codes.contains(&codes::UNKNOWN_KEY), "{codes:?}");
    assert!(!codes.contains(&codes::UNKNOWN_PORT), "{codes:?}");
    let twice = format!("{SOUND}\n[sources.in]\ntype = \"double-source\"");
    let found = found(&twice);
    assert_eq!(found[0].0, codes::DUPLICATE_KEY, "{found:?}");
}

#[test]
fn ids_are_unique_over_all_sections() {
    let text = format!("{SOUND}\n[sinks.in]\ntype = \"double-sink\"\ninputs = [\"in\"]");
    assert_eq!(found(&text), [(codes::DUPLICATE_ID, "in".to_owned())]);
}

#[test]
fn an_unread_port_is_a_warning_and_the_file_still_loads() {
    let text = with(", \"split.left\"", "");
    let (_, warnings) = Config::load(&text, "evows.toml", &environment()).unwrap();
    assert_eq!(warnings[0].code, codes::UNREAD_PORT);
    assert_eq!((warnings[0].line, warnings[0].column), (Some(6), Some(10)));
}

#[test]
fn an_empty_file_says_what_it_lacks() {
    let codes: Vec<_> = found("").into_iter().map(|(code, _)| code).collect();
    assert!(codes.contains(&codes::NO_SOURCE) && codes.contains(&codes::NO_SINK));
}

#[test]
fn what_type_and_inputs_take_from_outside_is_hidden() {
    let text = "[lifecycle]\ntype = '${T}'\n[sources.a]\ntype = '${T}'\n[sources.b]\ntype = 'double-source'\n\
         [sinks.x]\ntype = 'double-sink'\ninputs = ['b', 'b.${T}', '${T}', 'x${T}']\n";
    for secret in ["s3cret-value", "s3cret.s3cret"] {
        let environment = [("T".to_owned(), secret.to_owned())].into_iter().collect();
        let found = Config::load(text, "a.toml", &environment).unwrap_err();
        assert!(found.len() > 3, "{found:#?}");
        assert!(!format!("{found:?}").contains("s3cret"), "{found:#?}");
    }
}
