//! What the names of members say about their values.

use serde_json::Value;

/// Members that are never touched.
const KEPT: [&str; 3] = ["event", "instance", "instanceName"];
/// Members whose digits are no phone numbers.
const NOT_PHONES: [&str; 20] = [
    "apikey",
    "base64",
    "code",
    "date_time",
    "destination",
    "directPath",
    "fileEncSha256",
    "fileLength",
    "fileSha256",
    "id",
    "instanceId",
    "jpegThumbnail",
    "keyId",
    "mediaKey",
    "messageId",
    "messageSecret",
    "sessionId",
    "stanzaId",
    "token",
    "url",
];
/// What the names of such members end with.
const NOT_PHONES_EITHER: [&str; 4] = ["imestamp", "imestampMs", "Url", "_url"];
/// Members that hold messages.
const MESSAGES: [&str; 5] = [
    "contextInfo",
    "editedMessage",
    "message",
    "pollUpdates",
    "quotedMessage",
];
/// Members of messages, at any depth, that nobody wrote.
const TECHNICAL: [&str; 29] = [
    "addressingMode",
    "base64",
    "directPath",
    "encIv",
    "encPayload",
    "fileLength",
    "firstFrameSidecar",
    "id",
    "instanceId",
    "jid",
    "keyId",
    "lid",
    "mediaKey",
    "mediaUrl",
    "messageId",
    "messageSecret",
    "mimetype",
    "participant",
    "participantAlt",
    "recipientKeyHash",
    "scansSidecar",
    "sender",
    "senderKeyHash",
    "source",
    "stanzaId",
    "status",
    "streamingSidecar",
    "voters",
    "waveform",
];
/// What the names of such members end with.
const TECHNICAL_TOO: [&str; 7] = [
    "Jid",
    "JidAlt",
    "Sha256",
    "humbnail",
    "humbnailDirectPath",
    "imestamp",
    "imestampMs",
];
/// Numbers that say where somebody is.
const PLACES: [&str; 2] = ["degreesLatitude", "degreesLongitude"];

/// Whether routing needs it.
pub(super) fn is_kept(key: &str) -> bool {
    KEPT.contains(&key)
}

/// Whether its digits are something else than phone numbers.
pub(super) fn has_no_phones(key: &str) -> bool {
    NOT_PHONES.contains(&key) || NOT_PHONES_EITHER.iter().any(|end| key.ends_with(end))
}

/// Whether what is in there was written by people. A `message` that is text is that of an error, unless it is in one.
pub(super) fn is_message(key: &str, value: &Value) -> bool {
    MESSAGES.contains(&key) && (key != "message" || !value.is_string())
}

/// Whether a text in a message is none that people wrote.
pub(super) fn is_technical(key: &str, text: &str) -> bool {
    TECHNICAL.contains(&key)
        || TECHNICAL_TOO.iter().any(|end| key.ends_with(end))
        // Such as `type` and `messageType`.
        || key == "type"
        || key.ends_with("Type")
        || (matches!(key, "url" | "staticUrl") && is_at_whatsapp(text))
}

/// Whether a number in a message says where somebody is.
pub(super) fn is_place(key: &str) -> bool {
    PLACES.contains(&key)
}

/// Whether it is the address of a file on one of WhatsApp's servers; other addresses are what people wrote.
fn is_at_whatsapp(url: &str) -> bool {
    let host = url.strip_prefix("https://");
    let host = host.and_then(|rest| rest.split(['/', '?', '#']).next());
    host.is_some_and(|host| {
        host.ends_with(".whatsapp.net")
            && host
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b".-".contains(&byte))
    })
}
