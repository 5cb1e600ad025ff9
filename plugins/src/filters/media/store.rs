//! Where content is put.

use std::path::Path;
use std::sync::Arc;
use std::{fs, io};

use bytes::Bytes;
use evows_core::files;
use evows_core::plugin::BoxError;

#[cfg(feature = "s3")]
use super::s3::Bucket;

/// Where content is put, under names with slashes in them.
pub(super) enum Store {
    Folder(Arc<Path>),
    #[cfg(feature = "s3")]
    S3(Arc<Bucket>),
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

// === impl Store ===

impl Store {
    pub(super) async fn start(&self) -> Result<(), BoxError> {
        match self {
            Self::Folder(_) => Ok(()),
            #[cfg(feature = "s3")]
            Self::S3(bucket) => bucket.start().await,
        }
    }

    /// Stores content under a name that only this content has.
    pub(super) async fn put(
        &self,
        name: &str,
        bytes: Bytes,
        content_type: &'static str,
    ) -> Result<(), StoreError> {
        match self {
            Self::Folder(folder) => {
                let path = folder.join(name);
                let told = path.display().to_string();
                let written = tokio::task::spawn_blocking(move || write(&path, &bytes)).await;
                let written = written.unwrap_or_else(|error| Err(io::Error::other(error)));
                written.map_err(|source| StoreError::File { path: told, source })
            }
            #[cfg(feature = "s3")]
            Self::S3(bucket) => bucket.put(name, bytes, content_type).await,
        }
    }

    /// What a reference says about where it is.
    pub(super) fn path(&self, name: &str) -> String {
        match self {
            Self::Folder(_) => name.to_owned(),
            #[cfg(feature = "s3")]
            Self::S3(bucket) => bucket.key(name),
        }
    }

    /// The address where it can be fetched for a while, if there is one.
    pub(super) fn url(&self, name: &str) -> Option<String> {
        match self {
            Self::Folder(_) => None,
            #[cfg(feature = "s3")]
            Self::S3(bucket) => bucket.url(name),
        }
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
