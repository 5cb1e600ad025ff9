//! The task that puts a sink's events into its buffer on disk.

use std::collections::{HashMap, VecDeque};
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
use crate::{Event, EventId, Outcome};

/// Events that are stored at once at most.
const STORED: usize = 1024;
/// Bytes that are stored at once at most, but for a single event.
const STORED_BYTES: usize = 8 << 20;
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
    /// Events that are in the batch at hand a second time: they end as it does.
    twins: Vec<Event>,
    /// Taken from the queue.
    received: Vec<Event>,
    ledger: Arc<Ledger>,
    failing: bool,
}

/// What the worker behind a journal has to tell.
#[derive(Debug, Default)]
pub(crate) struct Waiting {
    pending: Mutex<Pending>,
    /// Keys of events that failed for good: who sends them again means it.
    failed: Mutex<Vec<u128>>,
}

/// Sources that want to know of the delivery, and not only that an event is stored.
#[derive(Debug, Default)]
struct Pending {
    waits: HashMap<u64, Wait>,
    /// Events are being stored whose sources wait: their endings may come before their handles.
    open: bool,
}

#[derive(Debug)]
struct Wait {
    handle: Option<Handle>,
    /// Destinations, and those of them where it has ended.
    parts: usize,
    ended: usize,
    worst: Outcome,
}

/// The keys of events that were stored in the last hour.
#[derive(Debug, Default)]
pub(crate) struct Recent {
    /// Each with the event that had it: a copy of the same event is no duplicate.
    keys: HashMap<u128, EventId>,
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
            twins: Vec::new(),
            received: Vec::with_capacity(STORED),
            ledger,
            failing: false,
        }
    }

    /// Stores until the queue ends, or `cut` comes: then what is not stored fails. Tells `stored` when it is done.
    pub(crate) async fn run(mut self, cut: CancellationToken, stored: CancellationToken) {
        let mut batch = Vec::with_capacity(STORED);
        let done = cut.run_until_cancelled(self.work(&mut batch)).await;
        if done.is_none() {
            batch.append(&mut self.received);
            self.end(&mut batch, DEADLINE);
            self.settle_twins(Outcome::Failed);
        }
        // In this order: whoever is told finds everything that will ever be there.
        drop(self.queue);
        stored.cancel();
    }

    async fn work(&mut self, batch: &mut Vec<Event>) {
        self.recent = Recent::read(&*self.journal, |it| Event::from_record(it).ok()).await;
        while self.queue.receive(&mut self.received, STORED).await {
            // In pieces that a journal takes at once.
            while !self.received.is_empty() {
                let mut bytes = 0;
                let fits = self.received.iter().take_while(|event| {
                    bytes += event.size();
                    bytes <= STORED_BYTES
                });
                let piece = fits.count().max(1);
                batch.extend(self.received.drain(..piece));
                self.store(batch).await;
            }
        }
    }

    /// Stores a batch, leaving it empty.
    async fn store(&mut self, batch: &mut Vec<Event>) {
        for key in std::mem::take(&mut *self.waiting.failed.lock()) {
            self.recent.forget(key);
        }
        let mut duplicates = 0;
        let Self { recent, twins, .. } = self;
        let mut keys: HashMap<u128, EventId> = HashMap::new();
        batch.retain_mut(|event| {
            let Some(key) = event.key() else {
                return true;
            };
            let is_stored = recent.has(key, event.id());
            if !is_stored && *keys.entry(key).or_insert(event.id()) == event.id() {
                return true;
            }
            duplicates += 1;
            let mut copy = event.clone();
            copy.give_handle(event.take_handle());
            if is_stored {
                copy.settle(Outcome::Held);
            } else {
                twins.push(copy);
            }
            false
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
            self.settle_twins(Outcome::Failed);
            return;
        }
        if !keys.is_empty() {
            Recent::announce(&*self.journal);
        }
        let waits = batch.iter().any(Event::wants_delivery);
        if waits {
            self.waiting.open();
        }
        let appended = self.append(records).await;
        let heard = match &appended {
            Ok(_) => Outcome::Held,
            Err(JournalError::Full { .. }) => Outcome::Shed,
            Err(_) => Outcome::Failed,
        };
        self.settle_twins(heard);
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
        if waits {
            self.waiting.close();
        }
    }

    fn settle_twins(&mut self, outcome: Outcome) {
        self.twins.drain(..).for_each(|it| it.settle(outcome));
    }

    async fn append(&self, records: Vec<Bytes>) -> Result<u64, JournalError> {
        if self.when_full != WhenFull::Block {
            return self.journal.append(records).await;
        }
        loop {
            match self.journal.append(records.clone()).await {
                // In an empty one there will be no more room.
                Err(JournalError::Full { .. }) if self.journal.bounds().records > 0 => {
                    tokio::time::sleep(LOOK_AGAIN).await;
                }
                appended => return appended,
            }
        }
    }

    /// Tells the sources that their events are stored.
    fn settle(&mut self, batch: &mut Vec<Event>, first: u64, keys: HashMap<u128, EventId>) {
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
    /// Before events are stored whose sources wait.
    fn open(&self) {
        self.pending.lock().open = true;
    }

    /// After it: what has ended without a handle is nobody's.
    fn close(&self) {
        let mut pending = self.pending.lock();
        pending.open = false;
        pending.waits.retain(|_, wait| wait.handle.is_some());
    }

    fn add(&self, handles: Vec<(u64, Handle)>) {
        let mut pending = self.pending.lock();
        for (offset, handle) in handles {
            pending.waits.entry(offset).or_default().handle = Some(handle);
            pending.finish(offset);
        }
    }

    /// The event at `offset` goes to so many destinations.
    pub(crate) fn divide(&self, offset: u64, parts: usize) {
        let mut pending = self.pending.lock();
        if pending.open || pending.waits.contains_key(&offset) {
            pending.waits.entry(offset).or_default().parts = parts;
        }
    }

    /// Tells the source of the event at `offset` how it ended, if it wants to know, when it has ended everywhere.
    pub(crate) fn settle(&self, offset: u64, outcome: Outcome) {
        let mut pending = self.pending.lock();
        if pending.open || pending.waits.contains_key(&offset) {
            let wait = pending.waits.entry(offset).or_default();
            wait.ended += 1;
            wait.worst = wait.worst.max(outcome);
            pending.finish(offset);
        }
    }

    /// An event failed for good.
    pub(crate) fn fail(&self, key: u128) {
        self.failed.lock().push(key);
    }
}

impl Drop for Waiting {
    /// The events are stored, whatever becomes of this process.
    fn drop(&mut self) {
        let waits = self.pending.get_mut().waits.drain();
        for mut handle in waits.filter_map(|(_, wait)| wait.handle) {
            handle.settle(Outcome::Held);
        }
    }
}

// === impl Pending ===

impl Pending {
    fn finish(&mut self, offset: u64) {
        let ended = |wait: &Wait| wait.handle.is_some() && wait.ended >= wait.parts;
        if self.waits.get(&offset).is_some_and(ended)
            && let Some(wait) = self.waits.remove(&offset)
            && let Some(mut handle) = wait.handle
        {
            handle.settle(wait.worst);
        }
    }
}

impl Default for Wait {
    fn default() -> Self {
        Self {
            handle: None,
            parts: 1,
            ended: 0,
            worst: Outcome::Delivered,
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
            recent.add(events.filter_map(|event| Some((event.key()?, event.id()))));
            next = page.next;
        }
        recent
    }

    /// Has the next process look for keys. Before records with keys are appended: it is written with them, so that a crash does
    /// not part them.
    pub(crate) fn announce(journal: &dyn Journal) {
        journal.set_cursor(KEYED, Some(journal.bounds().next));
    }

    /// Whether another event with this key was stored.
    pub(crate) fn has(&self, key: u128, id: EventId) -> bool {
        self.keys.get(&key).is_some_and(|stored| *stored != id)
    }

    pub(crate) fn add(&mut self, keys: impl IntoIterator<Item = (u128, EventId)>) {
        let now = Instant::now();
        for (key, id) in keys {
            if self.keys.insert(key, id).is_none() {
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

    fn forget(&mut self, key: u128) {
        if self.keys.remove(&key).is_some() {
            self.order.retain(|(_, other)| *other != key);
        }
    }
}
