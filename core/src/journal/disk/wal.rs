//! Looks through fjall's write-ahead log before fjall does.
//!
//! After a crash its end may be torn, which fjall cuts off, or have pages missing that were written out of order, over which fjall
//! does not open, or cuts off what is whole behind them. Here whole batches stay and damaged ones go, and it is said.
//!
//! The format is that of fjall 3: a batch is `01`, u32 items, u64 sequence number; its items; `03`, u64 XXH3 of the items, `FJL 03`.
//! An item is `02`, u8 kind, u8 compression, u64 keyspace, u16 key, u32 and u32 bytes of the value, key, value; or `04`, u64
//! keyspace. All numbers are little-endian.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::ops::Range;
use std::path::{Path, PathBuf};

const TRAILER: &[u8] = b"FJL\x03";
/// Bytes in front of the items of a batch.
const START: usize = 13;
/// Bytes behind the items of a batch.
const END: usize = 13;

/// What was found in the logs of a database.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Found {
    /// Bytes behind the last whole batch.
    pub(super) torn: u64,
    /// Damaged places in front of whole batches.
    pub(super) damaged: u64,
}

/// Checks every log of the database in `folder`, and leaves only whole batches in it.
pub(super) fn repair(folder: &Path) -> io::Result<Found> {
    let mut found = Found::default();
    for path in logs(folder)? {
        let bytes = fs::read(&path)?;
        let log = read(&bytes);
        found.torn += log.torn as u64;
        found.damaged += log.damaged;
        if log.damaged > 0 {
            rewrite(&path, &bytes, &log.whole)?;
        } else if log.torn > 0 {
            let file = File::options().write(true).open(&path)?;
            let end = log.whole.last().map_or(0, |batch| batch.end);
            file.set_len(end as u64)?;
            file.sync_all()?;
        }
    }
    Ok(found)
}

/// The logs, in no order.
fn logs(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut logs = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.extension().is_some_and(|it| it == "jnl") {
            logs.push(path);
        }
    }
    Ok(logs)
}

#[derive(Debug, Default)]
struct Log {
    /// Where whole batches are; neighbours are one.
    whole: Vec<Range<usize>>,
    /// Bytes behind the last of them, until nothing but zeros follows.
    torn: usize,
    damaged: u64,
}

/// Bytes in front of the room that was never written to, which is zero.
pub(in super::super) fn used(bytes: &[u8]) -> usize {
    const ZEROS: &[u8] = &[0; 4096];
    let mut bytes = bytes;
    while let Some((front, ZEROS)) = bytes
        .split_last_chunk::<4096>()
        .map(|(front, back)| (front, &back[..]))
    {
        bytes = front;
    }
    let last = bytes.iter().rposition(|byte| *byte != 0);
    last.map_or(0, |last| last + 1)
}

fn read(bytes: &[u8]) -> Log {
    let mut log = Log::default();
    let used = used(bytes);
    let mut at = 0;
    while at < used {
        let end = match batch(bytes, at) {
            Some((end, true)) => end,
            damaged => {
                // Where its lengths lead to, if they lead to the next batch: what looks like a batch within a record is none.
                let behind = damaged.map(|(end, _)| end).filter(|end| whole(bytes, *end));
                let next = behind.or_else(|| (at + 1..used).find(|at| whole(bytes, *at)));
                let Some(next) = next else {
                    log.torn = used - at;
                    break;
                };
                log.damaged += 1;
                at = next;
                continue;
            }
        };
        match log.whole.last_mut() {
            Some(last) if last.end == at => last.end = end,
            _ => log.whole.push(at..end),
        }
        at = end;
    }
    log
}

/// Whether a whole batch begins at `at`.
fn whole(bytes: &[u8], at: usize) -> bool {
    batch(bytes, at).is_some_and(|(_, whole)| whole)
}

/// The end of the batch that begins at `at`, if one does, and whether its checksum is right.
fn batch(bytes: &[u8], at: usize) -> Option<(usize, bool)> {
    let start = bytes.get(at..at.checked_add(START)?)?;
    if start[0] != 1 {
        return None;
    }
    let count = u32::from_le_bytes(*start[1..].first_chunk()?);
    let items = at + START;
    let mut end = items;
    for _ in 0..count {
        end = item(bytes, end)?;
    }
    let trailer = bytes.get(end..end.checked_add(END)?)?;
    if trailer[0] != 3 || !trailer.ends_with(TRAILER) {
        return None;
    }
    let sum = u64::from_le_bytes(*trailer[1..].first_chunk()?);
    let right = xxhash_rust::xxh3::xxh3_64(&bytes[items..end]) == sum;
    Some((end + END, right))
}

/// The end of the item that begins at `at`.
fn item(bytes: &[u8], at: usize) -> Option<usize> {
    let rest = bytes.get(at..)?;
    match rest.first()? {
        2 => {
            let key = u16::from_le_bytes(*rest.get(11..)?.first_chunk()?);
            let value = u32::from_le_bytes(*rest.get(17..)?.first_chunk()?);
            let length = 21 + usize::from(key) + value as usize;
            (length <= rest.len()).then_some(at + length)
        }
        4 => (rest.len() >= 9).then_some(at + 9),
        _ => None,
    }
}

/// Puts a log with these parts alone in the place of the log.
fn rewrite(path: &Path, bytes: &[u8], parts: &[Range<usize>]) -> io::Result<()> {
    let new = path.with_extension("new");
    let mut file = File::create(&new)?;
    for part in parts {
        file.write_all(&bytes[part.clone()])?;
    }
    file.sync_all()?;
    fs::rename(&new, path)?;
    File::open(path.parent().unwrap_or(Path::new(".")))?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A batch as fjall writes it.
    fn written(value: &[u8]) -> Vec<u8> {
        let mut items = vec![2, 0, 0];
        items.extend(1_u64.to_le_bytes());
        items.extend(3_u16.to_le_bytes());
        let length = u32::try_from(value.len()).unwrap().to_le_bytes();
        items.extend([length, length].concat());
        items.extend(b"key");
        items.extend(value);
        let mut bytes = vec![1, 1, 0, 0, 0];
        bytes.extend(9_u64.to_le_bytes());
        bytes.extend(&items);
        bytes.push(3);
        bytes.extend(xxhash_rust::xxh3::xxh3_64(&items).to_le_bytes());
        bytes.extend(TRAILER);
        bytes
    }

    #[test]
    fn fjall_writes_what_is_read_here() {
        let folder = tempfile::tempdir().unwrap();
        let database = fjall::Database::builder(folder.path()).open().unwrap();
        let options = fjall::KeyspaceCreateOptions::default;
        let keyspace = database.keyspace("a", options).unwrap();
        for index in 0..9_u8 {
            keyspace.insert([index], vec![index; 100]).unwrap();
        }
        let mut batch = database.batch();
        batch.insert(&keyspace, "x", "y");
        batch.remove(&keyspace, [1]);
        batch.commit().unwrap();
        keyspace.clear().unwrap();
        let log = read(&fs::read(logs(folder.path()).unwrap().first().unwrap()).unwrap());
        assert_eq!((log.whole.len(), log.torn, log.damaged), (1, 0, 0));
        assert!(log.whole[0].end > 1_000, "{log:?}");
    }

    #[test]
    fn damage_costs_the_batch_that_it_is_in() {
        let batches: Vec<_> = (1..6_u8).map(|byte| written(&[byte; 50])).collect();
        let length = batches[0].len();
        let whole = batches.concat();
        for index in 0..whole.len() {
            let mut bytes = whole.clone();
            bytes[index] ^= 0x40;
            bytes.resize(whole.len() + 100, 0);
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("0.jnl");
            fs::write(&path, &bytes).unwrap();
            let found = repair(folder.path()).unwrap();
            let hit = index / length;
            // The sequence number is in no checksum.
            if (5..START).contains(&(index % length)) {
                assert_eq!(found, Found::default());
                continue;
            }
            let mut left = batches.clone();
            left.remove(hit);
            let repaired = fs::read(&path).unwrap();
            assert!(repaired == left.concat(), "{index}");
            assert_eq!(found.damaged, u64::from(hit < 4), "{index}");
            assert_eq!(found.torn > 0, hit == 4, "{index}");
            assert_eq!(repair(folder.path()).unwrap(), Found::default());
        }
    }
}
