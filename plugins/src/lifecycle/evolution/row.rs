//! One instance as it is stored, and as the API shows it.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use evows_core::access::Secret;
use evows_core::hub::{ChannelName, InvalidChannelName};
use evows_core::plugin::{Instance, Integration, Subscription};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use uuid::Uuid;

/// One instance, as it is stored. A key that a later version adds needs a default.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Row {
    pub(super) name: Arc<str>,
    /// A UUID, which Evolution calls `instanceId`.
    pub(super) id: String,
    pub(super) token: Arc<str>,
    pub(super) integration: String,
    pub(super) number: Option<String>,
    pub(super) created_at: Timestamp,
    pub(super) updated_at: Timestamp,
    /// Whether it was ever set with `enabled: true`.
    pub(super) activated: bool,
    pub(super) websocket: Option<WebsocketRow>,
    #[serde(default)]
    pub(super) webhook: Option<WebhookRow>,
}

/// What an instance is set to, as it is stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct WebsocketRow {
    /// A cuid, given once.
    pub(super) id: String,
    pub(super) enabled: bool,
    pub(super) events: Vec<String>,
    pub(super) created_at: Timestamp,
    pub(super) updated_at: Timestamp,
}

/// An instance's own webhook, as it is stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct WebhookRow {
    /// A cuid, given once.
    pub(super) id: String,
    pub(super) url: String,
    pub(super) headers: Option<Map<String, Value>>,
    pub(super) enabled: bool,
    pub(super) events: Vec<String>,
    pub(super) by_events: bool,
    pub(super) base64: bool,
    pub(super) created_at: Timestamp,
    pub(super) updated_at: Timestamp,
}

/// Milliseconds since 1970, true UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct Timestamp(u64);

/// A change to what an instance is set to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Setting {
    pub(super) enabled: bool,
    /// `None` keeps what is stored.
    pub(super) events: Option<Vec<String>>,
}

/// A change to an instance's own webhook. What is `None` keeps what is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct WebhookSetting {
    pub(super) enabled: bool,
    pub(super) url: String,
    pub(super) headers: Option<Map<String, Value>>,
    pub(super) by_events: Option<bool>,
    pub(super) base64: Option<bool>,
    pub(super) events: Option<Vec<String>>,
}

/// The kind of integration that a webhook is.
pub(super) const WEBHOOK: &str = "webhook";

// === impl Row ===

impl Row {
    /// A new instance with a fresh id.
    pub(super) fn new(name: &str, token: &str) -> Self {
        let now = Timestamp::now();
        Self {
            name: name.into(),
            id: Uuid::new_v4().to_string(),
            token: token.into(),
            integration: super::validation::INTEGRATIONS[0].to_owned(),
            number: None,
            created_at: now,
            updated_at: now,
            activated: false,
            websocket: None,
            webhook: None,
        }
    }

    /// Applies a `set`.
    pub(super) fn set(&mut self, setting: Setting) {
        let now = Timestamp::now();
        let stored = self.websocket.take();
        let kept = stored.as_ref().map(|row| row.events.clone());
        let events = events_after(setting.enabled, setting.events, kept);
        self.websocket = Some(WebsocketRow {
            id: stored.as_ref().map_or_else(cuid, |row| row.id.clone()),
            enabled: setting.enabled,
            events,
            created_at: stored.as_ref().map_or(now, |row| row.created_at),
            updated_at: now,
        });
        self.activated |= setting.enabled;
        self.updated_at = now;
    }

    /// Applies a `set` of its own webhook.
    pub(super) fn set_webhook(&mut self, setting: WebhookSetting) {
        let now = Timestamp::now();
        let stored = self.webhook.take();
        let kept = stored.as_ref().map(|row| row.events.clone());
        let events = events_after(setting.enabled, setting.events, kept);
        let mut row = stored.unwrap_or_else(|| WebhookRow {
            id: cuid(),
            url: String::new(),
            headers: None,
            enabled: false,
            events: Vec::new(),
            by_events: false,
            base64: false,
            created_at: now,
            updated_at: now,
        });
        row.url = setting.url;
        row.enabled = setting.enabled;
        row.events = events;
        row.headers = setting.headers.or(row.headers);
        row.by_events = setting.by_events.unwrap_or(row.by_events);
        row.base64 = setting.base64.unwrap_or(row.base64);
        row.updated_at = now;
        self.webhook = Some(row);
        self.updated_at = now;
    }

    /// Switches its own webhook off and leaves everything else of it.
    pub(super) fn switch_webhook_off(&mut self) {
        if let Some(row) = &mut self.webhook {
            row.enabled = false;
            row.updated_at = Timestamp::now();
            self.updated_at = row.updated_at;
        }
    }

    /// What the rest of evows sees of it.
    pub(super) fn instance(&self) -> Result<Instance, InvalidChannelName> {
        Ok(Instance {
            name: Arc::clone(&self.name),
            channel: ChannelName::of_instance(&self.name)?,
            token: Some(Secret::new(Arc::clone(&self.token))),
            activated: self.activated,
            websocket: self.websocket.as_ref().map(|row| Subscription {
                enabled: row.enabled,
                events: row.events.clone(),
            }),
            integrations: self.integrations(),
        })
    }

    fn integrations(&self) -> Vec<Arc<Integration>> {
        let webhook = self.webhook.as_ref().map(|row| Integration {
            kind: WEBHOOK,
            subscription: Subscription {
                enabled: row.enabled,
                events: row.events.clone(),
            },
            settings: match self.webhook_json() {
                Value::Object(settings) => settings,
                _ => Map::new(),
            },
        });
        webhook.map(Arc::new).into_iter().collect()
    }

    /// The row of the websocket integration, as `set` and `find` answer it; `null` before the first `set`.
    pub(super) fn websocket_json(&self) -> Value {
        let Some(row) = &self.websocket else {
            return Value::Null;
        };
        json!({
            "id": row.id,
            "enabled": row.enabled,
            "events": row.events,
            "createdAt": row.created_at.to_string(),
            "updatedAt": row.updated_at.to_string(),
            "instanceId": self.id,
        })
    }

    /// The row of its own webhook, as `set` and `find` answer it; `null` before the first `set`.
    pub(super) fn webhook_json(&self) -> Value {
        let Some(row) = &self.webhook else {
            return Value::Null;
        };
        json!({
            "id": row.id,
            "url": row.url,
            "headers": row.headers,
            "enabled": row.enabled,
            "events": row.events,
            "webhookByEvents": row.by_events,
            "webhookBase64": row.base64,
            "createdAt": row.created_at.to_string(),
            "updatedAt": row.updated_at.to_string(),
            "instanceId": self.id,
        })
    }

    /// The row of the instance, as `fetchInstances` answers it. What evows does not know is `null`.
    pub(super) fn json(&self, state: Option<&str>) -> Value {
        json!({
            "id": self.id,
            "name": self.name,
            "connectionStatus": state.unwrap_or("close"),
            "ownerJid": null,
            "profileName": null,
            "profilePicUrl": null,
            "integration": self.integration,
            "number": self.number,
            "businessId": null,
            "token": self.token,
            "clientName": null,
            "disconnectionReasonCode": null,
            "disconnectionObject": null,
            "disconnectionAt": null,
            "createdAt": self.created_at.to_string(),
            "updatedAt": self.updated_at.to_string(),
            "Chatwoot": null,
            "Proxy": null,
            "Rabbitmq": null,
            "Nats": null,
            "Sqs": null,
            "Websocket": self.websocket_json(),
            "Setting": null,
            "_count": { "Message": 0, "Contact": 0, "Chat": 0 },
        })
    }
}

/// The list that a `set` leaves.
///
/// A list that is missing, or that a disabled instance has no use for, keeps what is stored; an enabled
/// instance with no list at all receives every listed event.
fn events_after(
    enabled: bool,
    given: Option<Vec<String>>,
    kept: Option<Vec<String>>,
) -> Vec<String> {
    match given {
        Some(events) if !events.is_empty() => events,
        Some(_) if enabled => every_event(),
        Some(_) => kept.unwrap_or_default(),
        None => kept
            .filter(|events| !events.is_empty())
            .unwrap_or_else(every_event),
    }
}

fn every_event() -> Vec<String> {
    evows_core::names::LISTED.map(str::to_owned).to_vec()
}

/// A new token, in the form that Evolution gives them.
pub(super) fn token() -> String {
    Uuid::new_v4().to_string().to_uppercase()
}

/// An id in the form of Evolution's database: `c`, the time, and random digits, 25 characters in all.
fn cuid() -> String {
    let mut id = String::from("c");
    let digits = |mut number: u64, count: u32| {
        let mut text = Vec::new();
        for _ in 0..count {
            text.push(char::from_digit((number % 36) as u32, 36).unwrap_or('0'));
            number /= 36;
        }
        text.into_iter().rev().collect::<String>()
    };
    id.push_str(&digits(Timestamp::now().0, 8));
    id.push_str(&digits(fastrand::u64(..), 8));
    id.push_str(&digits(fastrand::u64(..), 8));
    id
}

// === impl Timestamp ===

impl Timestamp {
    fn now() -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        let millis = since.unwrap_or_default().as_millis();
        Self(u64::try_from(millis).unwrap_or(u64::MAX))
    }
}

impl std::fmt::Display for Timestamp {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The format ends with the year 9999; a file may say anything.
        let time = UNIX_EPOCH + Duration::from_millis(self.0.min(253_402_300_799_999));
        humantime::format_rfc3339_millis(time).fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(row: &mut Row, enabled: bool, events: Option<&[&str]>) -> Vec<String> {
        let events = events.map(|events| events.iter().map(|e| (*e).to_owned()).collect());
        row.set(Setting { enabled, events });
        row.websocket.as_ref().unwrap().events.clone()
    }

    #[test]
    fn a_list_is_kept_unless_another_is_given() {
        let mut row = Row::new("ana", "T");
        assert_eq!(set(&mut row, true, Some(&["CALL"])), ["CALL"]);
        assert_eq!(set(&mut row, false, None), ["CALL"]);
        assert_eq!(set(&mut row, false, Some(&[])), ["CALL"]);
        assert_eq!(set(&mut row, true, None), ["CALL"]);
        assert_eq!(
            set(&mut row, false, Some(&["LABELS_EDIT"])),
            ["LABELS_EDIT"]
        );
        assert_eq!(set(&mut row, true, Some(&[])), evows_core::names::LISTED);
        let mut fresh = Row::new("bob", "T");
        assert!(set(&mut fresh, false, Some(&[])).is_empty());
        assert_eq!(set(&mut fresh, true, None).len(), 31);
    }

    #[test]
    fn an_activated_instance_stays_activated_and_keeps_its_ids() {
        let mut row = Row::new("ana", "T");
        set(&mut row, false, None);
        assert!(!row.activated);
        let first = row.websocket.clone().unwrap();
        set(&mut row, true, None);
        set(&mut row, false, None);
        assert!(row.activated);
        let last = row.websocket.clone().unwrap();
        assert_eq!((first.id, first.created_at), (last.id, last.created_at));
    }

    #[test]
    fn a_row_of_an_older_version_has_no_webhook() {
        let mut row = serde_json::to_value(Row::new("ana", "T")).unwrap();
        row.as_object_mut().unwrap().remove("webhook");
        let row: Row = serde_json::from_value(row).unwrap();
        assert_eq!(row.webhook, None);
        assert!(row.instance().unwrap().integrations.is_empty());
    }

    #[test]
    fn ids_have_the_form_of_the_originals() {
        let id = cuid();
        assert_eq!(id.len(), 25);
        assert!(id.starts_with('c'));
        assert!(
            id.bytes()
                .all(|b| b.is_ascii_digit() || b.is_ascii_lowercase())
        );
        assert_ne!(cuid(), id);
        let token = token();
        assert_eq!(token, token.to_uppercase());
        assert_eq!(
            Timestamp(1_761_057_639_123).to_string(),
            "2025-10-21T14:40:39.123Z"
        );
        assert!(Timestamp(u64::MAX).to_string().starts_with("9999"));
    }
}
