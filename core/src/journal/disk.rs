//! A journal in a folder, on the [fjall](fjall) database.
//!
//! Records are stored in blocks, compressed when it pays, and blocks in segments, which are dropped as a whole. Besides what the
//! retention allows, the folder takes up to 200 MiB for fjall's write-ahead log, which is cut off as segments fill.

mod block;
mod encoders;
mod folder;
mod queue;
mod store;
mod wal;
mod writer;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use async_trait::async_trait;
use bytes::Bytes;
use fjall::Keyspace;
use parking_lot::Mutex;
use tokio::sync::{Semaphore, oneshot, watch};

#[cfg(test)]
pub(super) use self::encoders::PANICS;
use self::folder::{Folder, damaged, failed};
use self::queue::{Job, Queue, Reply};
use self::store::Segment;
#[cfg(test)]
pub(super) use self::wal::used;
use self::writer::Writer;
use super::recent::{Filling, Recent};
use super::{Bounds, Journal, JournalError, Limit, Options, Page, millis, size};

/// Bytes of the newest blocks that are kept in memory.
const RECENT_BYTES: usize = 8 << 20;
/// Bytes that wait for the writer, in units of a KiB.
const WAITING_UNITS: usize = 32 << 10;
/// Threads that read files at once.
const READERS: usize = 4;

/// A journal on the disk. Dropped without being closed, it writes what waits, and leaves the folder as a crash does.
pub struct Disk {
    shared: Arc<Shared>,
    /// Bounds what waits for the writer.
    waiting: Semaphore,
    readers: Semaphore,
}

/// What the writer and the readers have in common.
struct Shared {
    path: PathBuf,
    epoch: u64,
    options: Options,
    state: Mutex<State>,
    /// The offset that comes next.
    next: watch::Sender<u64>,
    queue: Queue,
}

struct State {
    segments: VecDeque<Segment>,
    next: u64,
    recent: Recent,
    cursors: BTreeMap<String, u64>,
    /// Cursors that are not written yet.
    dirty: BTreeMap<String, Option<u64>>,
    /// Why the database is closed for the time being.
    failure: Option<JournalError>,
    closed: bool,
    /// The offsets of blocks that were found damaged.
    damaged: BTreeSet<u64>,
}

// === impl Disk ===

impl Disk {
    /// Opens the journal in a folder, making it when there is none. Blocks this thread: up to a second when another has it open.
    pub fn open(path: &Path, options: Options) -> Result<Self, JournalError> {
        let folder = Folder::open(path)?;
        let state = State {
            segments: VecDeque::new(),
            next: 1,
            recent: Recent::new(RECENT_BYTES),
            cursors: BTreeMap::new(),
            dirty: BTreeMap::new(),
            failure: None,
            closed: false,
            damaged: BTreeSet::new(),
        };
        let shared = Arc::new(Shared {
            path: path.to_owned(),
            epoch: folder.epoch,
            options,
            state: Mutex::new(state),
            next: watch::Sender::new(1),
            queue: Queue::default(),
        });
        let writer = Writer::open(Arc::clone(&shared), folder)?;
        let thread = std::thread::Builder::new().name("evows-journal".to_owned());
        let spawned = thread.spawn(move || writer.run());
        spawned.map_err(|error| failed(path, error))?;
        Ok(Self {
            shared,
            waiting: Semaphore::new(WAITING_UNITS),
            readers: Semaphore::new(READERS),
        })
    }

    async fn ask<T>(&self, job: impl FnOnce(Reply<T>) -> Job) -> Result<T, JournalError> {
        let (reply, answer) = oneshot::channel();
        if !self.shared.queue.push(job(reply)) {
            return Err(JournalError::Closed);
        }
        answer.await.unwrap_or(Err(JournalError::Closed))
    }

    /// Does something with files on a thread that may block.
    async fn read_files<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, JournalError> + Send + 'static,
    ) -> Result<T, JournalError> {
        // It is never closed.
        let _permit = self.readers.acquire().await;
        let done = tokio::task::spawn_blocking(work).await;
        done.unwrap_or_else(|error| {
            if error.is_panic() {
                let reason = "reading it ended in a panic";
                return Err(damaged(&self.shared.path, reason));
            }
            Err(failed(&self.shared.path, io::Error::other(error)))
        })
    }
}

#[async_trait]
impl Journal for Disk {
    async fn append(&self, records: Vec<Bytes>) -> Result<u64, JournalError> {
        let bytes = size(&records)?;
        if records.is_empty() {
            return Ok(self.shared.state.lock().next);
        }
        let units = (bytes / 1024 + 1).min(WAITING_UNITS);
        let units = u32::try_from(units).unwrap_or(u32::MAX);
        // It is never closed. Held until the answer: that bounds what waits.
        let _permit = self.waiting.acquire_many(units).await;
        self.ask(|reply| Job::Append {
            records,
            bytes,
            reply,
        })
        .await
    }

    async fn read(&self, from: u64, most: Limit) -> Result<Page, JournalError> {
        let mut filling = None;
        loop {
            let (segment, until, behind) = {
                let state = self.shared.state.lock();
                if state.closed {
                    return Err(JournalError::Closed);
                }
                let filling =
                    filling.get_or_insert_with(|| Filling::new(from.max(state.oldest()), most));
                let from = filling.next();
                if filling.is_full() || from >= state.next {
                    break;
                }
                if let Some(blocks) = state.recent.from(from, most) {
                    let next = state.next;
                    drop(state);
                    for block in blocks {
                        filling.take(block.first, block.at, &block.records);
                        if filling.is_full() {
                            break;
                        }
                    }
                    if !filling.is_full() && filling.next() == from {
                        // A hole behind the newest record.
                        filling.pass(next);
                    }
                    continue;
                }
                let Some(segment) = state.segment_at(from) else {
                    // Nothing is stored behind a hole that a crash left.
                    filling.pass(state.next);
                    break;
                };
                let behind = state.segment_at(segment.summary.end);
                let behind = behind.map_or(state.next, |it| it.summary.first);
                (state.keyspace(segment)?, state.next, behind)
            };
            let Some(filled) = filling.take() else { break };
            let path = self.shared.path.clone();
            let read = move || read_segment(&path, &segment, filled, until);
            let (mut filled, damaged) = self.read_files(read).await?;
            self.shared.found_damaged(damaged);
            if !filled.is_full() {
                filled.pass(behind);
            }
            filling = Some(filled);
        }
        let filling = filling.unwrap_or_else(|| Filling::new(from, most));
        Ok(filling.finish())
    }

    fn bounds(&self) -> Bounds {
        let state = self.shared.state.lock();
        Bounds {
            oldest: state.oldest(),
            next: state.next,
            bytes: state.bytes(),
            raw_bytes: state.segments.iter().map(|it| it.summary.raw).sum(),
            records: state.records(),
            damaged: state.damaged.len() as u64,
        }
    }

    async fn seek(&self, time: SystemTime) -> Result<u64, JournalError> {
        let time = millis(time);
        let mut from = 0;
        loop {
            let (keyspace, behind) = {
                let state = self.shared.state.lock();
                if state.closed {
                    return Err(JournalError::Closed);
                }
                // The clock may have been set back: the times need not be in order.
                let mut later = state.segments.iter();
                let later = later.find(|it| it.summary.end > from && it.summary.newest >= time);
                let Some(segment) = later else {
                    return Ok(state.next);
                };
                (state.keyspace(segment)?, segment.summary.end)
            };
            let found = self.read_files(move || {
                Ok(store::keys(&keyspace, from).find(|key| key.at >= time && key.end() > from))
            });
            match found.await? {
                Some(key) => return Ok(key.first),
                None => from = behind,
            }
        }
    }

    fn seek_roughly(&self, time: SystemTime) -> Option<u64> {
        let (time, state) = (millis(time), self.shared.state.lock());
        let mut segments = state.segments.iter().map(|it| &it.summary);
        let found = segments.find(|it| it.records > 0 && it.newest >= time);
        let Some(found) = found else {
            return Some(state.next);
        };
        let may_be_gone = found.first == state.oldest() && found.oldest >= time;
        (found.first == 1 || !may_be_gone).then_some(found.first)
    }

    async fn appended(&self, next: u64) {
        // The sender lives as long as this does.
        let mut newest = self.shared.next.subscribe();
        newest.wait_for(|newest| *newest > next).await.ok();
    }

    fn cursors(&self) -> Vec<(String, u64)> {
        let state = self.shared.state.lock();
        let cursors = state.cursors.iter();
        cursors.map(|(name, at)| (name.clone(), *at)).collect()
    }

    fn set_cursor(&self, name: &str, offset: Option<u64>) {
        let mut state = self.shared.state.lock();
        let before = match offset {
            Some(offset) => state.cursors.insert(name.to_owned(), offset),
            None => state.cursors.remove(name),
        };
        if before == offset {
            return;
        }
        let first = state.dirty.is_empty();
        state.dirty.insert(name.to_owned(), offset);
        drop(state);
        if first {
            self.shared.queue.nudge();
        }
    }

    async fn trim(&self, before: u64) -> Result<(), JournalError> {
        self.ask(|reply| Job::Trim { before, reply }).await
    }

    fn epoch(&self) -> u64 {
        self.shared.epoch
    }

    async fn close(&self) -> Result<(), JournalError> {
        self.ask(|reply| Job::Close { reply }).await
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        self.shared.queue.end();
    }
}

impl fmt::Debug for Disk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Disk")
            .field("path", &self.shared.path)
            .field("bounds", &self.bounds())
            .finish_non_exhaustive()
    }
}

// === impl Shared ===

impl Shared {
    fn found_damaged(&self, blocks: Vec<(u64, String)>) {
        for (first, reason) in blocks {
            if self.state.lock().damaged.insert(first) {
                tracing::warn!(
                    journal = %self.path.display(), offset = first, reason,
                    "a block of records is damaged and skipped"
                );
            }
        }
    }
}

// === impl State ===

impl State {
    fn oldest(&self) -> u64 {
        let mut segments = self.segments.iter();
        let oldest = segments.find(|segment| segment.summary.records > 0);
        oldest.map_or(self.next, |segment| segment.summary.first)
    }

    fn bytes(&self) -> u64 {
        self.segments.iter().map(|it| it.summary.bytes).sum()
    }

    fn records(&self) -> u64 {
        self.segments.iter().map(|it| it.summary.records).sum()
    }

    /// The segment that has this offset, or the next one.
    fn segment_at(&self, offset: u64) -> Option<&Segment> {
        let mut segments = self.segments.iter();
        segments.find(|segment| segment.summary.end > offset)
    }

    fn keyspace(&self, segment: &Segment) -> Result<Keyspace, JournalError> {
        let failure = || self.failure.clone().unwrap_or(JournalError::Closed);
        segment.keyspace.clone().ok_or_else(failure)
    }

    /// Lets go of the database.
    fn let_go(&mut self) {
        for segment in &mut self.segments {
            segment.keyspace = None;
        }
    }

    fn close(&mut self) {
        self.closed = true;
        self.let_go();
    }
}

/// Reads records of a segment in front of `until`, and names the blocks that are damaged.
fn read_segment(
    path: &Path,
    segment: &Keyspace,
    mut filling: Filling,
    until: u64,
) -> Result<(Filling, Vec<(u64, String)>), JournalError> {
    let mut damaged = Vec::new();
    for key in store::keys(segment, filling.next()) {
        if key.first >= until || filling.is_full() {
            break;
        }
        let value = match segment.get(key.to_bytes()) {
            Ok(Some(value)) => value,
            Ok(None) => continue,
            Err(error) => match store::explain(path, error) {
                JournalError::Damaged { reason, .. } => {
                    damaged.push((key.first, reason));
                    continue;
                }
                other => return Err(other),
            },
        };
        match block::decode(&key, &value) {
            Ok(records) => filling.take(key.first, key.at, &records),
            Err(damage) => damaged.push((key.first, damage.to_string())),
        }
    }
    Ok((filling, damaged))
}

/// Waits until no writer uses a folder any more.
#[cfg(test)]
pub(super) fn wait_until_free(path: &Path) {
    Folder::open(path).unwrap();
}
