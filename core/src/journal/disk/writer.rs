//! The thread that writes: it takes all that waits, makes blocks of it, and reports each when it is as durable as it should be.
//!
//! After an error it closes the database, opens it again with back-off, and takes back what it could not report as stored.

mod groups;
mod load;
mod revival;

use std::collections::VecDeque;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use self::groups::{Ahead, Written};
use self::load::Load;
use super::super::{Durability, JournalError, WhenFull, millis};
use super::encoders::Encoders;
use super::folder::{Folder, Left, damaged, failed};
use super::store::{Store, Summary, explain};
use super::{Shared, wal};

/// Time from a cursor's change to its writing.
const CURSORS: Duration = Duration::from_millis(100);
/// Time to wait for more appends before a sync, at most.
const GATHERING: Duration = Duration::from_millis(5);
/// Time between two looks for what is too old.
const LOOK: Duration = Duration::from_secs(1);
/// Time until a failed database is opened again, and what it grows to.
const RETRY: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));
const SEGMENT_BYTES: (u64, u64) = (16 << 10, 64 << 20);

pub(super) struct Writer {
    shared: Arc<Shared>,
    folder: Folder,
    store: Option<Store>,
    encoders: Encoders,
    /// Being encoded, in order.
    ahead: VecDeque<Ahead>,
    /// Written, but not reported: they wait for the disk.
    written: Vec<Written>,
    /// When the first block was written that may not be on the disk.
    unsynced: Option<Instant>,
    /// Appends that the last sync was for, and how long it took.
    last_sync: (usize, Duration),
    load: Load,
    cursors_due: Option<Instant>,
    look_due: Instant,
    retry: Option<(Instant, Duration)>,
    /// Deleted segments that the database still knows something of.
    deleted: Vec<u64>,
}

/// What the database said, or that it panicked.
type Attempt<T> = Result<T, JournalError>;

// === impl Writer ===

impl Writer {
    /// Opens the database, and repairs what a crash left.
    pub(super) fn open(shared: Arc<Shared>, folder: Folder) -> Result<Self, JournalError> {
        let io = |error: io::Error| failed(folder.path(), error);
        let left = folder.left().map_err(io)?;
        let whole = left == Left::Clean || repair(&folder)?;
        let (store, segments) = Store::open(&folder, whole)?;
        let ends = segments.iter().map(|it| it.summary.end.max(it.first));
        let next = ends.max().unwrap_or(1);
        let cursors = store.cursors().map_err(|it| explain(folder.path(), it))?;
        {
            let mut state = shared.state.lock();
            state.segments = segments.into();
            state.cursors = cursors.into_iter().collect();
            state.next = next;
        }
        let mut writer = Self {
            shared,
            folder,
            store: Some(store),
            encoders: Encoders::new(),
            ahead: VecDeque::new(),
            written: Vec::new(),
            unsynced: None,
            last_sync: (0, Duration::ZERO),
            load: Load::default(),
            cursors_due: None,
            look_due: Instant::now(),
            retry: None,
            deleted: Vec::new(),
        };
        if let Left::Crashed { lost } = left {
            // Whoever has seen the offsets of what is lost must not find other records there.
            tracing::warn!(
                journal = %writer.folder.path().display(), behind = next, skipped = lost,
                "the machine may have crashed: offsets that may have been given are not given again"
            );
            writer.shared.state.lock().next = next + lost;
            writer.roll()?;
        } else if writer.shared.state.lock().segments.is_empty() {
            writer.roll()?;
        }
        let marked = writer.folder.mark(writer.shared.options.durability);
        marked.map_err(|error| failed(writer.folder.path(), error))?;
        writer.folder.reserve();
        let next = writer.shared.state.lock().next;
        writer.shared.next.send_replace(next);
        Ok(writer)
    }

    pub(super) fn run(mut self) {
        let shared = Arc::clone(&self.shared);
        // However this ends, nobody may wait for an answer for good.
        let _ended = Ended(Arc::clone(&shared));
        let mut jobs = VecDeque::new();
        let mut more = true;
        while more {
            self.load.rests(Instant::now());
            more = shared.queue.take(&mut jobs, self.deadline(), self.more());
            self.load.works(Instant::now());
            self.encoders.compress(!self.load.is_high());
            self.revive();
            let closing = self.work(&mut jobs);
            self.look_after();
            if let Some(reply) = closing {
                let closed = self.close();
                shared.state.lock().close();
                reply.send(closed).ok();
                return;
            }
        }
        self.drop_store();
    }

    /// When to look up though no job comes.
    fn deadline(&self) -> Option<Instant> {
        if !self.ahead.is_empty() {
            return Some(Instant::now());
        }
        let Options { sync, ages } = self.options();
        let sync = self.unsynced.zip(sync).map(|(since, every)| since + every);
        let retry = self.retry.map(|(at, _)| at);
        let look = ages.then_some(self.look_due);
        let due = [sync, self.cursors_due, retry, look];
        due.into_iter().flatten().min()
    }

    /// How many appends to wait for when one is there, and how long. Those who were answered together come again together, and
    /// half a sync is better spent on waiting for them than a whole one on the first of them.
    fn more(&self) -> (usize, Duration) {
        let (appends, time) = self.last_sync;
        let synced = self.shared.options.durability == Durability::Always;
        (if synced { appends } else { 0 }, (time / 2).min(GATHERING))
    }

    fn options(&self) -> Options {
        let options = &self.shared.options;
        let sync = match options.durability {
            Durability::Interval(every) => Some(every),
            Durability::Always | Durability::Os => None,
        };
        let ages = options.retention.age != Duration::MAX;
        Options { sync, ages }
    }

    fn sync(&mut self) -> Attempt<()> {
        let Some(store) = &self.store else {
            return Err(self.failure());
        };
        let start = Instant::now();
        attempt(self.folder.path(), || store.sync())?;
        let appends = self.written.iter().map(Written::appends).sum();
        let time = start.elapsed();
        self.last_sync = (appends, time);
        self.load.waited(time);
        self.unsynced = None;
        Ok(())
    }

    /// Begins another segment when this one has enough.
    fn make_room(&mut self) -> Attempt<()> {
        let retention = self.shared.options.retention;
        let (least, most) = SEGMENT_BYTES;
        let bytes = (retention.bytes / 8).clamp(least, most);
        let records = (retention.records / 8).max(1);
        let age = whole_millis(retention.age) / 8;
        let waiting = self.written.iter();
        let waiting = waiting.fold((0, 0), |(records, bytes), written| {
            let key = &written.key;
            (
                records + u64::from(key.count),
                bytes + u64::from(key.stored),
            )
        });
        let full = {
            let state = self.shared.state.lock();
            let active = state.segments.back().map(|it| it.summary);
            active.is_none_or(|it| {
                let now = millis(SystemTime::now());
                it.bytes + waiting.1 >= bytes
                    || it.records + waiting.0 >= records
                    || it.records > 0 && it.oldest.saturating_add(age) < now
            })
        };
        if !full {
            return Ok(());
        }
        // What is known of a segment must be complete when it is sealed.
        if !self.written.is_empty() {
            self.sync()?;
            self.report();
        }
        self.roll()?;
        self.retain()
    }

    /// Begins a segment.
    fn roll(&mut self) -> Attempt<()> {
        let (next, active) = {
            let state = self.shared.state.lock();
            (state.next, state.segments.back().cloned())
        };
        let Some(store) = &self.store else {
            return Err(self.failure());
        };
        let deleted = &self.deleted;
        let segment = attempt(self.folder.path(), || {
            let segment = store.create(next)?;
            if let Some(active) = &active {
                store.seal(active, deleted)?;
            }
            Ok(segment)
        })?;
        self.deleted.clear();
        self.shared.state.lock().segments.push_back(segment);
        Ok(())
    }

    /// Drops what the retention does not keep.
    fn retain(&mut self) -> Attempt<()> {
        let retention = self.shared.options.retention;
        let now = millis(SystemTime::now());
        let age = whole_millis(retention.age);
        let drops = retention.full == WhenFull::DropOldest;
        let old = |it: &Summary| it.newest.saturating_add(age) < now;
        if self.is_active(old) {
            self.roll()?;
        }
        loop {
            let state = self.shared.state.lock();
            let several = state.segments.len() > 1;
            let goes = state.segments.front().is_some_and(|oldest| {
                let full = drops && state.bytes() > retention.bytes;
                full || state.records() > retention.records || old(&oldest.summary)
            });
            drop(state);
            if !several || !goes {
                return Ok(());
            }
            self.delete_oldest()?;
        }
    }

    fn trim(&mut self, before: u64) -> Attempt<()> {
        let result = self.try_trim(before);
        if let Err(error) = &result {
            self.fail(error);
        }
        result
    }

    fn try_trim(&mut self, before: u64) -> Attempt<()> {
        if self.is_active(|it| it.end <= before) {
            self.roll()?;
        }
        loop {
            let state = self.shared.state.lock();
            let several = state.segments.len() > 1;
            let oldest = state.segments.front();
            let goes = oldest.is_some_and(|oldest| oldest.summary.end <= before);
            drop(state);
            if !several || !goes {
                return Ok(());
            }
            self.delete_oldest()?;
        }
    }

    /// Whether there are records in the segment that is written to, and this is true of it.
    fn is_active(&self, test: impl Fn(&Summary) -> bool) -> bool {
        let state = self.shared.state.lock();
        let active = state.segments.back().map(|segment| segment.summary);
        active.is_some_and(|it| it.records > 0 && test(&it))
    }

    fn delete_oldest(&mut self) -> Attempt<()> {
        let Some(store) = &self.store else {
            return Err(self.failure());
        };
        let Some(segment) = self.shared.state.lock().segments.front().cloned() else {
            return Ok(());
        };
        let path = self.folder.path();
        let delete = || store.delete(&segment);
        let mut deleted = attempt(path, delete);
        if deleted.is_err() && self.folder.release() {
            // The disk may be full, and deleting takes a little of it.
            deleted = attempt(path, delete);
        }
        deleted?;
        self.deleted.push(segment.first);
        let mut state = self.shared.state.lock();
        state.segments.pop_front();
        let oldest = state.oldest();
        state.recent.trim(oldest);
        Ok(())
    }

    /// Does what is due apart from jobs.
    fn look_after(&mut self) {
        let now = Instant::now();
        let result = self.try_look_after(now);
        if let Err(error) = result
            && self.store.is_some()
        {
            self.fail(&error);
        }
    }

    fn try_look_after(&mut self, now: Instant) -> Attempt<()> {
        if self.cursors_due.is_none() && !self.shared.state.lock().dirty.is_empty() {
            self.cursors_due = Some(now + CURSORS);
        }
        if self.store.is_none() {
            self.cursors_due = None;
            return Ok(());
        }
        if self.cursors_due.is_some_and(|due| due <= now) {
            self.write_cursors()?;
        }
        let every = self.options().sync;
        if let (Some(since), Some(every)) = (self.unsynced, every)
            && since + every <= now
        {
            self.sync()?;
        }
        if self.look_due <= now {
            self.look_due = now + LOOK;
            self.folder.reserve();
            self.retain()?;
        }
        Ok(())
    }

    fn write_cursors(&mut self) -> Attempt<()> {
        self.cursors_due = None;
        let Some(store) = &self.store else {
            return Err(self.failure());
        };
        let dirty = std::mem::take(&mut self.shared.state.lock().dirty);
        let written = attempt(self.folder.path(), || store.set_cursors(dirty.clone()));
        if written.is_err() {
            let mut state = self.shared.state.lock();
            for (name, offset) in dirty {
                state.dirty.entry(name).or_insert(offset);
            }
        }
        written
    }

    /// Closes a journal that is complete.
    fn close(mut self) -> Attempt<()> {
        self.write_cursors()?;
        self.sync()?;
        self.drop_store();
        let path = self.folder.path();
        self.folder.unmark().map_err(|error| failed(path, error))
    }
}

/// Closes the journal when the writer is gone.
struct Ended(Arc<Shared>);

impl Drop for Ended {
    fn drop(&mut self) {
        self.0.queue.end();
        self.0
            .queue
            .take(&mut VecDeque::new(), None, (0, Duration::ZERO));
        self.0.state.lock().close();
    }
}

struct Options {
    /// Time until a block is on the disk.
    sync: Option<Duration>,
    /// Whether records get too old.
    ages: bool,
}

/// Looks through the logs of a journal that was not closed. Whether every record is there that was written to the end.
fn repair(folder: &Folder) -> Result<bool, JournalError> {
    let database = folder.database();
    if !database.exists() {
        return Ok(true);
    }
    let found = wal::repair(&database).map_err(|error| failed(folder.path(), error))?;
    let journal = folder.path().display();
    if found.damaged > 0 {
        tracing::warn!(%journal, places = found.damaged, "the newest records of a journal are damaged: those are skipped");
    }
    if found.torn > 0 {
        tracing::warn!(%journal, bytes = found.torn, "the end of a journal is torn: what was not whole is cut off");
    }
    Ok(found.damaged == 0)
}

/// Does something with the database, which may panic.
fn attempt<T>(path: &std::path::Path, work: impl FnOnce() -> fjall::Result<T>) -> Attempt<T> {
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(result) => result.map_err(|error| explain(path, error)),
        Err(_) => Err(damaged(path, "its database panicked")),
    }
}

fn whole_millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
