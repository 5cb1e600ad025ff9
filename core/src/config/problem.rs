//! What is wrong, before it is known where in which file.

use std::ops::Range;

/// One thing that is wrong with a configuration, and what to write instead.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// A stable code in kebab-case, such as `unknown-key`.
    pub code: &'static str,
    /// What is wrong, naming the value.
    pub message: String,
    /// Where.
    pub place: Place,
    /// What to write instead.
    pub help: Option<String>,
}

/// Where a problem is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// The whole table that was checked.
    Table,
    /// The value at this path of keys below that table.
    Key(Vec<String>),
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

// === impl Problem ===

impl Problem {
    /// A problem of the whole table.
    pub fn new(code: &'static str, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            place: Place::Table,
            help: None,
        }
    }

    /// Says what to write instead.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// Places the problem at a key, dots separating nested ones.
    #[must_use]
    pub fn at_key(mut self, key: &str) -> Self {
        self.place = Place::Key(key.split('.').map(str::to_owned).collect());
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
            Place::Table | Place::Span(_) => Place::Key(vec![key.to_owned()]),
        };
        self
    }
}
