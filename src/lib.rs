//! A plugin-based event router: the facade that binaries and plugins depend on.

use std::process::ExitCode;

pub use evows_core::*;
use evows_plugins as _;

/// Runs the command line.
pub fn main() -> ExitCode {
    // The command line comes with the configuration.
    ExitCode::FAILURE
}
