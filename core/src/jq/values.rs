//! What [plain terms](Plain) come to.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::ops::Range;

use jaq_core::ops::Cmp;
use jaq_json::{Num, Val};
use memchr::memmem;

use super::ahead::Ahead;
use super::plain::{Change, Nth, Plain, Where};
use super::scan::{Found, Scan, text};
use crate::Event;

/// What a term is given.
#[derive(Clone, Copy)]
pub(super) struct Document<'a> {
    json: &'a [u8],
    /// The event that it is the envelope of.
    event: Option<&'a Event>,
    /// What jq makes of the event.
    ahead: Option<&'a Ahead<'a>>,
}

/// What a term comes to.
#[derive(Debug, Clone, PartialEq)]
enum Value<'a> {
    Null,
    Bool(bool),
    Number(i64),
    Text(Cow<'a, [u8]>),
    /// An array or an object.
    Other,
}

// === impl Document ===

impl<'a> Document<'a> {
    pub(super) fn of(event: &'a Event) -> Self {
        Self {
            json: event.envelope(),
            event: Some(event),
            ahead: None,
        }
    }

    /// What became of an envelope.
    pub(super) fn changed(json: &'a [u8], ahead: &'a Ahead<'a>) -> Self {
        Self {
            json,
            event: None,
            ahead: Some(ahead),
        }
    }

    /// With what jq makes of the event.
    pub(super) fn with(self, ahead: &'a Ahead<'a>) -> Self {
        let ahead = Some(ahead);
        Self { ahead, ..self }
    }

    /// The JSON at a path, `null` where there is none; nothing where the program would raise an error.
    fn at(self, names: &[String]) -> Option<&'a [u8]> {
        let mut scan = Scan::new(self.json);
        for name in names {
            match scan.find(name) {
                Found::Here(_) => {}
                Found::Missing => return Some(b"null"),
                Found::NoObject if scan.peek() == Some(b'n') => return Some(b"null"),
                Found::NoObject | Found::NoJson => return None,
            }
        }
        self.json.get(scan.skip()?)
    }

    /// The value at a path.
    fn value(self, names: &[String]) -> Option<Value<'a>> {
        // The envelope says the same (contract 1.2).
        match (names, self.event) {
            ([name], Some(event)) if name == "event" => {
                return Some(Value::Text(event.name().as_bytes().into()));
            }
            ([name], Some(event)) if name == "instance" => {
                return Some(Value::Text(event.instance().as_bytes().into()));
            }
            _ => {}
        }
        Some(match self.at(names)? {
            b"null" => Value::Null,
            b"true" => Value::Bool(true),
            b"false" => Value::Bool(false),
            json @ [b'"', ..] => Value::Text(text(json)?),
            [b'{' | b'[', ..] => Value::Other,
            // Which is less than nothing to nobody, but has a sign.
            b"-0" => return None,
            number => {
                let number = str::from_utf8(number).ok()?.parse().ok();
                Value::Number(number.filter(|it| is_exact(*it))?)
            }
        })
    }

    /// Whether the object at a path has a member.
    fn has(self, names: &[String], member: &str) -> Option<bool> {
        let mut scan = Scan::new(self.at(names)?);
        match scan.find(member) {
            Found::Here(_) => Some(true),
            Found::Missing => Some(false),
            Found::NoObject | Found::NoJson => None,
        }
    }
}

// === impl Plain ===

impl Plain {
    /// Whether it holds.
    pub(super) fn holds(&self, document: Document<'_>) -> Option<bool> {
        Some(self.value(document)?.is_true())
    }

    /// Appends what it comes to, as JSON.
    pub(super) fn write(&self, document: Document<'_>, out: &mut Vec<u8>) -> Option<()> {
        match self {
            Self::Path(names) => out.extend_from_slice(document.at(names)?),
            Self::Ran(slot) => {
                let ahead = document.ahead?;
                super::write(ahead.value(*slot)?, ahead.read_from(), out).ok()?;
            }
            Self::Object(members) => {
                out.push(b'{');
                for (index, (name, member)) in members.iter().enumerate() {
                    if index > 0 {
                        out.push(b',');
                    }
                    write_text(name.as_bytes(), out)?;
                    out.push(b':');
                    member.write(document, out)?;
                }
                out.push(b'}');
            }
            Self::Alt(left, right) => {
                let first = left.holds(document)?;
                return if first { left } else { right }.write(document, out);
            }
            Self::If(condition, then, otherwise) => {
                let holds = condition.holds(document)?;
                return if holds { then } else { otherwise }.write(document, out);
            }
            Self::Then(front, it) => {
                front.value(document)?;
                return it.write(document, out);
            }
            Self::Split(it, separator) => {
                let text = it.text(document)?;
                let text = str::from_utf8(&text).ok().filter(|it| !it.is_empty())?;
                out.push(b'[');
                for (index, part) in text.split(separator.as_str()).enumerate() {
                    if index > 0 {
                        out.push(b',');
                    }
                    write_text(part.as_bytes(), out)?;
                }
                out.push(b']');
            }
            _ => match self.value(document)? {
                Value::Null => out.extend_from_slice(b"null"),
                Value::Bool(it) => out.extend_from_slice(if it { b"true" } else { b"false" }),
                Value::Number(number) => out.extend_from_slice(number.to_string().as_bytes()),
                Value::Text(text) => write_text(&text, out)?,
                Value::Other => return None,
            },
        }
        Some(())
    }

    fn value<'a>(&'a self, document: Document<'a>) -> Option<Value<'a>> {
        Some(match self {
            Self::Path(names) => return document.value(names),
            Self::Ran(slot) => return Value::made(document.ahead?.value(*slot)?),
            Self::Null => Value::Null,
            Self::Bool(it) => Value::Bool(*it),
            Self::Number(number) => Value::Number(*number),
            Self::Text(text) => Value::Text(Cow::Borrowed(text.as_bytes())),
            Self::Not(it) => Value::Bool(!it.holds(document)?),
            Self::Then(front, it) => {
                front.value(document)?;
                it.value(document)?
            }
            Self::And(left, right) => Value::Bool(left.holds(document)? && right.holds(document)?),
            Self::Or(left, right) => Value::Bool(left.holds(document)? || right.holds(document)?),
            Self::Alt(left, right) => match left.value(document)? {
                value if value.is_true() => value,
                _ => right.value(document)?,
            },
            Self::If(condition, then, otherwise) => {
                let holds = condition.holds(document)?;
                if holds { then } else { otherwise }.value(document)?
            }
            Self::Compare(left, compare, right) => {
                let (left, right) = (left.value(document)?, right.value(document)?);
                Value::Bool(holds(*compare, left.compare(&right)?))
            }
            Self::Has(it, place, wanted) => {
                let (text, wanted) = (it.text(document)?, wanted.as_bytes());
                Value::Bool(match place {
                    Where::Start => text.starts_with(wanted),
                    Where::End => text.ends_with(wanted),
                    Where::Anywhere => memmem::find(&text, wanted).is_some(),
                })
            }
            Self::HasMember(it, name) => match &**it {
                Self::Path(names) => Value::Bool(document.has(names, name)?),
                _ => return None,
            },
            Self::Changed(it, change) => Value::Text(change.made_to(it.text(document)?)?),
            Self::Length(it) => Value::Number(match it.value(document)? {
                Value::Null => 0,
                Value::Number(number) => number.abs(),
                Value::Text(text) => {
                    let characters = str::from_utf8(&text).ok()?.chars();
                    i64::try_from(characters.count()).ok()?
                }
                Value::Bool(_) | Value::Other => return None,
            }),
            Self::Split(it, _) => {
                it.text(document)?;
                Value::Other
            }
            Self::Part(it, separator, nth) => part(it.text(document)?, separator, *nth)?,
            Self::Sum(left, right) => match (left.value(document)?, right.value(document)?) {
                (Value::Text(left), Value::Text(right)) => {
                    Value::Text([left, right].concat().into())
                }
                (Value::Null, other) | (other, Value::Null) => other,
                (left, right) => left.reckoned(&right, i64::checked_add)?,
            },
            Self::Difference(left, right) => {
                let (left, right) = (left.value(document)?, right.value(document)?);
                left.reckoned(&right, i64::checked_sub)?
            }
            Self::Product(left, right) => {
                let (left, right) = (left.value(document)?, right.value(document)?);
                left.reckoned(&right, i64::checked_mul)?
            }
            Self::Joined(parts) => {
                let mut text = Vec::new();
                for part in parts {
                    match part.value(document)? {
                        Value::Text(part) => text.extend_from_slice(&part),
                        // There it would be without spaces.
                        Value::Other => return None,
                        _ => part.write(document, &mut text)?,
                    }
                }
                Value::Text(text.into())
            }
            // It is there, whatever is in it; but what is in it may raise an error.
            Self::Object(_) => {
                self.write(document, &mut Vec::new())?;
                Value::Other
            }
        })
    }

    fn text<'a>(&'a self, document: Document<'a>) -> Option<Cow<'a, [u8]>> {
        match self.value(document)? {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }
}

// === impl Change ===

impl Change {
    fn made_to<'a>(&self, text: Cow<'a, [u8]>) -> Option<Cow<'a, [u8]>> {
        let whole = str::from_utf8(&text).ok()?;
        let kept = match self {
            Self::Lower => return Some(text.to_ascii_lowercase().into()),
            Self::Upper => return Some(text.to_ascii_uppercase().into()),
            Self::WithoutStart(start) => whole.strip_prefix(start.as_str()).unwrap_or(whole),
            Self::WithoutEnd(end) => whole.strip_suffix(end.as_str()).unwrap_or(whole),
            Self::Trimmed => whole.trim(),
            Self::TrimmedAtStart => whole.trim_start(),
            Self::TrimmedAtEnd => whole.trim_end(),
        };
        let range = place(kept, whole);
        piece(text, range)
    }
}

/// Where a part of a text is in it.
fn place(part: &str, whole: &str) -> Range<usize> {
    let start = part.as_ptr().addr() - whole.as_ptr().addr();
    start..start + part.len()
}

/// A piece of a text.
fn piece(text: Cow<'_, [u8]>, range: Range<usize>) -> Option<Cow<'_, [u8]>> {
    Some(match text {
        Cow::Borrowed(text) => Cow::Borrowed(text.get(range)?),
        Cow::Owned(text) => Cow::Owned(text.get(range)?.to_vec()),
    })
}

/// One of what is between separators.
fn part<'a>(text: Cow<'a, [u8]>, separator: &str, nth: Nth) -> Option<Value<'a>> {
    let whole = str::from_utf8(&text).ok().filter(|it| !it.is_empty())?;
    let picked = match nth {
        Nth::FromStart(number) => whole.split(separator).nth(number),
        Nth::Last => whole.rsplit(separator).next(),
    };
    let Some(picked) = picked else {
        return Some(Value::Null);
    };
    let range = place(picked, whole);
    Some(Value::Text(piece(text, range)?))
}

fn holds(compare: Cmp, order: Ordering) -> bool {
    match compare {
        Cmp::Eq => order.is_eq(),
        Cmp::Ne => order.is_ne(),
        Cmp::Lt => order.is_lt(),
        Cmp::Le => order.is_le(),
        Cmp::Gt => order.is_gt(),
        Cmp::Ge => order.is_ge(),
    }
}

pub(super) fn write_text(text: &[u8], out: &mut Vec<u8>) -> Option<()> {
    serde_json::to_writer(out, str::from_utf8(text).ok()?).ok()
}

/// Whether a double has the number exactly.
pub(super) fn is_exact(number: i64) -> bool {
    number.unsigned_abs() < 1 << 53
}

// === impl Value ===

impl<'a> Value<'a> {
    /// What jq made.
    fn made(value: &'a Val) -> Option<Self> {
        Some(match value {
            Val::Null => Self::Null,
            Val::Bool(it) => Self::Bool(*it),
            Val::TStr(text) => Self::Text(Cow::Borrowed(text)),
            Val::Num(Num::Int(number)) => {
                let number = i64::try_from(*number).ok();
                Self::Number(number.filter(|it| is_exact(*it))?)
            }
            Val::Num(_) => return None,
            // Bytes are an array or an object that was not looked into.
            Val::Arr(_) | Val::Obj(_) | Val::BStr(_) => Self::Other,
        })
    }

    fn is_true(&self) -> bool {
        !matches!(self, Self::Null | Self::Bool(false))
    }

    /// The order of jq: by kind, and then by what it is.
    fn compare(&self, other: &Self) -> Option<Ordering> {
        match (self, other) {
            (Self::Other, Self::Other) => None,
            (Self::Bool(one), Self::Bool(other)) => Some(one.cmp(other)),
            (Self::Number(one), Self::Number(other)) => Some(one.cmp(other)),
            (Self::Text(one), Self::Text(other)) => Some(one.cmp(other)),
            _ => Some(self.kind().cmp(&other.kind())),
        }
    }

    fn kind(&self) -> u8 {
        match self {
            Self::Null => 0,
            Self::Bool(_) => 1,
            Self::Number(_) => 2,
            Self::Text(_) => 3,
            Self::Other => 4,
        }
    }

    /// Two whole numbers that come to a third.
    fn reckoned(&self, other: &Self, how: impl Fn(i64, i64) -> Option<i64>) -> Option<Self> {
        match (self, other) {
            (Self::Number(one), Self::Number(other)) => how(*one, *other)
                .filter(|it| is_exact(*it))
                .map(Self::Number),
            _ => None,
        }
    }
}
