//! Reading further back than channels retain in memory: pages of the history, shared by all who are at the same place.
//!
//! Here, too, a client is no more than an offset. What it reads lies in a cache of bounded size. What does not is read for it, a
//! few pages at a time, each kept until all who asked for it have looked, or for a moment.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::{Semaphore, SemaphorePermit};

use super::super::sync::Mutex;
use super::super::{ChannelName, Entry, Epoch, Offset, Position};
use super::fetch::{Asked, Fetch};
use super::record::{self, Names, Stored};
use crate::journal::{Journal, JournalError, Limit, Record};

/// What a page has at most.
const PAGE: Limit = Limit {
    records: if cfg!(test) { 16 } else { 1024 },
    bytes: 2 << 20,
};
/// Bytes of the pages that are kept.
const KEPT: usize = 32 << 20;
/// Time that a page is kept which nobody looks at.
const IDLE: Duration = Duration::from_secs(30);
/// Pages that are read, or waited with until those have looked who asked for them.
const AT_ONCE: usize = 4;
/// How long it is waited for them.
const PATIENCE: Duration = Duration::from_millis(200);
/// Time until a journal that could not be read is tried again.
const RETRY: Duration = Duration::from_millis(200);

/// What is on the disk, as channels read it.
pub(in super::super) struct Pages {
    journal: Arc<dyn Journal>,
    epoch: Epoch,
    /// What is known to be lost between records: from behind one offset through another.
    holes: Mutex<BTreeMap<Offset, Offset>>,
    state: Mutex<State>,
    turns: Semaphore,
}

#[derive(Default)]
struct State {
    kept: BTreeMap<Offset, Kept>,
    bytes: usize,
    fetches: BTreeMap<Offset, Arc<Fetch>>,
}

struct Kept {
    page: Arc<Page>,
    used: Instant,
}

/// Entries in order, without a hole.
#[derive(Debug)]
pub(in super::super) struct Page {
    first: Offset,
    next: Offset,
    slots: Vec<Slot>,
}

#[derive(Debug)]
struct Slot {
    stored: Stored,
    channels: Vec<ChannelName>,
    entry: Arc<Entry>,
}

/// Which entries of a page are shown.
#[derive(Debug, Clone, Copy)]
pub(in super::super) struct Wanted<'a> {
    pub(in super::super) channel: &'a ChannelName,
    pub(in super::super) after: Offset,
    pub(in super::super) through: Offset,
    /// None in front of the first one that was stored at this time or later.
    pub(in super::super) since: Option<SystemTime>,
    pub(in super::super) most: usize,
}

/// What of a page was shown.
#[derive(Debug, Clone, Copy)]
pub(in super::super) struct Shown {
    pub(in super::super) count: u64,
    /// Up to here it was looked at.
    pub(in super::super) reached: Offset,
}

// === impl Pages ===

impl Pages {
    pub(super) fn new(journal: Arc<dyn Journal>) -> Self {
        Self {
            epoch: journal.epoch().into(),
            journal,
            holes: Mutex::default(),
            state: Mutex::default(),
            turns: Semaphore::new(AT_ONCE),
        }
    }

    /// Everything up to here is gone.
    pub(in super::super) fn floor(&self) -> Offset {
        Offset::from(self.journal.bounds().oldest).before()
    }

    /// The end of what is lost right behind this offset, if something is.
    pub(in super::super) fn hole(&self, after: Offset) -> Option<Offset> {
        let holes = self.holes.lock();
        let (_, through) = holes.range(..=after).next_back()?;
        (*through > after).then_some(*through)
    }

    /// Where what is lost behind this offset begins, and where the last of it ends.
    pub(in super::super) fn holes(&self, after: Offset) -> Option<(Offset, Offset)> {
        let holes = self.holes.lock();
        let (_, last) = holes.last_key_value()?;
        let mut ahead = holes.iter().filter(|(_, through)| **through > after);
        let (first, _) = ahead.next()?;
        Some((after.max(*first), *last))
    }

    /// Something is lost.
    pub(super) fn lost(&self, after: Offset, through: Offset) {
        let mut holes = self.holes.lock();
        let known = holes.entry(after).or_insert(through);
        *known = through.max(*known);
    }

    /// An offset in front of the first record of this time, perhaps far in front of it; nothing when that may be gone.
    pub(in super::super) fn in_front_of(&self, time: SystemTime) -> Option<Offset> {
        let first = self.journal.seek_roughly(time)?;
        Some(Offset::from(first).before())
    }

    /// The page that has this offset, if it is kept.
    pub(in super::super) fn find(&self, offset: Offset) -> Option<Arc<Page>> {
        let mut state = self.state.lock();
        let (_, kept) = state.kept.range_mut(..=offset).next_back()?;
        if !kept.page.has(offset) {
            return None;
        }
        kept.used = Instant::now();
        Some(Arc::clone(&kept.page))
    }

    /// Has the page read that begins with this offset or has it. Within a runtime.
    pub(in super::super) fn ask(self: &Arc<Self>, offset: Offset) -> Asked {
        let mut state = self.state.lock();
        let under_way = state.fetches.range(..=offset).next_back();
        let near = offset.get().saturating_sub(PAGE.records as u64);
        if let Some((from, fetch)) = under_way
            && from.get() > near
            && let Some(asked) = Asked::new(fetch)
        {
            return asked;
        }
        // Not what somebody else has read, or is about to.
        let (fetches, kept) = (state.fetches.keys(), state.kept.keys());
        let next = fetches.chain(kept).filter(|it| **it > offset).min();
        let room = next.map_or(u64::MAX, |next| next.get() - offset.get());
        let room = usize::try_from(room).unwrap_or(usize::MAX);
        // Some overlap does no harm; many small pages would.
        let records = room.clamp(PAGE.records / 4, PAGE.records);
        let fetch = Arc::new(Fetch::new(offset));
        state.fetches.insert(offset, Arc::clone(&fetch));
        drop(state);
        let asked = Asked::of_new(&fetch);
        tokio::spawn(Arc::clone(self).fetch(fetch, Limit { records, ..PAGE }));
        asked
    }

    async fn fetch(self: Arc<Self>, fetch: Arc<Fetch>, most: Limit) {
        let read = self.read(&fetch, most).await;
        let (page, turn) = read.unzip();
        {
            let mut state = self.state.lock();
            state.fetches.remove(&fetch.from());
            if let Some(page) = &page
                && !page.slots.is_empty()
            {
                state.keep(Arc::clone(page));
            }
        }
        fetch.end(page);
        // However quickly others ask for other pages: each page that is read serves those who asked for it.
        tokio::time::timeout(PATIENCE, fetch.looked()).await.ok();
        fetch.let_go();
        drop(turn);
    }

    /// Nothing when nobody asks any more, or when there is nothing to be read here.
    async fn read(&self, fetch: &Fetch, most: Limit) -> Option<(Arc<Page>, SemaphorePermit<'_>)> {
        let from = fetch.from();
        let mut warned = false;
        while fetch.is_asked_for() {
            // It is never closed.
            let turn = self.turns.acquire().await.ok()?;
            match self.journal.read(from.get(), most).await {
                Ok(page) => {
                    let page = self.page(from, page.next, page.records);
                    return Some((Arc::new(page), turn));
                }
                Err(error) if error.passes() => {
                    if !warned {
                        tracing::warn!(%error, offset = %from, "the history cannot be read now: clients wait for it");
                        warned = true;
                    }
                    drop(turn);
                    tokio::time::sleep(RETRY).await;
                }
                Err(JournalError::Closed) => {
                    // The process stops. Clients read on with the next one; asking again would be of no use.
                    drop(turn);
                    fetch.left().await;
                    return None;
                }
                Err(error) => {
                    tracing::error!(%error, offset = %from, "a part of the history cannot be read: it is passed over");
                    let through = from.get().saturating_add(most.records as u64) - 1;
                    self.lost(from.before(), through.into());
                    return None;
                }
            }
        }
        None
    }

    fn page(&self, from: Offset, next: u64, records: Vec<Record>) -> Page {
        let mut names = Names::default();
        let clock = (Instant::now(), SystemTime::now());
        let mut page = Page {
            first: from,
            next: from,
            slots: Vec::with_capacity(records.len()),
        };
        for record in records {
            let Some((event, channels)) = record::decode(&record.bytes, &mut names) else {
                tracing::error!(
                    offset = record.offset,
                    "an event of the history cannot be read back"
                );
                continue;
            };
            let offset = Offset::from(record.offset);
            if offset > page.next {
                self.lost(page.next.before(), offset.before());
                if !page.slots.is_empty() {
                    // What lies behind the hole is another page.
                    return page;
                }
                page.first = offset;
            }
            let stored = Stored::new(record.at);
            let position = Position {
                epoch: self.epoch,
                offset,
            };
            page.slots.push(Slot {
                entry: Arc::new(Entry::new(position, event, stored.appended(clock))),
                stored,
                channels,
            });
            page.next = offset.after();
        }
        if Offset::from(next) > page.next {
            self.lost(page.next.before(), Offset::from(next).before());
        }
        page
    }

    /// Drops what nobody looks at any more.
    pub(super) fn expire(&self, now: Instant) {
        let mut state = self.state.lock();
        let idle = |kept: &Kept| now.saturating_duration_since(kept.used) > IDLE;
        let gone = state.kept.extract_if(.., |_, kept| idle(kept));
        let gone: usize = gone.map(|(_, kept)| kept.page.size()).sum();
        state.bytes -= gone;
    }
}

// === impl State ===

impl State {
    fn keep(&mut self, page: Arc<Page>) {
        self.bytes += page.size();
        let used = Instant::now();
        let before = self.kept.insert(page.first, Kept { page, used });
        self.bytes -= before.map_or(0, |before| before.page.size());
        while self.bytes > KEPT {
            let oldest = self.kept.iter().min_by_key(|(_, kept)| kept.used);
            let Some(first) = oldest.map(|(first, _)| *first) else {
                return;
            };
            let gone = self.kept.remove(&first);
            self.bytes -= gone.map_or(0, |gone| gone.page.size());
        }
    }
}

// === impl Page ===

impl Page {
    pub(in super::super) fn has(&self, offset: Offset) -> bool {
        self.first <= offset && offset < self.next
    }

    /// Shows the entries that are wanted. The page has the first offset behind `wanted.after`.
    pub(in super::super) fn show(
        &self,
        wanted: Wanted<'_>,
        mut show: impl FnMut(&Arc<Entry>),
    ) -> Shown {
        let had = self.slots.partition_point(|it| it.offset() <= wanted.after);
        let mut shown = Shown {
            count: 0,
            reached: wanted.after,
        };
        let mut left = wanted.most;
        let slots = self.slots.iter().skip(had);
        for slot in slots.take_while(|it| it.offset() <= wanted.through) {
            let old = shown.count == 0
                && wanted
                    .since
                    .is_some_and(|since| slot.stored.is_before(since));
            if !old && slot.channels.contains(wanted.channel) {
                if left == 0 {
                    return shown;
                }
                left -= 1;
                shown.count += 1;
                show(&slot.entry);
            }
            shown.reached = slot.offset();
        }
        shown
    }

    fn size(&self) -> usize {
        let slots = self.slots.iter();
        let slots = slots.map(|slot| slot.entry.size() + size_of::<Slot>());
        slots.sum::<usize>() + size_of::<Self>()
    }
}

// === impl Slot ===

impl Slot {
    fn offset(&self) -> Offset {
        self.entry.position.offset
    }
}
