//! What the commands write, and where: results to stdout, complaints to stderr.

use std::borrow::Cow;
use std::fmt::Display;
use std::io::{self, IsTerminal, Write};

use crate::config::{Diagnostic, Severity, render};
use crate::rehearsal::visible;

/// How a command writes its result.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// For people.
    #[default]
    Text,
    /// For programs.
    Json,
}

/// Writes a result. The error is the caller's to judge: a closed pipe is no failure.
pub fn print(text: &str) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(text.as_bytes())?;
    stdout.flush()
}

/// JSON as a terminal can be given it, where stdout is one; else as it is.
pub(super) fn for_terminal(json: &str) -> Cow<'_, str> {
    if io::stdout().is_terminal() {
        visible(json)
    } else {
        Cow::Borrowed(json)
    }
}

/// Says on stderr what went wrong.
pub fn complain(what: &dyn Display) {
    // With stderr gone there is nobody left to tell; the exit code still says it.
    writeln!(io::stderr().lock(), "error: {what}").ok();
}

/// Writes to stderr what is not the result.
pub(super) fn tell(text: &str) {
    // As in `complain`.
    io::stderr().lock().write_all(text.as_bytes()).ok();
}

/// Shows diagnostics on stderr, and how many there are.
pub(super) fn show(diagnostics: &[Diagnostic], text: &str) {
    let styled = io::stderr().is_terminal();
    let shown = render(diagnostics, text, styled);
    let mut stderr = io::stderr().lock();
    // As in `complain`.
    stderr.write_all(shown.as_bytes()).ok();
    if !diagnostics.is_empty() {
        writeln!(stderr, "{}", count(diagnostics)).ok();
    }
}

/// `2 errors, 1 warning`.
pub(super) fn count(diagnostics: &[Diagnostic]) -> String {
    let number = |severity: Severity, word: &str| {
        let found = diagnostics.iter().filter(|one| one.severity == severity);
        plural(found.count(), word)
    };
    let counts = [
        number(Severity::Error, "error"),
        number(Severity::Warning, "warning"),
    ];
    counts.into_iter().flatten().collect::<Vec<_>>().join(", ")
}

/// `1 sink`, `2 sinks`, and nothing for none.
pub(super) fn plural(count: usize, word: &str) -> Option<String> {
    match count {
        0 => None,
        1 => Some(format!("1 {word}")),
        many => Some(format!("{many} {word}s")),
    }
}
