//! Doing something again whenever files change.

use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use crate::cli::output;

/// How often the files are looked at.
const LOOK: Duration = Duration::from_millis(300);

/// How a file looked: when it was changed last and its length; nothing while it is not there.
type Look = Option<(SystemTime, u64)>;

/// Does something, then again whenever one of the files changes that it gave back, until the process is interrupted.
///
/// The files are looked at every now and then: that works on every file system, and with editors that replace files.
pub(super) fn each_change(mut act: impl FnMut() -> io::Result<Vec<PathBuf>>) -> io::Result<()> {
    end_when_interrupted()?;
    let mut known: Vec<PathBuf> = Vec::new();
    loop {
        // Looked at first, so that a change meanwhile is not missed.
        let before: Vec<Look> = known.iter().map(|file| look(file)).collect();
        let mut files = act()?;
        // A file that is wrong does not say which others it reads; those that it did may be what is mended.
        let forgotten = known.iter().filter(|file| !files.contains(file));
        let forgotten: Vec<_> = forgotten.cloned().collect();
        files.extend(forgotten);
        let seen: Vec<(PathBuf, Look)> = files
            .iter()
            .map(|file| {
                let at = known.iter().position(|other| other == file);
                let earlier = at.and_then(|at| before.get(at).copied());
                (file.clone(), earlier.unwrap_or_else(|| look(file)))
            })
            .collect();
        known = files;
        output::print("\nwaiting for a change; Ctrl-C ends this\n\n")?;
        while seen.iter().all(|(file, before)| look(file) == *before) {
            std::thread::park_timeout(LOOK);
        }
    }
}

/// Ends the process when it is interrupted, whatever it does then: nothing is open that would have to be closed.
fn end_when_interrupted() -> io::Result<()> {
    let clock = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let wait = move || {
        if clock.block_on(tokio::signal::ctrl_c()).is_ok() {
            std::process::exit(0);
        }
    };
    std::thread::Builder::new()
        .name("ctrl-c".to_owned())
        .spawn(wait)?;
    Ok(())
}

fn look(file: &Path) -> Look {
    let about = std::fs::metadata(file).ok()?;
    Some((about.modified().ok()?, about.len()))
}
