//! Checks the graph of sources, filters and sinks, parts that are otherwise broken included.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use super::{Input, Problem, codes, suggest};
use crate::registry::Kind;

/// A source, filter or sink as far as the graph sees it.
#[derive(Debug)]
pub(super) struct Vertex {
    pub(super) id: Arc<str>,
    /// Where its id is written.
    pub(super) span: Range<usize>,
    pub(super) kind: Kind,
    /// What it reads, each with its place; `None` when that could not be read.
    pub(super) inputs: Option<Vec<(Input, Range<usize>)>>,
    /// Its named ports; `None` when its plugin or its keys are wrong, so that they are not known.
    pub(super) ports: Option<Vec<String>>,
    /// Whether it has an output without a name.
    pub(super) unnamed: bool,
}

/// A vertex, and one of its ports.
type Output<'v> = (usize, Option<&'v str>);

struct Graph<'v> {
    vertices: &'v [Vertex],
    by_id: HashMap<&'v str, usize>,
    /// Ids of things that are no part of the graph.
    others: &'v [(Arc<str>, Kind)],
    /// What each vertex reads, as far as it is known or can be guessed.
    upstream: Vec<Vec<(usize, Range<usize>)>>,
    /// Vertices that may read anything, since some of their inputs are wrong.
    uncertain: Vec<bool>,
    /// What each vertex is read by: the ports.
    read: Vec<Vec<Option<&'v str>>>,
    /// Whether every vertex of the file is here.
    complete: bool,
    problems: Vec<Problem>,
}

/// What is wrong with the graph. `others` are ids that are no part of it; `complete` says that no vertex is
/// missing because it could not be read.
pub(super) fn check(
    vertices: &[Vertex],
    others: &[(Arc<str>, Kind)],
    complete: bool,
) -> Vec<Problem> {
    let mut graph = Graph {
        vertices,
        by_id: HashMap::new(),
        others,
        upstream: vec![Vec::new(); vertices.len()],
        uncertain: vec![false; vertices.len()],
        read: vec![Vec::new(); vertices.len()],
        complete,
        problems: Vec::new(),
    };
    for (index, vertex) in vertices.iter().enumerate() {
        graph.by_id.entry(&vertex.id).or_insert(index);
    }
    graph.resolve_inputs();
    let circular = graph.find_cycles();
    let certain = complete && !graph.uncertain.contains(&true);
    if complete {
        graph.require(
            Kind::Source,
            codes::NO_SOURCE,
            "events have no way in: add a `[sources.<id>]`",
        );
        graph.require(
            Kind::Sink,
            codes::NO_SINK,
            "events have no way out: add a `[sinks.<id>]`",
        );
    }
    if vertices.iter().any(|vertex| vertex.kind == Kind::Source) {
        graph.find_unreachable(&circular);
    }
    if vertices.iter().any(|vertex| vertex.kind == Kind::Sink) {
        graph.find_unread(certain);
    }
    graph.problems
}

/// What is wrong with ids that are there twice.
pub(super) fn duplicate_ids(vertices: &[&Vertex]) -> Vec<Problem> {
    let mut problems = Vec::new();
    for (index, vertex) in vertices.iter().enumerate() {
        let mut earlier = vertices.iter().take(index);
        if let Some(first) = earlier.find(|first| first.id == vertex.id) {
            let message = format!("the id `{}` is taken: a {} has it", vertex.id, first.kind);
            let problem = Problem::new(codes::DUPLICATE_ID, message)
                .help("ids are unique over all sections, since inputs and metrics name them");
            problems.push(problem.at_span(vertex.span.clone()));
        }
    }
    problems
}

// === impl Graph ===

impl<'v> Graph<'v> {
    fn resolve_inputs(&mut self) {
        let vertices = self.vertices;
        for (index, vertex) in vertices.iter().enumerate() {
            let Some(inputs) = &vertex.inputs else {
                self.uncertain[index] = true;
                continue;
            };
            for (position, (input, span)) in inputs.iter().enumerate() {
                if inputs
                    .iter()
                    .take(position)
                    .any(|(other, _)| other == input)
                {
                    let message = format!("`{}` reads `{input}` twice", vertex.id);
                    let problem = Problem::new(codes::DUPLICATE_INPUT, message)
                        .help("every event would arrive twice; leave one of them out");
                    self.problems.push(problem.at_span(span.clone()));
                    continue;
                }
                self.resolve_input(index, input, span);
            }
        }
    }

    fn resolve_input(&mut self, reader: usize, input: &'v Input, span: &Range<usize>) {
        let (target, problem) = self.find(input);
        let problem = problem.map(|problem| problem.at_span(span.clone()));
        self.problems.extend(problem);
        match target {
            Some((target, port)) => {
                self.upstream[reader].push((target, span.clone()));
                self.read[target].push(port);
            }
            None => self.uncertain[reader] = true,
        }
    }

    /// The output that an input names, or was probably meant to name.
    fn find(&self, input: &'v Input) -> (Option<Output<'v>>, Option<Problem>) {
        let Some(&index) = self.by_id.get(&*input.id) else {
            return self.unknown(input);
        };
        let vertices = self.vertices;
        let vertex = &vertices[index];
        if vertex.kind == Kind::Sink {
            let problem = Problem::new(
                codes::NOT_AN_INPUT,
                format!("`{}` is a sink: no events come out of it", vertex.id),
            );
            let sources = self.candidates().join(", ");
            return (None, Some(problem.help(format!("read one of: {sources}"))));
        }
        if let (None, false, Some(ports)) = (&input.port, vertex.unnamed, &vertex.ports) {
            let message = format!(
                "the {} `{}` puts events out through its ports only",
                vertex.kind, vertex.id
            );
            let ports: Vec<_> = ports
                .iter()
                .map(|it| format!("`{}.{it}`", vertex.id))
                .collect();
            let help = format!("name a port: {}", ports.join(", "));
            let problem = Problem::new(codes::UNKNOWN_PORT, message).help(help);
            return (Some((index, None)), Some(problem));
        }
        let (Some(port), Some(ports)) = (&input.port, &vertex.ports) else {
            return (Some((index, input.port.as_deref())), None);
        };
        if ports.contains(port) {
            return (Some((index, input.port.as_deref())), None);
        }
        let problem = Problem::new(
            codes::UNKNOWN_PORT,
            format!("the {} `{}` has no port `{port}`", vertex.kind, vertex.id),
        )
        .expected(ports);
        let near = suggest(port, ports.iter().map(String::as_str));
        let problem = match near {
            Some(near) => problem.help(format!("did you mean `{}.{near}`?", vertex.id)),
            None if ports.is_empty() => {
                problem.help(format!("it has one output only: write `{}`", vertex.id))
            }
            None => problem.help(format!("its ports are {}", ports.join(", "))),
        };
        (Some((index, near)), Some(problem))
    }

    fn unknown(&self, input: &Input) -> (Option<Output<'v>>, Option<Problem>) {
        if let Some((id, kind)) = self.others.iter().find(|(id, _)| *id == input.id) {
            let message = format!("`{id}` is a {kind}: no events come out of it");
            return (None, Some(Problem::new(codes::NOT_AN_INPUT, message)));
        }
        let candidates = self.candidates();
        let near = suggest(&input.id, candidates.iter().copied());
        if near.is_none() && !self.complete {
            // It may be what could not be read.
            return (None, None);
        }
        let problem = Problem::new(
            codes::UNKNOWN_INPUT,
            format!("there is no source or filter `{}`", input.id),
        )
        .expected(candidates.iter().copied());
        match near {
            Some(near) => {
                let meant = self.by_id.get(near).map(|&index| (index, None));
                (meant, Some(problem.help(format!("did you mean `{near}`?"))))
            }
            None if candidates.is_empty() => (None, Some(problem)),
            None => {
                let list: Vec<_> = candidates.iter().map(|id| format!("`{id}`")).collect();
                let help = format!("it can be {}", list.join(", "));
                (None, Some(problem.help(help)))
            }
        }
    }

    /// What can be read.
    fn candidates(&self) -> Vec<&'v str> {
        let vertices = self.vertices.iter();
        vertices
            .filter(|vertex| vertex.kind != Kind::Sink)
            .map(|vertex| &*vertex.id)
            .collect()
    }

    fn require(&mut self, kind: Kind, code: &'static str, help: &str) {
        if !self.vertices.iter().any(|vertex| vertex.kind == kind) {
            self.problems
                .push(Problem::new(code, format!("there is no {kind}")).help(help));
        }
    }

    /// Reports every circle once, and returns the vertices that are in one.
    fn find_cycles(&mut self) -> Vec<bool> {
        let mut circular = vec![false; self.vertices.len()];
        let mut done = vec![false; self.vertices.len()];
        for start in 0..self.vertices.len() {
            // The way up from `start`: each vertex with how many of its inputs were looked at.
            let mut path = vec![(start, 0)];
            while let Some((vertex, next)) = path.last_mut() {
                let vertex = *vertex;
                let edge = self.upstream[vertex].get(*next).cloned();
                *next += 1;
                let Some((above, span)) = edge.filter(|_| !done[vertex]) else {
                    done[vertex] = true;
                    path.pop();
                    continue;
                };
                if let Some(begin) = path.iter().position(|(other, _)| *other == above) {
                    let circle: Vec<usize> =
                        path.iter().skip(begin).map(|(vertex, _)| *vertex).collect();
                    if !circle.iter().all(|&vertex| circular[vertex]) {
                        self.report_cycle(&circle, span);
                    }
                    for vertex in circle {
                        circular[vertex] = true;
                    }
                } else if !done[above] {
                    path.push((above, 0));
                }
            }
        }
        circular
    }

    fn report_cycle(&mut self, circle: &[usize], span: Range<usize>) {
        // The way was walked against the flow.
        let flow = circle
            .iter()
            .chain(circle.first())
            .map(|&vertex| &*self.vertices[vertex].id);
        let mut flow: Vec<&str> = flow.collect();
        flow.reverse();
        let message = format!("events would go in a circle: {}", flow.join(" -> "));
        let problem = Problem::new(codes::CYCLE, message)
            .help("take this input away, or read what comes before the circle");
        self.problems.push(problem.at_span(span));
    }

    fn find_unreachable(&mut self, circular: &[bool]) {
        let vertices = self.vertices;
        let mut reached: Vec<bool> = vertices
            .iter()
            .enumerate()
            .map(|(index, vertex)| {
                // What is wrong with the others was said already.
                vertex.kind == Kind::Source || self.uncertain[index] || circular[index]
            })
            .collect();
        let mut changed = true;
        while changed {
            changed = false;
            for (index, inputs) in self.upstream.iter().enumerate() {
                if !reached[index] && inputs.iter().any(|(above, _)| reached[*above]) {
                    reached[index] = true;
                    changed = true;
                }
            }
        }
        for (vertex, _) in vertices.iter().zip(reached).filter(|(_, reached)| !reached) {
            let problem = match vertex.inputs.as_deref() {
                Some([]) => Problem::new(
                    codes::NO_INPUT,
                    format!("the {} `{}` reads nothing", vertex.kind, vertex.id),
                )
                .help(format!(
                    "list what it reads: `inputs = [{}]`",
                    quote_first(&self.candidates())
                )),
                _ => Problem::new(
                    codes::UNREACHABLE,
                    format!("no event can get to the {} `{}`", vertex.kind, vertex.id),
                )
                .help("nothing that it reads, directly or through filters, is a source"),
            };
            self.problems.push(problem.at_span(vertex.span.clone()));
        }
    }

    fn find_unread(&mut self, certain: bool) {
        for (vertex, read) in self.vertices.iter().zip(&self.read) {
            if vertex.kind == Kind::Sink {
                continue;
            }
            let (kind, id) = (vertex.kind, &vertex.id);
            if read.is_empty() {
                // A reader that is itself broken may have been meant to read this one.
                if certain {
                    let message =
                        format!("nobody reads the {kind} `{id}`: its events would go nowhere");
                    let help =
                        format!("add `{id}` to the `inputs` of a filter or sink, or take it away");
                    let problem = Problem::new(codes::UNREAD_OUTPUT, message).help(help);
                    self.problems.push(problem.at_span(vertex.span.clone()));
                }
                continue;
            }
            let unread = vertex
                .ports
                .iter()
                .flatten()
                .filter(|port| !read.contains(&Some(port.as_str())));
            for port in unread {
                let message = format!("nobody reads `{id}.{port}`: its events are discarded");
                let problem = Problem::new(codes::UNREAD_PORT, message).warning();
                self.problems.push(problem.at_span(vertex.span.clone()));
            }
        }
    }
}

fn quote_first(candidates: &[&str]) -> String {
    candidates
        .first()
        .map(|id| format!("\"{id}\""))
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vertex(kind: Kind, id: &str, inputs: &[&str], ports: &[&str]) -> Vertex {
        let inputs = inputs.iter().map(|input| (Input::parse(input), 0..0));
        Vertex {
            id: id.into(),
            span: 0..0,
            kind,
            inputs: Some(inputs.collect()),
            ports: Some(ports.iter().map(|&port| port.to_owned()).collect()),
            unnamed: !id.starts_with("ports-only"),
        }
    }

    fn source(id: &str) -> Vertex {
        vertex(Kind::Source, id, &[], &[])
    }

    fn filter(id: &str, inputs: &[&str]) -> Vertex {
        vertex(Kind::Filter, id, inputs, &[])
    }

    fn sink(id: &str, inputs: &[&str]) -> Vertex {
        vertex(Kind::Sink, id, inputs, &[])
    }

    fn found(vertices: &[Vertex]) -> Vec<(&'static str, String)> {
        let problems = check(vertices, &[("ws".into(), Kind::Transport)], true);
        problems
            .into_iter()
            .map(|problem| (problem.code, problem.message))
            .collect()
    }

    fn codes(vertices: &[Vertex]) -> Vec<&'static str> {
        found(vertices).into_iter().map(|(code, _)| code).collect()
    }

    #[test]
    fn a_sound_graph_has_no_problems() {
        let graph = [
            source("a"),
            source("b"),
            vertex(Kind::Filter, "f", &["a", "b"], &["left", "right"]),
            filter("g", &["f.left"]),
            sink("x", &["f.right", "g"]),
            sink("y", &["a"]),
        ];
        assert_eq!(found(&graph), []);
    }

    #[test]
    fn a_misspelt_input_is_one_problem() {
        assert_eq!(
            codes(&[source("hook"), sink("out", &["hok"])]),
            [codes::UNKNOWN_INPUT]
        );
        assert_eq!(
            codes(&[source("hook"), sink("out", &["something"])]),
            [codes::UNKNOWN_INPUT]
        );
    }

    #[test]
    fn sinks_and_transports_are_no_inputs() {
        let graph = [source("a"), sink("x", &["a"]), sink("y", &["x", "ws", "a"])];
        assert_eq!(codes(&graph), [codes::NOT_AN_INPUT, codes::NOT_AN_INPUT]);
    }

    #[test]
    fn what_has_ports_only_is_read_by_port() {
        let read = |input: &str| {
            codes(&[
                source("in"),
                vertex(Kind::Filter, "ports-only", &["in"], &["a"]),
                vertex(Kind::Sink, "out", &[input], &[]),
            ])
        };
        assert_eq!(read("ports-only.a"), [""; 0]);
        assert_eq!(read("ports-only").first(), Some(&codes::UNKNOWN_PORT));
    }

    #[test]
    fn ports_are_checked() {
        let route = vertex(Kind::Filter, "f", &["a"], &["left", "right"]);
        let graph = [source("a"), route, sink("x", &["f.lft"])];
        assert_eq!(codes(&graph), [codes::UNKNOWN_PORT, codes::UNREAD_PORT]);
        assert_eq!(
            codes(&[source("a"), sink("x", &["a.b"])]),
            [codes::UNKNOWN_PORT]
        );
    }

    #[test]
    fn a_circle_is_shown_in_the_direction_of_the_flow() {
        let graph = [
            source("in"),
            filter("a", &["in", "c"]),
            filter("b", &["a"]),
            filter("c", &["b"]),
            sink("x", &["c"]),
        ];
        assert_eq!(
            found(&graph),
            [(
                codes::CYCLE,
                "events would go in a circle: a -> b -> c -> a".to_owned()
            )]
        );
        let own = [source("in"), filter("a", &["in", "a"]), sink("x", &["a"])];
        assert_eq!(found(&own)[0].1, "events would go in a circle: a -> a");
        let two = [
            source("in"),
            filter("a", &["b", "in"]),
            filter("b", &["a"]),
            filter("c", &["d", "a"]),
            filter("d", &["c"]),
            sink("x", &["b", "d"]),
        ];
        assert_eq!(codes(&two), [codes::CYCLE, codes::CYCLE]);
    }

    #[test]
    fn what_leads_nowhere_is_reported() {
        let graph = [
            source("a"),
            source("idle"),
            filter("end", &["a"]),
            filter("dry", &[]),
            sink("x", &["a"]),
            sink("y", &["dry"]),
        ];
        assert_eq!(
            codes(&graph),
            [
                codes::NO_INPUT,
                codes::UNREACHABLE,
                codes::UNREAD_OUTPUT,
                codes::UNREAD_OUTPUT
            ]
        );
        assert_eq!(codes(&[]), [codes::NO_SOURCE, codes::NO_SINK]);
        assert_eq!(
            codes(&[source("a"), sink("x", &["a", "a"])]),
            [codes::DUPLICATE_INPUT]
        );
    }

    #[test]
    fn a_reader_that_could_not_be_read_hides_nothing_else() {
        let mut broken = sink("x", &[]);
        broken.inputs = None;
        assert_eq!(codes(&[source("a"), broken]), Vec::<&str>::new());
    }
}
