//! Behind the ring: what a channel had before, read back from the history for cursors that come back late.

use std::fmt;
use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::SystemTime;

use super::cursor::{Ahead, Cursor};
use super::history::{Asked, Page, Pages, Wanted};
use super::{Channel, Entry, Offset};

/// What a channel had that it does not retain in memory.
pub(super) struct Past {
    pages: Arc<Pages>,
    /// What is in front of this was of a channel that was closed.
    opened: Offset,
}

/// Where a time begins.
pub(super) enum Beginning {
    /// Behind this offset or later: entries of an earlier time are to be left out.
    Behind(Offset),
    /// Entries of that time are gone.
    Gone,
}

/// What a cursor keeps while it reads the past.
pub(super) struct Reader {
    channel: Arc<Channel>,
    /// Whether who publishes would wait for the cursor.
    follows: bool,
    asked: Option<Asked>,
    since: Option<SystemTime>,
    /// Of what is lost up to here, the client knows.
    told: Offset,
}

// === impl Past ===

impl Past {
    pub(super) fn new(pages: &Arc<Pages>, opened: Offset) -> Self {
        let pages = Arc::clone(pages);
        Self { pages, opened }
    }

    /// Everything up to here is gone.
    pub(super) fn floor(&self) -> Offset {
        self.pages.floor().max(self.opened)
    }

    /// Where what is lost behind this offset begins, and where the last of it ends.
    pub(super) fn holes(&self, after: Offset) -> Option<(Offset, Offset)> {
        self.pages.holes(after)
    }

    pub(super) fn beginning_of(&self, time: SystemTime) -> Beginning {
        match self.pages.in_front_of(time) {
            Some(before) => Beginning::Behind(before),
            None if self.floor() == self.opened => Beginning::Behind(self.opened),
            None => Beginning::Gone,
        }
    }
}

impl fmt::Debug for Past {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Past")
            .field("opened", &self.opened)
            .finish_non_exhaustive()
    }
}

// === impl Reader ===

impl Reader {
    pub(super) fn new(
        channel: &Arc<Channel>,
        follows: bool,
        since: Option<SystemTime>,
        told: Offset,
    ) -> Self {
        if follows {
            channel.enter_past();
        }
        Self {
            channel: Arc::clone(channel),
            follows,
            asked: None,
            since,
            told,
        }
    }

    /// The cursor has moved: what it asked for it has looked at.
    pub(super) fn moved(&mut self, ahead: &Ahead) {
        self.asked = None;
        if ahead.shown() > 0 {
            self.since = None;
        }
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        if self.follows {
            self.channel.leave_past();
        }
    }
}

impl fmt::Debug for Reader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reader")
            .field("since", &self.since)
            .field("told", &self.told)
            .finish_non_exhaustive()
    }
}

// === impl Cursor ===

impl Cursor {
    /// As [`peek`](Self::peek), behind the ring: nothing is shown, and nothing passed, until it is read.
    pub(super) fn peek_past(&self, most: usize, show: impl FnMut(&Arc<Entry>)) -> Ahead {
        let after = self.offset();
        let Some((past, evicted)) = self.channel().behind_ring(after) else {
            return Ahead::in_past(0, after, None);
        };
        let gap = |through: Offset| {
            let gap = self.channel().gap(after, through);
            Ahead::in_past(0, through, Some(gap))
        };
        let gone = past.floor().min(evicted);
        if gone > after {
            return gap(gone);
        }
        if let Some(through) = past.pages.hole(after) {
            let through = through.min(evicted);
            let told = self.past.as_ref().map(|it| it.told);
            return match told {
                Some(told) if told >= through => Ahead::in_past(0, through, None),
                _ => gap(through),
            };
        }
        let Some(page) = self.page(past) else {
            return Ahead::in_past(0, after, None);
        };
        let wanted = Wanted {
            channel: self.channel().name(),
            after,
            through: evicted,
            since: self.past.as_ref().and_then(|it| it.since),
            most,
        };
        let shown = page.show(wanted, show);
        Ahead::in_past(shown.count, shown.reached, None)
    }

    /// What has the entry behind it, if that is at hand.
    fn page(&self, past: &Past) -> Option<Arc<Page>> {
        let next = self.offset().after();
        let asked = self.past.as_ref().and_then(|it| it.asked.as_ref());
        let page = asked.and_then(Asked::look).filter(|page| page.has(next));
        page.or_else(|| past.pages.find(next))
    }

    /// Whether what lies in front of it is read: what is in memory is at once, and the rest is read back from the history. While
    /// it is pending, the task is woken when it is. Call it within a runtime, when [`is_behind`](Self::is_behind).
    pub fn poll_fetched(&mut self, cx: &Context<'_>) -> Poll<()> {
        let channel = Arc::clone(self.channel());
        loop {
            let after = self.offset();
            let Some((past, evicted)) = channel.behind_ring(after) else {
                self.past = None;
                return Poll::Ready(());
            };
            if past.floor().min(evicted) > after || past.pages.hole(after).is_some() {
                return Poll::Ready(());
            }
            let asked = self.past.as_ref().and_then(|it| it.asked.as_ref());
            if let Some(asked) = asked
                && asked.poll(cx).is_pending()
            {
                return Poll::Pending;
            }
            if self.page(past).is_some() {
                return Poll::Ready(());
            }
            let follows = self.follows;
            let reader = self.past.get_or_insert_with(|| {
                Box::new(Reader::new(&channel, follows, None, Offset::ORIGIN))
            });
            reader.asked = Some(past.pages.ask(after.after()));
        }
    }

    /// Waits until what lies in front of it is read. Cancel safe.
    pub async fn fetched(&mut self) {
        poll_fn(|cx| self.poll_fetched(cx)).await;
    }

    /// Whether what lies in front of it is on the disk, where it stays whatever happens to this process.
    pub fn is_in_past(&self) -> bool {
        self.channel().behind_ring(self.offset()).is_some()
    }
}
