//! The names of channels.

use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;

/// `/`, or `/<instance>`: exact, case-sensitive, never percent-decoded (contract 2.2).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChannelName(Arc<str>);

/// Why a name cannot be a channel.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidChannelName {
    /// There is nothing in it.
    #[error("the name is empty")]
    Empty,
    /// It is longer than 255 bytes.
    #[error("the name is {0} bytes long; 255 is the most")]
    TooLong(usize),
    /// The Socket.IO protocol cannot carry it: a comma ends the namespace, a `?` starts its query.
    #[error("the name contains {0:?}, which a Socket.IO namespace cannot carry")]
    Character(char),
}

// === impl ChannelName ===

impl ChannelName {
    /// The channel of every instance.
    pub fn root() -> Self {
        Self(Arc::from("/"))
    }

    /// The channel of one instance.
    ///
    /// Refused are names that the Socket.IO protocol cannot carry: empty ones, and those with a comma, a `?`, a
    /// slash or a control character.
    pub fn of_instance(name: &str) -> Result<Self, InvalidChannelName> {
        if name.is_empty() {
            return Err(InvalidChannelName::Empty);
        }
        if name.len() > 255 {
            return Err(InvalidChannelName::TooLong(name.len()));
        }
        let bad = |c: &char| matches!(c, ',' | '?' | '/' | '#') || c.is_control();
        match name.chars().find(bad) {
            Some(character) => Err(InvalidChannelName::Character(character)),
            None => Ok(Self(format!("/{name}").into())),
        }
    }

    /// The name with its slash.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether this is the channel of every instance.
    pub fn is_root(&self) -> bool {
        &*self.0 == "/"
    }

    /// The instance that the channel belongs to; `None` for the root.
    pub fn instance(&self) -> Option<&str> {
        self.0.strip_prefix('/').filter(|name| !name.is_empty())
    }
}

impl fmt::Display for ChannelName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Borrow<str> for ChannelName {
    fn borrow(&self) -> &str {
        &self.0
    }
}
