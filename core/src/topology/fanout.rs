//! Where the events of one output go.

/// One output of a source or filter, with its readers.
#[derive(Debug, Default)]
pub(crate) struct Output {
    targets: Vec<Target>,
    /// The last target that counts for the source, which gets the event itself; the others get copies.
    owner: Option<usize>,
}

/// One reader of an output.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Target {
    pub(crate) to: To,
    /// Whether a required sink lies behind it. Where none does, the source does not wait for the event.
    pub(crate) required: bool,
}

/// What a reader is.
#[derive(Debug, Clone, Copy)]
pub(crate) enum To {
    /// A filter of the same segment, by its index.
    Node(usize),
    /// A queue, by its index among the segment's.
    Leaf(usize),
}

// === impl Output ===

impl Output {
    pub(crate) fn new(targets: Vec<Target>) -> Self {
        let owner = targets.iter().rposition(|target| target.required);
        Self { targets, owner }
    }

    pub(crate) fn targets(&self) -> &[Target] {
        &self.targets
    }

    pub(crate) fn owner(&self) -> Option<usize> {
        self.owner
    }
}
