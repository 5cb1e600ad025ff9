//! What of a document a program looks at: reading the rest would be most of the work.

use std::ops::Range;

use bytes::Bytes;
use jaq_json::{Map, Val};

use super::read;
use super::scan::Scan;

/// What is looked at of one value.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) enum Need {
    /// Nothing but whether it is there, and whether it is `null` or `false`.
    #[default]
    Nothing,
    /// These members, where it is an object; all of it where it is none. `apart`: the others count one by one.
    Members {
        wanted: Vec<(String, Need)>,
        apart: bool,
    },
    /// All of it.
    All,
}

/// Reads a document as far as it is looked at.
struct Reading<'a> {
    json: &'a Bytes,
    scan: Scan<'a>,
    /// Whether what is not looked at is kept as it stands.
    keeps: bool,
    /// Values that are looked at and were not met.
    left: usize,
}

// === impl Need ===

impl Need {
    /// Has what the other one looks at, too.
    pub(super) fn add(&mut self, other: &Self) {
        match (&mut *self, other) {
            (Self::All, _) | (_, Self::Nothing) => {}
            (
                Self::Members { wanted, apart },
                Self::Members {
                    wanted: others,
                    apart: also,
                },
            ) => {
                *apart |= also;
                for (name, other) in others {
                    match wanted.iter_mut().find(|(known, _)| known == name) {
                        Some((_, need)) => need.add(other),
                        None => wanted.push((name.clone(), other.clone())),
                    }
                }
            }
            (_, other) => *self = other.clone(),
        }
    }

    /// Whether something of it is at a path, above or below it.
    pub(super) fn meets(&self, path: &[String]) -> bool {
        match (self, path) {
            (Self::Nothing, _) => false,
            (Self::All, _) | (Self::Members { .. }, []) => true,
            (Self::Members { wanted, apart }, [name, rest @ ..]) => {
                match wanted.iter().find(|(known, _)| known == name) {
                    // Whether it is there.
                    Some((_, Self::Nothing)) => true,
                    Some((_, need)) => need.meets(rest),
                    None => *apart,
                }
            }
        }
    }

    /// Reads so much of a document; nothing when it is none, as far as it was read. With `keeps`, what is not looked at stands
    /// in it as bytes, which are a part of `json`: a value, or members as the key of a `null`. Without, it is not there, but for
    /// members that count. Where a name is there twice, the last one counts, or, without `keeps`, the first.
    pub(super) fn read(&self, json: &Bytes, keeps: bool) -> Option<Val> {
        let mut reading = Reading {
            json,
            scan: Scan::new(json),
            keeps,
            left: self.leaves(),
        };
        reading.value(self)
    }

    fn leaves(&self) -> usize {
        match self {
            Self::Members { wanted, apart } => leaves(wanted, *apart),
            Self::Nothing | Self::All => 1,
        }
    }
}

// === impl Reading ===

impl Reading<'_> {
    fn value(&mut self, need: &Need) -> Option<Val> {
        if let Need::Members { wanted, apart } = need
            && self.scan.enter()
        {
            return self.members(wanted, *apart);
        }
        self.left = self.left.saturating_sub(need.leaves());
        match (need, self.scan.peek()?) {
            (Need::Nothing, b'{' | b'[') => {
                let range = self.scan.skip()?;
                self.kept(range)
            }
            _ => read::value(self.json, &mut self.scan),
        }
    }

    fn members(&mut self, wanted: &[(String, Need)], apart: bool) -> Option<Val> {
        let mut members = Map::default();
        let mut met = 0;
        // Members that nobody looks at, from the first one's name to the last one's value.
        let mut rest: Option<Range<usize>> = None;
        while let Some((at, name)) = self.scan.name()? {
            let known = wanted.iter().find(|(known, _)| *known.as_bytes() == *name);
            let Some((_, need)) = known else {
                let value = self.scan.skip()?;
                if !self.keeps && !apart {
                    continue;
                }
                if apart {
                    let value = self.kept(value)?;
                    members.insert(read::string(self.json, name), value);
                } else {
                    let start = rest.map_or(at, |rest| rest.start);
                    rest = Some(start..value.end);
                }
                continue;
            };
            if let Some(rest) = rest.take() {
                members.insert(self.kept(rest)?, Val::Null);
            }
            let key = read::string(self.json, name);
            if !self.keeps && members.contains_key(&key) {
                self.scan.skip()?;
                continue;
            }
            met += need.leaves();
            let value = self.value(need)?;
            members.insert(key, value);
            if self.left == 0 && !self.keeps {
                return Some(Val::obj(members));
            }
        }
        if let Some(rest) = rest {
            members.insert(self.kept(rest)?, Val::Null);
        }
        // What was not there is not waited for.
        let missed = leaves(wanted, apart).saturating_sub(met);
        self.left = self.left.saturating_sub(missed);
        Some(Val::obj(members))
    }

    fn kept(&self, range: Range<usize>) -> Option<Val> {
        let part = self.json.get(range)?;
        Some(Val::byte_str(self.json.slice_ref(part)))
    }
}

/// How many values are looked at. An object of which only that it is one matters is one itself, and so are all of its members
/// that count one by one.
fn leaves(members: &[(String, Need)], apart: bool) -> usize {
    let leaves: usize = members.iter().map(|(_, need)| need.leaves()).sum();
    (leaves + usize::from(apart)).max(1)
}
