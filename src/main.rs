//! The `evows` binary.

use std::process::ExitCode;

fn main() -> ExitCode {
    evows::main()
}
