//! Clocks that jump: those of senders, whose times stand in events, and the system's own.
//!
//! The system's own is faked for one process by [libfaketime](https://github.com/wolfcw/libfaketime), where that is installed;
//! `EVOWS_FAKETIME` says where it is if it is in no usual place.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::Ordering;

use super::super::harness::Setup;
use super::{Endpoint, Poster, check, check_deliveries, setup};

/// Where Debian and others have it.
const USUAL: [&str; 3] = [
    "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1",
    "/usr/lib/aarch64-linux-gnu/faketime/libfaketimeMT.so.1",
    "/usr/lib/faketime/libfaketimeMT.so.1",
];

/// A clock of one process, which is set by a file.
struct Clock {
    folder: tempfile::TempDir,
    library: PathBuf,
}

// === impl Clock ===

impl Clock {
    fn find() -> Option<Self> {
        let given = std::env::var_os("EVOWS_FAKETIME").map(PathBuf::from);
        let mut usual = USUAL.iter().map(PathBuf::from);
        let library = given.or_else(|| usual.find(|path| path.exists()));
        if library.is_none() {
            println!("not run: there is no libfaketime");
        }
        let clock = Self {
            folder: tempfile::tempdir().unwrap(),
            library: library?,
        };
        clock.set("+3y");
        assert!(clock.year() > this_year(), "it does what it is there for");
        clock.set("+0");
        Some(clock)
    }

    /// The year that a process finds itself in.
    fn year(&self) -> u64 {
        let mut date = Command::new("date");
        year(date.envs(self.variables()))
    }

    fn file(&self) -> PathBuf {
        self.folder.path().join("time")
    }

    /// Sets it, by an offset to the real one such as `-20m`.
    fn set(&self, offset: &str) {
        let next = self.folder.path().join("next");
        std::fs::write(&next, offset).unwrap();
        std::fs::rename(next, self.file()).unwrap();
    }

    /// What a process needs to go by it.
    fn variables(&self) -> [(&'static str, String); 4] {
        let text = |path: &Path| path.to_str().unwrap().to_owned();
        [
            ("LD_PRELOAD", text(&self.library)),
            ("FAKETIME_TIMESTAMP_FILE", text(&self.file())),
            ("FAKETIME_NO_CACHE", "1".to_owned()),
            // Timers go by the monotonic clock, which nobody sets.
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned()),
        ]
    }

    fn rule(&self, setup: Setup) -> Setup {
        let variables = self.variables().into_iter();
        variables.fold(setup, |setup, (name, value)| setup.env(name, &value))
    }
}

fn this_year() -> u64 {
    year(&mut Command::new("date"))
}

fn year(date: &mut Command) -> u64 {
    let output = date.arg("+%Y").output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    text.trim().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_events_say_of_their_time_changes_nothing() {
    let endpoint = Endpoint::default();
    let mut evows = setup(&endpoint.serve().await, "").start().await;
    // The poster's times jump back and forth.
    let poster = Poster::start(evows.address(), 3);
    poster.go_on(100).await;
    endpoint.0.down.store(true, Ordering::Relaxed);
    poster.go_on(100).await;
    evows = evows.crash().await;
    endpoint.0.down.store(false, Ordering::Relaxed);
    poster.go_on(100).await;
    let answered = poster.stop().await;
    check(&evows, &endpoint, &answered).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clock_that_is_set_back_and_forth_loses_nothing() {
    let Some(clock) = Clock::find() else {
        return;
    };
    let endpoint = Endpoint::default();
    let setup = clock.rule(setup(&endpoint.serve().await, ""));
    let mut evows = setup.start().await;
    let poster = Poster::start(evows.address(), 3);
    // All less than what the history keeps.
    for offset in ["+20m", "-20m", "+10m", "-5m", "+0"] {
        poster.go_on(50).await;
        clock.set(offset);
        poster.go_on(50).await;
        evows = evows.crash().await;
    }
    poster.go_on(50).await;
    let answered = poster.stop().await;
    check(&evows, &endpoint, &answered).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clock_that_leaps_by_years_takes_nothing_out_of_a_buffer() {
    let Some(clock) = Clock::find() else {
        return;
    };
    let endpoint = Endpoint::default();
    let setup = clock.rule(setup(&endpoint.serve().await, ""));
    let mut evows = setup.start().await;
    let poster = Poster::start(evows.address(), 3);
    endpoint.0.down.store(true, Ordering::Relaxed);
    for offset in ["+3y", "-3y", "+0"] {
        poster.go_on(50).await;
        clock.set(offset);
        poster.go_on(50).await;
        evows = evows.restart().await;
    }
    endpoint.0.down.store(false, Ordering::Relaxed);
    poster.go_on(50).await;
    let answered = poster.stop().await;
    check_deliveries(&endpoint, &answered).await;
    drop(evows);
}
