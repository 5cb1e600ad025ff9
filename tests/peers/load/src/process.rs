//! What the system says about a process.

use std::fs;
use std::io::{Error, Result};
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// A process whose memory and CPU time are read.
pub(crate) struct Watched {
    pid: u32,
}

// === impl Watched ===

impl Watched {
    pub(crate) fn new(pid: u32) -> Self {
        Self { pid }
    }

    pub(crate) fn myself() -> Self {
        Self::new(std::process::id())
    }

    /// Its resident memory in bytes.
    pub(crate) fn resident(&self) -> Result<u64> {
        let status = self.read("status")?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = line.and_then(|line| line.split_whitespace().next());
        let kib: Option<u64> = kib.and_then(|kib| kib.parse().ok());
        kib.map(|kib| kib * 1024).ok_or_else(|| self.unreadable())
    }

    /// The CPU time that it has used, in user and system mode.
    pub(crate) fn cpu(&self) -> Result<Duration> {
        let stat = self.read("stat")?;
        // The name, in parentheses, may hold anything; the fields are counted from behind it.
        let fields = stat.rsplit_once(") ").map(|(_, fields)| fields);
        let mut times = fields.ok_or_else(|| self.unreadable())?.split(' ').skip(11);
        let mut next = || times.next().and_then(|ticks| ticks.parse::<u64>().ok());
        let ticks = next().zip(next()).map(|(user, system)| user + system);
        let hertz = rustix::param::clock_ticks_per_second();
        ticks
            .map(|ticks| Duration::from_millis(ticks * 1_000 / hertz))
            .ok_or_else(|| self.unreadable())
    }

    fn read(&self, file: &str) -> Result<String> {
        fs::read_to_string(format!("/proc/{}/{file}", self.pid))
    }

    fn unreadable(&self) -> Error {
        Error::other(format!("/proc/{} has another form than expected", self.pid))
    }
}

/// Raises the soft limit of open files to the hard one.
pub(crate) fn raise_file_limit() -> Result<()> {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: maximum,
        maximum,
    };
    Ok(setrlimit(Resource::Nofile, raised)?)
}
