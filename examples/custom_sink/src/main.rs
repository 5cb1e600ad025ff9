//! A binary of evows with one sink of its own: see `tcp_lines.rs`.

mod tcp_lines;

use std::process::ExitCode;

fn main() -> ExitCode {
    evows::main()
}

evows::testing::conformance!();
