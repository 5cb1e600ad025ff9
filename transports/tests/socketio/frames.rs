//! What clients are sent.

use evows_core::hub::ChannelName;
use tokio_tungstenite::tungstenite::Message;

use super::harness::{Client, KEY, Running, channel};

#[tokio::test]
async fn the_envelope_arrives_as_it_is() {
    let running = Running::strict("").await;
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

#[tokio::test]
async fn bytes_travel_as_attachments() {
    let running = Running::strict("").await;
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

#[tokio::test]
async fn bytes_travel_in_the_older_dialects() {
    let running = Running::strict("binary = \"indexed\"").await;
    let mut client = running.joined("/a").await;
    running.publish(BYTES, &[channel("a")]);
    assert_eq!(
        client.text().await,
        format!(r#"42/a,["messages.upsert",{BYTES}]"#)
    );

    let running = Running::strict("binary = \"base64\"").await;
    let mut client = running.joined("/a").await;
    running.publish(BYTES, &[channel("a")]);
    let text = client.text().await;
    assert!(
        text.ends_with(r#""data":{"x":"AQID","n":1.0,"y":["aGk="]}}]"#),
        "{text}"
    );
}

#[tokio::test]
async fn polling_speaks_as_node_does() {
    let running = Running::strict("").await;
    let poller = running.polling(&format!("apikey={KEY}")).await;
    let posted = poller.post("40/a,").await;
    assert_eq!((posted.status, &*posted.body), (200, "ok"));
    assert_eq!(posted.header("content-type"), Some("text/html"));
    poller.until("40/a,").await;
    running.publish(r#"{"event":"e","instance":"a"}"#, &[channel("a")]);
    let packets = poller.until("42/a,").await;
    assert_eq!(packets, [r#"42/a,["e",{"event":"e","instance":"a"}]"#]);
}

#[tokio::test]
async fn a_session_moves_to_a_websocket() {
    let running = Running::strict("").await;
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
    // Closing it closes the right connection.
    running.hub.close(&channel("a"));
    assert_eq!(client.next().await, None);
    assert_eq!(running.counted("clients_closed", "namespace_closed"), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn root_comes_first_on_one_connection() {
    let running = Running::strict("").await;
    // Others make the root's task slow.
    let mut others = Vec::new();
    for _ in 0..20 {
        others.push(running.joined("/").await);
    }
    let mut client = running.joined("/").await;
    client.join("/a").await;
    let mut alone = running.joined("/a").await;
    let count = 500;
    for n in 0..count {
        let envelope = format!(r#"{{"event":"e","instance":"a","n":{n}}}"#);
        running.publish(&envelope, &[ChannelName::root(), channel("a")]);
        if n % 7 == 0 {
            tokio::task::yield_now().await;
        }
    }
    let (mut root, mut own) = (0, 0);
    while own < count {
        let text = client.text().await;
        if text.starts_with("42/a,") {
            assert!(text.contains(&format!(r#""n":{own}}}"#)), "{text}");
            own += 1;
            assert!(
                own <= root,
                "{own} came on the namespace, {root} on the root"
            );
        } else {
            assert!(text.contains(&format!(r#""n":{root}}}"#)), "{text}");
            root += 1;
        }
    }
    assert_eq!(root, count);
    for n in 0..count {
        let text = alone.text().await;
        assert!(text.contains(&format!(r#""n":{n}}}"#)), "{text}");
    }
}

#[tokio::test]
async fn reserved_names_are_not_sent() {
    let running = Running::strict("").await;
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

#[tokio::test]
async fn what_clients_send_is_ignored() {
    let running = Running::strict("").await;
    let mut client = running.joined("/a").await;
    client.send(r#"42/a,["sendNode",{"instanceId":"a"}]"#).await;
    client.send(r#"42/a,7["x"]"#).await;
    client.send(r#"42/nowhere,["x"]"#).await;
    running.publish(r#"{"event":"e","instance":"a"}"#, &[channel("a")]);
    assert_eq!(
        client.text().await,
        r#"42/a,["e",{"event":"e","instance":"a"}]"#
    );
}

#[tokio::test]
async fn a_client_that_has_left_root_does_not_wait_for_it() {
    let running = Running::strict("").await;
    let mut client = running.joined("/").await;
    client.join("/a").await;
    client.send("41").await;
    // Leaving is not answered. Whatever still comes on the root, the namespace goes on.
    for n in 0..100 {
        let envelope = format!(r#"{{"event":"e","instance":"a","n":{n}}}"#);
        running.publish(&envelope, &[ChannelName::root(), channel("a")]);
        while !client.text().await.starts_with("42/a,") {}
    }
}
