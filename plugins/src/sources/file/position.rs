//! How far events were accepted, in a file.

use std::fs::{self, Metadata};
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use evows_core::files;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// How much of the beginning of a file tells it from others.
pub(super) const HEAD: usize = 256;

/// A place between two lines of a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Position {
    /// The `path` that was followed; the file may be called otherwise by now.
    pub(super) path: PathBuf,
    #[serde(flatten)]
    pub(super) file: FileId,
    /// Bytes before it.
    pub(super) offset: u64,
    /// The number of the line behind it.
    pub(super) line: u64,
    /// Of the first bytes before it, [`HEAD`] at most: another file may get the same number.
    pub(super) head: String,
}

/// Which file it is, whatever it is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct FileId {
    device: u64,
    inode: u64,
}

/// The file that a position is in.
#[derive(Debug, Clone)]
pub(super) struct Store {
    path: PathBuf,
}

// === impl FileId ===

impl FileId {
    #[cfg(unix)]
    pub(super) fn of(metadata: &Metadata) -> Self {
        use std::os::unix::fs::MetadataExt;
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
        }
    }

    #[cfg(not(unix))]
    pub(super) fn of(_: &Metadata) -> Self {
        Self {
            device: 0,
            inode: 0,
        }
    }
}

/// What tells a file that begins like this from others.
pub(super) fn fingerprint(head: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(Sha256::digest(head))
}

// === impl Store ===

impl Store {
    pub(super) fn new(path: PathBuf) -> Self {
        Self { path }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The position, and when it was written; `None` where none was written yet.
    pub(super) async fn load(&self) -> io::Result<Option<(Position, SystemTime)>> {
        let text = match tokio::fs::read(&self.path).await {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            text => text?,
        };
        let written_at = tokio::fs::metadata(&self.path).await?.modified()?;
        Ok(Some((serde_json::from_slice(&text)?, written_at)))
    }

    /// Replaces the position, whole or not at all, and on the disk when this returns.
    pub(super) async fn save(&self, position: &Position) -> io::Result<()> {
        let mut text = serde_json::to_vec(position)?;
        text.push(b'\n');
        let path = self.path.clone();
        let put = move || {
            fs::create_dir_all(files::folder(&path))?;
            files::put(&path, [&*text])
        };
        tokio::task::spawn_blocking(put).await?
    }
}
