//! What becomes of an event for which a filter cannot do its work.

use std::sync::Arc;

use evows_core::metrics::Metrics;
use evows_core::plugin::{BuildContext, Verdict};
use schemars::JsonSchema;
use serde::Deserialize;

/// What becomes of an event for which the filter cannot do its work.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Fallback {
    /// It ends as failed: its source is told.
    #[default]
    Fail,
    /// It is discarded.
    Discard,
    /// It is passed on as it came.
    Pass,
}

/// Turns fallbacks into verdicts, and counts those that core does not: of an event that passes it sees no reason.
pub(super) struct Fallbacks {
    filter: Arc<str>,
    metrics: Metrics,
}

// === impl Fallbacks ===

impl Fallbacks {
    pub(super) fn new(cx: &BuildContext) -> Self {
        Self {
            filter: cx.id().into(),
            metrics: cx.metrics().clone(),
        }
    }

    pub(super) fn verdict(&self, fallback: Fallback, reason: &'static str) -> Verdict {
        match fallback {
            Fallback::Fail => Verdict::Fail(reason),
            Fallback::Discard => Verdict::Discard(reason),
            Fallback::Pass => {
                self.metrics.pass_unhandled(&self.filter, reason);
                Verdict::Pass
            }
        }
    }
}
