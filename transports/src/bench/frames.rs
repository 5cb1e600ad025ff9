//! Websocket frames from a server, read only as far as counting needs.

/// Bytes of a payload's start that are shown: a Socket.IO packet's head, an envelope's first keys and the number
/// at the front of its data.
const START: usize = 224;
/// Bytes of a payload's end that are shown: the offset that a client resumes from.
const END: usize = 160;

/// Splits a byte stream into frames and shows start and end of each; the rest is skipped, not copied.
#[derive(Default)]
pub(super) struct Frames {
    /// Of a frame that came in pieces: its header and the start of its payload.
    carry: Vec<u8>,
    /// Of the same frame, once its start is complete: the last bytes of its payload so far, and the bytes to come.
    rest: Option<(Vec<u8>, u64)>,
}

/// A websocket frame, whose last byte has come.
#[derive(Debug, Clone, Copy)]
pub(super) struct Frame<'a> {
    pub(super) opcode: u8,
    /// The payload, or its first bytes.
    pub(super) start: &'a [u8],
    /// The payload, or its last bytes.
    pub(super) end: &'a [u8],
}

/// What stands before a payload.
struct Header {
    opcode: u8,
    length: usize,
    payload: u64,
}

// === impl Frames ===

impl Frames {
    /// Reads more of the stream; calls `seen` with each frame that is complete now.
    pub(super) fn read(&mut self, mut bytes: &[u8], mut seen: impl FnMut(Frame<'_>)) {
        while !bytes.is_empty() {
            bytes = if self.carry.is_empty() {
                match whole(bytes) {
                    Some((frame, more)) => {
                        seen(frame);
                        more
                    }
                    None => self.read_piece(bytes, &mut seen),
                }
            } else {
                self.read_piece(bytes, &mut seen)
            };
        }
    }

    /// Reads some of a frame that comes in pieces; returns what is not read yet.
    fn read_piece<'a>(&mut self, bytes: &'a [u8], seen: &mut impl FnMut(Frame<'_>)) -> &'a [u8] {
        let Some((end, rest)) = &mut self.rest else {
            return self.read_start(bytes, seen);
        };
        let here = usize::try_from(*rest).map_or(bytes.len(), |rest| rest.min(bytes.len()));
        let (piece, more) = bytes.split_at(here);
        end.extend_from_slice(last(piece));
        end.drain(..end.len().saturating_sub(END));
        *rest -= here as u64;
        self.finish(seen);
        more
    }

    fn read_start<'a>(&mut self, bytes: &'a [u8], seen: &mut impl FnMut(Frame<'_>)) -> &'a [u8] {
        let wanted = match Header::of(&self.carry) {
            Some(header) => header.length + header.start(),
            None => self.carry.len() + 1,
        };
        let missing = wanted.saturating_sub(self.carry.len()).min(bytes.len());
        let (piece, more) = bytes.split_at(missing);
        self.carry.extend_from_slice(piece);
        if let Some(header) = Header::of(&self.carry)
            && self.carry.len() == header.length + header.start()
        {
            let start = &self.carry[header.length..];
            self.rest = Some((last(start).to_vec(), header.payload - start.len() as u64));
            self.finish(seen);
        }
        more
    }

    /// Shows the frame in pieces if it is complete.
    fn finish(&mut self, seen: &mut impl FnMut(Frame<'_>)) {
        if let Some((end, 0)) = &self.rest
            && let Some(header) = Header::of(&self.carry)
        {
            seen(Frame {
                opcode: header.opcode,
                start: &self.carry[header.length..],
                end,
            });
            self.rest = None;
            self.carry.clear();
        }
    }
}

// === impl Header ===

impl Header {
    /// The header at the front, if it is all here. Servers do not mask.
    fn of(bytes: &[u8]) -> Option<Self> {
        let &[first, second, ref more @ ..] = bytes else {
            return None;
        };
        let (length, payload) = match second & 0x7f {
            126 => (
                4,
                u64::from(u16::from_be_bytes(more.first_chunk().copied()?)),
            ),
            127 => (10, u64::from_be_bytes(more.first_chunk().copied()?)),
            short => (2, u64::from(short)),
        };
        Some(Self {
            opcode: first & 0x0f,
            length,
            payload,
        })
    }

    /// Bytes of the payload that are shown as its start.
    fn start(&self) -> usize {
        usize::try_from(self.payload).map_or(START, |payload| payload.min(START))
    }
}

/// The frame at the front and what follows it, if all of it is here.
fn whole(bytes: &[u8]) -> Option<(Frame<'_>, &[u8])> {
    let header = Header::of(bytes)?;
    let payload = usize::try_from(header.payload).ok()?;
    let (payload, more) = bytes.get(header.length..)?.split_at_checked(payload)?;
    let frame = Frame {
        opcode: header.opcode,
        start: &payload[..header.start()],
        end: last(payload),
    };
    Some((frame, more))
}

/// The last bytes, as many as are shown.
fn last(bytes: &[u8]) -> &[u8] {
    &bytes[bytes.len().saturating_sub(END)..]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(payload: &[u8]) -> Vec<u8> {
        let length = payload.len();
        let mut bytes = vec![0x81];
        match length {
            0..126 => bytes.push(u8::try_from(length).unwrap()),
            126..65_536 => {
                bytes.push(126);
                bytes.extend(u16::try_from(length).unwrap().to_be_bytes());
            }
            _ => {
                bytes.push(127);
                bytes.extend((length as u64).to_be_bytes());
            }
        }
        bytes.extend(payload);
        bytes
    }

    #[test]
    fn finds_every_frame_however_the_stream_is_cut() {
        let varied = |length: u32| -> Vec<u8> { (0..length).map(|at| (at % 251) as u8).collect() };
        let payloads: Vec<Vec<u8>> = [1, 0, 5, 125, 126, 223, 224, 225, 384, 900, 70_000, 2]
            .map(varied)
            .to_vec();
        let stream: Vec<u8> = payloads.iter().flat_map(|payload| frame(payload)).collect();
        for size in [1, 2, 3, 5, 7, 225, 900, 1_000, 65_536, stream.len()] {
            let mut frames = Frames::default();
            let mut seen = Vec::new();
            for piece in stream.chunks(size) {
                frames.read(piece, |frame| {
                    assert_eq!(frame.opcode, 1);
                    seen.push((frame.start.to_vec(), frame.end.to_vec()));
                });
            }
            let expected: Vec<_> = payloads
                .iter()
                .map(|payload| {
                    let start = &payload[..payload.len().min(START)];
                    (start.to_vec(), last(payload).to_vec())
                })
                .collect();
            assert!(seen == expected, "in pieces of {size}");
        }
    }
}
