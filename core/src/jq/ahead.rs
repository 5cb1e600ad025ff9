//! Terms that jq runs before a [`Rewrite`](super::edits::Rewrite) puts what they come to in its place: the rest of the document
//! is neither read nor copied for them.

use std::cell::{Cell, OnceCell};
use std::time::{Duration, Instant};

use jaq_core::load::parse::{BinaryOp, Term};
use jaq_json::Val;

use super::compiled::Compiled;
use super::limits::Exceeded;
use super::needs::Need;
use super::{RunError, flow};
use crate::Event;

/// Which of the values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Slot {
    /// Those of one stretch are made in one go: there is nothing between them that may end the program first.
    stretch: usize,
    number: usize,
}

/// Terms that are run in one go. Each must yield one value.
struct Run {
    compiled: Compiled,
    /// What they look at.
    need: Need,
}

/// All of them, by stretches.
pub(super) struct Runs(Vec<Option<Run>>);

/// What they come to for one event, once that is asked for.
pub(super) struct Ahead<'a> {
    runs: &'a Runs,
    event: &'a Event,
    time: Duration,
    values: Vec<OnceCell<Option<Vec<Val>>>>,
    spent: Cell<Duration>,
    exceeded: Cell<Option<Exceeded>>,
}

/// Terms while they are gathered.
#[derive(Default)]
pub(super) struct Gathered<'t>(Vec<Stretch<'t>>);

/// Those of one stretch, each with how many edits are in front of it.
type Stretch<'t> = Vec<(Term<&'t str>, usize)>;

/// A term would see what an edit in front of it has changed.
pub(super) struct Stale;

// === impl Gathered ===

impl<'t> Gathered<'t> {
    /// Adds a term that stands behind so many edits.
    pub(super) fn add(&mut self, term: Term<&'t str>, stretch: usize, edits: usize) -> Slot {
        if self.0.len() <= stretch {
            self.0.resize_with(stretch + 1, Vec::new);
        }
        let terms = &mut self.0[stretch];
        terms.push((term, edits));
        let number = terms.len() - 1;
        Slot { stretch, number }
    }

    /// How many there are in a stretch.
    pub(super) fn count(&self, stretch: usize) -> usize {
        self.0.get(stretch).map_or(0, Vec::len)
    }

    /// Forgets all of a stretch but the first ones.
    pub(super) fn keep_first(&mut self, stretch: usize, count: usize) {
        if let Some(terms) = self.0.get_mut(stretch) {
            terms.truncate(count);
        }
    }

    /// `changed`: where the document is another one behind each edit, if it is.
    pub(super) fn compile(self, changed: &[Option<&[String]>]) -> Result<Runs, Stale> {
        for (term, edits) in self.0.iter().flatten() {
            let in_front = changed.get(..*edits).unwrap_or(changed);
            let need = flow::looks_at_or_yields(term);
            if in_front.iter().flatten().any(|path| need.meets(path)) {
                return Err(Stale);
            }
        }
        let runs = self.0.into_iter().map(Run::compile);
        Ok(Runs(runs.collect()))
    }
}

// === impl Run ===

impl Run {
    /// Nothing when there are no terms.
    fn compile(terms: Stretch<'_>) -> Option<Self> {
        let list = |term| Term::Arr(Some(Box::new(term)));
        let lists = terms.into_iter().map(|(term, _)| list(term));
        let all = lists
            .reduce(|left, right| Term::BinOp(Box::new(left), BinaryOp::Comma, Box::new(right)));
        let all = list(all?);
        let (need, _) = flow::follow(&all, &[]);
        // What is wrong with them was said of the whole program.
        let compiled = Compiled::compile(all, "").ok()?;
        Some(Self { compiled, need })
    }

    fn values(&self, event: &Event, time: Duration) -> Result<Option<Vec<Val>>, RunError> {
        let Some(input) = self.need.read(event.envelope(), true) else {
            return Ok(None);
        };
        let mut lists = None;
        self.compiled
            .run(input, time, |value| lists = Some(value))?;
        let Some(Val::Arr(lists)) = lists else {
            return Ok(None);
        };
        let values = lists.iter().map(|list| match list {
            Val::Arr(values) => match &values[..] {
                [value] => Some(value.clone()),
                _ => None,
            },
            _ => None,
        });
        Ok(values.collect())
    }
}

// === impl Ahead ===

impl<'a> Ahead<'a> {
    pub(super) fn new(runs: &'a Runs, event: &'a Event, time: Duration) -> Self {
        Self {
            runs,
            event,
            time,
            values: runs.0.iter().map(|_| OnceCell::new()).collect(),
            spent: Cell::default(),
            exceeded: Cell::new(None),
        }
    }

    /// What a term came to. It is not known where the program raises an error, yields more or less, or takes too long.
    pub(super) fn value(&self, slot: Slot) -> Option<&Val> {
        let (run, values) = (
            self.runs.0.get(slot.stretch)?,
            self.values.get(slot.stretch)?,
        );
        let values = values.get_or_init(|| self.run(run.as_ref()?));
        values.as_ref()?.get(slot.number)
    }

    fn run(&self, run: &Run) -> Option<Vec<Val>> {
        let begun = Instant::now();
        let values = run.values(self.event, self.left());
        self.spent.set(self.spent.get() + begun.elapsed());
        match values {
            Ok(values) => values,
            Err(RunError::Raised(_)) => None,
            Err(RunError::Exceeded(exceeded)) => {
                let exceeded = match exceeded {
                    Exceeded::Time(_) => Exceeded::Time(self.time),
                    Exceeded::Depth => Exceeded::Depth,
                };
                self.exceeded.set(Some(exceeded));
                None
            }
        }
    }

    /// The time that jq has left.
    pub(super) fn left(&self) -> Duration {
        self.time.saturating_sub(self.spent.get())
    }

    /// The bytes that what was not looked at is a part of.
    pub(super) fn read_from(&self) -> &'a [u8] {
        self.event.envelope()
    }

    /// What there was too much of.
    pub(super) fn exceeded(&self) -> Option<Exceeded> {
        self.exceeded.get()
    }
}
