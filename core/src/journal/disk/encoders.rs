//! Blocks on their way to the disk: the writer encodes them, with a helper at its side when many wait, and they leave in the order
//! in which they came.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use fjall::Slice;
use parking_lot::{Condvar, Mutex, MutexGuard};

use super::super::recent::Block;
use super::block::{Encoder, Key};

/// Bytes of records that wait until the helper is woken: for less the writer is done before the helper has begun.
pub(super) const WORTH: usize = 64 << 10;

/// The first record of a block that cannot be encoded.
#[cfg(test)]
pub(in super::super) const PANICS: &[u8] = b"panic!";

/// Makes the key and the value of a block, compressed or not.
type Encode = fn(&mut Encoder, &Block, bool) -> (Key, Slice);

/// The key and the value of a block, or nothing when making them ended in a panic.
pub(super) type Encoded = Option<(Key, Slice)>;

/// Belongs to the writer. Dropped, it lets the helper go.
pub(super) struct Encoders {
    shared: Arc<Shared>,
    encoder: Encoder,
    /// Whether there is a helper, or will not be one.
    started: bool,
}

struct Shared {
    encode: Encode,
    /// Whether there is time for compressing.
    compress: AtomicBool,
    state: Mutex<State>,
    /// Something waits, or nothing will again.
    waiting: Condvar,
    /// The helper has encoded a block.
    encoded: Condvar,
}

#[derive(Default)]
struct State {
    slots: VecDeque<Slot>,
    /// The number of the slot in front, counted since the start.
    front: u64,
    ended: bool,
}

enum Slot {
    Waiting(Arc<Block>),
    /// Somebody encodes it.
    Taken,
    Done(Encoded),
}

// === impl Encoders ===

impl Encoders {
    pub(super) fn new() -> Self {
        Self::with(|encoder, block, compress| {
            #[cfg(test)]
            assert!(block.records[0] != PANICS, "as the test wants it");
            encoder.encode(block.first, block.at, &block.records, compress)
        })
    }

    fn with(encode: Encode) -> Self {
        let shared = Shared {
            encode,
            compress: AtomicBool::new(true),
            state: Mutex::default(),
            waiting: Condvar::new(),
            encoded: Condvar::new(),
        };
        Self {
            shared: Arc::new(shared),
            encoder: Encoder::default(),
            started: false,
        }
    }

    /// Whether blocks that are encoded from now on are compressed, where it pays.
    pub(super) fn compress(&self, compress: bool) {
        self.shared.compress.store(compress, Ordering::Relaxed);
    }

    /// Adds a block behind the others.
    pub(super) fn push(&mut self, block: Arc<Block>) {
        let mut state = self.shared.state.lock();
        state.slots.push_back(Slot::Waiting(block));
        let waiting = state.slots.iter().filter_map(|slot| match slot {
            Slot::Waiting(block) => Some(block.bytes),
            Slot::Taken | Slot::Done(_) => None,
        });
        // The first is the writer's.
        let several = waiting.clone().nth(1).is_some();
        let helps = several && waiting.sum::<usize>() >= WORTH;
        drop(state);
        if helps {
            self.start();
            self.shared.waiting.notify_one();
        }
    }

    /// Takes out the block in front, which must be there: encodes it, or others until the helper has encoded it.
    pub(super) fn next(&mut self) -> Encoded {
        let mut state = self.shared.state.lock();
        loop {
            if matches!(state.slots.front(), None | Some(Slot::Done(_))) {
                return state.pop();
            }
            if !self.shared.encode_one(&mut state, &mut self.encoder) {
                self.shared.encoded.wait(&mut state);
            }
        }
    }

    /// Forgets every block.
    pub(super) fn clear(&mut self) {
        let mut state = self.shared.state.lock();
        state.front += state.slots.len() as u64;
        state.slots.clear();
    }

    /// Starts the helper. Without one the writer does it all.
    fn start(&mut self) {
        if std::mem::replace(&mut self.started, true)
            || std::thread::available_parallelism().is_ok_and(|it| it.get() == 1)
        {
            return;
        }
        let shared = Arc::clone(&self.shared);
        let thread = std::thread::Builder::new().name("evows-encoder".to_owned());
        if let Err(error) = thread.spawn(move || shared.help()) {
            tracing::warn!(%error, "no thread to encode records with: a journal is slower");
        }
    }
}

impl Drop for Encoders {
    fn drop(&mut self) {
        self.clear();
        self.shared.state.lock().ended = true;
        self.shared.waiting.notify_one();
    }
}

// === impl Shared ===

impl Shared {
    fn help(&self) {
        let mut encoder = Encoder::default();
        let mut state = self.state.lock();
        while !state.ended {
            if self.encode_one(&mut state, &mut encoder) {
                self.encoded.notify_one();
            } else {
                self.waiting.wait(&mut state);
            }
        }
    }

    /// Encodes the first block that waits; `false` when none does.
    fn encode_one(&self, state: &mut MutexGuard<'_, State>, encoder: &mut Encoder) -> bool {
        let mut waiting = state.slots.iter_mut().enumerate();
        let Some((index, block)) = waiting.find_map(|(index, slot)| {
            let Slot::Waiting(block) = slot else {
                return None;
            };
            let block = Arc::clone(block);
            *slot = Slot::Taken;
            Some((index, block))
        }) else {
            return false;
        };
        let number = state.front + index as u64;
        let done = MutexGuard::unlocked(state, || {
            // However it ends, the slot must not stay taken: the writer waits for it.
            let compress = self.compress.load(Ordering::Relaxed);
            let encode = AssertUnwindSafe(|| (self.encode)(encoder, &block, compress));
            let done = catch_unwind(encode).ok();
            drop(block);
            done
        });
        if done.is_none() {
            *encoder = Encoder::default();
        }
        state.put(number, done);
        true
    }
}

// === impl State ===

impl State {
    /// Fills a slot, unless it is gone.
    fn put(&mut self, number: u64, encoded: Encoded) {
        let index = number.checked_sub(self.front);
        let index = index.and_then(|index| usize::try_from(index).ok());
        if let Some(slot) = index.and_then(|index| self.slots.get_mut(index)) {
            *slot = Slot::Done(encoded);
        }
    }

    fn pop(&mut self) -> Encoded {
        let slot = self.slots.pop_front()?;
        self.front += 1;
        match slot {
            Slot::Done(encoded) => encoded,
            Slot::Waiting(_) | Slot::Taken => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn block(first: u64) -> Arc<Block> {
        Arc::new(Block {
            first,
            at: 1_000,
            records: vec![Bytes::from(vec![b'a'; WORTH])],
            bytes: WORTH,
        })
    }

    fn encode(encoder: &mut Encoder, block: &Block, compress: bool) -> (Key, Slice) {
        let named = std::thread::current().name() == Some("evows-encoder");
        assert!(!named || block.first != 13, "as the test wants it");
        // Not in order: some take longer.
        std::thread::yield_now();
        encoder.encode(block.first, block.at, &block.records, compress)
    }

    #[test]
    fn blocks_leave_in_the_order_in_which_they_came() {
        let mut encoders = Encoders::with(encode);
        let mut next = 100;
        for round in 1..200 {
            for first in next..next + round % 7 {
                encoders.push(block(first));
            }
            for first in next..next + round % 7 {
                let (key, value) = encoders.next().unwrap();
                assert_eq!(key.first, first);
                assert_eq!(key.stored as usize, value.len());
            }
            next += round % 7;
        }
        assert!(encoders.next().is_none());
    }

    #[test]
    fn what_was_forgotten_does_not_come_back() {
        let mut encoders = Encoders::with(encode);
        for round in 0..200 {
            for first in 0..4 {
                encoders.push(block(1_000 * round + 100 + first));
            }
            if round % 2 == 0 {
                assert!(encoders.next().is_some());
            }
            encoders.clear();
            encoders.push(block(1_000 * round + 500));
            let (key, _) = encoders.next().unwrap();
            assert_eq!(key.first, 1_000 * round + 500);
        }
    }

    #[test]
    fn a_panic_of_the_helper_costs_one_block_and_not_the_helper() {
        let mut encoders = Encoders::with(encode);
        let mut panics = 0;
        for _ in 0..20_000 {
            for first in [12, 13, 14] {
                encoders.push(block(first));
            }
            for first in [12, 13, 14] {
                if let Some((key, _)) = encoders.next() {
                    assert_eq!(key.first, first);
                } else {
                    assert_eq!(first, 13);
                    panics += 1;
                }
            }
            if panics > 3 {
                return;
            }
        }
        panic!("the helper did nothing");
    }
}
