//! What programs can call, with a limit in everything that could go on for ever.
//!
//! What can is a definition that calls itself: programs have no loops but those. So each of those, in the program and in what
//! it is given, begins with a call that counts; the native `range` is the one generator without an end. What is done for each
//! element of something ends, but not soon where it is done for each element again: so that is counted, too. And what
//! makes much of little in a single call is held back: texts that are repeated, and JSON in texts.

use std::collections::BTreeSet;
use std::sync::Arc;

use jaq_core::box_iter::box_once;
use jaq_core::compile::Undefined;
use jaq_core::load::lex::StrPart;
use jaq_core::load::parse::{BinaryOp, Def, Pattern, Term};
use jaq_core::native::{Fun, bome, unary, v};
use jaq_core::ops::Math;
use jaq_core::path::Part;
use jaq_core::{Exn, Native, ValT as _};
use jaq_json::{Error, Num, Val, ValR};

use super::compiled::Kind;
use super::scan::is_readable;
use super::write::is_number;
use crate::config::suggest;

/// What counts. No program can write that name.
const TICK: &str = "!tick";
const RANGE: &str = "!range";
const FROM_JSON: &str = "!fromjson";
/// Has numbers as JSON has them.
const NUMBERS: &str = "!numbers";
const TO_BYTES: &str = "!tobytes";
/// Copies bytes: those that are a part of the document stand for what is [kept](super::Reader::keeping) of it.
const COPIED: &str = "!copied";
/// Raises an error about text that is not to be read as JSON.
const READABLE: &str = "!readable";
/// Multiplies the argument by the input, unless that makes a text of more than [`LONGEST`] bytes.
const TIMES: &str = "!times";
/// The same the other way round.
const TIMES_BY: &str = "!timesby";
const LONGEST: f64 = 16e6;
/// What is left out: it reads or writes something else than the value, or ends the process.
const HIDDEN: [&str; 10] = [
    "debug",
    "debug_empty",
    "env",
    "halt",
    "halt_error",
    "input",
    "inputs",
    "repl",
    "stderr",
    "stderr_empty",
];

/// What is native here: as it is defined, it copies all that it has for each member that it adds.
const NATIVE: [&str; 2] = ["to_entries", "from_entries"];

/// The definitions, `main` behind them under its name.
pub(super) fn defs<'s>(name: &'s str, main: Term<&'s str>) -> Vec<Def<&'s str>> {
    let given = jaq_core::defs()
        .chain(jaq_std::defs())
        .chain(jaq_json::defs());
    let given = given.filter(|def| !HIDDEN.contains(&def.name) && !NATIVE.contains(&def.name));
    let main = Def {
        name,
        args: Vec::new(),
        body: main,
    };
    let arguments = ["$from", "$to", "$by"];
    let range = Def {
        name: "range",
        args: arguments.to_vec(),
        body: pipe(Term::Call(RANGE, arguments.map(Term::Var).to_vec()), tick()),
    };
    let from_json = Def {
        name: "fromjson",
        args: Vec::new(),
        body: pipe(call(READABLE), pipe(call(FROM_JSON), call(NUMBERS))),
    };
    let to_bytes = Def {
        name: "tobytes",
        args: Vec::new(),
        body: pipe(call(TO_BYTES), call(COPIED)),
    };
    let mut defs: Vec<Def<&str>> = [range, from_json, to_bytes]
        .into_iter()
        .chain(given)
        .collect();
    defs.push(main);
    for def in &mut defs {
        walk(&mut def.body, &mut hold_back);
        count(def);
    }
    defs
}

/// The native filters.
pub(super) fn funs() -> impl Iterator<Item = Fun<Kind>> {
    let given = jaq_core::funs()
        .chain(jaq_std::funs())
        .chain(jaq_json::funs());
    let given = given.filter(|(name, ..)| !HIDDEN.contains(name));
    let given = given.map(|(name, arguments, native)| {
        let name = match (name, arguments.len()) {
            ("range", 3) => RANGE,
            ("fromjson", 0) => FROM_JSON,
            ("tobytes", 0) => TO_BYTES,
            _ => name,
        };
        (name, arguments, native)
    });
    let tick = Native::<Kind>::new(|cv| {
        let spent = cv.0.data().limits.spend(&cv.1);
        box_once(spent.map(|()| cv.1).map_err(|_| Exn::halt(1)))
    });
    let tick = tick.with_paths(|cv| {
        let spent = cv.0.data().limits.spend(&cv.1.0);
        box_once(spent.map(|()| cv.1).map_err(|_| Exn::halt(1)))
    });
    let tick = tick.with_update(|cv, update| match cv.0.data().limits.spend(&cv.1) {
        Ok(()) => update(cv.1),
        Err(_) => box_once(Err(Exn::halt(1))),
    });
    let readable = Native::<Kind>::new(|cv| {
        let is_readable = match &cv.1 {
            Val::TStr(text) => is_readable(text),
            _ => true,
        };
        bome(is_readable.then_some(cv.1).ok_or_else(|| {
            Error::str(
                "cannot read as JSON: it is nested too deep, or has a number that is too long",
            )
        }))
    });
    let times_by = Native::<Kind>::new(|cv| unary(cv, times));
    let times = Native::<Kind>::new(|cv| unary(cv, |right, left| times(left, right)));
    let copied = Native::<Kind>::new(|cv| {
        bome(Ok(match cv.1 {
            Val::BStr(bytes) => Val::byte_str(bytes.to_vec()),
            other => other,
        }))
    });
    let numbers = Native::<Kind>::new(|cv| bome(Ok(numbers(cv.1))));
    given.chain([
        (COPIED, v(0), copied),
        (NUMBERS, v(0), numbers),
        ("to_entries", v(0), Native::new(|cv| bome(to_entries(cv.1)))),
        (
            "from_entries",
            v(0),
            Native::new(|cv| bome(from_entries(cv.1))),
        ),
        (TICK, v(0), tick),
        (READABLE, v(0), readable),
        (TIMES, v(1), times),
        (TIMES_BY, v(1), times_by),
    ])
}

/// What to say of a name that is not defined.
pub(super) fn unknown(name: &str, undefined: &Undefined) -> String {
    let what = undefined.as_str();
    let Undefined::Filter(arity) = undefined else {
        return format!("there is no {what} `{name}`");
    };
    let given = jaq_core::defs()
        .chain(jaq_std::defs())
        .chain(jaq_json::defs());
    let given = given.map(|def| (def.name, def.args.len()));
    let natives = funs().map(|(name, arguments, _)| (name, arguments.len()));
    // Those with a name that nobody can write are called by definitions of this page.
    let natives = natives.filter(|(name, _)| !name.starts_with('!'));
    let natives = natives.chain([("range", 3), ("fromjson", 0), ("tobytes", 0)]);
    let known: Vec<(&str, usize)> = given.chain(natives).collect();
    let arities: BTreeSet<usize> = known
        .iter()
        .filter(|it| it.0 == name)
        .map(|it| it.1)
        .collect();
    if !arities.is_empty() {
        let arities: Vec<String> = arities.iter().map(usize::to_string).collect();
        let arities = arities.join(" or ");
        return format!("`{name}` is given {arity} arguments, and takes {arities}");
    }
    match suggest(name, known.iter().map(|it| it.0)) {
        Some(other) => format!("there is no {what} `{name}`; did you mean `{other}`?"),
        None => format!("there is no {what} `{name}`"),
    }
}

/// Has a definition count its calls, and those in it, where they call themselves.
fn count(def: &mut Def<&str>) {
    let mut calls_itself = false;
    let (name, arity) = (def.name, def.args.len());
    walk(&mut def.body, &mut |term| {
        if let Term::Call(called, arguments) = term {
            calls_itself |= *called == name && arguments.len() == arity;
        }
        if let Term::Def(defs, _) = term {
            defs.iter_mut().for_each(count);
        }
    });
    if calls_itself {
        let body = std::mem::take(&mut def.body);
        def.body = Term::BinOp(Box::new(tick()), BinaryOp::Pipe(None), Box::new(body));
    }
}

/// `[key_values[] as [$key, $value] | {$key, $value}]`.
fn to_entries(of: Val) -> ValR {
    let entry = |(key, value)| {
        let members = [("key", key), ("value", value)];
        members
            .map(|(name, it)| (Val::utf8_str(name), it))
            .into_iter()
            .collect()
    };
    let entries = of.key_values().map(|it| it.map(entry).map(Val::obj));
    entries.collect()
}

/// `reduce (.[] | {(.key): .value}) as $x ({}; . + $x)`.
fn from_entries(entries: Val) -> ValR {
    let [key, value] = ["key", "value"].map(Val::utf8_str);
    let members = entries.values().map(|entry| {
        let entry = entry?;
        Ok((entry.clone().index(&key)?, entry.index(&value)?))
    });
    members.collect::<Result<_, _>>().map(Val::obj)
}

/// A value without numbers such as `+1.5` and `01.5`, which jaq reads, and keeps as they are.
fn numbers(value: Val) -> Val {
    match value {
        Val::Num(Num::Dec(text)) if !is_number(&text) => {
            Val::Num(Num::Float(text.parse().unwrap_or(f64::NAN)))
        }
        Val::Arr(elements) => {
            let elements = Arc::unwrap_or_clone(elements).into_iter();
            elements.map(numbers).collect()
        }
        Val::Obj(members) => {
            let members = Arc::unwrap_or_clone(members).into_iter();
            Val::obj(members.map(|(name, it)| (name, numbers(it))).collect())
        }
        other => other,
    }
}

fn times(left: Val, right: Val) -> ValR {
    let length = match (&left, &right) {
        (Val::TStr(text) | Val::BStr(text), Val::Num(number))
        | (Val::Num(number), Val::TStr(text) | Val::BStr(text)) => {
            let times: f64 = number.to_string().parse().unwrap_or_default();
            times * f64::from(u32::try_from(text.len()).unwrap_or(u32::MAX))
        }
        _ => 0.0,
    };
    if length > LONGEST {
        return Err(Error::str(
            "cannot repeat a text until it has more than 16 MB",
        ));
    }
    left * right
}

/// Puts what counts behind what is done for each element, and what looks first in the place of what multiplies.
fn hold_back(term: &mut Term<&str>) {
    let is_number = |term: &Term<&str>| matches!(term, Term::Num(_));
    let iterates = match term {
        Term::Recurse => true,
        Term::Path(_, path) => {
            let mut parts = path.0.iter();
            parts.any(|(part, _)| matches!(part, Part::Range(None, None)))
        }
        Term::BinOp(left, BinaryOp::Math(Math::Mul), right)
            if !is_number(left) && !is_number(right) =>
        {
            let (left, right) = (std::mem::take(&mut **left), std::mem::take(&mut **right));
            // Both sides are given what the whole was given; for each value of the left one, all of the right one.
            let factor = "$!factor";
            let product = pipe(right, Term::Call(TIMES, vec![Term::Var(factor)]));
            let bind = BinaryOp::Pipe(Some(Pattern::Var(factor)));
            *term = Term::BinOp(Box::new(left), bind, Box::new(product));
            return;
        }
        Term::BinOp(left, BinaryOp::UpdateMath(Math::Mul), right) if !is_number(right) => {
            let (left, right) = (std::mem::take(left), std::mem::take(right));
            let factor = "$!factor";
            let product = Term::Call(TIMES_BY, vec![Term::Var(factor)]);
            let update = Term::BinOp(left, BinaryOp::Update, Box::new(product));
            let bind = BinaryOp::Pipe(Some(Pattern::Var(factor)));
            *term = Term::BinOp(right, bind, Box::new(update));
            return;
        }
        Term::Fold(_, _, _, terms) => {
            // What goes around is what the second one makes.
            if let Some(update) = terms.get_mut(1) {
                *update = pipe(std::mem::take(update), tick());
            }
            false
        }
        _ => false,
    };
    if iterates {
        *term = pipe(std::mem::take(term), tick());
    }
}

fn pipe<'s>(left: Term<&'s str>, right: Term<&'s str>) -> Term<&'s str> {
    Term::BinOp(Box::new(left), BinaryOp::Pipe(None), Box::new(right))
}

fn call(name: &'static str) -> Term<&'static str> {
    Term::Call(name, Vec::new())
}

fn tick<'s>() -> Term<&'s str> {
    Term::Call(TICK, Vec::new())
}

/// Visits everything below a term, and then the term.
fn walk<'s>(term: &mut Term<&'s str>, visit: &mut impl FnMut(&mut Term<&'s str>)) {
    walk_below(term, visit);
    visit(term);
}

fn walk_below<'s>(term: &mut Term<&'s str>, visit: &mut impl FnMut(&mut Term<&'s str>)) {
    let mut below = |term: &mut Term<&'s str>| walk(term, visit);
    match term {
        Term::Id
        | Term::Recurse
        | Term::Num(_)
        | Term::Break(_)
        | Term::Var(_)
        | Term::Arr(None) => {}
        Term::Str(_, parts) => {
            for part in parts {
                if let StrPart::Term(term) = part {
                    below(term);
                }
            }
        }
        Term::Arr(Some(term)) | Term::Neg(term) | Term::Label(_, term) => below(term),
        Term::Obj(entries) => {
            for (key, value) in entries {
                below(key);
                value.iter_mut().for_each(&mut below);
            }
        }
        Term::BinOp(left, operator, right) => {
            below(left);
            if let BinaryOp::Pipe(Some(pattern)) = operator {
                walk_pattern(pattern, &mut below);
            }
            below(right);
        }
        Term::Fold(_, source, pattern, terms) => {
            below(source);
            walk_pattern(pattern, &mut below);
            terms.iter_mut().for_each(below);
        }
        Term::TryCatch(term, catch) => {
            below(term);
            if let Some(catch) = catch {
                below(catch);
            }
        }
        Term::IfThenElse(branches, otherwise) => {
            for (condition, then) in branches {
                below(condition);
                below(then);
            }
            if let Some(otherwise) = otherwise {
                below(otherwise);
            }
        }
        Term::Def(defs, rest) => {
            for def in defs {
                below(&mut def.body);
            }
            below(rest);
        }
        Term::Call(_, arguments) => arguments.iter_mut().for_each(below),
        Term::Path(term, path) => {
            below(term);
            for (part, _) in &mut path.0 {
                match part {
                    Part::Index(term) => below(term),
                    Part::Range(from, to) => {
                        from.iter_mut().chain(to).for_each(&mut below);
                    }
                }
            }
        }
    }
}

fn walk_pattern<'s>(pattern: &mut Pattern<&'s str>, visit: &mut impl FnMut(&mut Term<&'s str>)) {
    match pattern {
        Pattern::Var(_) => {}
        Pattern::Arr(patterns) => {
            for pattern in patterns {
                walk_pattern(pattern, visit);
            }
        }
        Pattern::Obj(entries) => {
            for (key, pattern) in entries {
                visit(key);
                walk_pattern(pattern, visit);
            }
        }
    }
}
