//! Who gets in, and what the others are told.

use evows_core::access::Compat;
use evows_core::hub::Retention;

use super::harness::{Answer, Client, KEY, Running, TOKEN_A, exchange};

on_every_engine!(
    a_handshake_without_a_valid_key_is_refused_as_evolution_does,
    the_handshake_is_exact,
    without_websockets_no_upgrade_is_offered,
    other_errors_are_those_of_engine_io,
    refused_upgrades_are_told_why_and_closed,
    a_session_goes_on_only_where_it_is,
    an_allowed_host_needs_no_key_under_the_rules_of_evolution_alone,
    an_unknown_namespace_is_refused_and_the_connection_stays,
    a_token_follows_its_own_instance_only,
    the_key_may_come_when_a_namespace_is_joined,
    limits_of_one_client_hold,
    polling_sessions_are_limited,
);

const POLLING: &str = "/socket.io/?EIO=4&transport=polling";
const UPGRADE: &str = "connection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n\
    sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n";

async fn evolution(engine: &str, hosts: &str) -> Running {
    let environment = [("WEBSOCKET_ALLOWED_HOSTS", hosts)];
    Running::start(
        engine,
        Compat::Evolution,
        "",
        &environment,
        Retention::default(),
    )
    .await
}

async fn upgrade(running: &Running, query: &str) -> Answer {
    let path = format!("/socket.io/?EIO=4&transport=websocket{query}");
    exchange(running.address, "GET", &path, UPGRADE, "").await
}

/// The answer to joining a namespace.
async fn join(client: &mut Client, packet: &str) -> String {
    client.send(packet).await;
    client.text().await
}

async fn a_handshake_without_a_valid_key_is_refused_as_evolution_does(engine: &str) {
    let running = evolution(engine, "192.0.2.1").await;
    for (query, message) in [
        ("", "apiKey is required"),
        ("&apikey=", "apiKey is required"),
        ("&apikey=bad", "Invalid global token"),
    ] {
        let answer = running.get(&format!("{POLLING}{query}")).await;
        assert_eq!(answer.status, 403);
        assert_eq!(answer.header("content-type"), Some("application/json"));
        assert_eq!(
            answer.body,
            format!(r#"{{"code":4,"message":"{message}"}}"#)
        );

        let answer = upgrade(&running, query).await;
        assert_eq!(answer.status, 400);
        assert_eq!(answer.header("content-type"), Some("text/html"));
        assert_eq!(answer.header("connection"), Some("close"));
        assert_eq!(answer.body, message);
    }
    assert_eq!(running.counted("refusals", "key_unknown"), 2);
}

async fn the_handshake_is_exact(engine: &str) {
    let running = Running::strict(engine, "").await;
    let answer = running.get(POLLING).await;
    assert_eq!(answer.status, 200);
    assert_eq!(
        answer.header("content-type"),
        Some("text/plain; charset=UTF-8")
    );
    let (sid, rest) = answer
        .body
        .strip_prefix(r#"0{"sid":""#)
        .unwrap()
        .split_once('"')
        .unwrap();
    assert!(!sid.is_empty());
    assert_eq!(
        rest,
        r#","upgrades":["websocket"],"pingInterval":25000,"pingTimeout":20000,"maxPayload":1000000}"#
    );

    let open = Client::open(running.address, "").await.text().await;
    assert!(
        open.contains(r#"","upgrades":[],"pingInterval":25000,"#),
        "{open}"
    );
    assert_eq!(upgrade(&running, "").await.status, 101);
}

async fn without_websockets_no_upgrade_is_offered(engine: &str) {
    let running = Running::strict(engine, "transports = [\"polling\"]").await;
    let body = running.get(POLLING).await.body;
    assert!(body.contains(r#""upgrades":[],"#), "{body}");
    assert_eq!(upgrade(&running, "").await.body, "Transport unknown");
}

async fn other_errors_are_those_of_engine_io(engine: &str) {
    let running = Running::strict(engine, "").await;
    let unknown = format!("{POLLING}&sid=AAAAAAAAAAAAAAAA");
    for (method, path, body) in [
        (
            "GET",
            "/socket.io/?EIO=4",
            r#"{"code":0,"message":"Transport unknown"}"#,
        ),
        (
            "GET",
            "/socket.io/?EIO=4&transport=x",
            r#"{"code":0,"message":"Transport unknown"}"#,
        ),
        (
            "GET",
            &unknown,
            r#"{"code":1,"message":"Session ID unknown"}"#,
        ),
        (
            "POST",
            &unknown,
            r#"{"code":1,"message":"Session ID unknown"}"#,
        ),
        (
            "POST",
            POLLING,
            r#"{"code":2,"message":"Bad handshake method"}"#,
        ),
        (
            "GET",
            "/socket.io/?EIO=4&transport=websocket",
            r#"{"code":3,"message":"Bad request"}"#,
        ),
        (
            "GET",
            "/socket.io/?EIO=3&transport=polling",
            r#"{"code":5,"message":"Unsupported protocol version"}"#,
        ),
        // Auth comes before the version.
        (
            "GET",
            "/socket.io/?EIO=3&transport=polling&apikey=bad",
            r#"{"code":4,"message":"Invalid global token"}"#,
        ),
    ] {
        let answer = exchange(running.address, method, path, "", "").await;
        assert_eq!(answer.body, body, "{method} {path}");
        assert_eq!(answer.header("content-type"), Some("application/json"));
    }
    let answer = running.get("/socket.io?EIO=4&transport=polling").await;
    assert_eq!(answer.status, 404);
    assert!(
        answer.body.contains("Cannot GET /socket.io?EIO=4"),
        "{answer:?}"
    );
}

async fn refused_upgrades_are_told_why_and_closed(engine: &str) {
    let running = evolution(engine, "192.0.2.1").await;
    for (method, query, message) in [
        ("GET", "EIO=4&transport=websocket", "apiKey is required"),
        (
            "GET",
            "EIO=4&transport=websocket&apikey=bad",
            "Invalid global token",
        ),
        (
            "GET",
            "EIO=4&transport=smoke&apikey=KEY",
            "Transport unknown",
        ),
        ("GET", "EIO=4&apikey=KEY", "Transport unknown"),
        (
            "GET",
            "EIO=4&transport=websocket&sid=nobody",
            "Session ID unknown",
        ),
        (
            "POST",
            "EIO=4&transport=websocket&apikey=KEY",
            "Bad handshake method",
        ),
        ("GET", "EIO=4&transport=polling&apikey=KEY", "Bad request"),
        (
            "GET",
            "EIO=3&transport=websocket&apikey=KEY",
            "Unsupported protocol version",
        ),
        // Auth comes before the version.
        ("GET", "EIO=3&transport=websocket", "apiKey is required"),
    ] {
        let path = format!("/socket.io/?{}", query.replace("KEY", KEY));
        let answer = exchange(running.address, method, &path, UPGRADE, "").await;
        assert!(
            answer.head.starts_with("HTTP/1.1 400 Bad Request\n"),
            "{path}: {answer:?}"
        );
        assert_eq!(answer.header("connection"), Some("close"), "{path}");
        assert_eq!(answer.header("content-type"), Some("text/html"), "{path}");
        assert_eq!(answer.body, message, "{path}");
    }
}

async fn a_session_goes_on_only_where_it_is(engine: &str) {
    let running = Running::strict(engine, "").await;
    let refused = r#"{"code":3,"message":"Bad request"}"#;
    let poller = running.polling(&format!("apikey={KEY}")).await;
    let elsewhere = poller
        .path()
        .replace("transport=polling", "transport=websocket");
    for method in ["GET", "POST"] {
        let answer = exchange(running.address, method, &elsewhere, "", "").await;
        assert_eq!((answer.status, &*answer.body), (400, refused), "{method}");
        assert_eq!(answer.header("content-type"), Some("application/json"));
    }
    // It is none the worse for it.
    poller.post("40/a,").await;
    poller.until("40/a,").await;

    // Nor can a session on a WebSocket be polled. It has that connection alone, so nothing is known of it here; Node answers
    // `Bad request`, and stock clients never ask.
    let mut client = Client::open(running.address, &format!("apikey={KEY}")).await;
    let open = client.text().await;
    let (_, rest) = open.split_once(r#""sid":""#).unwrap();
    let (session, _) = rest.split_once('"').unwrap();
    let answer = running.get(&format!("{POLLING}&sid={session}")).await;
    let unknown = r#"{"code":1,"message":"Session ID unknown"}"#;
    assert_eq!((answer.status, &*answer.body), (400, unknown));
    client.join("/a").await;
}

async fn an_allowed_host_needs_no_key_under_the_rules_of_evolution_alone(engine: &str) {
    for hosts in ["", "*", "10.1.1.1, 127.0.0.1", "::ffff:127.0.0.1"] {
        let running = evolution(engine, hosts).await;
        let mut client = running.websocket("").await;
        client.join("/").await;
        // Without `EIO` the list does not count, and auth comes first.
        let answer = running.get("/socket.io/?transport=polling").await;
        assert_eq!(answer.status, 403);
    }
    let environment = [("WEBSOCKET_ALLOWED_HOSTS", "*")];
    let running = Running::start(
        engine,
        Compat::Strict,
        "",
        &environment,
        Retention::default(),
    )
    .await;
    let mut client = running.websocket("").await;
    assert_eq!(
        join(&mut client, "40").await,
        r#"44{"message":"apiKey is required"}"#
    );
}

async fn an_unknown_namespace_is_refused_and_the_connection_stays(engine: &str) {
    let running = Running::strict(engine, "").await;
    let mut client = running.websocket(&format!("apikey={KEY}")).await;
    assert_eq!(
        join(&mut client, "40/unknown,").await,
        r#"44/unknown,{"message":"Invalid namespace"}"#
    );
    client.join("/a").await;
    running.hub.close(&super::harness::channel("b"));
    assert_eq!(
        join(&mut client, "40/b,").await,
        r#"44/b,{"message":"Invalid namespace"}"#
    );
    running.hub.open(&super::harness::channel("b"));
    client.join("/b").await;
}

async fn a_token_follows_its_own_instance_only(engine: &str) {
    let running = Running::strict(engine, "").await;
    let mut client = running.websocket(&format!("apikey={TOKEN_A}")).await;
    // To this token, other instances are no different from unknown ones.
    assert_eq!(
        join(&mut client, "40/b,").await,
        r#"44/b,{"message":"Invalid namespace"}"#
    );
    assert_eq!(
        join(&mut client, "40").await,
        r#"44{"message":"This key does not give access to this namespace"}"#
    );
    client.join("/a").await;
    assert_eq!(running.counted("refusals", "namespace_forbidden"), 1);

    let running = evolution(engine, "192.0.2.1").await;
    let mut client = running.websocket(&format!("apikey={TOKEN_A}")).await;
    for namespace in ["/", "/a", "/b"] {
        client.join(namespace).await;
    }
}

async fn the_key_may_come_when_a_namespace_is_joined(engine: &str) {
    let running = Running::strict(engine, "").await;
    let mut client = running.websocket("").await;
    for (packet, reply) in [
        (
            "40/a,",
            r#"44/a,{"message":"apiKey is required"}"#.to_owned(),
        ),
        (
            "40/a,{\"apikey\":5}",
            r#"44/a,{"message":"apiKey is required"}"#.to_owned(),
        ),
        (
            "40/a,{\"apikey\":\"bad\"}",
            r#"44/a,{"message":"Invalid global token"}"#.to_owned(),
        ),
    ] {
        assert_eq!(join(&mut client, packet).await, reply);
    }
    let reply = join(&mut client, &format!(r#"40/a,{{"apikey":"{TOKEN_A}"}}"#)).await;
    assert!(reply.starts_with(r#"40/a,{"sid":"#), "{reply}");
    let reply = join(&mut client, &format!(r#"40{{"token":"{KEY}"}}"#)).await;
    assert!(reply.starts_with(r#"40{"sid":"#), "{reply}");

    let running = Running::strict(engine, "handshake_key = \"required\"").await;
    assert_eq!(running.get(POLLING).await.status, 403);
    let headers = format!("apikey: {KEY}\r\n");
    let answer = exchange(running.address, "GET", POLLING, &headers, "").await;
    assert_eq!(answer.status, 200);
}

async fn limits_of_one_client_hold(engine: &str) {
    let running = Running::strict(engine, "max_namespaces_per_client = 2").await;
    let mut client = running.joined("/").await;
    client.join("/a").await;
    assert_eq!(
        join(&mut client, "40/b,").await,
        r#"44/b,{"message":"Too many namespaces"}"#
    );
    client.send("41/a,").await;
    // Leaving is not answered, so it may take a moment.
    while join(&mut client, "40/b,").await.starts_with("44") {}

    let mut client = running.websocket("").await;
    for _ in 0..30 {
        client.send("40/a,").await;
    }
    let replies = client.rest().await;
    assert!(replies.len() < 30, "{replies:?}");
    assert_eq!(running.counted("clients_closed", "refused_connects"), 1);
}

async fn polling_sessions_are_limited(engine: &str) {
    let running = Running::strict(engine, "max_polling_sessions = 1").await;
    let first = running.polling(&format!("apikey={KEY}")).await;
    first.post("40/a,").await;
    first.until("40/a,").await;
    let answer = running.get(POLLING).await;
    assert_eq!(answer.status, 503);
    assert_eq!(answer.header("retry-after"), Some("1"));
    assert_eq!(upgrade(&running, "").await.status, 101);
    first.post("1").await;
    super::harness::within(async { while running.get(POLLING).await.status != 200 {} }).await;
}

#[test]
fn an_unknown_engine_is_named_with_those_there_are() {
    use evows_core::config::Settings;
    use evows_transports::socketio::Config;

    let problems = Settings::from_text("engine = \"nativ\"")
        .read::<Config>()
        .unwrap_err();
    let message = format!("{problems:?}");
    assert!(
        message.contains("native") && message.contains("socketioxide"),
        "{message}"
    );
}
