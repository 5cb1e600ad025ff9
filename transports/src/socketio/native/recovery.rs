//! How a client that comes back proves how far it was, without the server keeping anything for it.
//!
//! Stock clients repeat two strings when they connect again: the `pid` that they were given when they joined, and the last string
//! argument of the last event that they received, which is its position. The `pid` is a position as well, that of the join, for a
//! client that has received nothing yet; and it is signed, with its namespace, so that only who was let in can come back with it.

use std::sync::OnceLock;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use evows_core::hub::{Channel, Position, Resume, Since};
use hmac::{Hmac, KeyInit, Mac};
use serde_json::Value;
use sha2::Sha256;

/// Bytes of the signature that are kept: 128 bits.
const SIGNATURE: usize = 16;

/// Signs and checks `pid`s.
#[derive(Default)]
pub(super) struct Signer(OnceLock<[u8; 32]>);

/// What a client's `auth` asks for, beside what says who it is.
#[derive(Debug, Default)]
pub(super) struct Wish<'a> {
    /// Recovery as stock clients do it.
    pub(super) recover: bool,
    /// Positions in envelopes.
    pub(super) envelope: bool,
    pub(super) since: Option<&'a Value>,
    pid: Option<&'a str>,
    offset: Option<&'a Value>,
}

// === impl Signer ===

impl Signer {
    /// Sets the key, once. Without one, a random key is used, which no other process has.
    pub(super) fn set(&self, key: Option<[u8; 32]>) {
        if let Some(key) = key {
            self.0.set(key).ok();
        }
    }

    /// A `pid` for a client that joins `namespace` behind `position`.
    pub(super) fn sign(&self, namespace: &str, position: Position) -> String {
        let mut nonce = [0; 6];
        // It only tells apart clients that joined at the same position.
        fastrand::fill(&mut nonce);
        let text = format!("{position}:{}", URL_SAFE_NO_PAD.encode(nonce));
        let signature = self.signature(namespace, &text);
        format!("{text}:{}", URL_SAFE_NO_PAD.encode(signature))
    }

    /// The position that a `pid` of `namespace` was signed for.
    fn check(&self, namespace: &str, pid: &str) -> Option<Position> {
        let (text, signature) = pid.rsplit_once(':')?;
        let signature = URL_SAFE_NO_PAD.decode(signature).ok()?;
        let mac = self.mac(namespace, text);
        if signature.len() != SIGNATURE || mac.verify_truncated_left(&signature).is_err() {
            return None;
        }
        let (position, _nonce) = text.rsplit_once(':')?;
        position.parse().ok()
    }

    fn signature(&self, namespace: &str, text: &str) -> [u8; SIGNATURE] {
        let whole = self.mac(namespace, text).finalize().into_bytes();
        let mut signature = [0; SIGNATURE];
        signature.copy_from_slice(&whole[..SIGNATURE]);
        signature
    }

    fn mac(&self, namespace: &str, text: &str) -> Hmac<Sha256> {
        let key = self.0.get_or_init(|| {
            let mut key = [0; 32];
            if getrandom::fill(&mut key).is_err() {
                fastrand::fill(&mut key);
            }
            key
        });
        let mac = Hmac::<Sha256>::new_from_slice(key);
        let mut mac = mac.expect("HMAC takes keys of any length");
        mac.update(namespace.as_bytes());
        // A namespace has no control characters, so nothing else reads the same.
        mac.update(b"\0");
        mac.update(text.as_bytes());
        mac
    }
}

// === impl Wish ===

impl<'a> Wish<'a> {
    pub(super) fn new(auth: Option<&'a Value>) -> Self {
        let Some(auth) = auth else {
            return Self::default();
        };
        Self {
            recover: auth.get("recover").and_then(Value::as_bool) == Some(true),
            envelope: auth.get("positions").and_then(Value::as_str) == Some("envelope"),
            // A client that has no position yet may well say `null`.
            since: auth.get("since").filter(|since| !since.is_null()),
            pid: auth.get("pid").and_then(Value::as_str),
            offset: auth.get("offset"),
        }
    }

    /// Where a client goes on, and the `pid` that it keeps, if it can have everything since it left.
    pub(super) fn recovered(
        &self,
        signer: &Signer,
        channel: &Channel,
    ) -> Option<(Resume, &'a str)> {
        let pid = self.pid?;
        let joined = signer.check(channel.name().as_str(), pid)?;
        let position = match self.offset {
            // It has received nothing since it joined.
            None => joined,
            Some(offset) => offset.as_str()?.parse().ok()?,
        };
        let resume = channel.resume(&Since::Position(position));
        resume.gap.is_none().then_some((resume, pid))
    }
}

#[cfg(test)]
mod tests {
    use evows_core::hub::Epoch;

    use super::*;

    #[test]
    fn a_pid_holds_for_its_namespace_and_its_key_alone() {
        let signer = Signer::default();
        let position = Position {
            epoch: Epoch::random(),
            offset: 7.into(),
        };
        let pid = signer.sign("/a", position);
        assert_eq!(signer.check("/a", &pid), Some(position));
        assert_ne!(signer.sign("/a", position), pid);
        assert_eq!(signer.check("/b", &pid), None);
        assert_eq!(Signer::default().check("/a", &pid), None);
        let forged = pid.replacen(":7:", ":1:", 1);
        assert_eq!(signer.check("/a", &forged), None);
        let mut short = pid.clone();
        short.pop();
        for nonsense in ["", ":", "a:b:c:d", &short] {
            assert_eq!(signer.check("/a", nonsense), None);
        }
    }
}
