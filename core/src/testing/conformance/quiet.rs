//! `check` and `build` do no I/O, as far as that can be seen from within the process.

use std::{fs, thread};

use super::{Built, Plugins};
use crate::config::Settings;
use crate::registry::Registration;
use crate::testing::context;

/// How often a plugin is built, all of them kept: what each build reads, opens or spawns shows. What is done once does not: the
/// allocator and whoever asks how many processors there are read files of the system, too.
const BUILDS: usize = 100;

/// What a thread has read and written, and what its process has open. `None` where the system does not tell.
#[derive(Debug, Clone, Copy)]
struct Traces {
    /// Reads and writes of this thread alone.
    calls: Option<u64>,
    files: Option<usize>,
    threads: Option<usize>,
}

/// On a thread without a runtime, where spawning and most of tokio's I/O panic, a hundred checks and builds neither read nor
/// write, and leave neither open files nor threads.
pub fn no_io(plugins: &Plugins) {
    plugins.each(|plugin| {
        let thread = thread::Builder::new().spawn(move || quiet(plugin));
        let thread = thread.map_err(|error| error.to_string())?;
        match thread.join() {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    });
}

fn quiet(plugin: &Registration) -> Result<(), String> {
    // Looking leaves traces, too: as many each time.
    let first = Traces::now();
    let before = Traces::now();
    let mut kept = Vec::with_capacity(BUILDS);
    for _ in 0..BUILDS {
        plugin.check(&Settings::from_text(plugin.example));
        let cx = context(plugin.name);
        match Built::of(plugin, &cx) {
            Ok(built) => kept.push((built, cx)),
            Err(error) => return Err(format!("it cannot be built from its example: {error}")),
        }
    }
    let after = Traces::now();
    drop(kept);
    let own = Traces::difference(first.calls, before.calls);
    let calls = Traces::difference(before.calls, after.calls).saturating_sub(own);
    if calls >= BUILDS as u64 {
        return Err(format!(
            "`check` or `build` reads or writes: {calls} calls in {BUILDS} builds"
        ));
    }
    let opened = after.files.unwrap_or_default() >= before.files.unwrap_or_default() + BUILDS;
    let spawned = after.threads.unwrap_or_default() >= before.threads.unwrap_or_default() + BUILDS;
    let wrote = super::apart::is_apart() && entries(".").unwrap_or_default() > 0;
    match (opened, spawned, wrote) {
        (false, false, false) => Ok(()),
        (true, ..) => Err("`build` opens a file or socket".to_owned()),
        (_, true, _) => Err("`build` starts a thread".to_owned()),
        (.., true) => Err("`check` or `build` makes a file".to_owned()),
    }
}

// === impl Traces ===

impl Traces {
    fn now() -> Self {
        Self {
            files: entries("/proc/self/fd"),
            threads: entries("/proc/self/task"),
            calls: fs::read_to_string("/proc/thread-self/io")
                .ok()
                .map(|text| calls(&text)),
        }
    }

    fn difference(from: Option<u64>, to: Option<u64>) -> u64 {
        to.unwrap_or_default()
            .saturating_sub(from.unwrap_or_default())
    }
}

fn entries(path: &str) -> Option<usize> {
    fs::read_dir(path).ok().map(Iterator::count)
}

/// The sum of `syscr` and `syscw`.
fn calls(text: &str) -> u64 {
    let counts = text.lines().filter_map(|line| line.split_once(": "));
    let counts = counts.filter(|(name, _)| ["syscr", "syscw"].contains(name));
    counts
        .filter_map(|(_, count)| count.parse::<u64>().ok())
        .sum()
}
