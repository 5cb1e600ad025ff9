//! One event in the log, and the bytes that transports make of it.

use std::fmt;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Instant;

use bytes::Bytes;

use super::Position;
use crate::Event;

/// What an entry weighs beside its envelope and attachments: itself, its place in the rings, its frames' heads.
const OVERHEAD: usize = 512;
/// What its frame may have beside that: transports copy small envelopes into theirs.
const FRAMED: usize = 2048;

/// One event in the log. Shared by every channel that it was published to, and by every client.
#[derive(Debug)]
pub struct Entry {
    /// Where it stands.
    pub position: Position,
    /// What happened.
    pub event: Event,
    pub(super) appended: Instant,
    pub(super) size: usize,
    frames: Frames,
}

/// What a client of one kind is sent for an entry: made once, shared by all clients of that kind.
///
/// The pieces are written one after the other. A piece may be a slice of the envelope, so that framing an event does not
/// copy it.
#[derive(Debug, Clone, Default)]
pub struct Frame {
    pieces: Box<[Bytes]>,
    len: usize,
}

/// One way to frame entries: a transport has one for each form in which it sends them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Variant(u32);

/// Which frame of an entry: the variant, and the channel, whose name may be part of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct FrameKey {
    variant: Variant,
    channel: u32,
}

/// The frames of one entry: a list that only grows, read without a lock. There are as many as there are kinds of clients, so
/// it is short.
#[derive(Default)]
struct Frames(OnceLock<Box<Node>>);

struct Node {
    key: FrameKey,
    frame: Frame,
    next: Frames,
}

// === impl Entry ===

impl Entry {
    pub(super) fn new(position: Position, event: Event, appended: Instant) -> Self {
        let own = event.size();
        let size = own + own.min(FRAMED) + OVERHEAD;
        Self {
            position,
            event,
            appended,
            size,
            frames: Frames::default(),
        }
    }

    /// The frame of this kind, made with `build` by whoever needs it first. Others wait for it meanwhile: `build` must not
    /// block, nor ask for a frame of the same entry.
    pub fn frame(&self, key: FrameKey, build: impl FnOnce(&Self) -> Frame) -> &Frame {
        self.frames.get_or_insert(key, || build(self))
    }

    /// The frame of this kind, if somebody needed it before.
    pub fn framed(&self, key: FrameKey) -> Option<&Frame> {
        self.frames.get(key)
    }

    /// What it weighs in the log, in bytes.
    pub fn size(&self) -> usize {
        self.size
    }
}

// === impl Frame ===

impl Frame {
    /// A frame of these pieces, empty ones left out.
    pub fn new(pieces: impl IntoIterator<Item = Bytes>) -> Self {
        let pieces: Box<[Bytes]> = pieces.into_iter().filter(|it| !it.is_empty()).collect();
        let len = pieces.iter().map(Bytes::len).sum();
        Self { pieces, len }
    }

    /// What is written, in order.
    pub fn pieces(&self) -> &[Bytes] {
        &self.pieces
    }

    /// Bytes in all.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether clients of this kind are sent nothing.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}

// === impl Variant ===

impl Variant {
    /// A variant that nobody else in this process has.
    pub fn unique() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        Self(NEXT.fetch_add(1, Ordering::Relaxed))
    }
}

// === impl FrameKey ===

impl FrameKey {
    pub(super) fn new(variant: Variant, channel: u32) -> Self {
        Self { variant, channel }
    }
}

// === impl Frames ===

impl Frames {
    fn get_or_insert(&self, key: FrameKey, build: impl FnOnce() -> Frame) -> &Frame {
        let mut build = Some(build);
        let mut at = self;
        loop {
            let node = at.0.get_or_init(|| {
                // Taken once: the node that it goes into has the key that ends the loop.
                let frame = build.take().map(|build| build()).unwrap_or_default();
                Box::new(Node {
                    key,
                    frame,
                    next: Self::default(),
                })
            });
            if node.key == key {
                return &node.frame;
            }
            at = &node.next;
        }
    }

    fn get(&self, key: FrameKey) -> Option<&Frame> {
        let mut at = self;
        while let Some(node) = at.0.get() {
            if node.key == key {
                return Some(&node.frame);
            }
            at = &node.next;
        }
        None
    }
}

impl fmt::Debug for Frames {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Frames").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::super::{Epoch, Offset};
    use super::*;

    #[test]
    fn a_frame_is_made_once_for_each_kind() {
        let event = Event::parse(
            Bytes::from_static(br#"{"event":"call","instance":"a"}"#),
            SystemTime::UNIX_EPOCH,
        )
        .unwrap();
        let position = Position {
            epoch: Epoch::random(),
            offset: Offset::FIRST,
        };
        let entry = Entry::new(position, event, Instant::now());
        let (a, b) = (Variant::unique(), Variant::unique());
        let keys =
            [(a, 1), (b, 1), (a, 2)].map(|(variant, channel)| FrameKey::new(variant, channel));
        for round in 0..2 {
            for (n, key) in keys.into_iter().enumerate() {
                assert_eq!(entry.framed(key).is_some(), round > 0);
                let frame = entry.frame(key, |_| {
                    assert_eq!(round, 0, "made again");
                    Frame::new(vec![Bytes::from(vec![0; n]), Bytes::from_static(b"x")])
                });
                assert_eq!(frame.len(), n + 1);
            }
        }
        let empty = Frame::new(vec![Bytes::new()]);
        assert!(empty.is_empty() && empty.pieces().is_empty());
    }
}
