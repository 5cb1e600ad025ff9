//! Stock Socket.IO clients against evows, from handshake to reconnect.

use serde_json::{Value, json};

use super::harness::{Evows, KEY, Listener, Setup, envelope, message};

/// A Node client of one namespace, with the global key in the query.
fn node(evows: &Evows, namespace: &str) -> Listener {
    node_with(evows, namespace, &json!({"query": {"apikey": KEY}}))
}

/// A Node client of one namespace; quick to reconnect, whatever else its options are.
fn node_with(evows: &Evows, namespace: &str, options: &Value) -> Listener {
    let mut options = options.clone();
    let quick = json!({"reconnectionDelay": 100, "reconnectionDelayMax": 300});
    for (key, value) in quick.as_object().expect("an object") {
        options[key] = value.clone();
    }
    Listener::node(&json!({"url": evows.url(namespace), "options": options}))
}

/// A Python client of some namespaces, with the global key in a header.
fn python(evows: &Evows, namespaces: &[&str], transport: &str) -> Listener {
    Listener::python(&json!({
        "url": evows.url(""),
        "namespaces": namespaces,
        "transports": [transport],
        "headers": {"apikey": KEY},
    }))
}

#[tokio::test]
async fn node_receives_over_every_transport() {
    let evows = Setup::policy("global").start().await;
    let with = |transports: Value| {
        let options = json!({"transports": transports, "query": {"apikey": KEY}});
        node_with(&evows, "/", &options)
    };
    let mut websocket = with(json!(["websocket"]));
    let mut polling = with(json!(["polling"]));
    let mut upgrading = with(json!(["polling", "websocket"]));
    assert_eq!(websocket.next("connect").await["transport"], "websocket");
    assert_eq!(polling.next("connect").await["transport"], "polling");
    assert_eq!(upgrading.next("open").await["transport"], "polling");
    assert_eq!(upgrading.next("upgrade").await["transport"], "websocket");
    super::harness::until("the upgraded client is connected", || {
        !upgrading.all("connect").is_empty()
    })
    .await;

    let ids: Vec<_> = (0..50).map(|id| id.to_string()).collect();
    for id in &ids {
        evows.post(&message("loja1", id)).await;
    }
    for listener in [&mut websocket, &mut polling, &mut upgrading] {
        assert_eq!(listener.message_ids(ids.len()).await, ids);
    }
}

#[tokio::test]
async fn python_receives_over_both_transports() {
    let evows = Setup::policy("both").start().await;
    evows.create_and_set("loja1", &[]).await;
    let mut websocket = python(&evows, &["/", "/loja1"], "websocket");
    let mut polling = python(&evows, &["/loja1"], "polling");
    websocket.next("connect").await;
    websocket.next("connect").await;
    polling.next("connect").await;

    let sent = message("loja1", "1");
    evows.post(&sent).await;
    let mut namespaces = Vec::new();
    for _ in 0..2 {
        let happened = websocket.next("event").await;
        assert_eq!(happened["args"], json!([sent]));
        namespaces.push(happened["namespace"].as_str().unwrap().to_owned());
    }
    // Handlers of different namespaces run side by side in this client; frames on the wire have an order.
    namespaces.sort();
    assert_eq!(namespaces, ["/", "/loja1"]);
    assert_eq!(polling.event().await, ("messages.upsert".to_owned(), sent));
}

#[tokio::test]
async fn global_mode_delivers_every_event_of_every_instance_to_root() {
    let evows = Setup::policy("global").start().await;
    let mut root = node(&evows, "/");
    root.next("connect").await;
    for (name, instance) in [
        ("messages.upsert", "loja1"),
        ("groups.update", "loja2"),
        ("call", "never created"),
    ] {
        let sent = envelope(name, instance, &json!({"a": [1]}));
        evows.post(&sent).await;
        assert_eq!(root.event().await, (name.to_owned(), sent));
    }
}

#[tokio::test]
async fn traditional_mode_delivers_to_the_instances_namespace_only() {
    let evows = Setup::policy("traditional").start().await;
    evows.create_and_set("loja1", &["MESSAGES_UPSERT"]).await;
    let mut client = node(&evows, "/loja1");
    client.next("connect").await;
    let sent = message("loja1", "1");
    evows.post(&sent).await;
    assert_eq!(client.event().await, ("messages.upsert".to_owned(), sent));
}

#[tokio::test]
async fn a_namespace_opens_when_the_instance_is_set() {
    let evows = Setup::policy("traditional").start().await;
    evows.create("loja1").await;
    let mut early = node(&evows, "/loja1");
    let refused = early.next("connect_error").await;
    assert_eq!(refused["message"], "Invalid namespace");
    assert_eq!(
        refused["active"], false,
        "clients do not try again after this"
    );

    evows.set("loja1", true, &[]).await;
    let mut client = node(&evows, "/loja1");
    client.next("connect").await;
    evows.post(&message("loja1", "1")).await;
    assert_eq!(client.message_ids(1).await, ["1"]);
}

#[tokio::test]
async fn both_modes_at_once_deliver_one_copy_each() {
    let evows = Setup::policy("both").start().await;
    evows.create_and_set("loja1", &[]).await;
    let mut root = node(&evows, "/");
    let mut client = node(&evows, "/loja1");
    root.next("connect").await;
    client.next("connect").await;
    for id in ["1", "2"] {
        evows.post(&message("loja1", id)).await;
    }
    assert_eq!(root.message_ids(2).await, ["1", "2"]);
    assert_eq!(client.message_ids(2).await, ["1", "2"]);
}

#[tokio::test]
async fn events_are_filtered_per_instance_but_not_on_root() {
    let evows = Setup::policy("both").start().await;
    let events = ["CONNECTION_UPDATE", "GROUP_PARTICIPANTS_UPDATE"];
    evows.create_and_set("loja1", &events).await;
    let mut root = node(&evows, "/");
    let mut client = node(&evows, "/loja1");
    root.next("connect").await;
    client.next("connect").await;

    let names = [
        "messages.upsert",
        "connection.update",
        "presence.update",
        "group-participants.update",
    ];
    for name in names {
        let data = json!({"state": "open", "participants": []});
        evows.post(&envelope(name, "loja1", &data)).await;
    }
    for name in names {
        assert_eq!(root.event().await.0, name);
    }
    assert_eq!(client.event().await.0, "connection.update");
    assert_eq!(client.event().await.0, "group-participants.update");
}

#[tokio::test]
async fn instances_are_isolated_from_each_other() {
    let evows = Setup::policy("traditional").start().await;
    evows.create_and_set("a", &[]).await;
    evows.create_and_set("b", &[]).await;
    let mut a = node(&evows, "/a");
    let mut b = node(&evows, "/b");
    a.next("connect").await;
    b.next("connect").await;
    for (instance, id) in [("a", "1"), ("b", "2"), ("a", "3"), ("b", "4")] {
        evows.post(&message(instance, id)).await;
    }
    assert_eq!(a.message_ids(2).await, ["1", "3"]);
    assert_eq!(b.message_ids(2).await, ["2", "4"]);
}

#[tokio::test]
async fn disabling_stops_delivery_and_keeps_the_namespace() {
    let evows = Setup::policy("traditional").start().await;
    evows.create_and_set("loja1", &[]).await;
    let mut before = node(&evows, "/loja1");
    before.next("connect").await;
    evows.set("loja1", false, &[]).await;
    evows.post(&message("loja1", "unseen")).await;
    let mut after = node(&evows, "/loja1");
    after.next("connect").await;

    evows.set("loja1", true, &[]).await;
    evows.post(&message("loja1", "seen")).await;
    assert_eq!(before.message_ids(1).await, ["seen"]);
    assert_eq!(after.message_ids(1).await, ["seen"]);
    assert_eq!(before.all("disconnect"), Vec::<Value>::new());
}

#[tokio::test]
async fn clients_return_after_a_restart_to_a_namespace_that_is_still_set() {
    let evows = Setup::policy("traditional").start().await;
    let token = evows.create_and_set("loja1", &["MESSAGES_UPSERT"]).await;
    let mut by_key = node(&evows, "/loja1");
    let mut by_token = node_with(&evows, "/loja1", &json!({"auth": {"apikey": token}}));
    let mut python = python(&evows, &["/loja1"], "websocket");
    for client in [&mut by_key, &mut by_token, &mut python] {
        client.next("connect").await;
    }
    let evows = evows.restart().await;
    for client in [&mut by_key, &mut by_token] {
        let gone = client.next("disconnect").await;
        assert_eq!(gone["active"], true, "it would not come back: {gone}");
    }
    for client in [&mut by_key, &mut by_token, &mut python] {
        client.next("connect").await;
    }
    evows.post(&message("loja1", "1")).await;
    for client in [&mut by_key, &mut by_token, &mut python] {
        assert_eq!(client.message_ids(1).await, ["1"]);
    }
    for error in by_key.all("connect_error") {
        assert_eq!(error["active"], true, "refused for good: {error}");
    }
    let found = evows
        .call("GET", "/websocket/find/loja1", &Value::Null)
        .await;
    assert_eq!(found.json()["events"], json!(["MESSAGES_UPSERT"]));
}

#[tokio::test]
async fn keys_are_accepted_in_query_header_and_auth() {
    let evows = Setup::policy("both").start().await;
    let token = evows.create_and_set("loja1", &[]).await;
    for key in [KEY, token.as_str()] {
        for options in [
            json!({"query": {"apikey": key}}),
            json!({"extraHeaders": {"apikey": key}}),
            json!({"auth": {"apikey": key}}),
        ] {
            for transport in ["websocket", "polling"] {
                let mut options = options.clone();
                options["transports"] = json!([transport]);
                let mut client = node_with(&evows, "/loja1", &options);
                assert_eq!(client.next("connect").await["transport"], transport);
            }
        }
    }
}

#[tokio::test]
async fn keys_that_do_not_fit_are_refused() {
    let evows = Setup::policy("both").start().await;
    evows.create_and_set("a", &[]).await;
    let b = evows.create_and_set("b", &[]).await;
    for (namespace, options) in [
        ("/a", json!({})),
        ("/a", json!({"auth": {"apikey": "wrong"}})),
        ("/a", json!({"query": {"apikey": "wrong"}})),
        ("/a", json!({"extraHeaders": {"apikey": "wrong"}})),
        ("/a", json!({"auth": {"apikey": b}})),
        ("/a", json!({"query": {"apikey": b}})),
        ("/", json!({"auth": {"apikey": b}})),
        ("/", json!({"query": {"apikey": b}})),
    ] {
        let mut client = node_with(&evows, namespace, &options);
        client.next("connect_error").await;
        assert_eq!(
            client.all("connect"),
            Vec::<Value>::new(),
            "{namespace} {options}"
        );
    }
}

#[tokio::test]
async fn evolutions_rules_refuse_at_the_handshake_and_ignore_auth() {
    let evows = Setup::policy("global")
        .server("compat = \"evolution\"")
        .env("WEBSOCKET_ALLOWED_HOSTS", "192.0.2.1")
        .start()
        .await;
    let mut websocket = node_with(
        &evows,
        "/",
        &json!({"transports": ["websocket"], "auth": {"apikey": KEY}}),
    );
    let refused = websocket.next("connect_error").await;
    assert_eq!(refused["message"], "websocket error");
    assert_eq!(refused["description"], "Unexpected server response: 400");
    assert_eq!(refused["active"], true);

    let mut polling = node_with(&evows, "/", &json!({"transports": ["polling"]}));
    let refused = polling.next("connect_error").await;
    assert_eq!(refused["message"], "xhr poll error");
    assert_eq!(refused["description"], 403);
    assert_eq!(
        refused["body"],
        r#"{"code":4,"message":"apiKey is required"}"#
    );
}

#[tokio::test]
async fn the_official_manager_connects_without_a_key() {
    let evows = Setup::policy("global")
        .server("compat = \"evolution\"")
        .start()
        .await;
    let profile = json!({
        "transports": ["websocket", "polling"],
        "reconnection": true,
        "reconnectionAttempts": 5,
        "reconnectionDelay": 1000,
        "timeout": 20000,
    });
    let mut manager = Listener::node(&json!({"url": evows.url("/"), "options": profile}));
    assert_eq!(manager.next("connect").await["transport"], "websocket");
    for name in ["messages.upsert", "send.message", "messages.update"] {
        let sent = envelope(
            name,
            "loja1",
            &json!({"key": {"remoteJid": "5511@s.whatsapp.net"}}),
        );
        evows.post(&sent).await;
        assert_eq!(manager.event().await, (name.to_owned(), sent));
    }
}

#[tokio::test]
async fn bytes_arrive_as_buffers_over_every_transport() {
    let evows = Setup::policy("global").start().await;
    let with = |transport: &str| {
        let options = json!({"transports": [transport], "query": {"apikey": KEY}});
        node_with(&evows, "/", &options)
    };
    let mut clients = [
        with("websocket"),
        with("polling"),
        python(&evows, &["/"], "websocket"),
        python(&evows, &["/"], "polling"),
    ];
    for client in &mut clients {
        client.next("connect").await;
    }
    let data = |secret: Value, thumbnail: Value| json!({"message": {"messageSecret": secret, "list": [{"jpegThumbnail": thumbnail}]}});
    let sent = data(
        json!({"0": 1, "1": 2, "2": 255}),
        json!({"0": 104, "1": 105}),
    );
    evows
        .post(&envelope("messages.upsert", "loja1", &sent))
        .await;
    let seen = data(json!({"$binary": "0102ff"}), json!({"$binary": "6869"}));
    for client in &mut clients {
        let (_, envelope) = client.event().await;
        assert_eq!(envelope["data"], seen);
    }
}

#[tokio::test]
async fn reserved_event_names_do_not_disconnect_a_client() {
    let evows = Setup::policy("global").start().await;
    let mut node = node(&evows, "/");
    let mut python = python(&evows, &["/"], "websocket");
    node.next("connect").await;
    python.next("connect").await;
    for name in [
        "connect",
        "connect_error",
        "disconnect",
        "disconnecting",
        "newListener",
    ] {
        // Whether such an event is accepted is the source's business; that clients live on is asserted.
        let event = envelope(name, "loja1", &json!({})).to_string();
        let headers = [("content-type", "application/json")];
        evows.request("POST", "/webhook", &headers, &event).await;
    }
    evows.post(&message("loja1", "1")).await;
    loop {
        let (name, envelope) = node.event().await;
        if name == "messages.upsert" {
            assert_eq!(envelope["data"]["key"]["id"], "1");
            break;
        }
    }
    assert_eq!(node.all("disconnect"), Vec::<Value>::new());
    assert_eq!(node.all("connect").len(), 1);
    assert_eq!(python.all("disconnect"), Vec::<Value>::new());
}

#[tokio::test]
async fn what_clients_send_is_ignored() {
    let evows = Setup::policy("global").start().await;
    let mut client = Listener::node(&json!({
        "url": evows.url("/"),
        "options": {"query": {"apikey": KEY}},
        "emit": [["sendNode", {"instanceId": "loja1", "stanza": {"tag": "x"}}], ["send_message", 1]],
    }));
    client.next("connect").await;
    evows.post(&message("loja1", "1")).await;
    assert_eq!(client.message_ids(1).await, ["1"]);
    assert_eq!(client.all("disconnect"), Vec::<Value>::new());
}

#[tokio::test]
async fn more_attachments_than_a_client_takes_do_not_disconnect_it() {
    let evows = Setup::policy("global").start().await;
    let mut root = node(&evows, "/");
    root.next("connect").await;
    for count in [10, 11, 300] {
        let fields = (0..count).map(|n| (format!("k{n}"), json!({"0": 1, "1": n % 256})));
        let fields: serde_json::Map<_, _> = fields.collect();
        evows
            .post(&envelope(
                "messages.upsert",
                "loja1",
                &Value::Object(fields),
            ))
            .await;
        let (_, sent) = root.event().await;
        let fields = sent["data"].as_object().unwrap();
        assert_eq!(fields.len(), count);
        let verbatim = fields["k1"] == json!({"0": 1, "1": 1});
        assert_eq!(verbatim, count > 10, "{count}: {}", fields["k1"]);
    }
}

#[tokio::test]
async fn a_burst_reaches_a_client_that_reads() {
    let evows = Setup::policy("global").start().await;
    let mut root = node(&evows, "/");
    root.next("connect").await;
    let count = 20_000;
    let ids: Vec<_> = (0..count).map(|id| id.to_string()).collect();
    for half in ids.chunks(count / 2) {
        let events: Vec<_> = half.iter().map(|id| message("loja1", id)).collect();
        let reply = evows.call("POST", "/webhook", &Value::Array(events)).await;
        assert_eq!(reply.status, 200, "{}", reply.body);
    }
    assert_eq!(root.message_ids(count).await, ids);
}
