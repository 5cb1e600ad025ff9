//! Stopping: nothing that was accepted is lost, and clients know to come back.

use std::collections::HashSet;

use rustix::process::Signal;
use serde_json::{Value, json};

use super::harness::{Connection, KEY, Listener, Setup, message};

fn ids(lines: &[String]) -> Vec<String> {
    let parsed = lines.iter().map(|line| serde_json::from_str::<Value>(line));
    parsed
        .map(|envelope| {
            let envelope = envelope.expect("a line of JSON");
            envelope["data"]["key"]["id"]
                .as_str()
                .expect("an id")
                .to_owned()
        })
        .collect()
}

#[tokio::test]
async fn every_event_answered_200_reaches_its_sink() {
    let evows = Setup::pipeline(
        "[sources.in]\ntype = \"webhook\"\n\
         [sinks.out]\ntype = \"stdout\"\ninputs = [\"in\"]\n",
    )
    .start()
    .await;

    let address = evows.address();
    let poster = tokio::spawn(async move {
        let mut answered = Vec::new();
        let mut connection = Connection::open(address).await.unwrap();
        for id in 0..100_000 {
            let body = message("loja1", &id.to_string()).to_string();
            let headers = [("content-type", "application/json")];
            match connection
                .try_request("POST", "/webhook", &headers, &body)
                .await
            {
                Ok(reply) if reply.status == 200 => answered.push(id.to_string()),
                _ => break,
            }
        }
        answered
    });
    super::harness::until("events flow", || evows.stdout().all().len() > 100).await;
    evows.signal(Signal::TERM);
    let answered = poster.await.unwrap();
    let ended = evows.ended().await;
    assert_eq!(ended.status.code(), Some(0), "{}", ended.stderr);

    assert!(answered.len() > 100);
    let written: HashSet<_> = ids(&ended.stdout).into_iter().collect();
    let lost: Vec<_> = answered
        .iter()
        .filter(|id| !written.contains(*id))
        .collect();
    assert!(lost.is_empty(), "answered 200 and lost: {lost:?}");
}

#[tokio::test]
async fn clients_see_a_closed_transport_and_would_come_back() {
    let evows = Setup::policy("global").start().await;
    let client = |transport: &str| {
        let options = json!({"transports": [transport], "query": {"apikey": KEY}});
        Listener::node(&json!({"url": evows.url("/"), "options": options}))
    };
    let mut websocket = client("websocket");
    let mut polling = client("polling");
    websocket.next("connect").await;
    polling.next("connect").await;

    evows.signal(Signal::TERM);
    let ended = evows.ended().await;
    assert_eq!(ended.status.code(), Some(0), "{}", ended.stderr);
    let gone = websocket.next("disconnect").await;
    assert_eq!(
        (&gone["reason"], &gone["active"]),
        (&json!("transport close"), &json!(true))
    );
    let gone = polling.next("disconnect").await;
    assert_eq!(gone["active"], true, "{gone}");
}

#[tokio::test]
async fn the_end_of_standard_input_ends_the_process_with_every_line_out() {
    let mut evows = Setup::pipeline(
        "[sources.in]\ntype = \"stdin\"\n\
         [sinks.out]\ntype = \"stdout\"\ninputs = [\"in\"]\n",
    )
    .spawn();
    let sent: Vec<_> = (0..5_000)
        .map(|id| message("loja1", &id.to_string()))
        .collect();
    for chunk in sent.chunks(500) {
        let lines: Vec<_> = chunk.iter().map(Value::to_string).collect();
        evows
            .write_stdin(
                &(lines.join(
                    "
",
                ) + "
"),
            )
            .await;
    }
    evows.close_stdin();
    let ended = evows.ended().await;
    assert_eq!(ended.status.code(), Some(0), "{}", ended.stderr);
    let expected: Vec<_> = sent.iter().map(Value::to_string).collect();
    assert!(
        ended.stdout == expected,
        "{} lines of {}",
        ended.stdout.len(),
        expected.len()
    );
}

#[tokio::test]
async fn a_second_signal_ends_it_at_once() {
    let evows = Setup::policy("global")
        .server("drain_timeout = \"15s\"")
        .server("shutdown_timeout = \"30s\"")
        .start()
        .await;
    let options = json!({"transports": ["websocket"], "query": {"apikey": KEY}});
    let mut client = Listener::node(&json!({"url": evows.url("/"), "options": options}));
    client.next("connect").await;
    let started = std::time::Instant::now();
    evows.signal(Signal::TERM);
    evows.signal(Signal::INT);
    evows.ended().await;
    assert!(started.elapsed().as_secs() < 15);
}
