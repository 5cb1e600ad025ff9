//! `GET /history` and `GET /history/<instance>`: what channels retain, in pages.

use std::sync::Arc;

use axum::Router;
use axum::extract::{Path, RawQuery, State};
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use serde_json::json;

use super::{error_response, key, parameter};
use crate::access::Access;
use crate::hub::{Channel, ChannelName, Gap, Hub, Since};

/// Where it is.
pub(crate) const PATH: &str = "/history";
/// Entries of a page, unless the request says otherwise.
const USUAL: usize = 100;
/// Entries of a page at the most.
const MOST: usize = 1000;
/// Envelopes' bytes of a page, more or less.
const MOST_BYTES: usize = 8 * 1024 * 1024;

/// What answers.
#[derive(Clone)]
struct History {
    hub: Arc<Hub>,
    access: Arc<Access>,
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
        .unwrap_or_else(|refused| refused)
}

fn unknown(name: &str) -> Response {
    let name = name.trim_start_matches('/');
    let message = format!("The \"{name}\" instance has no channel");
    error_response(StatusCode::NOT_FOUND, vec![message])
}

// === impl History ===

impl History {
    #[expect(
        clippy::result_large_err,
        reason = "the error is the answer, made once for each request"
    )]
    fn answer(
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
        Ok(page(&channel, &wanted))
    }
}

/// A page: each envelope byte for byte as clients get it.
fn page(channel: &Channel, wanted: &Wanted) -> Response {
    let resume = channel.resume(&wanted.since);
    let (entries, gap) = channel.page(resume.from.offset, wanted.limit);
    // What was evicted between the two looks is missing, too.
    let from = gap.map_or(resume.from, |gap| gap.through);
    let gap = resume.gap.or(gap);
    let mut next = from;
    let mut body = format!(
        r#"{{"from":"{}","head":"{}","gap":{},"entries":["#,
        from,
        resume.head,
        json!(gap.map(|gap| Gap {
            through: from,
            ..gap
        })),
    )
    .into_bytes();
    for (at, entry) in entries.iter().enumerate() {
        if at > 0 && body.len() > MOST_BYTES {
            break;
        }
        let comma = if at > 0 { "," } else { "" };
        let head = format!(r#"{comma}{{"position":"{}","event":"#, entry.position);
        body.extend_from_slice(head.as_bytes());
        body.extend_from_slice(entry.event.envelope());
        body.push(b'}');
        next = entry.position;
    }
    body.extend_from_slice(format!(r#"],"next":"{next}"}}"#).as_bytes());
    ([(CONTENT_TYPE, "application/json")], body).into_response()
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
