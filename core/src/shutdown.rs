//! The stop signal that every component gets.

mod report;

use std::future::Future;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

pub use self::report::{Line, Report};

/// Tells a component to stop. Cheap to clone; once given it stays given.
#[derive(Debug, Clone, Default)]
pub struct Shutdown(CancellationToken);

impl Shutdown {
    /// A signal that nobody has given yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Gives the signal.
    pub fn start(&self) {
        self.0.cancel();
    }

    /// Whether the signal was given.
    pub fn is_started(&self) -> bool {
        self.0.is_cancelled()
    }

    /// Waits for the signal. Cancel safe.
    pub async fn started(&self) {
        self.0.cancelled().await;
    }

    /// Waits for `work` until the deadline passes or the signal is given; `None` if either came first.
    pub(crate) async fn before<T>(
        &self,
        deadline: Instant,
        work: impl Future<Output = T>,
    ) -> Option<T> {
        tokio::select! {
            biased;
            done = work => Some(done),
            () = self.started() => None,
            () = tokio::time::sleep_until(deadline) => None,
        }
    }
}
