//! The opening handshake (RFC 6455, section 4.2).

use axum::body::Body;
use axum::http::header::{
    CONNECTION, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION, UPGRADE,
};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use axum::response::Response;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use sha1::{Digest, Sha1};

/// What the key is hashed with (RFC 6455, 1.3).
const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// Why a request is no opening handshake.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HandshakeError {
    /// It is not a GET, or its headers do not ask for an upgrade to WebSocket.
    #[error("the request does not ask for an upgrade to websocket")]
    NoUpgrade,
    /// `Sec-WebSocket-Version` is not 13.
    #[error("Sec-WebSocket-Version must be 13")]
    Version,
    /// `Sec-WebSocket-Key` is not 16 bytes in base64.
    #[error("Sec-WebSocket-Key must be 16 bytes in base64")]
    Key,
}

/// Whether a request asks for a WebSocket: what kind of answer it understands.
pub fn is_upgrade(headers: &HeaderMap) -> bool {
    lists(headers, &UPGRADE, b"websocket")
}

/// Whether a header, in one line or several, lists a token (RFC 9110, 5.6.1).
fn lists(headers: &HeaderMap, name: &HeaderName, token: &[u8]) -> bool {
    headers.get_all(name).iter().any(|value| {
        let mut tokens = value.as_bytes().split(|byte| *byte == b',');
        tokens.any(|it| it.trim_ascii().eq_ignore_ascii_case(token))
    })
}

/// The answer to an opening handshake.
pub fn accept(method: &Method, headers: &HeaderMap) -> Result<Response, HandshakeError> {
    if method != Method::GET || !lists(headers, &CONNECTION, b"upgrade") || !is_upgrade(headers) {
        return Err(HandshakeError::NoUpgrade);
    }
    let version = headers.get(SEC_WEBSOCKET_VERSION);
    if version.is_none_or(|version| version != "13") {
        return Err(HandshakeError::Version);
    }
    let key = headers.get(SEC_WEBSOCKET_KEY).ok_or(HandshakeError::Key)?;
    let value = answer(key.as_bytes()).ok_or(HandshakeError::Key)?;
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(SEC_WEBSOCKET_ACCEPT, value);
    Ok(response)
}

/// What proves that the server has read the key (RFC 6455, 4.2.2).
fn answer(key: &[u8]) -> Option<HeaderValue> {
    let is_nonce = key.len() == 24 && STANDARD.decode(key).is_ok_and(|nonce| nonce.len() == 16);
    if !is_nonce {
        return None;
    }
    let hash = Sha1::new().chain_update(key).chain_update(GUID).finalize();
    HeaderValue::from_str(&STANDARD.encode(hash)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(changes: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        let usual = [
            ("connection", "keep-alive, Upgrade"),
            ("upgrade", "WebSocket"),
            ("sec-websocket-version", "13"),
            ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ];
        for (name, value) in usual.iter().chain(changes) {
            headers.insert(*name, HeaderValue::from_static(value));
        }
        headers
    }

    #[test]
    fn the_example_of_the_rfc() {
        let response = accept(&Method::GET, &request(&[])).unwrap();
        assert_eq!(response.status(), 101);
        let value = &response.headers()[SEC_WEBSOCKET_ACCEPT];
        assert_eq!(value, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }

    #[test]
    fn every_part_of_it_is_needed() {
        for (change, error) in [
            (("connection", "keep-alive"), HandshakeError::NoUpgrade),
            (("upgrade", "h2c"), HandshakeError::NoUpgrade),
            (("sec-websocket-version", "8"), HandshakeError::Version),
            (("sec-websocket-key", "c2hvcnQ="), HandshakeError::Key),
            (
                ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ!!"),
                HandshakeError::Key,
            ),
        ] {
            let refused = accept(&Method::GET, &request(&[change])).unwrap_err();
            assert_eq!(refused, error);
        }
        let refused = accept(&Method::POST, &request(&[])).unwrap_err();
        assert_eq!(refused, HandshakeError::NoUpgrade);
    }

    #[test]
    fn upgrade_is_a_list() {
        let list = request(&[("upgrade", "h2c, websocket")]);
        assert!(accept(&Method::GET, &list).is_ok());
    }
}
