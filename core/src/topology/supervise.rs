//! Keeping sources alive.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use futures_util::FutureExt;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::Outlet;
use super::ledger::Ledger;
use super::plan::{Part, Rebuild};
use super::segment::Segment;
use crate::delivery::retry::{Backoff, RESTART};
use crate::plugin::Source;
use crate::shutdown::Shutdown;

/// Builds a component once more; the error is in words.
pub(crate) fn build_again<T>(rebuild: &mut Rebuild<T>) -> Result<T, String> {
    match catch_unwind(AssertUnwindSafe(rebuild)) {
        Ok(built) => built.map_err(|error| error.to_string()),
        Err(_) => Err("its build panicked".to_owned()),
    }
}

/// Drops a filter that is replaced. One that panicked may panic again, and nothing else may come of that.
pub(crate) fn let_go(filter: &str, old: impl Sized) {
    if catch_unwind(AssertUnwindSafe(move || drop(old))).is_err() {
        tracing::error!(filter, "the filter panicked while it was dropped");
    }
}

/// Builds a component until that succeeds. Until then it counts as down. Cancel safe.
pub(crate) async fn rebuild<T>(
    rebuild: &mut Rebuild<T>,
    ledger: &Ledger,
    backoff: &mut Backoff,
) -> T {
    loop {
        let error = match build_again(rebuild) {
            Ok(built) => return built,
            Err(error) => error,
        };
        ledger.set_down(&error);
        let (component, wait) = (&**ledger.component(), backoff.next());
        tracing::error!(component, error, ?wait, "cannot be built again");
        tokio::time::sleep(wait).await;
    }
}

/// Runs a source until it has no more events, is told to stop, or `cut` drops it; then finishes its
/// segment. `false` when it was cut.
pub(crate) async fn supervise(
    mut part: Part<Box<dyn Source>>,
    segment: Arc<Segment>,
    ledger: Arc<Ledger>,
    shutdown: Shutdown,
    cut: CancellationToken,
) -> bool {
    let tickers = segment.start_ticking().await;
    let running = async {
        let mut source = part.built;
        let mut backoff = Backoff::new(RESTART);
        loop {
            let begun = Instant::now();
            let outlet = Outlet::new(Arc::clone(&segment));
            let run = AssertUnwindSafe(source.run(outlet, shutdown.clone())).catch_unwind();
            let error = match run.await {
                Ok(Ok(())) => return,
                Ok(Err(error)) => error.to_string(),
                Err(_) => "it panicked".to_owned(),
            };
            if shutdown.is_started() {
                tracing::warn!(
                    source = &*part.id,
                    error,
                    "the source failed while it stopped"
                );
                return;
            }
            // One that ran well for a while starts its waits anew.
            if begun.elapsed() > RESTART.max {
                backoff.reset();
            }
            ledger.restarts.inc();
            ledger.set_down(&error);
            let wait = backoff.next();
            tracing::error!(
                source = &*part.id,
                error,
                ?wait,
                "the source failed and is built again"
            );
            tokio::select! {
                () = shutdown.started() => return,
                () = tokio::time::sleep(wait) => {}
            }
            tokio::select! {
                () = shutdown.started() => return,
                built = rebuild(&mut part.rebuild, &ledger, &mut backoff) => source = built,
            }
            ledger.set_up();
        }
    };
    let ended = cut.run_until_cancelled(running).await.is_some();
    drop(tickers);
    segment.finish().await;
    ended
}
