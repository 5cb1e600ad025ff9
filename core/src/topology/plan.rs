//! A graph of built components, before it runs.

use std::sync::Arc;

use crate::config::{BufferConfig, Input};
use crate::delivery::Delivery;
use crate::journal::Journal;
use crate::plugin::{AsyncFilter, BuildError, Filter, Sink, Source};

/// Builds a component again after it failed.
pub type Rebuild<T> = Box<dyn FnMut() -> Result<T, BuildError> + Send>;

/// A built component under its id, and how to build it again.
pub struct Part<T> {
    /// Its id.
    pub id: Arc<str>,
    /// The component.
    pub built: T,
    /// Builds another one like it.
    pub rebuild: Rebuild<T>,
}

/// A built filter of either sort.
pub enum BuiltFilter {
    /// One that runs on the task of what it reads.
    Inline(Box<dyn Filter>),
    /// One that gets a queue and a task of its own.
    Async(Arc<dyn AsyncFilter>),
}

/// A filter in a plan.
pub struct FilterPart {
    /// The filter.
    pub part: Part<BuiltFilter>,
    /// What it reads.
    pub inputs: Vec<Input>,
    /// Its named ports, in the order of their numbers.
    pub ports: Vec<String>,
}

/// A sink in a plan.
pub struct SinkPart {
    /// The sink.
    pub part: Part<Box<dyn Sink>>,
    /// What it reads.
    pub inputs: Vec<Input>,
    /// The queue in front of it.
    pub buffer: BufferConfig,
    /// What the queue is emptied into, when the buffer is on disk.
    pub journal: Option<Arc<dyn Journal>>,
    /// How it is delivered to.
    pub delivery: Delivery,
    /// Whether a source acknowledges an event only once this sink has it.
    pub required: bool,
}

/// Built components and their inputs, ready to run.
#[derive(Default)]
pub struct Plan {
    /// Where events enter.
    pub sources: Vec<Part<Box<dyn Source>>>,
    /// What is done with them.
    pub filters: Vec<FilterPart>,
    /// Where they leave.
    pub sinks: Vec<SinkPart>,
}

/// Why a plan is not a graph that can run. A checked configuration has none of these.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GraphError {
    /// An input names nothing.
    #[error("`{reader}` reads `{input}`, which is no source or filter")]
    UnknownInput {
        /// Who reads it.
        reader: Arc<str>,
        /// What it names.
        input: Arc<str>,
    },
    /// An input names a port that the filter does not have.
    #[error("`{reader}` reads the port `{port}` of `{input}`, which has no such port")]
    UnknownPort {
        /// Who reads it.
        reader: Arc<str>,
        /// Whose port.
        input: Arc<str>,
        /// The port.
        port: String,
    },
    /// Filters read each other in a circle.
    #[error("the filter `{0}` reads its own output, directly or through others")]
    Cycle(Arc<str>),
}

// === impl BuiltFilter ===

impl BuiltFilter {
    /// Whether it gets a task of its own.
    pub(crate) fn is_async(&self) -> bool {
        matches!(self, Self::Async(_))
    }
}
