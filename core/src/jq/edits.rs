//! Programs that change a few members of the envelope, and need no jq for it.
//!
//! As [`Plain`] has it: the envelope becomes what the program would make of it, or nothing is said.

use jaq_core::load::parse::{BinaryOp, Term};

use super::plain::{Document, Plain, write_text};
use super::scan::{Found, Scan};
use crate::Event;

/// What becomes of the envelope. It names the same event and the same instance.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Rewrite {
    /// Another object takes its place.
    Object(Plain),
    /// It is changed, one edit after the other.
    Edits(Vec<Edit>),
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Edit {
    /// The member at the path, which may be a new one, becomes what the term comes to.
    Set(Vec<String>, Plain),
    /// What stands at the path is removed. As many names from the start lead to an object.
    Remove(Vec<String>, usize),
}

// === impl Rewrite ===

impl Rewrite {
    /// The program, if it is one of these.
    pub(super) fn of(program: &Term<&str>) -> Option<Self> {
        if matches!(program, Term::Obj(_)) {
            let object = Plain::of(program)?;
            let Plain::Object(members) = &object else {
                return None;
            };
            let kept = |name: &str| {
                let same = (name.to_owned(), Plain::Path(vec![name.to_owned()]));
                members.contains(&same)
            };
            return (kept("event") && kept("instance")).then_some(Self::Object(object));
        }
        let mut edits = Vec::new();
        add(program, &[], &mut edits)?;
        let renames = |path: &[String]| {
            path.first()
                .is_none_or(|name| name == "event" || name == "instance")
        };
        let renames = edits.iter().any(|edit| match edit {
            Edit::Set(path, _) | Edit::Remove(path, _) => renames(path),
        });
        (!renames && !edits.is_empty()).then_some(Self::Edits(edits))
    }

    /// The envelope that it makes of an event's.
    pub(super) fn envelope(&self, event: &Event) -> Option<Vec<u8>> {
        let before = event.envelope();
        match self {
            Self::Object(object) => {
                let mut envelope = Vec::with_capacity(before.len());
                object.write(Document::of(event), &mut envelope)?;
                Some(envelope)
            }
            Self::Edits(edits) => {
                let mut envelope = Vec::with_capacity(before.len() + 64);
                envelope.extend_from_slice(before);
                for edit in edits {
                    edit.apply(&mut envelope)?;
                }
                Some(envelope)
            }
        }
    }
}

/// Adds the edits of a program that is given what stands at a path.
fn add(program: &Term<&str>, below: &[String], edits: &mut Vec<Edit>) -> Option<()> {
    match program {
        Term::BinOp(left, BinaryOp::Pipe(None), right) => {
            add(left, below, edits)?;
            add(right, below, edits)
        }
        // Below the document, what is written would be read from there.
        Term::BinOp(path, BinaryOp::Assign, value) if below.is_empty() => {
            let Plain::Path(path) = Plain::of(path)? else {
                return None;
            };
            edits.push(Edit::Set(path, Plain::of(value)?));
            Some(())
        }
        Term::BinOp(path, BinaryOp::Update, change) if below.is_empty() => {
            let Plain::Path(path) = Plain::of(path)? else {
                return None;
            };
            add(change, &path, edits)
        }
        Term::Call("del", arguments) => match &arguments[..] {
            [paths] => remove(paths, below, edits),
            _ => None,
        },
        _ => None,
    }
}

fn remove(paths: &Term<&str>, below: &[String], edits: &mut Vec<Edit>) -> Option<()> {
    if let Term::BinOp(left, BinaryOp::Comma, right) = paths {
        remove(left, below, edits)?;
        return remove(right, below, edits);
    }
    let Plain::Path(path) = Plain::of(paths)? else {
        return None;
    };
    let path = below.iter().cloned().chain(path).collect();
    edits.push(Edit::Remove(path, below.len()));
    Some(())
}

// === impl Edit ===

impl Edit {
    fn apply(&self, json: &mut Vec<u8>) -> Option<()> {
        match self {
            Self::Set(path, value) => {
                let mut written = Vec::new();
                value.write(Document::new(json), &mut written)?;
                set(json, path, &written)
            }
            Self::Remove(path, given) => delete(json, path, *given),
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
