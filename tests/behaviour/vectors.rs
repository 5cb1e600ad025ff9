//! The conformance vectors: what Evolution API answers, byte for byte. Numbered as in its contract.

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::harness::{Evows, Frame, Frames, KEY, PATIENCE, Setup, envelope, message};

on_every_engine!(
    vector_01_handshakes_without_a_valid_key_are_refused,
    vector_02_the_handshake_is_exact,
    vector_03_an_unknown_namespace_is_refused_and_the_connection_stays,
    vector_03_a_connection_that_joins_nothing_is_closed,
    vector_04_the_envelope_arrives_as_it_was_sent,
    vector_05_index_keyed_bytes_become_attachments,
    vector_08_root_comes_before_the_namespace_and_each_gets_one_copy,
    vector_09_a_foreign_token_follows_only_under_the_rules_of_evolution,
    vector_10_an_allowed_host_follows_root_without_a_key,
    vector_11_times_pass_untouched,
    vector_12_remove_instance_carries_null,
    a_revoked_token_does_not_follow_the_next_owner_of_the_name,
);

/// The names that an empty list stands for, in their order.
const EVENTS: [&str; 31] = [
    "APPLICATION_STARTUP",
    "QRCODE_UPDATED",
    "MESSAGES_SET",
    "MESSAGES_UPSERT",
    "MESSAGES_EDITED",
    "MESSAGES_UPDATE",
    "MESSAGES_DELETE",
    "SEND_MESSAGE",
    "SEND_MESSAGE_UPDATE",
    "CONTACTS_SET",
    "CONTACTS_UPSERT",
    "CONTACTS_UPDATE",
    "PRESENCE_UPDATE",
    "CHATS_SET",
    "CHATS_UPSERT",
    "CHATS_UPDATE",
    "CHATS_DELETE",
    "GROUPS_UPSERT",
    "GROUP_UPDATE",
    "GROUP_PARTICIPANTS_UPDATE",
    "CONNECTION_UPDATE",
    "LABELS_EDIT",
    "LABELS_ASSOCIATION",
    "CALL",
    "TYPEBOT_START",
    "TYPEBOT_CHANGE_STATUS",
    "REMOVE_INSTANCE",
    "LOGOUT_INSTANCE",
    "INSTANCE_CREATE",
    "INSTANCE_DELETE",
    "STATUS_INSTANCE",
];

/// Evolution's rules, with this machine not among the allowed hosts.
fn evolution(policy: &'static str) -> Setup {
    Setup::policy(policy)
        .server("compat = \"evolution\"")
        .env("WEBSOCKET_ALLOWED_HOSTS", "192.0.2.1")
}

/// The whole answer to a websocket upgrade that is refused.
async fn refused_upgrade(evows: &Evows, query: &str) -> String {
    let mut stream = TcpStream::connect(evows.address()).await.unwrap();
    let request = format!(
        "GET /socket.io/?EIO=4&transport=websocket{query} HTTP/1.1\r\nHost: localhost\r\n\
         Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    let read = tokio::time::timeout(PATIENCE, stream.read_to_string(&mut answer)).await;
    read.expect("the connection is closed").unwrap();
    answer
}

async fn vector_01_handshakes_without_a_valid_key_are_refused(engine: &str) {
    let evows = evolution("global").engine(engine).start().await;
    for (query, code, text) in [
        ("", 4, "apiKey is required"),
        ("&apikey=bad", 4, "Invalid global token"),
    ] {
        let path = format!("/socket.io/?EIO=4&transport=polling{query}");
        let reply = evows.request("GET", &path, &[], "").await;
        assert_eq!(reply.status, 403);
        assert_eq!(reply.header("content-type"), Some("application/json"));
        assert_eq!(
            reply.body,
            format!(r#"{{"code":{code},"message":"{text}"}}"#)
        );

        let answer = refused_upgrade(&evows, query).await;
        assert!(
            answer.starts_with("HTTP/1.1 400 Bad Request\r\n"),
            "{answer}"
        );
        let headers = answer.to_ascii_lowercase();
        assert!(headers.contains("\r\nconnection: close\r\n"), "{answer}");
        assert!(
            headers.contains("\r\ncontent-type: text/html\r\n"),
            "{answer}"
        );
        assert!(answer.ends_with(&format!("\r\n\r\n{text}")), "{answer}");
    }
}

async fn vector_02_the_handshake_is_exact(engine: &str) {
    let evows = Setup::policy("global").engine(engine).start().await;
    let path = format!("/socket.io/?EIO=4&transport=polling&apikey={KEY}");
    let polling = evows.request("GET", &path, &[], "").await.body;
    let (_frames, websocket) = Frames::connect_as(&evows, &format!("&apikey={KEY}")).await;

    for (packet, upgrades) in [(polling, r#"["websocket"]"#), (websocket, "[]")] {
        let open: Value = serde_json::from_str(packet.strip_prefix('0').unwrap()).unwrap();
        let sid = open["sid"].as_str().unwrap();
        assert_eq!(
            packet,
            format!(
                r#"0{{"sid":"{sid}","upgrades":{upgrades},"pingInterval":25000,"pingTimeout":20000,"maxPayload":1000000}}"#
            )
        );
    }
}

async fn vector_03_an_unknown_namespace_is_refused_and_the_connection_stays(engine: &str) {
    let evows = Setup::policy("both").engine(engine).start().await;
    let mut frames = Frames::connect(&evows).await;
    frames.send("40/unknown,").await;
    assert_eq!(
        frames.text().await,
        r#"44/unknown,{"message":"Invalid namespace"}"#
    );
    frames.join("/").await;
}

async fn vector_03_a_connection_that_joins_nothing_is_closed(engine: &str) {
    let evows = Setup::policy("both")
        .engine(engine)
        .transport("connect_timeout = \"500ms\"")
        .start()
        .await;
    let mut frames = Frames::connect(&evows).await;
    frames.send("40/unknown,").await;
    let refused = frames.text().await;
    assert!(refused.starts_with("44/unknown,"), "{refused}");
    frames.closed().await;
}

async fn vector_04_the_envelope_arrives_as_it_was_sent(engine: &str) {
    let evows = Setup::policy("global").engine(engine).start().await;
    let mut frames = Frames::connect(&evows).await;
    frames.join("/").await;
    let mut event = message("loja1", "1");
    evows.post(&event).await;
    assert_eq!(
        frames.text().await,
        format!(r#"42["messages.upsert",{event}]"#)
    );
    let text = event.to_string();
    assert!(text.ends_with(r#""sender":"5511999990000@s.whatsapp.net","apikey":null}"#));

    event.as_object_mut().unwrap().shift_remove("sender");
    evows.post(&event).await;
    assert_eq!(
        frames.text().await,
        format!(r#"42["messages.upsert",{event}]"#)
    );
}

async fn vector_05_index_keyed_bytes_become_attachments(engine: &str) {
    let evows = Setup::policy("traditional").engine(engine).start().await;
    evows.create_and_set("inst", &["MESSAGES_UPSERT"]).await;
    let mut frames = Frames::connect(&evows).await;
    frames.join("/inst").await;
    let event = |first: &Value, second: &Value| {
        let data = json!({"message": {"mediaKey": first, "messageSecret": second}});
        envelope("messages.upsert", "inst", &data)
    };
    let sent = event(
        &json!({"0": 1, "1": 2, "2": 3}),
        &json!({"0": 0x68, "1": 0x69}),
    );
    evows.post(&sent).await;

    let placeholder = |num: usize| json!({"_placeholder": true, "num": num});
    let expected = event(&placeholder(0), &placeholder(1));
    assert_eq!(
        frames.text().await,
        format!(r#"452-/inst,["messages.upsert",{expected}]"#)
    );
    assert_eq!(frames.next().await, Frame::Binary(vec![1, 2, 3]));
    assert_eq!(frames.next().await, Frame::Binary(b"hi".to_vec()));
}

#[tokio::test]
async fn vector_06_event_lists_are_checked_and_an_empty_one_means_all() {
    let evows = evolution("traditional").start().await;
    evows.create("loja1").await;
    let set = |events: Value| json!({"websocket": {"enabled": true, "events": events}});

    let path = "/websocket/set/loja1";
    let reply = evows
        .call("POST", path, &set(json!(["GROUPS_UPDATE"])))
        .await;
    assert_eq!(reply.status, 400);
    let names = EVENTS.join(",");
    let problem = format!("websocket.events[0] is not one of enum values: {names}");
    assert_eq!(
        reply.body,
        json!({"status": 400, "error": "Bad Request", "response": {"message": [[problem]]}})
            .to_string()
    );

    let reply = evows.call("POST", path, &set(json!([]))).await;
    assert_eq!(reply.status, 201);
    assert_eq!(reply.json()["events"], json!(EVENTS));
    let row = reply.json();
    let keys: Vec<_> = row.as_object().unwrap().keys().collect();
    assert_eq!(
        keys,
        [
            "id",
            "enabled",
            "events",
            "createdAt",
            "updatedAt",
            "instanceId"
        ]
    );
    let found = evows
        .call("GET", "/websocket/find/loja1", &Value::Null)
        .await;
    assert_eq!((found.status, found.json()), (200, row));
}

#[tokio::test]
async fn vector_07_a_flat_webhook_body_is_refused() {
    let evows = evolution("traditional").start().await;
    evows.create("loja1").await;
    let flat = json!({"enabled": true, "url": "http://localhost", "events": []});
    let reply = evows.call("POST", "/webhook/set/loja1", &flat).await;
    assert_eq!(reply.status, 400);
    assert_eq!(
        reply.body,
        r#"{"status":400,"error":"Bad Request","response":{"message":[["instance requires property \"webhook\""]]}}"#
    );
}

async fn vector_08_root_comes_before_the_namespace_and_each_gets_one_copy(engine: &str) {
    let evows = Setup::policy("both").engine(engine).start().await;
    evows.create_and_set("loja1", &["MESSAGES_UPSERT"]).await;
    let mut frames = Frames::connect(&evows).await;
    frames.join("/").await;
    frames.join("/loja1").await;
    // Many, for an order that only happens to be right does not last.
    for id in 0..200 {
        let event = message("loja1", &id.to_string());
        evows.post(&event).await;
        assert_eq!(
            frames.text().await,
            format!(r#"42["messages.upsert",{event}]"#)
        );
        assert_eq!(
            frames.text().await,
            format!(r#"42/loja1,["messages.upsert",{event}]"#)
        );
    }
}

async fn vector_09_a_foreign_token_follows_only_under_the_rules_of_evolution(engine: &str) {
    let evows = evolution("traditional").engine(engine).start().await;
    let a = evows.create_and_set("a", &[]).await;
    evows.create_and_set("b", &[]).await;
    let (mut frames, _) = Frames::connect_as(&evows, &format!("&apikey={a}")).await;
    frames.join("/b").await;

    let evows = Setup::policy("traditional").engine(engine).start().await;
    let a = evows.create_and_set("a", &[]).await;
    evows.create_and_set("b", &[]).await;
    let (mut frames, _) = Frames::connect_as(&evows, &format!("&apikey={a}")).await;
    frames.send("40/b,").await;
    let reply = frames.text().await;
    assert!(reply.starts_with(r#"44/b,{"message":""#), "{reply}");
    frames.join("/a").await;
}

async fn vector_10_an_allowed_host_follows_root_without_a_key(engine: &str) {
    let evows = Setup::policy("global")
        .engine(engine)
        .server("compat = \"evolution\"")
        .start()
        .await;
    let (mut frames, _) = Frames::connect_as(&evows, "").await;
    frames.join("/").await;
    let event = message("loja1", "1");
    evows.post(&event).await;
    assert_eq!(
        frames.text().await,
        format!(r#"42["messages.upsert",{event}]"#)
    );
}

#[tokio::test]
async fn vector_11_generated_times_have_evolutions_form() {
    let made = Setup::pipeline(
        "[sources.in]\ntype = \"generator\"\ncount = 100\n\
         [sinks.out]\ntype = \"stdout\"\ninputs = [\"in\"]\n",
    )
    .spawn()
    .ended()
    .await;
    assert_eq!(made.stdout.len(), 100, "{}", made.stderr);
    for line in &made.stdout {
        let envelope: Value = serde_json::from_str(line).unwrap();
        let time = envelope["date_time"].as_str().unwrap();
        let form = time.replace(|c: char| c.is_ascii_digit(), "d");
        assert_eq!(form, "dddd-dd-ddTdd:dd:dd.dddZ", "{time}");
    }
}

async fn vector_11_times_pass_untouched(engine: &str) {
    let evows = Setup::policy("global").engine(engine).start().await;
    let mut frames = Frames::connect(&evows).await;
    frames.join("/").await;
    let mut event = message("loja1", "1");
    // The local time of Sao Paulo that claims to be UTC, as Evolution's image has it.
    event["date_time"] = json!("2025-10-21T11:40:39.007Z");
    evows.post(&event).await;
    let packet = frames.text().await;
    assert!(
        packet.contains(r#""date_time":"2025-10-21T11:40:39.007Z""#),
        "{packet}"
    );
}

async fn vector_12_remove_instance_carries_null(engine: &str) {
    let evows = Setup::policy("both").engine(engine).start().await;
    evows.create_and_set("loja1", &["REMOVE_INSTANCE"]).await;
    let mut frames = Frames::connect(&evows).await;
    frames.join("/loja1").await;
    let event = envelope("remove.instance", "loja1", &Value::Null);
    evows.post(&event).await;
    let packet = frames.text().await;
    assert_eq!(packet, format!(r#"42/loja1,["remove.instance",{event}]"#));
    assert!(packet.contains(r#""data":null"#), "{packet}");
}

async fn a_revoked_token_does_not_follow_the_next_owner_of_the_name(engine: &str) {
    let evows = Setup::policy("traditional").engine(engine).start().await;
    let old = evows.create_and_set("bob", &[]).await;
    let (mut frames, _) = Frames::connect_as(&evows, &format!("&apikey={old}")).await;
    frames.join("/bob").await;
    frames.send("41/bob,").await;
    // Packets are read in order: once this is answered, the one before was seen.
    frames.send("40/unknown,").await;
    assert!(frames.text().await.starts_with("44/unknown,"));
    let reply = evows
        .call("DELETE", "/instance/delete/bob", &Value::Null)
        .await;
    assert_eq!(reply.status, 200, "{}", reply.body);
    evows.create_and_set("bob", &[]).await;
    let connect = tokio_tungstenite::tungstenite::Message::text("40/bob,");
    if frames.send_message(connect).await.is_err() {
        // It was still in the namespace when that was closed, and was closed with it.
        return;
    }
    match frames.next().await {
        Frame::Text(text) => assert_eq!(text, r#"44/bob,{"message":"Invalid global token"}"#),
        Frame::Closed => {}
        other @ Frame::Binary(_) => panic!("{other:?}"),
    }
}
