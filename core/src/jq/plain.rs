//! Terms that need no jq: what stands at constant paths, compared and put together, which is what most programs are about.
//!
//! They come to what the program would come to, or to nothing, and then it is run: wherever it would raise an error, and
//! wherever more is to be done than looking at texts.

use std::borrow::Cow;

use jaq_core::load::lex::StrPart;
use jaq_core::load::parse::{BinaryOp, Term};
use jaq_core::ops::{Cmp, Math};
use jaq_core::path::{Opt, Part, Path};

use super::ahead::Slot;
use super::flow::constant;
use super::values::is_exact;

/// How large a term may get behind a pipe. What is in front of it is in it wherever it is used, so that a chain would double with
/// each link.
const LARGEST: usize = 256;

/// A term. Each evaluates its first one first.
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
    If(Box<Plain>, Box<Plain>, Box<Plain>),
    Compare(Box<Plain>, Cmp, Box<Plain>),
    /// Whether a text has this somewhere.
    Has(Box<Plain>, Where, String),
    /// Whether an object has a member of this name.
    HasMember(Box<Plain>, String),
    /// A text, otherwise.
    Changed(Box<Plain>, Change),
    Length(Box<Plain>),
    /// What is between separators, of a text.
    Split(Box<Plain>, String),
    /// One of what is between separators.
    Part(Box<Plain>, String, Nth),
    /// Texts, one behind the other, or numbers.
    Sum(Box<Plain>, Box<Plain>),
    Difference(Box<Plain>, Box<Plain>),
    Product(Box<Plain>, Box<Plain>),
    /// What the parts are as text, one behind the other.
    Joined(Vec<Plain>),
    Object(Vec<(String, Plain)>),
    /// The second, when there is the first.
    Then(Box<Plain>, Box<Plain>),
    /// A value that [jq made](super::ahead).
    Ran(Slot),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Where {
    Start,
    End,
    Anywhere,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Nth {
    FromStart(usize),
    Last,
}

/// What becomes of a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Change {
    Lower,
    Upper,
    WithoutStart(String),
    WithoutEnd(String),
    Trimmed,
    TrimmedAtStart,
    TrimmedAtEnd,
}

// === impl Plain ===

impl Plain {
    /// The term, if it is one of these.
    pub(super) fn of(term: &Term<&str>) -> Option<Self> {
        Self::given(None, term)
    }

    /// What is behind a pipe is given what is in front of it; everything else, the document.
    pub(super) fn given(input: Option<&Self>, term: &Term<&str>) -> Option<Self> {
        let boxed = |term| Some(Box::new(Self::given(input, term)?));
        match term {
            Term::Id => Some(input.map_or_else(|| Self::Path(Vec::new()), Self::clone)),
            Term::Num(number) => Some(Self::Number(integer(number)?)),
            Term::Neg(term) => match Self::given(input, term)? {
                // There is a zero below zero.
                Self::Number(number) if number > 0 => Some(Self::Number(-number)),
                _ => None,
            },
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
            Term::Path(start, path) => Self::given(input, start)?.along(path),
            Term::IfThenElse(branches, otherwise) => {
                let otherwise = match otherwise {
                    Some(term) => Self::given(input, term)?,
                    None => Self::given(input, &Term::Id)?,
                };
                branches
                    .iter()
                    .rev()
                    .try_fold(otherwise, |otherwise, (condition, then)| {
                        let otherwise = Box::new(otherwise);
                        Some(Self::If(boxed(condition)?, boxed(then)?, otherwise))
                    })
            }
            Term::Call(name, arguments) => Self::call(input, name, arguments),
            Term::BinOp(left, operator, right) => match operator {
                BinaryOp::Or => Some(Self::Or(boxed(left)?, boxed(right)?)),
                BinaryOp::And => Some(Self::And(boxed(left)?, boxed(right)?)),
                BinaryOp::Alt => Some(Self::Alt(boxed(left)?, boxed(right)?)),
                BinaryOp::Cmp(compare) => {
                    Some(Self::Compare(boxed(left)?, *compare, boxed(right)?))
                }
                BinaryOp::Math(Math::Add) => Some(Self::Sum(boxed(left)?, boxed(right)?)),
                BinaryOp::Math(Math::Sub) => Some(Self::Difference(boxed(left)?, boxed(right)?)),
                BinaryOp::Math(Math::Mul) => Some(Self::Product(boxed(left)?, boxed(right)?)),
                BinaryOp::Pipe(None) => {
                    let left = Self::given(input, left)?;
                    if left.size() > LARGEST {
                        return None;
                    }
                    Some(Self::given(Some(&left), right)?.behind(left))
                }
                _ => None,
            },
            _ => None,
        }
    }

    fn call(input: Option<&Self>, name: &str, arguments: &[Term<&str>]) -> Option<Self> {
        let given = || Self::given(input, &Term::Id).map(Box::new);
        let changed = |change| Some(Self::Changed(given()?, change));
        let text = |term| constant(term).map(Cow::into_owned);
        match (name, arguments) {
            ("true", []) => Some(Self::Bool(true)),
            ("false", []) => Some(Self::Bool(false)),
            ("null", []) => Some(Self::Null),
            ("not", []) => Some(Self::Not(given()?)),
            ("length", []) => Some(Self::Length(given()?)),
            ("tostring", []) => Some(Self::Joined(vec![*given()?])),
            ("first", []) => given()?.part(Nth::FromStart(0)),
            ("last", []) => given()?.part(Nth::Last),
            ("has", [name]) => Some(Self::HasMember(given()?, text(name)?)),
            ("contains", [it]) => Some(Self::Has(given()?, Where::Anywhere, text(it)?)),
            ("startswith", [start]) => Some(Self::Has(given()?, Where::Start, text(start)?)),
            ("endswith", [end]) => Some(Self::Has(given()?, Where::End, text(end)?)),
            ("split", [separator]) => {
                let separator = text(separator).filter(|it| !it.is_empty())?;
                Some(Self::Split(given()?, separator))
            }
            ("ascii_downcase", []) => changed(Change::Lower),
            ("ascii_upcase", []) => changed(Change::Upper),
            ("ltrimstr", [start]) => changed(Change::WithoutStart(text(start)?)),
            ("rtrimstr", [end]) => changed(Change::WithoutEnd(text(end)?)),
            ("trim", []) => changed(Change::Trimmed),
            ("ltrim", []) => changed(Change::TrimmedAtStart),
            ("rtrim", []) => changed(Change::TrimmedAtEnd),
            _ => None,
        }
    }

    /// What a path leads to from here.
    fn along(mut self, path: &Path<Term<&str>>) -> Option<Self> {
        for part in &path.0 {
            let (Part::Index(index), Opt::Essential) = part else {
                return None;
            };
            self = match (self, index) {
                (Self::Path(mut names), index) => {
                    names.push(constant(index)?.into_owned());
                    Self::Path(names)
                }
                (it, Term::Num(number)) => it.part(Nth::FromStart(number.parse().ok()?))?,
                (it, Term::Neg(one)) if matches!(**one, Term::Num("1")) => it.part(Nth::Last)?,
                _ => return None,
            };
        }
        Some(self)
    }

    fn part(self, nth: Nth) -> Option<Self> {
        match self {
            Self::Split(it, separator) => Some(Self::Part(it, separator, nth)),
            _ => None,
        }
    }

    /// How many terms it has.
    fn size(&self) -> usize {
        let mut size = 0;
        self.walk(&mut |_| size += 1);
        size
    }

    /// How many times it looks for something in the document.
    pub(super) fn looks(&self) -> usize {
        let mut looks = 0;
        self.walk(&mut |it| looks += usize::from(matches!(it, Self::Path(_))));
        looks
    }

    /// Shows it and every term in it.
    fn walk(&self, show: &mut impl FnMut(&Self)) {
        show(self);
        match self {
            Self::Path(_)
            | Self::Null
            | Self::Bool(_)
            | Self::Number(_)
            | Self::Text(_)
            | Self::Ran(_) => {}
            Self::Not(it)
            | Self::Has(it, ..)
            | Self::HasMember(it, _)
            | Self::Changed(it, _)
            | Self::Length(it)
            | Self::Split(it, _)
            | Self::Part(it, ..) => it.walk(show),
            Self::And(one, other)
            | Self::Or(one, other)
            | Self::Alt(one, other)
            | Self::Compare(one, _, other)
            | Self::Sum(one, other)
            | Self::Difference(one, other)
            | Self::Product(one, other)
            | Self::Then(one, other) => {
                one.walk(show);
                other.walk(show);
            }
            Self::If(condition, then, otherwise) => {
                condition.walk(show);
                then.walk(show);
                otherwise.walk(show);
            }
            Self::Joined(parts) => parts.iter().for_each(|it| it.walk(show)),
            Self::Object(members) => members.iter().for_each(|(_, it)| it.walk(show)),
        }
    }

    /// This, but nothing where what is in front of it comes to nothing.
    pub(super) fn behind(self, front: Self) -> Self {
        if self.starts_with(&front) {
            return self;
        }
        Self::Then(Box::new(front), Box::new(self))
    }

    /// Whether it comes to nothing where the other one does.
    fn starts_with(&self, other: &Self) -> bool {
        let starts = |it: &Self| it.starts_with(other);
        self == other
            || match (self, other) {
                (Self::Path(names), Self::Path(first)) => names.starts_with(first),
                (Self::Part(it, one, _), Self::Split(text, other)) if one == other => it == text,
                (
                    Self::Not(it)
                    | Self::And(it, _)
                    | Self::Or(it, _)
                    | Self::Alt(it, _)
                    | Self::If(it, ..)
                    | Self::Compare(it, ..)
                    | Self::Has(it, ..)
                    | Self::HasMember(it, _)
                    | Self::Changed(it, _)
                    | Self::Length(it)
                    | Self::Split(it, _)
                    | Self::Part(it, ..)
                    | Self::Sum(it, _)
                    | Self::Difference(it, _)
                    | Self::Product(it, _)
                    | Self::Then(it, _),
                    _,
                ) => starts(it),
                (Self::Joined(parts), _) => parts.iter().any(starts),
                (Self::Object(members), _) => members.iter().any(|(_, it)| starts(it)),
                _ => false,
            }
    }
}

fn object(input: Option<&Plain>, terms: &[(Term<&str>, Option<Term<&str>>)]) -> Option<Plain> {
    members(terms, |name, value| match (value, input) {
        (Some(term), _) => Plain::given(input, term),
        (None, None) => Some(Plain::Path(vec![name.to_owned()])),
        (None, Some(Plain::Path(names))) => {
            let names = names.iter().map(String::as_str).chain([name]);
            Some(Plain::Path(names.map(str::to_owned).collect()))
        }
        (None, Some(_)) => None,
    })
}

/// An object with constant names, each once.
pub(super) fn members<'t>(
    terms: &'t [(Term<&'t str>, Option<Term<&'t str>>)],
    mut value: impl FnMut(&str, Option<&'t Term<&'t str>>) -> Option<Plain>,
) -> Option<Plain> {
    let mut members: Vec<(String, Plain)> = Vec::with_capacity(terms.len());
    for (name, term) in terms {
        let name = constant(name)?.into_owned();
        if members.iter().any(|(known, _)| *known == name) {
            return None;
        }
        let value = value(&name, term.as_ref())?;
        members.push((name, value));
    }
    Some(Plain::Object(members))
}

fn integer(number: &str) -> Option<i64> {
    number.parse().ok().filter(|it| is_exact(*it))
}
