//! The task that puts a sink's events into its buffer on disk.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::config::WhenFull;
use crate::journal::{Journal, JournalError, Limit};
use crate::outcome::Handle;
use crate::topology::ledger::Ledger;
use crate::topology::queue::{DEADLINE, Receiver};
use crate::{Event, Outcome};

/// Events that are stored at once at most.
const STORED: usize = 1024;
/// How often a full journal is looked at.
const LOOK_AGAIN: Duration = Duration::from_millis(100);
/// The cursor at the last event that has a key: whether it is worth looking for keys at all.
const KEYED: &str = "keyed";

/// Takes what waits in the queue and stores it. From then on the source need not keep it.
pub(crate) struct Store {
    queue: Receiver,
    journal: Arc<dyn Journal>,
    when_full: WhenFull,
    waiting: Arc<Waiting>,
    recent: Recent,
    ledger: Arc<Ledger>,
    failing: bool,
}

/// Sources that want to know of the delivery, and not only that an event is stored.
#[derive(Debug, Default)]
pub(crate) struct Waiting(Mutex<HashMap<u64, Handle>>);

/// The keys of events that were stored in the last hour.
#[derive(Debug, Default)]
pub(crate) struct Recent {
    keys: HashSet<u128>,
    order: VecDeque<(Instant, u128)>,
}

// === impl Store ===

impl Store {
    pub(crate) fn new(
        queue: Receiver,
        journal: Arc<dyn Journal>,
        when_full: WhenFull,
        waiting: Arc<Waiting>,
        ledger: Arc<Ledger>,
    ) -> Self {
        Self {
            queue,
            journal,
            when_full,
            waiting,
            recent: Recent::default(),
            ledger,
            failing: false,
        }
    }

    /// Stores until the queue ends, or `cut` comes: then what is not stored fails. Tells `stored` when it is done.
    pub(crate) async fn run(mut self, cut: CancellationToken, stored: CancellationToken) {
        let mut batch = Vec::with_capacity(STORED);
        let done = cut.run_until_cancelled(self.work(&mut batch)).await;
        if done.is_none() {
            self.end(&mut batch, DEADLINE);
        }
        // In this order: whoever is told finds everything that will ever be there.
        drop(self.queue);
        stored.cancel();
    }

    async fn work(&mut self, batch: &mut Vec<Event>) {
        self.recent = Recent::read(&*self.journal, |it| Event::from_record(it).ok()).await;
        while self.queue.receive(batch, STORED).await {
            self.store(batch).await;
        }
    }

    /// Stores a batch, leaving it empty.
    async fn store(&mut self, batch: &mut Vec<Event>) {
        let mut duplicates = 0;
        let recent = &self.recent;
        let mut keys = HashSet::new();
        batch.retain_mut(|event| {
            let Some(key) = event.key() else {
                return true;
            };
            let is_new = !recent.has(key) && keys.insert(key);
            if !is_new {
                event.take_handle().settle(Outcome::Held);
                duplicates += 1;
            }
            is_new
        });
        self.ledger.end(Outcome::Filtered, "duplicate", duplicates);
        let mut records = Vec::with_capacity(batch.len());
        let mut large = Vec::new();
        for event in batch.drain(..) {
            let mut record = Vec::new();
            match event.to_record(&mut record) {
                Ok(()) => records.push((event, Bytes::from(record))),
                Err(_) => large.push(event),
            }
        }
        self.end(&mut large, "too_large");
        // Back where they outlive this future.
        let (events, records): (Vec<Event>, Vec<Bytes>) = records.into_iter().unzip();
        batch.extend(events);
        if records.is_empty() {
            return;
        }
        if !keys.is_empty() {
            Recent::announce(&*self.journal);
        }
        let appended = self.append(records).await;
        match appended {
            Ok(first) => {
                if self.failing {
                    self.failing = false;
                    tracing::info!(sink = self.id(), "events are stored again");
                }
                self.settle(batch, first, keys);
            }
            Err(JournalError::Full { .. }) => {
                let reason = self.when_full.reason();
                self.ledger.end(Outcome::Shed, reason, batch.len() as u64);
                batch.drain(..).for_each(|it| it.settle(Outcome::Shed));
            }
            Err(error) => {
                if !self.failing {
                    self.failing = true;
                    tracing::error!(sink = self.id(), %error, "events cannot be stored: their sources are told");
                }
                self.end(batch, "journal");
            }
        }
    }

    async fn append(&self, records: Vec<Bytes>) -> Result<u64, JournalError> {
        if self.when_full != WhenFull::Block {
            return self.journal.append(records).await;
        }
        loop {
            match self.journal.append(records.clone()).await {
                Err(JournalError::Full { .. }) => tokio::time::sleep(LOOK_AGAIN).await,
                appended => return appended,
            }
        }
    }

    /// Tells the sources that their events are stored.
    fn settle(&mut self, batch: &mut Vec<Event>, first: u64, keys: HashSet<u128>) {
        if !keys.is_empty() {
            self.recent.add(keys);
        }
        let mut handles = Vec::new();
        for (offset, mut event) in (first..).zip(batch.drain(..)) {
            let mut handle = event.take_handle();
            if handle.wants_delivery() {
                handles.push((offset, handle));
            } else {
                handle.settle(Outcome::Held);
            }
        }
        if !handles.is_empty() {
            self.waiting.add(handles);
        }
    }

    fn end(&self, events: &mut Vec<Event>, reason: &'static str) {
        self.ledger
            .end(Outcome::Failed, reason, events.len() as u64);
        events.drain(..).for_each(|it| it.settle(Outcome::Failed));
    }

    fn id(&self) -> &str {
        self.ledger.component()
    }
}

// === impl Waiting ===

impl Waiting {
    fn add(&self, handles: Vec<(u64, Handle)>) {
        self.0.lock().extend(handles);
    }

    /// Tells the source of the event at `offset` how it ended, if it wants to know.
    pub(crate) fn settle(&self, offset: u64, outcome: Outcome) {
        let mut handles = self.0.lock();
        if let Some(mut handle) = handles.remove(&offset) {
            drop(handles);
            handle.settle(outcome);
        }
    }
}

impl Drop for Waiting {
    /// The events are stored, whatever becomes of this process.
    fn drop(&mut self) {
        for (_, mut handle) in self.0.get_mut().drain() {
            handle.settle(Outcome::Held);
        }
    }
}

// === impl Recent ===

impl Recent {
    const WINDOW: Duration = Duration::from_hours(1);
    const MOST: usize = 1_000_000;

    /// The keys of what was stored lately, if anything has keys. `event` is what a record holds.
    pub(crate) async fn read(
        journal: &dyn Journal,
        event: impl Fn(Bytes) -> Option<Event>,
    ) -> Self {
        let mut recent = Self::default();
        let cursors = journal.cursors();
        if !cursors.iter().any(|(name, _)| name == KEYED) {
            return recent;
        }
        let since = SystemTime::now() - Self::WINDOW;
        let Ok(mut next) = journal.seek(since).await else {
            return recent;
        };
        let most = Limit {
            records: 4096,
            bytes: 16 << 20,
        };
        let until = journal.bounds().next;
        while next < until
            && let Ok(page) = journal.read(next, most).await
            && page.next > next
        {
            let events = page.records.into_iter();
            let events = events.filter_map(|record| event(record.bytes));
            recent.add(events.filter_map(|event| event.key()));
            next = page.next;
        }
        recent
    }

    /// Has the next process look for keys. Before records with keys are appended: it is written with them, so that a crash does
    /// not part them.
    pub(crate) fn announce(journal: &dyn Journal) {
        journal.set_cursor(KEYED, Some(journal.bounds().next));
    }

    pub(crate) fn has(&self, key: u128) -> bool {
        self.keys.contains(&key)
    }

    pub(crate) fn add(&mut self, keys: impl IntoIterator<Item = u128>) {
        let now = Instant::now();
        for key in keys {
            if self.keys.insert(key) {
                self.order.push_back((now, key));
            }
        }
        while let Some((at, key)) = self.order.front()
            && (self.order.len() > Self::MOST || now - *at > Self::WINDOW)
        {
            self.keys.remove(key);
            self.order.pop_front();
        }
    }
}
