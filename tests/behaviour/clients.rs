//! Stock Socket.IO clients against evows, from handshake to reconnect.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::harness::{Evows, KEY, Listener, Setup, envelope, message};

on_every_engine!(
    node_receives_over_every_transport,
    python_receives_over_every_transport,
    namespaces_of_one_connection_get_their_own_events_once_and_in_order,
    global_mode_delivers_every_event_of_every_instance_to_root,
    traditional_mode_delivers_to_the_instances_namespace_only,
    a_namespace_opens_when_the_instance_is_set,
    both_modes_at_once_deliver_one_copy_each,
    events_are_filtered_per_instance_but_not_on_root,
    instances_are_isolated_from_each_other,
    disabling_stops_delivery_and_keeps_the_namespace,
    clients_return_after_a_restart_to_a_namespace_that_is_still_set,
    keys_are_accepted_in_query_header_and_auth,
    keys_that_do_not_fit_are_refused,
    evolutions_rules_refuse_at_the_handshake_and_ignore_auth,
    the_official_manager_connects_without_a_key,
    bytes_arrive_as_buffers_over_every_transport,
    reserved_event_names_do_not_disconnect_a_client,
    what_clients_send_is_ignored,
    more_attachments_than_a_client_takes_do_not_disconnect_it,
    placeholders_of_no_attachment_do_not_disconnect_a_client,
    a_burst_reaches_a_client_that_reads,
);

/// What a connection may go over: one of both, or first this and then that.
const CONNECTIONS: [&[&str]; 3] = [&["websocket"], &["polling"], &["polling", "websocket"]];
/// Those that differ in how they shake hands.
const HANDSHAKES: [&[&str]; 2] = [&["websocket"], &["polling"]];

/// A Node client of one namespace; quick to reconnect, whatever else its options are.
fn node_with(evows: &Evows, namespace: &str, options: &Value) -> Listener {
    let mut options = options.clone();
    let quick = json!({"reconnectionDelay": 100, "reconnectionDelayMax": 300});
    for (key, value) in quick.as_object().expect("an object") {
        options[key] = value.clone();
    }
    Listener::node(&json!({"url": evows.url(namespace), "options": options}))
}

/// A Node client for each of these kinds of connection.
fn nodes_with(
    evows: &Evows,
    connections: &[&[&str]],
    namespace: &str,
    options: &Value,
) -> Vec<Listener> {
    let node = |transports: &&[&str]| {
        let mut options = options.clone();
        options["transports"] = json!(transports);
        node_with(evows, namespace, &options)
    };
    connections.iter().map(node).collect()
}

/// A connected Node client for each kind of connection, with the global key in the query.
async fn nodes(evows: &Evows, namespace: &str) -> Vec<Listener> {
    let mut nodes = nodes_with(
        evows,
        &CONNECTIONS,
        namespace,
        &json!({"query": {"apikey": KEY}}),
    );
    each_next(&mut nodes, "connect").await;
    nodes
}

/// A connected Python client of a namespace for each kind of connection, with the global key in a header.
async fn pythons(evows: &Evows, namespace: &str) -> Vec<Listener> {
    let python = |transports: &&[&str]| {
        Listener::python(&json!({
            "url": evows.url(""),
            "namespaces": [namespace],
            "transports": transports,
            "headers": {"apikey": KEY},
        }))
    };
    let mut pythons: Vec<_> = CONNECTIONS.iter().map(python).collect();
    each_next(&mut pythons, "connect").await;
    pythons
}

/// Waits for this to happen to each client.
async fn each_next(clients: &mut [Listener], kind: &str) {
    for client in clients {
        client.next(kind).await;
    }
}

/// Each client's next event must be this one.
async fn each_gets(clients: &mut [Listener], event: &Value) {
    for client in clients {
        let name = event["event"].as_str().expect("a name").to_owned();
        assert_eq!(client.event().await, (name, event.clone()));
    }
}

/// The ids of each client's next messages must be these.
async fn each_gets_ids<T: AsRef<str>>(clients: &mut [Listener], ids: &[T]) {
    for client in clients {
        let got = client.message_ids(ids.len()).await;
        assert!(got.iter().eq(ids.iter().map(AsRef::as_ref)), "{got:?}");
    }
}

/// None of the clients was disconnected.
fn none_was_disconnected(clients: &[Listener]) {
    for client in clients {
        assert_eq!(client.all("disconnect"), Vec::<Value>::new());
    }
}

async fn node_receives_over_every_transport(engine: &str) {
    let evows = Setup::policy("global").engine(engine).start().await;
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

async fn python_receives_over_every_transport(engine: &str) {
    let evows = Setup::policy("both").engine(engine).start().await;
    evows.create_and_set("loja1", &[]).await;
    let mut roots = pythons(&evows, "/").await;
    let mut clients = pythons(&evows, "/loja1").await;
    for id in 0..20 {
        let sent = message("loja1", &id.to_string());
        evows.post(&sent).await;
        each_gets(&mut roots, &sent).await;
        each_gets(&mut clients, &sent).await;
    }
}

async fn namespaces_of_one_connection_get_their_own_events_once_and_in_order(engine: &str) {
    let evows = Setup::policy("both").engine(engine).start().await;
    for instance in ["a", "b", "other"] {
        evows.create_and_set(instance, &[]).await;
    }
    let mut clients = Vec::new();
    for transports in CONNECTIONS {
        clients.push(Listener::node(&json!({
            "url": evows.url("/"),
            "namespaces": ["/a", "/b"],
            "options": {"query": {"apikey": KEY}, "transports": transports},
        })));
        clients.push(Listener::python(&json!({
            "url": evows.url(""),
            "namespaces": ["/", "/a", "/b"],
            "headers": {"apikey": KEY},
            "transports": transports,
            // Events are posted faster than one poll follows the other.
            "packets": 1_000,
        })));
    }
    for _ in 0..3 {
        each_next(&mut clients, "connect").await;
    }
    let mut expected = BTreeMap::<_, Vec<_>>::new();
    for id in 0..150 {
        let instance = ["a", "b", "other"][id % 3];
        evows.post(&message(instance, &id.to_string())).await;
        for namespace in ["/".to_owned(), format!("/{instance}")] {
            if namespace != "/other" {
                expected.entry(namespace).or_default().push(id.to_string());
            }
        }
    }
    for client in &mut clients {
        // Node and Python call handlers of different namespaces in an order of their own.
        let mut got = BTreeMap::<_, Vec<_>>::new();
        for _ in 0..expected.values().map(Vec::len).sum() {
            let happened = client.next("event").await;
            let text = |value: &Value| value.as_str().expect("a string").to_owned();
            let id = text(&happened["args"][0]["data"]["key"]["id"]);
            got.entry(text(&happened["namespace"]))
                .or_default()
                .push(id);
        }
        assert_eq!(got, expected);
    }
}

async fn global_mode_delivers_every_event_of_every_instance_to_root(engine: &str) {
    let evows = Setup::policy("global").engine(engine).start().await;
    let mut roots = nodes(&evows, "/").await;
    for (name, instance) in [
        ("messages.upsert", "loja1"),
        ("groups.update", "loja2"),
        ("call", "never created"),
    ] {
        let sent = envelope(name, instance, &json!({"a": [1]}));
        evows.post(&sent).await;
        each_gets(&mut roots, &sent).await;
    }
}

async fn traditional_mode_delivers_to_the_instances_namespace_only(engine: &str) {
    let evows = Setup::policy("traditional").engine(engine).start().await;
    evows.create_and_set("loja1", &["MESSAGES_UPSERT"]).await;
    let mut clients = nodes(&evows, "/loja1").await;
    let sent = message("loja1", "1");
    evows.post(&sent).await;
    each_gets(&mut clients, &sent).await;
}

async fn a_namespace_opens_when_the_instance_is_set(engine: &str) {
    let evows = Setup::policy("traditional").engine(engine).start().await;
    evows.create("loja1").await;
    let mut early = node_with(&evows, "/loja1", &json!({"query": {"apikey": KEY}}));
    let refused = early.next("connect_error").await;
    assert_eq!(refused["message"], "Invalid namespace");
    assert_eq!(
        refused["active"], false,
        "clients do not try again after this"
    );

    evows.set("loja1", true, &[]).await;
    let mut clients = nodes(&evows, "/loja1").await;
    evows.post(&message("loja1", "1")).await;
    each_gets_ids(&mut clients, &["1"]).await;
}

async fn both_modes_at_once_deliver_one_copy_each(engine: &str) {
    let evows = Setup::policy("both").engine(engine).start().await;
    evows.create_and_set("loja1", &[]).await;
    let mut roots = nodes(&evows, "/").await;
    let mut clients = nodes(&evows, "/loja1").await;
    for id in ["1", "2"] {
        evows.post(&message("loja1", id)).await;
    }
    each_gets_ids(&mut roots, &["1", "2"]).await;
    each_gets_ids(&mut clients, &["1", "2"]).await;
}

async fn events_are_filtered_per_instance_but_not_on_root(engine: &str) {
    let evows = Setup::policy("both").engine(engine).start().await;
    let events = ["CONNECTION_UPDATE", "GROUP_PARTICIPANTS_UPDATE"];
    evows.create_and_set("loja1", &events).await;
    let mut roots = nodes(&evows, "/").await;
    let mut clients = nodes(&evows, "/loja1").await;

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
    for root in &mut roots {
        for name in names {
            assert_eq!(root.event().await.0, name);
        }
    }
    for client in &mut clients {
        assert_eq!(client.event().await.0, "connection.update");
        assert_eq!(client.event().await.0, "group-participants.update");
    }
}

async fn instances_are_isolated_from_each_other(engine: &str) {
    let evows = Setup::policy("traditional").engine(engine).start().await;
    evows.create_and_set("a", &[]).await;
    evows.create_and_set("b", &[]).await;
    let mut a = nodes(&evows, "/a").await;
    let mut b = nodes(&evows, "/b").await;
    for (instance, id) in [("a", "1"), ("b", "2"), ("a", "3"), ("b", "4")] {
        evows.post(&message(instance, id)).await;
    }
    each_gets_ids(&mut a, &["1", "3"]).await;
    each_gets_ids(&mut b, &["2", "4"]).await;
}

async fn disabling_stops_delivery_and_keeps_the_namespace(engine: &str) {
    let evows = Setup::policy("traditional").engine(engine).start().await;
    evows.create_and_set("loja1", &[]).await;
    let mut before = nodes(&evows, "/loja1").await;
    evows.set("loja1", false, &[]).await;
    evows.post(&message("loja1", "unseen")).await;
    let mut after = nodes(&evows, "/loja1").await;

    evows.set("loja1", true, &[]).await;
    evows.post(&message("loja1", "seen")).await;
    each_gets_ids(&mut before, &["seen"]).await;
    each_gets_ids(&mut after, &["seen"]).await;
    none_was_disconnected(&before);
}

async fn clients_return_after_a_restart_to_a_namespace_that_is_still_set(engine: &str) {
    let evows = Setup::policy("traditional").engine(engine).start().await;
    let token = evows.create_and_set("loja1", &["MESSAGES_UPSERT"]).await;
    let mut clients = nodes_with(
        &evows,
        &CONNECTIONS,
        "/loja1",
        &json!({"auth": {"apikey": token}}),
    );
    each_next(&mut clients, "connect").await;
    clients.extend(nodes(&evows, "/loja1").await);
    let mut pythons = pythons(&evows, "/loja1").await;
    let evows = evows.restart().await;
    for client in &mut clients {
        let gone = client.next("disconnect").await;
        assert_eq!(gone["active"], true, "it would not come back: {gone}");
    }
    each_next(&mut clients, "connect").await;
    each_next(&mut pythons, "connect").await;
    evows.post(&message("loja1", "1")).await;
    each_gets_ids(&mut clients, &["1"]).await;
    each_gets_ids(&mut pythons, &["1"]).await;
    for error in clients
        .iter()
        .flat_map(|client| client.all("connect_error"))
    {
        assert_eq!(error["active"], true, "refused for good: {error}");
    }
    let found = evows
        .call("GET", "/websocket/find/loja1", &Value::Null)
        .await;
    assert_eq!(found.json()["events"], json!(["MESSAGES_UPSERT"]));
}

async fn keys_are_accepted_in_query_header_and_auth(engine: &str) {
    let evows = Setup::policy("both").engine(engine).start().await;
    let token = evows.create_and_set("loja1", &[]).await;
    for key in [KEY, token.as_str()] {
        for options in [
            json!({"query": {"apikey": key}}),
            json!({"extraHeaders": {"apikey": key}}),
            json!({"auth": {"apikey": key}}),
        ] {
            let mut clients = nodes_with(&evows, &HANDSHAKES, "/loja1", &options);
            each_next(&mut clients, "connect").await;
        }
    }
}

async fn keys_that_do_not_fit_are_refused(engine: &str) {
    let evows = Setup::policy("both").engine(engine).start().await;
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
        let mut clients = nodes_with(&evows, &HANDSHAKES, namespace, &options);
        each_next(&mut clients, "connect_error").await;
        for client in clients {
            let connected = client.all("connect");
            assert_eq!(connected, Vec::<Value>::new(), "{namespace} {options}");
        }
    }
}

async fn evolutions_rules_refuse_at_the_handshake_and_ignore_auth(engine: &str) {
    let evows = Setup::policy("global")
        .engine(engine)
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

async fn the_official_manager_connects_without_a_key(engine: &str) {
    let evows = Setup::policy("global")
        .engine(engine)
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

async fn bytes_arrive_as_buffers_over_every_transport(engine: &str) {
    let evows = Setup::policy("global").engine(engine).start().await;
    let mut clients = nodes(&evows, "/").await;
    clients.extend(pythons(&evows, "/").await);
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

async fn reserved_event_names_do_not_disconnect_a_client(engine: &str) {
    let evows = Setup::policy("global").engine(engine).start().await;
    let mut clients = nodes(&evows, "/").await;
    clients.extend(pythons(&evows, "/").await);
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
    for client in &mut clients {
        while client.event().await.0 != "messages.upsert" {}
        assert_eq!(client.all("connect").len(), 1);
    }
    none_was_disconnected(&clients);
}

async fn what_clients_send_is_ignored(engine: &str) {
    let evows = Setup::policy("global").engine(engine).start().await;
    let emit =
        json!([["sendNode", {"instanceId": "loja1", "stanza": {"tag": "x"}}], ["send_message", 1]]);
    let node = |transports: &[&str]| {
        let options = json!({"query": {"apikey": KEY}, "transports": transports});
        Listener::node(&json!({"url": evows.url("/"), "options": options, "emit": emit}))
    };
    let mut clients = CONNECTIONS.map(node);
    each_next(&mut clients, "connect").await;
    evows.post(&message("loja1", "1")).await;
    each_gets_ids(&mut clients, &["1"]).await;
    none_was_disconnected(&clients);
}

async fn placeholders_of_no_attachment_do_not_disconnect_a_client(engine: &str) {
    let evows = Setup::policy("global").engine(engine).start().await;
    let mut roots = nodes(&evows, "/").await;
    for number in [99, 0] {
        let data = json!({"a": {"0": 1}, "b": {"_placeholder": true, "num": number}});
        let poison = envelope("poison", "loja1", &data);
        evows.post(&poison).await;
        each_gets(&mut roots, &poison).await;
    }
    let next = envelope("next", "loja1", &json!({}));
    evows.post(&next).await;
    each_gets(&mut roots, &next).await;
    none_was_disconnected(&roots);
}

async fn more_attachments_than_a_client_takes_do_not_disconnect_it(engine: &str) {
    let evows = Setup::policy("global").engine(engine).start().await;
    let mut roots = nodes(&evows, "/").await;
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
        for root in &mut roots {
            let (_, sent) = root.event().await;
            let fields = sent["data"].as_object().unwrap();
            assert_eq!(fields.len(), count);
            let verbatim = fields["k1"] == json!({"0": 1, "1": 1});
            assert_eq!(verbatim, count > 10, "{count}: {}", fields["k1"]);
        }
    }
}

async fn a_burst_reaches_a_client_that_reads(engine: &str) {
    let evows = Setup::policy("global").engine(engine).start().await;
    let mut roots = nodes(&evows, "/").await;
    let count = 20_000;
    let ids: Vec<_> = (0..count).map(|id| id.to_string()).collect();
    for half in ids.chunks(count / 2) {
        let events: Vec<_> = half.iter().map(|id| message("loja1", id)).collect();
        let reply = evows.call("POST", "/webhook", &Value::Array(events)).await;
        assert_eq!(reply.status, 200, "{}", reply.body);
    }
    each_gets_ids(&mut roots, &ids).await;
}
