//! Values that are looked up: in a file, and over HTTP.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use evows::axum::Router;
use evows::axum::extract::{Path, State};
use evows::axum::http::StatusCode;
use evows::axum::routing::get;
use serde_json::{Value, json};

use super::harness::{Ended, Setup, message};

async fn run(filter: &str, events: &[Value]) -> Ended {
    run_in(Setup::pipeline, filter, events).await
}

async fn run_in(setup: fn(&str) -> Setup, filter: &str, events: &[Value]) -> Ended {
    let text = format!(
        "[sources.in]\ntype = \"stdin\"\n\
         [filters.who]\ntype = \"enrich\"\ninputs = [\"in\"]\nkey = \"instance\"\ntarget = \"data.shop\"\n{filter}\n\
         [sinks.out]\ntype = \"stdout\"\ninputs = [\"who\"]\n"
    );
    let mut evows = setup(&text).spawn();
    for event in events {
        evows.write_stdin(&format!("{event}\n")).await;
    }
    evows.close_stdin();
    evows.ended().await
}

fn shops(ended: &Ended) -> Vec<Value> {
    let lines = ended.stdout.iter();
    lines
        .map(|line| serde_json::from_str::<Value>(line).unwrap()["data"]["shop"].clone())
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_is_asked_once_for_each_key_and_the_order_stays() {
    let asked = Arc::new(AtomicUsize::new(0));
    let answer = |State(asked): State<Arc<AtomicUsize>>, Path(key): Path<String>| async move {
        asked.fetch_add(1, Ordering::Relaxed);
        // The first one takes longest.
        let wait = if key == "i0" { 200 } else { 0 };
        tokio::time::sleep(std::time::Duration::from_millis(wait)).await;
        match key.as_str() {
            "i3" => (StatusCode::NOT_FOUND, String::new()),
            _ => (StatusCode::OK, json!({"name": key}).to_string()),
        }
    };
    let router = Router::new().route("/shops/{key}", get(answer));
    let router = router.with_state(Arc::clone(&asked));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { evows::axum::serve(listener, router).await });

    let events: Vec<_> = (0..40)
        .map(|n| message(&format!("i{}", n % 4), "id"))
        .collect();
    let filter = format!("http = {{ url = \"http://{address}/shops/{{key}}\" }}");
    let ended = run(&filter, &events).await;
    assert!(ended.status.success(), "{}", ended.stderr);
    let expected: Vec<_> = (0..40)
        .map(|n| match n % 4 {
            3 => Value::Null,
            n => json!({"name": format!("i{n}")}),
        })
        .collect();
    assert_eq!(shops(&ended), expected);
    assert_eq!(asked.load(Ordering::Relaxed), 4);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_that_is_down_fails_events_and_a_file_is_read() {
    let events = [message("i", "1"), message("i", "2")];
    let down = "http = { url = \"http://127.0.0.1:1/{key}\" }";
    let ended = run(down, &events).await;
    assert!(ended.stdout.is_empty());
    assert!(
        ended.stderr.contains("2 failed (lookup_failed)"),
        "{}",
        ended.stderr
    );

    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("shops.csv");
    std::fs::write(&path, "id,city\ni,Recife\n").unwrap();
    let file = format!("file = \"{}\"", path.display());
    let city = json!({"id": "i", "city": "Recife"});
    assert_eq!(shops(&run(&file, &events).await), [city.clone(), city]);
}

/// A service that answers after this many milliseconds, or never.
async fn slow(wait: Option<u64>) -> std::net::SocketAddr {
    let answer = move |Path(key): Path<String>| async move {
        match wait {
            Some(wait) => tokio::time::sleep(std::time::Duration::from_millis(wait)).await,
            None => std::future::pending().await,
        }
        json!({"name": key}).to_string()
    };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let router = Router::new().route("/{key}", get(answer));
    tokio::spawn(async move { evows::axum::serve(listener, router).await });
    address
}

fn hurried(text: &str) -> Setup {
    Setup::pipeline(text).server("shutdown_timeout = \"1s\"")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn when_the_input_has_ended_slow_lookups_are_waited_for_and_stuck_ones_are_not() {
    let events: Vec<_> = (0..40).map(|n| message(&format!("i{n}"), "id")).collect();
    // Two seconds in all, twice what a stop may take.
    let address = slow(Some(100)).await;
    let filter = format!("http = {{ url = \"http://{address}/{{key}}\" }}\nconcurrency = 2");
    let ended = run_in(hurried, &filter, &events).await;
    assert!(ended.status.success(), "{}", ended.stderr);
    assert_eq!(shops(&ended).len(), 40);

    let address = slow(None).await;
    let filter = format!("http = {{ url = \"http://{address}/{{key}}\" }}\ntimeout = \"10m\"");
    let ended = run_in(hurried, &filter, &events).await;
    assert_eq!(ended.status.code(), Some(75), "{}", ended.stderr);
    assert!(
        ended.stderr.contains("40 failed (deadline)"),
        "{}",
        ended.stderr
    );
}
