//! What proves to a receiver that a request comes from here.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

/// How long a token that is made of a `jwt_key` holds, in seconds.
const TOKEN_LIFE: u64 = 600;

/// A secret of Standard Webhooks: `whsec_` and the base64 of 24 to 64 bytes.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Secret(Vec<u8>);

/// A text is no secret of Standard Webhooks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a secret is `whsec_` and the base64 of 24 to 64 bytes")]
pub(super) struct NotASecret;

/// The token that Evolution sends where a webhook has a `jwt_key`, made at `now`, in seconds since 1970.
pub(super) fn token(key: &[u8], now: u64) -> String {
    let header = URL_SAFE_NO_PAD.encode(r#"{"alg":"HS256","typ":"JWT"}"#);
    let until = now + TOKEN_LIFE;
    let claims = format!(r#"{{"iat":{now},"exp":{until},"app":"evolution","action":"webhook"}}"#);
    let mut token = format!("{header}.{}", URL_SAFE_NO_PAD.encode(claims));
    let signature = mac(key, &[token.as_bytes()]);
    token.push('.');
    URL_SAFE_NO_PAD.encode_string(signature, &mut token);
    token
}

/// The header `webhook-signature`: one signature for each secret.
pub(super) fn signatures(secrets: &[Secret], id: &str, timestamp: u64, body: &[u8]) -> String {
    let head = format!("{id}.{timestamp}.");
    let mut text = String::new();
    for Secret(key) in secrets {
        text.push_str(if text.is_empty() { "v1," } else { " v1," });
        STANDARD.encode_string(mac(key, &[head.as_bytes(), body]), &mut text);
    }
    text
}

fn mac(key: &[u8], parts: &[&[u8]]) -> [u8; 32] {
    let mac = Hmac::<Sha256>::new_from_slice(key);
    let mut mac = mac.expect("HMAC takes keys of any length");
    for part in parts {
        mac.update(part);
    }
    mac.finalize().into_bytes().into()
}

// === impl Secret ===

impl Secret {
    pub(super) fn parse(text: &str) -> Result<Self, NotASecret> {
        let base64 = text.trim().strip_prefix("whsec_").ok_or(NotASecret)?;
        let key = STANDARD.decode(base64).map_err(|_| NotASecret)?;
        if (24..=64).contains(&key.len()) {
            Ok(Self(key))
        } else {
            Err(NotASecret)
        }
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

#[cfg(test)]
mod tests {
    use std::time::{SystemTime, UNIX_EPOCH};

    use hyper::HeaderMap;
    use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode};
    use serde_json::{Value, json};
    use standardwebhooks::Webhook;

    use super::*;

    const OLD: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    const NEW: &str = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD";

    fn now() -> u64 {
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        since.unwrap().as_secs()
    }

    #[test]
    fn a_token_is_what_a_library_takes_for_one() {
        let now = now();
        let token = token(b"the key", now);
        let validation = Validation::new(Algorithm::HS256);
        let read = |key: &[u8]| {
            let key = DecodingKey::from_secret(key);
            decode::<Value>(&token, &key, &validation)
        };
        let claims = read(b"the key").unwrap().claims;
        let wanted = json!({"iat": now, "exp": now + 600, "app": "evolution", "action": "webhook"});
        assert_eq!(claims.to_string(), wanted.to_string());
        assert!(read(b"another key").is_err());
    }

    #[test]
    fn a_signature_is_what_the_library_takes_for_one_with_either_secret() {
        let secrets = [OLD, NEW].map(|text| Secret::parse(text).unwrap());
        let body = br#"{"event":"call","data":"\u00e9"}"#;
        let now = now();
        let text = signatures(&secrets, "msg_1", now, body);
        assert_eq!(text.matches("v1,").count(), 2);
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("webhook-id", "msg_1"),
            ("webhook-timestamp", &now.to_string()),
            ("webhook-signature", &text),
        ] {
            headers.insert(name, value.parse().unwrap());
        }
        for secret in [OLD, NEW] {
            let receiver = Webhook::new(secret).unwrap();
            receiver.verify(body, &headers).unwrap();
            assert!(receiver.verify(b"{}", &headers).is_err());
        }
        let stranger = Webhook::new("whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA").unwrap();
        assert!(stranger.verify(body, &headers).is_err());
    }

    #[test]
    fn what_is_no_secret_is_refused() {
        for text in [
            "",
            "secret",
            "whsec_",
            "whsec_short",
            "whsec_AAAA",
            "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
            "whsk_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
        ] {
            assert_eq!(Secret::parse(text), Err(NotASecret), "{text}");
        }
        let long = format!("whsec_{}", STANDARD.encode([1; 65]));
        assert_eq!(Secret::parse(&long), Err(NotASecret));
        assert_eq!(format!("{:?}", Secret::parse(OLD).unwrap()), "Secret");
    }
}
