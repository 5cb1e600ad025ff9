//! How the process ends.

use std::process::ExitCode;

/// The exit codes, after `sysexits.h`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// Everything that came in was handled.
    Clean = 0,
    /// Something outside went wrong: a port in use, a folder that cannot be written.
    Failed = 1,
    /// A defect in evows or in a plugin.
    Internal = 70,
    /// The shutdown deadline passed with work left.
    Deadline = 75,
    /// The configuration is wrong.
    Config = 78,
}

// === impl Exit ===

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}
