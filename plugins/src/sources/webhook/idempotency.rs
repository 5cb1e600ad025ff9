//! Recognising what a sender sends again because it did not hear the answer.

use std::collections::{HashMap, VecDeque};

use axum::http::HeaderMap;
use evows_core::Event;
use evows_core::config::Period;
use parking_lot::Mutex;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};
use tokio::time::{Duration, Instant};

/// Headers that name a request, which a sender that tries again sends again.
const NAMES: [&str; 2] = ["webhook-id", "idempotency-key"];

/// Which events are the same one sent twice.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Idempotency {
    /// For how long an event is remembered; journals remember for an hour at most.
    #[serde(default = "window")]
    pub window: Period,
}

/// The keys of events that were taken in, for a while.
#[derive(Debug)]
pub(super) struct Taken {
    window: Duration,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    keys: HashMap<u128, Instant>,
    order: VecDeque<(Instant, u128)>,
}

/// What of an envelope tells one event from another.
#[derive(Deserialize)]
struct Content<'a> {
    #[serde(borrow, default)]
    date_time: Option<&'a RawValue>,
    #[serde(borrow, default)]
    data: Option<&'a RawValue>,
}

fn window() -> Period {
    Period(Duration::from_hours(1))
}

/// Gives each event of a request its key: the request's name and the event's place in it, or else instance, event, `date_time`
/// and `data`.
pub(super) fn with_keys(batch: Vec<Event>, headers: &HeaderMap) -> Vec<Event> {
    let mut names = NAMES.iter().filter_map(|name| headers.get(*name));
    let name = names.next().filter(|name| !name.is_empty());
    let keyed = batch.into_iter().enumerate().map(|(index, event)| {
        let key = match name {
            Some(name) => hash([b"name", name.as_bytes(), &index.to_le_bytes()]),
            None => of_content(&event),
        };
        event.with_key(key)
    });
    keyed.collect()
}

fn of_content(event: &Event) -> u128 {
    let content: Option<Content<'_>> = serde_json::from_slice(event.envelope()).ok();
    let text = |value: Option<&RawValue>| value.map_or("", RawValue::get).to_owned();
    let (date_time, data) = match content {
        Some(content) => (text(content.date_time), text(content.data)),
        None => (String::new(), String::new()),
    };
    hash([
        b"content",
        event.instance().as_bytes(),
        event.name().as_bytes(),
        date_time.as_bytes(),
        data.as_bytes(),
    ])
}

/// The first half of a SHA-256 over the parts, each with its length.
fn hash<const N: usize>(parts: [&[u8]; N]) -> u128 {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    let bytes: [u8; 32] = hash.finalize().into();
    let (half, _) = bytes.split_at(16);
    half.try_into().map_or(0, u128::from_le_bytes)
}

// === impl Taken ===

impl Taken {
    /// Keys that are remembered at most.
    const MOST: usize = 1_000_000;

    pub(super) fn new(config: &Idempotency) -> Self {
        Self {
            window: config.window.0,
            state: Mutex::default(),
        }
    }

    pub(super) fn has(&self, event: &Event) -> bool {
        let state = self.state.lock();
        let at = event.key().and_then(|key| state.keys.get(&key));
        at.is_some_and(|at| at.elapsed() <= self.window)
    }

    /// Notes events that are where they belong. Those that are not may come again.
    pub(super) fn add(&self, keys: impl IntoIterator<Item = u128>) {
        let now = Instant::now();
        let mut state = self.state.lock();
        for key in keys {
            state.keys.insert(key, now);
            state.order.push_back((now, key));
        }
        while let Some((at, key)) = state.order.front().copied()
            && (state.order.len() > Self::MOST || now - at > self.window)
        {
            state.order.pop_front();
            // Noted again since then, it is further back in the order, too.
            if state.keys.get(&key) == Some(&at) {
                state.keys.remove(&key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use evows_core::testing::event;

    use super::*;

    fn key(text: &str) -> u128 {
        let keyed = with_keys(vec![event(text)], &HeaderMap::new());
        keyed[0].key().unwrap()
    }

    #[test]
    fn the_same_event_has_the_same_key_and_no_other_has_it() {
        let one = r#"{"event":"call","instance":"a","date_time":"1","data":{"n":1}}"#;
        let other_url =
            r#"{"event":"call","instance":"a","destination":"x","data":{"n":1},"date_time":"1"}"#;
        assert_eq!(key(one), key(other_url));
        for other in [
            r#"{"event":"call","instance":"b","date_time":"1","data":{"n":1}}"#,
            r#"{"event":"calls","instance":"a","date_time":"1","data":{"n":1}}"#,
            r#"{"event":"call","instance":"a","date_time":"2","data":{"n":1}}"#,
            r#"{"event":"call","instance":"a","date_time":"1","data":{"n":2}}"#,
            r#"{"event":"call","instance":"a"}"#,
        ] {
            assert_ne!(key(one), key(other), "{other}");
        }
    }

    #[test]
    fn a_named_request_is_known_by_its_name() {
        let batch = || vec![event(r#"{"event":"call","instance":"a"}"#); 2];
        let keys = |name: &str| -> Vec<_> {
            let mut headers = HeaderMap::new();
            headers.insert("webhook-id", name.parse().unwrap());
            let keyed = with_keys(batch(), &headers).into_iter();
            keyed.map(|event| event.key().unwrap()).collect()
        };
        let (one, other) = (keys("msg_1"), keys("msg_2"));
        assert_ne!(one[0], one[1]);
        assert_ne!(one[0], other[0]);
        assert_eq!(one, keys("msg_1"));
    }

    #[tokio::test(start_paused = true)]
    async fn keys_are_forgotten_after_the_window() {
        let event = event(r#"{"event":"call","instance":"a"}"#).with_key(7);
        let taken = Taken::new(&Idempotency { window: window() });
        assert!(!taken.has(&event));
        taken.add([7]);
        assert!(taken.has(&event));
        tokio::time::advance(Duration::from_hours(2)).await;
        assert!(!taken.has(&event));
        taken.add([8]);
        assert_eq!(taken.state.lock().keys.len(), 1);
    }
}
