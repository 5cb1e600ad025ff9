//! Which plugins this binary has.
//!
//! A plugin registers itself with one macro call beside its code. The crate that declares it must be *used*
//! by the binary (`use evows_plugins as _;`), or the linker drops it and nothing is registered.

mod register;

use std::any::Any;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::de::DeserializeOwned;

use crate::config::{Problem, Settings};
use crate::delivery::Delivery;
use crate::plugin::{
    AsyncFilter, AsyncFilterPlugin, BuildContext, BuildError, Environment, Filter, FilterPlugin,
    Lifecycle, LifecyclePlugin, Policy, PolicyPlugin, Sink, SinkPlugin, Source, SourcePlugin,
    Transport, TransportPlugin,
};
use crate::topology::BuiltFilter;

/// What a plugin is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// Where events enter.
    Source,
    /// Where events are passed, changed or discarded.
    Filter,
    /// Where events leave.
    Sink,
    /// How live clients are served.
    Transport,
    /// Which channels an event goes to.
    Policy,
    /// Which instances exist.
    Lifecycle,
}

/// One registered plugin, its type erased. Made by the `register_*!` macros.
pub struct Registration {
    /// What it is.
    pub kind: Kind,
    /// The `type` that selects it.
    pub name: &'static str,
    /// One line on what it does.
    pub summary: &'static str,
    /// Keys of a configuration that works, as TOML, without `type` and `inputs`.
    pub example: &'static str,
    /// Where it was registered.
    pub origin: Origin,
    hooks: Hooks,
}

/// Where a plugin was registered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Origin {
    /// The crate.
    pub package: &'static str,
    /// The file, relative to where the crate was compiled.
    pub file: &'static str,
    /// The line.
    pub line: u32,
}

/// The functions of a plugin, one instance of them per type.
struct Hooks {
    check: fn(&Settings) -> Vec<Problem>,
    schema: fn(&mut SchemaGenerator) -> Schema,
    ports: fn(&Settings) -> Vec<String>,
    unnamed_output: bool,
    answers_within: fn(&Settings) -> Option<Duration>,
    delivery: fn(&Settings, &Environment) -> Delivery,
    take_over: TakeOvers,
    build: Build,
}

/// How filters of a plugin take over from each other, whichever kind they are.
#[derive(Clone, Copy)]
pub(crate) struct TakeOvers {
    pub(crate) inline: TakeOver,
    pub(crate) awaited: TakeOverAsync,
}

/// Has an async filter [take over](AsyncFilterPlugin::take_over) from another one of the same plugin.
pub(crate) type TakeOverAsync = fn(&mut dyn AsyncFilter, &dyn AsyncFilter);

/// Has a filter [take over](FilterPlugin::take_over) from another one of the same plugin.
pub(crate) type TakeOver = fn(&mut dyn Filter, &mut dyn Filter);

type Builder<T> = fn(&Settings, &BuildContext) -> Result<T, BuildError>;

enum Build {
    Source(Builder<Box<dyn Source>>),
    Filter(Builder<BuiltFilter>),
    Sink(Builder<Box<dyn Sink>>),
    Transport(Builder<Arc<dyn Transport>>),
    Policy(Builder<Arc<dyn Policy>>),
    Lifecycle(Builder<Arc<dyn Lifecycle>>),
}

inventory::collect!(Registration);

/// No plugin of that kind has that name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnknownPlugin {
    /// The kind that was asked for.
    pub kind: Kind,
    /// The name that was asked for.
    pub name: String,
    /// The nearest name of that kind.
    pub suggestion: Option<&'static str>,
    /// Another kind that has exactly this name.
    pub elsewhere: Option<Kind>,
}

/// Two plugins of one kind share a name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("two {kind}s are called `{name}`: one from {first}, one from {second}; rename one of them")]
pub struct DuplicatePlugin {
    /// Their kind.
    pub kind: Kind,
    /// Their name.
    pub name: &'static str,
    /// Where one comes from.
    pub first: Origin,
    /// Where the other comes from.
    pub second: Origin,
}

/// Every registered plugin, by kind and name.
pub fn all() -> Vec<&'static Registration> {
    let mut all: Vec<_> = inventory::iter::<Registration>().collect();
    // The linker decides the order of `inventory`, so it means nothing.
    all.sort_by_key(|plugin| {
        (
            plugin.kind,
            plugin.name,
            plugin.origin.file,
            plugin.origin.line,
        )
    });
    all
}

/// The plugin of this kind and name.
pub fn find(kind: Kind, name: &str) -> Result<&'static Registration, UnknownPlugin> {
    let plugins = all();
    let found = plugins
        .iter()
        .find(|plugin| plugin.kind == kind && plugin.name == name);
    found.copied().ok_or_else(|| UnknownPlugin {
        kind,
        name: name.to_owned(),
        suggestion: crate::config::suggest(
            name,
            plugins
                .iter()
                .filter(|plugin| plugin.kind == kind)
                .map(|plugin| plugin.name),
        ),
        elsewhere: plugins
            .iter()
            .find(|plugin| plugin.name == name)
            .map(|plugin| plugin.kind),
    })
}

/// Fails when two plugins of one kind share a name. Called at start.
pub fn check_unique() -> Result<(), DuplicatePlugin> {
    check_unique_among(&all())
}

fn check_unique_among(sorted: &[&'static Registration]) -> Result<(), DuplicatePlugin> {
    for pair in sorted.windows(2) {
        if let [first, second] = pair
            && first.kind == second.kind
            && first.name == second.name
        {
            return Err(DuplicatePlugin {
                kind: first.kind,
                name: first.name,
                first: first.origin,
                second: second.origin,
            });
        }
    }
    Ok(())
}

// === impl Kind ===

impl Kind {
    /// Every kind, in the order of the flow.
    pub const ALL: [Self; 6] = [
        Self::Source,
        Self::Filter,
        Self::Sink,
        Self::Transport,
        Self::Policy,
        Self::Lifecycle,
    ];

    /// The word for it, in the singular.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Source => "source",
            Self::Filter => "filter",
            Self::Sink => "sink",
            Self::Transport => "transport",
            Self::Policy => "policy",
            Self::Lifecycle => "lifecycle",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({}:{})", self.package, self.file, self.line)
    }
}

// === impl UnknownPlugin ===

impl UnknownPlugin {
    /// The problem to report, its place left to the caller.
    pub fn problem(&self) -> Problem {
        let Self { kind, name, .. } = self;
        let problem = Problem::new(
            "unknown-plugin",
            format!("there is no {kind} called `{name}`"),
        );
        match (self.suggestion, self.elsewhere) {
            (_, Some(other)) => problem.help(format!("`{name}` is a {other}, not a {kind}")),
            (Some(near), None) => problem.help(format!("did you mean `{near}`?")),
            (None, None) => problem.help(format!("`evows list` shows the {kind}s that there are")),
        }
    }
}

// === impl Registration ===

impl PartialEq for Registration {
    fn eq(&self, other: &Self) -> bool {
        (self.kind, self.name, self.origin) == (other.kind, other.name, other.origin)
    }
}

impl fmt::Debug for Registration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} `{}`", self.kind, self.name)
    }
}

/// The constructors behind the macros, and what core does with a plugin whose type it does not know.
impl Registration {
    /// Registers a source. Use [`register_source!`](crate::register_source).
    pub const fn source<P: SourcePlugin>(
        summary: &'static str,
        example: &'static str,
        origin: Origin,
    ) -> Self {
        let build = Build::Source(|settings, cx| Ok(Box::new(P::build(read(settings)?, cx)?)));
        let mut plugin = Self::new::<P::Config>(
            Kind::Source,
            P::NAME,
            summary,
            example,
            origin,
            build,
            |settings| check(settings, P::check),
        );
        plugin.hooks.answers_within = |settings| {
            let config = settings.read::<P::Config>();
            P::answers_within(&config.ok()?)
        };
        plugin
    }

    /// Registers a filter. Use [`register_filter!`](crate::register_filter).
    pub const fn filter<P: FilterPlugin>(
        summary: &'static str,
        example: &'static str,
        origin: Origin,
    ) -> Self {
        let build = Build::Filter(|settings, cx| {
            let filter = P::build(read(settings)?, cx)?;
            Ok(BuiltFilter::Inline(Box::new(filter)))
        });
        let mut plugin = Self::new::<P::Config>(
            Kind::Filter,
            P::NAME,
            summary,
            example,
            origin,
            build,
            |settings| check(settings, P::check),
        );
        plugin.hooks.unnamed_output = P::UNNAMED_OUTPUT;
        plugin.hooks.take_over.inline = |filter, before| {
            let (filter, before): (&mut dyn Any, &mut dyn Any) = (filter, before);
            if let (Some(filter), Some(before)) = (filter.downcast_mut(), before.downcast_mut()) {
                P::take_over(filter, before);
            }
        };
        plugin.hooks.ports = |settings| ports(settings, P::ports);
        plugin
    }

    /// Registers an async filter. Use [`register_async_filter!`](crate::register_async_filter).
    pub const fn async_filter<P: AsyncFilterPlugin>(
        summary: &'static str,
        example: &'static str,
        origin: Origin,
    ) -> Self {
        let build = Build::Filter(|settings, cx| {
            let filter = P::build(read(settings)?, cx)?;
            Ok(BuiltFilter::Async(Arc::new(filter)))
        });
        let mut plugin = Self::new::<P::Config>(
            Kind::Filter,
            P::NAME,
            summary,
            example,
            origin,
            build,
            |settings| check(settings, P::check),
        );
        plugin.hooks.take_over.awaited = |filter, before| {
            let (filter, before): (&mut dyn Any, &dyn Any) = (filter, before);
            if let (Some(filter), Some(before)) = (filter.downcast_mut(), before.downcast_ref()) {
                P::take_over(filter, before);
            }
        };
        plugin.hooks.ports = |settings| ports(settings, P::ports);
        plugin
    }

    /// Registers a sink. Use [`register_sink!`](crate::register_sink).
    pub const fn sink<P: SinkPlugin>(
        summary: &'static str,
        example: &'static str,
        origin: Origin,
    ) -> Self {
        let build = Build::Sink(|settings, cx| Ok(Box::new(P::build(read(settings)?, cx)?)));
        let mut plugin = Self::new::<P::Config>(
            Kind::Sink,
            P::NAME,
            summary,
            example,
            origin,
            build,
            |settings| check(settings, P::check),
        );
        plugin.hooks.delivery = |settings, environment| {
            let config = settings.read::<P::Config>();
            config.map_or_else(
                |_| Delivery::default(),
                |config| P::delivery(&config, environment),
            )
        };
        plugin
    }

    /// Registers a transport. Use [`register_transport!`](crate::register_transport).
    pub const fn transport<P: TransportPlugin>(
        summary: &'static str,
        example: &'static str,
        origin: Origin,
    ) -> Self {
        let build = Build::Transport(|settings, cx| Ok(Arc::new(P::build(read(settings)?, cx)?)));
        Self::new::<P::Config>(
            Kind::Transport,
            P::NAME,
            summary,
            example,
            origin,
            build,
            |settings| check(settings, P::check),
        )
    }

    /// Registers a policy. Use [`register_policy!`](crate::register_policy).
    pub const fn policy<P: PolicyPlugin>(
        summary: &'static str,
        example: &'static str,
        origin: Origin,
    ) -> Self {
        let build = Build::Policy(|settings, cx| Ok(Arc::new(P::build(read(settings)?, cx)?)));
        Self::new::<P::Config>(
            Kind::Policy,
            P::NAME,
            summary,
            example,
            origin,
            build,
            |settings| check(settings, P::check),
        )
    }

    /// Registers a lifecycle. Use [`register_lifecycle!`](crate::register_lifecycle).
    pub const fn lifecycle<P: LifecyclePlugin>(
        summary: &'static str,
        example: &'static str,
        origin: Origin,
    ) -> Self {
        let build = Build::Lifecycle(|settings, cx| Ok(Arc::new(P::build(read(settings)?, cx)?)));
        Self::new::<P::Config>(
            Kind::Lifecycle,
            P::NAME,
            summary,
            example,
            origin,
            build,
            |settings| check(settings, P::check),
        )
    }

    const fn new<C: JsonSchema>(
        kind: Kind,
        name: &'static str,
        summary: &'static str,
        example: &'static str,
        origin: Origin,
        build: Build,
        check: fn(&Settings) -> Vec<Problem>,
    ) -> Self {
        let hooks = Hooks {
            check,
            schema: |generator| C::json_schema(generator),
            ports: |_| Vec::new(),
            unnamed_output: true,
            answers_within: |_| None,
            delivery: |_, _| Delivery::default(),
            take_over: TakeOvers {
                inline: |_, _| {},
                awaited: |_, _| {},
            },
            build,
        };
        Self {
            kind,
            name,
            summary,
            example,
            origin,
            hooks,
        }
    }

    /// What is wrong with these keys: those that do not parse, and what the plugin's check says.
    pub fn check(&self, settings: &Settings) -> Vec<Problem> {
        (self.hooks.check)(settings)
    }

    /// How its filters take over from each other.
    pub(crate) fn take_over(&self) -> TakeOvers {
        self.hooks.take_over
    }

    /// The JSON Schema of the plugin's keys.
    pub fn schema(&self, generator: &mut SchemaGenerator) -> Schema {
        (self.hooks.schema)(generator)
    }

    /// The named ports of a filter with these keys.
    pub fn ports(&self, settings: &Settings) -> Vec<String> {
        (self.hooks.ports)(settings)
    }

    /// Whether a filter has an output that is no named port.
    pub fn has_unnamed_output(&self) -> bool {
        self.hooks.unnamed_output
    }

    /// How long a source with these keys waits for its events until it answers, if it does.
    pub fn answers_within(&self, settings: &Settings) -> Option<Duration> {
        (self.hooks.answers_within)(settings)
    }

    /// How core delivers to a sink with these keys where the file does not say otherwise.
    pub fn delivery(&self, settings: &Settings, environment: &Environment) -> Delivery {
        (self.hooks.delivery)(settings, environment)
    }

    /// Builds a source.
    pub fn build_source(
        &self,
        keys: &Settings,
        cx: &BuildContext,
    ) -> Result<Box<dyn Source>, BuildError> {
        let Build::Source(build) = self.hooks.build else {
            return Err(self.is_not(Kind::Source));
        };
        build(keys, cx)
    }

    /// Builds a filter, of either sort.
    pub fn build_filter(
        &self,
        keys: &Settings,
        cx: &BuildContext,
    ) -> Result<BuiltFilter, BuildError> {
        let Build::Filter(build) = self.hooks.build else {
            return Err(self.is_not(Kind::Filter));
        };
        build(keys, cx)
    }

    /// Builds a sink.
    pub fn build_sink(
        &self,
        keys: &Settings,
        cx: &BuildContext,
    ) -> Result<Box<dyn Sink>, BuildError> {
        let Build::Sink(build) = self.hooks.build else {
            return Err(self.is_not(Kind::Sink));
        };
        build(keys, cx)
    }

    /// Builds a transport.
    pub fn build_transport(
        &self,
        keys: &Settings,
        cx: &BuildContext,
    ) -> Result<Arc<dyn Transport>, BuildError> {
        let Build::Transport(build) = self.hooks.build else {
            return Err(self.is_not(Kind::Transport));
        };
        build(keys, cx)
    }

    /// Builds a policy.
    pub fn build_policy(
        &self,
        keys: &Settings,
        cx: &BuildContext,
    ) -> Result<Arc<dyn Policy>, BuildError> {
        let Build::Policy(build) = self.hooks.build else {
            return Err(self.is_not(Kind::Policy));
        };
        build(keys, cx)
    }

    /// Builds a lifecycle.
    pub fn build_lifecycle(
        &self,
        keys: &Settings,
        cx: &BuildContext,
    ) -> Result<Arc<dyn Lifecycle>, BuildError> {
        let Build::Lifecycle(build) = self.hooks.build else {
            return Err(self.is_not(Kind::Lifecycle));
        };
        build(keys, cx)
    }

    fn is_not(&self, kind: Kind) -> BuildError {
        BuildError::new(format!("`{}` is a {}, not a {kind}", self.name, self.kind))
    }
}

fn read<C: DeserializeOwned>(settings: &Settings) -> Result<C, BuildError> {
    settings.read().map_err(BuildError::Config)
}

fn check<C: DeserializeOwned>(settings: &Settings, check: fn(&C) -> Vec<Problem>) -> Vec<Problem> {
    match settings.read() {
        Ok(config) => settings.hide(check(&config)),
        Err(problems) => problems,
    }
}

fn ports<C: DeserializeOwned>(settings: &Settings, ports: fn(&C) -> Vec<String>) -> Vec<String> {
    let config = settings.read();
    config.map(|config| ports(&config)).unwrap_or_default()
}
