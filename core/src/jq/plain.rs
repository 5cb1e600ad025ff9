//! Terms that need no jq: what stands at constant paths, compared and put together, which is what most programs are about.
//!
//! They come to what the program would come to, or to nothing, and then it is run: wherever it would raise an error, and
//! wherever more is to be done than looking at texts.

use std::borrow::Cow;
use std::cmp::Ordering;

use jaq_core::load::lex::StrPart;
use jaq_core::load::parse::{BinaryOp, Term};
use jaq_core::ops::{Cmp, Math};
use jaq_core::path::{Opt, Part};

use super::flow::constant;
use super::scan::{Found, Scan, text};
use crate::Event;

/// A term.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Plain {
    Path(Vec<String>),
    Null,
    Bool(bool),
    Number(i64),
    Text(String),
    Not(Box<Plain>),
    And(Box<Plain>, Box<Plain>),
    Or(Box<Plain>, Box<Plain>),
    Alt(Box<Plain>, Box<Plain>),
    Compare(Box<Plain>, Cmp, Box<Plain>),
    StartsWith(Box<Plain>, String),
    EndsWith(Box<Plain>, String),
    /// The part of a text with this number, between separators.
    Part(Box<Plain>, String, usize),
    /// Texts, one behind the other.
    Sum(Box<Plain>, Box<Plain>),
    /// What the parts are as text, one behind the other.
    Joined(Vec<Plain>),
    Object(Vec<(String, Plain)>),
    /// The second, when there is the first.
    Then(Box<Plain>, Box<Plain>),
}

/// What a term is given.
#[derive(Debug, Clone, Copy)]
pub(super) struct Document<'a> {
    json: &'a [u8],
    /// The event that it is the envelope of.
    event: Option<&'a Event>,
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
        }
    }

    pub(super) fn new(json: &'a [u8]) -> Self {
        Self { json, event: None }
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
            number => {
                let number = str::from_utf8(number).ok()?.parse().ok();
                Value::Number(number.filter(|it| is_exact(*it))?)
            }
        })
    }
}

// === impl Plain ===

impl Plain {
    /// The term, if it is one of these.
    pub(super) fn of(term: &Term<&str>) -> Option<Self> {
        Self::given(None, term)
    }

    /// What is behind a pipe is given what is in front of it; everything else, the document.
    fn given(input: Option<&Self>, term: &Term<&str>) -> Option<Self> {
        let boxed = |term| Some(Box::new(Self::given(input, term)?));
        match term {
            Term::Id => input.cloned(),
            Term::Num(number) => number
                .parse()
                .ok()
                .filter(|it| is_exact(*it))
                .map(Self::Number),
            Term::Str(None, parts) => {
                if let Some(text) = constant(term) {
                    return Some(Self::Text(text.into_owned()));
                }
                let parts = parts.iter().map(|part| match part {
                    StrPart::Str(text) => Some(Self::Text((*text).to_owned())),
                    StrPart::Char(one) => Some(Self::Text(one.to_string())),
                    StrPart::Term(term) => Self::given(input, term),
                });
                Some(Self::Joined(parts.collect::<Option<_>>()?))
            }
            Term::Obj(members) => object(input, members),
            Term::Path(start, parts) if matches!(**start, Term::Call("split", _)) => {
                let (Term::Call(_, arguments), [(Part::Index(Term::Num(number)), Opt::Essential)]) =
                    (&**start, &parts.0[..])
                else {
                    return None;
                };
                let [separator] = &arguments[..] else {
                    return None;
                };
                let separator = constant(separator).filter(|it| !it.is_empty())?;
                Some(Self::Part(
                    Box::new(input?.clone()),
                    separator.into_owned(),
                    number.parse().ok()?,
                ))
            }
            Term::Path(start, parts) if matches!(**start, Term::Id) => {
                let mut names = match input {
                    None => Vec::new(),
                    Some(Self::Path(names)) => names.clone(),
                    Some(_) => return None,
                };
                for part in &parts.0 {
                    let (Part::Index(index), Opt::Essential) = part else {
                        return None;
                    };
                    names.push(constant(index)?.into_owned());
                }
                Some(Self::Path(names))
            }
            Term::Call(name, arguments) => match (*name, &arguments[..]) {
                ("true", []) => Some(Self::Bool(true)),
                ("false", []) => Some(Self::Bool(false)),
                ("null", []) => Some(Self::Null),
                ("not", []) => Some(Self::Not(Box::new(input?.clone()))),
                ("startswith", [start]) => Some(Self::StartsWith(
                    Box::new(input?.clone()),
                    constant(start)?.into_owned(),
                )),
                ("endswith", [end]) => Some(Self::EndsWith(
                    Box::new(input?.clone()),
                    constant(end)?.into_owned(),
                )),
                _ => None,
            },
            Term::BinOp(left, operator, right) => match operator {
                BinaryOp::Or => Some(Self::Or(boxed(left)?, boxed(right)?)),
                BinaryOp::And => Some(Self::And(boxed(left)?, boxed(right)?)),
                BinaryOp::Alt => Some(Self::Alt(boxed(left)?, boxed(right)?)),
                BinaryOp::Cmp(compare) => {
                    Some(Self::Compare(boxed(left)?, *compare, boxed(right)?))
                }
                BinaryOp::Math(Math::Add) => Some(Self::Sum(boxed(left)?, boxed(right)?)),
                BinaryOp::Pipe(None) => {
                    let left = Self::given(input, left)?;
                    let right = Self::given(Some(&left), right)?;
                    Some(right.behind(left))
                }
                _ => None,
            },
            _ => None,
        }
    }

    /// This, but nothing where what is in front of it comes to nothing.
    fn behind(self, front: Self) -> Self {
        let begins_with_it = match &self {
            Self::Path(names) => matches!(&front, Self::Path(first) if names.starts_with(first)),
            Self::Not(it)
            | Self::StartsWith(it, _)
            | Self::EndsWith(it, _)
            | Self::Part(it, ..)
            | Self::Sum(it, _)
            | Self::Compare(it, ..) => **it == front,
            _ => false,
        };
        if begins_with_it {
            return self;
        }
        Self::Then(Box::new(front), Box::new(self))
    }

    /// Whether it holds.
    pub(super) fn holds(&self, document: Document<'_>) -> Option<bool> {
        Some(self.value(document)?.is_true())
    }

    /// Appends what it comes to, as JSON.
    pub(super) fn write(&self, document: Document<'_>, out: &mut Vec<u8>) -> Option<()> {
        match self {
            Self::Path(names) => out.extend_from_slice(document.at(names)?),
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
            Self::Then(front, it) => {
                front.value(document)?;
                return it.write(document, out);
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
            Self::Compare(left, compare, right) => {
                let (left, right) = (left.value(document)?, right.value(document)?);
                Value::Bool(holds(*compare, left.compare(&right)?))
            }
            Self::StartsWith(it, start) => {
                Value::Bool(it.text(document)?.starts_with(start.as_bytes()))
            }
            Self::EndsWith(it, end) => Value::Bool(it.text(document)?.ends_with(end.as_bytes())),
            Self::Part(it, separator, number) => part(it.text(document)?, separator, *number)?,
            Self::Sum(left, right) => Value::Text(
                [left.text(document)?, right.text(document)?]
                    .concat()
                    .into(),
            ),
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

fn object(input: Option<&Plain>, terms: &[(Term<&str>, Option<Term<&str>>)]) -> Option<Plain> {
    let mut members: Vec<(String, Plain)> = Vec::with_capacity(terms.len());
    for (name, value) in terms {
        let name = constant(name)?.into_owned();
        let value = match (value, input) {
            (Some(term), _) => Plain::given(input, term)?,
            (None, None) => Plain::Path(vec![name.clone()]),
            (None, Some(Plain::Path(names))) => {
                Plain::Path(names.iter().chain([&name]).cloned().collect())
            }
            (None, Some(_)) => return None,
        };
        if members.iter().any(|(known, _)| *known == name) {
            return None;
        }
        members.push((name, value));
    }
    Some(Plain::Object(members))
}

/// The part of a text with this number.
fn part<'a>(text: Cow<'a, [u8]>, separator: &str, number: usize) -> Option<Value<'a>> {
    if text.is_empty() {
        return None;
    }
    let pick = |text: &str| text.split(separator).nth(number).map(str::to_owned);
    let picked = match text {
        Cow::Borrowed(text) => {
            let picked = str::from_utf8(text).ok()?.split(separator).nth(number);
            picked.map(|it| Cow::Borrowed(it.as_bytes()))
        }
        Cow::Owned(text) => pick(str::from_utf8(&text).ok()?).map(|it| Cow::Owned(it.into_bytes())),
    };
    Some(picked.map_or(Value::Null, Value::Text))
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
fn is_exact(number: i64) -> bool {
    number.unsigned_abs() < 1 << 53
}

// === impl Value ===

impl Value<'_> {
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
}
