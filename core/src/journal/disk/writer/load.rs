//! Whether the writer has time for everything that is nice to have.

use std::time::{Duration, Instant};

/// Time that is looked at together.
const WINDOW: Duration = Duration::from_millis(50);
/// Hundredths of it that the writer works, above which its load is high, and below which it is not any more. What is left out
/// meanwhile is most of its work.
const HIGH: u32 = 50;
const LOW: u32 = 15;

/// How much of its time a writer works, apart from waiting for the disk.
#[derive(Debug, Default)]
pub(super) struct Load {
    since: Option<Instant>,
    works: Duration,
    rests: Duration,
    high: bool,
}

// === impl Load ===

impl Load {
    pub(super) fn is_high(&self) -> bool {
        self.high
    }

    /// It has worked until now.
    pub(super) fn rests(&mut self, now: Instant) {
        let time = self.since(now);
        self.works += time;
        let whole = self.works + self.rests;
        if whole >= WINDOW {
            let limit = if self.high { LOW } else { HIGH };
            self.high = self.works * 100 > whole * limit;
            (self.works, self.rests) = (Duration::ZERO, Duration::ZERO);
        }
    }

    /// It has rested until now.
    pub(super) fn works(&mut self, now: Instant) {
        let time = self.since(now);
        self.rests += time;
    }

    /// So much of what looks like work was none.
    pub(super) fn waited(&mut self, time: Duration) {
        self.since = self.since.map(|since| since + time);
    }

    fn since(&mut self, now: Instant) -> Duration {
        let since = self.since.replace(now);
        since.map_or(Duration::ZERO, |since| now.saturating_duration_since(since))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waiting_for_the_disk_is_no_work() {
        let mut load = Load::default();
        let mut now = Instant::now();
        let mut round = |rests: u64, works: u64, waits: u64| {
            let [rests, works, waits] = [rests, works, waits].map(Duration::from_millis);
            load.rests(now);
            now += rests;
            load.works(now);
            now += works + waits;
            load.waited(waits);
            load.is_high()
        };
        assert!(!round(1, 9, 0));
        for _ in 0..20 {
            round(1, 9, 0);
        }
        assert!(round(1, 9, 0));
        // A third of the time is still too much.
        for _ in 0..40 {
            assert!(round(2, 1, 0));
        }
        for _ in 0..40 {
            round(8, 1, 900);
        }
        assert!(!round(8, 1, 900));
    }
}
