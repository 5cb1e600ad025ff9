//! `GET /history` and `GET /history/<instance>`: what channels retain, in pages.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{Path, RawQuery, State};
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use serde_json::json;
use tokio::time::timeout;

use super::{error_response, key, parameter};
use crate::access::Access;
use crate::hub::{Channel, ChannelName, Entry, Gap, Hub, Position, Resume, Since, Start};

/// Where it is.
pub(crate) const PATH: &str = "/history";
/// Entries of a page, unless the request says otherwise.
const USUAL: usize = 100;
/// Entries of a page at the most.
const MOST: usize = 1000;
/// Envelopes' bytes of a page, more or less.
const MOST_BYTES: usize = 8 * 1024 * 1024;
/// Entries that are looked at together.
const AT_ONCE: usize = 64;
/// Events of all channels that are looked at for a page of one. A page may so be empty, and say where to read on.
const MOST_LOOKED: u64 = 100_000;
/// Time for reading the history.
const PATIENCE: Duration = Duration::from_secs(10);

/// What answers.
#[derive(Clone)]
struct History {
    hub: Arc<Hub>,
    access: Arc<Access>,
}

/// What a page has.
struct Found {
    from: Position,
    head: Position,
    gap: Option<Gap>,
    entries: Vec<Arc<Entry>>,
    next: Position,
}

/// What a request asks for.
struct Wanted {
    since: Since,
    limit: usize,
}

/// The routes of a process that has channels.
pub(crate) fn router(hub: &Arc<Hub>, access: &Arc<Access>) -> Router {
    let history = History {
        hub: Arc::clone(hub),
        access: Arc::clone(access),
    };
    Router::new()
        .route(PATH, get(of_all))
        .route("/history/{instance}", get(of_instance))
        .with_state(history)
}

async fn of_all(
    State(history): State<History>,
    headers: HeaderMap,
    RawQuery(query): RawQuery,
) -> Response {
    let query = query.unwrap_or_default();
    history
        .answer(&ChannelName::root(), &headers, &query)
        .await
        .unwrap_or_else(|refused| refused)
}

async fn of_instance(
    State(history): State<History>,
    Path(instance): Path<String>,
    headers: HeaderMap,
    RawQuery(query): RawQuery,
) -> Response {
    let query = query.unwrap_or_default();
    let Ok(name) = ChannelName::of_instance(&instance) else {
        return unknown(&instance);
    };
    history
        .answer(&name, &headers, &query)
        .await
        .unwrap_or_else(|refused| refused)
}

fn unknown(name: &str) -> Response {
    let name = name.trim_start_matches('/');
    let message = format!("The \"{name}\" instance has no channel");
    error_response(StatusCode::NOT_FOUND, vec![message])
}

// === impl History ===

impl History {
    async fn answer(
        &self,
        name: &ChannelName,
        headers: &HeaderMap,
        query: &str,
    ) -> Result<Response, Response> {
        let identity = key(query, headers).and_then(|key| self.access.identify(&key));
        let unauthorized = || error_response(StatusCode::UNAUTHORIZED, "Unauthorized");
        let identity = identity.ok_or_else(unauthorized)?;
        if !self.access.may_follow(&identity, name) {
            // To this key, the channels of others do not exist.
            return Err(if name.is_root() {
                unauthorized()
            } else {
                unknown(name.as_str())
            });
        }
        let channel = self.hub.channel(name);
        let channel = channel.ok_or_else(|| unknown(name.as_str()))?;
        let wanted = Wanted::parse(query)
            .map_err(|message| error_response(StatusCode::BAD_REQUEST, vec![message]))?;
        Ok(page(&channel, &wanted).await)
    }
}

/// A page: each envelope byte for byte as clients get it.
async fn page(channel: &Arc<Channel>, wanted: &Wanted) -> Response {
    let Ok(found) = timeout(PATIENCE, Found::look(channel, wanted)).await else {
        let message = "The history cannot be read now: try again later";
        return error_response(StatusCode::SERVICE_UNAVAILABLE, vec![message]);
    };
    let mut body = format!(
        r#"{{"from":"{}","head":"{}","gap":{},"entries":["#,
        found.from,
        found.head,
        json!(found.gap),
    )
    .into_bytes();
    for (at, entry) in found.entries.iter().enumerate() {
        let comma = if at > 0 { "," } else { "" };
        let head = format!(r#"{comma}{{"position":"{}","event":"#, entry.position);
        body.extend_from_slice(head.as_bytes());
        body.extend_from_slice(entry.event.envelope());
        body.push(b'}');
    }
    body.extend_from_slice(format!(r#"],"next":"{}"}}"#, found.next).as_bytes());
    ([(CONTENT_TYPE, "application/json")], body).into_response()
}

// === impl Found ===

impl Found {
    async fn look(channel: &Arc<Channel>, wanted: &Wanted) -> Self {
        let resume = channel.resume(&wanted.since);
        let mut cursor = channel.look(Start::Resume(resume));
        let Resume {
            from, head, gap, ..
        } = resume;
        let mut found = Self {
            from,
            head,
            gap,
            entries: Vec::new(),
            next: from,
        };
        let (mut bytes, mut shown) = (0, Vec::new());
        while cursor.is_behind() && found.entries.len() < wanted.limit {
            cursor.fetched().await;
            let most = (wanted.limit - found.entries.len()).min(AT_ONCE);
            let ahead = cursor.peek(most, |entry| shown.push(Arc::clone(entry)));
            if let Some(missing) = ahead.gap {
                if !found.entries.is_empty() {
                    // The next page begins with it.
                    break;
                }
                found.from = missing.through;
                found.gap.get_or_insert(missing).through = missing.through;
            }
            cursor.pass_all(&ahead);
            for entry in shown.drain(..) {
                if bytes > MOST_BYTES {
                    return found;
                }
                bytes += entry.event.envelope().len();
                found.next = entry.position;
                found.entries.push(entry);
            }
            found.next = cursor.position();
            let looked = cursor.offset().get() - from.offset.get();
            if looked > MOST_LOOKED {
                break;
            }
        }
        found
    }
}

// === impl Wanted ===

impl Wanted {
    fn parse(query: &str) -> Result<Self, String> {
        let since = match parameter(query, "since") {
            Some(since) => since.parse().map_err(|error| format!("{error}"))?,
            None => Since::Earliest,
        };
        let limit = match parameter(query, "limit") {
            Some(text) => {
                let limit = text.parse().ok().filter(|limit| (1..=MOST).contains(limit));
                limit.ok_or_else(|| {
                    format!("`limit` is {text:?}: write a number from 1 to {MOST}")
                })?
            }
            None => USUAL,
        };
        Ok(Self { since, limit })
    }
}

#[cfg(test)]
mod tests {
    use axum::body::{Body, to_bytes};
    use axum::http::Request;
    use serde_json::Value;
    use tower::ServiceExt as _;

    use super::*;
    use crate::access::{Compat, Secret};
    use crate::hub::Retention;
    use crate::testing::event;

    const KEY: &str = "global";

    fn hub(events: usize) -> Arc<Hub> {
        let hub = Arc::new(Hub::new(Retention {
            events,
            ..Retention::default()
        }));
        let names = [
            ChannelName::root(),
            ChannelName::of_instance("a b").unwrap(),
        ];
        for n in 0..5 {
            let event = event(&format!(r#"{{"event":"call","instance":"a b", "n":{n}}}"#));
            hub.publish([(&event, names.as_slice())]);
        }
        hub
    }

    async fn ask(hub: &Arc<Hub>, path: &str) -> (StatusCode, Value) {
        let access = Arc::new(Access::new(Compat::Strict));
        access.set_global(Secret::new(KEY));
        let request = Request::get(path).header("apikey", KEY);
        let request = request.body(Body::empty()).unwrap();
        let answer = router(hub, &access).oneshot(request).await.unwrap();
        let status = answer.status();
        let body = to_bytes(answer.into_body(), usize::MAX).await.unwrap();
        (status, serde_json::from_slice(&body).unwrap())
    }

    fn numbers(page: &Value) -> Vec<u64> {
        let entries = page["entries"].as_array().unwrap().iter();
        entries
            .map(|it| it["event"]["n"].as_u64().unwrap())
            .collect()
    }

    #[tokio::test]
    async fn pages_follow_one_another() {
        let hub = hub(100);
        let (status, first) = ask(&hub, "/history?limit=2").await;
        assert_eq!((status, numbers(&first)), (StatusCode::OK, vec![0, 1]));
        assert_eq!(first["gap"], Value::Null);
        let next = first["next"].as_str().unwrap();
        let (_, second) = ask(&hub, &format!("/history/a%20b?limit=9&since={next}")).await;
        assert_eq!(numbers(&second), [2, 3, 4]);
        assert_eq!(second["next"], second["head"]);
        let head = second["head"].as_str().unwrap();
        let (_, last) = ask(&hub, &format!("/history?since={head}")).await;
        assert_eq!((numbers(&last), &last["next"]), (vec![], &second["head"]));
    }

    #[tokio::test]
    async fn what_is_gone_is_a_gap() {
        let hub = hub(2);
        let since = format!("{}:1", hub.epoch());
        let (_, page) = ask(&hub, &format!("/history?since={since}")).await;
        assert_eq!(numbers(&page), [3, 4]);
        assert_eq!(page["gap"]["after"], since);
        assert_eq!(page["gap"]["through"], format!("{}:3", hub.epoch()));
    }

    #[tokio::test]
    async fn wrong_requests_are_told_what_to_write() {
        let hub = hub(2);
        for (path, status, message) in [
            ("/history?limit=0", 400, "from 1 to 1000"),
            ("/history?since=x", 400, "earliest"),
            ("/history/nobody", 404, "no channel"),
            ("/history?apikey=bad", 401, "Unauthorized"),
        ] {
            let (code, body) = ask(&hub, path).await;
            assert_eq!(code, status, "{path}");
            assert!(body.to_string().contains(message), "{body}");
        }
    }
}
