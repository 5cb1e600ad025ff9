//! Clients that come back: everything since they left, each event once, or a gap that they are told of.

use std::time::{Duration, SystemTime};

use serde_json::{Value, json};

use super::harness::{Evows, Frames, KEY, Listener, Setup, message, until};

/// A position such as `00f1ba54c0ffee00:42`.
fn offset(position: &str) -> u64 {
    let (epoch, offset) = position.split_once(':').expect("a colon");
    assert_eq!(epoch.len(), 16, "{position}");
    offset.parse().expect("a number")
}

/// Joins `/` with this `auth`; returns the answer's data.
async fn join(frames: &mut Frames, auth: &Value) -> Value {
    frames.send(&format!("40{auth}")).await;
    let reply = frames.text().await;
    let data = reply
        .strip_prefix("40")
        .unwrap_or_else(|| panic!("{reply}"));
    serde_json::from_str(data).unwrap()
}

/// A fresh connection that has joined `/` with `since`, and what it was told of that.
async fn since(evows: &Evows, since: &str) -> (Frames, Value) {
    let mut frames = Frames::connect(evows).await;
    join(&mut frames, &json!({"since": since})).await;
    let ready = frames.text().await;
    let data = ready
        .strip_prefix(r#"42["evows:ready","#)
        .and_then(|it| it.strip_suffix(']'));
    (
        frames,
        serde_json::from_str(data.unwrap_or_else(|| panic!("{ready}"))).unwrap(),
    )
}

/// The id of the next event, and what comes behind its envelope.
async fn next(frames: &mut Frames) -> (String, Option<String>) {
    let packet = frames.text().await;
    let data: Value = serde_json::from_str(packet.strip_prefix("42").unwrap()).unwrap();
    let id = data[1]["data"]["key"]["id"]
        .as_str()
        .unwrap_or_else(|| panic!("{packet}"));
    (id.to_owned(), data[2].as_str().map(str::to_owned))
}

async fn ids(frames: &mut Frames, count: usize) -> Vec<String> {
    let mut ids = Vec::new();
    for _ in 0..count {
        ids.push(next(frames).await.0);
    }
    ids
}

fn numbers(range: std::ops::Range<u64>) -> Vec<String> {
    range.map(|n| n.to_string()).collect()
}

async fn post(evows: &Evows, range: std::ops::Range<u64>) {
    for n in range {
        evows.post(&message("a", &n.to_string())).await;
    }
}

#[tokio::test]
async fn stock_clients_that_are_dropped_at_random_get_each_event_once() {
    let evows = Setup::policy("both").start().await;
    evows.create_and_set("a", &[]).await;
    let options = |namespace: &str, transports: &[&str]| {
        json!({
            "url": evows.url(namespace),
            "every": [20, 300],
            "drops": 15,
            "options": {"query": {"apikey": KEY}, "transports": transports},
        })
    };
    let clients = [
        Listener::returning_node(&options("/a", &["websocket"])),
        Listener::returning_node(&options("/", &["websocket"])),
        Listener::returning_node(&options("/a", &["polling", "websocket"])),
    ];
    until("all are connected", || {
        clients
            .iter()
            .all(|it| it.lines().iter().any(|line| line["connected"] == true))
    })
    .await;
    for n in 0..400 {
        evows.post(&message("a", &n.to_string())).await;
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let expected = numbers(0..400);
    for client in &clients {
        let received = || -> Vec<String> {
            let lines = client.lines();
            let ids = lines.iter().filter_map(|line| line["id"].as_str());
            ids.map(str::to_owned).collect()
        };
        until("everything has come", || {
            received().last() == expected.last()
        })
        .await;
        let lines = client.lines();
        let connects: Vec<_> = lines.iter().filter(|it| it["connected"] == true).collect();
        assert!(
            connects.len() > 5,
            "hardly ever dropped: {}",
            connects.len()
        );
        assert!(
            connects.iter().skip(1).all(|it| it["recovered"] == true),
            "{connects:?}"
        );
        assert_eq!(received(), expected);
        let events = lines.iter().filter(|it| it["id"].is_string());
        assert!(events.into_iter().all(|it| it["position"] == true));
    }
}

#[tokio::test]
async fn python_resumes_from_where_it_was_told_it_is() {
    let evows = Setup::policy("traditional").start().await;
    evows.create_and_set("a", &[]).await;
    // On polling it takes no more than 16 packets of one answer, however many wait.
    let clients = ["websocket", "polling"].map(|transport| {
        Listener::returning_python(&json!({
            "url": evows.url(""),
            "namespace": "/a",
            "headers": {"apikey": KEY},
            "transports": [transport],
            "every": [0.1, 0.6],
            "leaves": 6,
        }))
    });
    let is_ready = |it: &Listener| it.lines().iter().any(|it| it["ready"].is_object());
    until("they are connected", || clients.iter().all(is_ready)).await;
    for n in 0..200 {
        evows.post(&message("a", &n.to_string())).await;
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    for client in clients {
        has_come(&client).await;
    }
}

/// Waits until a client that may get events again has 200 of them, each behind the one before.
async fn has_come(client: &Listener) {
    // It knows only the head of its last connect, so it may get again what came after that.
    let seen = || {
        let mut seen: Vec<u64> = Vec::new();
        for line in client.lines() {
            if let Some(id) = line["id"].as_str() {
                let id: u64 = id.parse().unwrap();
                assert!(
                    id <= seen.len() as u64,
                    "{id} came after {} events",
                    seen.len()
                );
                if id == seen.len() as u64 {
                    seen.push(id);
                }
            }
        }
        seen.len()
    };
    until("everything has come", || seen() == 200).await;
    let lines = client.lines();
    let readies: Vec<_> = lines.iter().filter(|it| it["ready"].is_object()).collect();
    assert!(readies.len() > 3, "{}", readies.len());
    assert!(
        readies.iter().all(|it| it["ready"]["recovered"] == true),
        "{readies:?}"
    );
}

#[tokio::test]
async fn since_takes_a_position_a_time_a_span_or_earliest() {
    let evows = Setup::policy("global").start().await;
    post(&evows, 0..3).await;
    let (mut frames, ready) = since(&evows, "earliest").await;
    assert_eq!(
        (&ready["recovered"], &ready["gap"]),
        (&json!(true), &Value::Null)
    );
    assert_eq!(offset(ready["head"].as_str().unwrap()), 3);
    assert_eq!(ids(&mut frames, 3).await, numbers(0..3));

    let head = ready["head"].as_str().unwrap().to_owned();
    let middle = head.replace(":3", ":1");
    let (mut frames, ready) = since(&evows, &middle).await;
    assert_eq!(
        (&ready["from"], &ready["head"]),
        (&json!(middle), &json!(head))
    );
    assert_eq!(ids(&mut frames, 2).await, numbers(1..3));

    let before = SystemTime::now() - Duration::from_hours(1);
    for text in [
        "-1h".to_owned(),
        humantime::format_rfc3339(before).to_string(),
    ] {
        let (mut frames, ready) = since(&evows, &text).await;
        assert_eq!(ready["recovered"], true, "{text}");
        assert_eq!(ids(&mut frames, 3).await, numbers(0..3));
    }
    // What comes from now on comes behind it, once.
    post(&evows, 3..4).await;
    assert_eq!(ids(&mut frames, 1).await, numbers(3..4));
}

#[tokio::test]
async fn a_since_that_is_none_is_told_what_to_write() {
    let evows = Setup::policy("global").start().await;
    let mut frames = Frames::connect(&evows).await;
    for wrong in [json!("yesterday"), json!(7), json!("12:x")] {
        frames.send(&format!("40{}", json!({"since": wrong}))).await;
        let reply = frames.text().await;
        assert!(
            reply.starts_with(r#"44{"message":"`since` is a position such as"#),
            "{reply}"
        );
    }
    frames.join("/").await;
}

#[tokio::test]
async fn what_is_no_longer_retained_is_a_gap_and_the_rest_is_contiguous() {
    let evows = Setup::policy("global")
        .transport("[hub]\nevents = 5")
        .start()
        .await;
    post(&evows, 0..1).await;
    let (_, ready) = since(&evows, "earliest").await;
    let first = ready["head"].as_str().unwrap().to_owned();
    post(&evows, 1..20).await;
    let (mut frames, ready) = since(&evows, &first).await;
    let through = first.replace(":1", ":15");
    assert_eq!(ready["recovered"], false);
    assert_eq!(ready["gap"], json!({"after": first, "through": through}));
    assert_eq!(ids(&mut frames, 5).await, numbers(15..20));
}

#[tokio::test]
async fn a_restart_is_a_gap_and_what_came_since_is_there() {
    let evows = Setup::policy("global").start().await;
    post(&evows, 0..2).await;
    let (_, ready) = since(&evows, "earliest").await;
    let head = ready["head"].as_str().unwrap().to_owned();
    let evows = evows.restart().await;
    post(&evows, 2..4).await;
    let (mut frames, ready) = since(&evows, &head).await;
    assert_eq!(
        (&ready["recovered"], &ready["gap"]["after"]),
        (&json!(false), &json!(head))
    );
    assert_eq!(ids(&mut frames, 2).await, numbers(2..4));
}

#[tokio::test]
async fn a_pid_recovers_where_it_was_given_and_nowhere_else() {
    let evows = Setup::policy("both").start().await;
    let token = evows.create_and_set("a", &[]).await;
    let mut frames = Frames::connect(&evows).await;
    let joined = join(&mut frames, &json!({"recover": true})).await;
    let pid = joined["pid"].as_str().unwrap().to_owned();
    drop(frames);
    post(&evows, 0..2).await;

    // Nothing was received, so it goes on from where it joined.
    let mut frames = Frames::connect(&evows).await;
    let again = join(&mut frames, &json!({"recover": true, "pid": pid})).await;
    assert_eq!(again["pid"], json!(pid));
    let (id, position) = next(&mut frames).await;
    assert_eq!(id, "0");
    let position = position.expect("a position behind the envelope");
    drop(frames);
    let mut frames = Frames::connect(&evows).await;
    join(
        &mut frames,
        &json!({"recover": true, "pid": pid, "offset": position}),
    )
    .await;
    assert_eq!(next(&mut frames).await.0, "1");

    let forged = pid.replacen(":0:", ":9:", 1);
    for auth in [
        json!({"recover": true, "pid": forged}),
        json!({"recover": true, "pid": "nonsense", "offset": position}),
        json!({"recover": true, "pid": pid, "offset": "nonsense"}),
        json!({"recover": true, "pid": pid, "offset": 7}),
    ] {
        let mut frames = Frames::connect(&evows).await;
        let fresh = join(&mut frames, &auth).await;
        assert_ne!(fresh["pid"], auth["pid"], "{auth}");
    }
    // One of another namespace.
    let (mut frames, _) = Frames::connect_as(&evows, &format!("&apikey={token}")).await;
    frames
        .send(&format!("40/a,{}", json!({"recover": true, "pid": pid})))
        .await;
    let reply = frames.text().await;
    assert!(
        reply.starts_with("40/a,{") && !reply.contains(&pid),
        "{reply}"
    );

    // Who did not ask gets neither.
    let mut plain = Frames::connect(&evows).await;
    assert_eq!(
        join(&mut plain, &json!({"pid": pid})).await["pid"],
        Value::Null
    );
    post(&evows, 2..3).await;
    assert_eq!(next(&mut plain).await, ("2".to_owned(), None));
}

#[tokio::test]
async fn a_revoked_token_does_not_recover() {
    let evows = Setup::policy("traditional").start().await;
    let token = evows.create_and_set("a", &[]).await;
    let (mut frames, _) = Frames::connect_as(&evows, "").await;
    frames
        .send(&format!(
            "40/a,{}",
            json!({"apikey": token, "recover": true})
        ))
        .await;
    let reply = frames.text().await;
    let joined: Value = serde_json::from_str(reply.strip_prefix("40/a,").unwrap()).unwrap();
    let gone = evows
        .call("DELETE", "/instance/delete/a", &Value::Null)
        .await;
    assert_eq!(gone.status, 200);
    evows.create_and_set("a", &[]).await;
    let (mut frames, _) = Frames::connect_as(&evows, "").await;
    let auth = json!({"apikey": token, "recover": true, "pid": joined["pid"]});
    frames.send(&format!("40/a,{auth}")).await;
    assert_eq!(
        frames.text().await,
        r#"44/a,{"message":"Invalid global token"}"#
    );
}

#[tokio::test]
async fn positions_may_be_in_the_envelope() {
    let evows = Setup::policy("global").start().await;
    let mut frames = Frames::connect(&evows).await;
    join(&mut frames, &json!({"positions": "envelope"})).await;
    let event = message("a", "1");
    evows.post(&event).await;
    let packet = frames.text().await;
    let text = event.to_string();
    let open = text.strip_suffix('}').unwrap();
    let rest = packet.strip_prefix(&format!(
        r#"42["messages.upsert",{open},"_evows":{{"position":""#
    ));
    let position = rest
        .and_then(|it| it.strip_suffix("\"}}]"))
        .unwrap_or_else(|| panic!("{packet}"));
    assert_eq!(offset(position), 1);
}

#[tokio::test]
async fn too_many_handshakes_are_put_off_and_stock_clients_get_in_later() {
    let evows = Setup::policy("global")
        .transport("max_handshakes_per_second = 2")
        .start()
        .await;
    let path = format!("/socket.io/?EIO=4&transport=polling&apikey={KEY}");
    let mut refused = 0;
    for _ in 0..6 {
        let reply = evows.request("GET", &path, &[], "").await;
        if reply.status == 503 {
            assert_eq!(reply.header("retry-after"), Some("1"));
            refused += 1;
        }
    }
    assert!(refused > 0);
    let options = json!({
        "query": {"apikey": KEY}, "transports": ["websocket"], "reconnectionDelay": 100, "reconnectionDelayMax": 400,
    });
    let mut clients: Vec<_> = (0..5)
        .map(|_| Listener::node(&json!({"url": evows.url("/"), "options": options})))
        .collect();
    for client in &mut clients {
        client.next("connect").await;
    }
}
