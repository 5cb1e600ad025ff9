//! What is wrong, before it is known where in which file.

use std::ops::Range;

use serde::Serialize;

/// One thing that is wrong with a configuration, and what to write instead.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// A stable code in kebab-case; [`codes`](super::codes) lists those of core.
    pub code: &'static str,
    /// Whether evows refuses to start.
    pub severity: Severity,
    /// What is wrong, naming the value.
    pub message: String,
    /// Where.
    pub place: Place,
    /// What to write instead.
    pub help: Option<String>,
    /// What would have been accepted, where that is a list of words.
    pub expected: Vec<String>,
}

/// How bad a problem is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Nothing starts.
    Error,
    /// It starts, and probably does not do what was meant.
    Warning,
}

/// Where a problem is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// The whole table that was checked.
    Table,
    /// The value at this path of keys below that table.
    Key(Vec<String>),
    /// A part of the string there.
    Part(Box<(Vec<String>, Range<usize>)>),
    /// These bytes of the file.
    Span(Range<usize>),
}

/// The problems as one line of text, where no file is at hand to show them in.
pub fn list(problems: &[Problem]) -> String {
    let messages: Vec<_> = problems
        .iter()
        .map(|problem| problem.message.as_str())
        .collect();
    messages.join("; ")
}

// === impl Place ===

impl Place {
    /// The keys below the table, and the part of the string there.
    pub(super) fn below(&self) -> (&[String], Option<&Range<usize>>) {
        match self {
            Self::Key(keys) => (keys, None),
            Self::Part(part) => (&part.0, Some(&part.1)),
            Self::Table | Self::Span(_) => (&[], None),
        }
    }
}

// === impl Problem ===

impl Problem {
    /// A problem of the whole table.
    pub fn new(code: &'static str, message: impl Into<String>) -> Self {
        Self {
            code,
            severity: Severity::Error,
            message: message.into(),
            place: Place::Table,
            help: None,
            expected: Vec::new(),
        }
    }

    /// Makes it a warning: evows starts all the same.
    #[must_use]
    pub fn warning(mut self) -> Self {
        self.severity = Severity::Warning;
        self
    }

    /// Says what to write instead.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// Lists the words that would have been accepted.
    #[must_use]
    pub fn expected(mut self, words: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.expected = words.into_iter().map(Into::into).collect();
        self
    }

    /// Places the problem at a key, dots separating nested ones.
    #[must_use]
    pub fn at_key(mut self, key: &str) -> Self {
        self.place = Place::Key(key.split('.').map(str::to_owned).collect());
        self
    }

    /// Narrows it down to these bytes of the string at its key, as the plugin was given that.
    #[must_use]
    pub fn within(mut self, part: Range<usize>) -> Self {
        if let Place::Key(keys) = self.place {
            self.place = Place::Part(Box::new((keys, part)));
        }
        self
    }

    /// Places the problem at bytes of the file.
    #[must_use]
    pub fn at_span(mut self, span: Range<usize>) -> Self {
        self.place = Place::Span(span);
        self
    }

    /// Moves the problem one table down, below `key`.
    #[must_use]
    pub fn under(mut self, key: &str) -> Self {
        self.place = match self.place {
            Place::Key(mut path) => {
                path.insert(0, key.to_owned());
                Place::Key(path)
            }
            Place::Part(mut part) => {
                part.0.insert(0, key.to_owned());
                Place::Part(part)
            }
            Place::Table | Place::Span(_) => Place::Key(vec![key.to_owned()]),
        };
        self
    }
}
