use std::time::SystemTime;

use super::*;

fn event(envelope: &str) -> Event {
    Event::parse(envelope.to_owned().into(), SystemTime::UNIX_EPOCH).unwrap()
}

/// The payload, however many attachments it has.
fn whole(event: &Event, dialect: Dialect) -> Payload {
    Payload::bounded(event, dialect, usize::MAX).unwrap()
}

/// The payload as JSON, bytes shown as `<hex>` strings.
fn shown(payload: &Payload) -> String {
    fn show(payload: &Payload) -> Payload {
        match payload {
            Payload::Bytes(bytes) => Payload::Text(format!("<{:02x?}>", bytes.to_vec())),
            Payload::Array(items) => Payload::Array(items.iter().map(show).collect()),
            Payload::Object(members) => {
                let members = members
                    .iter()
                    .map(|(key, value)| (key.clone(), show(value)));
                Payload::Object(members.collect())
            }
            Payload::Raw(raw) => Payload::Raw(raw.clone()),
            Payload::Text(text) => Payload::Text(text.clone()),
        }
    }
    serde_json::to_string(&show(payload)).unwrap()
}

const ENVELOPE: &str = r#"{"event":"e","instance":"i","big":12345678901234567890123,"z":1.10,"data":[{"k":{"0":1,"1":255},"a":{"0":256},"b":{"1":1},"c":{"0":1,"x":2},"d":{}}]}"#;

#[test]
fn finds_byte_fields_and_leaves_the_rest_alone() {
    let payload = whole(&event(ENVELOPE), Dialect::Attachments);
    assert_eq!(
        shown(&payload),
        ENVELOPE.replace(r#"{"0":1,"1":255}"#, r#""<[01, ff]>""#)
    );
}

#[test]
fn a_deep_envelope_does_not_exhaust_the_stack() {
    let (open, close) = ("[".repeat(100_000), "]".repeat(100_000));
    let text = format!(r#"{{"event":"e","instance":"i","data":{open}{{"0":1}}{close}}}"#);
    let payload = whole(&event(&text), Dialect::Attachments);
    assert_eq!(serde_json::to_string(&payload).unwrap(), text);
}

#[test]
fn only_canonical_indices_are_bytes() {
    for field in [
        r#"{"+0":1}"#,
        r#"{"00":1}"#,
        r#"{"0":1,"01":2}"#,
        r#"{"0":1,"+1":2}"#,
        r#"{"0":1.0}"#,
    ] {
        let text = format!(r#"{{"event":"e","instance":"i","data":{field},"x":"0"}}"#);
        let payload = whole(&event(&text), Dialect::Attachments);
        assert_eq!(shown(&payload), text);
    }
}

#[test]
fn writes_base64() {
    let payload = whole(&event(ENVELOPE), Dialect::Base64);
    assert_eq!(
        shown(&payload),
        ENVELOPE.replace(r#"{"0":1,"1":255}"#, r#""Af8=""#)
    );
}

#[test]
fn an_envelope_without_bytes_is_written_verbatim() {
    for dialect in [Dialect::Attachments, Dialect::Base64, Dialect::Indexed] {
        let text = r#"{ "event":"e",  "instance":"i", "n": 1.0 }"#;
        let payload = whole(&event(text), dialect);
        assert_eq!(serde_json::to_string(&payload).unwrap(), text);
    }
    let payload = whole(&event(ENVELOPE), Dialect::Indexed);
    assert_eq!(serde_json::to_string(&payload).unwrap(), ENVELOPE);
}

#[test]
fn too_many_attachments_are_none() {
    let fields = |count: usize| {
        let fields: Vec<_> = (0..count)
            .map(|n| format!(r#""k{n}":{{"0":{n}}}"#))
            .collect();
        format!(
            r#"{{"event":"e","instance":"i","data":{{{}}}}}"#,
            fields.join(",")
        )
    };
    let ten = Payload::bounded(&event(&fields(10)), Dialect::Attachments, 10).unwrap();
    assert_eq!(ten.attachments(), 10);
    let text = fields(11);
    let eleven = Payload::bounded(&event(&text), Dialect::Attachments, 10).unwrap();
    assert_eq!(serde_json::to_string(&eleven).unwrap(), text);
}

/// The member `a` is two bytes, and this is beside it.
fn beside(member: &str) -> String {
    format!(r#"{{"event":"e","instance":"i","data":{{"a":{{"0":1,"1":2}},{member}}}}}"#)
}

#[test]
fn an_event_that_names_an_attachment_of_its_own_goes_without_any() {
    let deep = format!(
        r#""b":{}{{"_placeholder":true,"num":0}}{}"#,
        "[".repeat(200),
        "]".repeat(200)
    );
    for member in [
        r#""b":{"_placeholder":true,"num":99}"#,
        r#""b":{"_placeholder":true,"num":0}"#,
        r#""b":[{"num":0, "x":"\"", "_placeholder" : 1}]"#,
        r#""b":{"\u005fplaceh\u006flder":true,"num":0}"#,
        r#""_placeholder":true,"num":0"#,
        &deep,
    ] {
        let text = beside(member);
        let payload = whole(&event(&text), Dialect::Attachments);
        assert_eq!(serde_json::to_string(&payload).unwrap(), text);
        assert_eq!(convert(&event(&text), Dialect::Attachments), None);
    }
    for member in [
        r#""b":"_placeholder""#,
        r#""b":["\\","_placeholder","\": \u00e9",":"]"#,
        r#""b":{"_placeholders":true,"_placeholde\ud83d":1,"\\u005fplaceholder":1}"#,
    ] {
        let payload = whole(&event(&beside(member)), Dialect::Attachments);
        assert_eq!(payload.attachments(), 1, "{member}");
    }
}

#[test]
fn an_attachment_has_one_place() {
    let placeholder = r#"{"_placeholder":true,"num":0}"#;
    let text = format!(r#"{{"event":"e","instance":"i","data":[{placeholder},{placeholder}]}}"#);
    let event = event(&text).with_attachments(vec![Bytes::from_static(&[7])]);
    let once = format!(r#"{{"event":"e","instance":"i","data":["Bw==",{placeholder}]}}"#);
    assert_eq!(shown(&whole(&event, Dialect::Attachments)), once);
    let (converted, _) = convert(&event, Dialect::Base64).unwrap();
    assert_eq!(converted, once);
    let (converted, _) = convert(&event, Dialect::Indexed).unwrap();
    assert_eq!(converted, once.replace(r#""Bw==""#, r#"{"0":7}"#));
    assert_eq!(convert(&event, Dialect::Attachments), None);
}

#[test]
fn an_event_is_not_made_of_any_number_of_attachments() {
    let fields = |count: usize| {
        let fields = vec![r#"{"0":1}"#; count].join(",");
        event(&format!(
            r#"{{"event":"e","instance":"i","data":[{fields}]}}"#
        ))
    };
    let (_, attachments) = convert(&fields(MOST), Dialect::Attachments).unwrap();
    assert_eq!(attachments.len(), MOST);
    assert_eq!(convert(&fields(MOST + 1), Dialect::Attachments), None);
    assert!(convert(&fields(MOST + 1), Dialect::Base64).is_some());
}

#[test]
fn puts_attachments_in_their_places() {
    let text = r#"{"event":"e","instance":"i","data":{"_placeholder":true,"num":0}}"#;
    let event = event(text).with_attachments(vec![Bytes::from_static(&[7])]);
    let payload = whole(&event, Dialect::Base64);
    assert_eq!(
        shown(&payload),
        r#"{"event":"e","instance":"i","data":"Bw=="}"#
    );
}
