//! What the filter does with events.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use evows_core::plugin::Environment;
use evows_core::testing::{self, AsyncFilterHarness};
use futures_util::StreamExt;
use http_body_util::Full;
use hyper::{HeaderMap, Request, StatusCode};
use serde_json::json;
use tokio::time::Instant;

use super::lookup::{Lookup, Unanswered};
use super::*;
use crate::client::server::{Reply, Server};
use crate::client::{Answer, Exchange, Failure, Take, Trust};

const EVENT: &str = r#"{"event":"messages.upsert", "instance":"shop","data":{"key":{"remoteJid":"55 11/é"},"n":7}}"#;

fn bench(keys: &str) -> AsyncFilterHarness<Enrich> {
    AsyncFilterHarness::from_toml(keys)
}

async fn emitted(bench: &mut AsyncFilterHarness<Enrich>) -> String {
    let emitted = bench.send_json(EVENT).await.emitted();
    assert_eq!(emitted.len(), 1);
    String::from_utf8(emitted[0].envelope().to_vec()).unwrap()
}

#[tokio::test]
async fn what_a_table_has_is_put_at_the_target() {
    let put = r#"{"event":"messages.upsert","instance":"shop","data":{"key":{"remoteJid":"55 11/é"},"n":7,"x":{"y":{"since":"2026-01-02"}}}}"#;
    for key in ["instance", "data.n", "data.key.remoteJid", "event"] {
        let mut bench = bench(&format!(
            "key = '{key}'\ntarget = 'data.x.y'\n[table]\nshop.since = 2026-01-02\n7.since = 2026-01-02\n'55 11/é'.since = 2026-01-02\n'messages.upsert'.since = 2026-01-02"
        ));
        assert_eq!(emitted(&mut bench).await, put, "{key}");
    }
}

#[tokio::test]
async fn a_file_is_read_at_the_start() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("cities.csv");
    std::fs::write(&path, "instance,city\nshop,Recife\n").unwrap();
    let file = path.display();
    let mut bench = bench(&format!(
        "key = 'instance'\ntarget = 'data'\nfile = '{file}'\nfile_key = 'instance'"
    ));
    let expected = r#"{"event":"messages.upsert","instance":"shop","data":{"instance":"shop","city":"Recife"}}"#;
    assert_eq!(emitted(&mut bench).await, expected);
    std::fs::remove_file(&path).unwrap();
    let bench = AsyncFilterHarness::<Enrich>::from_toml(&format!(
        "key = 'instance'\ntarget = 'data'\nfile = '{file}'"
    ));
    let error = bench.filter().start().await.unwrap_err().to_string();
    assert!(error.contains("cities.csv"), "{error}");
}

#[tokio::test]
async fn what_is_not_there_ends_as_on_missing_says() {
    for (key, reason) in [
        ("data.none", "no_key"),
        ("data.key", "no_key"),
        ("instance", "not_found"),
    ] {
        let keys = format!("key = '{key}'\ntarget = 'data.x'\ntable = {{ other = 1 }}");
        assert_eq!(emitted(&mut bench(&keys)).await, EVENT, "{key}");
        let mut discards = bench(&format!("on_missing = 'discard'\n{keys}"));
        assert_eq!(discards.send_json(EVENT).await.discarded()[0].1, reason);
        let mut fails = bench(&format!("on_missing = 'fail'\n{keys}"));
        assert_eq!(fails.send_json(EVENT).await.failed()[0].1, reason);
    }
    let blocked = "key = 'instance'\ntarget = 'data.n.x'\ntable = { shop = 1 }";
    assert_eq!(emitted(&mut bench(blocked)).await, EVENT);
    let same = "key = 'instance'\ntarget = 'data.n'\ntable = { shop = 7 }";
    assert_eq!(emitted(&mut bench(same)).await, EVENT, "as received");
}

#[tokio::test]
async fn a_service_is_asked_for_the_encoded_key() {
    let mut server = Server::new(|got| {
        Some(match got.target() {
            "/c/55%2011%2F%C3%A9?a=1" => Reply("200 OK", r#"{"contact":{"name":"Ana"}}"#),
            _ => Reply("404 Not Found", "no"),
        })
    })
    .await;
    let url = server.url("/c/{key}?a=1");
    let mut bench = bench(&format!(
        "key = 'data.key.remoteJid'\ntarget = 'data.name'\n[http]\nurl = '{url}'\npick = 'contact.name'\nheaders.Authorization = 'Bearer x'"
    ));
    let expected = EVENT
        .replace(", ", ",")
        .replace(r#""n":7"#, r#""n":7,"name":"Ana""#);
    assert_eq!(emitted(&mut bench).await, expected);
    assert_eq!(emitted(&mut bench).await, expected, "remembered");
    let got = server.next().await;
    assert!(got.head.starts_with("GET "), "{}", got.head);
    assert_eq!(got.header("authorization"), Some("Bearer x"));
    assert_eq!(got.header("accept"), Some("application/json"));
    let other = testing::event(&EVENT.replace("55 11/é", "x"));
    let passed = bench.send(other.clone()).await.emitted();
    assert_eq!(passed[0].envelope(), other.envelope());
    server.next().await;
    assert_eq!(server.left(), 0);
}

#[tokio::test]
async fn errors_end_as_on_error_says() {
    for (reply, part) in [
        (Some(Reply("500 No", "")), "lookup_failed"),
        (
            Some(Reply("302 Found\r\nlocation: /x", "")),
            "lookup_failed",
        ),
        (Some(Reply("200 OK", "not json")), "lookup_failed"),
        (None, "timeout"),
    ] {
        let server = Server::new(move |_| reply.clone()).await;
        let keys = format!(
            "key = 'instance'\ntarget = 'data.x'\ntimeout = '300ms'\nhttp.url = '{}'",
            server.url("/{key}")
        );
        let mut fails = bench(&keys);
        assert_eq!(fails.send_json(EVENT).await.failed()[0].1, part);
        let mut passes = bench(&format!("on_error = 'pass'\n{keys}"));
        assert_eq!(emitted(&mut passes).await, EVENT);
    }
    let nobody = "key = 'instance'\ntarget = 'data.x'\nhttp.url = 'http://127.0.0.1:1/{key}'";
    assert_eq!(
        bench(nobody).send_json(EVENT).await.failed()[0].1,
        "lookup_failed"
    );
}

#[tokio::test]
async fn keys_that_might_lead_elsewhere_are_not_asked_for_in_a_path() {
    let mut server = Server::new(|_| Some(Reply("200 OK", "1"))).await;
    let odd = [
        ".", "..", "/", "\\", "a/", "/a", "a//b", "a/../b", "a\\..\\b", "./a", "..",
    ];
    for (path, key, is_asked) in odd
        .map(|key| ("/c/{key}", key, false))
        .into_iter()
        .chain([
            ("/c/.{key}", ".", false),
            ("/c/{key}{key}", ".", false),
            ("/c/{key}/x", "..", false),
            ("/c?id={key}", "", false),
            ("/c/x{key}", "..", true),
            ("/c/{key}", "...", true),
            ("/c/{key}", "a/b", true),
            ("/c/{key}", "%2e%2e", true),
            ("/c/{key}", "a?b#c;d", true),
        ])
        .chain(odd.map(|key| ("/c?id={key}", key, true)))
    {
        let url = server.url(path);
        let keys = format!(
            "key = 'data.n'\ntarget = 'data.x'\non_missing = 'discard'\nhttp.url = '{url}'"
        );
        let event = json!({"event": "e", "instance": "i", "data": {"n": key}});
        let mut bench = bench(&keys);
        bench.send_json(&event.to_string()).await;
        if is_asked {
            assert_eq!(
                bench.emitted()[0].document()["data"]["x"],
                1,
                "{path} {key}"
            );
            let got = server.next().await;
            let target = got.target().to_owned();
            let parts = target.split(['/', '?']).count();
            assert_eq!(parts, path.split(['/', '?']).count(), "{target}");
            assert!(!target.contains(['#', ';', '\\']), "{target}");
        } else {
            assert_eq!(bench.discarded()[0].1, "not_found", "{path} {key}");
        }
    }
    assert_eq!(server.left(), 0);
}

#[tokio::test]
async fn a_service_that_hangs_holds_up_few_events() {
    let server = Server::new(|_| None).await;
    let mut bench = bench(&format!(
        "key = 'data.n'\ntarget = 'data.x'\ntimeout = '50ms'\nhttp.url = '{}'",
        server.url("/{key}")
    ));
    for n in 0..100 {
        let event = json!({"event": "e", "instance": "i", "data": {"n": n}});
        let failed = bench.send_json(&event.to_string()).await.failed();
        let reason = if n < 5 { "timeout" } else { "left_alone" };
        assert_eq!(failed[0].1, reason, "{n}");
    }
}

/// Answers after a second; what begins with `5` with an error, with `4` with nothing, and with `9` never.
#[derive(Default)]
struct Slow(AtomicUsize);

#[async_trait]
impl Exchange for Slow {
    async fn exchange(
        &self,
        request: Request<Full<Bytes>>,
        _: Trust,
        _: Take,
    ) -> Result<Answer, Failure> {
        self.0.fetch_add(1, Ordering::Relaxed);
        tokio::time::sleep(Duration::from_secs(1)).await;
        let path = request.uri().path().to_owned();
        if path.starts_with("/9") {
            std::future::pending::<()>().await;
        }
        let status = match path.as_bytes()[1] {
            b'4' => StatusCode::NOT_FOUND,
            b'5' => StatusCode::BAD_GATEWAY,
            _ => StatusCode::OK,
        };
        Ok(Answer {
            status,
            headers: HeaderMap::new(),
            body: json!({ "path": path, "fill": "x".repeat(900) })
                .to_string()
                .into(),
            is_whole: true,
        })
    }
}

/// How long a lookup may take.
const LIMIT: Duration = Duration::from_secs(5);

fn lookup(keys: &str) -> (Lookup, Arc<Slow>) {
    let text = format!("url = 'http://h/{{key}}'\n{keys}");
    let config = evows_core::config::Settings::from_text(&text)
        .read()
        .unwrap();
    let asked = Arc::new(Slow::default());
    let what = What {
        failed: "fails",
        works: "works",
    };
    let outage = Outage::new("test", what, LIMIT);
    let lookup = Lookup::new(config, &Environment::default(), outage).unwrap();
    (lookup.through(Arc::clone(&asked) as Arc<_>), asked)
}

#[tokio::test(start_paused = true)]
async fn answers_are_remembered_for_a_while_and_errors_are_not() {
    let (lookup, asked) = lookup("ttl = '1m'\nmissing_ttl = '10s'");
    let count = || asked.0.load(Ordering::Relaxed);
    for (key, wait, expected) in [
        ("a", 0, 1),
        ("a", 59, 1),
        ("a", 2, 2),
        ("4", 0, 3),
        ("4", 8, 3),
        ("4", 3, 4),
        ("5", 0, 5),
        ("5", 1, 6),
    ] {
        tokio::time::advance(Duration::from_secs(wait)).await;
        let found = lookup.find(key).await;
        assert_eq!(found.is_err(), key == "5");
        assert_eq!(found.is_ok_and(|it| it.is_some()), key == "a");
        assert_eq!(count(), expected, "{key} after {wait} s");
    }
}

#[tokio::test(start_paused = true)]
async fn only_a_lookup_says_that_lookups_work_again() {
    let (lookup, _) = lookup("ttl = '1m'");
    assert!(lookup.find("a").await.is_ok());
    assert!(lookup.find("5").await.is_err());
    assert!(lookup.outage().is_failing());
    assert!(lookup.find("a").await.is_ok(), "remembered");
    assert!(lookup.find("..").await.is_ok(), "never asked for");
    assert!(lookup.outage().is_failing());
    assert!(lookup.find("4").await.is_ok());
    assert!(!lookup.outage().is_failing(), "there is nothing, it said");
}

#[tokio::test(start_paused = true)]
async fn a_service_that_does_not_answer_is_left_alone_and_tried_by_one_event() {
    let (lookup, asked) = lookup("ttl = '1h'");
    assert!(lookup.find("a").await.is_ok());
    // One slow key that many events ask for is no reason to leave it alone.
    let calls = (0..8).map(|_| tokio::time::timeout(LIMIT, lookup.find("9")));
    futures_util::future::join_all(calls).await;
    assert!(lookup.find("b").await.is_ok());
    for n in 0..5 {
        let key = format!("9{n}");
        let call = tokio::time::timeout(LIMIT, lookup.find(&key)).await;
        assert!(call.is_err(), "{n}");
    }
    let begun = Instant::now();
    let count = || asked.0.load(Ordering::Relaxed);
    let before = count();
    assert_eq!(lookup.find("c").await, Err(Unanswered::LeftAlone));
    assert!(lookup.find("a").await.is_ok(), "remembered");
    assert_eq!((begun.elapsed(), count()), (Duration::ZERO, before));
    tokio::time::advance(Duration::from_secs(1)).await;
    let keys = ["c", "d", "e"].map(|key| lookup.find(key));
    let found = futures_util::future::join_all(keys).await;
    let alone = found.iter().filter(|it| **it == Err(Unanswered::LeftAlone));
    assert_eq!((alone.count(), count()), (2, before + 1));
    assert!(lookup.find("d").await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_service_that_hangs_holds_up_what_is_under_way_no_longer_than_once() {
    let (lookup, _) = lookup("");
    let begun = Instant::now();
    // As many at once as the filter has, and as soon as one has ended, another one.
    let keys = futures_util::stream::iter(0..1000).map(|n| {
        let lookup = &lookup;
        async move { tokio::time::timeout(LIMIT, lookup.find(&format!("9{n}"))).await }
    });
    let ended: Vec<_> = keys.buffered(8).collect().await;
    let alone = ended.iter().filter(|it| it.is_ok()).count();
    assert_eq!((alone, begun.elapsed()), (995, LIMIT));
}

#[tokio::test(start_paused = true)]
async fn calls_at_once_share_a_request_and_its_error() {
    let (lookup, asked) = lookup("");
    for key in ["a", "5"] {
        let calls = futures_util::future::join_all((0..10).map(|_| lookup.find(key)));
        let found = calls.await;
        assert!(found.iter().all(|it| it.is_err() == (key == "5")));
    }
    assert_eq!(asked.0.load(Ordering::Relaxed), 2);
    // The one that asks is dropped, and another one asks.
    let first = tokio::time::timeout(Duration::from_millis(500), lookup.find("b"));
    let (first, second) = tokio::join!(first, lookup.find("b"));
    assert!(first.is_err() && second.unwrap().is_some());
    assert_eq!(asked.0.load(Ordering::Relaxed), 4);
}

#[tokio::test(start_paused = true)]
async fn what_is_remembered_is_bounded() {
    let (lookup, _) = lookup("cache = '64KiB'");
    let calls = (0..1000).map(|n| {
        let lookup = &lookup;
        async move { lookup.find(&format!("k{n}")).await }
    });
    for found in futures_util::future::join_all(calls).await {
        assert!(found.unwrap().is_some());
    }
    let weight = lookup.weight();
    assert!((32 * 1024..=64 * 1024).contains(&weight), "{weight}");
}

#[test]
fn says_what_is_wrong() {
    let both = "key = 'instance'\ntarget = 'data.x'\n";
    for (keys, part) in [
        ("key = 'data.*'\ntarget = 'x'\ntable = {}", "has a `*`"),
        (
            "key = 'instance'\ntarget = 'event'\ntable = {}",
            "nothing can be put",
        ),
        (
            "key = 'a'\ntarget = 'a.*'\ntable = {}",
            "nothing can be put",
        ),
        (both, "are missing"),
        (&format!("{both}table = {{}}\nfile = 'a.csv'"), "both set"),
        (&format!("{both}file = 'a.txt'"), "neither"),
        (
            &format!("{both}table = {{}}\nfile_key = 'a'"),
            "which is missing",
        ),
        (&format!("{both}table = {{}}\ntimeout = '0s'"), "no time"),
        (
            &format!("{both}http.url = 'ftp://h/{{key}}'"),
            "URL is none",
        ),
        (
            &format!("{both}http.url = 'http:///{{key}}'"),
            "URL is none",
        ),
        (&format!("{both}http.url = 'http://h/key'"), "no `{key}`"),
        (&format!("{both}http.url = 'http://h/a/../{{key}}'"), "`..`"),
        (
            &format!("{both}http.url = 'http://h/#{{key}}'"),
            "no `{key}`",
        ),
        (
            &format!("{both}http.url = 'http://{{key}}.h/{{key}}'"),
            "in its host",
        ),
        (
            &format!("{both}http.url = 'http://u:p@h/{{key}}'"),
            "a user in it",
        ),
        (
            &format!("{both}http = {{ url = 'http://h/{{key}}', headers = {{ Host = 'x' }} }}"),
            "cannot be sent",
        ),
    ] {
        let problems = AsyncFilterHarness::<Enrich>::problems(keys);
        assert!(problems.contains(part), "{keys}: {problems}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_remembered_is_taken_over_by_who_asks_for_the_same() {
    let (before, asked) = lookup("ttl = '1h'");
    assert!(before.find("a").await.is_ok());
    tokio::time::advance(Duration::from_mins(2)).await;
    for (keys, more) in [
        ("ttl = '3m'", 0),
        // It is too old for this one.
        ("ttl = '1m'", 1),
        ("headers = { X-Shop = 'a' }", 1),
    ] {
        let (mut after, asked_after) = lookup(keys);
        after.take_over(&before);
        assert!(after.find("a").await.is_ok());
        assert_eq!(asked_after.0.load(Ordering::Relaxed), more, "{keys}");
    }
    assert_eq!(asked.0.load(Ordering::Relaxed), 1);
}
