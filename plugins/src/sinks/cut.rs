//! Cuts `destination` out of envelopes.

use std::borrow::Cow;
use std::fmt;
use std::ops::Range;

use bytes::Bytes;
use evows_core::Event;
use memchr::memmem;
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

/// The member that goes, as it is written.
const KEY: &str = r#""destination""#;

/// The members of an object, each from its key to the end of its value.
pub(super) struct Members<'t>(pub(super) Vec<(&'t str, &'t str)>);

/// The batch as clients may see it: the same, unless an envelope has the member.
pub(super) fn presentable(batch: &[Event]) -> Cow<'_, [Event]> {
    let mut shown = Cow::Borrowed(batch);
    for (index, event) in batch.iter().enumerate() {
        if let Some(envelope) = without(event.envelope()) {
            shown.to_mut()[index] = event.clone().with_envelope(envelope);
        }
    }
    shown
}

/// The envelope without its member `destination`; `None` when it has none. A nested one stays.
fn without(envelope: &Bytes) -> Option<Bytes> {
    memmem::find(envelope, KEY.as_bytes())?;
    // Strings that nobody has read yet may hold anything; what is no text must not hide the member.
    let text = String::from_utf8_lossy(envelope);
    let Members(members) = serde_json::from_str(&text).ok()?;
    if !members.iter().any(|(key, _)| *key == KEY) {
        return None;
    }
    let spans = members.iter().map(|(key, value)| span(&text, key, value));
    let spans: Vec<Range<usize>> = spans.collect();
    let (first, last) = (spans.first()?, spans.last()?);
    let text = text.as_bytes();
    let mut kept = Vec::with_capacity(text.len());
    kept.extend_from_slice(&text[..first.start]);
    let mut is_first = true;
    let mut end = first.start;
    for ((key, _), span) in members.iter().zip(&spans) {
        if *key != KEY {
            // With what stands between it and the member before, its comma included; the first one needs none.
            let from = if is_first { span.start } else { end };
            kept.extend_from_slice(&text[from..span.end]);
            is_first = false;
        }
        end = span.end;
    }
    kept.extend_from_slice(&text[last.end..]);
    Some(kept.into())
}

/// Where a member lies in `text`, of which both are slices.
pub(super) fn span(text: &str, key: &str, value: &str) -> Range<usize> {
    let at = |part: &str| part.as_ptr().addr() - text.as_ptr().addr();
    at(key)..at(value) + value.len()
}

// === impl Members ===

impl<'de> Deserialize<'de> for Members<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Collect;

        impl<'de> Visitor<'de> for Collect {
            type Value = Members<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Vec::new();
                while let Some((key, value)) = map.next_entry::<&RawValue, &RawValue>()? {
                    members.push((key.get(), value.get()));
                }
                Ok(Members(members))
            }
        }

        deserializer.deserialize_map(Collect)
    }
}

#[cfg(test)]
mod tests {
    use evows_core::testing::event;

    use super::*;

    fn cut(envelope: &'static [u8]) -> Option<String> {
        let left = without(&Bytes::from_static(envelope))?;
        Some(String::from_utf8(left.to_vec()).unwrap())
    }

    #[test]
    fn only_the_member_goes() {
        for (envelope, left) in [
            (
                r#"{"event":"call","n":1.10,"destination":"http://h/webhook/s3cret", "sender":"é"}"#,
                r#"{"event":"call","n":1.10, "sender":"é"}"#,
            ),
            (r#"{ "destination":"u", "a":1 }"#, r#"{ "a":1 }"#),
            (
                r#"{"a":[1 ,2] , "destination" : null }"#,
                r#"{"a":[1 ,2] }"#,
            ),
            (
                r#"{"destination":{"a":1},"b":2,"destination":3,"c":4,"destination":5}"#,
                r#"{"b":2,"c":4}"#,
            ),
            (r#"{"destination":1}"#, "{}"),
        ] {
            assert_eq!(cut(envelope.as_bytes()).as_deref(), Some(left));
        }
    }

    #[test]
    fn what_is_not_the_member_stays() {
        for envelope in [
            r#"{"event":"call"}"#,
            r#"{"data":{"destination":1}}"#,
            r#"{"data":"destination","list":["destination"]}"#,
        ] {
            assert_eq!(cut(envelope.as_bytes()), None, "{envelope}");
        }
    }

    #[test]
    fn bytes_that_are_no_text_do_not_hide_it() {
        let left = cut(b"{\"data\":\"\xff\",\"destination\":\"s3cret\"}");
        assert_eq!(left.unwrap(), "{\"data\":\"\u{fffd}\"}");
    }

    #[test]
    fn a_batch_is_copied_only_when_it_must_be() {
        let plain = event(r#"{"event":"call","instance":"a"}"#);
        let telling = event(r#"{"event":"call","instance":"a","destination":"u"}"#);
        let batch = [plain.clone()];
        assert!(matches!(presentable(&batch), Cow::Borrowed(_)));
        let batch = [plain.clone(), telling];
        let shown = presentable(&batch);
        for (shown, original) in shown.iter().zip(&batch) {
            assert_eq!(shown.envelope(), plain.envelope());
            assert_eq!(shown.id(), original.id());
        }
    }
}
