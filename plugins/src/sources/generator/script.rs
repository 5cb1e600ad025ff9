//! What the generator's events say.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use fastrand::Rng;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::Config;

const SERVER: &str = "http://localhost:8080";
const PEOPLE: [&str; 8] = [
    "Ana", "Bruno", "Carla", "Diego", "Elisa", "Fábio", "Gisele", "Hugo",
];
const TEXTS: [&str; 8] = [
    "Oi, tudo bem?",
    "Bom dia! O pedido 4821 já saiu para entrega?",
    "Obrigada 🙏",
    "Pode me mandar o boleto de novo, por favor?",
    "ok",
    "Vocês abrem no sábado?",
    "Segue o comprovante",
    "Qual o prazo para o CEP 01310-100?",
];

/// An event that the generator can make.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
pub enum EventKind {
    /// A message was received.
    #[serde(rename = "messages.upsert")]
    MessagesUpsert,
    /// A message's status changed.
    #[serde(rename = "messages.update")]
    MessagesUpdate,
    /// A message was sent through the API.
    #[serde(rename = "send.message")]
    SendMessage,
    /// Somebody is typing, or stopped.
    #[serde(rename = "presence.update")]
    PresenceUpdate,
    /// A contact changed.
    #[serde(rename = "contacts.update")]
    ContactsUpdate,
    /// A chat changed.
    #[serde(rename = "chats.update")]
    ChatsUpdate,
    /// An instance connected.
    #[serde(rename = "connection.update")]
    ConnectionUpdate,
    /// A code to scan.
    #[serde(rename = "qrcode.updated")]
    QrcodeUpdated,
    /// Somebody calls.
    #[serde(rename = "call")]
    Call,
}

/// One event, written out.
pub(super) struct Envelope {
    pub(super) name: Arc<str>,
    pub(super) instance: Arc<str>,
    pub(super) bytes: Bytes,
}

/// An endless sequence of events.
pub(super) struct Script {
    rng: Rng,
    kinds: Vec<(EventKind, Arc<str>)>,
    instances: Vec<Instance>,
    size: usize,
    /// The next event's time, and the time between events; without it, the clock's.
    time: Option<(SystemTime, Duration)>,
}

struct Instance {
    name: Arc<str>,
    id: String,
    sender: String,
}

// === impl EventKind ===

impl EventKind {
    /// Every kind, and how many of a hundred events are of it.
    const SHARES: [(Self, usize); 9] = [
        (Self::MessagesUpsert, 36),
        (Self::MessagesUpdate, 28),
        (Self::PresenceUpdate, 14),
        (Self::SendMessage, 10),
        (Self::ContactsUpdate, 4),
        (Self::ChatsUpdate, 4),
        (Self::ConnectionUpdate, 2),
        (Self::QrcodeUpdated, 1),
        (Self::Call, 1),
    ];

    /// The wire name.
    fn name(self) -> &'static str {
        match self {
            Self::MessagesUpsert => "messages.upsert",
            Self::MessagesUpdate => "messages.update",
            Self::SendMessage => "send.message",
            Self::PresenceUpdate => "presence.update",
            Self::ContactsUpdate => "contacts.update",
            Self::ChatsUpdate => "chats.update",
            Self::ConnectionUpdate => "connection.update",
            Self::QrcodeUpdated => "qrcode.updated",
            Self::Call => "call",
        }
    }
}

// === impl Script ===

impl Script {
    pub(super) fn new(config: &Config, time: Option<(SystemTime, Duration)>) -> Self {
        let mut rng = Rng::with_seed(config.seed);
        let kinds = EventKind::SHARES
            .into_iter()
            .filter(|(kind, _)| config.events.is_empty() || config.events.contains(kind))
            .flat_map(|(kind, share)| {
                std::iter::repeat_n((kind, Arc::<str>::from(kind.name())), share)
            })
            .collect();
        let instances = (1..=config.instances.max(1))
            .map(|number| Instance {
                name: format!("loja{number}").into(),
                id: format!(
                    "{:08x}-c638-4700-8ce5-{:012x}",
                    rng.u32(..),
                    rng.u64(..1 << 48)
                ),
                sender: format!("55119{:08}@s.whatsapp.net", 10_000_000 + number),
            })
            .collect();
        Self {
            rng,
            kinds,
            instances,
            size: config.size.map_or(0, evows_core::config::Size::bytes),
            time,
        }
    }

    pub(super) fn next(&mut self) -> Envelope {
        let at = match &mut self.time {
            None => SystemTime::now(),
            Some((time, step)) => {
                let at = *time;
                *time += *step;
                at
            }
        };
        let rng = &mut self.rng;
        let (kind, name) = &self.kinds[rng.usize(..self.kinds.len())];
        let instance = &self.instances[rng.usize(..self.instances.len())];
        let data = data(*kind, rng, instance, at);
        let mut envelope = json!({
            "event": **name,
            "instance": *instance.name,
            "data": data,
            "server_url": SERVER,
            "date_time": humantime::format_rfc3339_millis(at).to_string(),
            "sender": instance.sender,
            "apikey": null,
        });
        let mut text = envelope.to_string();
        if text.len() < self.size {
            pad(&mut envelope["data"], self.size - text.len());
            text = envelope.to_string();
        }
        Envelope {
            name: Arc::clone(name),
            instance: Arc::clone(&instance.name),
            bytes: Bytes::from(text.into_boxed_str().into_boxed_bytes()),
        }
    }
}

/// Makes `data` longer by `missing` bytes: a longer text where there is one, a `padding` elsewhere.
fn pad(data: &mut Value, missing: usize) {
    if let Some(Value::String(text)) = data.pointer_mut("/message/conversation") {
        text.push_str(&"x".repeat(missing));
        return;
    }
    let data = match data {
        Value::Array(elements) => elements.first_mut(),
        other => Some(other),
    };
    if let Some(Value::Object(data)) = data {
        let frame = r#","padding":"""#.len();
        let padding = "x".repeat(missing.saturating_sub(frame));
        data.insert("padding".to_owned(), padding.into());
    }
}

fn data(kind: EventKind, rng: &mut Rng, instance: &Instance, at: SystemTime) -> Value {
    match kind {
        EventKind::MessagesUpsert => message(rng, instance, at, false),
        EventKind::SendMessage => message(rng, instance, at, true),
        EventKind::MessagesUpdate => json!({
            "keyId": message_id(rng),
            "remoteJid": jid(rng),
            "fromMe": true,
            "status": pick(rng, ["SERVER_ACK", "DELIVERY_ACK", "READ", "PLAYED"]),
            "instanceId": instance.id,
            "messageId": format!("cm{:023x}", rng.u128(..1 << 92)),
        }),
        EventKind::PresenceUpdate => {
            let jid = jid(rng);
            let states = [
                "unavailable",
                "available",
                "composing",
                "recording",
                "paused",
            ];
            let presence =
                json!({ "lastKnownPresence": pick(rng, states), "lastSeen": seconds(at) });
            json!({ "id": jid, "presences": { jid: presence } })
        }
        EventKind::ContactsUpdate => json!([{
            "remoteJid": jid(rng),
            "pushName": pick(rng, PEOPLE),
            "profilePicUrl": null,
            "instanceId": instance.id,
        }]),
        EventKind::ChatsUpdate => {
            json!([{ "remoteJid": jid(rng), "instanceId": instance.id }])
        }
        EventKind::ConnectionUpdate => connection(rng, instance),
        EventKind::QrcodeUpdated => json!({ "qrcode": {
            "instance": *instance.name,
            "pairingCode": null,
            "code": format!("2@{}", text(rng, 180)),
            "base64": format!("data:image/png;base64,iVBORw0KGgo{}", text(rng, 2000)),
        }}),
        EventKind::Call => {
            let from = jid(rng);
            json!({
                "chatId": from,
                "from": from,
                "id": message_id(rng),
                "date": humantime::format_rfc3339_millis(at).to_string(),
                "offline": false,
                "status": pick(rng, ["offer", "ringing", "timeout", "reject", "terminate"]),
                "isVideo": rng.bool(),
                "isGroup": false,
            })
        }
    }
}

fn message(rng: &mut Rng, instance: &Instance, at: SystemTime, from_me: bool) -> Value {
    let mut message = Map::new();
    if rng.u8(..4) > 0 {
        let context = json!({ "deviceListMetadataVersion": 2, "messageSecret": indexed(rng, 32) });
        message.insert("messageContextInfo".to_owned(), context);
    }
    let kind = if rng.u8(..8) == 0 {
        message.insert("imageMessage".to_owned(), image(rng, at));
        "imageMessage"
    } else {
        message.insert("conversation".to_owned(), pick(rng, TEXTS).into());
        "conversation"
    };
    let status = if from_me { "PENDING" } else { "DELIVERY_ACK" };
    json!({
        "key": {
            "remoteJid": jid(rng),
            "fromMe": from_me,
            "id": message_id(rng),
            "addressingMode": "pn",
        },
        "pushName": if from_me { "Você" } else { pick(rng, PEOPLE) },
        "status": status,
        "message": message,
        "contextInfo": null,
        "messageType": kind,
        "messageTimestamp": seconds(at),
        "instanceId": instance.id,
        "source": pick(rng, ["android", "ios", "web", "desktop"]),
    })
}

fn image(rng: &mut Rng, at: SystemTime) -> Value {
    json!({
        "url": format!("https://mmg.whatsapp.net/v/t62.7118-24/{}.enc", text(rng, 40)),
        "mimetype": "image/jpeg",
        "fileSha256": indexed(rng, 32),
        "fileLength": { "low": rng.u32(10_000..2_000_000), "high": 0, "unsigned": true },
        "height": 1280,
        "width": 720,
        "mediaKey": indexed(rng, 32),
        "fileEncSha256": indexed(rng, 32),
        "directPath": format!("/v/t62.7118-24/{}.enc", text(rng, 40)),
        "mediaKeyTimestamp": { "low": seconds(at), "high": 0, "unsigned": false },
        "jpegThumbnail": indexed(rng, 400),
    })
}

fn connection(rng: &mut Rng, instance: &Instance) -> Value {
    let name = &*instance.name;
    match rng.u8(..3) {
        0 => json!({ "instance": name, "state": "connecting", "statusReason": 200 }),
        1 => json!({ "instance": name, "state": "close", "statusReason": 401 }),
        _ => json!({
            "instance": name,
            "wuid": instance.sender,
            "profileName": name,
            "profilePictureUrl": "https://pps.whatsapp.net/v/t61.24694-24/1.jpg",
            "state": "open",
            "statusReason": 200,
        }),
    }
}

/// Bytes as Evolution 2.3.6 writes them into JSON (contract 1.4).
fn indexed(rng: &mut Rng, length: usize) -> Value {
    let bytes = (0..length).map(|index| (index.to_string(), rng.u8(..).into()));
    Value::Object(bytes.collect())
}

fn jid(rng: &mut Rng) -> String {
    format!("55119{:08}@s.whatsapp.net", 80_000_000 + rng.u32(..500))
}

fn message_id(rng: &mut Rng) -> String {
    format!("3EB0{:018X}", rng.u128(..1 << 72))
}

fn text(rng: &mut Rng, length: usize) -> String {
    std::iter::repeat_with(|| rng.alphanumeric())
        .take(length)
        .collect()
}

fn pick<const N: usize>(rng: &mut Rng, among: [&'static str; N]) -> &'static str {
    among[rng.usize(..N)]
}

fn seconds(at: SystemTime) -> u64 {
    let since = at.duration_since(SystemTime::UNIX_EPOCH);
    since.unwrap_or_default().as_secs()
}
