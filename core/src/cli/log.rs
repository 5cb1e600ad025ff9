//! Logging to stderr.

use std::io;

use tracing_subscriber::EnvFilter;

/// What is logged, and how.
#[derive(Debug, clap::Args)]
pub(super) struct Options {
    /// What is logged: a level, or a list such as `info,evows_core::hub=debug`.
    #[arg(
        long = "log",
        global = true,
        value_name = "FILTER",
        env = "RUST_LOG",
        default_value = "info",
        hide_env_values = true
    )]
    filter: String,
    /// How the log is written.
    #[arg(
        long = "log-format",
        global = true,
        value_name = "FORMAT",
        default_value = "text"
    )]
    format: super::output::Format,
}

// === impl Options ===

impl Options {
    /// Starts logging; the error says what is wrong with the filter.
    pub(super) fn start(&self) -> Result<(), String> {
        // What the engine of the journals says by the way is for those who ask for it.
        let filter = EnvFilter::try_new(format!("fjall=warn,lsm_tree=warn,{}", self.filter))
            .map_err(|error| format!("the log filter `{}` is wrong: {error}", self.filter))?;
        let log = tracing_subscriber::fmt()
            .with_env_filter(filter)
            // They would be written to stderr, too, and panic where that is gone, as with a terminal that was closed.
            .log_internal_errors(false)
            .with_writer(io::stderr);
        let started = match self.format {
            super::output::Format::Json => log.json().try_init(),
            super::output::Format::Text => {
                let terminal = io::IsTerminal::is_terminal(&io::stderr());
                log.with_ansi(terminal).try_init()
            }
        };
        // Somebody else may log in this process already, and then goes on doing so.
        started.ok();
        Ok(())
    }
}
