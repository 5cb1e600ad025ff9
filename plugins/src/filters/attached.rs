//! Edits that keep an event's attachments in step with its document.

use evows_core::Event;
pub(super) use evows_core::placeholder as number;
use serde_json::{Map, Value};

/// Changes the document. Attachments whose placeholder is gone go with it, and the others are numbered anew, so that nothing
/// of what was taken out travels on.
pub(super) fn edit(mut event: Event, change: impl FnOnce(&mut Map<String, Value>)) -> Event {
    event.edit(change);
    event.tidied()
}

/// Whether the envelope can be read as a document at all. One that is nested too deep can travel but not be
/// edited.
pub(super) fn is_readable(event: &Event) -> bool {
    !event.document().is_empty()
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use evows_core::testing;

    use super::*;

    #[test]
    fn attachments_go_with_their_placeholders() {
        let envelope = r#"{"event":"e","instance":"i","data":[{"_placeholder":true,"num":0},{"_placeholder":true,"num":1},{"_placeholder":true,"num":9}]}"#;
        let attachments = vec![Bytes::from_static(b"zero"), Bytes::from_static(b"one")];
        let event = testing::event(envelope).with_attachments(attachments);
        let same = edit(event.clone(), |_| {});
        assert_eq!(same.envelope(), envelope);
        assert_eq!(same.attachments(), event.attachments());
        let event = edit(event, |document| {
            document["data"].as_array_mut().map(|items| items.remove(0));
        });
        assert_eq!(event.attachments(), [Bytes::from_static(b"one")]);
        assert_eq!(event.document()["data"][0]["num"], 0);
        assert_eq!(event.document()["data"][1]["num"], 9);
    }

    #[test]
    fn an_attachment_has_one_place() {
        let envelope = r#"{"event":"e","instance":"i","data":[{"_placeholder":true,"num":1},{"_placeholder":true,"num":1},{"_placeholder":true,"num":0}]}"#;
        let attachments = vec![Bytes::from_static(b"zero"), Bytes::from_static(b"one")];
        let event = edit(
            testing::event(envelope).with_attachments(attachments),
            |_| {},
        );
        assert_eq!(
            event.attachments(),
            [Bytes::from_static(b"one"), Bytes::from_static(b"zero")]
        );
        let data = event.document()["data"].to_string();
        assert_eq!(
            data,
            r#"[{"_placeholder":true,"num":0},{"_placeholder":false,"num":1},{"_placeholder":true,"num":1}]"#
        );
    }

    #[test]
    fn what_cannot_be_read_is_known() {
        let deep = format!("{}{}", "[".repeat(200), "]".repeat(200));
        let envelope = format!(r#"{{"event":"e","instance":"i","data":{deep}}}"#);
        assert!(!is_readable(&testing::event(&envelope)), "{envelope}");
        assert!(is_readable(&testing::event(
            r#"{"event":"e","instance":"i"}"#
        )));
    }
}
