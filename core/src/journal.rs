//! Ordered storage of records, with named cursors: memory, or a folder on the disk.
//!
//! A journal gives each record an offset, keeps the records in that order, and drops the oldest as its [`Retention`] says. What a
//! record means is up to whoever appends it.

#[cfg(feature = "disk")]
mod disk;
mod memory;
mod recent;
#[cfg(test)]
mod tests;

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use bytes::Bytes;

#[cfg(feature = "disk")]
pub use self::disk::Disk;
pub use self::memory::Memory;
use crate::config::Size;

/// Bytes of one append, at most.
pub const MOST_BYTES: usize = 256 << 20;

/// Stores records in order. Offsets grow by one per record, the first is 1, and none is ever given twice.
///
/// Any number of tasks may append and read at once. An error that [passes](JournalError::passes) goes away without a restart; until
/// then appends fail at once.
#[async_trait]
pub trait Journal: Send + Sync + fmt::Debug {
    /// Stores records, one behind the other, and returns the offset of the first once they are as durable as [`Durability`] says.
    ///
    /// Appends that wait at the same time share one write and one sync. On an error nothing of `records` can be read from this
    /// journal; only the next process may find them, when this one dies before it has taken them back. Without records it returns
    /// the offset that comes next.
    ///
    /// Cancelled, it may have stored all of them or none.
    async fn append(&self, records: Vec<Bytes>) -> Result<u64, JournalError>;

    /// Reads records at `from` or later, in order: as many as `most` allows, and at least one if there is one.
    ///
    /// When `from` is older than what is retained, it starts at the oldest. Offsets that were lost or never given are passed over.
    /// Does not wait for records to come. Cancel safe.
    async fn read(&self, from: u64, most: Limit) -> Result<Page, JournalError>;

    /// What the journal has now.
    fn bounds(&self) -> Bounds;

    /// The offset of the first retained record that was stored at `time` or later by the system's clock, or the one that comes
    /// next. Exact to the block of records that were written at once. Cancel safe.
    async fn seek(&self, time: SystemTime) -> Result<u64, JournalError>;

    /// An offset that is not behind the one that [`seek`](Self::seek) would find, known without reading: up to a segment in front
    /// of it. Nothing when records of this time may have been dropped.
    fn seek_roughly(&self, time: SystemTime) -> Option<u64>;

    /// Waits until the offset that comes next is greater than `next`: with [`Page::next`], until there is more to read. Forever, when
    /// the journal is closed before. Cancel safe.
    async fn appended(&self, next: u64);

    /// The cursors that were set, by name.
    fn cursors(&self) -> Vec<(String, u64)>;

    /// Remembers an offset under a name, or forgets the name. Returns at once: it is written with the next records, or a tenth of a
    /// second later. A crash may bring an earlier offset back, but never one that was not set.
    fn set_cursor(&self, name: &str, offset: Option<u64>);

    /// Drops the records in front of `before`, as far as whole segments of them can go. Cancelled, it may still happen.
    async fn trim(&self, before: u64) -> Result<(), JournalError>;

    /// A random number that was made with the journal and stays.
    fn epoch(&self) -> u64;

    /// Stores what waits, syncs, and closes. Whatever comes later fails with [`JournalError::Closed`].
    ///
    /// Cancelled, it still happens.
    async fn close(&self) -> Result<(), JournalError>;
}

/// How durable a record is when [`Journal::append`] returns. The death of the process alone never loses it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// It is on the disk.
    Always,
    /// The system has it, and it is on the disk this much later: a crash of the machine loses less than that.
    Interval(Duration),
    /// The system has it, and writes it when it likes.
    Os,
}

/// What is kept. The first limit that is reached counts; it holds for whole segments, about an eighth of the limit each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// Bytes that the records take, compressed.
    pub bytes: u64,
    /// Records.
    pub records: u64,
    /// Time since a record was stored.
    pub age: Duration,
    /// What happens when `bytes` are reached.
    pub full: WhenFull,
}

/// What happens when a journal has as many bytes as it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WhenFull {
    /// The oldest records go.
    DropOldest,
    /// Appends fail with [`JournalError::Full`] until some are trimmed.
    Reject,
}

/// How a journal works.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Options {
    /// How durable an appended record is.
    pub durability: Durability,
    /// What is kept.
    pub retention: Retention,
}

/// How much to read at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limit {
    /// Records.
    pub records: usize,
    /// Bytes of these records.
    pub bytes: usize,
}

/// A record that is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Its offset.
    pub offset: u64,
    /// When it was stored, by the system's clock, in whole milliseconds.
    pub at: SystemTime,
    /// What was appended.
    pub bytes: Bytes,
}

/// What [`Journal::read`] found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// The records, in order.
    pub records: Vec<Record>,
    /// Where to read on: behind the last record, or behind what is lost.
    pub next: u64,
}

/// What a journal has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// The offset of the oldest retained record, or `next`.
    pub oldest: u64,
    /// The offset that comes next.
    pub next: u64,
    /// Bytes that the records take, compressed.
    pub bytes: u64,
    /// Bytes of the records as they were appended.
    pub raw_bytes: u64,
    /// Retained records.
    pub records: u64,
    /// Blocks of records that were found damaged since the journal was opened, and skipped.
    pub damaged: u64,
}

/// Why a journal cannot be used. Each message says what to do.
#[derive(Debug, Clone, thiserror::Error)]
pub enum JournalError {
    /// Another process has it open.
    #[error("the journal {} is open in another process: stop that one, or give this one another folder", .0.display())]
    Locked(PathBuf),
    /// A newer version wrote it.
    #[error("the journal {} has format {found}, and this evows reads format {known}: run the version that wrote it, or move the folder away to start without it", .path.display())]
    Format {
        /// The folder.
        path: PathBuf,
        /// The format that it has.
        found: u64,
        /// The newest format that this version reads.
        known: u64,
    },
    /// It is not what evows wrote.
    #[error("the journal {} is damaged ({reason}): restore it from a backup, or move the folder away to start without it", .path.display())]
    Damaged {
        /// The folder.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The system refused. Tried again by itself.
    #[error("cannot use the journal {}: {source}; check the folder's permissions and the disk", .path.display())]
    Io {
        /// The folder.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: Arc<io::Error>,
    },
    /// It has as many bytes as it may, and may not drop any.
    #[error("the journal is full: it may take {max}")]
    Full {
        /// How many bytes it may take.
        max: Size,
    },
    /// More than [`MOST_BYTES`] at once.
    #[error("{bytes} bytes in one append: a journal takes {MOST_BYTES} at most")]
    TooLarge {
        /// How many bytes were appended.
        bytes: usize,
    },
    /// It was closed.
    #[error("the journal is closed")]
    Closed,
}

/// Opens the journal in a folder, which is made when it is not there.
#[cfg(feature = "disk")]
pub async fn open(path: PathBuf, options: Options) -> Result<Arc<dyn Journal>, JournalError> {
    let opened = tokio::task::spawn_blocking({
        let path = path.clone();
        move || Disk::open(&path, options)
    });
    match opened.await {
        Ok(opened) => Ok(Arc::new(opened?)),
        Err(error) => Err(JournalError::Damaged {
            path,
            reason: error.to_string(),
        }),
    }
}

/// Says that this binary has no journals on the disk.
#[cfg(not(feature = "disk"))]
#[expect(clippy::unused_async, reason = "as with the feature")]
pub async fn open(path: PathBuf, _: Options) -> Result<Arc<dyn Journal>, JournalError> {
    let error = io::Error::new(
        io::ErrorKind::Unsupported,
        "this evows was built without the feature `disk`",
    );
    Err(JournalError::Io {
        path,
        source: Arc::new(error),
    })
}

// === impl Durability ===

impl Default for Durability {
    fn default() -> Self {
        Self::Interval(Duration::from_millis(100))
    }
}

// === impl Retention ===

impl Default for Retention {
    /// Everything.
    fn default() -> Self {
        Self {
            bytes: u64::MAX,
            records: u64::MAX,
            age: Duration::MAX,
            full: WhenFull::DropOldest,
        }
    }
}

// === impl JournalError ===

impl JournalError {
    /// Whether it goes away without a restart: the disk has room again, some records are trimmed.
    pub fn passes(&self) -> bool {
        matches!(self, Self::Io { .. } | Self::Full { .. })
    }
}

/// Milliseconds since 1970, as times are stored.
fn millis(time: SystemTime) -> u64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH);
    u64::try_from(since.unwrap_or_default().as_millis()).unwrap_or(u64::MAX)
}

/// The time that is stored as `millis`.
fn time(millis: u64) -> SystemTime {
    let time = SystemTime::UNIX_EPOCH.checked_add(Duration::from_millis(millis));
    time.unwrap_or(SystemTime::UNIX_EPOCH)
}

/// Bytes of records, and whether one append may have as many.
fn size(records: &[Bytes]) -> Result<usize, JournalError> {
    let bytes = records.iter().map(Bytes::len).sum();
    if bytes > MOST_BYTES || records.len() > MOST_BYTES / 4 {
        return Err(JournalError::TooLarge { bytes });
    }
    Ok(bytes)
}
