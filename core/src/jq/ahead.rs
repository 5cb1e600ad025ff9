//! Terms that jq runs before a [`Rewrite`](super::edits::Rewrite) puts what they come to in its place: the rest of the document
//! is neither read nor copied for them.

use std::cell::{Cell, OnceCell};
use std::time::Duration;

use jaq_core::load::parse::{BinaryOp, Term};
use jaq_json::Val;

use super::compiled::Compiled;
use super::limits::Exceeded;
use super::needs::Need;
use super::{RunError, flow};
use crate::Event;

/// Terms that are run in one go. Each must yield one value.
pub(super) struct Runs {
    compiled: Compiled,
    /// What they look at.
    need: Need,
}

/// What they come to for one event, once that is asked for.
pub(super) struct Ahead<'a> {
    runs: Option<&'a Runs>,
    event: &'a Event,
    time: Duration,
    values: OnceCell<Option<Vec<Val>>>,
    exceeded: Cell<Option<Exceeded>>,
}

/// Terms while they are gathered, each with how many edits are in front of it.
#[derive(Default)]
pub(super) struct Gathered<'t> {
    terms: Vec<(&'t Term<&'t str>, usize)>,
}

// === impl Gathered ===

impl<'t> Gathered<'t> {
    /// Adds a term that stands behind so many edits, and says which one it is.
    pub(super) fn add(&mut self, term: &'t Term<&'t str>, edits: usize) -> usize {
        self.terms.push((term, edits));
        self.terms.len() - 1
    }

    /// All of them, if there are any: nothing when one would see what an edit in front of it has changed.
    #[expect(clippy::option_option, reason = "there are none, or not these")]
    pub(super) fn compile(self, changed: &[Option<&[String]>]) -> Option<Option<Runs>> {
        for (term, edits) in &self.terms {
            let mut changed = changed.get(..*edits)?.iter().flatten();
            let need = flow::looks_at_or_yields(term);
            if changed.any(|path| need.meets(path)) {
                return None;
            }
        }
        let list = |term: Term<&'t str>| Term::Arr(Some(Box::new(term)));
        let terms = self.terms.into_iter().map(|(term, _)| list(term.clone()));
        let all = terms
            .reduce(|left, right| Term::BinOp(Box::new(left), BinaryOp::Comma, Box::new(right)));
        let Some(all) = all.map(list) else {
            return Some(None);
        };
        let (need, _) = flow::follow(&all, &[]);
        // What is wrong with them was said of the whole program.
        let compiled = Compiled::compile(all, "").ok()?;
        Some(Some(Runs { compiled, need }))
    }
}

// === impl Runs ===

impl Runs {
    fn of(&self, event: &Event, time: Duration) -> Result<Option<Vec<Val>>, RunError> {
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
    pub(super) fn new(runs: Option<&'a Runs>, event: &'a Event, time: Duration) -> Self {
        Self {
            runs,
            event,
            time,
            values: OnceCell::new(),
            exceeded: Cell::new(None),
        }
    }

    /// What a term came to; nothing where the program raises an error, yields more or less, or takes too long.
    pub(super) fn value(&self, number: usize) -> Option<&Val> {
        let values = self
            .values
            .get_or_init(|| match self.runs?.of(self.event, self.time) {
                Ok(values) => values,
                Err(RunError::Raised(_)) => None,
                Err(RunError::Exceeded(exceeded)) => {
                    self.exceeded.set(Some(exceeded));
                    None
                }
            });
        values.as_ref()?.get(number)
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
