//! Commands that other crates add to the command line, as plugins are added.

use std::ffi::OsString;
use std::io;

use clap::{ArgMatches, Command, Parser};

use super::Exit;

/// A command that a crate registers with [`register_command!`](crate::register_command).
///
/// Its name and help are those of the `clap` parser. [`run`](Self::run) is called once, on the main thread, outside
/// any runtime and without a log. An error means that the output could not be written; what else goes
/// wrong the command says itself, with [`complain`](super::complain), and returns its exit code.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be registered as a command",
    label = "implement `evows::cli::CommandPlugin` for it, beside `clap::Parser`"
)]
pub trait CommandPlugin: Parser {
    /// Does what the command is for.
    fn run(self) -> io::Result<Exit>;
}

/// One registered command, its type erased. Made by [`register_command!`](crate::register_command).
pub struct CommandRegistration {
    command: fn() -> Command,
    run: fn(&ArgMatches) -> Result<io::Result<Exit>, clap::Error>,
}

inventory::collect!(CommandRegistration);

/// The command line: core's own commands and those that other crates registered.
pub(super) struct CommandLine {
    command: Command,
    added: Vec<(String, &'static CommandRegistration)>,
}

/// Two commands share a name.
#[derive(Debug, thiserror::Error)]
#[error("two commands are called `{0}`; rename one of them")]
pub(super) struct DuplicateCommand(String);

/// What a command line asks for.
pub(super) enum Asked {
    /// One of core's commands, to be read from these.
    Own(ArgMatches),
    /// Another crate's command, which this runs.
    Added(&'static CommandRegistration, ArgMatches),
}

// === impl CommandRegistration ===

impl CommandRegistration {
    /// Registers a command. Use [`register_command!`](crate::register_command).
    pub const fn of<C: CommandPlugin>() -> Self {
        Self {
            command: C::command,
            run: |matches| Ok(C::from_arg_matches(matches)?.run()),
        }
    }

    /// Runs it; the outer error says what is wrong with its arguments.
    pub(super) fn run(&self, matches: &ArgMatches) -> Result<io::Result<Exit>, clap::Error> {
        (self.run)(matches)
    }
}

// === impl CommandLine ===

impl CommandLine {
    /// Adds every registered command to core's own.
    pub(super) fn new(own: Command) -> Result<Self, DuplicateCommand> {
        Self::with(own, inventory::iter::<CommandRegistration>())
    }

    fn with(
        mut command: Command,
        registered: impl IntoIterator<Item = &'static CommandRegistration>,
    ) -> Result<Self, DuplicateCommand> {
        let mut added: Vec<_> = registered
            .into_iter()
            .map(|registration| ((registration.command)().get_name().to_owned(), registration))
            .collect();
        // The linker decides the order of `inventory`, so it means nothing.
        added.sort_by(|(one, _), (other, _)| one.cmp(other));
        for (name, registration) in &added {
            if command.find_subcommand(name).is_some() {
                return Err(DuplicateCommand(name.clone()));
            }
            command = command.subcommand((registration.command)());
        }
        Ok(Self { command, added })
    }

    /// Reads the arguments of a process, its name included.
    pub(super) fn read(
        self,
        arguments: impl IntoIterator<Item = OsString>,
    ) -> Result<Asked, clap::Error> {
        let mut matches = self.command.try_get_matches_from(arguments)?;
        let name = matches.subcommand_name();
        let added = self.added.iter();
        let added = added.filter(|(added, _)| Some(added.as_str()) == name);
        let registration = added.map(|(_, registration)| *registration).next();
        if let Some(registration) = registration
            && let Some((_, matches)) = matches.remove_subcommand()
        {
            return Ok(Asked::Added(registration, matches));
        }
        Ok(Asked::Own(matches))
    }
}

/// Registers a command: `register_command!(Bench);`, where `Bench` implements [`CommandPlugin`](crate::cli::CommandPlugin).
#[macro_export]
macro_rules! register_command {
    ($command:ty) => {
        $crate::inventory::submit! {
            $crate::cli::CommandRegistration::of::<$command>()
        }
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Adds up.
    #[derive(Parser)]
    #[command(name = "add")]
    struct Add {
        numbers: Vec<u8>,
    }

    impl CommandPlugin for Add {
        fn run(self) -> io::Result<Exit> {
            Ok(if self.numbers.iter().sum::<u8>() == 3 {
                Exit::Clean
            } else {
                Exit::Failed
            })
        }
    }

    static ADD: CommandRegistration = CommandRegistration::of::<Add>();

    fn read(line: &str) -> Result<Asked, clap::Error> {
        let own = Command::new("evows").subcommand(Command::new("run"));
        let line_of = CommandLine::with(own, [&ADD]).unwrap();
        line_of.read(line.split(' ').map(OsString::from))
    }

    #[test]
    fn an_added_command_runs_with_its_arguments() {
        let Asked::Added(registration, matches) = read("evows add 1 2").unwrap() else {
            panic!("it is not one of core's");
        };
        assert_eq!(registration.run(&matches).unwrap().unwrap(), Exit::Clean);
        assert!(read("evows add x").is_err());
    }

    #[test]
    fn other_commands_are_left_to_core() {
        assert!(matches!(read("evows run"), Ok(Asked::Own(_))));
        assert!(matches!(read("evows"), Ok(Asked::Own(_))));
        assert!(read("evows ad").is_err());
    }

    #[test]
    fn a_name_is_taken_once() {
        let twice = CommandLine::with(Command::new("evows"), [&ADD, &ADD]);
        assert!(twice.err().unwrap().to_string().contains("`add`"));
        let own = Command::new("evows").subcommand(Command::new("add"));
        assert!(CommandLine::with(own, [&ADD]).is_err());
    }
}
