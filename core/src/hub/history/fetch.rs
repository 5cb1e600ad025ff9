//! A page that is read for those who asked for it.

use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use slab::Slab;
use tokio::sync::Notify;

use super::super::Offset;
use super::super::sync::Mutex;
use super::pages::Page;

/// A page that is being read, or was a moment ago.
pub(super) struct Fetch {
    from: Offset,
    state: Mutex<State>,
    /// Told when nobody asks any more.
    left: Notify,
}

#[derive(Default)]
struct State {
    askers: Slab<Waker>,
    ended: bool,
    outcome: Option<Outcome>,
}

/// What came of it.
#[derive(Debug, Clone)]
pub(in super::super) enum Outcome {
    Page(Arc<Page>),
    /// And it will never be read.
    Unreadable,
}

/// Somebody's interest in a page, until it is dropped.
pub(in super::super) struct Asked {
    fetch: Arc<Fetch>,
    at: usize,
}

// === impl Fetch ===

impl Fetch {
    pub(super) fn new(from: Offset) -> Self {
        Self {
            from,
            state: Mutex::default(),
            left: Notify::new(),
        }
    }

    pub(super) fn from(&self) -> Offset {
        self.from
    }

    pub(super) fn is_asked_for(&self) -> bool {
        !self.state.lock().askers.is_empty()
    }

    /// Tells those who asked. Without an outcome they ask again.
    pub(super) fn end(&self, outcome: Option<Outcome>) {
        let mut state = self.state.lock();
        (state.ended, state.outcome) = (true, outcome);
        for (_, waker) in &state.askers {
            waker.wake_by_ref();
        }
    }

    /// Waits until all have looked who asked.
    pub(super) async fn looked(&self) {
        while self.is_asked_for() {
            self.left.notified().await;
        }
    }

    pub(super) fn let_go(&self) {
        self.state.lock().outcome = None;
    }
}

// === impl Asked ===

impl Asked {
    /// Nothing when the page is read already.
    pub(super) fn new(fetch: &Arc<Fetch>) -> Option<Self> {
        let mut state = fetch.state.lock();
        let at = (!state.ended).then(|| state.askers.insert(Waker::noop().clone()))?;
        drop(state);
        let fetch = Arc::clone(fetch);
        Some(Self { fetch, at })
    }

    /// The first one who asks.
    pub(super) fn of_new(fetch: &Arc<Fetch>) -> Self {
        let at = fetch.state.lock().askers.insert(Waker::noop().clone());
        let fetch = Arc::clone(fetch);
        Self { fetch, at }
    }

    /// Waits until it is read.
    pub(in super::super) fn poll(&self, cx: &Context<'_>) -> Poll<()> {
        let mut state = self.fetch.state.lock();
        if state.ended {
            return Poll::Ready(());
        }
        if let Some(waker) = state.askers.get_mut(self.at) {
            waker.clone_from(cx.waker());
        }
        Poll::Pending
    }

    /// What came of it, for as long as that is held for those who have not looked.
    pub(in super::super) fn outcome(&self) -> Option<Outcome> {
        self.fetch.state.lock().outcome.clone()
    }
}

impl Drop for Asked {
    fn drop(&mut self) {
        let mut state = self.fetch.state.lock();
        state.askers.try_remove(self.at);
        if state.askers.is_empty() {
            self.fetch.left.notify_one();
        }
    }
}
