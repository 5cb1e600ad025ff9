//! jq programs over JSON: one well-known language for conditions and transformations.
//!
//! The language is that of [jq](https://jqlang.org/manual/), as the crate [jaq](https://github.com/01mf02/jaq) has it. A program is
//! given one value and yields any number of them. It reads nothing else: no files, no other input. One that does not
//! end is ended: after its time, or when it is nested too deep.

mod ahead;
mod compiled;
mod edits;
mod flow;
mod limits;
mod mapping;
mod needs;
mod plain;
mod prelude;
mod read;
mod scan;
mod values;
mod write;

use std::fmt;
use std::ops::Range;
use std::time::Duration;

use bytes::Bytes;
use jaq_core::load::parse::{BinaryOp, Term};
use jaq_core::load::{self, Arena, File, Loader};
pub use jaq_json::Val;

use self::compiled::Compiled;
use self::edits::Rewrite;
pub use self::limits::Exceeded;
pub use self::mapping::{Failure, Mapping};
use self::needs::Need;
use self::plain::Plain;
use self::values::Document;
pub use self::write::{NotJson, write};
use crate::Event;
use crate::event::whole_characters;

/// A compiled program.
pub struct Program {
    text: String,
    /// What it looks at.
    looks_at: Need,
    /// The same, and what its results have by way of `event` and `instance`.
    yields: Need,
    /// What it is without jq, and how many times that walks through a document.
    plain: Option<(Plain, usize)>,
    rewrite: Option<Rewrite>,
    assigns: bool,
    compiled: Compiled,
}

/// What is wrong with the text of a program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// The bytes of the text that it is about; at the end, an empty range.
    pub span: Range<usize>,
    /// What is wrong.
    pub message: String,
}

/// What a program [makes](Program::rewrites) of an envelope.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rewritten {
    /// This one. It names the same `event` and `instance`.
    Envelope(Bytes),
    /// The program yields nothing.
    Nothing,
    /// That is not known before it is run. So much of the time is left for that.
    Unknown(Duration),
}

/// How a program ended early.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RunError {
    /// The program raised an error, such as `cannot index 5 with "a"`.
    #[error("{0}")]
    Raised(String),
    /// It went on for too long, or too deep.
    #[error(transparent)]
    Exceeded(#[from] Exceeded),
}

// === impl Program ===

impl Program {
    /// Compiles a program. No I/O. The error has everything that is wrong, one at least.
    pub fn compile(text: &str) -> Result<Self, Vec<Fault>> {
        let Some(main) = load::parse(text, |parser| parser.term()) else {
            return Err(faults(text));
        };
        let (looks_at, yields) = flow::follow(&main, &["event", "instance"]);
        let plain = Plain::of(&main).map(|plain| {
            let looks = plain.looks();
            (plain, looks)
        });
        let rewrite = Rewrite::of(&main);
        let assigns = matches!(main, Term::BinOp(_, BinaryOp::Assign, _));
        let compiled = Compiled::compile(main, text)?;
        Ok(Self {
            text: text.to_owned(),
            looks_at,
            yields,
            plain,
            rewrite,
            assigns,
            compiled,
        })
    }

    /// Runs it, and shows each value that it yields. What was shown before an error stays shown.
    pub fn run(&self, input: Val, time: Duration, show: impl FnMut(Val)) -> Result<(), RunError> {
        self.compiled.run(input, time, show)
    }

    /// Whether the first value that it yields is neither `false` nor `null`. Without a value it is not.
    pub fn holds(&self, input: Val, time: Duration) -> Result<bool, RunError> {
        let mut first = None;
        self.run(input, time, |value| {
            first.get_or_insert(!matches!(value, Val::Null | Val::Bool(false)));
        })?;
        Ok(first.unwrap_or(false))
    }

    /// Whether it [holds](Self::holds) for an event, where that can be seen without running it: when all that it does is compare
    /// what stands at constant paths.
    pub fn tells(&self, event: &Event) -> Option<bool> {
        let (plain, looks) = self.plain.as_ref()?;
        if scan::is_long(event.envelope(), *looks) {
            return None;
        }
        plain.holds(Document::of(event))
    }

    /// What it makes of an event's envelope, where that can be said without reading all that it looks at: when it keeps events for
    /// which something holds, sets and deletes what stands at constant paths, or puts the envelope together anew. Only what becomes
    /// of single members is left to jq then, where it is needed for them.
    pub fn rewrites(&self, event: &Event, time: Duration) -> Result<Rewritten, RunError> {
        match &self.rewrite {
            Some(rewrite) => rewrite.envelope(event, time),
            None => Ok(Rewritten::Unknown(time)),
        }
    }

    /// Whether it is an assignment, which holds for everything.
    pub fn assigns(&self) -> bool {
        self.assigns
    }

    /// Its text.
    pub fn text(&self) -> &str {
        &self.text
    }
}

impl fmt::Debug for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Program").field(&self.text).finish()
    }
}

/// Reads of documents what programs look at.
#[derive(Debug)]
pub struct Reader {
    need: Need,
    keeps: bool,
}

impl Reader {
    /// One for these conditions. What none of them looks at is not there.
    pub fn of<'a>(conditions: impl IntoIterator<Item = &'a Program>) -> Self {
        let mut need = Need::default();
        for program in conditions {
            need.add(&program.looks_at);
        }
        let keeps = false;
        Self { need, keeps }
    }

    /// One for a program whose results are [written](fn@write). What it does not look at stands in the document as bytes, which are
    /// a part of what was read; the members `event` and `instance` of its results do not.
    pub fn keeping(program: &Program) -> Self {
        Self {
            need: program.yields.clone(),
            keeps: true,
        }
    }

    /// What the programs look at of a document; nothing when it is no JSON, as far as it was read.
    pub fn read(&self, json: &Bytes) -> Option<Val> {
        self.need.read(json, self.keeps)
    }
}

/// Reads a whole document; nothing when it is no JSON, is nested more than 127 deep, or has a number of more than 1,000 characters.
/// Where a string has half of a character, there is U+FFFD, as in [`Event::document`].
pub fn read(json: &[u8]) -> Option<Val> {
    if !scan::is_readable(json) {
        return None;
    }
    let read = jaq_json::read::parse_single(json).ok();
    read.or_else(|| jaq_json::read::parse_single(&whole_characters(json)).ok())
}

/// What is wrong with a text that cannot be parsed.
fn faults(text: &str) -> Vec<Fault> {
    let arena = Arena::default();
    let file = File {
        code: text,
        path: (),
    };
    let errors = Loader::new([]).load(&arena, file).err().unwrap_or_default();
    let mut faults = Vec::new();
    for (_, error) in errors {
        match error {
            load::Error::Io(errors) => faults.extend(errors.into_iter().map(|(at, _)| Fault {
                span: span(text, at),
                message: "a program cannot read modules".to_owned(),
            })),
            load::Error::Lex(errors) => faults.extend(errors.into_iter().map(|(expected, at)| {
                let message = format!("expected {}", expected.as_str());
                let span = span(text, at);
                let end = span.end.min(span.start + 1);
                let span = span.start..end;
                Fault { span, message }
            })),
            load::Error::Parse(errors) => {
                faults.extend(errors.into_iter().map(|(expected, at)| {
                    let found = if at.is_empty() {
                        "the program ends".to_owned()
                    } else {
                        format!("there is `{at}`")
                    };
                    let message = format!("expected {}, but {found}", expected.as_str());
                    let span = span(text, at);
                    Fault { span, message }
                }));
            }
        }
    }
    if faults.is_empty() {
        faults.push(Fault {
            span: 0..text.len(),
            message: "this is not a jq program".to_owned(),
        });
    }
    faults
}

/// Where a part of a text is; at its end when it is no part of it.
fn span(text: &str, part: &str) -> Range<usize> {
    let whole = text.as_bytes().as_ptr_range();
    let start = part.as_ptr();
    if whole.start <= start && start <= whole.end {
        load::span(text, part)
    } else {
        text.len()..text.len()
    }
}

#[cfg(test)]
mod tests;
