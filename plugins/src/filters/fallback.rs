//! What becomes of an event for which a filter cannot do its work.

use evows_core::plugin::Verdict;
use schemars::JsonSchema;
use serde::Deserialize;

/// What becomes of an event for which the filter cannot do its work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Fallback {
    /// It ends as failed: its source is told.
    Fail,
    /// It is discarded.
    Discard,
    /// It is passed on as it came.
    Pass,
}

// === impl Fallback ===

impl Fallback {
    pub(super) fn verdict(self, reason: &'static str) -> Verdict {
        match self {
            Self::Fail => Verdict::Fail(reason),
            Self::Discard => Verdict::Discard(reason),
            Self::Pass => Verdict::Pass,
        }
    }

    pub(super) fn fail() -> Self {
        Self::Fail
    }
}
