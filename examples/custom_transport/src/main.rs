//! A binary of evows with one transport of its own: see `tcp_feed.rs`.

mod tcp_feed;

use std::process::ExitCode;

fn main() -> ExitCode {
    evows::main()
}

evows::testing::conformance!();
