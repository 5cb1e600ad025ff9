//! Programs that change a few members of the envelope, and need no jq for it, or only for what becomes of those.
//!
//! As [`Plain`] has it: the envelope becomes what the program would make of it, or nothing is said.

use std::time::Duration;

use jaq_core::load::parse::{BinaryOp, Term};
use jaq_core::ops::Math;

use super::ahead::{Ahead, Gathered, Runs};
use super::plain::{Plain, members};
use super::scan::{Found, Scan, is_long, is_too_deep};
use super::values::{Document, write_text};
use super::{Rewritten, RunError};
use crate::Event;

/// What becomes of the envelope. It names the same event and the same instance.
pub(super) struct Rewrite {
    edits: Vec<Edit>,
    runs: Runs,
    /// How many times the document is walked through.
    walks: usize,
}

enum Edit {
    /// Nothing becomes of it, unless this holds.
    Keep(Plain),
    /// The member at the path, which may be a new one, becomes what the term comes to.
    Set(Vec<String>, Plain),
    /// What stands at the path is removed. As many names from the start lead to an object.
    Remove(Vec<String>, usize),
    /// Another object takes its place.
    Replace(Plain),
}

/// A program while it is taken apart.
#[derive(Default)]
struct Parts<'t> {
    edits: Vec<Edit>,
    runs: Gathered<'t>,
    /// Behind so many edits that may end it.
    stretch: usize,
}

// === impl Rewrite ===

impl Rewrite {
    /// The program, if it is one of these.
    pub(super) fn of(program: &Term<&str>) -> Option<Self> {
        let mut parts = Parts::default();
        parts.add(program, &[])?;
        let Parts { edits, runs, .. } = parts;
        let changed: Vec<Option<&[String]>> = edits.iter().map(Edit::changes).collect();
        let runs = runs.compile(&changed).ok()?;
        let walks = edits.iter().map(Edit::walks).sum();
        Some(Self { edits, runs, walks })
    }

    /// What it makes of an event's envelope.
    pub(super) fn envelope(&self, event: &Event, time: Duration) -> Result<Rewritten, RunError> {
        if is_long(event.envelope(), self.walks) {
            return Ok(Rewritten::Unknown(time));
        }
        let ahead = Ahead::new(&self.runs, event, time);
        let rewritten = self.rewritten(event, &ahead);
        match (rewritten, ahead.exceeded()) {
            (_, Some(exceeded)) => Err(exceeded.into()),
            (Some(rewritten), None) => Ok(rewritten),
            (None, None) => Ok(Rewritten::Unknown(ahead.left())),
        }
    }

    fn rewritten(&self, event: &Event, ahead: &Ahead<'_>) -> Option<Rewritten> {
        let before = event.envelope();
        let mut changed: Option<Vec<u8>> = None;
        for edit in &self.edits {
            let document = match &changed {
                Some(json) => Document::changed(json, ahead),
                None => Document::of(event).with(ahead),
            };
            match edit {
                Edit::Keep(condition) => {
                    if !condition.holds(document)? {
                        return Some(Rewritten::Nothing);
                    }
                }
                Edit::Replace(object) => {
                    let mut json = Vec::with_capacity(before.len());
                    object.write(document, &mut json)?;
                    changed = Some(json);
                }
                Edit::Set(path, value) => {
                    let mut written = Vec::new();
                    value.write(document, &mut written)?;
                    set(of_copy(&mut changed, before), path, &written)?;
                }
                Edit::Remove(path, given) => delete(of_copy(&mut changed, before), path, *given)?,
            }
        }
        let Some(changed) = changed else {
            return Some(Rewritten::Envelope(before.clone()));
        };
        (!is_too_deep(&changed)).then(|| Rewritten::Envelope(changed.into()))
    }
}

/// What became of an envelope, or else a copy of it.
fn of_copy<'a>(changed: &'a mut Option<Vec<u8>>, before: &[u8]) -> &'a mut Vec<u8> {
    changed.get_or_insert_with(|| {
        let mut json = Vec::with_capacity(before.len() + 64);
        json.extend_from_slice(before);
        json
    })
}

// === impl Parts ===

impl<'t> Parts<'t> {
    /// Adds the edits of a program that is given what stands at a path.
    fn add(&mut self, program: &'t Term<&'t str>, below: &[String]) -> Option<()> {
        let input = || (!below.is_empty()).then(|| Plain::Path(below.to_vec()));
        let path = |term| match Plain::given(input().as_ref(), term)? {
            // Where it is below, its names begin with those.
            Plain::Path(path) if is_free(&path) => Some(path),
            _ => None,
        };
        match program {
            Term::Id => Some(()),
            Term::BinOp(left, BinaryOp::Pipe(None), right) => {
                self.add(left, below)?;
                self.add(right, below)
            }
            Term::BinOp(to, BinaryOp::Assign, value) => {
                let (to, value) = (path(to)?, self.value(input().as_ref(), value)?);
                self.edits.push(Edit::Set(to, value));
                Some(())
            }
            Term::BinOp(left, BinaryOp::UpdateMath(Math::Add), right) => {
                let to = path(left)?;
                let sum = Term::BinOp(left.clone(), BinaryOp::Math(Math::Add), right.clone());
                let sum = match Plain::given(input().as_ref(), &sum) {
                    Some(plain) => plain,
                    None if below.is_empty() => self.run(sum),
                    None => return None,
                };
                self.edits.push(Edit::Set(to, sum));
                Some(())
            }
            Term::BinOp(to, BinaryOp::UpdateAlt, value) => {
                let (to, value) = (path(to)?, self.value(input().as_ref(), value)?);
                let left = Box::new(Plain::Path(to.clone()));
                let either = Plain::Alt(left, Box::new(value.clone()));
                // jq looks at it whether it is needed or not.
                self.edits.push(Edit::Set(to, either.behind(value)));
                Some(())
            }
            Term::BinOp(to, BinaryOp::Update, change) => {
                let to = path(to)?;
                match Plain::given(Some(&Plain::Path(to.clone())), change) {
                    Some(value) => {
                        self.edits.push(Edit::Set(to, value));
                        Some(())
                    }
                    None => self.add(change, &to),
                }
            }
            Term::Call("del", arguments) => match &arguments[..] {
                [paths] => self.remove(paths, below),
                _ => None,
            },
            Term::Call("select", arguments) if below.is_empty() => {
                let [condition] = &arguments[..] else {
                    return None;
                };
                let condition = self.value(None, condition)?;
                self.edits.push(Edit::Keep(condition));
                self.stretch += 1;
                Some(())
            }
            Term::Obj(_) if below.is_empty() => {
                let object = self.value(None, program)?;
                let Plain::Object(members) = &object else {
                    return None;
                };
                let kept = |name: &str| {
                    let same = (name.to_owned(), Plain::Path(vec![name.to_owned()]));
                    members.contains(&same)
                };
                (kept("event") && kept("instance")).then(|| self.edits.push(Edit::Replace(object)))
            }
            _ => None,
        }
    }

    fn remove(&mut self, paths: &Term<&str>, below: &[String]) -> Option<()> {
        if let Term::BinOp(left, BinaryOp::Comma, right) = paths {
            self.remove(left, below)?;
            return self.remove(right, below);
        }
        let Plain::Path(path) = Plain::of(paths)? else {
            return None;
        };
        let path: Vec<String> = below.iter().cloned().chain(path).collect();
        is_free(&path).then(|| self.edits.push(Edit::Remove(path, below.len())))
    }

    /// A term of which jq runs what is not plain.
    fn value(&mut self, input: Option<&Plain>, term: &'t Term<&'t str>) -> Option<Plain> {
        if let Some(plain) = Plain::given(input, term) {
            return Some(plain);
        }
        // What it would be given is not at hand.
        if input.is_some() {
            return None;
        }
        if let Term::Obj(terms) = term {
            let before = self.runs.count(self.stretch);
            let object = members(terms, |name, term| match term {
                Some(term) => self.value(None, term),
                None => Some(Plain::Path(vec![name.to_owned()])),
            });
            if object.is_some() {
                return object;
            }
            // Then jq makes all of it.
            self.runs.keep_first(self.stretch, before);
        }
        Some(self.run(term.clone()))
    }

    fn run(&mut self, term: Term<&'t str>) -> Plain {
        Plain::Ran(self.runs.add(term, self.stretch, self.edits.len()))
    }
}

/// Whether what it leads to is not what the event is about.
fn is_free(path: &[String]) -> bool {
    path.first()
        .is_some_and(|name| name != "event" && name != "instance")
}

// === impl Edit ===

impl Edit {
    /// How many times it walks through the document.
    fn walks(&self) -> usize {
        match self {
            Self::Keep(term) | Self::Replace(term) => term.looks(),
            Self::Set(_, term) => term.looks() + 1,
            Self::Remove(..) => 1,
        }
    }

    /// Where the document is another one behind it.
    fn changes(&self) -> Option<&[String]> {
        match self {
            Self::Keep(_) => None,
            Self::Set(path, _) | Self::Remove(path, _) => Some(path),
            Self::Replace(_) => Some(&[]),
        }
    }
}

/// Puts a value where a path leads to.
fn set(json: &mut Vec<u8>, path: &[String], value: &[u8]) -> Option<()> {
    let mut scan = Scan::new(json);
    for (depth, name) in path.iter().enumerate() {
        match scan.find(name) {
            Found::Here(_) => {}
            Found::Missing if depth + 1 == path.len() => {
                // It is behind the brace.
                let end = scan.at() - 1;
                let is_empty = json.get(..end)?.trim_ascii_end().last() == Some(&b'{');
                let mut member = Vec::with_capacity(value.len() + name.len() + 8);
                if !is_empty {
                    member.push(b',');
                }
                write_text(name.as_bytes(), &mut member)?;
                member.push(b':');
                member.extend_from_slice(value);
                json.splice(end..end, member);
                return Some(());
            }
            _ => return None,
        }
    }
    let old = scan.skip()?;
    json.splice(old, value.iter().copied());
    Some(())
}

/// Removes what a path leads to. The first `given` names must lead to an object.
fn delete(json: &mut Vec<u8>, path: &[String], given: usize) -> Option<()> {
    let mut scan = Scan::new(json);
    let mut start = 0;
    for (depth, name) in path.iter().enumerate() {
        match scan.find(name) {
            Found::Here(at) => start = at,
            // Only the last one may be missing: what becomes of the others then, jq knows.
            Found::Missing if depth + 1 == path.len() && depth >= given => return Some(()),
            _ => return None,
        }
    }
    let mut end = scan.skip()?.end;
    let before = json.get(..start)?.trim_ascii_end();
    if scan.peek() == Some(b',') {
        end = scan.at() + 1;
    } else if before.last() == Some(&b',') {
        start = before.len() - 1;
    }
    json.drain(start..end);
    Some(())
}
