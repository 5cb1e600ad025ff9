//! Session ids.

use std::cell::RefCell;
use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

/// Random bytes in an id: 20 characters, as Node's have.
const BYTES: usize = 15;

/// Ids for which the system is asked for randomness at once.
const POOLED: usize = 32;

thread_local! {
    /// Random bytes that no id was made of yet.
    static POOL: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// An id that nobody can guess: whoever knows it can speak for the session.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Sid([u8; BYTES]);

// === impl Sid ===

impl Sid {
    /// An id; `None` when the system has no randomness to give.
    pub(crate) fn random() -> Option<Self> {
        POOL.with_borrow_mut(|pool| {
            if pool.is_empty() {
                pool.resize(BYTES * POOLED, 0);
                if getrandom::fill(pool).is_err() {
                    pool.clear();
                }
            }
            let mut bytes = [0; BYTES];
            let from = pool.len().checked_sub(BYTES)?;
            bytes.copy_from_slice(pool.get(from..)?);
            pool.truncate(from);
            Some(Self(bytes))
        })
    }

    /// Reads one that a client presents.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let mut bytes = [0; BYTES];
        let length = URL_SAFE_NO_PAD.decode_slice(text, &mut bytes).ok()?;
        (length == BYTES).then_some(Self(bytes))
    }
}

impl fmt::Display for Sid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = [0; BYTES / 3 * 4];
        let length = URL_SAFE_NO_PAD
            .encode_slice(self.0, &mut text)
            .unwrap_or_default();
        let text = text.get(..length).unwrap_or_default();
        f.write_str(std::str::from_utf8(text).unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_has_twenty_characters_and_reads_back() {
        let sid = Sid::random().unwrap();
        let text = sid.to_string();
        assert_eq!(text.len(), 20);
        assert!(Sid::parse(&text) == Some(sid));
        for other in [
            "",
            "x",
            "../../../etc/passwd!",
            &text.replacen(|_: char| true, "", 1),
            &format!("{text}A"),
        ] {
            assert!(Sid::parse(other) != Some(sid), "{other}");
        }
    }
}
