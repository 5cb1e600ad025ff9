//! Websocket frames from a server, read only as far as counting needs.

/// Splits a byte stream into frames and shows the start of each; the rest is skipped, not copied.
#[derive(Default)]
pub(crate) struct Frames {
    /// The start of a frame that came in pieces: header and the first bytes of the payload.
    carry: Vec<u8>,
    /// Bytes of payload still to skip.
    skip: u64,
}

/// Bytes of a payload that are shown: enough to tell Socket.IO packets apart.
const SHOWN: u64 = 2;

/// The start of one frame.
struct Start {
    /// Header and shown payload.
    length: usize,
    shown: usize,
    opcode: u8,
    rest: u64,
}

// === impl Frames ===

impl Frames {
    /// Reads more of the stream; calls `seen` with the opcode and the first bytes of each frame.
    pub(crate) fn read(&mut self, mut bytes: &[u8], mut seen: impl FnMut(u8, &[u8])) {
        while !bytes.is_empty() {
            let here = bytes.len() as u64;
            if self.skip >= here {
                self.skip -= here;
                return;
            }
            let skip = usize::try_from(self.skip).expect("less than what is here");
            bytes = &bytes[skip..];
            self.skip = 0;
            bytes = if self.carry.is_empty() {
                self.read_start(bytes, &mut seen)
            } else {
                self.read_carried(bytes, &mut seen)
            };
        }
    }

    fn read_start<'a>(&mut self, bytes: &'a [u8], seen: &mut impl FnMut(u8, &[u8])) -> &'a [u8] {
        let Some(start) = Start::of(bytes) else {
            self.carry.extend_from_slice(bytes);
            return &[];
        };
        seen(
            start.opcode,
            &bytes[start.length - start.shown..start.length],
        );
        self.skip = start.rest;
        &bytes[start.length..]
    }

    fn read_carried<'a>(&mut self, bytes: &'a [u8], seen: &mut impl FnMut(u8, &[u8])) -> &'a [u8] {
        for (index, byte) in bytes.iter().enumerate() {
            self.carry.push(*byte);
            if let Some(start) = Start::of(&self.carry) {
                seen(start.opcode, &self.carry[start.length - start.shown..]);
                self.skip = start.rest;
                self.carry.clear();
                return &bytes[index + 1..];
            }
        }
        &[]
    }
}

// === impl Start ===

impl Start {
    /// The start of a frame, if enough of it is here. Servers do not mask.
    fn of(bytes: &[u8]) -> Option<Self> {
        let &[first, second, ref more @ ..] = bytes else {
            return None;
        };
        let (header, payload) = match second & 0x7f {
            126 => (
                4,
                u64::from(u16::from_be_bytes(more.first_chunk().copied()?)),
            ),
            127 => (10, u64::from_be_bytes(more.first_chunk().copied()?)),
            short => (2, u64::from(short)),
        };
        let shown = usize::try_from(payload.min(SHOWN)).expect("at most two");
        let length = header + shown;
        (bytes.len() >= length).then_some(Self {
            length,
            shown,
            opcode: first & 0x0f,
            rest: payload - shown as u64,
        })
    }
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
        let long = [b"42".as_slice(), &[b'x'; 900]].concat();
        let longer = [b"45".as_slice(), &vec![b'x'; 70_000]].concat();
        let payloads: [&[u8]; 6] = [b"2", &long, b"", b"40{}", &longer, b"42"];
        let stream: Vec<u8> = payloads.iter().flat_map(|payload| frame(payload)).collect();
        for size in [1, 2, 3, 5, 7, 900, 1_000, 65_536, stream.len()] {
            let mut frames = Frames::default();
            let mut seen = Vec::new();
            for piece in stream.chunks(size) {
                frames.read(piece, |opcode, start| {
                    assert_eq!(opcode, 1);
                    seen.push(start.to_vec());
                });
            }
            let expected: Vec<_> = payloads
                .iter()
                .map(|payload| payload[..payload.len().min(2)].to_vec())
                .collect();
            assert_eq!(seen, expected, "in pieces of {size}");
        }
    }
}
