//! What is on the disk behind what channels retain: for clients that come back late, and for slow ones.

use serde_json::{Value, json};

use super::harness::{Evows, Frames, KEY, Listener, Setup, message};
use super::resume::Member;
use super::streams::{Events, Plain, id};

/// Events that a channel retains in memory.
const RING: u64 = 10;
const COUNT: u64 = 3_000;

fn setup(more: &str) -> Setup {
    let pipeline = format!(
        "[history]\nenabled = true\n\
         [transports.plain]\ntype = \"websocket\"\n[transports.events]\ntype = \"sse\"\n\
         [sources.in]\ntype = \"webhook\"\n\
         [sinks.clients]\ntype = \"socketio\"\npolicy = \"both\"\ninputs = [\"in\"]\n{more}"
    );
    Setup::pipeline(&pipeline).hub(&format!("events = {RING}"))
}

/// Posts so many events in bodies of a hundred, in turns of two instances.
async fn post(evows: &Evows, ids: std::ops::Range<u64>) {
    let ids: Vec<u64> = ids.collect();
    for ids in ids.chunks(100) {
        let events: Vec<Value> = ids.iter().map(|id| numbered(*id)).collect();
        let headers = [("content-type", "application/json")];
        let body = Value::from(events).to_string();
        let reply = evows.request("POST", "/webhook", &headers, &body).await;
        assert_eq!(reply.status, 200, "{}", reply.body);
    }
}

fn numbered(id: u64) -> Value {
    message(
        if id.is_multiple_of(2) { "a" } else { "b" },
        &id.to_string(),
    )
}

/// One with many more events than it retains, which has been killed since.
async fn evows() -> Evows {
    let evows = setup("").start().await;
    evows.create_and_set("a", &[]).await;
    evows.create_and_set("b", &[]).await;
    post(&evows, 0..COUNT).await;
    evows.crash().await
}

fn texts(ids: impl Iterator<Item = u64>) -> Vec<String> {
    ids.map(|id| id.to_string()).collect()
}

#[tokio::test]
async fn stock_clients_get_everything_since_the_beginning() {
    let evows = evows().await;
    for transport in ["websocket", "polling"] {
        let mut clients = ["/", "/a"].map(|namespace| {
            Listener::resuming_node(&json!({
                "url": evows.url(namespace),
                "options": {
                    "query": {"apikey": KEY}, "transports": [transport], "auth": {"since": "earliest"},
                },
                "drops": 0,
            }))
        });
        let wanted = [texts(0..COUNT), texts((0..COUNT).step_by(2))];
        for (client, wanted) in clients.iter_mut().zip(wanted) {
            let mut got = Vec::new();
            while got.len() < wanted.len() {
                let line = client.line().await;
                got.extend(line["id"].as_str().map(str::to_owned));
            }
            assert_eq!(got, wanted, "{transport}");
        }
    }
}

#[tokio::test]
async fn a_client_recovers_over_a_crash_from_far_behind() {
    let evows = setup("").start().await;
    evows.create_and_set("a", &[]).await;
    let auth = json!({"recover": true});
    let mut first = Member::join(&evows, &auth).await;
    post(&evows, 0..COUNT).await;
    let (seen, position) = first.message().await;
    assert_eq!(seen, "0");
    let evows = evows.crash().await;
    let auth = json!({"recover": true, "pid": first.pid(), "offset": position});
    let mut again = Member::join(&evows, &auth).await;
    assert_eq!(again.pid(), first.pid(), "recovered");
    again.gets(1..COUNT).await;
    post(&evows, COUNT..COUNT + 5).await;
    again.gets(COUNT..COUNT + 5).await;
}

#[tokio::test]
async fn plain_clients_and_pages_reach_as_far() {
    let evows = evows().await;
    let path = format!("/ws/b?apikey={KEY}&since=earliest");
    let mut plain = Plain::open(&evows, &path).await.unwrap();
    let ready = plain.next().await.unwrap()["_evows"]["ready"].clone();
    assert_eq!(
        (&ready["recovered"], &ready["gap"]),
        (&json!(true), &Value::Null)
    );
    let (_, mut events) = Events::open(&evows, "/sse?since=-5m", "").await;
    assert_eq!(events.next().await.name, "evows:ready");
    for number in 0..COUNT {
        if !number.is_multiple_of(2) {
            assert_eq!(id(&plain.next().await.unwrap()), number.to_string());
        }
        assert_eq!(id(&events.next().await.data), number.to_string());
    }

    let (mut since, mut seen) = ("earliest".to_owned(), Vec::new());
    loop {
        let path = format!("/history/a?limit=700&since={since}");
        let page = evows.call("GET", &path, &Value::Null).await.json();
        assert_eq!(page["gap"], Value::Null);
        let entries = page["entries"].as_array().unwrap();
        seen.extend(entries.iter().map(|it| id(&it["event"]).to_owned()));
        page["next"].as_str().unwrap().clone_into(&mut since);
        if page["next"] == page["head"] {
            break;
        }
    }
    assert_eq!(seen, texts((0..COUNT).step_by(2)));
}

#[tokio::test]
async fn who_has_one_channel_far_behind_gets_another_meanwhile() {
    let evows = evows().await;
    let mut frames = Frames::connect(&evows).await;
    frames.join("/b").await;
    frames.send(r#"40/a,{"since":"earliest"}"#).await;
    post(&evows, COUNT..COUNT + 2).await;
    let (mut a, mut b) = (0, 0);
    while (a, b) != (COUNT / 2 + 1, 1) {
        let packet = frames.text().await;
        a += u64::from(packet.starts_with(r#"42/a,["messages.upsert""#));
        b += u64::from(packet.starts_with(r#"42/b,["messages.upsert""#));
    }
}

/// More than the sockets between take, and the ring holds.
async fn post_much(evows: &Evows) -> Vec<String> {
    let text = "x".repeat(128 * 1024);
    let ids: Vec<String> = (0..60).map(|id| format!("{id} {text}")).collect();
    for id in &ids {
        evows.post(&message("a", id)).await;
    }
    ids
}

on_every_engine!(a_slow_client_reads_on_from_the_disk);

async fn a_slow_client_reads_on_from_the_disk(engine: &str) {
    let transport =
        format!("[sinks.clients.transport]\nengine = \"{engine}\"\nmax_lag = \"10m\"\n");
    let evows = setup(&transport).start().await;
    let mut frames = Frames::connect_narrow(&evows).await;
    frames.join("/").await;
    let ids = post_much(&evows).await;
    for wanted in ids {
        let packet = frames.text().await;
        assert!(packet.contains(&wanted), "{packet:.100}, not {wanted:.10}");
    }
}

#[tokio::test]
async fn a_slow_plain_client_reads_on_from_the_disk() {
    let evows = setup("").start().await;
    let path = format!("/ws?apikey={KEY}");
    let mut plain = Plain::open(&evows, &path).await.unwrap();
    for wanted in post_much(&evows).await {
        assert!(id(&plain.next().await.unwrap()) == wanted, "{wanted:.10}");
    }
}

#[tokio::test]
async fn the_copy_of_the_root_comes_first_however_far_behind_that_is() {
    let evows = evows().await;
    let mut frames = Frames::connect(&evows).await;
    frames.join("/a").await;
    frames.send(r#"40{"since":"earliest"}"#).await;
    post(&evows, COUNT..COUNT + 2).await;
    let (mut root, mut a) = (0, 0);
    while (root, a) != (COUNT + 2, 1) {
        let packet = frames.text().await;
        root += u64::from(packet.starts_with(r#"42["messages.upsert""#));
        if packet.starts_with(r#"42/a,["messages.upsert""#) {
            a += 1;
            assert!(root > COUNT, "only {root} of the root's were there");
        }
    }
}
