//! The `evows` command: one file per command.

mod command;
mod dead_letters;
mod dry;
mod exit;
mod explain;
mod feed;
mod list;
mod log;
mod new;
mod output;
mod run;
mod schema;
mod send;
mod test;
mod trace;
mod validate;

use std::io;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use clap::{CommandFactory as _, FromArgMatches as _, Parser, Subcommand};

use crate::http::Host;
use crate::plugin::Environment;
use crate::registry;

pub use self::command::{CommandPlugin, CommandRegistration};
pub use self::exit::Exit;
pub use self::output::{Format, complain, print};
pub use self::schema::schema;

use self::command::{Asked, CommandLine};

/// A plugin-based event router that delivers Evolution API events to Socket.IO clients.
#[derive(Debug, Parser)]
#[command(name = "evows", version, arg_required_else_help = false)]
#[command(
    after_help = "Exit codes: 0 done, 1 failed, 2 usage, 70 defect of evows, 75 stopped with work left, 78 configuration."
)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    /// The configuration file.
    #[arg(
        long,
        short,
        global = true,
        value_name = "FILE",
        default_value = "evows.toml"
    )]
    config: PathBuf,
    #[command(flatten)]
    log: log::Options,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the pipeline. What happens without a command, too.
    ///
    /// At SIGHUP the configuration is read again, and filters whose settings changed are exchanged, while everything else goes on.
    /// Other changes need a restart; they, and errors, change nothing. When the terminal that it was started in is closed, it stops.
    Run(dry::Options),
    /// Check a configuration and start nothing.
    Validate(validate::Options),
    /// Run the `[[tests]]` of a configuration, in virtual time: nothing is opened, written or sent.
    Test(test::Options),
    /// Show the way of an event through the pipeline: every step, and what it changed. Nothing is opened, written or sent.
    /// What a filter makes of an event is told apart by numbers, `#1` being the event itself. The exit code is 1 when an event failed.
    Trace(trace::Options),
    /// List the plugins of this binary.
    List(list::Options),
    /// Show the keys of a plugin, with types, defaults and an example.
    Explain(explain::Options),
    /// Print the JSON Schema of the configuration file.
    Schema,
    /// Make a crate with a plugin of your own.
    New(new::Options),
    /// Send one event to a running evows.
    Send(send::Options),
    /// Look at events that could not be delivered, and have them sent again.
    DeadLetters(dead_letters::Options),
}

/// Runs the command line of this process, with `host` as its HTTP server.
pub fn main(host: Arc<dyn Host>) -> ExitCode {
    if let Err(duplicate) = registry::check_unique() {
        output::complain(&duplicate);
        return Exit::Internal.into();
    }
    let line = match CommandLine::new(Cli::command()) {
        Ok(line) => line,
        Err(duplicate) => {
            output::complain(&duplicate);
            return Exit::Internal.into();
        }
    };
    let result = line
        .read(std::env::args_os())
        .and_then(|asked| match asked {
            Asked::Own(matches) => Ok(Cli::from_arg_matches(&matches)?.run(host)),
            Asked::Added(registration, matches) => registration.run(&matches),
        });
    let result = match result {
        Ok(result) => result,
        Err(error) => {
            // Help and version are errors to clap, too; nobody may be there to read either.
            error.print().ok();
            return match error.exit_code() {
                0 => Exit::Clean.into(),
                _ => Exit::Usage.into(),
            };
        }
    };
    match result {
        Ok(exit) => exit.into(),
        // Whoever read the output has seen enough.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Exit::Clean.into(),
        Err(error) => {
            output::complain(&format_args!("cannot write the output: {error}"));
            Exit::Failed.into()
        }
    }
}

// === impl Cli ===

impl Cli {
    fn run(self, host: Arc<dyn Host>) -> io::Result<Exit> {
        let environment = Environment::of_process();
        let run = || Command::Run(dry::Options::default());
        match self.command.unwrap_or_else(run) {
            Command::Run(options) => match &options.dry {
                Some(file) => dry::run(&options, file, &self.config, &environment),
                None => Ok(dry::complain_without_file(&options)
                    .unwrap_or_else(|| run::run(&self.config, &self.log, host, environment))),
            },
            Command::Trace(options) => trace::run(&options, &self.config, &environment),
            Command::Validate(options) => validate::run(&options, &self.config, &environment),
            Command::Test(options) => test::run(&options, &self.config, &environment),
            Command::List(options) => list::run(&options),
            Command::Explain(options) => explain::run(&options),
            Command::Schema => schema::run(),
            Command::New(options) => new::run(&options),
            Command::Send(options) => send::run(&options, &self.config, &environment),
            Command::DeadLetters(options) => {
                dead_letters::run(&options, &self.config, &environment)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn the_file_can_be_named_with_or_without_a_command() {
        for line in [
            &["evows", "-c", "a.toml"][..],
            &["evows", "run", "-c", "a.toml"],
        ] {
            let cli = Cli::try_parse_from(line).unwrap();
            assert_eq!(cli.config, PathBuf::from("a.toml"));
        }
        assert!(Cli::try_parse_from(["evows", "rnu"]).is_err());
    }
}
