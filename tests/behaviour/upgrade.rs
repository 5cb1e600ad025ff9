//! Clients that begin on long-polling and move to a websocket, while events come without a pause.

use serde_json::{Value, json};

use super::harness::{KEY, Listener, Load, Setup, envelope, until};

on_every_engine!(an_upgrade_under_load_loses_and_repeats_nothing);

/// An event with a number; two of three have attachments, which say the number again.
fn numbered(id: u64) -> Value {
    let bytes = id.to_be_bytes();
    let indexed: serde_json::Map<_, _> = (0..)
        .map(|at: u8| at.to_string())
        .zip(bytes.map(Value::from))
        .collect();
    let attachments = vec![Value::Object(indexed); usize::try_from(id % 3).expect("below 3")];
    let data = json!({"id": id, "attachments": attachments});
    envelope("messages.upsert", "loja1", &data)
}

async fn an_upgrade_under_load_loses_and_repeats_nothing(engine: &str) {
    let evows = Setup::policy("global").engine(engine).start().await;
    let load = Load::start(&evows, numbered);
    let options = json!({"query": {"apikey": KEY}, "transports": ["polling", "websocket"]});
    let client = || Listener::node(&json!({"url": evows.url("/"), "options": options}));
    let mut clients: Vec<_> = std::iter::repeat_with(client).take(4).collect();
    let mut joined = Vec::new();
    for client in &mut clients {
        client.next("connect").await;
        joined.push(load.answered());
    }
    for client in &clients {
        until("it is upgraded", || client.has_printed("upgrade")).await;
    }
    load.go_on(200).await;
    let count = load.stop().await;

    for (client, joined) in clients.iter_mut().zip(joined) {
        let mut next = None;
        while next != Some(count) {
            let (_, envelope) = client.event().await;
            let id = envelope["data"]["id"].as_u64().expect("a number");
            match next {
                None => assert!(id <= joined, "it joined after {joined}, and got {id} first"),
                Some(next) => assert_eq!(id, next, "of {count}"),
            }
            let bytes = id.to_be_bytes().map(|byte| format!("{byte:02x}")).concat();
            let attachments = envelope["data"]["attachments"].as_array();
            let attachments = attachments.expect("a list");
            assert_eq!(attachments.len() as u64, id % 3);
            for attachment in attachments {
                assert_eq!(attachment, &json!({"$binary": bytes}));
            }
            next = Some(id + 1);
        }
        assert_eq!(client.all("disconnect"), Vec::<Value>::new());
    }
}
