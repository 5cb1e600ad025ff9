//! From a plan to segments and queues.
//!
//! A filter runs in the segment of what it reads. Only one whose inputs lie in different segments, or one that is
//! async, gets a queue, and a segment of its own behind it.

use std::collections::HashMap;
use std::sync::Arc;

use super::fanout::{Output, Target, To};
use super::plan::{GraphError, Plan};
use crate::config::Input;

/// What reads and writes: an index into the plan's filters or sinks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Reader {
    Filter(usize),
    Sink(usize),
}

/// An output of the plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Writer {
    Source(usize),
    /// A filter's output: 0 is the unnamed one, then come the ports.
    Filter(usize, usize),
}

/// The shape of a plan: which filters share a segment, and where each output goes.
#[derive(Debug)]
pub(crate) struct Graph {
    /// The segments: first one per source, in order, then those behind a queue.
    pub(crate) segments: Vec<Shape>,
}

/// The shape of one segment.
#[derive(Debug, Default)]
pub(crate) struct Shape {
    /// The output of the source; for a segment behind a queue, its first filter.
    pub(crate) root: Output,
    /// The filters, in topological order, each with its outputs.
    pub(crate) nodes: Vec<(usize, Vec<Output>)>,
    /// The queues that it pushes into.
    pub(crate) leaves: Vec<Reader>,
    /// The filter whose queue feeds it; `None` when a source does.
    pub(crate) fed_by: Option<usize>,
}

/// The edges of a plan.
struct Edges {
    readers: HashMap<Writer, Vec<Reader>>,
    /// The writers that each filter reads.
    inputs: Vec<Vec<Writer>>,
}

// === impl Graph ===

impl Graph {
    pub(crate) fn new(plan: &Plan) -> Result<Self, GraphError> {
        let edges = Edges::new(plan)?;
        let order = edges.order(plan)?;
        let required = edges.required(plan, &order);
        let mut segments: Vec<Shape> = Vec::new();
        segments.resize_with(plan.sources.len(), Shape::default);
        // Where each filter runs: its segment, and its index in it.
        let mut places: Vec<(usize, usize)> = vec![(usize::MAX, 0); plan.filters.len()];
        for &filter in &order {
            let mut homes = edges.inputs[filter].iter().map(|writer| match *writer {
                Writer::Source(source) => source,
                Writer::Filter(other, _) => places[other].0,
            });
            let first = homes.next();
            let segment = match first {
                Some(first)
                    if homes.all(|home| home == first)
                        && !plan.filters[filter].part.built.is_async() =>
                {
                    first
                }
                _ => {
                    segments.push(Shape {
                        fed_by: Some(filter),
                        ..Shape::default()
                    });
                    segments.len() - 1
                }
            };
            places[filter] = (segment, segments[segment].nodes.len());
            segments[segment].nodes.push((filter, Vec::new()));
        }
        for (index, shape) in segments.iter_mut().enumerate() {
            let output = |writer: Writer, leaves: &mut Vec<Reader>| {
                let readers = edges.readers.get(&writer).map_or(&[][..], Vec::as_slice);
                let targets = readers.iter().map(|&reader| Target {
                    to: shape_target(reader, index, &places, leaves),
                    required: match reader {
                        Reader::Filter(filter) => required[filter],
                        Reader::Sink(sink) => plan.sinks[sink].required,
                    },
                });
                Output::new(targets.collect())
            };
            let leaves = &mut shape.leaves;
            shape.root = match shape.fed_by {
                None => output(Writer::Source(index), leaves),
                Some(_) => Output::new(vec![Target {
                    to: To::Node(0),
                    required: true,
                }]),
            };
            for (filter, outputs) in &mut shape.nodes {
                let ports = plan.filters[*filter].ports.len();
                *outputs = (0..=ports)
                    .map(|port| output(Writer::Filter(*filter, port), leaves))
                    .collect();
            }
        }
        Ok(Self { segments })
    }
}

/// A reader as the segment `home` sees it: a filter of its own, unless that is behind a queue.
fn shape_target(
    reader: Reader,
    home: usize,
    places: &[(usize, usize)],
    leaves: &mut Vec<Reader>,
) -> To {
    if let Reader::Filter(filter) = reader
        && let (segment, index) = places[filter]
        && segment == home
    {
        return To::Node(index);
    }
    let known = leaves.iter().position(|leaf| *leaf == reader);
    To::Leaf(known.unwrap_or_else(|| {
        leaves.push(reader);
        leaves.len() - 1
    }))
}

// === impl Edges ===

impl Edges {
    fn new(plan: &Plan) -> Result<Self, GraphError> {
        let mut edges = Self {
            readers: HashMap::new(),
            inputs: vec![Vec::new(); plan.filters.len()],
        };
        for (index, filter) in plan.filters.iter().enumerate() {
            let reader = Reader::Filter(index);
            edges.connect(plan, &filter.part.id, &filter.inputs, reader)?;
        }
        for (index, sink) in plan.sinks.iter().enumerate() {
            let reader = Reader::Sink(index);
            edges.connect(plan, &sink.part.id, &sink.inputs, reader)?;
        }
        Ok(edges)
    }

    fn connect(
        &mut self,
        plan: &Plan,
        id: &Arc<str>,
        inputs: &[Input],
        reader: Reader,
    ) -> Result<(), GraphError> {
        for input in inputs {
            let writer = find(plan, id, input)?;
            let readers = self.readers.entry(writer).or_default();
            // An input that is named twice is one edge.
            if readers.contains(&reader) {
                continue;
            }
            readers.push(reader);
            if let Reader::Filter(filter) = reader {
                self.inputs[filter].push(writer);
            }
        }
        Ok(())
    }

    /// The filters, each behind everything that it reads.
    fn order(&self, plan: &Plan) -> Result<Vec<usize>, GraphError> {
        let mut order = Vec::with_capacity(self.inputs.len());
        let mut done = vec![false; self.inputs.len()];
        loop {
            let next = (0..done.len()).find(|&filter| {
                let ready = |writer: &Writer| match *writer {
                    Writer::Source(_) => true,
                    Writer::Filter(other, _) => done[other],
                };
                !done[filter] && self.inputs[filter].iter().all(ready)
            });
            if let Some(next) = next {
                done[next] = true;
                order.push(next);
                continue;
            }
            return match done.iter().position(|done| !done) {
                None => Ok(order),
                Some(stuck) => Err(GraphError::Cycle(Arc::clone(&plan.filters[stuck].part.id))),
            };
        }
    }

    /// Whether the source waits for what goes into each filter: when a required sink lies behind it, or
    /// no sink at all.
    fn required(&self, plan: &Plan, order: &[usize]) -> Vec<bool> {
        // `None` where no sink lies behind.
        let mut behind: Vec<Option<bool>> = vec![None; plan.filters.len()];
        for &filter in order.iter().rev() {
            let ports = plan.filters[filter].ports.len();
            behind[filter] = (0..=ports)
                .filter_map(|port| self.readers.get(&Writer::Filter(filter, port)))
                .flatten()
                .filter_map(|reader| match *reader {
                    Reader::Filter(other) => behind[other],
                    Reader::Sink(sink) => Some(plan.sinks[sink].required),
                })
                .reduce(|some, other| some || other);
        }
        let required = behind.into_iter();
        required.map(|behind| behind.unwrap_or(true)).collect()
    }
}

fn find(plan: &Plan, reader: &Arc<str>, input: &Input) -> Result<Writer, GraphError> {
    let unknown_port = |port: &String| GraphError::UnknownPort {
        reader: Arc::clone(reader),
        input: Arc::clone(&input.id),
        port: port.clone(),
    };
    if let Some(source) = plan.sources.iter().position(|part| part.id == input.id) {
        return match &input.port {
            None => Ok(Writer::Source(source)),
            Some(port) => Err(unknown_port(port)),
        };
    }
    let named = |filter: &super::plan::FilterPart| filter.part.id == input.id;
    let Some(filter) = plan.filters.iter().position(named) else {
        return Err(GraphError::UnknownInput {
            reader: Arc::clone(reader),
            input: Arc::clone(&input.id),
        });
    };
    let Some(port) = &input.port else {
        return Ok(Writer::Filter(filter, 0));
    };
    let ports = &plan.filters[filter].ports;
    match ports.iter().position(|name| name == port) {
        Some(number) => Ok(Writer::Filter(filter, number + 1)),
        None => Err(unknown_port(port)),
    }
}
