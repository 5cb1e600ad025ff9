//! The exit codes of `evows`, all of them.

use std::process::ExitCode;

/// How the process ends.
///
/// | code | when |
/// |---|---|
/// | 0 | everything was done |
/// | 1 | something failed: the port is taken, nothing listens at the URL, a file cannot be written, a run to the end failed events (`run`, `run --dry`, `trace`), a test did not pass |
/// | 2 | the command line is wrong |
/// | 70 | evows itself is wrong: two plugins share a name, a panic |
/// | 75 | the process stopped with work left, at its deadline or because a filter could not start: events may be missing downstream |
/// | 78 | the configuration is wrong; nothing was started |
///
/// 70, 75 and 78 are `EX_SOFTWARE`, `EX_TEMPFAIL` and `EX_CONFIG` of sysexits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// Everything was done.
    Clean = 0,
    /// Something failed.
    Failed = 1,
    /// The command line is wrong.
    Usage = 2,
    /// evows itself is wrong.
    Internal = 70,
    /// The shutdown deadline passed with work left.
    Deadline = 75,
    /// The configuration is wrong; nothing was started.
    Config = 78,
}

// === impl Exit ===

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}
