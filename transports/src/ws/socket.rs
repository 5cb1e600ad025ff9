//! One client's WebSocket: messages in, frames out.
//!
//! At rest it owns neither a read buffer nor a write buffer. What is read goes through the stack; of what is written, only the
//! rest of a frame that the peer has half of is kept, as a reference to its entry.

use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};

use bytes::{Buf, Bytes};
use smallvec::SmallVec;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::frame::{Limits, Message, Opcode, Reader, Violation, put, put_close};
use crate::feed::{Batch, Item};
use crate::http::Wire;

/// Read at a time.
const READ: usize = 4096;
/// Pieces written at a time. The system takes 1024.
const MOST_PIECES: usize = 512;
/// Bytes written at a time, more or less: what a socket's buffer may take.
const MOST_BYTES: usize = 1024 * 1024;

/// A WebSocket. What writing needs comes first.
#[repr(C)]
pub(crate) struct Socket {
    wire: Wire,
    /// The frame that the peer has a part of, and how large that is.
    begun: Option<(Item, usize)>,
    /// Frames that go out before any entry.
    control: Vec<u8>,
    /// Whether the stream may hold back what was written: TLS does.
    unflushed: bool,
    /// Whether the last read was pending, so that the task is woken when something comes.
    reads: bool,
    reader: Reader,
    /// What came behind the handshake, or with an earlier message.
    early: Bytes,
}

/// Why nothing more can be read.
#[derive(Debug)]
pub(crate) enum ReadError {
    /// The peer closed the connection.
    Closed,
    Io(io::Error),
    Violation(Violation),
}

// === impl Socket ===

impl Socket {
    pub(crate) fn new(wire: Wire, early: Bytes, limits: Limits) -> Self {
        Self {
            wire,
            reader: Reader::new(limits),
            early,
            begun: None,
            control: Vec::new(),
            unflushed: false,
            reads: false,
        }
    }

    /// Forgets what woke the task: it is another one from now on.
    pub(crate) fn moved(&mut self) {
        self.reads = false;
    }

    /// Queues a frame in front of all entries.
    pub(crate) fn queue(&mut self, opcode: Opcode, payload: &[u8]) {
        put(&mut self.control, opcode, payload);
    }

    /// Bytes queued.
    pub(crate) fn queued(&self) -> usize {
        self.control.len()
    }

    /// Whether something waits to be written, entries aside.
    pub(crate) fn is_behind(&self) -> bool {
        self.begun.is_some() || !self.control.is_empty() || self.unflushed
    }

    /// Hands what was read to `take`, message by message, until nothing more has come or `take` says `false`; what is left is
    /// kept for the next time. `Ready(Ok)`: something was read.
    pub(crate) fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        mut take: impl FnMut(Message) -> bool,
    ) -> Poll<Result<(), ReadError>> {
        // Most wake-ups are for what is to be written.
        if self.reads && !self.wire.is_readable() {
            return Poll::Pending;
        }
        let mut space = [const { MaybeUninit::<u8>::uninit() }; READ];
        let mut buffer = ReadBuf::uninit(&mut space);
        let early = std::mem::take(&mut self.early);
        let mut input: &[u8] = if early.is_empty() {
            let read = Pin::new(&mut self.wire).poll_read(cx, &mut buffer);
            self.reads = read.is_pending();
            ready!(read).map_err(ReadError::Io)?;
            if buffer.filled().is_empty() {
                return Poll::Ready(Err(ReadError::Closed));
            }
            buffer.filled()
        } else {
            &early
        };
        while let Some(message) = self.reader.read(&mut input).map_err(ReadError::Violation)? {
            if !take(message) {
                self.early = Bytes::copy_from_slice(input);
                break;
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Writes what is begun, what is queued, and then the batch, as much of it as the peer takes. Returns how many entries of the
    /// batch were begun: they must not be offered again.
    pub(crate) fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        batch: &Batch,
    ) -> Poll<io::Result<usize>> {
        let mut slices: SmallVec<[IoSlice<'_>; MOST_PIECES]> = SmallVec::new();
        let mut bytes = 0;
        if let Some((item, written)) = &self.begun {
            bytes += push(&mut slices, item, *written);
        }
        if !self.control.is_empty() {
            slices.push(IoSlice::new(&self.control));
            bytes += self.control.len();
        }
        for item in batch.items() {
            let pieces = item.frame().map_or(0, |frame| frame.pieces().len());
            let full = bytes > MOST_BYTES || slices.len() + pieces > MOST_PIECES;
            if full && !slices.is_empty() {
                break;
            }
            bytes += push(&mut slices, item, 0);
        }
        if slices.is_empty() {
            drop(slices);
            return self.poll_flush(cx).map_ok(|()| batch.len());
        }
        // A single frame may have more pieces than the system takes at once.
        let first = &slices[..slices.len().min(1024)];
        let written = ready!(self.wire.poll_write_now(cx, first))?;
        drop(slices);
        if written == 0 {
            return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
        }
        let begun = self.account(written, batch);
        self.unflushed = !matches!(self.wire, Wire::Plain(_));
        if self.unflushed {
            // Whatever stays behind is written by the next round.
            if let Poll::Ready(Err(error)) = self.poll_flush(cx) {
                return Poll::Ready(Err(error));
            }
        }
        Poll::Ready(Ok(begun))
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.unflushed {
            ready!(Pin::new(&mut self.wire).poll_flush(cx))?;
            self.unflushed = false;
        }
        Poll::Ready(Ok(()))
    }

    /// Notes what was written; returns how many entries of the batch were begun.
    fn account(&mut self, mut written: usize, batch: &Batch) -> usize {
        if let Some((item, before)) = &mut self.begun {
            let left = item.len() - *before;
            if written < left {
                *before += written;
                return 0;
            }
            written -= left;
            self.begun = None;
        }
        if written < self.control.len() {
            self.control.drain(..written);
            return 0;
        }
        written -= self.control.len();
        self.control = Vec::new();
        for (at, item) in batch.items().iter().enumerate() {
            let len = item.len();
            if written >= len {
                written -= len;
                continue;
            }
            if written == 0 {
                return at;
            }
            self.begun = Some((item.clone(), written));
            return at + 1;
        }
        batch.len()
    }

    /// Says goodbye, as far as the peer takes it at once, and closes.
    pub(crate) fn close(&mut self, code: u16, reason: &str) {
        if self.begun.is_none() {
            put_close(&mut self.control, code, reason);
            // Best effort: the peer sees the end of the connection all the same.
            let cx = &mut Context::from_waker(Waker::noop());
            drop(self.poll_write(cx, &Batch::default()).map_ok(|_| ()));
            drop(Pin::new(&mut self.wire).poll_shutdown(cx).map_ok(|()| ()));
        }
    }
}

/// Appends an item's pieces, less what was written of them.
fn push<'a>(
    slices: &mut SmallVec<[IoSlice<'a>; MOST_PIECES]>,
    item: &'a Item,
    skip: usize,
) -> usize {
    let Some(frame) = item.frame() else { return 0 };
    let mut skip = skip;
    for piece in frame.pieces() {
        let mut piece: &[u8] = piece;
        let here = skip.min(piece.len());
        piece.advance(here);
        skip -= here;
        if !piece.is_empty() {
            slices.push(IoSlice::new(piece));
        }
    }
    frame.len()
}
