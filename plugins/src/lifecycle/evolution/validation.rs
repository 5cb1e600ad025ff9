//! What a request body may say, with the texts that Evolution's validator answers (contract 3.2).

use evows_core::names::{GROUPS_UPDATE, LISTED};
use serde_json::{Map, Value};

use super::row::{Setting, WebhookSetting};

/// A body: Evolution takes anything that is not an object for an empty one.
pub(super) type Body = Map<String, Value>;

/// Every way in which a body is wrong, in the order of the schema.
pub(super) type Faults = Vec<String>;

/// The integrations that an instance may be created with; the first is the default.
pub(super) const INTEGRATIONS: [&str; 3] = ["WHATSAPP-BAILEYS", "WHATSAPP-BUSINESS", "EVOLUTION"];

/// Which names an `events` list may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Names {
    /// The 31 listed ones.
    Listed,
    /// Those, and `GROUPS_UPDATE`, which Evolution's list misspells.
    WithGroupsUpdate,
    /// Any text: what the original checks when an instance is created.
    Any,
}

/// What `POST /instance/create` asks for.
#[derive(Debug)]
pub(super) struct Creation {
    pub(super) name: String,
    pub(super) token: Option<String>,
    pub(super) integration: Option<String>,
    pub(super) number: Option<String>,
}

/// Reads the body of `POST /websocket/set`: nested as in v2, or flat as in v1.
pub(super) fn setting(body: &Body, names: Names) -> Result<Setting, Faults> {
    match body.get("websocket") {
        Some(Value::Object(table)) => enabled_and_events(table, "websocket", names),
        Some(_) => Err(vec!["websocket is not of a type(s) object".to_owned()]),
        None => enabled_and_events(body, "", names),
    }
}

/// Reads the body of `POST /webhook/set`, which is never flat (contract 3.4).
pub(super) fn webhook(body: &Body, names: Names) -> Result<WebhookSetting, Faults> {
    let table = match body.get("webhook") {
        Some(Value::Object(table)) => table,
        Some(_) => return Err(vec!["webhook is not of a type(s) object".to_owned()]),
        None => return Err(vec!["instance requires property \"webhook\"".to_owned()]),
    };
    let setting = webhook_table(table, names)?;
    // The original looks for an empty URL only where there is nothing else.
    let is_short = table.keys().all(|key| matches!(&**key, "enabled" | "url"));
    if is_short && setting.url.is_empty() {
        return Err(vec!["The \"url\" cannot be empty".to_owned()]);
    }
    Ok(setting)
}

/// Reads the `webhook` object of `POST /instance/create`, where `enabled` may be missing.
pub(super) fn embedded_webhook(
    body: &Body,
    names: Names,
) -> Result<Option<WebhookSetting>, Faults> {
    let mut table = match body.get("webhook") {
        None | Some(Value::Null) => return Ok(None),
        Some(Value::Object(table)) => table.clone(),
        Some(_) => return Err(vec!["webhook is not of a type(s) object".to_owned()]),
    };
    enable(&mut table, names);
    webhook_table(&table, names).map(Some)
}

fn webhook_table(table: &Body, names: Names) -> Result<WebhookSetting, Faults> {
    let mut faults = Faults::new();
    let enabled = enabled_of(table, "webhook.enabled", &mut faults);
    let wrong = |key: &str, kind: &str| format!("webhook.{key} is not of a type(s) {kind}");
    let url = match table.get("url") {
        None => None,
        Some(Value::String(url)) => Some(url.clone()),
        Some(_) => {
            faults.push(wrong("url", "string"));
            None
        }
    };
    let headers = match table.get("headers") {
        None | Some(Value::Null) => None,
        Some(Value::Object(headers)) => Some(headers.clone()),
        Some(_) => {
            faults.push(wrong("headers", "object"));
            None
        }
    };
    let mut flag = |key: &str| match table.get(key) {
        None | Some(Value::Null) => None,
        Some(Value::Bool(flag)) => Some(*flag),
        Some(_) => {
            faults.push(wrong(key, "boolean"));
            None
        }
    };
    let (by_events, base64) = (flag("byEvents"), flag("base64"));
    let events = events_of(table, "webhook.events", names, &mut faults);
    let missing = ["enabled", "url"]
        .into_iter()
        .filter(|key| !table.contains_key(*key));
    faults.extend(missing.map(|key| format!("webhook requires property \"{key}\"")));
    match (enabled, url) {
        (Some(enabled), Some(url)) if faults.is_empty() => Ok(WebhookSetting {
            enabled,
            url,
            headers,
            by_events,
            base64,
            events,
        }),
        _ => Err(faults),
    }
}

/// Reads the `websocket` object of `POST /instance/create`, where `enabled` may be missing.
pub(super) fn embedded(body: &Body, names: Names) -> Result<Option<Setting>, Faults> {
    let mut table = match body.get("websocket") {
        None | Some(Value::Null) => return Ok(None),
        Some(Value::Object(table)) => table.clone(),
        Some(_) => {
            return Err(vec!["websocket is not of a type(s) object".to_owned()]);
        }
    };
    enable(&mut table, names);
    enabled_and_events(&table, "websocket", names).map(Some)
}

/// Reads the rest of the body of `POST /instance/create`.
pub(super) fn creation(body: &Body) -> Result<Creation, Faults> {
    let mut faults = Faults::new();
    let mut text = |key: &str| match body.get(key) {
        Some(Value::String(text)) => Some(text.clone()),
        None | Some(Value::Null) => None,
        Some(_) => {
            faults.push(format!("{key} is not of a type(s) string"));
            None
        }
    };
    let name = text("instanceName");
    let (token, integration) = (text("token"), text("integration"));
    let number = text("number");
    match name {
        Some(name) if faults.is_empty() => Ok(Creation {
            name,
            token: token.filter(|token| !token.is_empty()),
            integration,
            number: number.filter(|number| !number.is_empty()),
        }),
        None if faults.is_empty() => Err(vec![
            "instance requires property \"instanceName\"".to_owned(),
        ]),
        _ => Err(faults),
    }
}

/// The original enables whatever is embedded.
fn enable(table: &mut Body, names: Names) {
    if names == Names::Any || !table.contains_key("enabled") {
        table.insert("enabled".to_owned(), Value::Bool(true));
    }
}

fn enabled_and_events(table: &Body, path: &str, names: Names) -> Result<Setting, Faults> {
    let at = |key: &str| match path {
        "" => key.to_owned(),
        path => format!("{path}.{key}"),
    };
    let mut faults = Faults::new();
    let enabled = enabled_of(table, &at("enabled"), &mut faults);
    let events = events_of(table, &at("events"), names, &mut faults);
    if !table.contains_key("enabled") {
        let place = if path.is_empty() { "instance" } else { path };
        faults.push(format!("{place} requires property \"enabled\""));
    }
    match enabled {
        Some(enabled) if faults.is_empty() => Ok(Setting { enabled, events }),
        _ => Err(faults),
    }
}

fn enabled_of(table: &Body, place: &str, faults: &mut Faults) -> Option<bool> {
    let enabled = table.get("enabled")?;
    if !enabled.is_boolean() {
        faults.push(format!("{place} is not of a type(s) boolean"));
        faults.push(format!("{place} is not one of enum values: true,false"));
    }
    enabled.as_bool()
}

fn events_of(table: &Body, place: &str, names: Names, faults: &mut Faults) -> Option<Vec<String>> {
    let Value::Array(events) = table.get("events")? else {
        faults.push(format!("{place} is not of a type(s) array"));
        return None;
    };
    faults.extend(faults_of(events, place, names));
    let texts = events.iter().filter_map(Value::as_str);
    Some(texts.map(str::to_owned).collect())
}

fn faults_of(events: &[Value], place: &str, names: Names) -> Faults {
    let mut faults = Faults::new();
    for (index, event) in events.iter().enumerate() {
        if !event.is_string() {
            faults.push(format!("{place}[{index}] is not of a type(s) string"));
        }
        if !event.as_str().is_some_and(|name| names.allow(name)) && names != Names::Any {
            let listed = LISTED.join(",");
            faults.push(format!(
                "{place}[{index}] is not one of enum values: {listed}"
            ));
        }
    }
    faults
}

// === impl Names ===

impl Names {
    fn allow(self, name: &str) -> bool {
        match self {
            Self::Any => true,
            Self::Listed => LISTED.contains(&name),
            Self::WithGroupsUpdate => LISTED.contains(&name) || name == GROUPS_UPDATE,
        }
    }
}
