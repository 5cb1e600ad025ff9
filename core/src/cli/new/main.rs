//! A binary of evows with a plugin of its own: see `my_plugin.rs`.

mod my_plugin;

use std::process::ExitCode;

fn main() -> ExitCode {
    evows::main()
}

// The checks that every plugin must pass, as tests.
evows::testing::conformance!();
