//! What tests can name: the sources, filters and sinks of a configuration.

use crate::config::read::offer;
use crate::config::tree::Node;
use crate::config::{Component, Config, FilterNode, Problem, codes, section::PIPELINE, suggest};
use crate::registry::Kind;

/// The sources, filters and sinks of a configuration, in its order.
pub(super) struct Nodes(Vec<Known>);

/// One of them.
pub(super) struct Known {
    pub(super) id: String,
    pub(super) kind: Kind,
    /// The plugin of a filter in a sound configuration.
    pub(super) filter: Option<FilterNode>,
}

/// What is named.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// Something to put events into.
    Into,
    /// Something that events come out of.
    From,
    /// Something where events end.
    End,
    /// Something to be replaced.
    Mock,
}

// === impl Nodes ===

impl Nodes {
    /// Those of a sound configuration.
    pub(super) fn of(config: &Config) -> Self {
        let pipeline = &config.pipeline;
        let known = |component: &Component, kind| Known {
            id: component.id.to_string(),
            kind,
            filter: None,
        };
        let sources = pipeline.sources.iter();
        let filters = pipeline.filters.iter().map(|node| Known {
            filter: Some(node.clone()),
            ..known(&node.component, Kind::Filter)
        });
        let sinks = pipeline.sinks.iter();
        let nodes = sources.map(|it| known(it, Kind::Source)).chain(filters);
        let sinks = sinks.map(|it| known(&it.component, Kind::Sink));
        Self(nodes.chain(sinks).collect())
    }

    /// Those that a file names, whatever else is wrong with it.
    pub(super) fn named_in(root: &Node<'_>) -> Self {
        let sections = PIPELINE.iter().flat_map(|section| {
            let table = root.get_ref().get(section.name);
            let table = table.and_then(|node| node.get_ref().as_table());
            let ids = table.into_iter().flat_map(|table| table.keys());
            ids.map(|id| Known {
                id: id.get_ref().clone().into_owned(),
                kind: section.kind,
                filter: None,
            })
        });
        Self(sections.collect())
    }

    /// The node of this name. The problem is not placed.
    pub(super) fn find(&self, name: &str, role: Role) -> Result<&Known, Problem> {
        let (id, port) = match name.split_once('.') {
            Some((id, port)) => (id, Some(port)),
            None => (name, None),
        };
        let fits = |known: &&Known| match role {
            Role::Into => known.kind != Kind::Sink,
            Role::From | Role::Mock => known.kind != Kind::Source,
            Role::End => true,
        };
        let Some(known) = self.0.iter().find(|known| known.id == id) else {
            return Err(self.unknown(id, role, fits));
        };
        if !fits(&known) {
            let why = match role {
                Role::Into => "nothing is put into it: name a source or a filter",
                Role::Mock => "tests have no sources: name a filter or a sink",
                _ => "what comes out of it is what the test puts in: name a filter or a sink",
            };
            let message = format!("`{id}` is a {}", known.kind);
            return Err(Problem::new(codes::UNKNOWN_NODE, message).help(why));
        }
        match port {
            None => Ok(known),
            Some(port) if role == Role::From && known.kind == Kind::Filter => {
                known.check_port(port).map(|()| known)
            }
            Some(_) => {
                let message = format!("`{name}` names a port, which means nothing here");
                let problem = Problem::new(codes::UNKNOWN_PORT, message);
                Err(problem.help(format!("write `{id}`")))
            }
        }
    }

    fn unknown(&self, id: &str, role: Role, fits: impl Fn(&&Known) -> bool) -> Problem {
        let what = match role {
            Role::Into => "source or filter",
            Role::From | Role::Mock => "filter or sink",
            Role::End => "source, filter or sink",
        };
        let candidates = self.0.iter().filter(fits).map(|known| &*known.id);
        let candidates: Vec<&str> = candidates.collect();
        let message = format!("there is no {what} `{id}`");
        offer(Problem::new(codes::UNKNOWN_NODE, message), id, &candidates)
    }
}

// === impl Known ===

impl Known {
    fn check_port(&self, port: &str) -> Result<(), Problem> {
        // Those of a filter that is wrong itself are not known.
        let Some(FilterNode { ports, .. }) = &self.filter else {
            return Ok(());
        };
        if ports.iter().any(|known| known == port) {
            return Ok(());
        }
        let id = &self.id;
        let message = format!("the filter `{id}` has no port `{port}`");
        let problem = Problem::new(codes::UNKNOWN_PORT, message).expected(ports);
        Err(match suggest(port, ports.iter().map(String::as_str)) {
            Some(near) => problem.help(format!("did you mean `{id}.{near}`?")),
            None if ports.is_empty() => {
                problem.help(format!("it has one output only: write `{id}`"))
            }
            None => problem.help(format!("its ports are {}", ports.join(", "))),
        })
    }
}
