//! The event: one thing that happened, and the envelope that travels with it.

mod attached;
mod record;

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::SystemTime;

use bytes::Bytes;
use once_cell::sync::OnceCell;
use serde::Deserialize;
use serde_json::{Map, Value};

pub use self::attached::placeholder;
pub use self::record::RecordError;
use crate::outcome::{Handle, Outcome, Tracker};

/// One event: its name, its instance and its envelope, cheap to clone.
///
/// The envelope is kept exactly as it was received; a filter that only reads never re-encodes it. It is
/// always UTF-8, as JSON between systems must be (RFC 8259, 8.1).
/// [`Event::edit`] gives a filter the document to change, and the bytes are encoded again once, when
/// somebody asks for them.
///
/// An event may carry a *handle* on the batch it was read in, so that its source learns how it ended.
/// [`Clone`] makes a copy **without** the handle: keep copies freely. [`Event::fork`] makes a copy that
/// must end on its own. An event dropped with its handle inside counts as [`Outcome::Lost`].
#[derive(Debug)]
pub struct Event {
    inner: Arc<Inner>,
    handle: Handle,
}

#[derive(Debug, Clone)]
struct Inner {
    id: EventId,
    name: Arc<str>,
    instance: Arc<str>,
    envelope: OnceCell<Bytes>,
    document: OnceCell<Map<String, Value>>,
    attachments: Vec<Bytes>,
    received_at: SystemTime,
    key: Option<u128>,
}

/// What tells an event from every other one, stable over copies, edits, retries and restarts. Written as 32 hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EventId(u128);

/// Text that is not 32 hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an event's id is 32 hexadecimal digits")]
pub struct InvalidEventId;

/// Why bytes are not an event.
#[derive(Debug, thiserror::Error)]
pub enum EnvelopeError {
    /// The bytes are not JSON, or not the JSON object that an envelope is.
    #[error("the body is not an event envelope: {0}")]
    NotAnEnvelope(#[from] serde_json::Error),
    /// `event` or `instance` is there but empty.
    #[error("the envelope's \"{0}\" is empty; it must name the {0}")]
    Empty(&'static str),
}

/// The fields that routing needs, read once at the door.
#[derive(Deserialize)]
struct Door<'a> {
    #[serde(borrow)]
    event: Cow<'a, str>,
    #[serde(borrow)]
    instance: Cow<'a, str>,
}

// === impl Event ===

impl Event {
    /// Reads one envelope: a JSON object with the strings `event` and `instance` (contract 1.2).
    ///
    /// `received_at` is taken once per batch by the source. The bytes are kept as they are, unless they are
    /// not UTF-8: see [`utf8_lossy`].
    pub fn parse(envelope: Bytes, received_at: SystemTime) -> Result<Self, EnvelopeError> {
        let envelope = utf8_lossy(envelope);
        let door: Door<'_> = serde_json::from_slice(&envelope)?;
        if door.event.is_empty() {
            return Err(EnvelopeError::Empty("event"));
        }
        if door.instance.is_empty() {
            return Err(EnvelopeError::Empty("instance"));
        }
        let (name, instance) = (Arc::from(&*door.event), Arc::from(&*door.instance));
        Ok(Self::from_parts(name, instance, envelope, received_at))
    }

    /// Makes an event of parts that the caller knows to agree: `envelope` must be a JSON object in UTF-8
    /// whose `event` is `name` and whose `instance` is `instance`.
    pub fn from_parts(
        name: Arc<str>,
        instance: Arc<str>,
        envelope: Bytes,
        received_at: SystemTime,
    ) -> Self {
        let inner = Inner {
            id: EventId::next(),
            name,
            instance,
            envelope: OnceCell::with_value(envelope),
            document: OnceCell::new(),
            attachments: Vec::new(),
            received_at,
            key: None,
        };
        Self {
            inner: Arc::new(inner),
            handle: Handle::none(),
        }
    }

    /// The wire name, such as `messages.upsert`.
    pub fn name(&self) -> &str {
        &self.inner.name
    }

    /// The name of the instance that the event belongs to.
    pub fn instance(&self) -> &str {
        &self.inner.instance
    }

    /// What tells the event from every other one.
    pub fn id(&self) -> EventId {
        self.inner.id
    }

    /// When the event's batch arrived.
    pub fn received_at(&self) -> SystemTime {
        self.inner.received_at
    }

    /// What tells whether two events are the same one sent twice; see [`with_key`](Self::with_key).
    pub fn key(&self) -> Option<u128> {
        self.inner.key
    }

    /// Binary attachments that ride beside the envelope, in placeholder order (contract 1.4).
    pub fn attachments(&self) -> &[Bytes] {
        &self.inner.attachments
    }

    /// The envelope's bytes: as received, or encoded once after an edit.
    pub fn envelope(&self) -> &Bytes {
        self.inner.envelope.get_or_init(|| {
            let document = self.inner.document.get().cloned().unwrap_or_default();
            Bytes::from(Value::Object(document).to_string())
        })
    }

    /// The envelope as a JSON document, parsed on first use and shared by all copies. Where a string has half of a character, which
    /// JSON allows (RFC 8259, 8.2), there is U+FFFD. Empty when the envelope is nested deeper than 127 levels, or has a number
    /// that no double holds, such as `1e400`: both are read by nobody here. Numbers of more than 64 bits have the precision of a double.
    pub fn document(&self) -> &Map<String, Value> {
        self.inner.document.get_or_init(|| {
            let envelope = self.inner.envelope.get();
            envelope.and_then(|bytes| read(bytes)).unwrap_or_default()
        })
    }

    /// Changes the document. Copies of this event keep what they had; `event` and `instance` are read
    /// again from the changed document, and keep their old value where it no longer names one. An envelope that cannot be read
    /// as a [document](Self::document) stays as it is.
    pub fn edit<R>(&mut self, change: impl FnOnce(&mut Map<String, Value>) -> R) -> R {
        if self.document().is_empty() {
            return change(&mut Map::new());
        }
        let inner = Arc::make_mut(&mut self.inner);
        let mut document = inner.document.take().unwrap_or_default();
        let result = change(&mut document);
        for (key, field) in [
            ("event", &mut inner.name),
            ("instance", &mut inner.instance),
        ] {
            match document.get(key) {
                Some(Value::String(text)) if !text.is_empty() => {
                    if **field != **text {
                        *field = Arc::from(text.as_str());
                    }
                }
                _ => {
                    document.insert(key.to_owned(), Value::from(&**field));
                }
            }
        }
        inner.document = OnceCell::with_value(document);
        inner.envelope = OnceCell::new();
        result
    }

    /// Puts binary attachments beside the envelope, whose placeholders must number them (contract 1.4).
    #[must_use]
    pub fn with_attachments(mut self, attachments: Vec<Bytes>) -> Self {
        Arc::make_mut(&mut self.inner).attachments = attachments;
        self
    }

    /// Gives it the id that it had in another process.
    #[must_use]
    pub fn with_id(mut self, id: EventId) -> Self {
        Arc::make_mut(&mut self.inner).id = id;
        self
    }

    /// One of several that are made of this one: with an id, and a key where there is one, that follow from this one's and the
    /// number, so that they are the same when it is made again. The number 0 is this event itself.
    #[must_use]
    pub fn numbered(mut self, number: usize) -> Self {
        if number > 0 {
            let inner = Arc::make_mut(&mut self.inner);
            inner.id = EventId(derive(inner.id.0, number));
            inner.key = inner.key.map(|key| derive(key, number));
        }
        self
    }

    /// Gives it an idempotency key: within the source's window, journals take one event of each key.
    #[must_use]
    pub fn with_key(mut self, key: u128) -> Self {
        Arc::make_mut(&mut self.inner).key = Some(key);
        self
    }

    /// Puts other bytes in the envelope's place, which must be UTF-8, and still name the same `event` and `instance`.
    #[must_use]
    pub fn with_envelope(mut self, envelope: Bytes) -> Self {
        let inner = Arc::make_mut(&mut self.inner);
        inner.envelope = OnceCell::with_value(envelope);
        inner.document = OnceCell::new();
        self
    }

    /// This event with the name, the instance and the envelope of another one. Id, key and attachments are its own.
    #[must_use]
    pub fn in_form_of(mut self, other: &Self) -> Self {
        let inner = Arc::make_mut(&mut self.inner);
        let form = &other.inner;
        inner.name = Arc::clone(&form.name);
        inner.instance = Arc::clone(&form.instance);
        inner.envelope.clone_from(&form.envelope);
        inner.document.clone_from(&form.document);
        self
    }

    /// What the event weighs in a queue or in the log, in bytes.
    pub fn size(&self) -> usize {
        let attached: usize = self.inner.attachments.iter().map(Bytes::len).sum();
        self.envelope().len() + attached
    }

    /// Ties the event to a read batch, so that the batch's receipt waits for it.
    #[must_use]
    pub fn tracked(mut self, tracker: &Tracker) -> Self {
        self.handle = tracker.handle();
        self
    }

    /// A copy that has to end on its own: what fan-out and splitting filters make.
    #[must_use]
    pub fn fork(&self) -> Self {
        Self {
            inner: Arc::clone(&self.inner),
            handle: self.handle.fork(),
        }
    }

    /// Whether its source waits for the delivery, and not only until it is stored.
    pub(crate) fn wants_delivery(&self) -> bool {
        self.handle.wants_delivery()
    }

    pub(crate) fn give_handle(&mut self, handle: Handle) {
        self.handle = handle;
    }

    /// Parts with the handle: the event no longer has to end.
    pub(crate) fn take_handle(&mut self) -> Handle {
        std::mem::replace(&mut self.handle, Handle::none())
    }

    /// Ends the event. Filters end events through their emitter, sinks through their result; only
    /// sources and the topology call this.
    pub fn settle(mut self, outcome: Outcome) {
        self.handle.settle(outcome);
    }
}

impl Clone for Event {
    /// A copy without the handle: it may be kept or dropped freely.
    fn clone(&self) -> Self {
        Self {
            inner: Arc::clone(&self.inner),
            handle: Handle::none(),
        }
    }
}

/// Another number for each pair of these.
fn derive(from: u128, number: usize) -> u128 {
    // Odd factors, so that nothing is lost; what is far apart in one is mixed into the other half.
    const FACTOR: u128 = 0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835;
    let mixed = (from ^ (number as u128).wrapping_mul(FACTOR)).wrapping_mul(FACTOR);
    (mixed ^ (mixed >> 67)).wrapping_mul(FACTOR)
}

/// An object, with something in the place of half characters.
fn read(json: &[u8]) -> Option<Map<String, Value>> {
    let read = serde_json::from_slice(json).ok();
    read.or_else(|| serde_json::from_slice(&whole_characters(json)).ok())
}

/// JSON with U+FFFD for each escape of one half of a surrogate pair that has no other half.
pub(crate) fn whole_characters(json: &[u8]) -> Vec<u8> {
    let unit = |at: usize| {
        let digits = json.get(at..at + 6)?.strip_prefix(b"\\u")?;
        u16::from_str_radix(str::from_utf8(digits).ok()?, 16).ok()
    };
    let (mut whole, mut at) = (Vec::with_capacity(json.len()), 0);
    while let Some(byte) = json.get(at) {
        let length = match (*byte, unit(at)) {
            (b'\\', Some(0xd800..0xdc00)) if matches!(unit(at + 6), Some(0xdc00..0xe000)) => 12,
            (b'\\', Some(0xd800..0xe000)) => {
                whole.extend_from_slice(b"\\ufffd");
                at += 6;
                continue;
            }
            (b'\\', _) => 2,
            _ => 1,
        };
        whole.extend_from_slice(json.get(at..at + length).unwrap_or_default());
        at += length;
    }
    whole
}

/// The bytes as they are if they are UTF-8; else a copy that has U+FFFD in place of what is not, which is what
/// Evolution's own decoder makes of it. Without that, one client after another would close its connection
/// on the text frame that has such bytes (RFC 6455, 8.1).
pub fn utf8_lossy(bytes: Bytes) -> Bytes {
    // Much the faster way to see that all is well.
    if str::from_utf8(&bytes).is_ok() {
        return bytes;
    }
    String::from_utf8_lossy(&bytes).into_owned().into()
}

/// JSON in one line. Inside its strings there are no line breaks, so those that are there mean nothing.
pub fn one_line(json: &[u8]) -> Cow<'_, [u8]> {
    let is_break = |byte: &u8| matches!(byte, b'\n' | b'\r');
    if !json.iter().any(is_break) {
        return Cow::Borrowed(json);
    }
    let bytes = json.iter();
    bytes
        .map(|byte| if is_break(byte) { b' ' } else { *byte })
        .collect()
}

// === impl EventId ===

impl EventId {
    fn next() -> Self {
        static RUN: LazyLock<u64> = LazyLock::new(|| fastrand::u64(..));
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        Self(u128::from(*RUN) << 64 | u128::from(number))
    }
}

impl FromStr for EventId {
    type Err = InvalidEventId;

    fn from_str(text: &str) -> Result<Self, InvalidEventId> {
        if text.len() != 32 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(InvalidEventId);
        }
        u128::from_str_radix(text, 16)
            .map(Self)
            .map_err(|_| InvalidEventId)
    }
}

impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ENVELOPE: &str =
        r#"{"event":"messages.upsert", "instance":"loja1","data":{"n":1.10},"apikey":null}"#;

    fn event(text: &'static str) -> Event {
        Event::parse(Bytes::from_static(text.as_bytes()), SystemTime::UNIX_EPOCH).unwrap()
    }

    #[test]
    fn keeps_the_envelope_as_received() {
        let event = event(ENVELOPE);
        assert_eq!(event.document()["data"]["n"], 1.10);
        assert_eq!(event.envelope(), ENVELOPE);
        assert_eq!(
            (event.name(), event.instance()),
            ("messages.upsert", "loja1")
        );
    }

    #[test]
    fn an_edit_leaves_copies_alone_and_keeps_key_order() {
        let original = event(ENVELOPE);
        let mut edited = original.clone();
        edited.edit(|document| {
            document["event"] = "send.message".into();
            document.remove("data");
        });
        assert_eq!(original.envelope(), ENVELOPE);
        assert_eq!(edited.name(), "send.message");
        assert_eq!(
            edited.envelope(),
            r#"{"event":"send.message","instance":"loja1","apikey":null}"#
        );
    }

    #[test]
    fn numbered_events_have_ids_of_their_own() {
        let event = event(ENVELOPE).with_key(7);
        let ids = |event: &Event| (event.id(), event.key());
        assert_eq!(ids(&event.clone().numbered(0)), ids(&event));
        let of_two = [1, 2].map(|number| ids(&event.clone().numbered(number)));
        assert_eq!(
            of_two,
            [1, 2].map(|number| ids(&event.clone().numbered(number)))
        );
        let again = ids(&event.clone().numbered(1).numbered(1));
        let all = [ids(&event), of_two[0], of_two[1], again];
        let different: std::collections::HashSet<_> = all.into_iter().collect();
        assert_eq!(different.len(), 4);
    }

    #[test]
    fn what_cannot_be_read_is_not_edited_away() {
        let deep = format!("{}{}", "[".repeat(200), "]".repeat(200));
        let envelope = format!(r#"{{"event":"e","instance":"i","data":{deep}}}"#);
        let mut event = Event::parse(envelope.clone().into(), SystemTime::UNIX_EPOCH).unwrap();
        event.edit(|document| document.insert("x".to_owned(), 1.into()));
        assert_eq!(event.envelope(), envelope.as_bytes());
    }

    #[test]
    fn half_a_character_is_replaced_and_the_rest_is_read() {
        let halves = r#"{"event":"e","instance":"i","data":["\ud83d","\ude00x","\ud83d\ude00","\\ud83d","\ud83d\n"]}"#;
        let mut event = event(halves);
        let data = &event.document()["data"];
        assert_eq!(
            *data,
            serde_json::json!([
                "\u{fffd}",
                "\u{fffd}x",
                "\u{1f600}",
                "\\ud83d",
                "\u{fffd}\n"
            ])
        );
        assert_eq!(event.envelope(), halves, "as received");
        event.edit(|document| document.remove("data"));
        assert_eq!(event.envelope(), r#"{"event":"e","instance":"i"}"#);
    }

    #[test]
    fn an_edit_cannot_take_the_name_away() {
        let mut event = event(ENVELOPE);
        event.edit(|document| document.remove("event"));
        assert_eq!(event.document()["event"], "messages.upsert");
    }

    #[test]
    fn another_envelope_leaves_copies_alone_and_gives_another_document() {
        let original = event(ENVELOPE);
        original.document();
        let short = r#"{"event":"messages.upsert","instance":"loja1"}"#;
        let other = original.clone().with_envelope(short.into());
        assert_eq!(original.envelope(), ENVELOPE);
        assert_eq!(other.envelope(), short);
        assert_eq!(other.document().len(), 2);
        assert_eq!(other.id(), original.id());
    }

    #[test]
    fn says_what_is_missing() {
        let parse = |text: &'static str| {
            Event::parse(Bytes::from_static(text.as_bytes()), SystemTime::UNIX_EPOCH)
                .unwrap_err()
                .to_string()
        };
        assert!(parse("[]").contains("not an event envelope"));
        assert!(parse(r#"{"instance":"a"}"#).contains("missing field `event`"));
        assert!(parse(r#"{"event":"","instance":"a"}"#).contains("\"event\" is empty"));
    }

    #[test]
    fn bytes_that_are_not_utf8_are_replaced_at_the_door() {
        let bytes =
            Bytes::from_static(b"{\"event\":\"call\",\"instance\":\"a\",\"data\":\"caf\xe9\"}");
        let event = Event::parse(bytes, SystemTime::UNIX_EPOCH).unwrap();
        assert_eq!(event.document()["data"], "caf\u{fffd}");
        assert!(str::from_utf8(event.envelope()).is_ok());
    }

    #[test]
    fn is_two_words() {
        assert_eq!(size_of::<Event>(), 16);
    }
}
