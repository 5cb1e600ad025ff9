//! The `evows` command.

use std::process::ExitCode;

// Plugins register themselves only in binaries that use their crate.
use evows_plugins as _;

fn main() -> ExitCode {
    evows::main()
}
