//! What clients are sent.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use evows_core::hub::ChannelName;
use tokio_tungstenite::tungstenite::Message;

use super::harness::{Client, KEY, Running, channel};

on_every_engine!(
    the_envelope_arrives_as_it_is,
    bytes_travel_as_attachments,
    attachments_follow_their_event_over_polling,
    bytes_travel_in_the_older_dialects,
    polling_speaks_as_node_does,
    a_session_moves_to_a_websocket,
    what_comes_right_behind_an_upgrade_is_not_lost,
    reserved_names_are_not_sent,
    what_clients_send_is_ignored,
);

async fn the_envelope_arrives_as_it_is(engine: &str) {
    let running = Running::strict(engine, "").await;
    let mut client = running.joined("/a").await;
    let envelope = r#"{"event":"e", "instance":"a","z":1.10,"big":12345678901234567890123,"é":"\u00e9","apikey":null}"#;
    running.publish(envelope, &[channel("a")]);
    assert_eq!(client.text().await, format!(r#"42/a,["e",{envelope}]"#));
    running.publish(
        r#"{"event":"quo\"te","instance":"a"}"#,
        &[ChannelName::root(), channel("a")],
    );
    assert_eq!(
        client.text().await,
        r#"42/a,["quo\"te",{"event":"quo\"te","instance":"a"}]"#
    );
}

const BYTES: &str = r#"{"event":"messages.upsert","instance":"a","data":{"x":{"0":1,"1":2,"2":3},"n":1.0,"y":[{"0":104,"1":105}]}}"#;

async fn bytes_travel_as_attachments(engine: &str) {
    let running = Running::strict(engine, "").await;
    let mut client = running.joined("/a").await;
    let poller = running.polling(&format!("apikey={KEY}")).await;
    assert_eq!(poller.post("40/a,").await.body, "ok");
    poller.until("40/a,").await;
    let text = r#"452-/a,["messages.upsert",{"event":"messages.upsert","instance":"a","data":{"x":{"_placeholder":true,"num":0},"n":1.0,"y":[{"_placeholder":true,"num":1}]}}]"#;
    running.publish(BYTES, &[channel("a")]);

    assert_eq!(client.text().await, text);
    assert_eq!(client.next().await, Some(Message::binary(vec![1, 2, 3])));
    assert_eq!(client.next().await, Some(Message::binary(b"hi".to_vec())));
    assert_eq!(poller.until("452-").await, [text, "bAQID", "baGk="]);
}

/// The bytes of one event as an object with the keys `"0"`, `"1"`, ...
fn indexed(bytes: &[u8]) -> String {
    let fields = bytes.iter().enumerate();
    let fields: Vec<_> = fields
        .map(|(at, byte)| format!(r#""{at}":{byte}"#))
        .collect();
    format!("{{{}}}", fields.join(","))
}

async fn attachments_follow_their_event_over_polling(engine: &str) {
    let running = Running::strict(engine, "").await;
    let poller = running.polling(&format!("apikey={KEY}")).await;
    for name in ["", "/a,"] {
        poller.post(&format!("40{name}")).await;
        poller.until(&format!("40{name}{{")).await;
    }
    // None to four attachments each, some of them large; every third event goes to the root.
    let mut expected = [const { Vec::new() }; 2];
    for n in 0..60_u8 {
        let attachments = (0..n % 5).map(|k| vec![n ^ k; if k == 3 { 20_000 } else { 3 }]);
        let attachments: Vec<_> = attachments.collect();
        let list: Vec<_> = attachments.iter().map(|bytes| indexed(bytes)).collect();
        let envelope = format!(
            r#"{{"event":"e","instance":"a","n":{n},"list":[{}]}}"#,
            list.join(",")
        );
        let (at, name) = if n % 3 == 0 {
            (0, ChannelName::root())
        } else {
            (1, channel("a"))
        };
        running.publish(&envelope, &[name]);
        expected[at].push((n, attachments));
    }

    let attached = expected.iter().flatten().map(|(_, list)| list.len());
    let count = 60 + attached.sum::<usize>();
    let mut packets = poller.packets(count).await.into_iter();
    let mut got = [const { Vec::new() }; 2];
    while let Some(packet) = packets.next() {
        let (head, rest) = packet.split_once('[').unwrap();
        let count = match head.strip_prefix("45") {
            Some(head) => head.split_once('-').unwrap().0.parse().unwrap(),
            None => 0,
        };
        let (_, rest) = rest.split_once(r#""n":"#).unwrap();
        let n = rest.split_once(',').unwrap().0.parse().unwrap();
        let attachments = packets.by_ref().take(count).map(|record| {
            let encoded = record.strip_prefix('b').expect("an attachment comes next");
            STANDARD.decode(encoded).unwrap()
        });
        got[usize::from(head.ends_with("/a,"))].push((n, attachments.collect()));
    }
    assert_eq!(got, expected);
}

async fn bytes_travel_in_the_older_dialects(engine: &str) {
    let running = Running::strict(engine, "binary = \"indexed\"").await;
    let mut client = running.joined("/a").await;
    running.publish(BYTES, &[channel("a")]);
    assert_eq!(
        client.text().await,
        format!(r#"42/a,["messages.upsert",{BYTES}]"#)
    );

    let running = Running::strict(engine, "binary = \"base64\"").await;
    let mut client = running.joined("/a").await;
    running.publish(BYTES, &[channel("a")]);
    let text = client.text().await;
    assert!(
        text.ends_with(r#""data":{"x":"AQID","n":1.0,"y":["aGk="]}}]"#),
        "{text}"
    );
}

async fn polling_speaks_as_node_does(engine: &str) {
    let running = Running::strict(engine, "").await;
    let poller = running.polling(&format!("apikey={KEY}")).await;
    let posted = poller.post("40/a,").await;
    assert_eq!((posted.status, &*posted.body), (200, "ok"));
    assert_eq!(posted.header("content-type"), Some("text/html"));
    poller.until("40/a,").await;
    running.publish(r#"{"event":"e","instance":"a"}"#, &[channel("a")]);
    let packets = poller.until("42/a,").await;
    assert_eq!(packets, [r#"42/a,["e",{"event":"e","instance":"a"}]"#]);
}

async fn a_session_moves_to_a_websocket(engine: &str) {
    let running = Running::strict(engine, "").await;
    let poller = running.polling(&format!("apikey={KEY}")).await;
    poller.post("40/a,").await;
    poller.until("40/a,").await;
    let mut client = Client::open(running.address, &format!("sid={}", poller.session)).await;
    client.send("2probe").await;
    assert_eq!(client.text().await, "3probe");
    client.send("5").await;
    running.publish(r#"{"event":"e","instance":"a"}"#, &[channel("a")]);
    assert_eq!(
        client.text().await,
        r#"42/a,["e",{"event":"e","instance":"a"}]"#
    );
    // A second one cannot take the place of the first.
    let path = format!(
        "/socket.io/?EIO=4&transport=websocket&sid={}",
        poller.session
    );
    let headers = "connection: upgrade\r\nupgrade: websocket\r\n";
    let answer = super::harness::exchange(running.address, "GET", &path, headers, "").await;
    assert_eq!((answer.status, &*answer.body), (400, "Bad request"));
    running.publish(r#"{"event":"f","instance":"a"}"#, &[channel("a")]);
    assert_eq!(
        client.text().await,
        r#"42/a,["f",{"event":"f","instance":"a"}]"#
    );
    // Nor is it polled any more.
    let answer = poller.poll().await;
    let refused = r#"{"code":3,"message":"Bad request"}"#;
    assert_eq!((answer.status, &*answer.body), (400, refused));
    // Closing it closes the right connection.
    running.hub.close(&channel("a"));
    assert_eq!(client.next().await, None);
    assert_eq!(running.counted("clients_closed", "namespace_closed"), 1);
}

async fn what_comes_right_behind_an_upgrade_is_not_lost(engine: &str) {
    let running = Running::strict(engine, "").await;
    let poller = running.polling(&format!("apikey={KEY}")).await;
    let mut client = Client::open(running.address, &format!("sid={}", poller.session)).await;
    client.send("2probe").await;
    assert_eq!(client.text().await, "3probe");
    // As python-socketio does, which joins only now: in one piece.
    client.send_together(&["5", "40/a,", "40/b,"]).await;
    for name in ["/a,", "/b,"] {
        let joined = client.text().await;
        assert!(joined.starts_with(&format!("40{name}")), "{joined}");
    }
}

async fn reserved_names_are_not_sent(engine: &str) {
    let running = Running::strict(engine, "").await;
    let mut client = running.joined("/a").await;
    for name in [
        "connect",
        "connect_error",
        "disconnect",
        "disconnecting",
        "newListener",
        "removeListener",
        "fine",
    ] {
        let envelope = format!(r#"{{"event":"{name}","instance":"a"}}"#);
        running.publish(&envelope, &[channel("a")]);
    }
    assert_eq!(
        client.text().await,
        r#"42/a,["fine",{"event":"fine","instance":"a"}]"#
    );
    assert_eq!(running.counted("undelivered", "reserved_name"), 6);
}

async fn what_clients_send_is_ignored(engine: &str) {
    let running = Running::strict(engine, "").await;
    let mut client = running.joined("/a").await;
    client.send(r#"42/a,["sendNode",{"instanceId":"a"}]"#).await;
    client.send(r#"42/a,7["x"]"#).await;
    // Packets are read in order: once this is answered, those before were seen.
    client.send("40/unknown,").await;
    assert!(client.text().await.starts_with("44/unknown,"));
    running.publish(r#"{"event":"e","instance":"a"}"#, &[channel("a")]);
    assert_eq!(
        client.text().await,
        r#"42/a,["e",{"event":"e","instance":"a"}]"#
    );
}
