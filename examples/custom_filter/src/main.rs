//! A binary of evows with one filter of its own: see `shout.rs`.

mod shout;

use std::process::ExitCode;

fn main() -> ExitCode {
    evows::main()
}

evows::testing::conformance!();
