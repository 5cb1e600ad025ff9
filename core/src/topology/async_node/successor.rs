//! An async filter that is to take the place of one that works, and starts first.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::{self, BoxFuture};

use crate::delivery::retry::{Backoff, RESTART};
use crate::plugin::AsyncFilter;
use crate::registry::TakeOverAsync;
use crate::topology::plan::{BuiltFilter, Rebuild};
use crate::topology::supervise::build_again;

use super::start_once;

/// How long a start may take before something is said.
const LONG: Duration = Duration::from_secs(10);

/// A filter for the place of another, from which it has taken nothing over yet.
pub(crate) struct AsyncReplacement {
    pub(crate) filter: Arc<dyn AsyncFilter>,
    pub(crate) rebuild: Rebuild<BuiltFilter>,
    pub(crate) take_over: TakeOverAsync,
}

/// A replacement that starts while the one before works on: what cannot start takes nobody's place.
pub(super) struct Successor {
    new: AsyncReplacement,
    starting: BoxFuture<'static, ()>,
}

// === impl AsyncReplacement ===

impl AsyncReplacement {
    /// Has it take over. One that panics over that is built once more, and takes nothing over.
    pub(super) fn take_over(&mut self, id: &str, before: &dyn AsyncFilter) {
        let taken = catch_unwind(AssertUnwindSafe(|| {
            // Nobody else has it yet.
            if let Some(filter) = Arc::get_mut(&mut self.filter) {
                (self.take_over)(filter, before);
            }
        }));
        if taken.is_ok() {
            return;
        }
        tracing::error!(filter = id, "the filter panicked while it took over");
        if let Ok(BuiltFilter::Async(filter)) = build_again(&mut self.rebuild) {
            self.filter = filter;
        }
    }
}

// === impl Successor ===

impl Successor {
    pub(super) fn new(id: &Arc<str>, new: AsyncReplacement) -> Self {
        let starting = start(Arc::clone(id), Arc::clone(&new.filter)).boxed();
        Self { new, starting }
    }

    pub(super) fn into_replacement(self) -> AsyncReplacement {
        self.new
    }

    /// Waits until it has started, however long that takes; for ever where there is none. Cancel safe.
    pub(super) async fn started(successor: &mut Option<Self>) {
        match successor {
            Some(successor) => (&mut successor.starting).await,
            None => future::pending().await,
        }
    }
}

async fn start(id: Arc<str>, filter: Arc<dyn AsyncFilter>) {
    let mut backoff = Backoff::new(RESTART);
    let id = &*id;
    loop {
        let slow = async {
            tokio::time::sleep(LONG).await;
            tracing::warn!(
                filter = id,
                "the filter takes long to start with other settings; it works on with those that it had"
            );
            future::pending().await
        };
        let started = tokio::select! {
            biased;
            started = start_once(&*filter) => started,
            never = slow => never,
        };
        let error = match started {
            Ok(()) => break,
            Err(error) => error,
        };
        let wait = backoff.next();
        tracing::error!(
            filter = id,
            error,
            ?wait,
            "the filter cannot start with other settings; it works on with those that it had"
        );
        tokio::time::sleep(wait).await;
    }
    tracing::debug!(filter = id, "the filter has started with other settings");
}
