//! Problems of the syntax, and every problem at its place in the file.

use std::path::Path;
use std::sync::Arc;

use toml::de::{DeTable, Error};

use super::{Diagnostic, Place, Problem, codes, tree};

/// What the parser says of a key that is there already.
const DUPLICATE: &str = "duplicate key";

/// Syntax errors, and the problems that do not follow from them: those of other lines.
pub(super) fn beside_syntax(problems: Vec<Problem>, errors: &[Error], text: &str) -> Vec<Problem> {
    let line = |at: usize| text.get(..at).unwrap_or(text).matches('\n').count();
    let mut all = Vec::new();
    let mut broken: Vec<usize> = Vec::new();
    // Where a section begins that is there twice: its keys are there twice as well.
    let mut repeated = None;
    for error in errors {
        let at = error.span().unwrap_or_default().start;
        let own = text.lines().nth(line(at)).unwrap_or_default();
        let since = repeated.and_then(|begin| text.get(begin..at));
        let follows = since.is_some_and(|since| !since.contains("\n["));
        if own.trim_start().starts_with('[') && error.message() == DUPLICATE {
            repeated = Some(at);
        } else if follows && error.message() == DUPLICATE {
            continue;
        }
        // What a parser says after its first error in a line is mostly about that error.
        if !broken.contains(&line(at)) {
            broken.push(line(at));
            all.push(syntax(error));
        }
    }
    all.extend(problems.into_iter().filter(|problem| match &problem.place {
        Place::Span(span) => !broken.contains(&line(span.start)),
        _ => false,
    }));
    all
}

fn syntax(error: &Error) -> Problem {
    let message = error.message();
    let problem = if message == DUPLICATE {
        Problem::new(codes::DUPLICATE_KEY, "this key or section is there already")
            .help("a key and a section may be written once; merge the two")
    } else {
        Problem::new(codes::SYNTAX, message)
    };
    match error.span() {
        Some(span) => problem.at_span(span),
        None => problem,
    }
}

/// Problems that name keys from the top of the file.
pub(crate) fn place_keys(mut problems: Vec<Problem>, file: &Path, text: &str) -> Vec<Diagnostic> {
    let (document, _) = DeTable::parse_recoverable(text);
    let root = tree::root(document);
    for problem in &mut problems {
        let (keys, _) = problem.place.below();
        problem.place = Place::Span(tree::locate(&root, keys, false));
    }
    place(problems, &file.display().to_string(), text)
}

/// The problems in the order of the file; those of the whole file come first.
pub(super) fn place(problems: Vec<Problem>, file: &str, text: &str) -> Vec<Diagnostic> {
    let file: Arc<str> = file.into();
    let mut diagnostics: Vec<Diagnostic> = problems
        .into_iter()
        .map(|problem| {
            let span = match &problem.place {
                Place::Span(span) => Some(span.clone()),
                Place::Table | Place::Key(_) | Place::Part(_) => None,
            };
            Diagnostic::new(problem, span, &file, text)
        })
        .collect();
    diagnostics.sort_by_key(|diagnostic| diagnostic.span.as_ref().map(|span| span.start));
    diagnostics
}
