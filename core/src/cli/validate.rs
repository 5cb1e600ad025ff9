//! `evows validate`.

use std::io;
use std::path::{Path, PathBuf};

use super::Exit;
use super::output::{self, Format};
use crate::config::{Case, Cases, Config, Diagnostic, Problem, codes, place_keys};
use crate::plugin::Environment;
use crate::runtime::{self, StartError};

#[derive(Debug, clap::Args)]
pub(super) struct Options {
    /// The file to check; without it, the one of `--config`.
    file: Option<PathBuf>,
    /// How to report: `text` on stderr, or `json` on stdout, one object per line.
    #[arg(long, default_value = "text")]
    format: Format,
    /// Treat warnings as errors.
    #[arg(long)]
    deny_warnings: bool,
}

/// A file that was read, and what came of it.
pub(super) struct Checked {
    /// `None` when there is an error.
    pub(super) config: Option<Config>,
    pub(super) diagnostics: Vec<Diagnostic>,
    pub(super) text: String,
}

/// Reads and checks a file.
pub(super) fn load(path: &Path, environment: &Environment) -> Checked {
    let text = match Config::read_text(path) {
        Ok(text) => text,
        Err(diagnostic) => {
            return Checked {
                config: None,
                diagnostics: vec![*diagnostic],
                text: String::new(),
            };
        }
    };
    let (config, diagnostics) = match Config::load(&text, &path.display().to_string(), environment)
    {
        Ok((config, warnings)) => (Some(config), warnings),
        Err(diagnostics) => (None, diagnostics),
    };
    Checked {
        config,
        diagnostics,
        text,
    }
}

// === impl Checked ===

impl Checked {
    /// Reads the file's tests and adds what is wrong with them. Then there is no configuration.
    pub(super) fn add_cases(&mut self, path: &Path, environment: &Environment) -> Vec<Case> {
        let found = Cases::of_config(&self.text, path, self.config.as_ref(), environment);
        if !found.diagnostics.is_empty() {
            self.config = None;
            self.add(found.diagnostics);
        }
        found.cases
    }

    /// Builds everything and adds what is wrong then. Nothing is started.
    pub(super) fn build(&mut self, path: &Path, environment: &Environment) -> io::Result<()> {
        if let Some(config) = &self.config {
            match build(config.clone(), path, environment)? {
                Ok(warnings) => self.add(place_keys(warnings, path, &self.text)),
                Err(diagnostic) => {
                    self.diagnostics.push(diagnostic);
                    self.config = None;
                }
            }
        }
        Ok(())
    }

    /// Adds diagnostics in the order of the file.
    fn add(&mut self, diagnostics: Vec<Diagnostic>) {
        self.diagnostics.extend(diagnostics);
        let place = |one: &Diagnostic| one.span.as_ref().map(|span| span.start);
        self.diagnostics.sort_by_key(place);
    }
}

/// What only shows when everything is built: warnings, or why it cannot be. Nothing is started.
fn build(
    config: Config,
    file: &Path,
    environment: &Environment,
) -> io::Result<Result<Vec<Problem>, Diagnostic>> {
    // Parts of a component may want to know their runtime, which does nothing here.
    let threads = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let entered = threads.enter();
    let checked = runtime::check(config, environment.clone());
    drop(entered);
    threads.shutdown_background();
    Ok(checked.map_err(|error| {
        let code = match &error {
            StartError::Routes(_) => codes::PATH_CONFLICT,
            _ => codes::BUILD,
        };
        let problem = Problem::new(code, error.to_string());
        Diagnostic::of_file(problem, &file.display().to_string())
    }))
}

/// What a configuration consists of: `1 source, 2 sinks`.
fn parts(config: &Config, cases: &[Case]) -> String {
    let pipeline = &config.pipeline;
    let parts = [
        output::plural(pipeline.sources.len(), "source"),
        output::plural(pipeline.filters.len(), "filter"),
        output::plural(pipeline.sinks.len(), "sink"),
        output::plural(config.transports.len(), "transport"),
        output::plural(cases.len(), "test"),
    ];
    parts.into_iter().flatten().collect::<Vec<_>>().join(", ")
}

/// Checks a configuration and starts nothing.
pub(super) fn run(
    options: &Options,
    default: &Path,
    environment: &Environment,
) -> io::Result<Exit> {
    let path = options.file.as_deref().unwrap_or(default);
    let mut checked = load(path, environment);
    // Built before the tests are looked at: whether they are right is another question.
    checked.build(path, environment)?;
    let cases = checked.add_cases(path, environment);
    let mut sound = checked.config.as_ref().map(|config| parts(config, &cases));
    if options.deny_warnings && !checked.diagnostics.is_empty() {
        sound = None;
    }
    match options.format {
        Format::Json => {
            let lines = checked.diagnostics.iter().map(|one| one.to_json() + "\n");
            output::print(&lines.collect::<String>())?;
        }
        Format::Text => {
            output::show(&checked.diagnostics, &checked.text);
            if let Some(parts) = &sound {
                output::print(&format!("{}: sound ({parts})\n", path.display()))?;
            }
        }
    }
    Ok(match sound {
        Some(_) => Exit::Clean,
        None => Exit::Config,
    })
}
