//! Options that would let nobody in.

use evows_core::config::{Period, Problem};

/// Times that must not be nothing, and are.
pub(crate) fn times<const N: usize>(
    times: [(&'static str, Period); N],
) -> impl Iterator<Item = Problem> {
    let wrong = times.into_iter().filter(|(_, period)| period.0.is_zero());
    wrong.map(|(key, _)| {
        let message = "a time of nothing would close every client";
        Problem::new("invalid-value", message)
            .at_key(key)
            .help("such as \"10s\"")
    })
}

/// Limits that must not be 0, and are.
pub(crate) fn limits<const N: usize>(
    limits: [(&'static str, u64); N],
) -> impl Iterator<Item = Problem> {
    let wrong = limits.into_iter().filter(|(_, limit)| *limit == 0);
    wrong.map(|(key, _)| {
        Problem::new("invalid-value", "a limit of 0 refuses everything")
            .at_key(key)
            .help("leave it out for the default")
    })
}
