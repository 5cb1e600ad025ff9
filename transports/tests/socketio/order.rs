//! In what order events come where one connection has joined several namespaces.

use evows_core::hub::ChannelName;

use super::harness::{KEY, Running, channel};

on_every_engine!(
    threads(4),
    root_comes_first_on_one_connection,
    a_client_that_has_left_root_does_not_wait_for_it,
    each_namespace_of_a_connection_gets_its_own_events_once_and_in_order,
);

/// The namespaces of one connection, and how a packet names each.
const NAMESPACES: [(&str, &str); 3] = [("/", ""), ("/a", "/a,"), ("/b", "/b,")];

/// Publishes events for one namespace after the other; gives the packets that each of them must get.
fn publish_in_turn(running: &Running, count: usize) -> [Vec<String>; 3] {
    let channels = [ChannelName::root(), channel("a"), channel("b")];
    let mut expected = [const { Vec::new() }; 3];
    for n in 0..count {
        let at = n % channels.len();
        let envelope = format!(r#"{{"event":"e","instance":"x","n":{n}}}"#);
        running.publish(&envelope, &channels[at..=at]);
        expected[at].push(format!(r#"42{}["e",{envelope}]"#, NAMESPACES[at].1));
    }
    expected
}

/// Sorts packets by their namespace.
fn by_namespace(packets: Vec<String>) -> [Vec<String>; 3] {
    let mut sorted = [const { Vec::new() }; 3];
    for packet in packets {
        let at = NAMESPACES
            .iter()
            .rposition(|(_, name)| packet.starts_with(&format!("42{name}")));
        sorted[at.expect("an event")].push(packet);
    }
    sorted
}

async fn root_comes_first_on_one_connection(engine: &str) {
    let running = Running::strict(engine, "").await;
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

async fn a_client_that_has_left_root_does_not_wait_for_it(engine: &str) {
    let running = Running::strict(engine, "").await;
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

async fn each_namespace_of_a_connection_gets_its_own_events_once_and_in_order(engine: &str) {
    let running = Running::strict(engine, "").await;
    let mut client = running.websocket(&format!("apikey={KEY}")).await;
    let poller = running.polling(&format!("apikey={KEY}")).await;
    for (namespace, name) in NAMESPACES {
        client.join(namespace).await;
        poller.post(&format!("40{name}")).await;
        poller.until(&format!("40{name}{{")).await;
    }
    let count = 600;
    let expected = publish_in_turn(&running, count);

    let mut packets = Vec::new();
    while packets.len() < count {
        packets.push(client.text().await);
    }
    assert_eq!(by_namespace(packets), expected);

    let packets = poller.packets(count).await;
    assert_eq!(by_namespace(packets), expected);
}
