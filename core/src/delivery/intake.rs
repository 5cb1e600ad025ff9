//! Where a sink's events come from: the queue in front of it, or its buffer on disk.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::progress::Progress;
use super::store::Waiting;
use crate::config::WhenFull;
use crate::journal::{Journal, Limit, Page, Record};
use crate::plugin::Destination;
use crate::topology::queue::Receiver;
use crate::{Event, Outcome};

/// How often cursors are remembered at most.
const SAVE_EVERY: Duration = Duration::from_millis(25);
/// How often the journal is relieved of what has ended.
const TRIM_EVERY: Duration = Duration::from_secs(1);
/// How long it is left alone after it could not be read.
const UNREADABLE: Duration = Duration::from_secs(1);
/// What is read at once.
const PAGE: Limit = Limit {
    records: 256,
    bytes: 4 << 20,
};
/// What somebody who catches up reads at once: most of it may be for others.
const LONG_PAGE: Limit = Limit {
    records: 2048,
    bytes: 8 << 20,
};

/// Where a sink's events come from.
pub(crate) enum Intake {
    Queue(Receiver),
    Spool(Spool),
}

/// A buffer on disk, as the worker sees it.
pub(crate) struct Spool {
    journal: Arc<dyn Journal>,
    when_full: WhenFull,
    pub(super) progress: Progress,
    pub(super) waiting: Arc<Waiting>,
    /// Given when nothing more will be stored.
    stored: CancellationToken,
    /// Given when what cannot be delivered at once is left to the next process.
    leave: CancellationToken,
    /// A read that has begun: whoever waits for it may be called away, and comes back.
    reading: Option<BoxFuture<'static, Option<Vec<Record>>>>,
    /// What was read last for somebody who catches up, and from where.
    page: Option<(u64, Arc<Page>)>,
    saved_at: Instant,
    trimmed_at: Instant,
    saved: Vec<(String, u64)>,
    dirty: bool,
    /// What was in front of this is gone, or may go when there is time.
    trimmed: u64,
    owes_trim: bool,
}

/// What was taken in.
pub(crate) enum Taken {
    Events,
    Records(Vec<Record>),
    /// There is nothing more, for good.
    End,
}

// === impl Intake ===

impl Intake {
    /// Waits for events: those of a queue are appended to `events`. Cancel safe: what is not returned is read again.
    pub(super) async fn take(&mut self, events: &mut Vec<Event>, most: usize) -> Taken {
        match self {
            Self::Queue(queue) => {
                let more = queue.receive(events, most).await;
                if more { Taken::Events } else { Taken::End }
            }
            Self::Spool(spool) => match spool.read().await {
                Some(records) => Taken::Records(records),
                None => Taken::End,
            },
        }
    }
}

impl Intake {
    /// Waits until what cannot be delivered at once is to be left as it is; for ever where it would be lost.
    pub(super) fn left(&self) -> impl Future<Output = ()> + use<> {
        let tokens = match self {
            Self::Queue(_) => None,
            Self::Spool(spool) => Some((spool.stored.clone(), spool.leave.clone())),
        };
        async move {
            let Some((stored, leave)) = tokens else {
                return std::future::pending().await;
            };
            stored.cancelled().await;
            leave.cancelled().await;
        }
    }
}

// === impl Spool ===

impl Spool {
    pub(crate) fn new(
        journal: Arc<dyn Journal>,
        when_full: WhenFull,
        waiting: Arc<Waiting>,
        stored: CancellationToken,
        leave: CancellationToken,
    ) -> Self {
        let saved = journal.cursors();
        let progress = Progress::new(&saved, journal.bounds().oldest);
        let now = Instant::now();
        Self {
            journal,
            when_full,
            progress,
            waiting,
            stored,
            leave,
            reading: None,
            page: None,
            saved_at: now,
            trimmed_at: now,
            saved,
            dirty: false,
            trimmed: 0,
            owes_trim: false,
        }
    }

    /// Events that have not ended, or may not have.
    pub(crate) fn backlog(&self) -> u64 {
        self.journal
            .bounds()
            .next
            .saturating_sub(self.progress.low())
    }

    /// The next records; `None` when there are no more and will be none. Cancel safe: `progress` says what was taken.
    async fn read(&mut self) -> Option<Vec<Record>> {
        let reading = self.reading.get_or_insert_with(|| {
            let (journal, stored) = (Arc::clone(&self.journal), self.stored.clone());
            Box::pin(read(journal, stored, self.progress.next()))
        });
        let records = reading.await;
        self.reading = None;
        records
    }

    /// A page that has the records from `from` on, for somebody who catches up. It is kept: the next look is for what comes behind
    /// the few records that are taken of it, or for others who are at the same place.
    pub(super) async fn read_from(&mut self, from: u64) -> Option<Arc<Page>> {
        if let Some((first, page)) = &self.page
            && *first <= from
            && from < page.next
        {
            return Some(Arc::clone(page));
        }
        match self.journal.read(from, LONG_PAGE).await {
            Ok(page) => {
                let page = Arc::new(page);
                self.page = Some((from, Arc::clone(&page)));
                Some(page)
            }
            Err(error) => {
                tracing::warn!(%error, "a buffer cannot be read");
                None
            }
        }
    }

    /// Nobody catches up.
    pub(super) fn let_go(&mut self) {
        self.page = None;
    }

    /// How events ended that the journal does not have any more, though nobody was done with them.
    pub(super) fn gone(&self) -> (Outcome, &'static str) {
        if self.when_full == WhenFull::DropOldest {
            (Outcome::Shed, "drop_oldest")
        } else {
            (Outcome::Failed, "damaged")
        }
    }

    /// Whether it has dropped something from this offset on.
    pub(super) fn has_dropped(&self, from: u64) -> bool {
        self.when_full == WhenFull::DropOldest && self.journal.bounds().oldest > from
    }

    /// Somebody has read on, or could not.
    pub(super) fn touch(&mut self) {
        self.dirty = true;
    }

    /// An event has ended for a destination.
    pub(super) fn end(&mut self, destination: &Destination, offset: u64) {
        self.progress.end(destination, offset);
        self.dirty = true;
    }

    /// When to [save](Self::save) next, if there is something to save.
    pub(super) fn save_at(&self) -> Option<Instant> {
        if self.dirty {
            return Some(self.saved_at + SAVE_EVERY);
        }
        self.owes_trim.then(|| self.trimmed_at + TRIM_EVERY)
    }

    /// Remembers how far everybody has come.
    pub(super) async fn save(&mut self) {
        let cursors = self.progress.cursors();
        // In this order: wherever a crash parts them, everybody starts where they have come to, or earlier. Those who are parked
        // before the reader goes on, and those who are no longer parked after the reader went back to them.
        for cursor in cursors.iter().rev() {
            if !self.saved.contains(cursor) {
                self.journal.set_cursor(&cursor.0, Some(cursor.1));
            }
        }
        for (name, _) in &self.saved {
            if super::progress::is_place(name) && !cursors.iter().any(|(other, _)| other == name) {
                self.journal.set_cursor(name, None);
            }
        }
        let now = Instant::now();
        (self.saved, self.saved_at, self.dirty) = (cursors, now, false);
        let low = self.progress.low();
        self.owes_trim = low > self.trimmed;
        if self.owes_trim && now - self.trimmed_at >= TRIM_EVERY {
            (self.trimmed, self.trimmed_at, self.owes_trim) = (low, now, false);
            if let Err(error) = self.journal.trim(low).await {
                tracing::warn!(%error, "a buffer cannot be relieved of what was delivered");
                self.trimmed = 0;
            }
        }
    }

    /// Remembers how far everybody has come, and closes the journal.
    pub(super) async fn close(&mut self) {
        self.save().await;
        if let Err(error) = self.journal.close().await {
            tracing::warn!(%error, "a buffer was not closed cleanly");
        }
    }
}

async fn read(
    journal: Arc<dyn Journal>,
    stored: CancellationToken,
    mut next: u64,
) -> Option<Vec<Record>> {
    loop {
        // In this order: what was stored before the end is seen.
        let ended = stored.is_cancelled();
        match journal.read(next, PAGE).await {
            Ok(page) if !page.records.is_empty() => return Some(page.records),
            Ok(_) if ended => return None,
            Ok(page) => {
                next = page.next;
                tokio::select! {
                    () = journal.appended(next) => {}
                    () = stored.cancelled() => {}
                }
            }
            Err(error) => {
                tracing::warn!(%error, "a buffer cannot be read");
                tokio::time::sleep(UNREADABLE).await;
            }
        }
    }
}
