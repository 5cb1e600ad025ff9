//! What is posted: the envelope as Evolution's webhooks have it.

use bytes::Bytes;
use evows_core::Event;
use serde_json::{Map, Value};

use super::super::cut::{Members, span};

/// The member that says where a webhook goes, as it is written.
const KEY: &str = r#""destination""#;

/// The members that it stands behind, the first that is there.
const BEFORE: [&str; 3] = [r#""data""#, r#""instance""#, r#""event""#];

/// The event's envelope with `destination` in it; every other byte is as it was received. Attachments are put into their
/// places, as objects with an index for each byte (contract 1.4).
pub(super) fn body(event: &Event, destination: &str) -> Bytes {
    let envelope = if event.attachments().is_empty() {
        event.envelope().clone()
    } else {
        let mut document = event.document().clone();
        let mut attachments: Vec<_> = event.attachments().iter().map(Some).collect();
        document
            .values_mut()
            .for_each(|value| put_back(value, &mut attachments));
        Value::Object(document).to_string().into()
    };
    with_destination(&envelope, destination).unwrap_or(envelope)
}

/// `None` when it is there already, or when the bytes are no object.
fn with_destination(envelope: &Bytes, destination: &str) -> Option<Bytes> {
    let text = str::from_utf8(envelope).ok()?;
    let Members(members) = serde_json::from_str(text).ok()?;
    let value = Value::from(destination).to_string();
    let mut made = String::with_capacity(text.len() + KEY.len() + value.len() + 2);
    let mut end = 0;
    let mut is_there = false;
    for (key, old) in members.iter().filter(|(key, _)| *key == KEY) {
        let span = span(text, key, old);
        made.push_str(text.get(end..span.end - old.len())?);
        made.push_str(&value);
        end = span.end;
        is_there = true;
    }
    if !is_there {
        let place = BEFORE
            .iter()
            .find_map(|before| members.iter().find(|(key, _)| key == before));
        let (key, old) = place.or(members.last())?;
        end = span(text, key, old).end;
        made.push_str(text.get(..end)?);
        made.extend([",", KEY, ":", &value]);
    }
    made.push_str(text.get(end..)?);
    (made != text).then(|| made.into())
}

/// Puts attachments where their placeholders are, each into the first place that names it.
fn put_back(value: &mut Value, attachments: &mut [Option<&Bytes>]) {
    match value {
        Value::Array(values) => values
            .iter_mut()
            .for_each(|value| put_back(value, attachments)),
        Value::Object(table) => match attachment(table, attachments) {
            Some(bytes) => {
                let indexed = bytes.iter().enumerate();
                *table = indexed
                    .map(|(index, byte)| (index.to_string(), Value::from(*byte)))
                    .collect();
            }
            None => table
                .values_mut()
                .for_each(|value| put_back(value, attachments)),
        },
        _ => {}
    }
}

fn attachment<'a>(
    table: &Map<String, Value>,
    attachments: &mut [Option<&'a Bytes>],
) -> Option<&'a Bytes> {
    if table.get("_placeholder") != Some(&Value::Bool(true)) {
        return None;
    }
    let number = table.get("num")?.as_u64()?;
    attachments.get_mut(usize::try_from(number).ok()?)?.take()
}

#[cfg(test)]
mod tests {
    use evows_core::testing::event;

    use super::*;

    fn posted(envelope: &str) -> String {
        let bytes = body(&event(envelope), "http://h/é\"");
        String::from_utf8(bytes.to_vec()).unwrap()
    }

    #[test]
    fn the_destination_is_put_in_its_place() {
        for (envelope, wanted) in [
            (
                r#"{"event":"call","instance":"a","data":{"n":1.10} , "sender":"é"}"#,
                r#"{"event":"call","instance":"a","data":{"n":1.10},"destination":"http://h/é\"" , "sender":"é"}"#,
            ),
            (
                r#"{"event":"call","instance":"a"}"#,
                r#"{"event":"call","instance":"a","destination":"http://h/é\""}"#,
            ),
            (
                r#"{"destination" : "http://evows/webhook/s3cret","event":"call","instance":"a","data":{"destination":1}}"#,
                r#"{"destination" : "http://h/é\"","event":"call","instance":"a","data":{"destination":1}}"#,
            ),
            (
                r#"{"event":"call","instance":"a","destination":null,"x":1,"destination":2}"#,
                r#"{"event":"call","instance":"a","destination":"http://h/é\"","x":1,"destination":"http://h/é\""}"#,
            ),
        ] {
            assert_eq!(posted(envelope), wanted);
        }
    }

    #[test]
    fn an_envelope_that_has_it_is_not_copied() {
        let event = event(r#"{"event":"call","instance":"a","destination":"u"}"#);
        let posted = body(&event, "u");
        assert_eq!(posted.as_ptr(), event.envelope().as_ptr());
    }

    #[test]
    fn attachments_are_put_back_as_json_sinks_have_them() {
        let envelope = r#"{"event":"call","instance":"a","data":[{"k":{"_placeholder":true,"num":1}},{"_placeholder":true,"num":0},{"_placeholder":true,"num":9},{"_placeholder":true,"num":1}]}"#;
        let attachments = vec![Bytes::from_static(&[1, 255]), Bytes::from_static(&[7])];
        let event = event(envelope).with_attachments(attachments);
        let posted = body(&event, "u");
        assert_eq!(
            posted,
            r#"{"event":"call","instance":"a","data":[{"k":{"0":7}},{"0":1,"1":255},{"_placeholder":true,"num":9},{"_placeholder":true,"num":1}],"destination":"u"}"#
        );
    }
}
