//! From where a client wants to be served.

use std::str::FromStr;
use std::time::{Duration, SystemTime};

use super::cursor::Gap;
use super::{Offset, Position};

/// From where a client wants to be served, as text: `<epoch>:<offset>`, a time as in RFC 3339, `-5m`, or `earliest`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Since {
    /// Behind this position, which the client has.
    Position(Position),
    /// What came at this time or later.
    Time(SystemTime),
    /// Everything that is retained.
    Earliest,
}

/// Text that is none of the forms of [`Since`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "`since` is a position such as 00f1ba54c0ffee00:42, a time such as 2025-10-21T14:40:39Z, a time span such as -5m, or \"earliest\""
)]
pub struct InvalidSince;

/// Where a client that comes back starts, and whether that is where it wanted to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Resume {
    /// It is served what comes behind this position.
    pub from: Position,
    /// The newest position there is.
    pub head: Position,
    /// What it does not get any more, at least in part. `None`: everything since what it asked for.
    pub gap: Option<Gap>,
    /// The time that it asked for, if that begins somewhere behind `from`.
    pub(super) since: Option<SystemTime>,
    /// Of what is lost up to here, it is told with the gap.
    pub(super) told: Offset,
}

// === impl Resume ===

impl Resume {
    /// Behind `at`, where nothing waits for it.
    pub fn at_head(at: Position) -> Self {
        Self {
            from: at,
            head: at,
            gap: None,
            since: None,
            told: Offset::ORIGIN,
        }
    }
}

// === impl Since ===

impl FromStr for Since {
    type Err = InvalidSince;

    fn from_str(text: &str) -> Result<Self, InvalidSince> {
        if text == "earliest" {
            return Ok(Self::Earliest);
        }
        if let Some(span) = text.strip_prefix('-') {
            let span: Duration = humantime::parse_duration(span).map_err(|_| InvalidSince)?;
            let time = SystemTime::now().checked_sub(span);
            return Ok(Self::Time(time.unwrap_or(SystemTime::UNIX_EPOCH)));
        }
        if let Ok(position) = text.parse() {
            return Ok(Self::Position(position));
        }
        humantime::parse_rfc3339_weak(text)
            .map(Self::Time)
            .map_err(|_| InvalidSince)
    }
}
