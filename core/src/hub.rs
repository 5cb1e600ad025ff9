//! All channels of this process: one shared log per channel, one cursor per client.
//!
//! Publishing appends one entry to the channels that a policy names; `/` and `/<instance>` share it. Memory
//! is bounded by the channels' limits whatever clients do: a client is a [`Cursor`], not a queue. One that
//! falls behind the oldest retained entry is told of the gap.

mod channel;
mod crowd;
mod cursor;
mod entry;
mod history;
mod lookout;
#[cfg(test)]
mod model;
mod name;
mod past;
mod position;
mod publisher;
mod ring;
mod since;
mod sync;
#[cfg(test)]
mod threads;
mod waiting;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use self::past::Past;
use self::sync::{Mutex, RwLock};
use crate::Event;
use crate::journal::JournalError;

pub use self::channel::Channel;
pub use self::crowd::Crowd;
pub use self::cursor::{Ahead, Cursor, Gap, Start};
pub use self::entry::{Entry, Frame, FrameKey, Variant};
pub use self::history::History;
pub use self::lookout::Lookout;
pub use self::name::{ChannelName, InvalidChannelName};
pub use self::position::{Epoch, Offset, Position};
pub use self::publisher::Publisher;
pub use self::since::{InvalidSince, Resume, Since};

/// What a channel retains. The first limit reached evicts the oldest entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// Entries.
    pub events: usize,
    /// Bytes of envelopes and attachments, up to 2 KiB of each twice for the copy that is sent, and 512 for each entry. One that
    /// two channels share counts in both. The newest entry
    /// stays however large it is.
    pub bytes: usize,
    /// Age.
    pub age: Duration,
}

/// All channels of this process.
pub struct Hub {
    epoch: Epoch,
    retention: Retention,
    channels: RwLock<HashMap<ChannelName, Arc<Channel>>>,
    /// The next offset. Held while a batch is appended, so that every channel sees the hub's order.
    order: Mutex<Offset>,
    watchers: Mutex<Vec<Arc<dyn ChannelWatcher>>>,
    history: Option<History>,
}

/// What [`Hub::publish`] did.
#[derive(Debug)]
pub struct Published {
    /// The position of the last event.
    pub head: Position,
    /// The channels that fill up faster than even their quickest clients read.
    pub crowd: Crowd,
}

/// Learns which channels there are. Called on the task that changes them: it must not block.
pub trait ChannelWatcher: Send + Sync {
    /// Clients may follow this channel from now on.
    fn opened(&self, channel: &Arc<Channel>);
    /// Clients must leave this channel.
    fn closed(&self, channel: &Arc<Channel>);
}

// === impl Hub ===

impl Hub {
    /// An empty hub with a fresh epoch.
    pub fn new(retention: Retention) -> Self {
        Self {
            epoch: Epoch::random(),
            retention,
            channels: RwLock::default(),
            order: Mutex::new(Offset::FIRST),
            watchers: Mutex::default(),
            history: None,
        }
    }

    /// A hub that goes on where the history ends. Channels that open before [`opened_all`](Self::opened_all) have what they had.
    pub fn with_history(retention: Retention, history: History) -> Self {
        Self {
            epoch: history.epoch(),
            order: Mutex::new(history.next()),
            history: Some(history),
            ..Self::new(retention)
        }
    }

    /// What channels got, on the disk.
    pub fn history(&self) -> Option<&History> {
        self.history.as_ref()
    }

    /// Every channel is open that is open at start.
    pub fn opened_all(&self) {
        if let Some(history) = &self.history {
            history.cool();
        }
    }

    /// The epoch of every position that this hub gives out.
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// The position of the newest entry; before the first one, the position in front of it.
    pub fn head(&self) -> Position {
        Position {
            epoch: self.epoch,
            offset: self.order.lock().before(),
        }
    }

    /// The open channel of this name.
    pub fn channel(&self, name: &ChannelName) -> Option<Arc<Channel>> {
        self.channels.read().get(name).cloned()
    }

    /// The open channel with this name, slash included.
    pub fn find(&self, name: &str) -> Option<Arc<Channel>> {
        self.channels.read().get(name).cloned()
    }

    /// Every open channel, in no order.
    pub fn channels(&self) -> Vec<Arc<Channel>> {
        self.channels.read().values().cloned().collect()
    }

    /// Opens a channel: from now on clients may follow it. Opening an open channel changes nothing.
    pub fn open(&self, name: &ChannelName) -> Arc<Channel> {
        if let Some(channel) = self.channel(name) {
            return channel;
        }
        // Watchers are told in the order of the changes, and before anybody can publish into the channel.
        let watchers = self.watchers.lock();
        let next = self.order.lock();
        let mut channels = self.channels.write();
        if let Some(channel) = channels.get(name) {
            return Arc::clone(channel);
        }
        let head = next.before();
        let warmth = self.history.as_ref().and_then(|it| it.warmth(name));
        let (after, entries) = warmth.unwrap_or((head, Vec::new()));
        let past = self.history.as_ref().map(|history| {
            if !history.is_warm() {
                // Whoever had this name before, if that was not noted: nobody is given what was theirs.
                history.close(name);
            }
            let opened = history.closed_at(name);
            Past::new(history.pages(), opened)
        });
        let channel = Channel::new(name.clone(), self.epoch, self.retention, after, past);
        channel.fill(entries, head);
        let channel = Arc::new(channel);
        channels.insert(name.clone(), Arc::clone(&channel));
        drop(channels);
        drop(next);
        for watcher in watchers.iter() {
            watcher.opened(&channel);
        }
        channel
    }

    /// Closes a channel: its entries are dropped and its clients must leave.
    pub fn close(&self, name: &ChannelName) {
        let watchers = self.watchers.lock();
        if let Some(history) = &self.history {
            // Who opens a channel of this name later is not to see what was in it, though it is not open now.
            history.close(name);
        }
        let removed = self.channels.write().remove(name);
        if let Some(channel) = removed {
            channel.close();
            for watcher in watchers.iter() {
                watcher.closed(&channel);
            }
        }
    }

    /// Tells `watcher` of every channel that is open, and of every change from then on.
    pub fn watch(&self, watcher: Arc<dyn ChannelWatcher>) {
        let mut watchers = self.watchers.lock();
        for channel in self.channels() {
            watcher.opened(&channel);
        }
        watchers.push(watcher);
    }

    /// Appends a batch: each event, in order, to the channels named for it, which are opened as needed; to the root before any
    /// other, however they are named, so that who finds an entry elsewhere finds it in the root, too.
    /// Returns the position of the last one, and which channels fill up faster than they are read.
    ///
    /// It goes past the history: for hubs that have one there is [`Publisher::publish`].
    pub fn publish<'a>(
        &self,
        batch: impl IntoIterator<Item = (&'a Event, &'a [ChannelName])>,
    ) -> Published {
        self.publish_at(None, batch)
    }

    /// Stores a batch in the history, if there is one, and publishes it then. Events with a key that the history has are left out,
    /// and counted. Not cancel safe: cancelled, the batch may be in the history and not in the channels.
    async fn store_and_publish(
        &self,
        batch: Vec<(&Event, &[ChannelName])>,
    ) -> Result<(Published, usize), JournalError> {
        let Some(history) = &self.history else {
            return Ok((self.publish(batch), 0));
        };
        let mut recent = history.turn().await;
        let offered = batch.len();
        let mut keys = HashMap::new();
        let mut batch = batch;
        batch.retain(|(event, _)| {
            let (key, id) = (event.key(), event.id());
            key.is_none_or(|key| !recent.has(key, id) && *keys.entry(key).or_insert(id) == id)
        });
        let first = history.store(&batch).await?;
        recent.add(keys);
        let duplicates = offered - batch.len();
        Ok((self.publish_at(Some(first), batch), duplicates))
    }

    fn publish_at<'a>(
        &self,
        first: Option<Offset>,
        batch: impl IntoIterator<Item = (&'a Event, &'a [ChannelName])>,
    ) -> Published {
        let now = Instant::now();
        // Each channel is looked up once per batch, however many events it gets.
        let mut known: HashMap<&ChannelName, usize> = HashMap::new();
        let mut channels: Vec<Arc<Channel>> = Vec::new();
        let mut events: Vec<(&Event, std::ops::Range<usize>)> = Vec::new();
        let mut targets: Vec<usize> = Vec::new();
        for (event, names) in batch {
            let first = targets.len();
            for name in names {
                let at = known.entry(name).or_insert_with(|| {
                    // Opening tells watchers, who may look at the hub: so before the lock on the order.
                    channels.push(self.open(name));
                    channels.len() - 1
                });
                targets.push(*at);
            }
            if let Some(at) = names.iter().position(ChannelName::is_root) {
                targets[first..=first + at].rotate_right(1);
            }
            events.push((event, first..targets.len()));
        }
        let mut next = self.order.lock();
        // Never back, though the journal gives no offset twice either.
        *next = first.map_or(*next, |first| first.max(*next));
        for (event, own) in events {
            let position = Position {
                epoch: self.epoch,
                offset: *next,
            };
            *next = next.after();
            let entry = Arc::new(Entry::new(position, event.clone(), now));
            for &at in &targets[own] {
                channels[at].append(Arc::clone(&entry));
            }
        }
        let head = Position {
            epoch: self.epoch,
            offset: next.before(),
        };
        drop(next);
        // One round of wake-ups per channel and batch, however many events it got.
        for channel in &channels {
            channel.wake();
        }
        let crowd = Crowd::of(channels);
        Published { head, crowd }
    }

    /// What each channel retains at most.
    pub fn retention(&self) -> Retention {
        self.retention
    }

    /// Drops entries that are past their age, in channels that nobody publishes to any more.
    pub fn expire(&self) {
        let now = Instant::now();
        for channel in self.channels() {
            channel.expire(now);
        }
        if let Some(history) = &self.history {
            history.expire(now);
        }
    }
}

impl Default for Retention {
    fn default() -> Self {
        Self {
            events: 10_000,
            bytes: 64 * 1024 * 1024,
            age: Duration::from_mins(10),
        }
    }
}
