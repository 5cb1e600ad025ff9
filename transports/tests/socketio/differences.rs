//! Where engines differ on the wire. Node's server, and so every engine of our own, is the rule; what socketioxide does
//! otherwise is written out. Stock clients get along with either.

use tokio_tungstenite::tungstenite::Message;

use super::harness::{Client, KEY, Running, channel};

on_every_engine!(
    session_ids,
    the_first_ping,
    a_second_connect,
    events_for_namespaces_that_were_not_joined,
);

/// A WebSocket with the global key; nothing was read from it yet.
async fn opened(running: &Running) -> Client {
    Client::open(running.address, &format!("apikey={KEY}")).await
}

/// The `sid` in a packet.
fn sid(packet: &str) -> &str {
    let (_, rest) = packet.split_once(r#""sid":""#).expect("a sid");
    rest.split_once('"').expect("its end").0
}

/// Says something that is answered, once everything sent before was seen: packets are read in order.
async fn is_alive(client: &mut Client) {
    client.send("40/unknown,").await;
    assert!(client.text().await.starts_with("44/unknown,"));
}

async fn session_ids(engine: &str) {
    let running = Running::strict(engine, "").await;
    let mut client = opened(&running).await;
    let open = client.text().await;
    client.send("40/a,").await;
    let joined = client.text().await;
    let (session, socket) = (sid(&open), sid(&joined));
    if engine == "socketioxide" {
        // 12 bytes in base64, and the same id for the session and its namespaces.
        assert_eq!((session.len(), socket), (16, session));
    } else {
        assert_eq!((session.len(), socket.len()), (20, 20));
        // Who knows the one must not be able to speak as the other.
        assert_ne!(session, socket);
    }
}

async fn the_first_ping(engine: &str) {
    let running = Running::strict(engine, "").await;
    let mut client = opened(&running).await;
    client.text().await;
    if engine == "socketioxide" {
        // At once, instead of after an interval.
        assert_eq!(client.frame().await, Some(Message::text("2")));
    } else {
        client.send("40/a,").await;
        let joined = client.frame().await.expect("an answer").into_text();
        assert!(joined.as_ref().unwrap().starts_with("40/a,"), "{joined:?}");
    }
}

async fn a_second_connect(engine: &str) {
    let running = Running::strict(engine, "").await;
    for packet in ["40/a,", "40/a,{\"garbage"] {
        let mut client = running.joined("/a").await;
        client.send(packet).await;
        if engine == "socketioxide" {
            // Ignored, whatever it carries; the namespace stays joined.
            is_alive(&mut client).await;
            let envelope = r#"{"event":"e","instance":"a"}"#;
            running.publish(envelope, &[channel("a")]);
            assert_eq!(client.text().await, format!(r#"42/a,["e",{envelope}]"#));
        } else {
            assert_eq!(client.rest().await, Vec::<String>::new(), "{packet}");
        }
    }
}

async fn events_for_namespaces_that_were_not_joined(engine: &str) {
    let running = Running::strict(engine, "").await;
    let mut client = running.joined("/a").await;
    client.send(r#"42/b,["x"]"#).await;
    // socketioxide says so first, with a packet that closes the session.
    let rest: &[&str] = if engine == "socketioxide" {
        &["1"]
    } else {
        &[]
    };
    assert_eq!(client.rest().await, rest);

    let mut client = running.joined("/a").await;
    client.send(r#"42/nowhere,["x"]"#).await;
    if engine == "socketioxide" {
        // Ignored where there is no such namespace.
        is_alive(&mut client).await;
    } else {
        assert_eq!(client.rest().await, Vec::<String>::new());
    }
}
