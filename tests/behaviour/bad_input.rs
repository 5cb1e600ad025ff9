//! What evows does with what it cannot use: refuses it, says why, and goes on.

use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;

use super::harness::{Connection, Frames, Setup, message};

on_every_engine!(
    bodies_that_are_no_events_are_refused_and_the_connection_stays_usable,
    an_array_with_one_bad_element_delivers_nothing,
    garbage_on_a_websocket_closes_it_and_nothing_else,
    wrong_engine_io_requests_have_their_codes,
);

const JSON: (&str, &str) = ("content-type", "application/json");

async fn bodies_that_are_no_events_are_refused_and_the_connection_stays_usable(engine: &str) {
    let evows = Setup::policy("global").engine(engine).start().await;
    let mut frames = Frames::connect(&evows).await;
    frames.join("/").await;
    let mut connection = Connection::open(evows.address()).await.unwrap();
    let good = message("loja1", "good");
    for (headers, body) in [
        (&[JSON][..], "{"),
        (&[JSON], "not json"),
        (&[JSON], ""),
        (&[JSON], "42"),
        (&[JSON], "null"),
        (&[JSON], "{}"),
        (&[JSON], r#"{"event": 7, "instance": "loja1"}"#),
        (&[JSON], r#"{"event": "messages.upsert"}"#),
        (&[("content-type", "text/plain")], "hello"),
        (&[], ""),
    ] {
        let reply = connection.request("POST", "/webhook", headers, body).await;
        assert!((400..500).contains(&reply.status), "{body:?}: {reply:?}");
        assert!(!reply.body.is_empty(), "{body:?}: no reason given");
        let reply = connection
            .request("POST", "/webhook", &[JSON], &good.to_string())
            .await;
        assert_eq!((reply.status, reply.json()), (200, json!({"accepted": 1})));
        assert_eq!(
            frames.text().await,
            format!(r#"42["messages.upsert",{good}]"#)
        );
    }
}

async fn an_array_with_one_bad_element_delivers_nothing(engine: &str) {
    let evows = Setup::policy("global").engine(engine).start().await;
    let mut frames = Frames::connect(&evows).await;
    frames.join("/").await;
    let array = |elements: &[&Value]| json!(elements).to_string();
    let (first, second) = (message("loja1", "1"), message("loja1", "2"));

    let bad = array(&[&first, &json!({"event": 7}), &second]);
    let reply = evows.request("POST", "/webhook", &[JSON], &bad).await;
    assert!((400..500).contains(&reply.status), "{reply:?}");

    let good = array(&[&second, &first]);
    let reply = evows.request("POST", "/webhook", &[JSON], &good).await;
    assert_eq!((reply.status, reply.json()), (200, json!({"accepted": 2})));
    for event in [second, first] {
        assert_eq!(
            frames.text().await,
            format!(r#"42["messages.upsert",{event}]"#)
        );
    }
}

#[tokio::test]
async fn a_body_over_the_limit_is_refused() {
    let evows = Setup::policy("global")
        .source("max_body = \"4KiB\"")
        .start()
        .await;
    let event = message("loja1", &"x".repeat(8 * 1024)).to_string();
    let reply = evows.request("POST", "/webhook", &[JSON], &event).await;
    assert_eq!(reply.status, 413, "{}", reply.body);
    evows.post(&message("loja1", "small")).await;
}

#[tokio::test]
async fn a_port_in_use_is_named_in_one_line() {
    let evows = Setup::policy("global").start().await;
    let port = evows.address().port().to_string();
    let second = Setup::policy("global")
        .spawn_on(evows.address())
        .ended()
        .await;
    assert!(!second.status.success());
    assert!(second.status.code().is_some(), "ended by a signal");
    let naming = second.stderr.lines().filter(|line| line.contains("in use"));
    let naming: Vec<_> = naming.collect();
    assert_eq!(naming.len(), 1, "{}", second.stderr);
    assert!(naming[0].contains(&port), "{}", second.stderr);
    assert!(!second.stderr.contains("panicked"), "{}", second.stderr);
}

#[tokio::test]
async fn a_store_in_use_is_a_clear_error() {
    let first = Setup::policy("traditional").start().await;
    first.create("loja1").await;
    let second = first.second_on_same_data().ended().await;
    assert!(!second.status.success());
    assert!(second.status.code().is_some(), "ended by a signal");
    assert!(!second.stderr.contains("panicked"), "{}", second.stderr);
    let said = second.stderr.lines().last().unwrap_or_default();
    let (_, said) = said.split_once("ERROR ").expect("an error");
    let (_, said) = said.split_once(": ").expect("where it is from");
    let path = first.data_dir().join("instances.redb");
    let expected = format!(
        "cannot start the lifecycle: the instance registry {} is open in another process: \
         stop that one, or give this one another `server.data_dir`",
        path.display()
    );
    assert_eq!(said, expected);
    first.set("loja1", true, &[]).await;
}

#[tokio::test]
async fn a_generated_key_is_shown_once_by_the_process_that_serves() {
    let setup = Setup::policy("global").keyless().env("RUST_LOG", "error");
    let held = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let data = tempfile::tempdir().unwrap();
    let setup = setup.data_dir(data.path());
    let file = data.path().join("api_key");
    let refused = setup.clone().spawn_on(held.local_addr().unwrap());
    let refused = refused.ended().await;
    assert_eq!(refused.status.code(), Some(1), "{}", refused.stderr);
    assert!(!file.exists(), "a key was made that nobody was told");

    let evows = setup.start().await;
    let key = std::fs::read_to_string(&file).unwrap();
    let said = |key: &str| {
        format!(
            "evows: no API key was configured: made {key} and stored it in {}\n",
            file.display()
        )
    };
    assert_eq!(evows.stderr().text(), said(key.trim()));
    let again = evows.restart().await;
    assert_eq!(again.stderr().text(), "");
}

#[tokio::test]
async fn a_broken_configuration_ends_with_78() {
    for line in ["listen = ", "no_such_key = true"] {
        let ended = Setup::policy("global").server(line).spawn().ended().await;
        assert_eq!(ended.status.code(), Some(78), "{}", ended.stderr);
        assert!(ended.stderr.contains("evows.toml"), "{}", ended.stderr);
    }
}

#[tokio::test]
async fn half_open_connections_are_closed() {
    let evows = Setup::policy("global")
        .server("header_timeout = \"300ms\"")
        .start()
        .await;
    for start in ["", "GET /healthz HTTP/1.1\r\nhost: x\r\n"] {
        let mut connection = Connection::open(evows.address()).await.unwrap();
        connection.send(start.as_bytes()).await.unwrap();
        connection.closed().await;
    }
}

async fn garbage_on_a_websocket_closes_it_and_nothing_else(engine: &str) {
    let evows = Setup::policy("global").engine(engine).start().await;
    let mut healthy = Frames::connect(&evows).await;
    healthy.join("/").await;
    for garbage in [
        Message::text("garbage"),
        Message::text("4"),
        Message::text("49"),
        Message::text("42[\"unfinished\""),
        Message::text("459999999999999999999-[\"x\"]"),
        Message::binary(vec![0xff; 64]),
        Message::text("x".repeat(1_000_001)),
    ] {
        let shown = format!("{garbage:.40}");
        let mut frames = Frames::connect(&evows).await;
        frames.join("/").await;
        frames.send_message(garbage).await.unwrap_or_else(|error| {
            // A server may close before it has read an oversize frame to its end.
            assert!(shown.starts_with("xxxx"), "{shown}: {error}");
        });
        frames.closed().await;
    }
    let event = message("loja1", "1");
    evows.post(&event).await;
    assert_eq!(
        healthy.text().await,
        format!(r#"42["messages.upsert",{event}]"#)
    );
}

#[tokio::test]
async fn unknown_routes_and_methods_are_answered() {
    let evows = Setup::policy("global").start().await;
    let reply = evows.request("GET", "/nope?x=1", &[], "").await;
    assert_eq!(reply.status, 404);
    assert_eq!(
        reply.json(),
        json!({"status": 404, "error": "Not Found", "response": {"message": ["Cannot GET /nope?x=1"]}})
    );
    let reply = evows.request("GET", "/webhook", &[], "").await;
    assert!((400..500).contains(&reply.status), "{reply:?}");
}

async fn wrong_engine_io_requests_have_their_codes(engine: &str) {
    let evows = Setup::policy("global").engine(engine).start().await;
    let base = format!("/socket.io/?apikey={}", super::harness::KEY);
    for (method, query, body) in [
        (
            "GET",
            "&EIO=4&transport=smoke",
            r#"{"code":0,"message":"Transport unknown"}"#,
        ),
        (
            "GET",
            "&EIO=4&transport=polling&sid=nobody",
            r#"{"code":1,"message":"Session ID unknown"}"#,
        ),
        (
            "POST",
            "&EIO=4&transport=polling",
            r#"{"code":2,"message":"Bad handshake method"}"#,
        ),
        (
            "GET",
            "&EIO=4&transport=websocket",
            r#"{"code":3,"message":"Bad request"}"#,
        ),
        (
            "GET",
            "&EIO=3&transport=polling",
            r#"{"code":5,"message":"Unsupported protocol version"}"#,
        ),
    ] {
        let reply = evows
            .request(method, &format!("{base}{query}"), &[], "")
            .await;
        assert_eq!(
            (reply.status, &*reply.body),
            (400, body),
            "{method} {query}"
        );
    }
}
