//! Stopping: nothing that was accepted is lost, and clients know to come back.

use std::collections::HashSet;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::{Value, json};

use super::harness::{Connection, Evows, KEY, Listener, Setup, message, until};

on_every_engine!(clients_see_a_closed_transport_and_would_come_back,);

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
    until("events flow", || evows.stdout().all().len() > 100).await;
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

async fn clients_see_a_closed_transport_and_would_come_back(engine: &str) {
    let evows = Setup::policy("global").engine(engine).start().await;
    let client = |transports: Value| {
        let options = json!({"transports": transports, "query": {"apikey": KEY}});
        Listener::node(&json!({"url": evows.url("/"), "options": options}))
    };
    let mut websocket = client(json!(["websocket"]));
    let mut polling = client(json!(["polling"]));
    let mut upgraded = client(json!(["polling", "websocket"]));
    upgraded.next("upgrade").await;
    for client in [&mut websocket, &mut polling, &mut upgraded] {
        until("each is connected", || !client.all("connect").is_empty()).await;
    }

    evows.signal(Signal::TERM);
    let ended = evows.ended().await;
    assert_eq!(ended.status.code(), Some(0), "{}", ended.stderr);
    for client in [&mut websocket, &mut upgraded] {
        let gone = client.next("disconnect").await;
        assert_eq!(
            (&gone["reason"], &gone["active"]),
            (&json!("transport close"), &json!(true))
        );
    }
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
async fn an_open_standard_input_does_not_keep_it_alive() {
    for signal in [Signal::TERM, Signal::INT] {
        let mut evows = Setup::pipeline(
            "[sources.in]\ntype = \"stdin\"\n\
             [sinks.out]\ntype = \"stdout\"\ninputs = [\"in\"]\n",
        )
        .spawn();
        let line = message("loja1", "1").to_string();
        evows.write_stdin(&format!("{line}\n")).await;
        until("the line is out", || evows.stdout().all().len() == 1).await;
        evows.signal(signal);
        let stdin = evows.take_stdin();
        let ended = evows.ended().await;
        assert_eq!(ended.status.code(), Some(0), "{}", ended.stderr);
        assert_eq!(ended.stdout, [line]);
        drop(stdin);
    }
}

/// A request that never ends, so that the server does not stop by itself.
async fn unfinished(evows: &Evows) -> Connection {
    let mut connection = Connection::open(evows.address()).await.unwrap();
    let head = "POST /webhook HTTP/1.1\r\nhost: localhost\r\n\
                content-type: application/json\r\ncontent-length: 100\r\n\r\n{";
    connection.send(head.as_bytes()).await.unwrap();
    connection
}

#[tokio::test]
async fn signals_back_to_back_are_one() {
    let evows = Setup::policy("global").start().await;
    evows.create("loja1").await;
    let mut held = unfinished(&evows).await;
    evows.signal(Signal::INT);
    evows.signal(Signal::TERM);
    until("it stops", || evows.stderr().text().contains("stopping")).await;
    evows.signal(Signal::TERM);
    // Time for a forced stop to show: without one nothing happens until the request is whole.
    tokio::time::sleep(Duration::from_millis(300)).await;
    let body = format!("{:<98}}}", "");
    held.send(body.as_bytes()).await.unwrap();
    held.reply().await.expect("the request is answered");
    let ended = evows.ended().await;
    assert_eq!(ended.status.code(), Some(0), "{}", ended.stderr);
    assert!(ended.stderr.contains(" stopped "), "{}", ended.stderr);
}

#[tokio::test]
async fn a_second_signal_a_while_later_ends_it_at_once_and_in_order() {
    let evows = Setup::policy("global")
        .server("drain_timeout = \"15s\"")
        .server("shutdown_timeout = \"60s\"")
        .start()
        .await;
    let held = unfinished(&evows).await;
    let started = std::time::Instant::now();
    // The first is the signal to stop; the others come until one of them is late enough to be a second.
    until("it stops at once", || {
        evows.try_signal(Signal::TERM);
        evows.stderr().text().contains("second signal")
    })
    .await;
    let ended = evows.ended().await;
    assert!(started.elapsed().as_secs() < 15);
    assert_eq!(ended.status.code(), Some(75), "{}", ended.stderr);
    assert!(ended.stderr.contains("second signal"), "{}", ended.stderr);
    assert!(ended.stderr.contains(" stopped"), "{}", ended.stderr);
    drop(held);
}
