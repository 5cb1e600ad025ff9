//! The folder of a journal: whose it is, its format, and how it was left.
//!
//! | file | what |
//! |---|---|
//! | `journal` | the number of the format, and the epoch |
//! | `lock` | locked by the process that has it open |
//! | `open` | there from opening to closing: the boot of the machine, and how durable records are |
//! | `reserve` | room that is given up when the disk is full, for what frees more |
//! | `db` | the database of blocks |

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::super::{Durability, JournalError};
use crate::files;

/// The only format so far. A later one must be able to read it, or say how to get there.
pub(super) const FORMAT: u64 = 1;

const RESERVE: usize = 2 << 20;
/// Tries to get the lock: the writer of a journal that was just dropped may still hold it.
const TRIES: u32 = 40;

/// A folder that no other process uses.
#[derive(Debug)]
pub(super) struct Folder {
    path: PathBuf,
    pub(super) epoch: u64,
    _lock: File,
}

/// How the journal was left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Left {
    /// It is new, or was closed.
    Clean,
    /// The process died; what the system was given is there.
    Killed,
    /// The machine may have died too: of what was reported as stored, this many records at most may be lost.
    Crashed {
        /// Records.
        lost: u64,
    },
}

// === impl Folder ===

impl Folder {
    pub(super) fn open(path: &Path) -> Result<Self, JournalError> {
        let io = |error: io::Error| failed(path, error);
        create_private(path).map_err(io)?;
        let lock = lock(path)?;
        let description = path.join("journal");
        let epoch = match fs::read_to_string(&description) {
            Ok(text) => epoch(path, &text)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                if path.join("db/version").exists() {
                    return Err(damaged(path, "it does not say which format it has"));
                }
                let epoch = fastrand::u64(1..);
                let text = format!("format {FORMAT}\nepoch {epoch:016x}\n");
                files::put(&path.join("journal"), [text.as_bytes()]).map_err(io)?;
                epoch
            }
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                return Err(damaged(path, "its description is not text"));
            }
            Err(error) => return Err(io(error)),
        };
        let folder = Self {
            path: path.to_owned(),
            epoch,
            _lock: lock,
        };
        folder.discard_unfinished().map_err(io)?;
        Ok(folder)
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn database(&self) -> PathBuf {
        self.path.join("db")
    }

    pub(super) fn left(&self) -> io::Result<Left> {
        let text = match fs::read_to_string(self.path.join("open")) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Left::Clean),
            // Torn by the crash, perhaps: the worst is assumed.
            Err(error) if error.kind() == io::ErrorKind::InvalidData => String::new(),
            Err(error) => return Err(error),
        };
        let mut lines = text.lines();
        let same_boot = lines.next() == boot().as_deref();
        let durability = lines.next();
        if same_boot || durability == Some("always") {
            return Ok(Left::Killed);
        }
        // Without a sync at all the system may keep half a minute of them to itself.
        let lost = if durability == Some("interval") {
            1 << 20
        } else {
            1 << 26
        };
        Ok(Left::Crashed { lost })
    }

    /// Says that the journal is open, for whoever finds it after a crash.
    pub(super) fn mark(&self, durability: Durability) -> io::Result<()> {
        let durability = match durability {
            Durability::Always => "always",
            Durability::Interval(_) => "interval",
            Durability::Os => "os",
        };
        let boot = boot().unwrap_or_default();
        let text = format!("{boot}\n{durability}\n");
        files::put(&self.path.join("open"), [text.as_bytes()])
    }

    /// Says that the journal is closed.
    pub(super) fn unmark(&self) -> io::Result<()> {
        fs::remove_file(self.path.join("open"))?;
        sync(&self.path)
    }

    /// Takes some room of the disk while there is enough.
    pub(super) fn reserve(&self) {
        let path = self.path.join("reserve");
        let there = fs::metadata(&path).is_ok_and(|it| it.len() == RESERVE as u64);
        // Not zeros, which some file systems do not store.
        let bytes = || vec![0x5a; RESERVE];
        if !there && fs::write(&path, bytes()).is_err() {
            fs::remove_file(&path).ok();
        }
    }

    /// Gives the reserved room back. `false` when there was none.
    pub(super) fn release(&self) -> bool {
        fs::remove_file(self.path.join("reserve")).is_ok()
    }

    /// Removes what the crash of a first start left: fjall writes its version last, and does not go on without.
    fn discard_unfinished(&self) -> io::Result<()> {
        let database = self.database();
        if database.exists() && !database.join("version").exists() {
            fs::remove_dir_all(database)?;
        }
        Ok(())
    }
}

pub(super) fn failed(path: &Path, error: io::Error) -> JournalError {
    JournalError::Io {
        path: path.to_owned(),
        source: Arc::new(error),
    }
}

pub(super) fn damaged(path: &Path, reason: impl Into<String>) -> JournalError {
    JournalError::Damaged {
        path: path.to_owned(),
        reason: reason.into(),
    }
}

/// Blocks this thread. Not for a task.
#[expect(
    clippy::disallowed_methods,
    reason = "only threads that may block come here"
)]
pub(super) fn pause(time: Duration) {
    std::thread::sleep(time);
}

fn lock(path: &Path) -> Result<File, JournalError> {
    let mut options = File::options();
    let file = options.create(true).truncate(false).write(true);
    let file = file.open(path.join("lock"));
    let file = file.map_err(|error| failed(path, error))?;
    for _ in 0..TRIES {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) => pause(Duration::from_millis(25)),
            Err(TryLockError::Error(error)) => return Err(failed(path, error)),
        }
    }
    Err(JournalError::Locked(path.to_owned()))
}

fn epoch(path: &Path, text: &str) -> Result<u64, JournalError> {
    let value = |name: &str| {
        let mut lines = text.lines();
        lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))
    };
    let format = value("format").and_then(|number| number.parse().ok());
    match format {
        Some(FORMAT) => {}
        Some(found) => {
            return Err(JournalError::Format {
                path: path.to_owned(),
                found,
                known: FORMAT,
            });
        }
        None => return Err(damaged(path, "it does not say which format it has")),
    }
    let epoch = value("epoch").and_then(|digits| u64::from_str_radix(digits, 16).ok());
    epoch.ok_or_else(|| damaged(path, "it does not say which epoch it has"))
}

fn sync(folder: &Path) -> io::Result<()> {
    if cfg!(unix) {
        File::open(folder)?.sync_all()?;
    }
    Ok(())
}

/// Names the time since the machine was started.
fn boot() -> Option<String> {
    let id = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    Some(id.trim().to_owned()).filter(|id| !id.is_empty())
}

/// Messages may be in it: its owner alone may read it.
fn create_private(path: &Path) -> io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(path)
}
