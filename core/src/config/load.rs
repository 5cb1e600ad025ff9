//! From a file's text to a [`Config`], or to everything that is wrong with it.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use serde::de::DeserializeOwned;
use toml::Spanned;
use toml::de::{DeString, DeTable, DeValue};

use super::graph::{self, Vertex};
use super::inside::inside;
use super::place::{beside_syntax, place};
use super::read::{Reader, hide, offer};
use super::section::{
    self, DEFAULT_LIFECYCLE, LIFECYCLE, PIPELINE, SECTIONS, Section, TESTS, TRANSPORTS,
};
use super::tree::{self, Node};
use super::{
    BufferConfig, Component, Config, Diagnostic, FilterNode, HistoryConfig, HubConfig, Input,
    Pipeline, Place, Problem, ServerConfig, Settings, Severity, SinkNode, codes, overrides,
    suggest,
};
use crate::access::is_usable;
use crate::delivery::DeliveryConfig;
use crate::plugin::Environment;
use crate::registry::{self, Kind, Registration};

/// One reading of one file.
struct Loader<'t> {
    text: &'t Arc<str>,
    environment: &'t Environment,
    root: &'t Node<'t>,
    problems: Vec<Problem>,
}

/// A `[<section>.<id>]`, as far as it could be read.
struct Part {
    vertex: Vertex,
    component: Option<Component>,
    sink: SinkKeys,
}

/// The keys of a sink that core reads.
#[derive(Default)]
struct SinkKeys {
    buffer: BufferConfig,
    delivery: DeliveryConfig,
    /// Whether `required` is false.
    optional: bool,
}

/// It is wrong, and the problem is added.
struct Reported;

// === impl Config ===

impl Config {
    /// Reads and checks a configuration.
    ///
    /// Returns it with its warnings; or every problem that it has, in the order of the file. `file` is its
    /// name for the diagnostics. Reads the environment and the files of `${file:...}`, touches nothing else.
    pub fn load(
        text: &str,
        file: &str,
        environment: &Environment,
    ) -> Result<(Self, Vec<Diagnostic>), Vec<Diagnostic>> {
        let text: Arc<str> = text.into();
        let (document, errors) = DeTable::parse_recoverable(&text);
        let root = tree::root(document);
        let mut loader = Loader {
            text: &text,
            environment,
            root: &root,
            problems: Vec::new(),
        };
        let config = loader.config(errors.is_empty());
        let mut problems = loader.problems;
        if !errors.is_empty() {
            problems = beside_syntax(problems, &errors, &text);
        }
        let diagnostics = place(problems, file, &text);
        let failed = diagnostics
            .iter()
            .any(|diagnostic| diagnostic.severity == Severity::Error);
        match config {
            Some(config) if !failed => Ok((config, diagnostics)),
            _ => Err(diagnostics),
        }
    }

    /// Reads the file's text; the error says what to do.
    pub fn read_text(path: &Path) -> Result<String, Box<Diagnostic>> {
        let name = path.display().to_string();
        let unreadable = |message: String| Problem::new(codes::UNREADABLE_CONFIG, message);
        let bytes = std::fs::read(path).map_err(|error| {
            let problem = match error.kind() {
                std::io::ErrorKind::NotFound => unreadable(format!("there is no file `{name}`"))
                    .help(
                        "write one, or name another with `--config FILE`; \
                         `evows explain <plugin>` shows an example of each part",
                    ),
                std::io::ErrorKind::IsADirectory => unreadable(format!("`{name}` is a folder"))
                    .help("name the file in it, such as `--config folder/evows.toml`"),
                _ => unreadable(format!("cannot read `{name}`: {error}"))
                    .help("evows must be allowed to read it"),
            };
            Box::new(Diagnostic::of_file(problem, &name))
        })?;
        String::from_utf8(bytes).map_err(|error| {
            let at = error.utf8_error().valid_up_to();
            let before = error.as_bytes().iter().take(at);
            let line = before.filter(|byte| **byte == b'\n').count() + 1;
            let message = format!("`{name}` is not UTF-8 text: line {line} has bytes that are not");
            let help = "save it as UTF-8; other encodings are not TOML";
            Box::new(Diagnostic::of_file(unreadable(message).help(help), &name))
        })
    }
}

// === impl Loader ===

impl Loader<'_> {
    fn config(&mut self, well_formed: bool) -> Option<Config> {
        self.unknown_sections();
        let server = self.server();
        let hub: Option<HubConfig> = self.section("hub");
        let history: Option<HistoryConfig> = self.section("history");
        let lifecycle = self.lifecycle();
        let (transports, _) = self.parts(&TRANSPORTS);
        let misnamed = |problem: &Problem| problem.code == codes::UNKNOWN_SECTION;
        let mut complete = well_formed && !self.problems.iter().any(misnamed);
        let mut parts = Vec::new();
        for section in &PIPELINE {
            let (read, all) = self.parts(section);
            parts.extend(read);
            complete &= all;
        }
        let vertices: Vec<&Vertex> = parts
            .iter()
            .chain(&transports)
            .map(|part| &part.vertex)
            .collect();
        let mut problems = graph::duplicate_ids(&vertices);
        let others: Vec<_> = transports
            .iter()
            .map(|part| (Arc::clone(&part.vertex.id), Kind::Transport))
            .collect();
        let (graph, parts): (Vec<Vertex>, Vec<_>) = parts.into_iter().map(Part::split).unzip();
        if well_formed {
            let mut found = graph::check(&graph, &others, complete);
            hide(&mut found, &self.hidden_inputs(&graph));
            problems.extend(found);
        }
        self.problems.extend(problems);
        Some(Config {
            server: Arc::new(server?),
            hub: hub?.into(),
            history: history?,
            lifecycle: lifecycle?,
            transports: transports
                .into_iter()
                .filter_map(|part| part.component)
                .collect(),
            pipeline: pipeline(graph, parts),
        })
    }

    fn unknown_sections(&mut self) {
        let root = self.root;
        for (key, value) in root.get_ref().as_table().into_iter().flatten() {
            let name = &**key.get_ref();
            // Those who run them check them: they must not keep a pipeline from running.
            if name == TESTS {
                continue;
            }
            if SECTIONS.contains(&name) {
                if !value.get_ref().is_table() {
                    let message = format!(
                        "`{name}` must be a section, not the {} that it is",
                        value.get_ref().type_str()
                    );
                    let problem = Problem::new(codes::WRONG_TYPE, message)
                        .help(format!("write it as `[{name}]` and its keys below that"));
                    self.problems.push(problem.at_span(value.span()));
                }
                continue;
            }
            let what = if value.get_ref().is_table() {
                "section"
            } else {
                "key"
            };
            let message = format!("there is no {what} `{name}` at the top level");
            let problem = Problem::new(codes::UNKNOWN_SECTION, message).at_span(key.span());
            self.problems.push(if section::is_key_of_server(name) {
                problem.help(format!("`{name}` belongs into `[server]`"))
            } else {
                offer(problem, name, &SECTIONS)
            });
        }
    }

    fn server(&mut self) -> Option<ServerConfig> {
        let mut server: ServerConfig = self.section("server")?;
        if server
            .api_key
            .as_deref()
            .is_some_and(|key| key.trim().is_empty())
        {
            let problem = Problem::new(codes::INVALID_VALUE, "`api_key` is empty")
                .help("leave the key out, and evows makes a random one and keeps it");
            self.add(vec![problem.at_key("api_key")], &["server"]);
        }
        let problems = overrides::apply(&mut server, self.environment);
        self.problems.extend(problems);
        let key = server.api_key.as_deref().unwrap_or_default();
        if !key.trim().is_empty() && !is_usable(key) {
            let message = "the API key has a space or a control character in it";
            // Its line is not shown: it is a secret.
            let problem = Problem::new(codes::INVALID_VALUE, message)
                .help("no header can carry it: set `api_key` or AUTHENTICATION_API_KEY to another");
            self.add(vec![problem], &["server"]);
        }
        Some(server)
    }

    /// A section that is read by core alone.
    fn section<T: DeserializeOwned>(&mut self, name: &str) -> Option<T> {
        let settings = self.settings(&[name], &[]);
        settings
            .read()
            .map_err(|problems| self.add(problems, &[name]))
            .ok()
    }

    fn lifecycle(&mut self) -> Option<Component> {
        let table = self.root.get_ref().get("lifecycle");
        let plugin = match table.map(|node| self.plugin(node, &LIFECYCLE, &["lifecycle"], true)) {
            Some(plugin) => plugin?,
            None => self.find(Kind::Lifecycle, DEFAULT_LIFECYCLE, None)?,
        };
        self.component(Arc::from("lifecycle"), plugin, &LIFECYCLE, &["lifecycle"])
    }

    /// Everything under `[<section>.<id>]`, and whether all of it could be told apart.
    fn parts(&mut self, section: &Section) -> (Vec<Part>, bool) {
        let (root, mut complete) = (self.root, true);
        let mut parts = Vec::new();
        let Some(table) = root
            .get_ref()
            .get(section.name)
            .and_then(|node| node.get_ref().as_table())
        else {
            return (parts, complete);
        };
        for (key, value) in table {
            if value.get_ref().is_table() {
                parts.push(self.part(section, key, value));
                continue;
            }
            complete = false;
            let message = format!(
                "`{}` stands in `[{}]` without an id",
                key.get_ref(),
                section.name
            );
            let help = format!("give the {} an id: `[{}.<id>]`", section.kind, section.name);
            let problem = Problem::new(codes::INVALID_ID, message).help(help);
            self.problems.push(problem.at_span(key.span()));
        }
        (parts, complete)
    }

    fn part(&mut self, section: &Section, key: &Spanned<DeString<'_>>, node: &Node<'_>) -> Part {
        let (id, span) = (&**key.get_ref(), key.span());
        let path = [section.name, id];
        if id.is_empty()
            || !id
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-')
        {
            let message = format!("`{id}` cannot be an id");
            let problem = Problem::new(codes::INVALID_ID, message)
                .help("use letters, digits, `_` and `-` only");
            self.problems.push(problem.at_span(span.clone()));
        }
        let plugin = self.plugin(node, section, &path, false);
        let component =
            plugin.and_then(|plugin| self.component(Arc::from(id), plugin, section, &path));
        let ports = match (&component, section.kind) {
            (Some(component), Kind::Filter) => Some(component.plugin.ports(&component.settings)),
            (None, Kind::Filter) => None,
            _ => Some(Vec::new()),
        };
        let inputs = if section.core_keys.contains(&"inputs") {
            self.inputs(node, section, id)
        } else {
            Some(Vec::new())
        };
        let sink = match section.kind {
            Kind::Sink => self.sink_keys(node, &path),
            _ => SinkKeys::default(),
        };
        let unnamed = component
            .as_ref()
            .is_none_or(|it| it.plugin.has_unnamed_output());
        Part {
            vertex: Vertex {
                id: Arc::from(id),
                span,
                kind: section.kind,
                inputs,
                ports,
                unnamed,
            },
            component,
            sink,
        }
    }

    /// What core reads of a sink.
    fn sink_keys(&mut self, node: &Node<'_>, path: &[&str]) -> SinkKeys {
        let buffer: BufferConfig = self.key_or_default(node, "buffer");
        if buffer.events == 0 || buffer.bytes.0 == 0 {
            let problem = Problem::new(codes::INVALID_VALUE, "a `buffer` must hold something")
                .help("`events` and `bytes` are 1 or more");
            self.add(vec![problem.at_key("buffer")], path);
        }
        let delivery = DeliveryConfig {
            timeout: self.key_or_default(node, "timeout"),
            concurrency: self.key_or_default(node, "concurrency"),
            order: self.key_or_default(node, "order"),
            batch: self.key_or_default(node, "batch"),
            retry: self.key_or_default(node, "retry"),
            breaker: self.key_or_default(node, "breaker"),
            dead_letter: self.key_or_default(node, "dead_letter"),
        };
        self.add(delivery.check(), path);
        SinkKeys {
            buffer,
            delivery,
            optional: !self
                .core_key(node, "required")
                .ok()
                .flatten()
                .unwrap_or(true),
        }
    }

    /// A key that core reads, or its default; a wrong one is reported.
    fn key_or_default<T: DeserializeOwned + Default>(&mut self, node: &Node<'_>, key: &str) -> T {
        self.core_key(node, key).ok().flatten().unwrap_or_default()
    }

    /// The plugin that `type` names.
    fn plugin(
        &mut self,
        node: &Node<'_>,
        section: &Section,
        path: &[&str],
        optional: bool,
    ) -> Option<&'static Registration> {
        let Some(name) = self.core_key::<Spanned<String>>(node, "type").ok()? else {
            if optional {
                return self.find(section.kind, DEFAULT_LIFECYCLE, None);
            }
            let names = registry::all().into_iter();
            let names: Vec<_> = names
                .filter(|plugin| plugin.kind == section.kind)
                .map(|plugin| plugin.name)
                .collect();
            let message = format!("`[{}]` has no `type`", path.join("."));
            let problem = Problem::new(codes::MISSING_KEY, message).expected(names.iter().copied());
            let problem = problem.help(format!("it can be {}", names.join(", ")));
            self.add(vec![problem], path);
            return None;
        };
        let before = self.problems.len();
        let found = self.find(section.kind, name.get_ref(), Some(name.span()));
        let hidden = self.hidden(node, "type");
        hide(self.problems.get_mut(before..)?, &hidden);
        found
    }

    /// What `inputs` take from outside the file, whole and in the parts that a problem may show. Ids are no secrets:
    /// the file has them.
    fn hidden_inputs(&self, graph: &[Vertex]) -> Vec<(String, String)> {
        let sections = PIPELINE.iter().filter_map(|section| {
            let node = self.root.get_ref().get(section.name)?;
            node.get_ref().as_table()
        });
        let mut hidden = Vec::new();
        for (value, reference) in sections
            .flat_map(DeTable::values)
            .flat_map(|node| self.hidden(node, "inputs"))
        {
            if let Some((id, port)) = value.split_once('.') {
                hidden.extend([id, port].map(|part| (part.to_owned(), reference.clone())));
            }
            hidden.insert(0, (value, reference));
        }
        hidden.retain(|(value, _)| !graph.iter().any(|vertex| *vertex.id == **value));
        hidden
    }

    /// What one key that core reads takes from outside the file.
    fn hidden(&self, node: &Node<'_>, key: &str) -> Vec<(String, String)> {
        let alone = alone(node, key);
        let hidden = alone.map(|alone| self.reader().hidden(&alone));
        hidden.unwrap_or_default()
    }

    fn reader(&self) -> Reader<'_> {
        Reader {
            environment: Some(self.environment),
            other_keys: &[],
        }
    }

    fn find(
        &mut self,
        kind: Kind,
        name: &str,
        span: Option<Range<usize>>,
    ) -> Option<&'static Registration> {
        let unknown = match registry::find(kind, name) {
            Ok(plugin) => return Some(plugin),
            Err(unknown) => unknown,
        };
        let mut problem = unknown.problem();
        problem.place = span.map_or(Place::Table, Place::Span);
        self.problems.push(problem);
        None
    }

    /// The plugin with its keys; `None` when they are wrong.
    fn component(
        &mut self,
        id: Arc<str>,
        plugin: &'static Registration,
        section: &Section,
        path: &[&str],
    ) -> Option<Component> {
        let settings = self.settings(path, section.core_keys);
        let mut problems = plugin.check(&settings);
        for problem in &mut problems {
            section::explain(problem, plugin);
        }
        let failed = problems
            .iter()
            .any(|problem| problem.severity == Severity::Error);
        self.add(problems, path);
        (!failed).then_some(Component {
            id,
            plugin,
            settings,
        })
    }

    fn inputs(
        &mut self,
        node: &Node<'_>,
        section: &Section,
        id: &str,
    ) -> Option<Vec<(Input, Range<usize>)>> {
        let Some(inputs) = self.core_key::<Vec<Spanned<String>>>(node, "inputs").ok()? else {
            let message = format!("the {} `{id}` has no `inputs`", section.kind);
            let mut problem = Problem::new(codes::MISSING_KEY, message)
                .help("list the ids of the sources and filters that it reads");
            let table = node.get_ref().as_table();
            let near =
                table.and_then(|table| suggest("inputs", table.keys().map(|key| &**key.get_ref())));
            if near.is_some() {
                // The misspelt key is reported already.
                return None;
            }
            if let Some(source) = self.first_source() {
                problem = problem.help(format!("say what it reads: `inputs = [\"{source}\"]`"));
            }
            self.add(vec![problem], &[section.name, id]);
            return None;
        };
        let inputs = inputs.iter();
        Some(
            inputs
                .map(|input| (Input::parse(input.get_ref()), input.span()))
                .collect(),
        )
    }

    fn first_source(&self) -> Option<String> {
        let sources = self.root.get_ref().get("sources")?.get_ref().as_table()?;
        sources
            .keys()
            .next()
            .map(|key| key.get_ref().clone().into_owned())
    }

    /// One key that core reads; `None` when it is not there.
    fn core_key<T: DeserializeOwned>(
        &mut self,
        node: &Node<'_>,
        key: &str,
    ) -> Result<Option<T>, Reported> {
        let Some(alone) = alone(node, key) else {
            return Ok(None);
        };
        match self.reader().read::<BTreeMap<String, T>>(&alone) {
            Ok(mut keys) => Ok(keys.remove(key)),
            Err(problems) => {
                self.problems.extend(problems);
                Err(Reported)
            }
        }
    }

    fn settings(&self, path: &[&str], core_keys: &'static [&'static str]) -> Settings {
        Settings::in_file(
            Arc::clone(self.text),
            path,
            core_keys,
            self.environment.clone(),
        )
    }

    /// Adds problems whose places are below the table at `path`.
    fn add(&mut self, problems: Vec<Problem>, path: &[&str]) {
        let table: Vec<String> = path.iter().map(|&key| key.to_owned()).collect();
        for mut problem in problems {
            let (below, part) = problem.place.below();
            if !matches!(problem.place, Place::Span(_)) {
                let path: Vec<String> = table.iter().chain(below).cloned().collect();
                let of_key = problem.code == codes::UNKNOWN_KEY;
                let span = tree::locate(self.root, &path, of_key);
                let span = match part {
                    Some(part) => inside(self.text, span, part),
                    None => span,
                };
                problem.place = Place::Span(span);
            }
            self.problems.push(problem);
        }
    }
}

// === impl Part ===

impl Part {
    fn split(self) -> (Vertex, (Option<Component>, SinkKeys)) {
        (self.vertex, (self.component, self.sink))
    }
}

/// A table with this key of `node` alone.
fn alone<'t>(node: &Node<'t>, key: &str) -> Option<Node<'t>> {
    let (name, value) = node.get_ref().as_table()?.get_key_value(key)?;
    let mut alone = DeTable::new();
    alone.insert(name.clone(), value.clone());
    Some(Spanned::new(node.span(), DeValue::Table(alone)))
}

/// The parts that could be read. With any problem it is not used.
fn pipeline(graph: Vec<Vertex>, parts: Vec<(Option<Component>, SinkKeys)>) -> Pipeline {
    let mut pipeline = Pipeline::default();
    for (vertex, (component, sink)) in graph.into_iter().zip(parts) {
        let Some(component) = component else {
            continue;
        };
        let inputs = vertex.inputs.unwrap_or_default();
        let inputs = inputs.into_iter().map(|(input, _)| input).collect();
        match vertex.kind {
            Kind::Source => pipeline.sources.push(component),
            Kind::Filter => pipeline.filters.push(FilterNode {
                component,
                inputs,
                ports: vertex.ports.unwrap_or_default(),
            }),
            _ => pipeline.sinks.push(SinkNode {
                component,
                inputs,
                buffer: sink.buffer,
                delivery: sink.delivery,
                required: !sink.optional,
            }),
        }
    }
    pipeline
}

#[cfg(test)]
mod tests;
