//! The database of a journal: a keyspace of blocks for each segment, and one for the cursors and for what is known of segments.
//!
//! Deleting a segment is deleting a keyspace: its files go, and no tombstones stay.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::time::Duration;

use fjall::{
    CompressionType, Keyspace, KeyspaceCreateOptions, KvSeparationOptions, LsmError, PersistMode,
    Slice,
};

use super::super::JournalError;
use super::block::Key;
use super::folder::{Folder, damaged, failed, pause};

const META: &str = "meta";
const SEGMENT: &str = "seg-";
const CURSOR: u8 = b'c';
const SUMMARY: u8 = b's';
/// Bytes of blocks in memory until they are written to a file. As many again may wait for that, three times.
const MEMTABLE: u64 = 16 << 20;
/// Broken keys of a segment after which the rest of it is given up.
const PATIENCE: u32 = 16;

/// The open database.
pub(super) struct Store {
    database: fjall::Database,
    meta: Keyspace,
}

/// Blocks that go together.
#[derive(Clone)]
pub(super) struct Segment {
    /// The offset that it was made for.
    pub(super) first: u64,
    pub(super) summary: Summary,
    /// Nothing while the database is closed.
    pub(super) keyspace: Option<Keyspace>,
}

/// What is known of a segment without reading it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Summary {
    /// The offset of the first record.
    pub(super) first: u64,
    /// The offset behind the last record; 0 when there is none.
    pub(super) end: u64,
    pub(super) records: u64,
    pub(super) bytes: u64,
    pub(super) raw: u64,
    /// When the first block and the newest were stored, in milliseconds since 1970.
    pub(super) oldest: u64,
    pub(super) newest: u64,
}

// === impl Store ===

impl Store {
    /// Opens the database, making it when there is none, and finds its segments. Without `trusting` it looks at every block's key.
    pub(super) fn open(
        folder: &Folder,
        trusting: bool,
    ) -> Result<(Self, Vec<Segment>), JournalError> {
        let path = folder.path();
        // fjall panics over some bytes that it did not write. Nothing of it outlives the panic.
        catch_unwind(AssertUnwindSafe(|| {
            Self::open_sound(folder, trusting).map_err(|error| explain(path, error))
        }))
        .unwrap_or_else(|_| Err(damaged(path, "opening it ended in a panic")))
    }

    fn open_sound(folder: &Folder, trusting: bool) -> fjall::Result<(Self, Vec<Segment>)> {
        let database = fjall::Database::builder(folder.database())
            .journal_compression(CompressionType::None)
            .max_journaling_size(64 << 20)
            .cache_size(8 << 20)
            .worker_threads(1)
            .open()?;
        let meta = database.keyspace(META, || {
            KeyspaceCreateOptions::default().max_memtable_size(1 << 20)
        })?;
        let store = Self { database, meta };
        let mut firsts: Vec<u64> = Vec::new();
        for name in store.database.list_keyspace_names() {
            let digits = name.strip_prefix(SEGMENT);
            firsts.extend(digits.and_then(|digits| u64::from_str_radix(digits, 16).ok()));
        }
        firsts.sort_unstable();
        let last = firsts.last().copied();
        let mut segments = Vec::new();
        for first in firsts {
            let keyspace = store.keyspace(first)?;
            let known = if trusting && Some(first) != last {
                store.summary(first)?
            } else {
                None
            };
            let summary = known.unwrap_or_else(|| scan(&keyspace));
            segments.push(Segment {
                first,
                summary,
                keyspace: Some(keyspace),
            });
        }
        Ok((store, segments))
    }

    /// Makes the segment whose first record will have this offset. On the disk when this returns.
    pub(super) fn create(&self, first: u64) -> fjall::Result<Segment> {
        Ok(Segment {
            first,
            summary: Summary::default(),
            keyspace: Some(self.keyspace(first)?),
        })
    }

    fn keyspace(&self, first: u64) -> fjall::Result<Keyspace> {
        let name = format!("{SEGMENT}{first:016x}");
        self.database.keyspace(&name, || {
            let blobs = KvSeparationOptions::default().compression(CompressionType::None);
            KeyspaceCreateOptions::default()
                .max_memtable_size(MEMTABLE)
                .with_kv_separation(Some(blobs))
        })
    }

    /// Writes a block to the system.
    pub(super) fn insert(&self, segment: &Segment, key: Key, value: Slice) -> fjall::Result<()> {
        let keyspace = segment.keyspace.as_ref().ok_or(fjall::Error::Poisoned)?;
        self.wait_for_room(keyspace)?;
        keyspace.insert(key.to_bytes(), value)
    }

    /// Waits for fjall's worker, or learns that it has ended. With four sealed memtables fjall would wait for it, then for good;
    /// one at most is added meanwhile.
    fn wait_for_room(&self, keyspace: &Keyspace) -> fjall::Result<()> {
        while keyspace.sealed_memtable_count() >= 3 || self.database.outstanding_flushes() >= 4 {
            self.database.persist(PersistMode::Buffer)?;
            pause(Duration::from_millis(1));
        }
        Ok(())
    }

    /// Writes to the disk what the system has.
    pub(super) fn sync(&self) -> fjall::Result<()> {
        self.database.persist(PersistMode::SyncData)
    }

    /// Lets go of the memory of a segment that is not written to any more, and remembers what is in it. Forgets deleted ones.
    pub(super) fn seal(&self, segment: &Segment, deleted: &[u64]) -> fjall::Result<()> {
        self.wait_for_room(&self.meta)?;
        let mut batch = self.database.batch();
        batch.insert(
            &self.meta,
            summary_key(segment.first),
            segment.summary.to_bytes(),
        );
        for first in deleted {
            batch.remove(&self.meta, summary_key(*first));
        }
        batch.commit()?;
        if let Some(keyspace) = &segment.keyspace {
            keyspace.rotate_memtable()?;
        }
        Ok(())
    }

    /// Deletes a segment. Its files go with the last reader.
    pub(super) fn delete(&self, segment: &Segment) -> fjall::Result<()> {
        if let Some(keyspace) = segment.keyspace.clone() {
            self.database.delete_keyspace(keyspace)?;
        }
        Ok(())
    }

    /// Deletes the blocks at `next` or later: they were written, and could not be reported as stored.
    pub(super) fn truncate(&self, segment: &mut Segment, next: u64) -> fjall::Result<()> {
        if let Some(keyspace) = &segment.keyspace {
            for guard in keyspace.range(next.to_be_bytes()..) {
                keyspace.remove(guard.key()?)?;
            }
            segment.summary = scan(keyspace);
        }
        self.sync()
    }

    fn summary(&self, first: u64) -> fjall::Result<Option<Summary>> {
        let value = self.meta.get(summary_key(first))?;
        Ok(value.and_then(|value| Summary::from_bytes(&value)))
    }

    pub(super) fn cursors(&self) -> fjall::Result<Vec<(String, u64)>> {
        let mut cursors = Vec::new();
        for guard in self.meta.prefix([CURSOR]) {
            let (key, value) = guard.into_inner()?;
            let name = str::from_utf8(key.get(1..).unwrap_or_default()).ok();
            let offset = value.first_chunk().copied().map(u64::from_be_bytes);
            cursors.extend(name.map(str::to_owned).zip(offset));
        }
        Ok(cursors)
    }

    pub(super) fn set_cursors(
        &self,
        cursors: impl IntoIterator<Item = (String, Option<u64>)>,
    ) -> fjall::Result<()> {
        self.wait_for_room(&self.meta)?;
        let mut batch = self.database.batch();
        for (name, offset) in cursors {
            let key = [&[CURSOR], name.as_bytes()].concat();
            match offset {
                Some(offset) => batch.insert(&self.meta, key, offset.to_be_bytes()),
                None => batch.remove(&self.meta, key),
            }
        }
        batch.commit()
    }
}

// === impl Summary ===

impl Summary {
    pub(super) fn add(&mut self, key: &Key) {
        if self.records == 0 {
            self.first = key.first;
            self.oldest = key.at;
        }
        self.end = self.end.max(key.end());
        self.records += u64::from(key.count);
        self.bytes += u64::from(key.stored);
        self.raw += key.records_bytes();
        self.newest = self.newest.max(key.at);
    }

    fn numbers(&self) -> [u64; 7] {
        [
            self.first,
            self.end,
            self.records,
            self.bytes,
            self.raw,
            self.oldest,
            self.newest,
        ]
    }

    fn to_bytes(self) -> Vec<u8> {
        self.numbers().map(u64::to_be_bytes).concat()
    }

    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (numbers, []) = bytes.as_chunks::<8>() else {
            return None;
        };
        let numbers: [[u8; 8]; 7] = numbers.try_into().ok()?;
        let [first, end, records, bytes, raw, oldest, newest] = numbers.map(u64::from_be_bytes);
        Some(Self {
            first,
            end,
            records,
            bytes,
            raw,
            oldest,
            newest,
        })
    }
}

fn summary_key(first: u64) -> [u8; 9] {
    let mut key = [SUMMARY; 9];
    key[1..].copy_from_slice(&first.to_be_bytes());
    key
}

/// Looks at the key of every block. Those that cannot be read are left out.
fn scan(keyspace: &Keyspace) -> Summary {
    let mut summary = Summary::default();
    for key in keys(keyspace, 0) {
        summary.add(&key);
    }
    summary
}

/// The keys of the block that has the offset `from` and of those behind it. Broken ones are passed over.
pub(super) fn keys(keyspace: &Keyspace, from: u64) -> impl Iterator<Item = Key> + use<> {
    let mut upper = [0xff; 28];
    upper[..8].copy_from_slice(&from.to_be_bytes());
    let before = keyspace.range(..=upper).next_back();
    let before = before.and_then(|guard| Key::from_bytes(&guard.key().ok()?));
    let start = before.filter(|key| key.end() > from);
    let start = start.map_or_else(|| from.to_be_bytes().to_vec(), |it| it.to_bytes().to_vec());
    let mut broken = 0;
    keyspace
        .range(start..)
        .map_while(move |guard| {
            let key = guard.key().ok().and_then(|key| Key::from_bytes(&key));
            if key.is_none() {
                broken += 1;
            }
            (broken < PATIENCE).then_some(key)
        })
        .flatten()
}

/// What this error means to whoever uses the journal.
pub(super) fn explain(path: &Path, error: fjall::Error) -> JournalError {
    match error {
        fjall::Error::Io(error) | fjall::Error::Storage(LsmError::Io(error)) => failed(path, error),
        fjall::Error::Locked => JournalError::Locked(path.to_owned()),
        fjall::Error::Poisoned => failed(path, io::Error::other("writing failed before")),
        other => damaged(path, other.to_string()),
    }
}
