//! The sink in a running pipeline, with core's retries, lanes and breaker.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use evows_core::config::{BufferConfig, Input};
use evows_core::delivery::Delivery;
use evows_core::metrics::Metrics;
use evows_core::plugin::{Environment, SinkPlugin, Source, SourceError};
use evows_core::topology::{Outlet, Part, Plan, Running, SinkPart};
use evows_core::{Event, Outcome, Receipt, Shutdown};
use http_body_util::Full;
use hyper::{HeaderMap, Request, StatusCode};
use parking_lot::Mutex;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::super::{Config, Webhook};
use super::rig::{LOCAL, Rig, event};
use crate::client::server::Server;
use crate::client::{Answer, Exchange, Failure, Take, Trust};

/// Sends batches of one event, and hands out their receipts.
struct Events(Vec<Event>, mpsc::UnboundedSender<Receipt>);

#[async_trait]
impl Source for Events {
    async fn run(self: Box<Self>, mut outlet: Outlet, _: Shutdown) -> Result<(), SourceError> {
        for event in self.0 {
            let receipt = outlet.send_tracked(vec![event]).await;
            self.1.send(receipt).ok();
        }
        Ok(())
    }
}

fn start(sink: Webhook, events: Vec<Event>) -> (Running, mpsc::UnboundedReceiver<Receipt>) {
    let (sender, receipts) = mpsc::unbounded_channel();
    let mut plan = Plan::default();
    plan.sources.push(Part {
        id: "in".into(),
        built: Box::new(Events(events, sender)) as Box<dyn Source>,
        rebuild: Box::new(|| unreachable!("the source does not fail")),
    });
    plan.sinks.push(SinkPart {
        journal: None,
        part: Part {
            id: "hooks".into(),
            built: Box::new(sink),
            rebuild: Box::new(|| unreachable!("the sink does not panic")),
        },
        inputs: vec![Input {
            id: "in".into(),
            port: None,
        }],
        buffer: BufferConfig::default(),
        delivery: delivery(),
        required: true,
    });
    (plan.start(&Metrics::new()).unwrap(), receipts)
}

fn delivery() -> Delivery {
    Webhook::delivery(&Config::default(), &Environment::default())
}

/// Answers the same to everything, and remembers when and what was asked.
#[derive(Default)]
struct Broken(Mutex<Vec<(Instant, String)>>);

#[async_trait]
impl Exchange for Arc<Broken> {
    async fn exchange(
        &self,
        request: Request<Full<Bytes>>,
        _: Trust,
        _: Take,
    ) -> Result<Answer, Failure> {
        let id = request.headers()["webhook-id"].to_str().unwrap();
        self.0.lock().push((Instant::now(), id.to_owned()));
        Ok(Answer {
            is_whole: true,
            status: StatusCode::INTERNAL_SERVER_ERROR,
            headers: HeaderMap::new(),
            body: Vec::new(),
        })
    }
}

#[tokio::test(start_paused = true)]
async fn an_event_is_tried_as_often_and_as_late_as_the_original_tries_it() {
    let folder = tempfile::tempdir().unwrap();
    let rig = Rig::not_started(folder.path(), "url = \"http://localhost\"\n", &[]).await;
    let broken = Arc::new(Broken::default());
    rig.sink.client.set(Arc::new(Arc::clone(&broken))).ok();
    let event = event("call", "ana");
    let id = format!("msg_{}", event.id());
    let (_running, mut receipts) = start(rig.sink, vec![event]);
    let receipt = receipts.recv().await.unwrap();
    assert_eq!(receipt.await, Outcome::Failed);
    let attempts = broken.0.lock();
    assert_eq!(attempts.len(), 10);
    assert!(attempts.iter().all(|(_, it)| *it == id), "one id for all");
    let waits = attempts.windows(2).map(|pair| pair[1].0 - pair[0].0);
    for (wait, expected) in waits.zip([5, 10, 20, 40, 80, 160, 300, 300, 300]) {
        let expected = Duration::from_secs(expected);
        assert!(
            wait >= expected.mul_f64(0.8)
                && wait <= expected.mul_f64(1.2) + Duration::from_millis(5),
            "{wait:?} instead of {expected:?}"
        );
    }
}

#[tokio::test]
async fn an_endpoint_that_is_dead_delays_no_other() {
    const EACH: usize = 40;

    let mut server = Server::ok().await;
    let silent = Server::new(|_| None).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let closed = listener.local_addr().unwrap();
    drop(listener);
    let rig = Rig::new(LOCAL).await;
    let live = ["live1", "live2", "live3"];
    for instance in live {
        rig.enable(instance, &server.url("/")).await;
    }
    rig.enable("silent", &silent.url("/")).await;
    rig.enable("closed", &format!("http://{closed}/")).await;
    let mut events = Vec::new();
    for number in 0..EACH {
        for instance in ["silent", "closed"].into_iter().chain(live) {
            let envelope = format!(r#"{{"event":"call","instance":"{instance}","data":{number}}}"#);
            events.push(evows_core::testing::event(&envelope));
        }
    }
    let (_running, _receipts) = start(rig.sink, events);
    let mut seen: HashMap<String, usize> = HashMap::new();
    for _ in 0..EACH * live.len() {
        let posted = server.next().await.json();
        let instance = posted["instance"].as_str().unwrap().to_owned();
        let next = seen.entry(instance).or_default();
        assert_eq!(posted["data"], *next, "in order");
        *next += 1;
    }
    assert_eq!(seen.len(), live.len());
    assert!(seen.values().all(|count| *count == EACH));
}
