//! Clients that come back: what they missed, once and in order, or a word about what they do not get any more. Native engine.

use std::collections::BTreeSet;
use std::time::{Duration, Instant, SystemTime};

use serde_json::{Value, json};

use super::harness::{Evows, Frames, KEY, Listener, Load, Setup, message};

/// What a connection may go over.
const CONNECTIONS: [&[&str]; 3] = [&["websocket"], &["polling"], &["polling", "websocket"]];

/// A client in raw frames that has joined a namespace.
pub(super) struct Member {
    frames: Frames,
    /// How a packet names its namespace.
    name: String,
    /// What its CONNECT was answered.
    joined: Value,
}

// === impl Member ===

impl Member {
    /// Joins `/` with the global key.
    pub(super) async fn join(evows: &Evows, auth: &Value) -> Self {
        Self::of(Frames::connect(evows).await, "", auth).await
    }

    /// Joins the namespace that packets name so.
    async fn of(mut frames: Frames, name: &str, auth: &Value) -> Self {
        frames.send(&format!("40{name}{auth}")).await;
        let reply = frames.text().await;
        let joined = reply.strip_prefix(&format!("40{name}"));
        let joined = joined.unwrap_or_else(|| panic!("not let in: {reply}"));
        Self {
            joined: serde_json::from_str(joined).unwrap(),
            frames,
            name: name.to_owned(),
        }
    }

    pub(super) fn pid(&self) -> &str {
        self.joined["pid"].as_str().expect("a pid")
    }

    /// The next event: its name and its arguments.
    async fn event(&mut self) -> (String, Vec<Value>) {
        let packet = self.frames.text().await;
        let event = packet.strip_prefix(&format!("42{}", self.name));
        let event = event.unwrap_or_else(|| panic!("no event: {packet}"));
        let mut event: Vec<Value> = serde_json::from_str(event).unwrap();
        let name = event.remove(0).as_str().expect("a name").to_owned();
        (name, event)
    }

    /// The next event must be one of evows itself; gives what it says.
    async fn told(&mut self, name: &str) -> Value {
        let (told, mut arguments) = self.event().await;
        assert_eq!((&*told, arguments.len()), (name, 1), "{arguments:?}");
        arguments.remove(0)
    }

    /// The next event must be a message; gives its id and its position, which comes behind the envelope.
    pub(super) async fn message(&mut self) -> (String, String) {
        let (_, arguments) = self.event().await;
        let [envelope, Value::String(position)] = &*arguments else {
            panic!("not an envelope and a position: {arguments:?}");
        };
        (id(envelope).to_owned(), position.clone())
    }

    /// The ids of the next messages must be these.
    pub(super) async fn gets(&mut self, ids: impl IntoIterator<Item = u64>) {
        for id in ids {
            assert_eq!(self.message().await.0, id.to_string());
        }
    }
}

fn id(envelope: &Value) -> &str {
    envelope["data"]["key"]["id"].as_str().expect("an id")
}

fn numbered(id: u64) -> Value {
    message("loja1", &id.to_string())
}

async fn post(evows: &Evows, ids: impl IntoIterator<Item = u64>) {
    for id in ids {
        evows.post(&numbered(id)).await;
    }
}

/// What a client asks for that wants positions, and everything from here on.
fn since(since: &str) -> Value {
    json!({"recover": true, "since": since})
}

/// Another position of the same run of offsets.
fn at(position: &str, offset: u64) -> String {
    let (epoch, _) = position.split_once(':').expect("a position");
    format!("{epoch}:{offset}")
}

#[tokio::test]
async fn node_recovers_everything_once_and_in_order() {
    const DROPS: usize = 12;

    let evows = Setup::policy("global").start().await;
    let mut clients = CONNECTIONS.map(|transports| {
        Listener::resuming_node(&json!({
            "url": evows.url("/"),
            "options": {"query": {"apikey": KEY}, "transports": transports},
            "every": [20, 250],
            "drops": DROPS,
        }))
    });
    for client in &mut clients {
        let connected = client.next_with("connected").await;
        assert_eq!(connected["recovered"], false, "there was nothing before");
    }
    let load = Load::start(&evows, numbered);
    let mut seen = [const { Vec::new() }; 3];
    for (client, seen) in clients.iter_mut().zip(&mut seen) {
        let mut dropped = 0;
        while dropped < DROPS {
            let line = client.line().await;
            dropped += usize::from(line.get("disconnected").is_some());
            seen.push(line);
        }
    }
    // So that the last event comes behind the last drop.
    load.go_on(20).await;
    let count = load.stop().await;
    let last = (count - 1).to_string();
    for ((client, lines), transports) in clients.iter_mut().zip(&mut seen).zip(CONNECTIONS) {
        while lines.last().is_none_or(|line| line["id"] != last) {
            lines.push(client.line().await);
        }
        let mut next = 0;
        for (at, line) in lines.iter().enumerate() {
            let around = || {
                let around = &lines[at.saturating_sub(10)..lines.len().min(at + 10)];
                format!("{next} over {transports:?}: {around:#?}")
            };
            if line.get("connected").is_some() {
                assert_eq!(line["recovered"], true, "{}", around());
            } else if let Some(id) = line.get("id") {
                assert_eq!(id, &json!(next.to_string()), "{}", around());
                assert_eq!(line["position"], true, "{}", around());
                next += 1;
            }
        }
        assert_eq!(next, count);
    }
}

#[tokio::test]
async fn python_comes_back_for_what_it_missed() {
    const LEAVES: usize = 6;

    let evows = Setup::policy("global").start().await;
    let client = |transports: &[&str], auth: Value| {
        Listener::resuming_python(&json!({
            "url": evows.url(""),
            "headers": {"apikey": KEY},
            "transports": transports,
            "auth": auth,
            "every": [0.05, 0.4],
            "leaves": LEAVES,
            // It asks for more at once than it takes by default.
            "packets": 1_000_000,
        }))
    };
    let mut clients = Vec::from(CONNECTIONS.map(|transports| client(transports, json!({}))));
    clients.push(client(CONNECTIONS[0], json!({"positions": "envelope"})));
    let load = Load::start(&evows, numbered);
    let mut seen = vec![(0, BTreeSet::new()); clients.len()];
    for (client, (readies, ids)) in clients.iter_mut().zip(&mut seen) {
        while *readies <= LEAVES {
            note(&client.line().await, readies, ids);
        }
    }
    let count = load.stop().await;
    for (client, (readies, ids)) in clients.iter_mut().zip(&mut seen) {
        while (ids.len() as u64) < count {
            note(&client.line().await, readies, ids);
        }
        assert_eq!(ids.last(), Some(&(count - 1)));
    }
}

/// Counts what a Python client printed.
fn note(line: &Value, readies: &mut usize, ids: &mut BTreeSet<u64>) {
    if let Some(ready) = line.get("ready") {
        let keys: Vec<_> = ready.as_object().unwrap().keys().collect();
        assert_eq!(keys, ["from", "head", "recovered", "gap"]);
        assert_eq!(
            (&ready["recovered"], &ready["gap"]),
            (&json!(true), &Value::Null)
        );
        *readies += 1;
    } else if let Some(id) = line.get("id") {
        assert!(*readies > 0, "an event before it was told where it stands");
        assert_eq!(line["arguments"], 1, "{line}");
        ids.insert(id.as_str().expect("an id").parse().unwrap());
    }
}

#[tokio::test]
async fn since_is_a_position_a_time_a_span_or_the_earliest() {
    let evows = Setup::policy("global").start().await;
    post(&evows, 1..=3).await;
    // The server tells times by a clock of its own.
    tokio::time::sleep(Duration::from_millis(100)).await;
    let time = humantime::format_rfc3339_nanos(SystemTime::now()).to_string();
    post(&evows, 4..=5).await;

    let mut member = Member::join(&evows, &since("earliest")).await;
    let ready = member.told("evows:ready").await;
    let head = ready["head"].as_str().unwrap();
    let expected =
        json!({"from": at(head, 0), "head": at(head, 5), "recovered": true, "gap": null});
    assert_eq!(ready.to_string(), expected.to_string());
    for offset in 1..=5 {
        let position = at(head, offset);
        assert_eq!(member.message().await, (offset.to_string(), position));
    }

    for (from, offset) in [
        (&*at(head, 0), 0),
        (&*at(head, 2), 2),
        (head, 5),
        (&*time, 3),
        ("-5m", 0),
        ("-0s", 5),
    ] {
        let mut member = Member::join(&evows, &since(from)).await;
        let mut expected = expected.clone();
        expected["from"] = json!(at(head, offset));
        assert_eq!(member.told("evows:ready").await, expected, "{from}");
        member.gets(offset + 1..=5).await;
    }
    // Whoever does not ask for positions gets none.
    let mut member = Member::join(&evows, &json!({"since": at(head, 4)})).await;
    assert_eq!(member.joined.get("pid"), None);
    assert_eq!(member.told("evows:ready").await["recovered"], true);
    let (name, arguments) = member.event().await;
    assert_eq!((&*name, arguments), ("messages.upsert", vec![numbered(5)]));
}

#[tokio::test]
async fn a_since_that_says_nothing_is_answered_with_what_to_write() {
    let evows = Setup::policy("global").start().await;
    let mut frames = Frames::connect(&evows).await;
    for since in [
        json!("yesterday"),
        json!(""),
        json!("12:1"),
        json!("-5 bananas"),
        json!(42),
        json!({"position": "earliest"}),
    ] {
        frames.send(&format!("40{}", json!({"since": since}))).await;
        assert_eq!(
            frames.text().await,
            r#"44{"message":"`since` is a position such as 00f1ba54c0ffee00:42, a time such as 2025-10-21T14:40:39Z, a time span such as -5m, or \"earliest\""}"#,
            "{since}"
        );
    }
    frames.join("/").await;
}

#[tokio::test]
async fn what_is_no_longer_retained_is_a_gap_and_the_rest_follows_without_another() {
    let evows = Setup::policy("global").hub("events = 10").start().await;
    post(&evows, 1..=30).await;
    let mut member = Member::join(&evows, &since("earliest")).await;
    let ready = member.told("evows:ready").await;
    let head = ready["head"].as_str().unwrap();
    assert_eq!((head, &ready["recovered"]), (&*at(head, 30), &json!(true)));

    let gap = json!({"after": at(head, 1), "through": at(head, 20)});
    let expected = json!({"from": at(head, 20), "head": head, "recovered": false, "gap": gap});
    let mut member = Member::join(&evows, &since(&at(head, 1))).await;
    assert_eq!(member.told("evows:ready").await, expected);
    member.gets(21..=30).await;
    post(&evows, [31]).await;
    member.gets([31]).await;

    // A position that nobody gave out: nothing is repeated to whoever claims to have it.
    let gap = json!({"after": at(head, 99), "through": at(head, 31)});
    let mut member = Member::join(&evows, &since(&at(head, 99))).await;
    let ready = member.told("evows:ready").await;
    assert_eq!((&ready["recovered"], &ready["gap"]), (&json!(false), &gap));
    post(&evows, [32]).await;
    member.gets([32]).await;
}

#[tokio::test]
async fn after_a_restart_there_is_a_gap_and_nothing_is_recovered() {
    let evows = Setup::policy("global").start().await;
    post(&evows, 1..=3).await;
    let mut before = Member::join(&evows, &since("earliest")).await;
    before.told("evows:ready").await;
    before.gets(1..=2).await;
    let (_, position) = before.message().await;

    let evows = evows.restart().await;
    post(&evows, 4..=5).await;
    let mut member = Member::join(&evows, &since(&position)).await;
    let ready = member.told("evows:ready").await;
    let head = ready["head"].as_str().unwrap();
    assert_ne!(at(head, 3), position, "the run of offsets is another");
    let gap = json!({"after": position, "through": at(head, 0)});
    let expected =
        json!({"from": at(head, 0), "head": at(head, 2), "recovered": false, "gap": gap});
    assert_eq!(ready, expected);
    member.gets(4..=5).await;

    let auth = json!({"recover": true, "pid": before.pid(), "offset": position});
    let mut member = Member::join(&evows, &auth).await;
    assert_ne!(member.pid(), before.pid());
    post(&evows, [6]).await;
    member.gets([6]).await;
}

#[tokio::test]
async fn a_pid_recovers_behind_the_offset_or_else_behind_the_join() {
    let evows = Setup::policy("global").start().await;
    let mut first = Member::join(&evows, &json!({"recover": true})).await;
    post(&evows, 1..=3).await;
    let (_, position) = first.message().await;
    for (offset, next) in [(None, 1), (Some(&position), 2)] {
        let mut auth = json!({"recover": true, "pid": first.pid()});
        if let Some(offset) = offset {
            auth["offset"] = json!(offset);
        }
        let mut again = Member::join(&evows, &auth).await;
        assert_eq!(again.pid(), first.pid());
        assert_ne!(again.joined["sid"], first.joined["sid"]);
        again.gets(next..=3).await;
    }
}

#[tokio::test]
async fn a_pid_that_is_forged_or_of_another_namespace_does_not_recover() {
    let evows = Setup::policy("both").start().await;
    evows.create_and_set("loja1", &[]).await;
    let mut first = Member::join(&evows, &json!({"recover": true})).await;
    post(&evows, 1..=3).await;
    let (_, position) = first.message().await;
    let pid = first.pid().to_owned();
    let (signed, signature) = pid.rsplit_once(':').unwrap();
    let flipped: String = signature.chars().rev().collect();
    for (next, (name, pid)) in (4..).zip([
        ("/loja1,", pid.clone()),
        ("", format!("{signed}:{flipped}")),
        ("", signed.to_owned()),
        ("", pid.replacen(':', ":9", 1)),
        ("", format!("{pid}A")),
        ("", String::new()),
    ]) {
        let auth = json!({"recover": true, "pid": pid, "offset": position});
        let frames = Frames::connect(&evows).await;
        let mut again = Member::of(frames, name, &auth).await;
        assert_ne!(again.pid(), pid);
        // It starts where everybody starts.
        post(&evows, [next]).await;
        again.gets([next]).await;
    }
}

#[tokio::test]
async fn a_revoked_token_does_not_recover() {
    let evows = Setup::policy("traditional").start().await;
    let old = evows.create_and_set("loja1", &[]).await;
    let other = evows.create_and_set("loja2", &[]).await;
    let (frames, _) = Frames::connect_as(&evows, &format!("&apikey={old}")).await;
    let mut first = Member::of(frames, "/loja1,", &json!({"recover": true})).await;
    post(&evows, 1..=2).await;
    let (_, position) = first.message().await;
    let auth = |key: &str| {
        let pid = first.pid();
        json!({"apikey": key, "recover": true, "pid": pid, "offset": position})
    };
    let keyless = || async { Frames::connect_as(&evows, "").await.0 };

    // The token as long as it holds, and a pid in strange hands.
    let mut again = Member::of(keyless().await, "/loja1,", &auth(&old)).await;
    assert_eq!(again.pid(), first.pid());
    again.gets([2]).await;
    let mut stranger = keyless().await;
    stranger.send(&format!("40/loja1,{}", auth(&other))).await;
    let reply = stranger.text().await;
    assert_eq!(reply, r#"44/loja1,{"message":"Invalid namespace"}"#);

    let path = "/instance/delete/loja1";
    let reply = evows.call("DELETE", path, &Value::Null).await;
    assert_eq!(reply.status, 200, "{}", reply.body);
    let new = evows.create_and_set("loja1", &[]).await;
    let mut revoked = keyless().await;
    revoked.send(&format!("40/loja1,{}", auth(&old))).await;
    let reply = revoked.text().await;
    assert_eq!(reply, r#"44/loja1,{"message":"Invalid global token"}"#);
    // Nor is the next owner of the name given what was there before.
    let mut owner = Member::of(keyless().await, "/loja1,", &auth(&new)).await;
    assert_ne!(owner.pid(), first.pid());
    post(&evows, [3]).await;
    owner.gets([3]).await;
}

#[tokio::test]
async fn an_instance_that_was_created_anew_has_a_gap_in_front_of_it() {
    let evows = Setup::policy("traditional").start().await;
    evows.create_and_set("loja1", &[]).await;
    let frames = Frames::connect(&evows).await;
    let mut before = Member::of(frames, "/loja1,", &json!({"recover": true})).await;
    post(&evows, 1..=2).await;
    let (_, position) = before.message().await;
    let path = "/instance/delete/loja1";
    let reply = evows.call("DELETE", path, &Value::Null).await;
    assert_eq!(reply.status, 200, "{}", reply.body);
    evows.create_and_set("loja1", &[]).await;

    let frames = Frames::connect(&evows).await;
    let mut after = Member::of(frames, "/loja1,", &since(&position)).await;
    let gap = json!({"after": position, "through": at(&position, 2)});
    let ready = after.told("evows:ready").await;
    assert_eq!((&ready["recovered"], &ready["gap"]), (&json!(false), &gap));
    post(&evows, [3]).await;
    after.gets([3]).await;
}

#[tokio::test]
async fn a_slow_client_may_skip_and_is_told_what_it_misses() {
    let evows = Setup::policy("global")
        .transport("slow_client = \"skip\"")
        .transport("max_lag = \"200ms\"")
        .start()
        .await;
    let frames = Frames::connect_narrow(&evows).await;
    let mut slow = Member::of(frames, "", &json!({"recover": true})).await;
    let text = "x".repeat(64 * 1024);
    let started = Instant::now();
    let mut count = 0_u64;
    // More than the sockets' buffers take, for longer than it may stall.
    while count < 200 || started.elapsed() < Duration::from_secs(1) {
        count += 1;
        evows
            .post(&message("loja1", &format!("{count} {text}")))
            .await;
    }

    let (mut offset, mut gaps) = (0, 0);
    while offset < count {
        let (name, arguments) = slow.event().await;
        let number = |position: &Value| {
            let (_, offset) = position.as_str().unwrap().split_once(':').unwrap();
            offset.parse::<u64>().unwrap()
        };
        if name == "evows:gap" {
            let gap = &arguments[0];
            let keys: Vec<_> = gap.as_object().unwrap().keys().collect();
            assert_eq!(keys, ["after", "through"]);
            assert_eq!(arguments.len(), 1);
            assert_eq!(number(&gap["after"]), offset);
            offset = number(&gap["through"]);
            gaps += 1;
        } else {
            offset += 1;
            assert_eq!(number(&arguments[1]), offset);
            assert!(id(&arguments[0]).starts_with(&format!("{offset} ")));
        }
    }
    assert!(gaps > 0, "it was never too slow");
    post(&evows, [count + 1]).await;
    slow.gets([count + 1]).await;
}

#[tokio::test]
async fn a_position_may_be_the_last_member_of_the_envelope() {
    let evows = Setup::policy("global").start().await;
    let auth = json!({"positions": "envelope", "since": "earliest"});
    let mut member = Member::join(&evows, &auth).await;
    let head = member.told("evows:ready").await["head"].clone();
    let head = head.as_str().unwrap();
    for offset in 1..=2 {
        let mut event = numbered(offset);
        evows.post(&event).await;
        event["_evows"] = json!({"position": at(head, offset)});
        let packet = member.frames.text().await;
        assert_eq!(packet, format!(r#"42["messages.upsert",{event}]"#));
    }
    // Beside one who did not ask.
    let mut plain = Member::join(&evows, &json!({})).await;
    let event = numbered(3);
    evows.post(&event).await;
    let packet = plain.frames.text().await;
    assert_eq!(packet, format!(r#"42["messages.upsert",{event}]"#));
}

#[tokio::test]
async fn handshakes_beyond_the_rate_are_sent_away_for_a_moment() {
    let evows = Setup::policy("global")
        .transport("max_handshakes_per_second = 2")
        .start()
        .await;
    let path = format!("/socket.io/?EIO=4&transport=polling&apikey={KEY}");
    let mut refused = None;
    while refused.is_none() {
        let reply = evows.request("GET", &path, &[], "").await;
        refused = (reply.status != 200).then_some(reply);
    }
    let reply = refused.unwrap();
    assert_eq!((reply.status, &*reply.body), (503, "Too many handshakes"));
    assert_eq!(reply.header("retry-after"), Some("1"));

    let mut clients: Vec<_> = CONNECTIONS
        .into_iter()
        .cycle()
        .take(6)
        .map(|transports| {
            let options = json!({"query": {"apikey": KEY}, "transports": transports});
            Listener::node(&json!({"url": evows.url("/"), "options": options}))
        })
        .collect();
    // Meanwhile others take every place that becomes free.
    let came =
        |client: &Listener| client.has_printed("connect_error") || client.has_printed("connect");
    while !clients.iter().all(came) {
        evows.request("GET", &path, &[], "").await;
    }
    let mut turned_away = 0;
    for client in &mut clients {
        client.next("connect").await;
        let errors = client.all("connect_error");
        assert!(errors.iter().all(|error| error["active"] == true));
        turned_away += errors.len();
    }
    assert!(turned_away > 0, "everybody was let in at once");
    post(&evows, [1]).await;
    for client in &mut clients {
        assert_eq!(client.message_ids(1).await, ["1"]);
    }
}
