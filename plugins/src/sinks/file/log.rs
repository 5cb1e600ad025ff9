//! A file of whole lines, and those before it. Everything here blocks.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use evows_core::config::SyncConfig;
use evows_core::files;

use super::names::Names;
use super::{Clock, Config, Rotate};

/// What is read at once to find the end of the last whole line.
const CHUNK: u64 = 64 * 1024;

/// Lines in files.
pub(super) struct Log {
    names: Names,
    rotate: Rotate,
    sync: SyncConfig,
    clock: Clock,
    open: Option<Open>,
    is_synced: bool,
}

/// The file that is written to.
#[derive(Debug)]
struct Open {
    file: File,
    path: PathBuf,
    length: u64,
    /// What it was before the last batch.
    before: u64,
    written_at: SystemTime,
}

// === impl Log ===

impl Log {
    pub(super) fn new(config: &Config, clock: Clock) -> Self {
        Self {
            names: Names::new(config.path.clone()),
            rotate: config.rotate,
            sync: config.sync,
            clock,
            open: None,
            is_synced: true,
        }
    }

    /// Opens the file of this time, unless it is open.
    pub(super) fn open(&mut self) -> io::Result<()> {
        let path = self.names.at((self.clock)());
        self.open_at(&path).map(|_| ())
    }

    /// Appends whole lines, all or none. What fails is opened anew the next time.
    pub(super) fn append(&mut self, lines: &[u8]) -> io::Result<()> {
        let now = (self.clock)();
        let path = self.names.at(now);
        let open = self.open_at(&path)?;
        let ended = (open.length > 0).then_some((open.length, open.written_at));
        if ended.is_some_and(|(length, at)| self.is_full(length + lines.len() as u64, at, now)) {
            self.put_aside(now)
                .map_err(|error| named(&path, "cannot put aside", &error))?;
        }
        let always = self.sync == SyncConfig::Always;
        let open = self.open_at(&path)?;
        let appended = append_or_cut(&open.file, open.length, |mut file| {
            file.write_all(lines)?;
            if always { file.sync_data() } else { Ok(()) }
        });
        if let Err(error) = appended {
            self.open = None;
            return Err(named(&path, "cannot write", &error));
        }
        open.before = open.length;
        open.length += lines.len() as u64;
        open.written_at = now;
        self.is_synced = always;
        Ok(())
    }

    /// Cuts off what the last [`append`](Self::append) wrote.
    pub(super) fn take_back(&mut self) {
        let Some(open) = &mut self.open else {
            return;
        };
        match open.file.set_len(open.before) {
            Ok(()) => open.length = open.before,
            // It stays, and will be there twice.
            Err(error) => tracing::warn!(path = %open.path.display(), %error, "cannot cut off"),
        }
    }

    /// Makes sure that what was written outlives a crash of the machine.
    pub(super) fn sync(&mut self) -> io::Result<()> {
        if let Some(open) = &self.open
            && !self.is_synced
        {
            let synced = open.file.sync_data();
            synced.map_err(|error| named(&open.path, "cannot sync", &error))?;
            self.is_synced = true;
        }
        Ok(())
    }

    /// Closes the file.
    pub(super) fn close(&mut self, sync: bool) -> io::Result<()> {
        let synced = if sync { self.sync() } else { Ok(()) };
        self.open = None;
        synced
    }

    #[cfg(test)]
    pub(super) fn is_synced(&self) -> bool {
        self.is_synced
    }

    /// Whether a file of this length, last written to `at`, would be too large or too old.
    fn is_full(&self, length: u64, at: SystemTime, now: SystemTime) -> bool {
        let is_large = self.rotate.size.is_some_and(|size| length > size.0);
        let every = self.rotate.every.map(|every| every.0);
        is_large || every.is_some_and(|every| turn(at, every) != turn(now, every))
    }

    fn put_aside(&mut self, now: SystemTime) -> io::Result<()> {
        if self.sync != SyncConfig::Os {
            self.sync()?;
        }
        match self.open.take() {
            Some(open) => fs::rename(&open.path, Names::aside(&open.path, now)?),
            None => Ok(()),
        }
    }

    /// The file of this path, opened where it is not or is another one by now.
    fn open_at(&mut self, path: &Path) -> io::Result<&mut Open> {
        let is_durable = self.sync != SyncConfig::Os;
        if let Some(open) = &self.open
            && (open.path != path || !files::is_same(&open.file, path)?)
        {
            if is_durable {
                self.sync()?;
            }
            self.open = None;
        }
        if self.open.is_none() {
            let opened = Open::new(path, is_durable);
            let opened = opened.map_err(|error| named(path, "cannot open", &error))?;
            self.open = Some(opened);
            self.delete_old(path);
        }
        self.open
            .as_mut()
            .ok_or_else(|| io::Error::other("no file is open"))
    }

    fn delete_old(&self, current: &Path) {
        if self.rotate.keep == 0 {
            return;
        }
        let deleted = self.names.old(current).and_then(|old| {
            let most = old.len().saturating_sub(self.rotate.keep);
            old.iter().take(most).try_for_each(fs::remove_file)
        });
        // Events are worth more than room on the disk.
        if let Err(error) = deleted {
            tracing::warn!(path = %current.display(), %error, "cannot delete old files");
        }
    }
}

// === impl Open ===

impl Open {
    fn new(path: &Path, is_durable: bool) -> io::Result<Self> {
        fs::create_dir_all(files::folder(path))?;
        let mut options = OpenOptions::new();
        let mut file = options.read(true).append(true).create(true).open(path)?;
        match file.try_lock() {
            Err(TryLockError::WouldBlock) => {
                let message = "another process or sink writes to it";
                return Err(io::Error::new(io::ErrorKind::ResourceBusy, message));
            }
            // Some file systems have no locks.
            Err(TryLockError::Error(error)) if error.kind() != io::ErrorKind::Unsupported => {
                return Err(error);
            }
            Ok(()) | Err(TryLockError::Error(_)) => {}
        }
        let metadata = file.metadata()?;
        let there = metadata.len();
        let length = whole_lines(&mut file, there)?;
        if length < there {
            let cut = there - length;
            tracing::warn!(path = %path.display(), bytes = cut, "cut off an unfinished last line");
            file.set_len(length)?;
        }
        if there == 0 && is_durable {
            // So that its name outlives a crash of the machine, too.
            files::sync_folder(path)?;
        }
        Ok(Self {
            file,
            path: path.to_owned(),
            length,
            before: length,
            written_at: metadata.modified()?,
        })
    }
}

/// Writes to the end of a file, and cuts off what was written of it where that fails.
pub(super) fn append_or_cut(
    file: &File,
    length: u64,
    write: impl FnOnce(&File) -> io::Result<()>,
) -> io::Result<()> {
    let written = write(file);
    if written.is_err() {
        // Where this fails too, opening the file cuts off the half line.
        file.set_len(length).ok();
    }
    written
}

/// How long the whole lines at the beginning of a file are.
fn whole_lines(file: &mut File, length: u64) -> io::Result<u64> {
    let mut end = length;
    while end > 0 {
        let begin = end.saturating_sub(CHUNK);
        let mut chunk = Vec::new();
        file.seek(SeekFrom::Start(begin))?;
        file.take(end - begin).read_to_end(&mut chunk)?;
        if let Some(at) = memchr::memrchr(b'\n', &chunk) {
            return Ok(begin + at as u64 + 1);
        }
        end = begin;
    }
    Ok(0)
}

/// Which turn of `every` a time is in.
fn turn(time: SystemTime, every: Duration) -> u128 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    since.as_nanos() / every.as_nanos().max(1)
}

/// The same kind of error, which says what could not be done with which file.
fn named(path: &Path, what: &str, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{what} {}: {error}", path.display()))
}
