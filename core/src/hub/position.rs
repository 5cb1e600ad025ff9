//! Where an event stands in the hub.

use std::fmt;
use std::str::FromStr;

use serde::{Serialize, Serializer};

/// Names one unbroken run of offsets; it changes only when continuity is lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Epoch(u64);

/// Grows by one per event; the first event has 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Offset(u64);

/// The unit of replay, written `<epoch>:<offset>`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Position {
    /// The run of offsets.
    pub epoch: Epoch,
    /// The place in it.
    pub offset: Offset,
}

/// Text that is not `<epoch>:<offset>`: sixteen hexadecimal digits, a colon, a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a position is written <epoch>:<offset>, such as 00f1ba54c0ffee00:42")]
pub struct InvalidPosition;

// === impl Epoch ===

impl Epoch {
    /// An epoch that no other process has.
    pub fn random() -> Self {
        Self(fastrand::u64(1..))
    }
}

impl From<u64> for Epoch {
    fn from(number: u64) -> Self {
        Self(number)
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

// === impl Offset ===

impl Offset {
    /// The offset of the first event.
    pub const FIRST: Self = Self(1);

    /// The offset in front of every event.
    pub const ORIGIN: Self = Self(0);

    /// The next offset.
    #[must_use]
    pub fn after(self) -> Self {
        Self(self.0 + 1)
    }

    /// The offset before this one.
    #[must_use]
    pub fn before(self) -> Self {
        Self(self.0.saturating_sub(1))
    }

    /// The number.
    pub fn get(self) -> u64 {
        self.0
    }
}

impl fmt::Display for Offset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl From<u64> for Offset {
    fn from(number: u64) -> Self {
        Self(number)
    }
}

// === impl Position ===

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.epoch, self.offset)
    }
}

impl Serialize for Position {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl FromStr for Position {
    type Err = InvalidPosition;

    fn from_str(text: &str) -> Result<Self, InvalidPosition> {
        let (epoch, offset) = text.split_once(':').ok_or(InvalidPosition)?;
        if epoch.len() != 16 {
            return Err(InvalidPosition);
        }
        let epoch = u64::from_str_radix(epoch, 16).map_err(|_| InvalidPosition)?;
        let offset = offset.parse().map_err(|_| InvalidPosition)?;
        Ok(Self {
            epoch: Epoch(epoch),
            offset: Offset(offset),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_reads_back() {
        let position = Position {
            epoch: Epoch::random(),
            offset: Offset(42),
        };
        assert_eq!(position.to_string().parse(), Ok(position));
        assert_eq!("12:1".parse::<Position>(), Err(InvalidPosition));
    }
}
