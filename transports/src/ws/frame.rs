//! WebSocket frames as a server reads and writes them (RFC 6455, section 5).

#[cfg(test)]
mod tests;

use bytes::Bytes;

/// What a frame is for (RFC 6455, 5.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Opcode {
    /// Goes on with the message that an earlier frame began.
    Continuation,
    /// A message of UTF-8 text, or its first part.
    Text,
    /// A message of bytes, or its first part.
    Binary,
    /// The peer wants to close.
    Close,
    /// Asks for a pong.
    Ping,
    /// Answers a ping.
    Pong,
}

/// What a client may send.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Bytes of one message, all its fragments together.
    pub max_message: usize,
    /// Frames of one message.
    pub max_fragments: u32,
}

/// A whole message, or a control frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// Text.
    Text(String),
    /// Bytes.
    Binary(Bytes),
    /// Wants these bytes back in a pong.
    Ping(Vec<u8>),
    /// Answers a ping.
    Pong,
    /// Wants to close, with this code if it gave one.
    Close(Option<u16>),
}

/// How a client broke the protocol, or a limit. The connection must be failed (RFC 6455, 7.1.7).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// Clients must mask (5.1).
    #[error("a frame is not masked")]
    Unmasked,
    /// No extension that would use them was agreed on (5.2).
    #[error("reserved bits are set")]
    ReservedBits,
    /// There is no such opcode (5.2).
    #[error("unknown opcode {0}")]
    UnknownOpcode(u8),
    /// A control frame has 125 bytes at most (5.5).
    #[error("a control frame is longer than 125 bytes")]
    ControlTooLong,
    /// A control frame comes in one piece (5.5).
    #[error("a control frame is fragmented")]
    FragmentedControl,
    /// There is nothing to go on with (5.4).
    #[error("a continuation without a beginning")]
    UnexpectedContinuation,
    /// The message before is not complete (5.4).
    #[error("a new message inside a fragmented one")]
    ExpectedContinuation,
    /// More bytes than [`Limits::max_message`].
    #[error("a message is too large")]
    TooLarge,
    /// More frames than [`Limits::max_fragments`].
    #[error("a message has too many fragments")]
    TooManyFragments,
    /// Text that is not UTF-8 (5.6).
    #[error("text is not UTF-8")]
    Utf8,
    /// A close frame whose body is no code and reason (5.5.1).
    #[error("a close frame without a valid code")]
    BadClose,
}

/// Takes a client's bytes apart. Between messages it owns no memory beside itself.
#[derive(Debug)]
pub struct Reader {
    // The fields of `Limits`, without its padding: there is a reader for each client.
    max_message: usize,
    max_fragments: u32,
    header: [u8; LONGEST_HEADER],
    /// Bytes of `header` that have come.
    header_len: u8,
    /// The frame whose payload is being read.
    frame: Option<Frame>,
    /// The message that is not complete, all its frames together.
    message: Vec<u8>,
    kind: Option<Kind>,
    fragments: u32,
    /// The payload of a control frame, which may come between the fragments of a message.
    control: Vec<u8>,
}

/// A frame's header in front of at most so many bytes: what a server writes is neither masked nor fragmented.
#[derive(Debug, Clone, Copy)]
pub struct Header {
    bytes: [u8; 10],
    len: u8,
}

/// Two bytes, eight of length, four of mask.
const LONGEST_HEADER: usize = 14;
/// The longest payload of a control frame.
const LONGEST_CONTROL: u64 = 125;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Text,
    Binary,
}

#[derive(Debug, Clone, Copy)]
struct Frame {
    opcode: Opcode,
    last: bool,
    left: u64,
    mask: [u8; 4],
    /// Which byte of the mask is next.
    at: u8,
}

// === impl Opcode ===

impl Opcode {
    fn parse(bits: u8) -> Result<Self, Violation> {
        match bits {
            0x0 => Ok(Self::Continuation),
            0x1 => Ok(Self::Text),
            0x2 => Ok(Self::Binary),
            0x8 => Ok(Self::Close),
            0x9 => Ok(Self::Ping),
            0xa => Ok(Self::Pong),
            other => Err(Violation::UnknownOpcode(other)),
        }
    }

    fn bits(self) -> u8 {
        match self {
            Self::Continuation => 0x0,
            Self::Text => 0x1,
            Self::Binary => 0x2,
            Self::Close => 0x8,
            Self::Ping => 0x9,
            Self::Pong => 0xa,
        }
    }

    fn is_control(self) -> bool {
        matches!(self, Self::Close | Self::Ping | Self::Pong)
    }
}

// === impl Violation ===

impl Violation {
    /// The code to close with (RFC 6455, 7.4.1).
    pub fn close_code(self) -> u16 {
        match self {
            Self::TooLarge | Self::TooManyFragments => 1009,
            Self::Utf8 => 1007,
            _ => 1002,
        }
    }

    /// The label of the counter.
    pub fn reason(self) -> &'static str {
        match self {
            Self::TooLarge => "too_large",
            Self::TooManyFragments => "too_many_fragments",
            _ => "invalid_frame",
        }
    }
}

// === impl Reader ===

impl Reader {
    /// A reader in front of the first frame.
    pub fn new(limits: Limits) -> Self {
        Self {
            max_message: limits.max_message,
            max_fragments: limits.max_fragments,
            header: [0; LONGEST_HEADER],
            header_len: 0,
            frame: None,
            message: Vec::new(),
            kind: None,
            fragments: 0,
            control: Vec::new(),
        }
    }

    /// Whether no part of a frame or message is held.
    pub fn is_idle(&self) -> bool {
        self.header_len == 0 && self.frame.is_none() && self.kind.is_none()
    }

    /// Takes bytes off the front of `input` until a message is complete, or until there are no more: then `None`. To be
    /// called again while `input` is not empty. After an error the reader must not be used again.
    pub fn read(&mut self, input: &mut &[u8]) -> Result<Option<Message>, Violation> {
        loop {
            let Some(frame) = self.frame else {
                if !self.read_header(input)? {
                    return Ok(None);
                }
                continue;
            };
            let whole = self.read_payload(frame, input);
            if !whole {
                return Ok(None);
            }
            self.frame = None;
            if let Some(message) = self.finish(frame)? {
                return Ok(Some(message));
            }
        }
    }

    /// Whether a header is complete, and with it `self.frame`.
    fn read_header(&mut self, input: &mut &[u8]) -> Result<bool, Violation> {
        loop {
            let have = usize::from(self.header_len);
            let need = self.header_need();
            if have >= need {
                break;
            }
            let take = input.len().min(need - have);
            if take == 0 {
                return Ok(false);
            }
            let (taken, rest) = input.split_at(take);
            self.header[have..have + take].copy_from_slice(taken);
            *input = rest;
            self.header_len += u8::try_from(take).unwrap_or(u8::MAX);
            if have < 2 && self.header_len >= 2 {
                // As soon as it can be seen, not only when the rest has come.
                self.check_start()?;
            }
        }
        let frame = self.parse_header()?;
        self.header_len = 0;
        self.frame = Some(frame);
        Ok(true)
    }

    /// How long the header is, as far as that is known.
    fn header_need(&self) -> usize {
        if self.header_len < 2 {
            return 2;
        }
        match self.header[1] & 0x7f {
            126 => 8,
            127 => LONGEST_HEADER,
            _ => 6,
        }
    }

    fn check_start(&self) -> Result<(), Violation> {
        let [first, second, ..] = self.header;
        if first & 0x70 != 0 {
            return Err(Violation::ReservedBits);
        }
        let opcode = Opcode::parse(first & 0x0f)?;
        if second & 0x80 == 0 {
            return Err(Violation::Unmasked);
        }
        if opcode.is_control() {
            if first & 0x80 == 0 {
                return Err(Violation::FragmentedControl);
            }
            if u64::from(second & 0x7f) > LONGEST_CONTROL {
                return Err(Violation::ControlTooLong);
            }
            return Ok(());
        }
        match (opcode, self.kind) {
            (Opcode::Continuation, None) => Err(Violation::UnexpectedContinuation),
            (Opcode::Text | Opcode::Binary, Some(_)) => Err(Violation::ExpectedContinuation),
            _ => Ok(()),
        }
    }

    fn parse_header(&mut self) -> Result<Frame, Violation> {
        let header = self.header;
        let opcode = Opcode::parse(header[0] & 0x0f)?;
        let (left, mask) = match header[1] & 0x7f {
            126 => (u64::from(u16::from_be_bytes([header[2], header[3]])), 4),
            127 => {
                let mut length = [0; 8];
                length.copy_from_slice(&header[2..10]);
                (u64::from_be_bytes(length), 10)
            }
            short => (u64::from(short), 2),
        };
        if !opcode.is_control() {
            let held = self.message.len() as u64;
            if held.saturating_add(left) > self.max_message as u64 {
                return Err(Violation::TooLarge);
            }
            if self.fragments >= self.max_fragments {
                return Err(Violation::TooManyFragments);
            }
            self.fragments += 1;
            match opcode {
                Opcode::Text => self.kind = Some(Kind::Text),
                Opcode::Binary => self.kind = Some(Kind::Binary),
                _ => {}
            }
        }
        let mut key = [0; 4];
        key.copy_from_slice(&header[mask..mask + 4]);
        Ok(Frame {
            opcode,
            last: header[0] & 0x80 != 0,
            left,
            mask: key,
            at: 0,
        })
    }

    /// Takes payload. It is stored as it comes, never ahead of it: the announced length is only a client's word.
    fn read_payload(&mut self, mut frame: Frame, input: &mut &[u8]) -> bool {
        let take = usize::try_from(frame.left)
            .unwrap_or(usize::MAX)
            .min(input.len());
        let (taken, rest) = input.split_at(take);
        *input = rest;
        let into = if frame.opcode.is_control() {
            &mut self.control
        } else {
            &mut self.message
        };
        let start = into.len();
        into.extend_from_slice(taken);
        let mut mask = frame.mask;
        mask.rotate_left(usize::from(frame.at));
        let mut words = into[start..].chunks_exact_mut(4);
        for word in &mut words {
            for (byte, key) in word.iter_mut().zip(mask) {
                *byte ^= key;
            }
        }
        for (byte, key) in words.into_remainder().iter_mut().zip(mask) {
            *byte ^= key;
        }
        frame.at = u8::try_from((usize::from(frame.at) + take) % 4).unwrap_or(0);
        frame.left -= take as u64;
        self.frame = Some(frame);
        frame.left == 0
    }

    /// What a frame whose payload is complete makes.
    fn finish(&mut self, frame: Frame) -> Result<Option<Message>, Violation> {
        match frame.opcode {
            Opcode::Ping => Ok(Some(Message::Ping(std::mem::take(&mut self.control)))),
            Opcode::Pong => {
                self.control = Vec::new();
                Ok(Some(Message::Pong))
            }
            Opcode::Close => close(&std::mem::take(&mut self.control)).map(Some),
            Opcode::Continuation | Opcode::Text | Opcode::Binary if !frame.last => Ok(None),
            Opcode::Continuation | Opcode::Text | Opcode::Binary => {
                let payload = std::mem::take(&mut self.message);
                self.fragments = 0;
                match self.kind.take() {
                    Some(Kind::Text) => {
                        let text = String::from_utf8(payload).map_err(|_| Violation::Utf8)?;
                        Ok(Some(Message::Text(text)))
                    }
                    _ => Ok(Some(Message::Binary(payload.into()))),
                }
            }
        }
    }
}

/// The code and reason of a close frame (RFC 6455, 5.5.1 and 7.4).
fn close(payload: &[u8]) -> Result<Message, Violation> {
    match payload {
        [] => Ok(Message::Close(None)),
        [_] => Err(Violation::BadClose),
        [high, low, reason @ ..] => {
            let code = u16::from_be_bytes([*high, *low]);
            let valid = matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999);
            if !valid {
                return Err(Violation::BadClose);
            }
            std::str::from_utf8(reason).map_err(|_| Violation::Utf8)?;
            Ok(Message::Close(Some(code)))
        }
    }
}

// === impl Header ===

impl Header {
    /// The header of a whole message or control frame of `payload` bytes.
    pub fn new(opcode: Opcode, payload: usize) -> Self {
        let mut bytes = [0; 10];
        bytes[0] = 0x80 | opcode.bits();
        let len = match (u8::try_from(payload), u16::try_from(payload)) {
            (Ok(short @ 0..126), _) => {
                bytes[1] = short;
                2
            }
            (_, Ok(medium)) => {
                bytes[1] = 126;
                bytes[2..4].copy_from_slice(&medium.to_be_bytes());
                4
            }
            _ => {
                bytes[1] = 127;
                bytes[2..10].copy_from_slice(&(payload as u64).to_be_bytes());
                10
            }
        };
        Self { bytes, len }
    }
}

impl AsRef<[u8]> for Header {
    fn as_ref(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }
}

/// Appends a frame.
pub fn put(out: &mut Vec<u8>, opcode: Opcode, payload: &[u8]) {
    out.extend_from_slice(Header::new(opcode, payload.len()).as_ref());
    out.extend_from_slice(payload);
}

/// Appends a close frame.
pub fn put_close(out: &mut Vec<u8>, code: u16, reason: &str) {
    let mut payload = code.to_be_bytes().to_vec();
    payload.extend_from_slice(reason.as_bytes());
    payload.truncate(125);
    put(out, Opcode::Close, &payload);
}

/// The frames in bytes that this server made: whether each is text, and its payload.
pub(crate) fn server_frames(mut bytes: &[u8]) -> impl Iterator<Item = (bool, &[u8])> {
    std::iter::from_fn(move || {
        let (head, rest) = bytes.split_first_chunk::<2>()?;
        let (len, rest) = match head[1] {
            126 => {
                let (len, rest) = rest.split_first_chunk()?;
                (u64::from(u16::from_be_bytes(*len)), rest)
            }
            127 => {
                let (len, rest) = rest.split_first_chunk()?;
                (u64::from_be_bytes(*len), rest)
            }
            short => (u64::from(short), rest),
        };
        let (payload, rest) = rest.split_at_checked(usize::try_from(len).ok()?)?;
        bytes = rest;
        Some((head[0] & 0x0f == Opcode::Text.bits(), payload))
    })
}
