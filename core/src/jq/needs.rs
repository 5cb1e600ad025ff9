//! What of a document a program looks at: reading the rest would be most of the work.
//!
//! A path of constant names in front of everything else, such as `.data.key.fromMe | not`, is all that is seen of a document. Of
//! a program that does anything else with it, the whole document is read. Where a name is there twice, the first counts.

use std::fmt;

use jaq_core::load::lex::StrPart;
use jaq_core::load::parse::{BinaryOp, Term};
use jaq_core::path::Part;
use jaq_json::Val;
use serde::de::{DeserializeSeed, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

/// What is looked at. Nothing: all of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Needs(Option<Paths>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Paths {
    list: Vec<Vec<String>>,
    tree: Tree,
    /// Values that may be read.
    places: usize,
}

/// The members of an object that are looked at.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Tree {
    /// Each with its place among the values that are read.
    members: Vec<(String, usize, Below)>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Below {
    All,
    Some(Tree),
}

/// What was read, by place.
struct Values {
    values: Vec<Option<Val>>,
    /// Members that are looked at and were not met.
    left: usize,
}

/// Reads the members of one object.
struct Pick<'a> {
    tree: &'a Tree,
    /// Where it goes when it is no object.
    place: Option<usize>,
    values: &'a mut Values,
}

// === impl Needs ===

impl Needs {
    /// What a program looks at.
    pub(super) fn of(program: &Term<&str>) -> Self {
        let mut paths = Vec::new();
        if reads(program, &mut paths) {
            Self::at(paths)
        } else {
            Self(None)
        }
    }

    /// What any of these looks at.
    pub(super) fn of_all<'a>(all: impl IntoIterator<Item = &'a Self>) -> Self {
        let lists = all
            .into_iter()
            .map(|needs| Some(needs.0.as_ref()?.list.clone()));
        let lists: Option<Vec<_>> = lists.collect();
        lists.map_or(Self(None), |lists| Self::at(lists.concat()))
    }

    fn at(list: Vec<Vec<String>>) -> Self {
        let (mut tree, mut places) = (Tree::default(), 0);
        for path in &list {
            tree.add(path, &mut places);
        }
        Self(tree.is_small().then_some(Paths { list, tree, places }))
    }

    /// Reads so much of a document; nothing when it is none, as far as it was read.
    pub(super) fn read(&self, json: &[u8]) -> Option<Val> {
        let Some(Paths { tree, places, .. }) = &self.0 else {
            return super::read(json);
        };
        let mut values = Values {
            values: vec![None; *places],
            left: tree.leaves(),
        };
        let mut deserializer = serde_json::Deserializer::from_slice(json);
        let pick = Pick {
            tree,
            place: None,
            values: &mut values,
        };
        let read = pick.deserialize(&mut deserializer);
        if read.is_err() && values.left > 0 {
            return None;
        }
        Some(tree.build(&mut values.values))
    }
}

/// Notes the paths at which a program looks at what it is given; `false` when it looks at the whole.
fn reads(term: &Term<&str>, paths: &mut Vec<Vec<String>>) -> bool {
    match term {
        Term::Num(_) | Term::Var(_) | Term::Break(_) | Term::Arr(None) => true,
        Term::Str(_, parts) => parts.iter().all(|part| match part {
            StrPart::Term(term) => reads(term, paths),
            StrPart::Str(_) | StrPart::Char(_) => true,
        }),
        Term::Arr(Some(term))
        | Term::Neg(term)
        | Term::Label(_, term)
        // What catches is given the error.
        | Term::TryCatch(term, _) => reads(term, paths),
        Term::BinOp(left, operator, right) => match operator {
            // What comes behind is given something else.
            BinaryOp::Pipe(None) => reads(left, paths),
            BinaryOp::Comma
            | BinaryOp::Alt
            | BinaryOp::Or
            | BinaryOp::And
            | BinaryOp::Math(_)
            | BinaryOp::Cmp(_) => reads(left, paths) && reads(right, paths),
            BinaryOp::Pipe(Some(_))
            | BinaryOp::Assign
            | BinaryOp::Update
            | BinaryOp::UpdateMath(_)
            | BinaryOp::UpdateAlt => false,
        },
        Term::IfThenElse(branches, otherwise) => {
            // Without `else` it yields what it was given.
            let all = branches
                .iter()
                .all(|(condition, then)| reads(condition, paths) && reads(then, paths));
            all && otherwise.as_ref().is_some_and(|term| reads(term, paths))
        }
        Term::Path(start, path) => {
            if !matches!(**start, Term::Id) {
                return reads(start, paths)
                    && path.0.iter().all(|(part, _)| match part {
                        Part::Index(term) => reads(term, paths),
                        Part::Range(from, to) => {
                            from.iter().chain(to).all(|term| reads(term, paths))
                        }
                    });
            }
            let mut names = Vec::new();
            let mut rest = path.0.iter();
            for (part, _) in rest.by_ref() {
                match part {
                    Part::Index(Term::Str(None, parts)) => match &parts[..] {
                        [StrPart::Str(name)] => names.push((*name).to_owned()),
                        _ => return false,
                    },
                    // What is behind that is below the name in front.
                    Part::Range(None, None) | Part::Index(Term::Num(_)) => break,
                    _ => return false,
                }
            }
            let plain = rest.all(|(part, _)| match part {
                Part::Index(term) => matches!(term, Term::Str(None, _) | Term::Num(_)),
                Part::Range(from, to) => from.is_none() && to.is_none(),
            });
            let found = plain && !names.is_empty();
            if found {
                paths.push(names);
            }
            found
        }
        // `empty`, `true`, `null` and the like are given the document, and do not look at it.
        Term::Call(name, arguments) => {
            arguments.is_empty() && ["true", "false", "null", "empty"].contains(name)
        }
        Term::Id | Term::Recurse | Term::Obj(_) | Term::Fold(..) | Term::Def(..) => false,
    }
}

// === impl Tree ===

impl Tree {
    fn add(&mut self, path: &[String], count: &mut usize) {
        let Some((name, rest)) = path.split_first() else {
            return;
        };
        let known = self.members.iter().position(|(known, ..)| known == name);
        let at = known.unwrap_or_else(|| {
            let below = Below::Some(Self::default());
            self.members.push((name.clone(), *count, below));
            *count += 1;
            self.members.len() - 1
        });
        let below = &mut self.members[at].2;
        match below {
            Below::All => {}
            Below::Some(_) if rest.is_empty() => *below = Below::All,
            Below::Some(tree) => tree.add(rest, count),
        }
    }

    /// Whether what was met of it fits into 64 bits.
    fn is_small(&self) -> bool {
        let small = |below: &Below| !matches!(below, Below::Some(tree) if !tree.is_small());
        self.members.len() <= 64 && self.members.iter().all(|(.., below)| small(below))
    }

    fn leaves(&self) -> usize {
        let members = self.members.iter();
        members.map(|(.., below)| below.leaves()).sum()
    }

    /// The object that has what was read.
    fn build(&self, values: &mut [Option<Val>]) -> Val {
        let members = self.members.iter().filter_map(|(name, place, below)| {
            let value = values.get_mut(*place).and_then(Option::take);
            let value = match below {
                Below::Some(tree) if value.is_none() => Some(tree.build(values)),
                _ => value,
            };
            Some((Val::utf8_str(name.clone()), value?))
        });
        Val::obj(members.collect())
    }
}

// === impl Below ===

impl Below {
    fn leaves(&self) -> usize {
        match self {
            Self::All => 1,
            Self::Some(tree) => tree.leaves(),
        }
    }
}

// === impl Pick ===

impl Pick<'_> {
    fn put(self, value: Val) {
        if let Some(place) = self.place {
            self.values.values[place] = Some(value);
        }
        // Nothing is below it.
        self.values.left -= self.tree.leaves();
    }
}

impl<'de> DeserializeSeed<'de> for Pick<'_> {
    type Value = ();

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Pick<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let Self { tree, values, .. } = self;
        let mut met: u64 = 0;
        while let Some(name) = map.next_key::<std::borrow::Cow<'de, str>>()? {
            let wanted = tree.members.iter().position(|(wanted, ..)| *wanted == name);
            let Some(at) = wanted.filter(|at| met & (1 << at) == 0) else {
                map.next_value::<IgnoredAny>()?;
                continue;
            };
            met |= 1 << at;
            let (_, place, below) = &tree.members[at];
            match below {
                Below::All => {
                    let raw: &RawValue = map.next_value()?;
                    values.values[*place] = super::read(raw.get().as_bytes());
                    values.left -= 1;
                }
                Below::Some(tree) => map.next_value_seed(Pick {
                    tree,
                    place: Some(*place),
                    values: &mut *values,
                })?,
            }
            if values.left == 0 {
                // The rest is not looked at.
                return Err(A::Error::custom("enough"));
            }
        }
        // What was not there is not waited for.
        let missing = tree.members.iter().enumerate();
        let missing = missing.filter(|(at, _)| met & (1 << at) == 0);
        values.left -= missing
            .map(|(_, (.., below))| below.leaves())
            .sum::<usize>();
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        // A program that looks for a name in an array is told that there are none in arrays, whatever is in it.
        self.put(Val::Arr(Vec::new().into()));
        Ok(())
    }

    fn visit_str<E>(self, text: &str) -> Result<(), E> {
        self.put(Val::utf8_str(text.to_owned()));
        Ok(())
    }

    fn visit_bool<E>(self, value: bool) -> Result<(), E> {
        self.put(Val::Bool(value));
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        self.put(Val::Null);
        Ok(())
    }

    fn visit_i64<E>(self, value: i64) -> Result<(), E> {
        self.put(Val::from(isize::try_from(value).unwrap_or(0)));
        Ok(())
    }

    fn visit_u64<E>(self, value: u64) -> Result<(), E> {
        self.put(Val::from(isize::try_from(value).unwrap_or(0)));
        Ok(())
    }

    fn visit_f64<E>(self, value: f64) -> Result<(), E> {
        self.put(Val::from(value));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::Program;
    use super::*;

    const ENVELOPE: &str = r#"{"event":"call","instance":"a","data":{"key":{"fromMe":true,"id":"x"},"n":[1,{"m":2}],"s":"t","z":null},"rest":1.5}"#;

    fn looks_at(program: &str) -> Option<Vec<String>> {
        let needs = Program::compile(program).unwrap().needs;
        let paths = needs.0?.list.into_iter();
        Some(paths.map(|path| path.join(".")).collect())
    }

    #[test]
    fn constant_paths_are_all_that_is_read() {
        for (program, paths) in [
            (".event == \"call\"", &["event"][..]),
            (".data.key.fromMe | not", &["data.key.fromMe"]),
            (
                ".event == \"a\" and (.data.key.fromMe | not) or .instance == \"b\"",
                &["event", "data.key.fromMe", "instance"],
            ),
            (".data.n[0] > 1", &["data.n"]),
            (".data.n[]? | .m", &["data.n"]),
            (
                "if .event == \"x\" then .data.s else false end",
                &["event", "data.s"],
            ),
            ("(.data.s? // \"\") | test(\"^t\")", &["data.s"]),
            (
                "\"\\(.event)-\\(.instance)\" == \"call-a\"",
                &["event", "instance"],
            ),
            ("[.event, .instance] | length", &["event", "instance"]),
        ] {
            let expected: Vec<String> = paths.iter().map(|path| (*path).to_owned()).collect();
            assert_eq!(looks_at(program), Some(expected), "{program}");
        }
        for program in [
            ".",
            "..",
            "has(\"a\")",
            ". as $x | $x.event",
            "select(.event)",
            ".[\"a\", \"b\"]",
            "keys",
            ".data.x = 1",
            "{event}",
            ".[.event]",
            "length == 3",
            "reduce .a as $x (0; . + 1)",
            "def f: .a; f",
            "if .event then .instance end",
        ] {
            assert_eq!(looks_at(program), None, "{program}");
        }
    }

    #[test]
    fn a_part_does_as_well_as_the_whole() {
        let time = std::time::Duration::from_secs(5);
        let whole = super::super::read(ENVELOPE.as_bytes()).unwrap();
        for program in [
            ".event == \"call\"",
            ".data.key.fromMe | not",
            ".data.key.no",
            ".data.no.no",
            ".data.s.no",
            ".rest.no",
            ".data.n[1].m == 2",
            ".data.n.m",
            ".data.z",
            ".data.z.no",
            ".no",
            ".data | .key.id",
            ".data.key | keys",
            ".data.key.id, .data.key",
            ".rest > 1",
            "(.rest, .event) | tostring",
            ".data.key.fromMe and .data.s == \"t\"",
        ] {
            let program = Program::compile(program).unwrap();
            let part = program.needs.read(ENVELOPE.as_bytes()).unwrap();
            let run = |input: &Val| {
                let mut values = Vec::new();
                let ended = program.run(input.clone(), time, |it| values.push(it));
                (values, ended.is_ok())
            };
            assert_eq!(run(&part), run(&whole), "{program:?}");
        }
        let both = ["(.event)", ".data.s"].map(|it| Program::compile(it).unwrap().needs);
        let part = Needs::of_all(&both).read(ENVELOPE.as_bytes()).unwrap();
        assert_eq!(part.to_string(), r#"{"event":"call","data":{"s":"t"}}"#);
        assert!(both[0].read(b"{\"data\":").is_none());
    }
}
