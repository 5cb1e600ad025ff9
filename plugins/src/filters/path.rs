//! A dotted path into an envelope, such as `data.key.remoteJid`.
//!
//! Names stand between dots. One that has a dot, a quote, a star, a bracket or a space in it is quoted: `data."a.b"`, with
//! `\"` and `\\` for a quote and a backslash. A number is an element of an array, counted from 0, or a member of an object
//! that has such a name; quoted it is only the latter. `*` is every member, or every element, in filters that allow it.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;
use std::str::FromStr;

use evows_core::config::{Place as InFile, Problem};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{self, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Map, Value};

/// A path of at least one part.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Path(Vec<Part>);

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Part {
    /// The member of this name; of an array, the element of this number.
    Name(String, Option<usize>),
    /// Every member, or every element.
    Every,
}

/// A table whose keys are paths, in the order of the file.
#[derive(Debug, Clone, PartialEq)]
pub struct ByPath<T>(pub Vec<(Path, T)>);

/// What is where a path leads.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Place<'d> {
    /// This value.
    Taken(&'d Value),
    /// Nothing, and something can be put there.
    Free,
    /// Nothing, and nothing can be put there: on the way is a value that has no members, `null` being one, or an array that
    /// has no such element.
    Blocked,
}

/// Text that is not a path.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a path: {reason}")]
pub struct InvalidPath {
    text: String,
    reason: &'static str,
}

// === impl Path ===

impl Path {
    /// Whether it has a `*`, so that it leads to any number of places.
    pub fn has_every(&self) -> bool {
        self.0.contains(&Part::Every)
    }

    /// Whether it leads into what `outer` leads to, or to the same place.
    pub fn is_within(&self, outer: &Self) -> bool {
        self.0.starts_with(&outer.0)
    }

    /// Whether it leads to, or into, what an event cannot do without: `event` or `instance`.
    pub fn is_reserved(&self) -> bool {
        match self.0.first() {
            Some(Part::Name(name, _)) => matches!(name.as_str(), "event" | "instance"),
            Some(Part::Every) | None => true,
        }
    }

    /// The member of the envelope that it leads to, if it goes no further down.
    pub fn member(&self) -> Option<&str> {
        match self.0.as_slice() {
            [Part::Name(name, _)] => Some(name),
            _ => None,
        }
    }

    /// The path that goes on from here.
    #[must_use]
    pub fn join(&self, below: &Self) -> Self {
        Self(self.0.iter().chain(&below.0).cloned().collect())
    }

    /// The value that is there; the first one where the path has a `*`.
    pub fn get<'d>(&self, document: &'d Map<String, Value>) -> Option<&'d Value> {
        let mut first = None;
        self.any(document, &mut |value| {
            first = Some(value);
            true
        });
        first
    }

    /// Whether `is` holds for a value that is there. Values are asked for in their order, until it does.
    pub fn any<'d>(
        &self,
        document: &'d Map<String, Value>,
        is: &mut dyn FnMut(&'d Value) -> bool,
    ) -> bool {
        match self.0.split_first() {
            Some((part, rest)) => any_member(document, part, rest, is),
            None => false,
        }
    }

    /// What is there. Of a path with a `*` nobody can say: it counts as blocked.
    pub fn place<'d>(&self, document: &'d Map<String, Value>) -> Place<'d> {
        let mut parts = self.0.iter();
        let Some(Part::Name(name, _)) = parts.next() else {
            return Place::Blocked;
        };
        let mut here = document.get(name);
        for part in parts {
            let Part::Name(name, index) = part else {
                return Place::Blocked;
            };
            here = match here {
                None => None,
                Some(Value::Object(members)) => members.get(name),
                Some(Value::Array(items)) => match index.and_then(|index| items.get(index)) {
                    Some(item) => Some(item),
                    None => return Place::Blocked,
                },
                Some(_) => return Place::Blocked,
            };
        }
        here.map_or(Place::Free, Place::Taken)
    }

    /// Puts a value there, and objects on the way where there is nothing. Gives the value back when the place is
    /// [blocked](Place::Blocked); the document is then as it was.
    pub fn set(&self, document: &mut Map<String, Value>, value: Value) -> Result<(), Value> {
        match self.0.split_first() {
            Some((part, rest)) if !self.has_every() => put_member(document, part, rest, value),
            _ => Err(value),
        }
    }

    /// Takes out what is there, and says whether there was anything. Other members keep their order.
    pub fn remove(&self, document: &mut Map<String, Value>) -> bool {
        match self.0.split_first() {
            Some((part, rest)) => remove_member(document, part, rest),
            None => false,
        }
    }

    /// Changes every value that is there.
    pub fn for_each_mut(
        &self,
        document: &mut Map<String, Value>,
        change: &mut dyn FnMut(&mut Value),
    ) {
        if let Some((part, rest)) = self.0.split_first() {
            change_member(document, part, rest, change);
        }
    }

    /// A problem with this path below `key`.
    pub fn problem(&self, key: &str, message: impl Into<String>, help: &str) -> Problem {
        let mut problem = Problem::new("bad-path", message).help(help);
        problem.place = InFile::Key(vec![key.to_owned(), self.to_string()]);
        problem
    }
}

fn any_member<'d>(
    members: &'d Map<String, Value>,
    part: &Part,
    rest: &[Part],
    is: &mut dyn FnMut(&'d Value) -> bool,
) -> bool {
    match part {
        Part::Every => members.values().any(|value| any_below(value, rest, is)),
        Part::Name(name, _) => members
            .get(name)
            .is_some_and(|value| any_below(value, rest, is)),
    }
}

fn any_below<'d>(value: &'d Value, parts: &[Part], is: &mut dyn FnMut(&'d Value) -> bool) -> bool {
    let Some((part, rest)) = parts.split_first() else {
        return is(value);
    };
    match value {
        Value::Object(members) => any_member(members, part, rest, is),
        Value::Array(items) => match part {
            Part::Every => items.iter().any(|item| any_below(item, rest, is)),
            Part::Name(_, index) => index
                .and_then(|index| items.get(index))
                .is_some_and(|item| any_below(item, rest, is)),
        },
        _ => false,
    }
}

fn put_member(
    members: &mut Map<String, Value>,
    part: &Part,
    rest: &[Part],
    value: Value,
) -> Result<(), Value> {
    let Part::Name(name, _) = part else {
        return Err(value);
    };
    let Some((next, rest)) = rest.split_first() else {
        members.insert(name.clone(), value);
        return Ok(());
    };
    let below = members.entry(name.as_str());
    let below = below.or_insert_with(|| Value::Object(Map::new()));
    put_below(below, next, rest, value)
}

fn put_below(container: &mut Value, part: &Part, rest: &[Part], value: Value) -> Result<(), Value> {
    match (container, part) {
        (Value::Object(members), _) => put_member(members, part, rest, value),
        (Value::Array(items), Part::Name(_, Some(index))) => {
            let Some(item) = items.get_mut(*index) else {
                return Err(value);
            };
            if let Some((next, rest)) = rest.split_first() {
                return put_below(item, next, rest, value);
            }
            *item = value;
            Ok(())
        }
        _ => Err(value),
    }
}

fn remove_member(members: &mut Map<String, Value>, part: &Part, rest: &[Part]) -> bool {
    match (part, rest.split_first()) {
        (Part::Every, None) => {
            let were_there = !members.is_empty();
            members.clear();
            were_there
        }
        (Part::Name(name, _), None) => members.shift_remove(name).is_some(),
        (Part::Every, Some((next, rest))) => {
            let values = members.values_mut();
            values.fold(false, |done, value| remove_below(value, next, rest) | done)
        }
        (Part::Name(name, _), Some((next, rest))) => members
            .get_mut(name)
            .is_some_and(|value| remove_below(value, next, rest)),
    }
}

fn remove_below(container: &mut Value, part: &Part, rest: &[Part]) -> bool {
    let items = match container {
        Value::Object(members) => return remove_member(members, part, rest),
        Value::Array(items) => items,
        _ => return false,
    };
    match (part, rest.split_first()) {
        (Part::Every, None) => {
            let were_there = !items.is_empty();
            items.clear();
            were_there
        }
        (Part::Every, Some((next, rest))) => {
            let items = items.iter_mut();
            items.fold(false, |done, item| remove_below(item, next, rest) | done)
        }
        (Part::Name(_, Some(index)), None) if *index < items.len() => {
            items.remove(*index);
            true
        }
        (Part::Name(_, Some(index)), Some((next, rest))) => items
            .get_mut(*index)
            .is_some_and(|item| remove_below(item, next, rest)),
        (Part::Name(..), _) => false,
    }
}

fn change_member(
    members: &mut Map<String, Value>,
    part: &Part,
    rest: &[Part],
    change: &mut dyn FnMut(&mut Value),
) {
    match part {
        Part::Every => members
            .values_mut()
            .for_each(|value| change_below(value, rest, change)),
        Part::Name(name, _) => {
            if let Some(value) = members.get_mut(name) {
                change_below(value, rest, change);
            }
        }
    }
}

fn change_below(value: &mut Value, parts: &[Part], change: &mut dyn FnMut(&mut Value)) {
    let Some((part, rest)) = parts.split_first() else {
        return change(value);
    };
    match (value, part) {
        (Value::Object(members), _) => change_member(members, part, rest, change),
        (Value::Array(items), Part::Every) => items
            .iter_mut()
            .for_each(|item| change_below(item, rest, change)),
        (Value::Array(items), Part::Name(_, Some(index))) => {
            if let Some(item) = items.get_mut(*index) {
                change_below(item, rest, change);
            }
        }
        _ => {}
    }
}

impl FromStr for Path {
    type Err = InvalidPath;

    fn from_str(text: &str) -> Result<Self, InvalidPath> {
        let parts = parse(text).map_err(|reason| InvalidPath {
            text: text.to_owned(),
            reason,
        })?;
        Ok(Self(parts))
    }
}

fn parse(text: &str) -> Result<Vec<Part>, &'static str> {
    if text.is_empty() {
        return Err("it is empty");
    }
    if text.starts_with('.') {
        return Err("no dot stands in front of it, it begins with a name");
    }
    let mut parts = Vec::new();
    let mut rest = text;
    loop {
        let (part, behind) = match rest.strip_prefix('"') {
            Some(quoted) => unquote(quoted)?,
            None => plain(rest)?,
        };
        parts.push(part);
        rest = match behind.strip_prefix('.') {
            Some(next) => next,
            None if behind.is_empty() => return Ok(parts),
            None => return Err("behind a quoted part comes a dot, or nothing"),
        };
    }
}

/// The part in front, which is not quoted, and what is behind it.
fn plain(text: &str) -> Result<(Part, &str), &'static str> {
    let end = text.find('.').unwrap_or(text.len());
    let (name, behind) = text.split_at(end);
    if name == "*" {
        return Ok((Part::Every, behind));
    }
    if name.is_empty() {
        return Err("a part of it is empty");
    }
    if name.contains(['[', ']']) {
        return Err(
            "elements of an array are written as in `list.0`, and names with a bracket are quoted",
        );
    }
    if name.contains('*') {
        return Err("a `*` stands alone between dots, and names with one are quoted");
    }
    if name.contains(|c: char| c == '"' || c == '\\' || c.is_whitespace()) {
        return Err("names with a quote, a backslash or a space are quoted");
    }
    let is_index = name.bytes().all(|byte| byte.is_ascii_digit());
    // "007" is a name and no number, as it is in JavaScript.
    let is_index = is_index && (name == "0" || !name.starts_with('0'));
    let index = is_index.then(|| name.parse().ok()).flatten();
    Ok((Part::Name(name.to_owned(), index), behind))
}

/// The part whose opening quote was just read, and what is behind its closing one.
fn unquote(text: &str) -> Result<(Part, &str), &'static str> {
    let mut name = String::new();
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            '"' => return Ok((Part::Name(name, None), chars.as_str())),
            '\\' => match chars.next() {
                Some(c @ ('"' | '\\')) => name.push(c),
                _ => return Err("behind a backslash comes a quote or a backslash"),
            },
            other => name.push(other),
        }
    }
    Err("a quote is not closed")
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, part) in self.0.iter().enumerate() {
            if at > 0 {
                f.write_str(".")?;
            }
            match part {
                Part::Every => f.write_str("*")?,
                Part::Name(name, index) => {
                    let is_plain =
                        plain(name).is_ok_and(|(read, behind)| read == *part && behind.is_empty());
                    if is_plain || index.is_some() {
                        f.write_str(name)?;
                    } else {
                        let escaped = name.replace('\\', "\\\\").replace('"', "\\\"");
                        write!(f, "\"{escaped}\"")?;
                    }
                }
            }
        }
        Ok(())
    }
}

impl<'de> Deserialize<'de> for Path {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;

        impl Visitor<'_> for Text {
            type Value = Path;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a path such as \"data.key.remoteJid\"")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Path, E> {
                text.parse().map_err(E::custom)
            }
        }

        deserializer.deserialize_str(Text)
    }
}

impl Serialize for Path {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl JsonSchema for Path {
    fn schema_name() -> Cow<'static, str> {
        "Path".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "minLength": 1, "examples": ["data.key.remoteJid", "data.\"a.b\""] })
    }
}

// === impl ByPath ===

impl<T> Default for ByPath<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for ByPath<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct InOrder<T>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for InOrder<T> {
            type Value = Vec<(Path, T)>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a table whose keys are paths, such as \"data.source\"")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut entries = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    entries.push(entry);
                }
                Ok(entries)
            }
        }

        deserializer.deserialize_map(InOrder(PhantomData)).map(Self)
    }
}

impl<T: JsonSchema> JsonSchema for ByPath<T> {
    fn schema_name() -> Cow<'static, str> {
        format!("ByPath_{}", T::schema_name()).into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "object", "additionalProperties": generator.subschema_for::<T>() })
    }
}

#[cfg(test)]
mod tests;
