//! Fast, slow and stalled clients.

use std::time::{Duration, Instant};

use evows_core::access::Compat;
use evows_core::hub::Retention;
use tokio_tungstenite::tungstenite::Message;

use super::harness::{KEY, Running, channel, until, within};

on_every_engine!(
    threads(2),
    a_burst_beyond_the_queue_loses_nothing,
    a_stalled_client_is_closed_and_others_are_not_delayed,
    a_client_that_the_log_has_left_behind_is_closed,
    a_slow_client_that_keeps_reading_gets_everything,
    a_slow_poller_gets_everything,
);

fn envelope(n: usize, text: &str) -> String {
    format!(r#"{{"event":"e","instance":"a","n":{n},"text":"{text}"}}"#)
}

async fn a_burst_beyond_the_queue_loses_nothing(engine: &str) {
    let running = Running::strict(engine, "").await;
    let mut clients = Vec::new();
    for _ in 0..10 {
        clients.push(running.joined("/a").await);
    }
    let poller = running.polling(&format!("apikey={KEY}")).await;
    poller.post("40/a,").await;
    poller.until("40/a,").await;
    let count = 3_000;
    for n in 0..count {
        running.publish(&envelope(n, ""), &[channel("a")]);
    }
    for client in &mut clients {
        for n in 0..count {
            let text = client.text().await;
            assert!(text.contains(&format!(r#""n":{n},"#)), "{n}: {text}");
        }
    }
    let mut next = 0;
    while next < count {
        for packet in poller.until("42/a,").await {
            assert!(
                packet.contains(&format!(r#""n":{next},"#)),
                "{next}: {packet}"
            );
            next += 1;
        }
    }
    let deliveries = r#"evows_deliveries_total{component="clients"} 33000"#;
    assert!(running.metrics.encode().contains(deliveries));
}

async fn a_stalled_client_is_closed_and_others_are_not_delayed(engine: &str) {
    let running = Running::strict(engine, "max_lag = \"300ms\"").await;
    // It never reads.
    let mut stalled = running.joined("/a").await;
    let mut healthy = running.joined("/a").await;
    let text = "x".repeat(64 * 1024);
    let mut slowest = Duration::ZERO;
    let mut n = 0;
    let give_up = Instant::now() + Duration::from_secs(20);
    while running.counted("clients_closed", "slow") == 0 {
        assert!(
            Instant::now() < give_up,
            "nobody was closed after {n} events"
        );
        let sent = Instant::now();
        running.publish(&envelope(n, &text), &[channel("a")]);
        let got = healthy.text().await;
        slowest = slowest.max(sent.elapsed());
        assert!(got.contains(&format!(r#""n":{n},"#)));
        n += 1;
    }
    assert!(slowest < Duration::from_secs(2), "{slowest:?}");
    assert_eq!(running.counted("undelivered", "slow"), 1);
    // What it was sent before is whole and in order; then its connection ends, without a packet that says so.
    let mut next = 0;
    while let Some(message) = stalled.next().await {
        let Message::Text(text) = message else {
            panic!("{message:?}");
        };
        assert!(text.contains(&format!(r#""n":{next},"#)));
        next += 1;
    }
    assert!(next < n);
    until(|| running.hub.channel(&channel("a")).is_some() && clients(&running) == 1).await;
}

fn clients(running: &Running) -> usize {
    use evows_core::plugin::Transport;

    running.transport.clients()
}

async fn a_client_that_the_log_has_left_behind_is_closed(engine: &str) {
    let retention = Retention {
        events: 50,
        ..Retention::default()
    };
    let running = Running::start(engine, Compat::Strict, "max_lag = \"1m\"", &[], retention).await;
    let _stalled = running.joined("/a").await;
    let text = "x".repeat(64 * 1024);
    let mut n = 0;
    within(async {
        while running.counted("clients_closed", "gap") == 0 {
            running.publish(&envelope(n, &text), &[channel("a")]);
            n += 1;
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await;
    assert_eq!(running.counted("undelivered", "gap"), 1);
}

async fn a_slow_client_that_keeps_reading_gets_everything(engine: &str) {
    // Pings come often, so that many of them meet a client that is far behind.
    let running = Running::strict(engine, "ping_interval = \"50ms\"\nping_timeout = \"20s\"").await;
    let mut slow = running.joined("/a").await;
    let text = "x".repeat(16 * 1024);
    let count = 1_500;
    for n in 0..count {
        running.publish(&envelope(n, &text), &[channel("a")]);
    }
    for n in 0..count {
        let got = slow.text().await;
        assert!(got.contains(&format!(r#""n":{n},"#)));
        // This is what makes it slow.
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert_eq!(clients(&running), 1);
}

async fn a_slow_poller_gets_everything(engine: &str) {
    let running = Running::strict(engine, "ping_interval = \"50ms\"\nping_timeout = \"20s\"").await;
    let poller = running.polling(&format!("apikey={KEY}")).await;
    poller.post("40/a,").await;
    poller.until("40/a,").await;
    let count = 2_000;
    for n in 0..count {
        running.publish(&envelope(n, ""), &[channel("a")]);
    }
    let mut next = 0;
    while next < count {
        // This is what makes it slow.
        tokio::time::sleep(Duration::from_millis(100)).await;
        for packet in poller.until("42/a,").await {
            assert!(
                packet.contains(&format!(r#""n":{next},"#)),
                "{next}: {packet}"
            );
            next += 1;
        }
    }
    assert_eq!(clients(&running), 1);
}
