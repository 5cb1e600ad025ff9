//! Problems with their place in a file, as people and as programs read them.

use std::ops::Range;
use std::sync::Arc;

use annotate_snippets::renderer::DecorStyle;
use annotate_snippets::{AnnotationKind, Group, Level, Origin, Renderer, Snippet};
use serde::Serialize;

use super::mask::Masked;
use super::{Problem, Severity};

/// One problem of a configuration file. As JSON its field names are stable.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Diagnostic {
    /// A stable code in kebab-case.
    pub code: &'static str,
    /// Whether evows refuses to start.
    pub severity: Severity,
    /// What is wrong, naming the value.
    pub message: String,
    /// The file, as it was named to evows.
    pub file: Arc<str>,
    /// The line it begins in, from 1. `None` where it is about the whole file.
    pub line: Option<usize>,
    /// The character it begins at, from 1.
    pub column: Option<usize>,
    /// The bytes that it is about.
    pub span: Option<Range<usize>>,
    /// What to write instead.
    pub help: Option<String>,
    /// What would have been accepted, where that is a list of words.
    pub expected: Vec<String>,
}

/// Shows diagnostics as rustc does: code, place, excerpt of `text` and help. Secrets in excerpts are masked.
pub fn render(diagnostics: &[Diagnostic], text: &str, styled: bool) -> String {
    let renderer = if styled {
        Renderer::styled()
    } else {
        Renderer::plain()
    };
    let renderer = renderer.decor_style(DecorStyle::Ascii);
    let (mut shown, masked) = (String::new(), Masked::new(text));
    let excerpts = masked.text();
    for diagnostic in diagnostics {
        shown.push_str(&renderer.render(&[diagnostic.group(&masked, &excerpts)]));
        shown.push_str("\n\n");
    }
    shown
}

// === impl Diagnostic ===

impl Diagnostic {
    /// Places a problem in `text`.
    pub(super) fn new(
        problem: Problem,
        span: Option<Range<usize>>,
        file: &Arc<str>,
        text: &str,
    ) -> Self {
        let start = span.as_ref().map(|span| position(text, span.start));
        let masked = |message: String| match &span {
            Some(span) => Masked::new(text).message(&message, span).into_owned(),
            None => message,
        };
        Self {
            code: problem.code,
            severity: problem.severity,
            message: masked(problem.message),
            file: Arc::clone(file),
            line: start.map(|(line, _)| line),
            column: start.map(|(_, column)| column),
            help: problem.help.map(masked),
            span,
            expected: problem.expected,
        }
    }

    /// A problem of a file as a whole.
    pub(crate) fn of_file(problem: Problem, file: &str) -> Self {
        Self::new(problem, None, &Arc::from(file), "")
    }

    /// The diagnostic as one line of JSON.
    pub fn to_json(&self) -> String {
        // Strings and numbers alone can always be written.
        serde_json::to_string(self).unwrap_or_default()
    }

    fn group<'a>(&'a self, masked: &Masked<'_>, excerpts: &'a str) -> Group<'a> {
        let level = match self.severity {
            Severity::Error => Level::ERROR,
            Severity::Warning => Level::WARNING,
        };
        let title = level.primary_title(&self.message).id(self.code);
        let mut group = match &self.span {
            Some(span) => {
                let span = masked.span(span);
                let shown = position(excerpts, span.start);
                let snippet = Snippet::source(excerpts);
                let snippet = snippet.annotation(AnnotationKind::Primary.span(span));
                match self.line.zip(self.column) {
                    // What is masked in front has moved it: the place that is told is the one in the file.
                    Some((line, column)) if (line, column) != shown => {
                        let origin = Origin::path(&*self.file).line(line).char_column(column);
                        title.element(origin).element(snippet)
                    }
                    _ => title.element(snippet.path(&*self.file)),
                }
            }
            None => title.element(Origin::path(&*self.file)),
        };
        if let Some(help) = &self.help {
            group = group.element(Level::HELP.message(help));
        }
        group
    }
}

/// Line and column of a byte, both from 1, columns counted in characters.
fn position(text: &str, at: usize) -> (usize, usize) {
    let before = text.get(..at).unwrap_or(text);
    let line = before.matches('\n').count() + 1;
    let start = before.rfind('\n').map_or(0, |newline| newline + 1);
    let column = before.get(start..).unwrap_or_default().chars().count() + 1;
    (line, column)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "[a]\nkéy = 1 # x\nend";

    fn diagnostic(span: Option<Range<usize>>) -> Diagnostic {
        let problem = Problem::new("unknown-key", "there is no key").help("did you mean `b`?");
        Diagnostic::new(problem, span, &"f.toml".into(), TEXT)
    }

    #[test]
    fn counts_characters_and_lines_from_one() {
        assert_eq!(position(TEXT, 0), (1, 1));
        let one = TEXT.find('1').unwrap();
        assert_eq!(position(TEXT, one), (2, 7));
        assert_eq!(position(TEXT, TEXT.len()), (3, 4));
        assert_eq!(position(TEXT, 9999), (3, 4));
    }

    #[test]
    fn json_names_are_stable() {
        let one = TEXT.find('1').unwrap();
        assert_eq!(
            diagnostic(Some(one..one + 1)).to_json(),
            format!(
                "{}{}{}",
                r#"{"code":"unknown-key","severity":"error","message":"there is no key","#,
                r#""file":"f.toml","line":2,"column":7,"span":{"start":11,"end":12},"#,
                r#""help":"did you mean `b`?","expected":[]}"#
            )
        );
        assert!(diagnostic(None).to_json().contains(r#""line":null"#));
    }

    #[test]
    fn shows_the_line_with_a_caret() {
        let one = TEXT.find('1').unwrap();
        let shown = render(&[diagnostic(Some(one..one + 1))], TEXT, false);
        assert!(shown.starts_with("error[unknown-key]: there is no key\n"));
        assert!(shown.contains("--> f.toml:2:7"), "{shown}");
        assert!(shown.contains("2 | kéy = 1 # x"), "{shown}");
        assert!(shown.contains("= help: did you mean `b`?"), "{shown}");
    }
}
