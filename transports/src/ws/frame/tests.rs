//! One test for each rule of RFC 6455 that a server must hold clients to, named by its section.

use super::*;

const LIMITS: Limits = Limits {
    max_message: 300,
    max_fragments: 4,
};
const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

const TEXT: u8 = 0x1;
const BINARY: u8 = 0x2;
const CLOSE: u8 = 0x8;
const PING: u8 = 0x9;
const PONG: u8 = 0xa;
const LAST: u8 = 0x80;

/// A masked frame.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut out = Header::new(Opcode::Text, payload.len()).as_ref().to_vec();
    out[0] = first;
    out[1] |= 0x80;
    out.extend_from_slice(&MASK);
    out.extend(payload.iter().zip(MASK.iter().cycle()).map(|(a, b)| a ^ b));
    out
}

/// What comes of the bytes, as a whole and byte by byte.
fn read(bytes: &[u8]) -> (Vec<Message>, Result<Reader, Violation>) {
    let mut reader = Reader::new(LIMITS);
    let mut messages = Vec::new();
    let end = (|| {
        for byte in bytes.chunks(1) {
            messages.extend(reader.read(&mut &*byte)?);
        }
        Ok(reader)
    })();
    let mut whole = Reader::new(LIMITS);
    let mut input = bytes;
    for message in &messages {
        assert_eq!(whole.read(&mut input).as_ref(), Ok(&Some(message.clone())));
    }
    match whole.read(&mut input) {
        Ok(message) => assert!(message.is_none() && end.is_ok()),
        Err(violation) => assert_eq!(end.as_ref().err(), Some(&violation)),
    }
    (messages, end)
}

fn messages(frames: &[Vec<u8>]) -> Vec<Message> {
    let (messages, end) = read(&frames.concat());
    assert!(end.expect("valid").is_idle());
    messages
}

fn violation(frames: &[Vec<u8>]) -> Violation {
    read(&frames.concat()).1.expect_err("invalid")
}

fn text(text: &str) -> Message {
    Message::Text(text.into())
}

#[test]
fn rule_5_1_a_client_masks_every_frame() {
    let mut unmasked = Vec::new();
    put(&mut unmasked, Opcode::Text, b"Hello");
    assert_eq!(violation(&[unmasked]), Violation::Unmasked);
}

#[test]
fn rule_5_2_reserved_bits_are_zero() {
    for bit in [0x40, 0x20, 0x10] {
        let frames = [frame(LAST | bit | TEXT, b"")];
        assert_eq!(violation(&frames), Violation::ReservedBits);
    }
}

#[test]
fn rule_5_2_unknown_opcodes_fail_the_connection() {
    for opcode in (0x3..0x8).chain(0xb..0x10) {
        let frames = [frame(LAST | opcode, b"")];
        assert_eq!(violation(&frames), Violation::UnknownOpcode(opcode));
    }
}

#[test]
fn rule_5_2_a_length_has_one_three_or_nine_bytes() {
    for len in [0, 1, 125, 126, 127, 300] {
        let payload = vec![b'x'; len];
        assert_eq!(
            messages(&[frame(LAST | BINARY, &payload)]),
            [Message::Binary(payload.into())]
        );
    }
    let mut long = vec![LAST | TEXT, 0xff, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0];
    long.extend(b"hi");
    // Senders must use the shortest form. What is longer is as clear, so it is read, as by most servers.
    assert_eq!(messages(&[long]), [text("hi")]);
}

#[test]
fn rule_5_3_the_example_of_a_masked_message() {
    let bytes = [
        0x81, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58,
    ];
    assert_eq!(messages(&[bytes.to_vec()]), [text("Hello")]);
}

#[test]
fn rule_5_4_control_frames_come_between_fragments() {
    let frames = [
        frame(TEXT, b"He"),
        frame(LAST | PING, b"are you there"),
        frame(0, b""),
        frame(LAST | PONG, b"yes"),
        frame(LAST, b"llo"),
        frame(LAST | BINARY, b"next"),
    ];
    assert_eq!(
        messages(&frames),
        [
            Message::Ping(b"are you there".to_vec()),
            Message::Pong,
            text("Hello"),
            Message::Binary(Bytes::from_static(b"next")),
        ]
    );
}

#[test]
fn rule_5_4_a_continuation_needs_a_beginning() {
    for frames in [
        vec![frame(LAST, b"x")],
        vec![frame(LAST | TEXT, b"x"), frame(0, b"x")],
        vec![frame(TEXT, b"x"), frame(LAST, b"x"), frame(LAST, b"x")],
    ] {
        assert_eq!(violation(&frames), Violation::UnexpectedContinuation);
    }
}

#[test]
fn rule_5_4_messages_are_not_interleaved() {
    for second in [TEXT, LAST | TEXT, BINARY, LAST | BINARY] {
        let frames = [frame(TEXT, b"x"), frame(second, b"x")];
        assert_eq!(violation(&frames), Violation::ExpectedContinuation);
    }
}

#[test]
fn rule_5_5_control_frames_are_short() {
    for opcode in [CLOSE, PING, PONG] {
        let frames = [frame(LAST | opcode, &[0; 126])];
        assert_eq!(violation(&frames), Violation::ControlTooLong);
    }
    let longest = messages(&[frame(LAST | PING, &[7; 125])]);
    assert_eq!(longest, [Message::Ping(vec![7; 125])]);
}

#[test]
fn rule_5_5_control_frames_are_not_fragmented() {
    for opcode in [CLOSE, PING, PONG] {
        assert_eq!(
            violation(&[frame(opcode, b"")]),
            Violation::FragmentedControl
        );
    }
}

#[test]
fn rule_5_5_1_a_close_frame_has_a_code_and_a_reason_or_nothing() {
    let close = |payload: &[u8]| [frame(LAST | CLOSE, payload)];
    assert_eq!(messages(&close(b"")), [Message::Close(None)]);
    assert_eq!(violation(&close(b"\x03")), Violation::BadClose);
    let bye = messages(&close(b"\x03\xe8bye"));
    assert_eq!(bye, [Message::Close(Some(1000))]);
    assert_eq!(violation(&close(b"\x03\xe8\xff")), Violation::Utf8);
}

#[test]
fn rule_7_4_codes_that_may_be_sent() {
    let close = |code: u16| read(&frame(LAST | CLOSE, &code.to_be_bytes()));
    for code in [1000, 1003, 1007, 1011, 1014, 3000, 4999] {
        assert_eq!(close(code).0, [Message::Close(Some(code))]);
    }
    for code in [0, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, u16::MAX] {
        assert_eq!(close(code).1.err(), Some(Violation::BadClose), "{code}");
    }
}

#[test]
fn rule_8_1_text_is_utf8() {
    let euro = "\u{20ac}".as_bytes();
    let halves = [frame(TEXT, &euro[..1]), frame(LAST, &euro[1..])];
    assert_eq!(messages(&halves), [text("\u{20ac}")]);
    for bad in [&euro[..2], b"\xff", b"\xed\xa0\x80", b"\xc0\xaf"] {
        assert_eq!(violation(&[frame(LAST | TEXT, bad)]), Violation::Utf8);
        assert_eq!(messages(&[frame(LAST | BINARY, bad)]).len(), 1);
    }
}

#[test]
fn rule_10_4_messages_are_bounded() {
    let frames = [frame(LAST | TEXT, &[b'x'; 301])];
    assert_eq!(violation(&frames), Violation::TooLarge);
    let frames = [frame(TEXT, &[b'x'; 200]), frame(LAST, &[b'x'; 101])];
    assert_eq!(violation(&frames), Violation::TooLarge);
    let first = frame(TEXT, b"");
    let mut frames = vec![first, frame(0, b""), frame(0, b"")];
    frames.push(frame(LAST, b""));
    assert_eq!(messages(&frames), [text("")]);
    frames.insert(1, frame(0, b""));
    assert_eq!(violation(&frames), Violation::TooManyFragments);
}

#[test]
fn violations_show_with_the_header() {
    for (bytes, violation) in [
        (vec![LAST | TEXT, 0x05], Violation::Unmasked),
        (vec![LAST | PING, 0xfe], Violation::ControlTooLong),
        (vec![0x00, 0x81], Violation::UnexpectedContinuation),
    ] {
        let end = Reader::new(LIMITS).read(&mut &*bytes);
        assert_eq!(end, Err(violation));
    }
    let large = frame(LAST | TEXT, &[b'x'; 301]);
    let end = Reader::new(LIMITS).read(&mut &large[..8]);
    assert_eq!(end, Err(Violation::TooLarge));
}

#[test]
fn every_violation_has_the_code_of_rule_7_4_1() {
    assert_eq!(Violation::Unmasked.close_code(), 1002);
    assert_eq!(Violation::BadClose.close_code(), 1002);
    assert_eq!(Violation::Utf8.close_code(), 1007);
    assert_eq!(Violation::TooLarge.close_code(), 1009);
    assert_eq!(Violation::TooManyFragments.close_code(), 1009);
}

#[test]
fn an_announced_length_allocates_nothing() {
    let mut reader = Reader::new(Limits {
        max_message: usize::MAX,
        ..LIMITS
    });
    let mut bytes = vec![LAST | BINARY, 0xff];
    bytes.extend((1_u64 << 62).to_be_bytes());
    bytes.extend([0; 4]);
    assert_eq!(reader.read(&mut &*bytes), Ok(None));
    assert_eq!(reader.message.capacity(), 0);
    assert_eq!(reader.read(&mut &[0; 10][..]), Ok(None));
    assert!(reader.message.capacity() < 100);
}

#[test]
fn a_reader_at_rest_is_small_and_owns_nothing_else() {
    assert!(size_of::<Reader>() <= 96, "{}", size_of::<Reader>());
    let frames = [
        frame(TEXT, &[b'x'; 100]),
        frame(LAST | PONG, &[b'x'; 100]),
        frame(LAST, &[b'x'; 100]),
        frame(LAST | PING, &[b'x'; 100]),
        frame(LAST | CLOSE, b""),
    ];
    let reader = read(&frames.concat()).1.expect("valid");
    assert!(reader.is_idle());
    assert_eq!(reader.message.capacity() + reader.control.capacity(), 0);
}
