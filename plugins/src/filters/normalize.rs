//! Irons out what Evolution's events have that clients stumble over.
//!
//! ```toml
//! [filters.clean]
//! type = "normalize"
//! inputs = ["evolution"]
//! addressing = true
//! edits = true
//! utc_timestamp = true
//! date_time_tz = "-03:00"
//! ```
//!
//! Everything is off until it is switched on. The sections are those of the contract with Evolution.
//!
//! | key | what is done | section |
//! |---|---|---|
//! | `event_names` | An event named in another spelling gets its wire name: `MESSAGES_UPSERT`, and `GROUP_UPDATE`, which is `groups.update`. | 1.1 |
//! | `send_message` | `send.message`, which has the same shape, becomes `messages.upsert`. | 6.1 #19 |
//! | `edits` | `messages.edited` and `send.message.update` that are no edits (revocations, settings, key exchanges) are discarded as `not_an_edit`. Those that do not say what they are pass. | 1.5, 6.1 #18 |
//! | `deletes` | A `messages.delete` that is a bare key gets the shape of the other kind, as far as it goes: `{"key":{...},"status":"DELETED"}`. | 1.5 |
//! | `arrays` | `contacts.upsert`, `contacts.update`, `chats.upsert` and `chats.update` always have an array, of one where it was an object. | 1.5 |
//! | `participants` | In `group-participants.update`, participants are always objects, `{"id":"..."}`; a `jid` in `participantsData` is always a string, and a `phoneNumber` never `"[object Object]"`. | 1.5, 6.1 #17 |
//! | `addressing` | Where `remoteJid` is a `@lid` and `remoteJidAlt` the phone number's id, they change places, as from Evolution 2.4. The device of a phone number's id, `:3`, is cut off, and `addressingMode` becomes `"pn"` where the sender is a number. Likewise `participant` and `participantAlt`. | 1.5 |
//! | `int64` | `{"low":n,"high":n,"unsigned":b}` becomes the number; beyond 2^53 the digits as a string. | 1.4 |
//! | `utc_timestamp` | The member `date_time_utc` is added: true UTC, such as `"2025-10-21T17:20:39.016Z"`. `date_time` is the server's wall clock in spite of its `Z`, and stays as it is. With `date_time_tz` it is converted; otherwise `data.messageTimestamp` is taken, and events without one get nothing. | 1.3 |
//!
//! An event to which nothing is done keeps its bytes.
//! An envelope that cannot be edited (nested more than 127 deep, or with a number that no double holds, such as `1e400`) passes as
//! it is. In one that is changed, numbers elsewhere may be written another way (`1e2` as `100.0`), those beyond 64 bits with
//! the precision of a double, and half of a surrogate pair becomes U+FFFD.
//!
//! Not done: an edit that `messages.update` reports as `DELETED` (6.1 #18) cannot be told from a deletion. Zones with summer time
//! (`America/New_York`) have hours that are there twice, so `date_time_tz` is an offset. For bytes there is the filter `bytes`.

mod time;

use evows_core::config::Problem;
use evows_core::plugin::{BuildContext, BuildError, Emitter, Filter, FilterPlugin};
use evows_core::{Event, names, register_filter};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::attached;

/// Events whose data is an object or an array.
const POLYMORPHIC: [&str; 4] = [
    "contacts.upsert",
    "contacts.update",
    "chats.upsert",
    "chats.update",
];

/// What ids of phone numbers end with.
const NUMBER: &str = "@s.whatsapp.net";

/// Irons out what Evolution's events have that clients stumble over.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[expect(clippy::struct_excessive_bools, reason = "each is a switch of its own")]
pub struct Config {
    /// Whether event names get their wire spelling: `GROUP_UPDATE` is `groups.update` (contract 1.1).
    pub event_names: bool,
    /// Whether `send.message` becomes `messages.upsert` (contract 6.1 #19).
    pub send_message: bool,
    /// Whether `messages.edited` and `send.message.update` that are no edits are discarded (contract 6.1 #18).
    pub edits: bool,
    /// Whether a `messages.delete` that is a bare key becomes `{key, status}` (contract 1.5).
    pub deletes: bool,
    /// Whether the events of contacts and chats always have an array (contract 1.5).
    pub arrays: bool,
    /// Whether participants in `group-participants.update` are always objects (contract 1.5).
    pub participants: bool,
    /// Whether a `remoteJid` that is a `@lid` changes places with its `remoteJidAlt`, and numbers lose their device (contract 1.5).
    pub addressing: bool,
    /// Whether `{low, high, unsigned}` becomes a number (contract 1.4).
    pub int64: bool,
    /// Whether the member `date_time_utc` is added (contract 1.3).
    pub utc_timestamp: bool,
    /// The offset of Evolution's clock from UTC, such as `"-03:00"` for `TZ=America/Sao_Paulo`; `"Z"` is none.
    pub date_time_tz: Option<String>,
}

/// Changes the data, and says whether there was anything to change.
type Step = fn(&mut Value) -> bool;

/// The running filter.
#[derive(Debug)]
pub struct Normalize {
    config: Config,
    /// In minutes.
    offset: Option<i64>,
}

register_filter!(
    Normalize,
    summary = "Irons out what Evolution's events have that clients stumble over.",
    example = "addressing = true\nedits = true\nutc_timestamp = true\ndate_time_tz = \"-03:00\"\n",
);

// === impl Normalize ===

impl FilterPlugin for Normalize {
    const NAME: &'static str = "normalize";
    type Config = Config;

    fn check(config: &Config) -> Vec<Problem> {
        let Some(text) = &config.date_time_tz else {
            return Vec::new();
        };
        let problem = if time::offset(text).is_none() {
            Problem::new(
                "invalid-value",
                format!("`{text}` is not an offset from UTC"),
            )
            .help("such as \"-03:00\", which is that of America/Sao_Paulo")
        } else if !config.utc_timestamp {
            Problem::new("invalid-value", "nothing is converted with `date_time_tz`")
                .help("write `utc_timestamp = true` too")
        } else {
            return Vec::new();
        };
        vec![problem.at_key("date_time_tz")]
    }

    fn build(config: Config, _cx: &BuildContext) -> Result<Self, BuildError> {
        Ok(Self {
            offset: config.date_time_tz.as_deref().and_then(time::offset),
            config,
        })
    }
}

impl Filter for Normalize {
    fn apply(&mut self, event: Event, out: &mut Emitter<'_>) {
        if !attached::is_readable(&event) {
            return out.emit(event);
        }
        if self.config.edits && is_no_edit(&event) {
            return out.discard(event, "not_an_edit");
        }
        let changes = self.changes(&event);
        if changes.is_empty() {
            return out.emit(event);
        }
        out.emit(attached::edit(event, |document| {
            for (key, value) in changes {
                document.insert(key.to_owned(), value);
            }
        }));
    }
}

impl Normalize {
    /// The members of the envelope that get another value.
    fn changes(&self, event: &Event) -> Vec<(&'static str, Value)> {
        let document = event.document();
        let name = self.name(event.name()).map(Value::from);
        let utc = self
            .config
            .utc_timestamp
            .then(|| time::utc(document, self.offset));
        let changes = [
            ("event", name),
            (
                "data",
                document
                    .get("data")
                    .and_then(|data| self.data(event.name(), data)),
            ),
            ("date_time_utc", utc.flatten()),
        ];
        let changes = changes
            .into_iter()
            .filter_map(|(key, value)| Some((key, value?)));
        changes
            .filter(|(key, value)| document.get(*key) != Some(value))
            .collect()
    }

    fn name(&self, name: &str) -> Option<&'static str> {
        if self.config.send_message && names::same_event(name, "send.message") {
            return Some("messages.upsert");
        }
        names::wire_name(name).filter(|_| self.config.event_names)
    }

    /// The data as it should be, if something is done to it.
    fn data(&self, name: &str, data: &Value) -> Option<Value> {
        let steps: [(bool, &[&str], Step); 5] = [
            (self.config.deletes, &["messages.delete"], wrap_key),
            (self.config.arrays, &POLYMORPHIC, wrap_in_array),
            (
                self.config.participants,
                &["group-participants.update"],
                participants,
            ),
            (self.config.addressing, &[], addressing),
            (self.config.int64, &[], int64),
        ];
        let is_for = |names: &[&str]| {
            names.is_empty() || names.iter().any(|other| names::same_event(name, other))
        };
        let mut made = None;
        let mut changed = false;
        for (is_on, names, step) in steps {
            if is_on && is_for(names) {
                // Only the step itself knows whether it does anything, so it works on a copy.
                changed |= step(made.get_or_insert_with(|| data.clone()));
            }
        }
        made.filter(|_| changed)
    }
}

/// Whether it is an event for edits, and says that it is something else.
fn is_no_edit(event: &Event) -> bool {
    ["messages.edited", "send.message.update"]
        .into_iter()
        .any(|name| names::same_event(event.name(), name))
        && event.document().get("data").is_some_and(|data| {
            let kind = data.get("type").and_then(Value::as_str);
            kind.is_some_and(|kind| kind != "MESSAGE_EDIT")
        })
}

fn wrap_key(data: &mut Value) -> bool {
    let is_bare = data.get("key").is_none()
        && data.get("remoteJid").is_some_and(Value::is_string)
        && data.get("id").is_some_and(Value::is_string);
    let Some(key) = data.as_object_mut().filter(|_| is_bare) else {
        return false;
    };
    let mut key = std::mem::take(key);
    let status = key.shift_remove("status");
    let status = status.unwrap_or_else(|| "DELETED".into());
    *data = json!({ "key": key, "status": status });
    true
}

fn wrap_in_array(data: &mut Value) -> bool {
    let is_object = data.is_object();
    if is_object {
        *data = Value::Array(vec![data.take()]);
    }
    is_object
}

fn participants(data: &mut Value) -> bool {
    let mut changed = false;
    for participant in items(data, "participants") {
        if participant.is_string() {
            *participant = json!({ "id": participant.take() });
            changed = true;
        }
    }
    for item in items(data, "participantsData") {
        let Some(members) = item.as_object_mut() else {
            continue;
        };
        let participant = members.get("jid").cloned().unwrap_or_default();
        let text = |key| {
            participant
                .get(key)
                .filter(|value| value.is_string())
                .cloned()
        };
        if let Some(id) = text("id") {
            members.insert("jid".to_owned(), id);
            changed = true;
        }
        if members
            .get("phoneNumber")
            .is_some_and(|it| it == "[object Object]")
        {
            match text("phoneNumber") {
                Some(number) => members.insert("phoneNumber".to_owned(), number),
                None => members.shift_remove("phoneNumber"),
            };
            changed = true;
        }
    }
    changed
}

fn items<'d>(data: &'d mut Value, key: &str) -> impl Iterator<Item = &'d mut Value> {
    let items = data.get_mut(key).and_then(Value::as_array_mut);
    items.into_iter().flatten()
}

/// Changes the keys of messages: of one, or of an array of them.
fn addressing(data: &mut Value) -> bool {
    if let Value::Array(items) = data {
        return items
            .iter_mut()
            .fold(false, |done, item| message(item) | done);
    }
    message(data)
}

fn message(data: &mut Value) -> bool {
    let key = match data.get("key") {
        Some(Value::Object(_)) => data.get_mut("key"),
        _ => Some(data),
    };
    let Some(Value::Object(key)) = key else {
        return false;
    };
    let remote = change_places(key, "remoteJid", "remoteJidAlt");
    let participant = change_places(key, "participant", "participantAlt");
    let is_cut = cut_device(key, "remoteJid") | cut_device(key, "participant");
    // In a group, who writes is the participant.
    let mut senders = ["participant", "remoteJid"]
        .into_iter()
        .filter_map(|name| key.get(name)?.as_str());
    let sender = senders.find(|id| !id.is_empty());
    let is_number = sender.is_some_and(|id| id.ends_with(NUMBER));
    let mode = key.get("addressingMode").and_then(Value::as_str);
    let is_wrong = is_number && mode.is_some_and(|mode| mode != "pn");
    if remote || participant || is_wrong {
        key.insert("addressingMode".to_owned(), "pn".into());
    }
    remote || participant || is_cut || is_wrong
}

/// Takes the device out of a phone number's id; an agent, `_1`, stays.
fn cut_device(key: &mut Map<String, Value>, name: &str) -> bool {
    let user = key.get(name).and_then(Value::as_str);
    let user = user.and_then(|id| id.strip_suffix(NUMBER));
    let Some((user, _)) = user.and_then(|user| user.split_once(':')) else {
        return false;
    };
    let number = format!("{user}{NUMBER}");
    key.insert(name.to_owned(), number.into());
    true
}

fn change_places(key: &mut Map<String, Value>, name: &str, alternative: &str) -> bool {
    let text = |name: &str| key.get(name).and_then(Value::as_str);
    let (Some(lid), Some(number)) = (text(name), text(alternative)) else {
        return false;
    };
    if !(lid.ends_with("@lid") && number.ends_with(NUMBER)) {
        return false;
    }
    let (lid, number) = (lid.to_owned(), number.to_owned());
    key.insert(name.to_owned(), number.into());
    key.insert(alternative.to_owned(), lid.into());
    true
}

fn int64(value: &mut Value) -> bool {
    if let Some(number) = time::long(value) {
        // The largest number up to which JavaScript knows every one.
        let is_safe = number.unsigned_abs() <= 1 << 53;
        *value = match i64::try_from(number) {
            Ok(number) if is_safe => number.into(),
            _ => number.to_string().into(),
        };
        return true;
    }
    match value {
        Value::Array(items) => items.iter_mut().fold(false, |done, it| int64(it) | done),
        Value::Object(members) => {
            let values = members.values_mut();
            values.fold(false, |done, it| int64(it) | done)
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests;
