//! The newest blocks, as they were appended: whoever reads right behind the writer finds its records here.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;

use super::{Limit, Page, Record, time};

/// Records that were stored together.
#[derive(Debug)]
pub(super) struct Block {
    pub(super) first: u64,
    /// When it was stored, in milliseconds since 1970.
    pub(super) at: u64,
    pub(super) records: Vec<Bytes>,
    /// Bytes of the records.
    pub(super) bytes: usize,
}

/// Blocks in order, bounded by their bytes.
#[derive(Debug)]
pub(super) struct Recent {
    pub(super) blocks: VecDeque<Arc<Block>>,
    pub(super) bytes: usize,
    most: usize,
}

/// A page that is being filled.
#[derive(Debug)]
pub(super) struct Filling {
    page: Page,
    left: Limit,
    full: bool,
}

/// What a record takes in memory besides its bytes.
const OVERHEAD: usize = 64;

// === impl Block ===

impl Block {
    /// The offset behind the last record.
    pub(super) fn end(&self) -> u64 {
        self.first + self.records.len() as u64
    }

    fn weight(&self) -> usize {
        self.bytes + self.records.len() * OVERHEAD
    }
}

// === impl Recent ===

impl Recent {
    pub(super) fn new(most: usize) -> Self {
        Self {
            blocks: VecDeque::new(),
            bytes: 0,
            most,
        }
    }

    pub(super) fn push(&mut self, block: Arc<Block>) {
        self.bytes += block.weight();
        self.blocks.push_back(block);
        while self.bytes > self.most && self.pop() {}
    }

    /// Drops the oldest block.
    pub(super) fn pop(&mut self) -> bool {
        let Some(block) = self.blocks.pop_front() else {
            return false;
        };
        self.bytes -= block.weight();
        true
    }

    /// Drops the blocks that begin in front of `oldest`.
    #[cfg(feature = "disk")]
    pub(super) fn trim(&mut self, oldest: u64) {
        while self.blocks.front().is_some_and(|it| it.first < oldest) && self.pop() {}
    }

    /// The blocks that have `from` or come later; nothing when `from` lies in front of all of them.
    pub(super) fn from(&self, from: u64, most: Limit) -> Option<Vec<Arc<Block>>> {
        if self.blocks.front().is_none_or(|block| block.first > from) {
            return None;
        }
        let start = self.blocks.partition_point(|block| block.end() <= from);
        let (mut records, mut bytes) = (0, 0);
        let blocks = self.blocks.range(start..).take_while(|block| {
            let wanted = records < most.records && bytes < most.bytes;
            let skipped = usize::try_from(from.saturating_sub(block.first));
            // Of the first block perhaps only the end: it may need the next one as well.
            if skipped == Ok(0) {
                records += block.records.len();
                bytes += block.bytes;
            }
            wanted
        });
        Some(blocks.cloned().collect())
    }
}

// === impl Filling ===

impl Filling {
    pub(super) fn new(from: u64, most: Limit) -> Self {
        let page = Page {
            records: Vec::new(),
            next: from,
        };
        Self {
            page,
            left: most,
            full: false,
        }
    }

    /// Where the page has to go on.
    #[cfg(feature = "disk")]
    pub(super) fn next(&self) -> u64 {
        self.page.next
    }

    pub(super) fn is_full(&self) -> bool {
        self.full
    }

    /// Takes what it needs of a block.
    pub(super) fn take(&mut self, first: u64, at: u64, records: &[Bytes]) {
        let skip = self.page.next.saturating_sub(first);
        let skip = usize::try_from(skip).unwrap_or(usize::MAX);
        for (index, bytes) in records.iter().enumerate().skip(skip) {
            let none = self.left.records == 0 || self.left.bytes < bytes.len();
            if none && !self.page.records.is_empty() {
                self.full = true;
                return;
            }
            let offset = first + index as u64;
            self.left.records = self.left.records.saturating_sub(1);
            self.left.bytes = self.left.bytes.saturating_sub(bytes.len());
            self.page.records.push(Record {
                offset,
                at: time(at),
                bytes: bytes.clone(),
            });
            self.page.next = offset + 1;
        }
        self.full = self.left.records == 0 || self.left.bytes == 0;
    }

    /// Passes over what is not there.
    #[cfg(feature = "disk")]
    pub(super) fn pass(&mut self, next: u64) {
        self.page.next = self.page.next.max(next);
    }

    pub(super) fn finish(self) -> Page {
        self.page
    }
}
