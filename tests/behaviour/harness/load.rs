//! Events that come without a pause.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use serde_json::Value;
use tokio::task::JoinHandle;

use super::{Connection, Evows, until};

/// Posts numbered events until it is told to stop.
pub(crate) struct Load {
    answered: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    task: JoinHandle<()>,
}

// === impl Load ===

impl Load {
    /// Posts what `event` makes of 0, 1, 2 and so on.
    pub(crate) fn start(evows: &Evows, event: fn(u64) -> Value) -> Self {
        let (answered, stop) = (
            Arc::new(AtomicU64::new(0)),
            Arc::new(AtomicBool::new(false)),
        );
        let task = tokio::spawn({
            let (address, answered, stop) = (evows.address(), answered.clone(), stop.clone());
            async move {
                let mut connection = Connection::open(address).await.unwrap();
                let headers = [("content-type", "application/json")];
                let mut pace = tokio::time::interval(Duration::from_millis(1));
                for id in 0.. {
                    if stop.load(Ordering::Relaxed) {
                        return;
                    }
                    let body = event(id).to_string();
                    let reply = connection.request("POST", "/webhook", &headers, &body);
                    assert_eq!(reply.await.status, 200);
                    answered.store(id + 1, Ordering::Relaxed);
                    pace.tick().await;
                }
            }
        });
        Self {
            answered,
            stop,
            task,
        }
    }

    /// How many events were answered so far.
    pub(crate) fn answered(&self) -> u64 {
        self.answered.load(Ordering::Relaxed)
    }

    /// Posts so many more events.
    pub(crate) async fn go_on(&self, count: u64) {
        let enough = self.answered() + count;
        until("events are posted", || self.answered() >= enough).await;
    }

    /// Stops; gives the number of events.
    pub(crate) async fn stop(self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        self.task.await.unwrap();
        self.answered.load(Ordering::Relaxed)
    }
}
