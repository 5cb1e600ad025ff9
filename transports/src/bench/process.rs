//! What the system says about a process.

use std::fs;
use std::io::{Error, Result};
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// The cores that the server and the generator have to themselves.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cores {
    server: usize,
    generator: usize,
}

/// A process whose memory and CPU time are read.
pub(super) struct Watched {
    pid: u32,
}

// === impl Cores ===

impl Cores {
    /// The first two cores that this process may use, or nothing when it has but one.
    pub(super) fn find() -> Option<Self> {
        let allowed = sched_getaffinity(None).ok()?;
        let mut cores = (0..CpuSet::MAX_CPU).filter(|core| allowed.is_set(*core));
        Some(Self {
            server: cores.next()?,
            generator: cores.next()?,
        })
    }

    /// Moves this thread to the generator's core.
    pub(super) fn be_generator(self) -> Result<()> {
        pin(self.generator)
    }

    /// Moves this thread to the server's core, where a process that it starts stays.
    pub(super) fn be_server(self) -> Result<()> {
        pin(self.server)
    }
}

fn pin(core: usize) -> Result<()> {
    let mut set = CpuSet::new();
    set.set(core);
    Ok(sched_setaffinity(None, &set)?)
}

// === impl Watched ===

impl Watched {
    pub(super) fn new(pid: u32) -> Self {
        Self { pid }
    }

    pub(super) fn myself() -> Self {
        Self::new(std::process::id())
    }

    /// Its resident memory in bytes.
    pub(super) fn resident(&self) -> Result<u64> {
        let status = self.read("status")?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = line.and_then(|line| line.split_whitespace().next());
        let kib: Option<u64> = kib.and_then(|kib| kib.parse().ok());
        kib.map(|kib| kib * 1024).ok_or_else(|| self.unreadable())
    }

    /// The CPU time that it has used, in user and system mode.
    pub(super) fn cpu(&self) -> Result<Duration> {
        let stat = self.stat()?;
        let mut times = stat.split(' ').skip(11);
        let mut next = || times.next().and_then(|ticks| ticks.parse::<u64>().ok());
        let ticks = next().zip(next()).map(|(user, system)| user + system);
        let hertz = rustix::param::clock_ticks_per_second();
        ticks
            .map(|ticks| Duration::from_millis(ticks * 1_000 / hertz))
            .ok_or_else(|| self.unreadable())
    }

    /// Whether it has ended and nobody has waited for it yet.
    pub(super) fn has_ended(&self) -> Result<bool> {
        Ok(self.stat()?.starts_with('Z'))
    }

    /// What its `stat` has from the state on.
    fn stat(&self) -> Result<String> {
        let stat = self.read("stat")?;
        // The name, in parentheses, may hold anything; the fields are counted from behind it.
        let fields = stat.rsplit_once(") ").map(|(_, fields)| fields.to_owned());
        fields.ok_or_else(|| self.unreadable())
    }

    fn read(&self, file: &str) -> Result<String> {
        fs::read_to_string(format!("/proc/{}/{file}", self.pid))
    }

    fn unreadable(&self) -> Error {
        Error::other(format!("/proc/{} has another form than expected", self.pid))
    }
}

/// Raises the soft limit of open files to the hard one.
pub(super) fn raise_file_limit() -> Result<()> {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: maximum,
        maximum,
    };
    Ok(setrlimit(Resource::Nofile, raised)?)
}
