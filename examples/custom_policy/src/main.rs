//! A binary of evows with one policy of its own: see `by_phone.rs`.

mod by_phone;

use std::process::ExitCode;

fn main() -> ExitCode {
    evows::main()
}

evows::testing::conformance!();
