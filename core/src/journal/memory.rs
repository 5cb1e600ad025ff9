//! A journal that ends with the process.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::SystemTime;

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::watch;

use super::recent::{Block, Filling, Recent};
use super::{Bounds, Journal, JournalError, Limit, Page, Retention, WhenFull, millis, size};
use crate::config::Size;

/// A journal in memory. What is appended at once is a segment.
#[derive(Debug)]
pub struct Memory {
    retention: Retention,
    epoch: u64,
    state: Mutex<State>,
    /// The offset that comes next.
    next: watch::Sender<u64>,
}

#[derive(Debug)]
struct State {
    blocks: Recent,
    records: u64,
    bytes: u64,
    next: u64,
    cursors: BTreeMap<String, u64>,
    closed: bool,
}

// === impl Memory ===

impl Memory {
    /// An empty journal.
    pub fn new(retention: Retention) -> Self {
        let state = State {
            blocks: Recent::new(usize::MAX),
            records: 0,
            bytes: 0,
            next: 1,
            cursors: BTreeMap::new(),
            closed: false,
        };
        Self {
            retention,
            epoch: fastrand::u64(1..),
            state: Mutex::new(state),
            next: watch::Sender::new(1),
        }
    }
}

#[async_trait]
impl Journal for Memory {
    async fn append(&self, records: Vec<Bytes>) -> Result<u64, JournalError> {
        let bytes = size(&records)?;
        let mut state = self.state.lock();
        if state.closed {
            return Err(JournalError::Closed);
        }
        let first = state.next;
        if records.is_empty() {
            return Ok(first);
        }
        let max = self.retention.bytes;
        let rejects = self.retention.full == WhenFull::Reject;
        if rejects && state.bytes.saturating_add(bytes as u64) > max {
            return Err(JournalError::Full { max: Size(max) });
        }
        let now = millis(SystemTime::now());
        state.push(Block {
            first,
            at: now,
            records,
            bytes,
        });
        state.evict(&self.retention, now);
        // Within the lock, for the greatest to come last.
        self.next.send_replace(state.next);
        Ok(first)
    }

    async fn read(&self, from: u64, most: Limit) -> Result<Page, JournalError> {
        let mut state = self.state.lock();
        if state.closed {
            return Err(JournalError::Closed);
        }
        state.evict(&self.retention, millis(SystemTime::now()));
        let from = from.max(state.oldest());
        let blocks = state.blocks.from(from, most).unwrap_or_default();
        drop(state);
        let mut filling = Filling::new(from, most);
        for block in blocks {
            filling.take(block.first, block.at, &block.records);
            if filling.is_full() {
                break;
            }
        }
        Ok(filling.finish())
    }

    fn bounds(&self) -> Bounds {
        let state = self.state.lock();
        Bounds {
            oldest: state.oldest(),
            next: state.next,
            bytes: state.bytes,
            raw_bytes: state.bytes,
            records: state.records,
            damaged: 0,
        }
    }

    async fn seek(&self, time: SystemTime) -> Result<u64, JournalError> {
        Ok(self.state.lock().seek(time))
    }

    fn seek_roughly(&self, time: SystemTime) -> Option<u64> {
        let state = self.state.lock();
        let found = state.seek(time);
        (found == 1 || found > state.oldest()).then_some(found)
    }

    async fn appended(&self, next: u64) {
        // The sender lives as long as this does.
        let mut newest = self.next.subscribe();
        newest.wait_for(|newest| *newest > next).await.ok();
    }

    fn cursors(&self) -> Vec<(String, u64)> {
        let state = self.state.lock();
        let cursors = state.cursors.iter();
        cursors.map(|(name, at)| (name.clone(), *at)).collect()
    }

    fn set_cursor(&self, name: &str, offset: Option<u64>) {
        let mut state = self.state.lock();
        match offset {
            Some(offset) => state.cursors.insert(name.to_owned(), offset),
            None => state.cursors.remove(name),
        };
    }

    async fn trim(&self, before: u64) -> Result<(), JournalError> {
        let mut state = self.state.lock();
        while state
            .blocks
            .blocks
            .front()
            .is_some_and(|it| it.end() <= before)
        {
            state.pop();
        }
        Ok(())
    }

    fn epoch(&self) -> u64 {
        self.epoch
    }

    async fn close(&self) -> Result<(), JournalError> {
        self.state.lock().closed = true;
        Ok(())
    }
}

// === impl State ===

impl State {
    fn push(&mut self, block: Block) {
        self.next = block.end();
        self.records += block.records.len() as u64;
        self.bytes += block.bytes as u64;
        self.blocks.push(Arc::new(block));
    }

    fn pop(&mut self) {
        if let Some(block) = self.blocks.blocks.front() {
            self.records -= block.records.len() as u64;
            self.bytes -= block.bytes as u64;
            self.blocks.pop();
        }
    }

    fn evict(&mut self, retention: &Retention, now: u64) {
        let age = u64::try_from(retention.age.as_millis()).unwrap_or(u64::MAX);
        let drops = retention.full == WhenFull::DropOldest;
        while let Some(block) = self.blocks.blocks.front() {
            let full = drops && self.bytes > retention.bytes && self.blocks.blocks.len() > 1;
            let many = self.records > retention.records && self.blocks.blocks.len() > 1;
            if !full && !many && block.at.saturating_add(age) >= now {
                return;
            }
            self.pop();
        }
    }

    fn seek(&self, time: SystemTime) -> u64 {
        let mut blocks = self.blocks.blocks.iter();
        // The clock may have been set back: the times need not be in order.
        let found = blocks.find(|block| block.at >= millis(time));
        found.map_or(self.next, |block| block.first)
    }

    fn oldest(&self) -> u64 {
        let oldest = self.blocks.blocks.front();
        oldest.map_or(self.next, |block| block.first)
    }
}
