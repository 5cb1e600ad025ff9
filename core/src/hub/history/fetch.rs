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
    /// Told when somebody has looked, or asks no more.
    changed: Notify,
}

#[derive(Default)]
struct State {
    askers: Slab<Asker>,
    ended: bool,
    page: Option<Arc<Page>>,
}

struct Asker {
    waker: Waker,
    looked: bool,
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
            changed: Notify::new(),
        }
    }

    pub(super) fn from(&self) -> Offset {
        self.from
    }

    pub(super) fn is_asked_for(&self) -> bool {
        !self.state.lock().askers.is_empty()
    }

    /// Tells those who asked. Without a page they look what there is, and may ask again.
    pub(super) fn end(&self, page: Option<Arc<Page>>) {
        let mut state = self.state.lock();
        (state.ended, state.page) = (true, page);
        for (_, asker) in &state.askers {
            asker.waker.wake_by_ref();
        }
    }

    /// Waits until all have looked who asked.
    pub(super) async fn looked(&self) {
        self.until(|state| state.askers.iter().all(|(_, asker)| asker.looked))
            .await;
    }

    /// Waits until nobody asks any more.
    pub(super) async fn left(&self) {
        self.until(|state| state.askers.is_empty()).await;
    }

    async fn until(&self, holds: impl Fn(&State) -> bool) {
        while !holds(&self.state.lock()) {
            self.changed.notified().await;
        }
    }

    pub(super) fn let_go(&self) {
        self.state.lock().page = None;
    }
}

// === impl State ===

impl State {
    fn ask(&mut self) -> usize {
        self.askers.insert(Asker {
            waker: Waker::noop().clone(),
            looked: false,
        })
    }
}

// === impl Asked ===

impl Asked {
    /// Nothing when the page is read already.
    pub(super) fn new(fetch: &Arc<Fetch>) -> Option<Self> {
        let mut state = fetch.state.lock();
        let at = (!state.ended).then(|| state.ask())?;
        drop(state);
        let fetch = Arc::clone(fetch);
        Some(Self { fetch, at })
    }

    /// The first one who asks.
    pub(super) fn of_new(fetch: &Arc<Fetch>) -> Self {
        let at = fetch.state.lock().ask();
        let fetch = Arc::clone(fetch);
        Self { fetch, at }
    }

    /// Waits until it is read.
    pub(in super::super) fn poll(&self, cx: &Context<'_>) -> Poll<()> {
        let mut state = self.fetch.state.lock();
        if state.ended {
            return Poll::Ready(());
        }
        if let Some(asker) = state.askers.get_mut(self.at) {
            asker.waker.clone_from(cx.waker());
        }
        Poll::Pending
    }

    /// The page, for as long as it is held for those who have not looked.
    pub(in super::super) fn look(&self) -> Option<Arc<Page>> {
        let mut state = self.fetch.state.lock();
        let page = state.page.clone()?;
        if let Some(asker) = state.askers.get_mut(self.at)
            && !asker.looked
        {
            asker.looked = true;
            self.fetch.changed.notify_one();
        }
        Some(page)
    }
}

impl Drop for Asked {
    fn drop(&mut self) {
        let mut state = self.fetch.state.lock();
        state.askers.try_remove(self.at);
        self.fetch.changed.notify_one();
    }
}
