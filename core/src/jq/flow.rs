//! Follows a document through a program, to see what is looked at of it.
//!
//! The document stands at first in one place, the input. Constant paths lead from places to places. A value that a program makes
//! may have places in it, which it need not look into. Whatever is not known to leave a place alone is taken to look at all of it,
//! and what is written into a document is taken to be looked at, so that each place of a changed document is what it was before,
//! or read as a whole.

use std::borrow::Cow;

use jaq_core::load::lex::StrPart;
use jaq_core::load::parse::{BinaryOp, Pattern, Term};
use jaq_core::ops::{Cmp, Math};
use jaq_core::path::Part;

use super::needs::Need;

/// What a value has to do with the document.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Seen {
    /// It is what stands at this place, but for what the program changed below it.
    At(usize),
    /// It may have what stands at these places somewhere in it.
    Of(Vec<usize>),
}

/// The document as far as the program goes into it.
struct Flow<'t> {
    places: Vec<Place>,
    variables: Vec<(&'t str, Seen)>,
}

#[derive(Default)]
struct Place {
    all: bool,
    /// Whether its members matter.
    open: bool,
    /// Whether those matter that are not named here.
    apart: bool,
    members: Vec<(String, usize)>,
}

/// What a program looks at; and the same with these members of its results.
pub(super) fn follow(program: &Term<&str>, members: &[&str]) -> (Need, Need) {
    let mut flow = Flow::new();
    let result = flow.term(program, &Seen::At(0));
    let closed = flow.need(0);
    for place in result.places() {
        for name in members {
            flow.member(&Seen::At(*place), name);
        }
    }
    (closed, flow.need(0))
}

/// What a term looks at, and what its results have in them, looked at or not.
pub(super) fn looks_at_or_yields(term: &Term<&str>) -> Need {
    let mut flow = Flow::new();
    flow.look_at(term, &Seen::At(0));
    flow.need(0)
}

// === impl Seen ===

impl Seen {
    const NOTHING: Self = Self::Of(Vec::new());

    fn places(&self) -> &[usize] {
        match self {
            Self::At(place) => std::slice::from_ref(place),
            Self::Of(places) => places,
        }
    }

    fn or(self, other: &Self) -> Self {
        if self == *other {
            return self;
        }
        Self::Of([self.places(), other.places()].concat())
    }

    /// What has it in it.
    fn inside(self) -> Self {
        Self::Of(self.places().to_vec())
    }
}

// === impl Flow ===

impl<'t> Flow<'t> {
    /// At the beginning of a program.
    fn new() -> Self {
        Self {
            places: vec![Place::default()],
            variables: Vec::new(),
        }
    }

    fn need(&self, place: usize) -> Need {
        let Place {
            all,
            open,
            apart,
            members,
        } = &self.places[place];
        if *all {
            return Need::All;
        }
        if !open {
            return Need::Nothing;
        }
        // Members that are kept have their names and values for a name, which must be nobody else's.
        let apart = *apart || members.iter().any(|(name, _)| name.contains('"'));
        let members = members.iter();
        let wanted = members.map(|(name, place)| (name.clone(), self.need(*place)));
        Need::Members {
            wanted: wanted.collect(),
            apart,
        }
    }

    /// All of it is looked at; what comes of it has nothing that is not.
    fn look(&mut self, seen: &Seen) -> Seen {
        for place in seen.places() {
            self.places[*place].all = true;
        }
        Seen::NOTHING
    }

    /// What is called may look at its input and at every variable.
    fn look_at_all(&mut self, input: &Seen) -> Seen {
        self.look(input);
        for (_, seen) in self.variables.clone() {
            self.look(&seen);
        }
        Seen::NOTHING
    }

    fn member(&mut self, of: &Seen, name: &str) -> Seen {
        let Seen::At(of) = *of else {
            return self.look(of);
        };
        let place = &mut self.places[of];
        place.open = true;
        if let Some((_, at)) = place.members.iter().find(|(known, _)| known == name) {
            return Seen::At(*at);
        }
        let at = self.places.len();
        self.places.push(Place::default());
        self.places[of].members.push((name.to_owned(), at));
        Seen::At(at)
    }

    fn term(&mut self, term: &'t Term<&'t str>, input: &Seen) -> Seen {
        match term {
            Term::Id => input.clone(),
            Term::Recurse => self.look(input),
            Term::Num(_) | Term::Break(_) | Term::Arr(None) => Seen::NOTHING,
            Term::Var(name) => self.variable(name),
            Term::Str(_, parts) => {
                for part in parts {
                    if let StrPart::Term(term) = part {
                        self.look_at(term, input);
                    }
                }
                Seen::NOTHING
            }
            Term::Arr(Some(term)) => self.term(term, input).inside(),
            Term::Obj(members) => self.object(members, input),
            Term::Neg(term) => self.look_at(term, input),
            Term::BinOp(left, operator, right) => self.operation(left, operator, right, input),
            Term::Label(_, term) => self.term(term, input),
            Term::TryCatch(term, caught) => {
                let tried = self.term(term, input);
                // What is caught was made by what raised it, and may have all in it that was at hand there.
                let caught = caught.as_ref();
                if caught.is_some_and(|caught| !is_fixed(caught)) {
                    self.look_at_all(input);
                }
                let caught = caught.map(|caught| self.term(caught, &Seen::NOTHING));
                tried.or(&caught.unwrap_or(Seen::NOTHING))
            }
            Term::IfThenElse(branches, otherwise) => {
                let mut result = None;
                for (condition, then) in branches {
                    self.term(condition, input);
                    let then = self.term(then, input);
                    result = Some(match result {
                        Some(result) => then.or(&result),
                        None => then,
                    });
                }
                // Without `else` it yields what it was given.
                let otherwise = match otherwise {
                    Some(term) => self.term(term, input),
                    None => input.clone(),
                };
                match result {
                    Some(result) => otherwise.or(&result),
                    None => otherwise,
                }
            }
            Term::Path(start, path) => {
                let mut seen = self.term(start, input);
                for (part, _) in &path.0 {
                    seen = self.part(part, &seen, input);
                }
                seen
            }
            Term::Call(name, arguments) => self.call(name, arguments, input),
            Term::Fold(..) | Term::Def(..) => self.look_at_all(input),
        }
    }

    /// What a term yields is looked at.
    fn look_at(&mut self, term: &'t Term<&'t str>, input: &Seen) -> Seen {
        let seen = self.term(term, input);
        self.look(&seen)
    }

    fn variable(&mut self, name: &str) -> Seen {
        let known = self
            .variables
            .iter()
            .rev()
            .find(|(known, _)| *known == name);
        known.map_or(Seen::NOTHING, |(_, seen)| seen.clone())
    }

    fn part(&mut self, part: &'t Part<Term<&'t str>>, of: &Seen, input: &Seen) -> Seen {
        match part {
            Part::Index(index) => {
                if let Some(name) = constant(index) {
                    return self.member(of, &name);
                }
                self.look_at(index, input);
                self.look(of)
            }
            Part::Range(from, to) => {
                for bound in from.iter().chain(to) {
                    self.look_at(bound, input);
                }
                self.look(of)
            }
        }
    }

    fn object(
        &mut self,
        members: &'t [(Term<&'t str>, Option<Term<&'t str>>)],
        input: &Seen,
    ) -> Seen {
        let mut inside = Seen::NOTHING;
        for (name, value) in members {
            let value = match (value, constant(name), name) {
                (Some(value), ..) => {
                    self.look_at(name, input);
                    self.term(value, input)
                }
                (None, Some(name), _) => self.member(input, &name),
                (None, None, Term::Var(name)) => self.variable(name),
                _ => {
                    self.look_at(name, input);
                    self.look(input)
                }
            };
            inside = inside.or(&value).inside();
        }
        inside
    }

    fn operation(
        &mut self,
        left: &'t Term<&'t str>,
        operator: &'t BinaryOp<&'t str>,
        right: &'t Term<&'t str>,
        input: &Seen,
    ) -> Seen {
        match operator {
            BinaryOp::Pipe(None) => {
                let seen = self.term(left, input);
                self.term(right, &seen)
            }
            BinaryOp::Pipe(Some(pattern)) => {
                let seen = self.term(left, input);
                let known = self.variables.len();
                match pattern {
                    Pattern::Var(name) => self.variables.push((name, seen)),
                    Pattern::Arr(_) | Pattern::Obj(_) => {
                        self.look(&seen);
                        // Its keys may be computed.
                        self.look_at_all(input);
                        bind(pattern, &mut |name| {
                            self.variables.push((name, Seen::NOTHING));
                        });
                    }
                }
                let result = self.term(right, input);
                self.variables.truncate(known);
                result
            }
            // Whether a value is `null` or `false` is known of every place.
            BinaryOp::Comma | BinaryOp::Alt => {
                let left = self.term(left, input);
                left.or(&self.term(right, input))
            }
            BinaryOp::Or | BinaryOp::And => {
                self.term(left, input);
                self.term(right, input);
                Seen::NOTHING
            }
            BinaryOp::Math(Math::Add) => {
                let seen = self.term(left, input);
                self.look_at(right, input);
                match seen {
                    // Members come to others.
                    Seen::At(place) => {
                        self.places[place].open = true;
                        self.places[place].apart = true;
                        seen
                    }
                    Seen::Of(_) => self.look(&seen),
                }
            }
            // Nor does anything else need to be known of it then.
            BinaryOp::Cmp(Cmp::Eq | Cmp::Ne) if is_null(left) => {
                self.term(right, input);
                Seen::NOTHING
            }
            BinaryOp::Cmp(Cmp::Eq | Cmp::Ne) if is_null(right) => {
                self.term(left, input);
                Seen::NOTHING
            }
            BinaryOp::Math(_) | BinaryOp::Cmp(_) => {
                self.look_at(left, input);
                self.look_at(right, input)
            }
            BinaryOp::Assign | BinaryOp::UpdateAlt => {
                self.term(left, input);
                self.look_at(right, input);
                self.changed(input)
            }
            BinaryOp::Update => {
                let at = self.term(left, input);
                let written = self.term(right, &at);
                if written != at {
                    self.look(&written);
                }
                self.changed(input)
            }
            BinaryOp::UpdateMath(_) => {
                self.look_at(left, input);
                self.look_at(right, input);
                self.changed(input)
            }
        }
    }

    /// A value that something was written into.
    fn changed(&mut self, input: &Seen) -> Seen {
        match input {
            Seen::At(_) => input.clone(),
            Seen::Of(_) => self.look(input),
        }
    }

    fn call(&mut self, name: &str, arguments: &'t [Term<&'t str>], input: &Seen) -> Seen {
        match (name, arguments) {
            ("true" | "false" | "null" | "empty" | "not", []) => Seen::NOTHING,
            ("select", [condition]) => {
                self.term(condition, input);
                input.clone()
            }
            ("keys" | "keys_unsorted" | "length", []) => match input {
                // The names of its members, or how many there are.
                Seen::At(place) => {
                    self.places[*place].open = true;
                    self.places[*place].apart = true;
                    Seen::NOTHING
                }
                Seen::Of(_) => self.look(input),
            },
            ("del", [path]) => {
                self.term(path, input);
                self.changed(input)
            }
            ("has", [name]) if matches!(input, Seen::At(_)) && constant(name).is_some() => {
                self.member(input, &constant(name).unwrap_or_default());
                Seen::NOTHING
            }
            _ => {
                for argument in arguments {
                    // What it is given is a part of what is looked at, or made.
                    self.term(argument, &Seen::NOTHING);
                }
                self.look_at_all(input)
            }
        }
    }
}

/// The text of a constant string.
pub(super) fn constant<'t>(term: &Term<&'t str>) -> Option<Cow<'t, str>> {
    let Term::Str(None, parts) = term else {
        return None;
    };
    if let [StrPart::Str(text)] = &parts[..] {
        return Some(Cow::Borrowed(text));
    }
    let mut whole = String::new();
    for part in parts {
        match part {
            StrPart::Str(text) => whole.push_str(text),
            StrPart::Char(one) => whole.push(*one),
            StrPart::Term(_) => return None,
        }
    }
    Some(Cow::Owned(whole))
}

/// Whether it comes to the same whatever it is given.
fn is_fixed(term: &Term<&str>) -> bool {
    match term {
        Term::Num(_) | Term::Arr(None) => true,
        Term::Call("true" | "false" | "null" | "empty", arguments) => arguments.is_empty(),
        _ => constant(term).is_some(),
    }
}

fn is_null(term: &Term<&str>) -> bool {
    matches!(term, Term::Call("null", arguments) if arguments.is_empty())
}

/// Shows the variables that a pattern binds.
fn bind<'t>(pattern: &Pattern<&'t str>, show: &mut dyn FnMut(&'t str)) {
    match pattern {
        Pattern::Var(name) => show(name),
        Pattern::Arr(patterns) => patterns.iter().for_each(|it| bind(it, show)),
        Pattern::Obj(members) => members.iter().for_each(|(name, pattern)| {
            if let Term::Var(name) = name {
                show(name);
            }
            bind(pattern, show);
        }),
    }
}
