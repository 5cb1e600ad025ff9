//! Where events go, and what answers do to them.

use std::time::Duration;

use evows_core::config::Settings;
use evows_core::plugin::{Lifecycle, SinkErrorKind, SinkPlugin};
use serde_json::json;

use super::super::{Config, Webhook};
use super::rig::{LOCAL, Rig, event};
use crate::client::server::{OK, Reply, Server};

const GLOBAL: &str = "url = \"http://localhost/all\"\n";

#[tokio::test]
async fn an_event_goes_where_it_is_wanted() {
    let rig = Rig::new("").await;
    assert_eq!(rig.destinations("call", "ana"), [""; 0]);
    let url = "http://localhost/own";
    let set = |enabled: bool, url: &str, events: &[&str]| json!({"enabled": enabled, "url": url, "events": events});
    for (setting, name, wanted) in [
        (set(true, url, &["CALL"]), "call", true),
        (set(true, url, &["CALL"]), "messages.upsert", false),
        (set(true, url, &["GROUP_UPDATE"]), "groups.update", true),
        (set(true, url, &[]), "status.instance", true),
        (set(true, url, &[]), "CB:call", false),
        (set(false, url, &["CALL"]), "call", false),
        (set(true, "HTTP://localhost", &["CALL"]), "call", false),
        (set(true, "ftp://localhost", &["CALL"]), "call", false),
        (set(true, "", &["CALL"]), "call", false),
    ] {
        rig.set("ana", setting.clone()).await;
        let found = rig.destinations(name, "ana");
        let expected: &[&str] = if wanted { &["instance/ana"] } else { &[] };
        assert_eq!(found, expected, "{name} {setting}");
    }
    assert_eq!(rig.destinations("call", "bob"), [""; 0]);

    let both = Rig::new(&format!("{GLOBAL}events = [\"CALL\"]\n")).await;
    both.enable("ana", url).await;
    assert_eq!(both.destinations("call", "ana"), ["instance/ana", "global"]);
    assert_eq!(both.destinations("call", "bob"), ["global"]);
    assert_eq!(both.destinations("chats.set", "ana"), ["instance/ana"]);

    let alone = Rig::new(&format!("{GLOBAL}instances = false\n")).await;
    alone.enable("ana", url).await;
    assert_eq!(alone.destinations("chats.set", "ana"), ["global"]);
}

#[tokio::test]
async fn evolutions_variables_are_enough() {
    let variables = [
        ("WEBHOOK_GLOBAL_ENABLED", "true"),
        ("WEBHOOK_GLOBAL_URL", "http://localhost"),
        ("WEBHOOK_EVENTS_CALL", "true"),
        ("WEBHOOK_EVENTS_CHATS_SET", "false"),
    ];
    let rig = Rig::with("", &variables).await;
    assert_eq!(rig.destinations("call", "ana"), ["global"]);
    assert_eq!(rig.destinations("chats.set", "ana"), [""; 0]);
    assert_eq!(rig.destinations("chats.update", "ana"), [""; 0]);
    // What Evolution would not post to is no endpoint.
    let odd = [variables[0], ("WEBHOOK_GLOBAL_URL", "localhost:3000")];
    let rig = Rig::with("", &odd).await;
    assert_eq!(rig.destinations("call", "ana"), [""; 0]);
}

#[tokio::test]
async fn an_answer_decides_what_happens() {
    let server = Server::new(|got| {
        Some(match got.target() {
            "/busy" => Reply("429 Too Many Requests\r\nRetry-After: 7", "later"),
            "/wrong" => Reply("422 Unprocessable Entity", "no such\nfield"),
            "/moved" => Reply("301 Moved Permanently\r\nLocation: /ok", ""),
            "/broken" => Reply("500 Internal Server Error", ""),
            _ => OK,
        })
    })
    .await;
    let rig = Rig::new(LOCAL).await;
    let retry_after = Some(Duration::from_secs(7));
    let again = SinkErrorKind::Transient { retry_after: None };
    for (path, kind, text) in [
        (
            "/busy",
            SinkErrorKind::Overloaded { retry_after },
            "it answered 429 Too Many Requests: later",
        ),
        (
            "/wrong",
            SinkErrorKind::Permanent,
            "it answered 422 Unprocessable Entity: no such field",
        ),
        (
            "/moved",
            again,
            "it answered 301 Moved Permanently, and redirects are not followed",
        ),
        ("/broken", again, "it answered 500 Internal Server Error"),
    ] {
        rig.enable("ana", &server.url(path)).await;
        let error = rig.fails("instance/ana").await;
        assert_eq!(error.kind, kind, "{path}");
        let place = format!("http://{}: {text}", server.address);
        assert_eq!(error.to_string(), place);
    }
}

#[tokio::test]
async fn nobody_there_is_an_overload() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let rig = Rig::new(LOCAL).await;
    rig.enable("ana", &format!("http://{address}/s3cret")).await;
    let error = rig.fails("instance/ana").await;
    let slower = SinkErrorKind::Overloaded { retry_after: None };
    assert_eq!(error.kind, slower);
    let text = error.to_string();
    assert!(text.starts_with(&format!("http://{address}: no connection: ")));
    assert!(!text.contains("s3cret"), "{text}");
}

#[tokio::test]
async fn a_webhook_that_is_gone_stays_off_over_a_restart_until_it_is_set() {
    let mut server = Server::new(|_| Some(Reply("410 Gone", ""))).await;
    let folder = tempfile::tempdir().unwrap();
    let rig = Rig::over(folder.path(), LOCAL, &[]).await;
    rig.enable("ana", &server.url("")).await;
    assert_eq!(rig.destinations("call", "ana"), ["instance/ana"]);
    assert_eq!(
        rig.fails("instance/ana").await.kind,
        SinkErrorKind::Permanent
    );
    assert_eq!(rig.destinations("call", "ana"), [""; 0]);
    let row = rig.find("ana").await;
    assert_eq!(
        (&row["enabled"], &row["url"]),
        (&json!(false), &json!(server.url("")))
    );
    // What was on its way already is not posted.
    let error = rig.fails("instance/ana").await;
    assert_eq!(
        error.to_string(),
        "the endpoint `instance/ana` is switched off"
    );
    assert_eq!(server.left(), 1);
    rig.lifecycle.stop().await.unwrap();

    let rig = Rig::over(folder.path(), LOCAL, &[]).await;
    assert_eq!(rig.find("ana").await, row);
    assert_eq!(rig.destinations("call", "ana"), [""; 0]);
    rig.enable("ana", &server.url("")).await;
    assert_eq!(rig.destinations("call", "ana"), ["instance/ana"]);
}

#[tokio::test]
async fn a_webhook_that_was_set_meanwhile_is_not_switched_off() {
    let rig = Rig::new(LOCAL).await;
    rig.enable("ana", "http://localhost/old").await;
    let (_, page) = rig
        .sink
        .book
        .as_ref()
        .unwrap()
        .find("instance/ana")
        .unwrap();
    rig.enable("ana", "http://localhost/new").await;
    assert!(!rig.lifecycle.switch_off("ana", &page.set).await.unwrap());
    assert_eq!(rig.find("ana").await["enabled"], true);
    let (_, page) = rig
        .sink
        .book
        .as_ref()
        .unwrap()
        .find("instance/ana")
        .unwrap();
    assert!(rig.lifecycle.switch_off("ana", &page.set).await.unwrap());
}

#[tokio::test]
async fn a_global_endpoint_that_is_gone_is_off_until_the_next_start() {
    let mut server = Server::new(|_| Some(Reply("410 Gone", ""))).await;
    let config = format!("url = \"{}\"\n", server.url(""));
    let rig = Rig::new(&config).await;
    assert_eq!(rig.destinations("call", "ana"), ["global"]);
    assert_eq!(rig.fails("global").await.kind, SinkErrorKind::Permanent);
    assert_eq!(rig.destinations("call", "ana"), [""; 0]);
    rig.fails("global").await;
    assert_eq!(server.left(), 1);
    assert_eq!(
        Rig::new(&config).await.destinations("call", "ana"),
        ["global"]
    );
}

#[tokio::test]
async fn what_cannot_be_sent_fails_and_says_why() {
    let rig = Rig::new(LOCAL).await;
    for (url, headers, text) in [
        ("http://", json!({}), "the URL is none"),
        ("http://bücher.example", json!({}), "the URL is none"),
        ("http://me@localhost", json!({}), "has a user in it"),
        (
            "http://localhost",
            json!({"a b": "c"}),
            "\"a b\" cannot be sent",
        ),
        (
            "http://localhost",
            json!({"a": "b\r\nc: d"}),
            "\"a\" cannot be sent",
        ),
        (
            "http://localhost",
            json!({"Content-Length": "1"}),
            "\"Content-Length\"",
        ),
        (
            "http://localhost",
            json!({"webhook_secret": "x"}),
            "holds no secret",
        ),
    ] {
        let set = json!({"enabled": true, "url": url, "headers": headers});
        rig.set("ana", set).await;
        assert_eq!(rig.destinations("call", "ana"), ["instance/ana"]);
        let error = rig.fails("instance/ana").await;
        assert_eq!(error.kind, SinkErrorKind::Permanent);
        assert!(error.to_string().contains(text), "{error}");
    }
}

#[tokio::test]
async fn the_part_of_a_batch_that_failed_is_told() {
    use evows_core::plugin::{Batch, Destination, FailedEvents, Sink};

    let mut server = Server::new(|got| {
        Some(match got.json()["event"].as_str().unwrap() {
            "chats.set" => Reply("400 Bad Request", ""),
            "chats.update" => Reply("503 Service Unavailable", ""),
            _ => OK,
        })
    })
    .await;
    let rig = Rig::new(&format!("url = \"{}\"\n", server.url(""))).await;
    let names = ["call", "chats.set", "call", "chats.update", "call"];
    let events = names.map(|name| event(name, "ana"));
    let destination = Destination::named("global");
    let error = rig.sink.send(Batch::new(&destination, &events)).await;
    let error = error.unwrap_err();
    assert_eq!(error.failed, FailedEvents::At(vec![1, 3, 4]));
    assert!(matches!(error.kind, SinkErrorKind::Overloaded { .. }));
    assert_eq!(server.left(), 4);
}

#[test]
fn a_check_says_where_what_is_wrong() {
    let check = |text: &str| {
        let config: Config = Settings::from_text(text).read().unwrap();
        let problems = Webhook::check(&config).into_iter();
        let told = problems.map(|it| (format!("{:?}", it.place), it.message));
        told.collect::<Vec<_>>()
    };
    for (text, key, part) in [
        ("url = \"localhost:3000\"", "url", "nothing can be posted"),
        ("headers = { \"a b\" = \"c\" }", "a b", "cannot be sent"),
        ("secret = \"hush\"", "secret", "whsec_"),
        ("secrets = [\"hush\"]", "secrets", "whsec_"),
        ("non_retryable = [200]", "non_retryable", "200"),
        ("events = [\"message.upsert\"]", "events", "message.upsert"),
    ] {
        let problems = check(text);
        assert_eq!(problems.len(), 1, "{problems:?}");
        assert!(problems[0].0.contains(key), "{problems:?}");
        assert!(problems[0].1.contains(part), "{problems:?}");
    }
    assert!(!check("secret = \"hush\"")[0].1.contains("hush"));
}
