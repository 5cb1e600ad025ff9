//! Edits that keep an event's attachments in step with its document.

use bytes::Bytes;
use evows_core::Event;
use serde_json::{Map, Value};

/// Changes the document. Attachments whose placeholder is gone go with it, and the others are numbered anew, so that nothing
/// of what was taken out travels on.
pub(super) fn edit(mut event: Event, change: impl FnOnce(&mut Map<String, Value>)) -> Event {
    event.edit(change);
    tidy(event)
}

/// Lets go of attachments whose placeholder is gone, and numbers the others anew.
pub(super) fn tidy(mut event: Event) -> Event {
    if event.attachments().is_empty() {
        return event;
    }
    let mut kept = Vec::new();
    let mut attachments: Vec<_> = event.attachments().iter().cloned().map(Some).collect();
    event.edit(|document| {
        let values = document.values_mut();
        values.for_each(|value| renumber(value, &mut attachments, &mut kept));
    });
    event.with_attachments(kept)
}

/// Whether the envelope can be read as a document at all. One that is nested too deep can travel but not be
/// edited.
pub(super) fn is_readable(event: &Event) -> bool {
    !event.document().is_empty()
}

/// Each attachment has one place: a second one that names it is none any more, or it would name another attachment.
fn renumber(value: &mut Value, old: &mut [Option<Bytes>], kept: &mut Vec<Bytes>) {
    match value {
        Value::Array(items) => {
            let items = items.iter_mut();
            items.for_each(|item| renumber(item, old, kept));
        }
        Value::Object(members) => match number(members).and_then(|number| old.get_mut(number)) {
            Some(bytes) => match bytes.take() {
                Some(bytes) => {
                    members.insert("num".to_owned(), kept.len().into());
                    kept.push(bytes);
                }
                None => {
                    members.insert("_placeholder".to_owned(), false.into());
                }
            },
            None => members
                .values_mut()
                .for_each(|value| renumber(value, old, kept)),
        },
        _ => {}
    }
}

/// The number in `{"_placeholder":true,"num":n}`.
pub(super) fn number(members: &Map<String, Value>) -> Option<usize> {
    let is_placeholder = members.len() == 2 && members.get("_placeholder")? == true;
    let number = members.get("num")?.as_u64()?;
    is_placeholder.then(|| usize::try_from(number).ok())?
}

#[cfg(test)]
mod tests {
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
