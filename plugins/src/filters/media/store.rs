//! Where content is put.

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::{fs, io};

use async_trait::async_trait;
use bytes::Bytes;
use evows_core::files;
use evows_core::plugin::BoxError;
use tokio::sync::Semaphore;

/// Where content is put, under names with slashes in them.
#[async_trait]
pub(super) trait Store: Send + Sync {
    /// Opens what it needs.
    async fn start(&self) -> Result<(), BoxError> {
        Ok(())
    }

    /// Stores content under a name that only this content has. Cancel safe: it is there as a whole or not at all.
    async fn put(
        &self,
        name: &str,
        bytes: Bytes,
        content_type: &'static str,
    ) -> Result<(), StoreError>;

    /// What a reference says about where it is.
    fn path(&self, name: &str) -> String {
        name.to_owned()
    }

    /// The address where it can be fetched for a while, if there is one.
    fn url(&self, _name: &str) -> Option<String> {
        None
    }
}

/// Why content is not stored.
#[derive(Debug, thiserror::Error)]
pub(super) enum StoreError {
    #[error("cannot write {path}: {source}")]
    File {
        path: String,
        #[source]
        source: io::Error,
    },
    #[cfg(feature = "s3")]
    #[error("cannot put {key} into the bucket: {reason}")]
    Object { key: String, reason: String },
    /// There is nobody, or nobody who answers.
    #[cfg(feature = "s3")]
    #[error("cannot put {key} into the bucket: {reason}")]
    Unanswered { key: String, reason: String },
}

/// A folder of this machine.
pub(super) struct Folder {
    path: PathBuf,
    /// One for each write. A write that hangs keeps its own whoever still waits for it, so that a disk that hangs takes no more
    /// threads than these.
    permits: Arc<Semaphore>,
}

// === impl StoreError ===

impl StoreError {
    /// Whether nothing said that it cannot be stored.
    pub(super) fn is_silence(&self) -> bool {
        match self {
            Self::File { .. } => false,
            #[cfg(feature = "s3")]
            Self::Object { .. } => false,
            #[cfg(feature = "s3")]
            Self::Unanswered { .. } => true,
        }
    }
}

// === impl Folder ===

impl Folder {
    /// A folder that so many files are written into at once.
    pub(super) fn new(path: PathBuf, at_once: NonZeroUsize) -> Self {
        let permits = Arc::new(Semaphore::new(at_once.get()));
        Self { path, permits }
    }
}

#[async_trait]
impl Store for Folder {
    async fn put(
        &self,
        name: &str,
        bytes: Bytes,
        _content_type: &'static str,
    ) -> Result<(), StoreError> {
        let path = self.path.join(name);
        let told = path.display().to_string();
        let permit = Arc::clone(&self.permits).acquire_owned().await;
        let written = tokio::task::spawn_blocking(move || {
            let written = write(&path, &bytes);
            drop(permit);
            written
        });
        let written = written.await;
        let written = written.unwrap_or_else(|error| Err(io::Error::other(error)));
        written.map_err(|source| StoreError::File { path: told, source })
    }
}

/// Writes a file, unless it is there. Blocks.
fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    // The name says what is in it.
    if fs::metadata(path).is_ok_and(|there| there.len() == bytes.len() as u64) {
        return Ok(());
    }
    fs::create_dir_all(files::folder(path))?;
    // Others may write the same content at the same time.
    files::put_alone(path, [bytes])
}
