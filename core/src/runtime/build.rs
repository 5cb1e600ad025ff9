//! Every plugin of a configuration, built. Nothing runs yet.

use std::sync::Arc;

use super::StartError;
use super::slots::Slots;
use crate::config::{Component, Config};
use crate::http::{Mount, history};
use crate::plugin::{BuildContext, BuildError, Lifecycle, Mounted, Policy, Shared, Transport};
use crate::registry::Registration;
use crate::topology::{BuiltFilter, FilterPart, Part, Plan, SinkPart};

/// What a configuration was built to.
pub(super) struct Built {
    pub(super) lifecycle: Arc<dyn Lifecycle>,
    pub(super) transports: Vec<Arc<dyn Transport>>,
    pub(super) policies: Vec<Arc<dyn Policy>>,
    pub(super) mounts: Vec<Mount>,
    /// Whether a route or transport beside the lifecycle's is served.
    pub(super) serves: bool,
    pub(super) plan: Plan,
}

/// How a registration builds one kind.
type Make<T> =
    fn(&'static Registration, &crate::config::Settings, &BuildContext) -> Result<T, BuildError>;

/// Gathers what components mount.
struct Builder<'a> {
    shared: &'a Arc<Shared>,
    transports: Vec<Arc<dyn Transport>>,
    policies: Vec<Arc<dyn Policy>>,
    mounts: Vec<Mount>,
}

// === impl Built ===

impl Built {
    /// Builds the lifecycle, then transports, filters, sinks and sources.
    pub(super) fn new(config: Config, shared: &Arc<Shared>) -> Result<Self, StartError> {
        let mut builder = Builder::new(shared);
        let lifecycle = builder.lifecycle(&config.lifecycle)?;
        let of_lifecycle = builder.mounts.len();
        for component in &config.transports {
            let (transport, mounted) = builder.build(component, Registration::build_transport)?;
            builder.gather(mounted);
            builder.transports.push(transport);
        }
        let mut plan = Plan::default();
        for node in config.pipeline.filters {
            plan.filters.push(FilterPart {
                part: builder.part(node.component, Registration::build_filter)?,
                inputs: node.inputs,
                ports: node.ports,
            });
        }
        for node in config.pipeline.sinks {
            let Component {
                plugin, settings, ..
            } = &node.component;
            let delivery = plugin.delivery(settings, &shared.environment);
            plan.sinks.push(SinkPart {
                delivery: delivery.with(&node.delivery),
                journal: None,
                part: builder.part(node.component, Registration::build_sink)?,
                inputs: node.inputs,
                buffer: node.buffer,
                required: node.required,
            });
        }
        for component in config.pipeline.sources {
            let part = builder.part(component, Registration::build_source)?;
            plan.sources.push(part);
        }
        if !builder.policies.is_empty() {
            let router = history::router(&shared.hub, &shared.access);
            let mount = Mount::new("history", history::PATH, router);
            builder.mounts.push(mount);
        }
        Ok(Self {
            lifecycle,
            serves: builder.mounts.len() > of_lifecycle || !builder.transports.is_empty(),
            transports: builder.transports,
            policies: builder.policies,
            mounts: builder.mounts,
            plan,
        })
    }
}

/// Builds the lifecycle alone, into `shared`.
pub(super) fn lifecycle(config: &Config, shared: &Arc<Shared>) -> Result<(), StartError> {
    Builder::new(shared).lifecycle(&config.lifecycle).map(drop)
}

/// Builds one filter alone.
pub(super) fn filter(
    component: Component,
    shared: &Arc<Shared>,
) -> Result<Part<BuiltFilter>, StartError> {
    Builder::new(shared).part(component, Registration::build_filter)
}

/// Builds a filter that is to take the place of one that runs.
pub(super) fn again(
    component: &Component,
    shared: &Arc<Shared>,
) -> Result<Part<BuiltFilter>, StartError> {
    let mut builder = Builder::new(shared);
    let part = builder.part(component.clone(), Registration::build_filter)?;
    if builder.mounts.is_empty() && builder.transports.is_empty() && builder.policies.is_empty() {
        return Ok(part);
    }
    Err(StartError::Build {
        id: component.id.to_string(),
        source: BuildError::new("it serves clients or answers requests, which needs a restart"),
    })
}

// === impl Builder ===

impl<'a> Builder<'a> {
    fn new(shared: &'a Arc<Shared>) -> Self {
        Self {
            shared,
            transports: Vec::new(),
            policies: Vec::new(),
            mounts: Vec::new(),
        }
    }

    fn lifecycle(&mut self, component: &Component) -> Result<Arc<dyn Lifecycle>, StartError> {
        let (lifecycle, mounted) = self.build(component, Registration::build_lifecycle)?;
        self.gather(mounted);
        // Set once: this process has one lifecycle.
        self.shared.lifecycle.set(Arc::clone(&lifecycle)).ok();
        self.shared.access.set_lifecycle(Arc::clone(&lifecycle));
        Ok(lifecycle)
    }

    fn build<T>(&self, component: &Component, maker: Make<T>) -> Result<(T, Mounted), StartError> {
        build_once(component, self.shared, maker).map_err(|source| StartError::Build {
            id: component.id.to_string(),
            source,
        })
    }

    fn gather(&mut self, mounted: Mounted) {
        self.mounts.extend(mounted.routes);
        self.transports.extend(mounted.transports);
        self.policies.extend(mounted.policies);
    }

    /// Builds a component of the graph, with what it takes to build it again.
    fn part<T: 'static>(
        &mut self,
        component: Component,
        maker: Make<T>,
    ) -> Result<Part<T>, StartError> {
        let (built, mut mounted) = self.build(&component, maker)?;
        let mut slots = Slots::default();
        // A transport lives on when its sink is built again, and so do its routes.
        if mounted.transports.is_empty() {
            (slots, mounted.routes) = Slots::new(mounted.routes);
        }
        self.gather(mounted);
        let shared = Arc::clone(self.shared);
        Ok(Part {
            id: Arc::clone(&component.id),
            built,
            rebuild: Box::new(move || {
                let (built, mounted) = build_once(&component, &shared, maker)?;
                slots.replace(mounted.routes);
                Ok(built)
            }),
        })
    }
}

fn build_once<T>(
    component: &Component,
    shared: &Arc<Shared>,
    maker: Make<T>,
) -> Result<(T, Mounted), BuildError> {
    let cx = BuildContext::new(&*component.id, Arc::clone(shared));
    let built = maker(component.plugin, &component.settings, &cx)?;
    Ok((built, cx.take_mounted()))
}
