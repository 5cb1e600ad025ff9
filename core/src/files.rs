//! Files that are there as a whole or not at all, and hold after a crash of the machine. Everything here blocks.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// What the names of files end with that [`put`] has not finished.
pub const UNFINISHED: &str = ".tmp";

/// Puts a file of these pieces in place, whole or not at all. It is on the disk when this returns.
pub fn put<'p>(path: &Path, pieces: impl IntoIterator<Item = &'p [u8]>) -> io::Result<()> {
    put_through(path, &beside(path, UNFINISHED), pieces)
}

/// Like [`put`], where others may put a file in the same place at the same time: the last one wins. What was not finished is removed
/// on an error.
pub fn put_alone<'p>(path: &Path, pieces: impl IntoIterator<Item = &'p [u8]>) -> io::Result<()> {
    let unique = format!(".{:016x}{UNFINISHED}", fastrand::u64(..));
    let beside = beside(path, &unique);
    let put = put_through(path, &beside, pieces);
    if put.is_err() {
        // It may not even be there, and the first error says more.
        fs::remove_file(&beside).ok();
    }
    put
}

fn put_through<'p>(
    path: &Path,
    beside: &Path,
    pieces: impl IntoIterator<Item = &'p [u8]>,
) -> io::Result<()> {
    let mut file = File::create(beside)?;
    for piece in pieces {
        file.write_all(piece)?;
    }
    file.sync_all()?;
    fs::rename(beside, path)?;
    sync_folder(path)
}

fn beside(path: &Path, end: &str) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(end);
    path.with_file_name(name)
}

/// Makes sure that the name of a file outlives a crash of the machine.
pub fn sync_folder(path: &Path) -> io::Result<()> {
    if cfg!(unix) {
        File::open(folder(path))?.sync_all()?;
    }
    Ok(())
}

/// The folder that a file is in.
pub fn folder(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if parent.as_os_str() != OsStr::new("") => parent,
        _ => Path::new("."),
    }
}

/// Whether an open file is the one that has this path: nobody has moved, removed or replaced it.
#[cfg(unix)]
pub fn is_same(file: &File, path: &Path) -> io::Result<bool> {
    use std::os::unix::fs::MetadataExt;
    let ours = file.metadata()?;
    match fs::metadata(path) {
        Ok(there) => Ok((there.dev(), there.ino()) == (ours.dev(), ours.ino())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Whether there is a file that has this path.
#[cfg(not(unix))]
pub fn is_same(_: &File, path: &Path) -> io::Result<bool> {
    path.try_exists()
}
