//! How clients come to their end.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use evows_core::hub::ChannelName;
use evows_core::plugin::Transport;

use super::harness::{KEY, Running, channel, until, within};

on_every_engine!(
    draining_refuses_new_clients_and_closes_the_others_bit_by_bit,
    a_closed_polling_session_is_unknown_and_gone_at_once,
    a_channel_that_is_closed_and_opened_again_lets_its_clients_go,
    leaving_a_namespace_leaves_no_other,
    sessions_do_not_outlive_their_clients,
    a_client_that_joins_nothing_is_closed,
    garbage_and_oversize_close_the_connection,
    a_client_that_misses_a_ping_is_closed_and_counted,
);

const POLLING: &str = "/socket.io/?EIO=4&transport=polling";

async fn draining_refuses_new_clients_and_closes_the_others_bit_by_bit(engine: &str) {
    let running = Running::strict(engine, "").await;
    let mut clients = Vec::new();
    for _ in 0..10 {
        clients.push(running.joined("/a").await);
    }
    // One that has joined nothing, and one on polling.
    let mut idle = running.websocket("").await;
    let poller = running.polling("").await;
    assert_eq!(running.transport.clients(), 12);

    let over = Duration::from_secs(1);
    let started = Instant::now();
    let draining = tokio::spawn({
        let transport = running.transport.clone();
        async move { transport.drain(over).await }
    });
    let answer = within(async {
        loop {
            let answer = running.get(POLLING).await;
            if answer.status != 200 {
                return answer;
            }
        }
    })
    .await;
    assert_eq!(answer.status, 503);
    assert_eq!(answer.header("retry-after"), Some("1"));

    let mut ends = Vec::new();
    for mut client in clients {
        ends.push(tokio::spawn(async move {
            assert_eq!(client.rest().await, Vec::<String>::new());
            started.elapsed()
        }));
    }
    let answer = within(async {
        loop {
            let answer = poller.poll().await;
            if answer.status != 200 {
                return answer;
            }
        }
    })
    .await;
    assert_eq!(answer.body, r#"{"code":1,"message":"Session ID unknown"}"#);
    assert_eq!(idle.next().await, None);
    let mut times = Vec::new();
    for end in ends {
        times.push(within(end).await.unwrap());
    }
    let (first, last) = (times.iter().min().unwrap(), times.iter().max().unwrap());
    assert!(last.saturating_sub(*first) >= over / 4, "{times:?}");
    within(draining).await.unwrap();
    assert_eq!(running.transport.clients(), 0);
}

async fn a_closed_polling_session_is_unknown_and_gone_at_once(engine: &str) {
    let running = Running::strict(engine, "max_polling_sessions = 1").await;
    let poller = running.polling(&format!("apikey={KEY}")).await;
    poller.post("40/a,").await;
    poller.until("40/a,").await;
    let (answer, ()) = tokio::join!(poller.poll(), async {
        // The first ping is on its way or was taken; either way the channel's end comes next.
        running.hub.close(&channel("a"));
    });
    if answer.status == 200 {
        let answer = poller.poll().await;
        assert_eq!(answer.body, r#"{"code":1,"message":"Session ID unknown"}"#);
    }
    let answer = poller.post("3").await;
    assert_eq!(answer.status, 400);
    assert_eq!(answer.body, r#"{"code":1,"message":"Session ID unknown"}"#);
    // Its place is free long before its ping would have been missed.
    within(async { while running.get(POLLING).await.status != 200 {} }).await;
}

async fn a_channel_that_is_closed_and_opened_again_lets_its_clients_go(engine: &str) {
    let running = Running::strict(engine, "").await;
    let mut client = running.joined("/a").await;
    running.hub.close(&channel("a"));
    running.hub.open(&channel("a"));
    running.publish(r#"{"event":"e","instance":"a"}"#, &[channel("a")]);
    assert_eq!(client.next().await, None);
    let mut client = running.joined("/a").await;
    running.publish(r#"{"event":"f","instance":"a"}"#, &[channel("a")]);
    assert_eq!(
        client.text().await,
        r#"42/a,["f",{"event":"f","instance":"a"}]"#
    );
}

async fn leaving_a_namespace_leaves_no_other(engine: &str) {
    let running = Running::strict(engine, "").await;
    let every = [ChannelName::root(), channel("a"), channel("b")];
    let event = |n: usize| format!(r#"{{"event":"e","instance":"a","n":{n}}}"#);
    let packets = |names: &[&str], n: usize| {
        let packets = names
            .iter()
            .map(|name| format!(r#"42{name}["e",{}]"#, event(n)));
        packets.collect::<BTreeSet<_>>()
    };

    let mut client = running.joined("/").await;
    client.join("/a").await;
    client.join("/b").await;
    client.send("41/a,").await;
    // Packets are read in order: once this is answered, the one before was seen.
    client.send("40/unknown,").await;
    assert!(client.text().await.starts_with("44/unknown,"));
    running.publish(&event(1), &every);
    let got = BTreeSet::from([client.text().await, client.text().await]);
    assert_eq!(got, packets(&["", "/b,"], 1));
    client.join("/a").await;
    running.publish(&event(2), &every);
    let got = BTreeSet::from([
        client.text().await,
        client.text().await,
        client.text().await,
    ]);
    assert_eq!(got, packets(&["", "/a,", "/b,"], 2));

    let poller = running.polling(&format!("apikey={KEY}")).await;
    for name in ["", "/a,", "/b,"] {
        poller.post(&format!("40{name}")).await;
        poller.until(&format!("40{name}{{")).await;
    }
    poller.post("41/a,\x1e40/unknown,").await;
    poller.until("44/unknown,").await;
    running.publish(&event(3), &every);
    let got = BTreeSet::from_iter(poller.packets(2).await);
    assert_eq!(got, packets(&["", "/b,"], 3));
}

async fn sessions_do_not_outlive_their_clients(engine: &str) {
    let running = Running::strict(engine, "connect_timeout = \"200ms\"").await;
    for _ in 0..20 {
        drop(running.joined("/a").await);
        drop(running.websocket("").await);
        let poller = running.polling(&format!("apikey={KEY}")).await;
        poller.post("40/a,").await;
        poller.until("40/a,").await;
        poller.post("1").await;
        running.polling("").await;
    }
    until(|| running.transport.clients() == 0).await;
    let gauge = r#"evows_clients{component="clients"} 0"#;
    assert!(running.metrics.encode().contains(gauge));
}

async fn a_client_that_joins_nothing_is_closed(engine: &str) {
    let running = Running::strict(engine, "connect_timeout = \"100ms\"").await;
    let mut client = running.websocket(&format!("apikey={KEY}")).await;
    client.send("40/unknown,").await;
    let rest = client.rest().await;
    assert_eq!(
        rest.first().map(String::as_str),
        Some(r#"44/unknown,{"message":"Invalid namespace"}"#)
    );
}

async fn garbage_and_oversize_close_the_connection(engine: &str) {
    let running = Running::strict(engine, "max_payload = 1000").await;
    for packet in ["nonsense", "4x", &"4".repeat(2000)] {
        let mut client = running.joined("/a").await;
        client.send(packet).await;
        client.rest().await;
    }
    until(|| running.counted("clients_closed", "parse_error") >= 1).await;
    for (body, status) in [("nonsense".to_owned(), 400), ("4".repeat(2000), 413)] {
        let poller = running.polling("").await;
        assert_eq!(poller.post(&body).await.status, status);
        assert_eq!(
            poller.poll().await.body,
            r#"{"code":1,"message":"Session ID unknown"}"#
        );
    }
    // socketioxide does not say why a WebSocket broke.
    assert!(running.counted("clients_closed", "too_large") >= 1);
    until(|| running.transport.clients() == 0).await;
}

async fn a_client_that_misses_a_ping_is_closed_and_counted(engine: &str) {
    let running = Running::strict(
        engine,
        "ping_interval = \"100ms\"\nping_timeout = \"100ms\"",
    )
    .await;
    let poller = running.polling(&format!("apikey={KEY}")).await;
    poller.post("40/a,").await;
    until(|| running.counted("clients_closed", "ping_timeout") == 1).await;
    assert_eq!(running.transport.clients(), 0);
    assert_eq!(poller.poll().await.status, 400);
}
