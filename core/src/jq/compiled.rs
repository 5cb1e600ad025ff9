//! Programs as jaq runs them.

use std::fmt::{self, Write as _};
use std::time::Duration;

use jaq_core::data::HasLut;
use jaq_core::load::parse::Term;
use jaq_core::load::{Arena, File, Loader};
use jaq_core::{Compiler, Ctx, DataT, Lut, Vars};
use jaq_json::Val;

use super::limits::Limits;
use super::{Fault, RunError, faults, prelude, span};

/// What the program is called among its definitions.
const MAIN: &str = "evows__main";

/// A program that can be run.
pub(super) struct Compiled(jaq_core::Filter<Kind>);

/// What programs run on.
pub(super) struct Kind;

/// What a run has at hand.
pub(super) struct Data<'a> {
    lut: &'a Lut<Kind>,
    pub(super) limits: &'a Limits,
}

impl DataT for Kind {
    type V<'a> = Val;
    type Data<'a> = &'a Data<'a>;
}

impl<'a> HasLut<'a, Kind> for &'a Data<'a> {
    fn lut(&self) -> &'a Lut<Kind> {
        self.lut
    }
}

/// The beginning of a text. An error has the value in it that it is about, all of it.
struct Short(String);

impl Short {
    const LENGTH: usize = 200;

    fn of(text: &impl fmt::Display) -> String {
        let mut short = Self(String::new());
        if write!(short, "{text}").is_err() {
            short.0.push('\u{2026}');
        }
        short.0
    }
}

impl fmt::Write for Short {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let room = Self::LENGTH.saturating_sub(self.0.len());
        let end = text.floor_char_boundary(room);
        self.0.push_str(text.get(..end).unwrap_or_default());
        if end < text.len() {
            Err(fmt::Error)
        } else {
            Ok(())
        }
    }
}

// === impl Compiled ===

impl Compiled {
    /// Compiles a program that is `text`, or a part of it.
    pub(super) fn compile(main: Term<&str>, text: &str) -> Result<Self, Vec<Fault>> {
        let arena = Arena::default();
        let loader = Loader::new(prelude::defs(MAIN, main));
        let file = File {
            code: MAIN,
            path: (),
        };
        let modules = loader.load(&arena, file).map_err(|_| faults(text))?;
        let compiled = Compiler::default()
            .with_funs(prelude::funs())
            .compile(modules);
        let filter = compiled.map_err(|errors| {
            let errors = errors.into_iter().flat_map(|(_, errors)| errors);
            let faults = errors.map(|(name, undefined)| {
                let message = prelude::unknown(name, &undefined);
                let span = span(text, name);
                Fault { span, message }
            });
            faults.collect::<Vec<_>>()
        })?;
        Ok(Self(filter))
    }

    /// Runs it, and shows each value that it yields. What was shown before an error stays shown.
    pub(super) fn run(
        &self,
        input: Val,
        time: Duration,
        mut show: impl FnMut(Val),
    ) -> Result<(), RunError> {
        let limits = Limits::new(time);
        let data = Data {
            lut: &self.0.lut,
            limits: &limits,
        };
        let ctx = Ctx::<Kind>::new(&data, Vars::new([]));
        for result in self.0.id.run((ctx, input)) {
            // What a program catches it cannot go on with.
            limits.check()?;
            match result {
                Ok(value) => show(value),
                Err(exception) => {
                    let error = exception.get_err();
                    let message = error.map_or_else(
                        |_| "the program halted".to_owned(),
                        |error| Short::of(&error),
                    );
                    return Err(RunError::Raised(message));
                }
            }
        }
        Ok(limits.check()?)
    }
}
