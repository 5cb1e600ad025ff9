//! An event as bytes, for journals.
//!
//! Numbers are little-endian. Version 1: the version, flags (1: an idempotency key follows), the id, the time of arrival in
//! microseconds since 1970, the key, then name and instance (each with its length in 16 bits), the envelope (32 bits), and the
//! number of attachments (16 bits) and each of them (32 bits).

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::{Buf, BufMut, Bytes};

use super::{Event, EventId};

const VERSION: u8 = 1;
const KEYED: u8 = 1;

/// Why bytes are not the record of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// A later evows has written it.
    #[error("the record has version {0}, which this evows does not know")]
    Version(u8),
    /// It ends too early, or is no record at all.
    #[error("the record is damaged")]
    Damaged,
    /// The event has a name or instance of more than 64 KiB, or more than 65,535 attachments, or one of 4 GiB.
    #[error("the event is too large to be stored")]
    TooLarge,
}

// === impl Event ===

impl Event {
    /// Appends the event as bytes. It reads back [equal](Self::from_record), but for its handle.
    pub fn to_record(&self, out: &mut Vec<u8>) -> Result<(), RecordError> {
        fn short(length: usize) -> Result<u16, RecordError> {
            length.try_into().map_err(|_| RecordError::TooLarge)
        }
        fn long(length: usize) -> Result<u32, RecordError> {
            length.try_into().map_err(|_| RecordError::TooLarge)
        }
        let envelope = self.envelope();
        let (name, instance) = (short(self.name().len())?, short(self.instance().len())?);
        let (size, attached) = (long(envelope.len())?, short(self.attachments().len())?);
        for attachment in self.attachments() {
            long(attachment.len())?;
        }
        let received_at = self.received_at().duration_since(SystemTime::UNIX_EPOCH);
        let micros = received_at.unwrap_or_default().as_micros();
        out.reserve(64 + self.size());
        out.put_u8(VERSION);
        out.put_u8(if self.key().is_some() { KEYED } else { 0 });
        out.put_u128_le(self.inner.id.0);
        out.put_u64_le(u64::try_from(micros).unwrap_or(u64::MAX));
        if let Some(key) = self.key() {
            out.put_u128_le(key);
        }
        out.put_u16_le(name);
        out.put_slice(self.name().as_bytes());
        out.put_u16_le(instance);
        out.put_slice(self.instance().as_bytes());
        out.put_u32_le(size);
        out.put_slice(envelope);
        out.put_u16_le(attached);
        for attachment in self.attachments() {
            // Looked at above.
            out.put_u32_le(long(attachment.len())?);
            out.put_slice(attachment);
        }
        Ok(())
    }

    /// Reads an event back. Envelope and attachments are slices of the record.
    pub fn from_record(mut record: Bytes) -> Result<Self, RecordError> {
        let damaged = |_| RecordError::Damaged;
        let version = record.try_get_u8().map_err(damaged)?;
        if version != VERSION {
            return Err(RecordError::Version(version));
        }
        let flags = record.try_get_u8().map_err(damaged)?;
        let id = EventId(record.try_get_u128_le().map_err(damaged)?);
        let micros = record.try_get_u64_le().map_err(damaged)?;
        let key = match flags & KEYED {
            0 => None,
            _ => Some(record.try_get_u128_le().map_err(damaged)?),
        };
        let received_at = SystemTime::UNIX_EPOCH.checked_add(Duration::from_micros(micros));
        let name = text(&mut record)?;
        let instance = text(&mut record)?;
        let envelope = long(&mut record)?;
        let attached = record.try_get_u16_le().map_err(damaged)?;
        let attachments = (0..attached).map(|_| long(&mut record));
        let attachments = attachments.collect::<Result<Vec<_>, _>>()?;
        let received_at = received_at.ok_or(RecordError::Damaged)?;
        let mut event = Self::from_parts(name, instance, envelope, received_at).with_id(id);
        if let Some(key) = key {
            event = event.with_key(key);
        }
        Ok(if attachments.is_empty() {
            event
        } else {
            event.with_attachments(attachments)
        })
    }
}

fn text(record: &mut Bytes) -> Result<Arc<str>, RecordError> {
    let length = record.try_get_u16_le().map_err(|_| RecordError::Damaged)?;
    let text = take(record, length.into())?;
    let text = str::from_utf8(&text).map_err(|_| RecordError::Damaged)?;
    Ok(text.into())
}

fn long(record: &mut Bytes) -> Result<Bytes, RecordError> {
    let length = record.try_get_u32_le().map_err(|_| RecordError::Damaged)?;
    let length = usize::try_from(length).map_err(|_| RecordError::Damaged)?;
    take(record, length)
}

fn take(record: &mut Bytes, length: usize) -> Result<Bytes, RecordError> {
    if record.len() < length {
        return Err(RecordError::Damaged);
    }
    Ok(record.split_to(length))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn an_event_reads_back(
            name in ".{1,20}", instance in ".{1,20}",
            envelope in proptest::collection::vec(any::<u8>(), 0..300),
            attachments in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..50), 0..4),
            micros in 0..u64::MAX / 2, key in any::<Option<u128>>(),
        ) {
            let at = SystemTime::UNIX_EPOCH + Duration::from_micros(micros);
            let mut event = Event::from_parts(name.into(), instance.into(), envelope.into(), at)
                .with_attachments(attachments.into_iter().map(Bytes::from).collect());
            if let Some(key) = key {
                event = event.with_key(key);
            }
            let mut record = Vec::new();
            event.to_record(&mut record).unwrap();
            let back = Event::from_record(record.clone().into()).unwrap();
            prop_assert_eq!(back.id(), event.id());
            prop_assert_eq!((back.name(), back.instance()), (event.name(), event.instance()));
            prop_assert_eq!(back.envelope(), event.envelope());
            prop_assert_eq!(back.attachments(), event.attachments());
            prop_assert_eq!((back.received_at(), back.key()), (at, key));
            for length in 0..record.len() {
                let cut = Bytes::copy_from_slice(record.get(..length).unwrap());
                prop_assert_eq!(Event::from_record(cut).unwrap_err(), RecordError::Damaged);
            }
        }
    }

    #[test]
    fn a_later_version_is_told() {
        let error = Event::from_record(Bytes::from_static(&[9])).unwrap_err();
        assert_eq!(error, RecordError::Version(9));
    }
}
