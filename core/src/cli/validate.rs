//! `evows validate`.

use std::io;
use std::path::{Path, PathBuf};

use super::Exit;
use super::output::{self, Format};
use crate::config::{Config, Diagnostic};
use crate::plugin::Environment;

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

/// Checks a configuration and starts nothing.
pub(super) fn run(
    options: &Options,
    default: &Path,
    environment: &Environment,
) -> io::Result<Exit> {
    let path = options.file.as_deref().unwrap_or(default);
    let checked = load(path, environment);
    let denied = options.deny_warnings && !checked.diagnostics.is_empty();
    match options.format {
        Format::Json => {
            let lines = checked.diagnostics.iter().map(|one| one.to_json() + "\n");
            output::print(&lines.collect::<String>())?;
        }
        Format::Text => {
            output::show(&checked.diagnostics, &checked.text);
            if let Some(config) = checked.config.as_ref().filter(|_| !denied) {
                let pipeline = &config.pipeline;
                let parts = [
                    output::plural(pipeline.sources.len(), "source"),
                    output::plural(pipeline.filters.len(), "filter"),
                    output::plural(pipeline.sinks.len(), "sink"),
                    output::plural(config.transports.len(), "transport"),
                ];
                let parts: Vec<_> = parts.into_iter().flatten().collect();
                output::print(&format!(
                    "{}: sound ({})\n",
                    path.display(),
                    parts.join(", ")
                ))?;
            }
        }
    }
    match checked.config {
        Some(_) if !denied => Ok(Exit::Clean),
        _ => Ok(Exit::Config),
    }
}
