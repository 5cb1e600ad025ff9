//! How clients come to their end.

use std::time::{Duration, Instant};

use evows_core::plugin::Transport;

use super::harness::{KEY, Running, channel, until, within};

const POLLING: &str = "/socket.io/?EIO=4&transport=polling";

#[tokio::test]
async fn draining_refuses_new_clients_and_closes_the_others_bit_by_bit() {
    let running = Running::strict("").await;
    let mut clients = Vec::new();
    for _ in 0..10 {
        clients.push(running.joined("/a").await);
    }
    // One that has joined nothing, and one on polling.
    let mut idle = running.websocket("").await;
    let poller = running.polling("").await;
    assert_eq!(running.transport.clients(), 12);

    let over = Duration::from_millis(600);
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
    assert!(last.saturating_sub(*first) >= over / 3, "{times:?}");
    within(draining).await.unwrap();
    assert_eq!(running.transport.clients(), 0);
}

#[tokio::test]
async fn a_closed_polling_session_is_unknown_and_gone_at_once() {
    let running = Running::strict("max_polling_sessions = 1").await;
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

#[tokio::test]
async fn a_channel_that_is_closed_and_opened_again_lets_its_clients_go() {
    let running = Running::strict("").await;
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

#[tokio::test]
async fn sessions_do_not_outlive_their_clients() {
    let running = Running::strict("connect_timeout = \"200ms\"").await;
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

#[tokio::test]
async fn a_client_that_joins_nothing_is_closed() {
    let running = Running::strict("connect_timeout = \"100ms\"").await;
    let mut client = running.websocket(&format!("apikey={KEY}")).await;
    client.send("40/unknown,").await;
    let rest = client.rest().await;
    assert_eq!(
        rest.first().map(String::as_str),
        Some(r#"44/unknown,{"message":"Invalid namespace"}"#)
    );
}

#[tokio::test]
async fn garbage_and_oversize_close_the_connection() {
    let running = Running::strict("max_payload = 1000").await;
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

#[tokio::test]
async fn a_client_that_misses_a_ping_is_closed_and_counted() {
    let running = Running::strict("ping_interval = \"100ms\"\nping_timeout = \"100ms\"").await;
    let poller = running.polling(&format!("apikey={KEY}")).await;
    poller.post("40/a,").await;
    until(|| running.counted("clients_closed", "ping_timeout") == 1).await;
    assert_eq!(running.transport.clients(), 0);
    assert_eq!(poller.poll().await.status, 400);
}
