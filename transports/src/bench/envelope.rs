//! The events that are posted: envelopes with a sequence number near the front of their data.

use std::net::SocketAddr;

use serde_json::json;

use super::packet::{DIGITS, MARK};

/// A whole request to post one event, whose number can be changed.
#[derive(Clone)]
pub(super) struct Request {
    bytes: Vec<u8>,
    /// Where the number stands.
    number: usize,
}

// === impl Request ===

impl Request {
    /// A request with an envelope of `size` bytes, or of the fewest possible.
    pub(super) fn new(server: SocketAddr, instance: &str, size: usize) -> Self {
        Self::to(server, "/webhook", instance, size)
    }

    /// The same to another path.
    pub(super) fn to(server: SocketAddr, path: &str, instance: &str, size: usize) -> Self {
        let padding = size.saturating_sub(envelope(instance, "").len());
        let body = envelope(instance, &"x".repeat(padding));
        let text = format!(
            "POST {path} HTTP/1.1\r\nHost: {server}\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\n\r\n{body}",
            body.len()
        );
        let mark = text.find(MARK).expect("the envelope has it");
        Self {
            number: mark + MARK.len(),
            bytes: text.into_bytes(),
        }
    }

    /// The request with this number.
    pub(super) fn numbered(&mut self, mut number: u64) -> &[u8] {
        for digit in self.bytes[self.number..self.number + DIGITS]
            .iter_mut()
            .rev()
        {
            *digit = b'0' + u8::try_from(number % 10).expect("a digit");
            number /= 10;
        }
        &self.bytes
    }
}

/// A whole request to post events with these numbers, whose texts are random letters and digits.
pub(super) fn batch(
    server: SocketAddr,
    instance: &str,
    size: usize,
    numbers: std::ops::Range<u64>,
) -> Vec<u8> {
    let padding = size.saturating_sub(envelope(instance, "").len());
    let mut body = String::from("[");
    for number in numbers {
        let text: String = std::iter::repeat_with(fastrand::alphanumeric)
            .take(padding)
            .collect();
        let number = format!("{number:0DIGITS$}");
        let comma = if body.len() > 1 { "," } else { "" };
        body.push_str(comma);
        body.push_str(&envelope(instance, &text).replacen(&"0".repeat(DIGITS), &number, 1));
    }
    body.push(']');
    let head = format!(
        "POST /webhook HTTP/1.1\r\nHost: {server}\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\n\r\n",
        body.len()
    );
    [head, body].concat().into_bytes()
}

fn envelope(instance: &str, text: &str) -> String {
    json!({
        "event": "messages.upsert",
        "instance": instance,
        "data": {
            "bench": "0".repeat(DIGITS),
            "key": {"remoteJid": "5511988887777@s.whatsapp.net", "fromMe": false, "id": "3EB0C767D097B7"},
            "message": {"conversation": text},
            "messageType": "conversation",
            "messageTimestamp": 1_761_057_639,
        },
        "server_url": "http://localhost:8080",
        "date_time": "2025-10-21T14:40:39.123Z",
        "sender": "5511999990000@s.whatsapp.net",
        "apikey": null,
    })
    .to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn has_its_size_and_its_number() {
        let server = SocketAddr::from(([127, 0, 0, 1], 80));
        let mut request = Request::new(server, "c1", 900);
        let text = String::from_utf8(request.numbered(1_234).to_vec()).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.ends_with("Content-Length: 900"), "{head}");
        assert_eq!(body.len(), 900);
        let body: serde_json::Value = serde_json::from_str(body).unwrap();
        assert_eq!(body["data"]["bench"], "000000001234");
        assert_eq!(body["instance"], "c1");
    }
}
