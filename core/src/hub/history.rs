//! What channels got, on the disk: positions, entries and the order of both survive a restart.

use std::fmt;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use bytes::{Buf, BufMut, Bytes};
use tokio::sync::{Mutex as Turns, MutexGuard as Turn};

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
}

/// The newest entries, read back.
struct Warm {
    /// Nothing up to here is among them.
    after: Offset,
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
        let event = |record| decode(record).map(|(event, _)| event);
        let recent = Recent::read(&*journal, event).await;
        Ok(Self {
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
        let records = records.map(|(event, channels)| encode(event, channels));
        let first = self.journal.append(records.collect()).await?;
        Ok(first.into())
    }

    /// Where a channel of this name was closed last: what is in front of that is not for who follows it now.
    pub(super) fn closed_at(&self, name: &ChannelName) -> Offset {
        let cursors = self.journal.cursors().into_iter();
        let mut closed = cursors.filter(|(cursor, _)| {
            let channel = cursor.strip_prefix(CLOSED);
            channel == Some(name.as_str())
        });
        closed.next().map_or(Offset::ORIGIN, |(_, at)| at.into())
    }

    /// Notes that a channel is closed, at `head`.
    pub(super) fn close(&self, name: &ChannelName, head: Offset) {
        let cursor = format!("{CLOSED}{name}");
        self.journal.set_cursor(&cursor, Some(head.get()));
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
            entries: Vec::new(),
        };
        let (now, clock) = (Instant::now(), SystemTime::now());
        let mut bytes = 0;
        while next < bounds.next {
            let page = journal.read(next, PAGE).await?;
            if page.next <= next {
                break;
            }
            next = page.next;
            for record in page.records {
                let Some((event, channels)) = decode(record.bytes) else {
                    tracing::error!(
                        offset = record.offset,
                        "an event of the history cannot be read back"
                    );
                    continue;
                };
                let age = clock.duration_since(record.at).unwrap_or_default();
                let position = Position {
                    epoch,
                    offset: record.offset.into(),
                };
                // Older than the machine is up: what matters is that it is old.
                let appended = now.checked_sub(age).unwrap_or(now);
                let entry = Arc::new(Entry::new(position, event, appended));
                bytes += entry.size();
                warm.entries.push((channels, entry));
            }
        }
        // More than one channel may retain is of no use, and the newest are wanted most.
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
}

/// The channels, each with its length in 16 bits behind their number in 16 bits, and the event's record.
fn encode(event: &Event, channels: &[ChannelName]) -> Bytes {
    let mut record = Vec::new();
    // An event goes to a few channels, and names have limits far below these.
    record.put_u16_le(channels.len().try_into().unwrap_or(u16::MAX));
    for name in channels.iter().take(u16::MAX.into()) {
        let name = name.as_str().as_bytes();
        record.put_u16_le(name.len().try_into().unwrap_or(u16::MAX));
        record.put_slice(name);
    }
    if event.to_record(&mut record).is_err() {
        // It is delivered all the same; its place in the order is kept.
        record.clear();
    }
    record.into()
}

fn decode(mut record: Bytes) -> Option<(Event, Vec<ChannelName>)> {
    let count = record.try_get_u16_le().ok()?;
    let mut channels = Vec::with_capacity(count.into());
    for _ in 0..count {
        let length = usize::from(record.try_get_u16_le().ok()?);
        if record.len() < length {
            return None;
        }
        let name = record.split_to(length);
        let name = str::from_utf8(&name).ok()?;
        channels.push(match name.strip_prefix('/')? {
            "" => ChannelName::root(),
            instance => ChannelName::of_instance(instance).ok()?,
        });
    }
    let event = Event::from_record(record).ok()?;
    Some((event, channels))
}
