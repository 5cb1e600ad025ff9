//! How many clients may come in a moment: a token bucket.
//!
//! A handshake costs far more than a delivery. When everybody comes back at once, those who are connected must not pay for it,
//! so the rest are asked to come again a little later, before anything was spent on them.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// Lets so many in each second; a second's worth at once after a quiet time.
#[derive(Debug)]
pub(crate) struct Admission {
    per_second: u32,
    bucket: Mutex<Bucket>,
}

#[derive(Debug)]
struct Bucket {
    tokens: f64,
    filled: Instant,
}

// === impl Admission ===

impl Admission {
    /// A full bucket; 0 lets everybody in.
    pub(crate) fn new(per_second: u32) -> Self {
        let bucket = Bucket {
            tokens: f64::from(per_second),
            filled: Instant::now(),
        };
        Self {
            per_second,
            bucket: Mutex::new(bucket),
        }
    }

    /// Whether one more may come in now.
    pub(crate) fn take(&self) -> bool {
        if self.per_second == 0 {
            return true;
        }
        let most = f64::from(self.per_second);
        let now = Instant::now();
        let mut bucket = self.bucket.lock();
        let since: Duration = now.duration_since(bucket.filled);
        bucket.tokens = (bucket.tokens + since.as_secs_f64() * most).min(most);
        bucket.filled = now;
        if bucket.tokens < 1.0 {
            return false;
        }
        bucket.tokens -= 1.0;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_second_of_them_at_once_and_then_as_they_refill() {
        let admission = Admission::new(10);
        let taken = |n: usize| (0..n).filter(|_| admission.take()).count();
        assert_eq!(taken(20), 10);
        tokio::time::advance(Duration::from_millis(300)).await;
        assert_eq!(taken(20), 3);
        tokio::time::advance(Duration::from_mins(1)).await;
        assert_eq!(taken(20), 10);
        assert!(Admission::new(0).take());
    }
}
