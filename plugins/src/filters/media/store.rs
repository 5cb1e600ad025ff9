//! Where content is put.

use std::path::{Path, PathBuf};
use std::{fs, io};

use async_trait::async_trait;
use bytes::Bytes;
use evows_core::files;
use evows_core::plugin::BoxError;

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
}

/// A folder of this machine.
pub(super) struct Folder(pub(super) PathBuf);

// === impl Folder ===

#[async_trait]
impl Store for Folder {
    async fn put(
        &self,
        name: &str,
        bytes: Bytes,
        _content_type: &'static str,
    ) -> Result<(), StoreError> {
        let path = self.0.join(name);
        let told = path.display().to_string();
        let written = tokio::task::spawn_blocking(move || write(&path, &bytes)).await;
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
