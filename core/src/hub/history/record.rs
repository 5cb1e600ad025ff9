//! An entry as the history stores it.

use std::collections::HashSet;
use std::time::{Duration, Instant, SystemTime};

use bytes::{Buf, BufMut, Bytes};

use super::super::ChannelName;
use crate::Event;

/// Names of channels that were read before: most records have the same few.
#[derive(Default)]
pub(super) struct Names(HashSet<ChannelName>);

/// When an entry was stored. It is known to the millisecond: what may be of a time is taken to be.
#[derive(Debug, Clone, Copy)]
pub(super) struct Stored {
    /// By then it was.
    by: SystemTime,
}

/// The channels, each with its length in 16 bits behind their number in 16 bits, and the event's record.
pub(super) fn encode(event: &Event, channels: &[ChannelName]) -> Bytes {
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

/// The event and the channels that it went to; nothing when that is not what was written. Copied: the record is a part of a larger
/// block, which would stay in memory for as long as the event.
pub(super) fn decode(record: &[u8], names: &mut Names) -> Option<(Event, Vec<ChannelName>)> {
    let mut record = Bytes::copy_from_slice(record);
    let count = record.try_get_u16_le().ok()?;
    let mut channels = Vec::with_capacity(count.into());
    for _ in 0..count {
        let length = usize::from(record.try_get_u16_le().ok()?);
        if record.len() < length {
            return None;
        }
        let name = record.split_to(length);
        channels.push(names.get(str::from_utf8(&name).ok()?)?);
    }
    let event = Event::from_record(record).ok()?;
    Some((event, channels))
}

/// The channel of this name.
pub(super) fn name(text: &str) -> Option<ChannelName> {
    match text.strip_prefix('/')? {
        "" => Some(ChannelName::root()),
        instance => ChannelName::of_instance(instance).ok(),
    }
}

// === impl Stored ===

impl Stored {
    pub(super) fn new(at: SystemTime) -> Self {
        let by = at.checked_add(Duration::from_millis(1)).unwrap_or(at);
        Self { by }
    }

    pub(super) fn is_before(self, time: SystemTime) -> bool {
        self.by <= time
    }

    /// The same by the monotonic clock, both being read as `now`.
    pub(super) fn appended(self, (now, clock): (Instant, SystemTime)) -> Instant {
        let age = clock.duration_since(self.by).unwrap_or_default();
        // Older than the machine is up: what matters is that it is old.
        now.checked_sub(age).unwrap_or(now)
    }
}

// === impl Names ===

impl Names {
    fn get(&mut self, text: &str) -> Option<ChannelName> {
        if let Some(name) = self.0.get(text) {
            return Some(name.clone());
        }
        let name = name(text)?;
        self.0.insert(name.clone());
        Some(name)
    }
}
