//! Forwards `sendNode`, the one event that Evolution's own server takes from clients, to a URL (contract 2.5).

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::header::CONTENT_TYPE;
use axum::http::{Method, Request, Uri};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use evows_core::metrics::Metrics;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::mpsc::{Receiver, Sender, channel};

use super::inbound::{Answer, Inbound, InboundEvent};

/// Requests that wait; more are dropped, and counted.
const WAITING: usize = 256;
/// Time for one request.
const TIME_LIMIT: Duration = Duration::from_secs(10);

/// Takes `sendNode` on the root namespace and posts its argument. Everything else is ignored.
pub(super) struct Forward {
    component: Arc<str>,
    metrics: Metrics,
    url: Uri,
    queue: Sender<Bytes>,
    /// Until the task is started that takes from it.
    waiting: Mutex<Option<Receiver<Bytes>>>,
}

// === impl Forward ===

impl Forward {
    pub(super) fn new(component: &str, metrics: &Metrics, url: Uri) -> Self {
        let (queue, waiting) = channel(WAITING);
        Self {
            component: component.into(),
            metrics: metrics.clone(),
            url,
            queue,
            waiting: Mutex::new(Some(waiting)),
        }
    }

    /// Whether a URL can be posted to.
    pub(super) fn check(url: &str) -> Result<Uri, &'static str> {
        let uri: Uri = url.parse().map_err(|_| "this is no URL")?;
        match (uri.scheme_str(), uri.authority()) {
            (Some("http"), Some(_)) => Ok(uri),
            _ => Err("only http:// URLs can be forwarded to"),
        }
    }

    /// Posts what comes, one after the other, until the engine is gone.
    pub(super) fn start(&self) {
        let Some(mut waiting) = self.waiting.lock().take() else {
            return;
        };
        let (component, metrics) = (Arc::clone(&self.component), self.metrics.clone());
        let url = self.url.clone();
        // It ends when the queue's other end, which `self` holds, is gone.
        tokio::spawn(async move {
            let client = Client::builder(TokioExecutor::new()).build_http::<Body>();
            while let Some(body) = waiting.recv().await {
                let request = Request::builder()
                    .method(Method::POST)
                    .uri(&url)
                    .header(CONTENT_TYPE, "application/json")
                    .body(Body::from(body));
                let Ok(request) = request else { continue };
                let answer = tokio::time::timeout(TIME_LIMIT, client.request(request)).await;
                let problem = match answer {
                    Ok(Ok(answer)) if answer.status().is_success() => continue,
                    Ok(Ok(answer)) => answer.status().to_string(),
                    Ok(Err(error)) => error.to_string(),
                    Err(_) => "no answer in time".to_owned(),
                };
                metrics.refuse(&component, "forward_failed");
                tracing::warn!(transport = %component, %problem, "cannot forward sendNode");
            }
        });
    }
}

impl Inbound for Forward {
    fn event(&self, event: &InboundEvent<'_>, answer: &mut Answer<'_>) -> bool {
        if answer.namespace() != "/" {
            return false;
        }
        let mut data: Vec<Value> = match serde_json::from_str(event.data) {
            Ok(data) => data,
            Err(_) => return false,
        };
        if data.first().and_then(Value::as_str) != Some("sendNode") || data.len() < 2 {
            return false;
        }
        let mut argument = data.swap_remove(1);
        put_bytes(&mut argument, event.attachments);
        if self.queue.try_send(argument.to_string().into()).is_err() {
            self.metrics.refuse(&self.component, "forward_full");
        }
        true
    }
}

/// Puts bytes where their placeholders are, in the form in which Baileys reads and writes them as JSON.
fn put_bytes(value: &mut Value, attachments: &[Bytes]) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(|it| put_bytes(it, attachments)),
        Value::Object(members) => {
            let number = members.get("num").and_then(Value::as_u64);
            let is_placeholder = members.get("_placeholder") == Some(&Value::Bool(true));
            let bytes = number
                .and_then(|number| attachments.get(usize::try_from(number).ok()?))
                .filter(|_| is_placeholder);
            if let Some(bytes) = bytes {
                *value = json!({"type": "Buffer", "data": STANDARD.encode(bytes)});
                return;
            }
            members
                .values_mut()
                .for_each(|it| put_bytes(it, attachments));
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_stand_where_their_placeholders_were() {
        let mut value = json!({"a": [{"_placeholder": true, "num": 0}], "b": {"num": 0}});
        put_bytes(&mut value, &[Bytes::from_static(&[1, 2])]);
        let bytes = json!({"type": "Buffer", "data": "AQI="});
        assert_eq!(value, json!({"a": [bytes], "b": {"num": 0}}));
    }

    #[test]
    fn only_plain_http_can_be_forwarded_to() {
        assert!(Forward::check("http://127.0.0.1:9/x").is_ok());
        for url in ["https://h/", "h", "/path", ""] {
            assert!(Forward::check(url).is_err(), "{url}");
        }
    }
}
