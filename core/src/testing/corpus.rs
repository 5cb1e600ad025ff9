//! Events of all sorts.

use std::time::SystemTime;

use bytes::Bytes;
use serde_json::{Value, json};

use crate::Event;
use crate::names::WIRE;

/// Envelopes that no tame sender writes, but that are envelopes.
const ODD: &[&str] = &[
    r#"{"event":"messages.upsert","instance":"i"}"#,
    r#"{"event":"messages.upsert","instance":"i","data":null}"#,
    r#"{"event":"messages.upsert","instance":"i","data":"text"}"#,
    r#"{"event":"messages.upsert","instance":"i","data":[]}"#,
    r#"{"event":"messages.upsert","instance":"i","data":[{"key":{}},1,"x",null]}"#,
    r#"{"event":"messages.upsert","instance":"i","data":{"key":null,"message":[1]}}"#,
    r#"{"event":"messages.upsert","instance":"i","data":{"key":{"id":7,"remoteJid":false},"messageTimestamp":"soon"}}"#,
    r#"{"event":"messages.upsert","instance":"i","data":{"messageTimestamp":1e308,"big":123456789012345678901234567890}}"#,
    r#"{"event":"messages.upsert","instance":"i","data":{"a":1,"a":2},"data":{"b":3}}"#,
    r#"{"event":"messages.upsert","instance":"i","data":{"message":{"conversation":"\ud83d half \u0000 nul \u2028"}}}"#,
    "{\n \"event\" : \"messages.upsert\",\r\n\t\"instance\":\"i\",\n\"data\":{ }\n}",
    r#"{"event":"MESSAGES_UPSERT","instance":"i","data":{}}"#,
    r#"{"event":"no.such.event","instance":"Ünïcode / name?","data":{"x":[[[[[[[[[[]]]]]]]]]]}}"#,
    r#"{"instance":"i","data":{},"date_time":"not a date","event":"call","apikey":5,"server_url":null,"sender":[]}"#,
];

/// Events as they are posted, and as nobody should post them: one for each wire name of the contract, some with media and
/// byte fields, some with attachments, some whose members are missing or of another type. The same ones each time.
pub fn corpus() -> Vec<Event> {
    let tame = WIRE.iter().map(|name| envelope(name, &data(name)));
    let media = ["imageMessage", "audioMessage", "documentMessage"].map(|kind| {
        let message = json!({ kind: {
            "url": "https://mmg.whatsapp.net/v/t62.enc",
            "mimetype": "image/jpeg",
            "mediaKey": {"type": "Buffer", "data": [1, 2, 3, 255]},
            "jpegThumbnail": {"0": 255, "1": 216, "2": 255},
            "fileLength": {"low": 1024, "high": 0, "unsigned": true},
        }, "base64": "/9j/4AAQ" });
        envelope("messages.upsert", &message_with(&message))
    });
    let mut events: Vec<Event> = tame
        .chain(media)
        .chain(ODD.iter().map(|text| (*text).to_owned()))
        .filter_map(|text| Event::parse(text.into(), SystemTime::UNIX_EPOCH).ok())
        .collect();
    let attached =
        events.iter().step_by(7).cloned().map(|event| {
            event.with_attachments(vec![Bytes::from_static(b"\x00\xff"), Bytes::new()])
        });
    let attached: Vec<_> = attached.collect();
    events.extend(attached);
    let edited = events.iter().step_by(5).cloned().map(|mut event| {
        event.edit(|document| document.insert("edited".to_owned(), true.into()));
        event
    });
    let edited: Vec<_> = edited.collect();
    events.extend(edited);
    events
}

fn envelope(name: &str, data: &Value) -> String {
    let envelope = json!({
        "event": name,
        "instance": "loja1",
        "data": data,
        "destination": "https://example.com/hook",
        "date_time": "2026-01-02T03:04:05.678Z",
        "sender": "5511999990000@s.whatsapp.net",
        "server_url": "https://evolution.example.com",
        "apikey": null,
    });
    envelope.to_string()
}

fn data(name: &str) -> Value {
    let chat = "5511988887777@s.whatsapp.net";
    match name {
        "messages.upsert" | "send.message" | "messages.edited" => {
            message_with(&json!({"conversation": "Oi, ligue +55 11 98888-7777"}))
        }
        "messages.update" | "send.message.update" => json!({
            "keyId": "3EB0C767D097B7C7C030", "remoteJid": chat, "fromMe": true, "status": "READ",
        }),
        "messages.set" | "messaging-history.set" | "contacts.update" | "chats.upsert" => {
            json!([{"id": chat, "pushName": "Ana"}, {"id": "123456789@lid"}])
        }
        "presence.update" => {
            json!({"id": chat, "presences": {chat: {"lastKnownPresence": "composing"}}})
        }
        "connection.update" => json!({"instance": "loja1", "state": "open", "statusReason": 200}),
        "qrcode.updated" => {
            json!({"qrcode": {"code": "2@abc", "base64": "data:image/png;base64,AA=="}})
        }
        _ => json!({"id": chat, "remoteJid": chat}),
    }
}

fn message_with(message: &Value) -> Value {
    json!({
        "key": {"remoteJid": "123456789@lid", "remoteJidAlt": "5511988887777@s.whatsapp.net",
            "fromMe": false, "id": "3EB0C767D097B7C7C030", "addressingMode": "lid"},
        "pushName": "Ana",
        "message": message,
        "messageType": "conversation",
        "messageTimestamp": 1_767_322_800,
        "instanceId": "0d6c2f10-5a5e-4a5f-9a6e-0a0a0a0a0a0a",
        "source": "android",
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_text_is_an_envelope() {
        let events = corpus();
        let with = |name: &str| events.iter().filter(|event| event.name() == name).count();
        assert!(WIRE.iter().all(|name| with(name) > 0));
        let parsed = WIRE.len() + 3 + ODD.len();
        let attached = parsed.div_ceil(7);
        assert_eq!(
            events.len(),
            parsed + attached + (parsed + attached).div_ceil(5)
        );
        assert!(events.iter().any(|event| !event.attachments().is_empty()));
    }
}
