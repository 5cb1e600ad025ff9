//! What channels got, on the disk: positions, entries and the order of both survive a restart.

mod fetch;
mod pages;
mod record;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use bytes::Bytes;
use tokio::sync::{Mutex as Turns, MutexGuard as Turn};

pub(super) use self::fetch::Asked;
pub(super) use self::pages::{Page, Pages, Wanted};
use self::record::{Names, Stored};
use super::sync::Mutex;
use super::{ChannelName, Entry, Epoch, Offset, Position, Retention};
use crate::Event;
use crate::delivery::store::Recent;
use crate::journal::{Journal, JournalError, Limit};

/// What the cursors are called that say where a channel was closed.
const CLOSED: &str = "closed/";

/// What is read at once.
const PAGE: Limit = Limit {
    records: 2048,
    bytes: 8 << 20,
};

/// The journal under a hub.
pub struct History {
    journal: Arc<dyn Journal>,
    /// Held from before events are stored until they are in their channels, so that both are in the same order.
    turns: Turns<Recent>,
    /// What channels are filled with that open at start. Empty afterwards.
    warm: Mutex<Option<Warm>>,
    /// Where channels were closed last: what is in front of that is not for who follows them now.
    closed: Mutex<HashMap<ChannelName, Offset>>,
    pages: Arc<Pages>,
}

/// The newest entries, read back.
struct Warm {
    /// Nothing up to here is among them.
    after: Offset,
    /// What is lost: from behind one offset through another.
    lost: Vec<(Offset, Offset)>,
    entries: Vec<(Vec<ChannelName>, Arc<Entry>)>,
}

// === impl History ===

impl History {
    /// Reads back as much as a channel may retain. The journal is the hub's alone.
    pub async fn open(
        journal: Arc<dyn Journal>,
        retention: &Retention,
    ) -> Result<Self, JournalError> {
        let warm = Warm::read(&*journal, retention).await?;
        let event =
            |record: Bytes| record::decode(&record, &mut Names::default()).map(|(event, _)| event);
        let recent = Recent::read(&*journal, event).await;
        let cursors = journal.cursors().into_iter();
        let closed = cursors.filter_map(|(cursor, at)| {
            let name = record::name(cursor.strip_prefix(CLOSED)?)?;
            Some((name, at.into()))
        });
        let pages = Pages::new(Arc::clone(&journal));
        for (after, through) in &warm.lost {
            pages.lost(*after, *through);
        }
        Ok(Self {
            closed: Mutex::new(closed.collect()),
            pages: Arc::new(pages),
            journal,
            turns: Turns::new(recent),
            warm: Mutex::new(Some(warm)),
        })
    }

    pub(super) fn epoch(&self) -> Epoch {
        Epoch::from(self.journal.epoch())
    }

    /// The offset that comes next.
    pub(super) fn next(&self) -> Offset {
        self.journal.bounds().next.into()
    }

    /// Waits for the turn to store and publish. Cancel safe.
    pub(super) async fn turn(&self) -> Turn<'_, Recent> {
        self.turns.lock().await
    }

    /// Stores events with the channels that they go to, and returns the offset of the first.
    pub(super) async fn store(
        &self,
        events: &[(&Event, &[ChannelName])],
    ) -> Result<Offset, JournalError> {
        if events.iter().any(|(event, _)| event.key().is_some()) {
            Recent::announce(&*self.journal);
        }
        let records = events.iter();
        let records = records.map(|(event, channels)| record::encode(event, channels));
        let first = self.journal.append(records.collect()).await?;
        Ok(first.into())
    }

    /// Where a channel of this name was closed last.
    pub(super) fn closed_at(&self, name: &ChannelName) -> Offset {
        let closed = self.closed.lock();
        closed.get(name).copied().unwrap_or(Offset::ORIGIN)
    }

    /// What has been stored so far under the name of a channel is nobody's from now on.
    pub(super) fn close(&self, name: &ChannelName) {
        // Some of it may be stored, and not be in the channel yet.
        let head = self.next().before();
        self.closed.lock().insert(name.clone(), head);
        let cursor = format!("{CLOSED}{name}");
        self.journal.set_cursor(&cursor, Some(head.get()));
    }

    /// Whether channels that open now are those that are open at start. Others have nothing of what is stored.
    pub(super) fn is_warm(&self) -> bool {
        self.warm.lock().is_some()
    }

    /// What a channel reads back of it.
    pub(super) fn pages(&self) -> &Arc<Pages> {
        &self.pages
    }

    /// Lets go of pages that nobody looks at.
    pub(super) fn expire(&self, now: Instant) {
        self.pages.expire(now);
    }

    /// What a channel of this name starts with: the offset in front of it, and the entries.
    pub(super) fn warmth(&self, name: &ChannelName) -> Option<(Offset, Vec<Arc<Entry>>)> {
        let warm = self.warm.lock();
        let warm = warm.as_ref()?;
        let after = warm.after.max(self.closed_at(name));
        let entries = warm.entries.iter();
        let own = entries
            .filter(|(channels, entry)| entry.position.offset > after && channels.contains(name));
        Some((after, own.map(|(_, entry)| Arc::clone(entry)).collect()))
    }

    /// Lets go of what channels start with: those that open from now on start empty.
    pub(super) fn cool(&self) {
        self.warm.lock().take();
    }

    /// Stores what waits and closes the journal.
    pub(crate) async fn stop(&self) -> Result<(), JournalError> {
        self.journal.close().await
    }
}

impl fmt::Debug for History {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("History").field(&self.journal).finish()
    }
}

// === impl Warm ===

impl Warm {
    async fn read(journal: &dyn Journal, retention: &Retention) -> Result<Self, JournalError> {
        let bounds = journal.bounds();
        let events = u64::try_from(retention.events).unwrap_or(u64::MAX);
        let epoch = Epoch::from(journal.epoch());
        let mut next = bounds.next.saturating_sub(events).max(bounds.oldest);
        let mut warm = Self {
            after: Offset::from(next).before(),
            lost: Vec::new(),
            entries: Vec::new(),
        };
        let mut names = Names::default();
        let clock = (Instant::now(), SystemTime::now());
        while next < bounds.next {
            let page = journal.read(next, PAGE).await?;
            if page.next <= next {
                break;
            }
            for record in page.records {
                let Some((event, channels)) = record::decode(&record.bytes, &mut names) else {
                    tracing::error!(
                        offset = record.offset,
                        "an event of the history cannot be read back"
                    );
                    continue;
                };
                warm.pass_hole(next, record.offset);
                next = record.offset + 1;
                let position = Position {
                    epoch,
                    offset: record.offset.into(),
                };
                let appended = Stored::new(record.at).appended(clock);
                let entry = Arc::new(Entry::new(position, event, appended));
                warm.entries.push((channels, entry));
            }
            warm.pass_hole(next, page.next);
            next = page.next;
        }
        // More than one channel may retain is of no use, and the newest are wanted most.
        let mut bytes: usize = warm.entries.iter().map(|(_, entry)| entry.size()).sum();
        let mut surplus = 0;
        for (_, entry) in &warm.entries {
            if bytes <= retention.bytes {
                break;
            }
            bytes -= entry.size();
            warm.after = entry.position.offset;
            surplus += 1;
        }
        warm.entries.drain(..surplus);
        Ok(warm)
    }

    /// Where something is lost, it begins anew: nobody is to read over that without being told.
    fn pass_hole(&mut self, expected: u64, next: u64) {
        if next > expected {
            self.after = Offset::from(next).before();
            self.lost
                .push((Offset::from(expected).before(), self.after));
            self.entries.clear();
        }
    }
}
