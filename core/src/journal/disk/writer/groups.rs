//! What becomes of appends: groups, which are encoded ahead, written in order, and reported.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use bytes::Bytes;

use super::super::super::recent::Block;
use super::super::super::{Durability, JournalError, WhenFull, millis};
use super::super::block::Key;
use super::super::encoders::{Encoded, WORTH};
use super::super::folder::failed;
use super::super::queue::{Job, Reply};
use super::{Attempt, Writer, attempt};
use crate::config::Size;

/// Bytes of records that are written as one block, unless one append has more.
const BLOCK_BYTES: usize = 256 << 10;
/// Records of it.
const BLOCK_RECORDS: usize = 4_096;
/// Blocks that may be encoded before the first of them is written.
const AHEAD: usize = 4;

/// Appends that become one block.
#[derive(Default)]
struct Group {
    records: Vec<Bytes>,
    bytes: usize,
    /// Who waits, and the index of their first record.
    replies: Vec<(Reply<u64>, u64)>,
}

/// A block that is being encoded, and who waits for it.
pub(super) struct Ahead {
    block: Arc<Block>,
    /// With the index of their first record.
    replies: Vec<(Reply<u64>, u64)>,
}

/// A block that was written, and who waits for it.
pub(super) struct Written {
    pub(super) key: Key,
    block: Arc<Block>,
    replies: Vec<(Reply<u64>, u64)>,
}

// === impl Writer ===

impl Writer {
    /// Does the jobs, and returns who wants the journal to be closed. Blocks may stay ahead while there are more jobs.
    pub(super) fn work(&mut self, jobs: &mut VecDeque<Job>) -> Option<Reply<()>> {
        let mut closing = None;
        while let Some(job) = jobs.pop_front() {
            match job {
                Job::Append {
                    records,
                    bytes,
                    reply,
                } => {
                    let mut group = Group::default();
                    self.admit(&mut group, records, bytes, reply);
                    while let Some(Job::Append { .. }) = jobs.front()
                        && group.has_room()
                        && let Some(Job::Append {
                            records,
                            bytes,
                            reply,
                        }) = jobs.pop_front()
                    {
                        self.admit(&mut group, records, bytes, reply);
                    }
                    self.encode(group);
                    while self.ahead.len() > AHEAD {
                        self.write_next();
                    }
                }
                Job::Trim { before, reply } => {
                    self.settle();
                    reply.send(self.trim(before)).ok();
                }
                Job::Close { reply } => closing = Some(reply),
            }
        }
        // Whatever waits for a sync is written first: another round would put the sync off.
        let waits = self.shared.options.durability == Durability::Always;
        while let Some(last) = self.ahead.back() {
            // While a small one is written more comes together for the next.
            let small = last.block.bytes < WORTH;
            if !waits && !small && self.shared.queue.has_jobs() {
                break;
            }
            self.write_next();
        }
        if self.ahead.is_empty() {
            self.settle();
        }
        closing
    }

    /// Takes an append into a group, unless there is no room for it.
    fn admit(&mut self, group: &mut Group, records: Vec<Bytes>, bytes: usize, reply: Reply<u64>) {
        let retention = self.shared.options.retention;
        let wanted = group.bytes + bytes;
        if retention.full == WhenFull::Reject && !self.fits(wanted) {
            // They may take less than they count for.
            self.write_ahead();
            if !self.fits(wanted) {
                let max = Size(retention.bytes);
                reply.send(Err(JournalError::Full { max })).ok();
                return;
            }
        }
        let index = group.records.len() as u64;
        group.replies.push((reply, index));
        group.bytes += bytes;
        if group.records.is_empty() {
            group.records = records;
        } else {
            group.records.extend(records);
        }
    }

    /// Whether there is room for so many bytes. Blocks that are not reported count uncompressed.
    fn fits(&self, bytes: usize) -> bool {
        let ahead = self.ahead.iter().map(|it| it.block.bytes);
        let waiting = self.written.iter().map(|it| it.block.bytes).chain(ahead);
        let wanted = (waiting.sum::<usize>() + bytes) as u64;
        let used = self.shared.state.lock().bytes();
        used.saturating_add(wanted) <= self.shared.options.retention.bytes
    }

    /// Gives a group its offsets, and begins to encode it.
    fn encode(&mut self, group: Group) {
        let Group {
            records,
            bytes,
            replies,
        } = group;
        if records.is_empty() {
            return;
        }
        if self.store.is_none() {
            refuse(replies, &self.failure());
            return;
        }
        let ahead = self.ahead.back().map(|it| it.block.end());
        let before = ahead.or_else(|| Some(self.written.last()?.block.end()));
        let block = Arc::new(Block {
            first: before.unwrap_or_else(|| self.shared.state.lock().next),
            at: millis(SystemTime::now()),
            records,
            bytes,
        });
        self.encoders.push(Arc::clone(&block));
        self.ahead.push_back(Ahead { block, replies });
    }

    fn write_ahead(&mut self) {
        while !self.ahead.is_empty() {
            self.write_next();
        }
    }

    /// Writes the block that is next. On an error whoever waits for it, or for one behind it, is told.
    fn write_next(&mut self) {
        let Some(Ahead { block, replies }) = self.ahead.pop_front() else {
            return;
        };
        let encoded = self.encoders.next();
        match self.write(encoded) {
            Ok(key) => self.written.push(Written {
                key,
                block,
                replies,
            }),
            Err(error) => {
                refuse(replies, &error);
                self.fail(&error);
                return;
            }
        }
        if self.shared.options.durability != Durability::Always {
            self.unsynced.get_or_insert_with(Instant::now);
            self.report();
        }
    }

    fn write(&mut self, encoded: Encoded) -> Attempt<Key> {
        let (key, value) = encoded.ok_or_else(|| {
            let panicked = io::Error::other("encoding records ended in a panic");
            failed(self.folder.path(), panicked)
        })?;
        self.make_room()?;
        // Cursors that were set before records were appended are not behind them after a crash.
        if !self.shared.state.lock().dirty.is_empty() {
            self.write_cursors()?;
        }
        let segment = self.shared.state.lock().segments.back().cloned();
        let (Some(store), Some(segment)) = (&self.store, segment) else {
            return Err(self.failure());
        };
        attempt(self.folder.path(), || store.insert(&segment, key, value))?;
        Ok(key)
    }

    /// Writes what is ahead, syncs what must be on the disk, and reports it.
    fn settle(&mut self) {
        self.write_ahead();
        if self.written.is_empty() {
            return;
        }
        match self.sync() {
            Ok(()) => self.report(),
            Err(error) => self.fail(&error),
        }
    }

    /// Lets readers see what was written, and those know who wait for it.
    pub(super) fn report(&mut self) {
        for Written {
            key,
            block,
            replies,
        } in self.written.drain(..)
        {
            let (first, next) = (block.first, block.end());
            {
                let mut state = self.shared.state.lock();
                if let Some(segment) = state.segments.back_mut() {
                    segment.summary.add(&key);
                }
                state.next = next;
                state.recent.push(block);
            }
            self.shared.next.send_replace(next);
            for (reply, index) in replies {
                reply.send(Ok(first + index)).ok();
            }
        }
    }

    /// Tells everybody whose records are not reported that they will not be.
    pub(super) fn refuse_all(&mut self, error: &JournalError) {
        self.encoders.clear();
        let written = self.written.drain(..).map(|it| it.replies);
        for replies in written.chain(self.ahead.drain(..).map(|it| it.replies)) {
            refuse(replies, error);
        }
    }
}

// === impl Written ===

impl Written {
    pub(super) fn appends(&self) -> usize {
        self.replies.len()
    }
}

// === impl Group ===

impl Group {
    fn has_room(&self) -> bool {
        self.bytes < BLOCK_BYTES && self.records.len() < BLOCK_RECORDS
    }
}

fn refuse(replies: Vec<(Reply<u64>, u64)>, error: &JournalError) {
    for (reply, _) in replies {
        reply.send(Err(error.clone())).ok();
    }
}
