use std::convert::Infallible;

use axum::http::header::RETRY_AFTER;
use axum::http::{StatusCode, request};
use evows_core::testing;
use evows_core::{Outcome, Shutdown};
use futures_util::FutureExt as _;
use tokio::task::JoinHandle;
use tower::ServiceExt;

use super::*;

const EVENT: &str = r#"{"event":"call","instance":"loja1","data":{}}"#;

/// A running source, its route, and the far end of its pipeline.
struct Rig {
    router: Router,
    inlet: testing::Inlet,
    shutdown: Shutdown,
    run: JoinHandle<Result<(), SourceError>>,
}

struct Answer {
    status: StatusCode,
    retry_after: bool,
    body: String,
}

fn rig(config: Config) -> Rig {
    assert_eq!(Webhook::check(&config), []);
    let context = testing::context("in");
    let source = Webhook::build(config, &context).unwrap();
    let mount = context.take_mounted().routes.remove(0);
    let (outlet, inlet) = testing::outlet();
    let shutdown = Shutdown::new();
    Rig {
        router: mount.router,
        inlet,
        run: tokio::spawn(Box::new(source).run(outlet, shutdown.clone())),
        shutdown,
    }
}

async fn send(router: Router, request: request::Builder, body: impl Into<Body>) -> Answer {
    let request = request.body(body.into()).unwrap();
    let response = router.oneshot(request).await.unwrap();
    let (status, retry_after) = (
        response.status(),
        response.headers().contains_key(RETRY_AFTER),
    );
    let body = response.into_body().collect().await.unwrap().to_bytes();
    Answer {
        status,
        retry_after,
        body: String::from_utf8(body.to_vec()).unwrap(),
    }
}

fn to(path: &str) -> request::Builder {
    Request::builder().method("POST").uri(path)
}

impl Rig {
    /// Posts without waiting for the answer.
    fn post(&self, path: &str, body: impl Into<Body>) -> JoinHandle<Answer> {
        tokio::spawn(send(self.router.clone(), to(path), body.into()))
    }

    /// Posts, ends all events with `outcome`, and gives their envelopes.
    async fn exchange(&mut self, path: &str, body: &str, outcome: Outcome) -> (Answer, Vec<Bytes>) {
        let mut answer = self.post(path, body.to_owned());
        let mut envelopes = Vec::new();
        loop {
            tokio::select! {
                answer = &mut answer => return (answer.unwrap(), envelopes),
                event = self.inlet.receive() => {
                    let event = event.unwrap();
                    envelopes.push(event.envelope().clone());
                    event.settle(outcome);
                }
            }
        }
    }
}

#[tokio::test]
async fn takes_one_many_and_lines_and_keeps_their_bytes() {
    let mut rig = rig(Config::default());
    let other = r#"{ "event":"messages.upsert", "instance":"loja 2", "n":1.10 }"#;
    let pretty = "{\n  \"event\": \"call\",\n  \"instance\": \"a\"\n}";
    for (path, body, expected) in [
        ("/webhook", EVENT.to_owned(), vec![EVENT]),
        ("/webhook/call", pretty.to_owned(), vec![pretty]),
        (
            "/webhook//call",
            format!("[{EVENT} , {other}]"),
            vec![EVENT, other],
        ),
        (
            "/webhook/",
            format!("\n{EVENT}\r\n{other}\n\n"),
            vec![EVENT, other],
        ),
    ] {
        let (answer, envelopes) = rig.exchange(path, &body, Outcome::Delivered).await;
        assert_eq!(answer.status, StatusCode::OK, "{}", answer.body);
        assert_eq!(answer.body, format!("{{\"accepted\":{}}}", expected.len()));
        assert_eq!(envelopes, expected);
    }
    let (answer, _) = rig.exchange("/webhook", "[]", Outcome::Delivered).await;
    assert_eq!(answer.body, r#"{"accepted":0}"#);
}

#[tokio::test]
async fn says_what_is_not_an_event_and_delivers_nothing_of_it() {
    let mut rig = rig(Config::default());
    let bad = r#"{"event":"call"}"#;
    for (body, expected) in [
        (String::new(), "the body is not an event: it is empty"),
        (
            "event=call".to_owned(),
            "the body is not an event: expected",
        ),
        (
            bad.to_owned(),
            "the body is not an event: missing field `instance`",
        ),
        (
            r#"{"event":"","instance":"a"}"#.to_owned(),
            "\\\"event\\\" is empty",
        ),
        (
            format!("[{EVENT},{bad}]"),
            "element 1 is not an event: missing field",
        ),
        (format!("[{EVENT},"), "the body is not an event"),
        (
            format!("{EVENT}\n\n{bad}\n{EVENT}"),
            "line 3 is not an event: missing field",
        ),
        (
            format!("{EVENT}\n{EVENT}\nno"),
            "line 3 is not an event: expected",
        ),
    ] {
        let (answer, envelopes) = rig.exchange("/webhook", &body, Outcome::Delivered).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{body}");
        assert!(answer.body.contains(expected), "{body}: {}", answer.body);
        assert!(answer.body.contains("one envelope per line"));
        assert_eq!(envelopes, Vec::<Bytes>::new());
    }
}

#[tokio::test]
async fn only_an_accepted_outcome_is_answered_200() {
    let mut rig = rig(Config::default());
    for (outcome, status) in [
        (Outcome::Delivered, StatusCode::OK),
        (Outcome::Filtered, StatusCode::OK),
        (Outcome::Shed, StatusCode::SERVICE_UNAVAILABLE),
        (Outcome::Failed, StatusCode::SERVICE_UNAVAILABLE),
        (Outcome::Lost, StatusCode::SERVICE_UNAVAILABLE),
    ] {
        let (answer, _) = rig.exchange("/webhook", EVENT, outcome).await;
        assert_eq!(answer.status, status);
        assert_eq!(answer.retry_after, status != StatusCode::OK);
    }
}

#[tokio::test]
async fn the_secret_comes_in_a_header_or_the_path() {
    let secret = Some("s3cret".to_owned());
    let mut rig = rig(Config {
        secret,
        ..Config::default()
    });
    for path in [
        "/webhook/s3cret",
        "/webhook/s3cret/call",
        "/webhook//s3cret//call",
    ] {
        let (answer, _) = rig.exchange(path, EVENT, Outcome::Delivered).await;
        assert_eq!(answer.status, StatusCode::OK, "{path}");
    }
    for (header, value, status) in [
        ("x-webhook-secret", "s3cret", StatusCode::OK),
        ("authorization", "Bearer s3cret", StatusCode::OK),
        ("authorization", "Basic s3cret", StatusCode::UNAUTHORIZED),
        ("x-webhook-secret", "wrong", StatusCode::UNAUTHORIZED),
        ("x-other", "s3cret", StatusCode::UNAUTHORIZED),
    ] {
        let request = to("/webhook/call").header(header, value);
        let answer = tokio::spawn(send(rig.router.clone(), request, EVENT));
        if status == StatusCode::OK {
            rig.inlet
                .receive()
                .await
                .unwrap()
                .settle(Outcome::Delivered);
        }
        assert_eq!(answer.await.unwrap().status, status, "{header}: {value}");
    }
    let answer = rig.post("/webhook/call/s3cret", EVENT).await.unwrap();
    assert_eq!(
        answer.body,
        r#"{"status":401,"error":"Unauthorized","response":{"message":["the webhook's secret is missing or wrong"]}}"#
    );
}

#[tokio::test]
async fn a_body_that_is_too_large_is_refused_before_and_while_it_is_read() {
    let rig = rig(Config {
        max_body: Size(100),
        max_events: 2,
        ..Config::default()
    });
    let large = "x".repeat(101);
    let announced = to("/webhook").header(CONTENT_LENGTH, "101");
    for answer in [
        send(rig.router.clone(), announced, large.clone()).await,
        send(rig.router.clone(), to("/webhook"), large).await,
    ] {
        assert_eq!(answer.status, StatusCode::PAYLOAD_TOO_LARGE);
        assert!(
            answer.body.contains("100B (`max_body` of the source `in`)"),
            "{}",
            answer.body
        );
    }
    let many = r#"{"event":"a","instance":"b"} "#.repeat(3);
    let answer = rig.post("/webhook", many).await.unwrap();
    assert!(
        answer.body.contains("more than 2 events"),
        "{}",
        answer.body
    );
}

#[tokio::test]
async fn other_methods_are_refused() {
    let rig = rig(Config::default());
    let get = Request::builder().uri("/webhook");
    let answer = send(rig.router.clone(), get, "").await;
    assert_eq!(answer.status, StatusCode::METHOD_NOT_ALLOWED);
    assert!(
        answer
            .body
            .starts_with(r#"{"status":405,"error":"Method Not Allowed""#)
    );
}

#[tokio::test]
async fn several_requests_are_in_flight_and_no_more_than_allowed() {
    let max_in_flight = InFlight {
        requests: 2,
        ..InFlight::default()
    };
    let mut rig = rig(Config {
        max_in_flight,
        ..Config::default()
    });
    let first = rig.post("/webhook", EVENT);
    let one = rig.inlet.receive().await.unwrap();
    let second = rig.post("/webhook", EVENT);
    let two = rig.inlet.receive().await.unwrap();

    let third = rig.post("/webhook", EVENT).await.unwrap();
    assert_eq!(third.status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(third.retry_after && third.body.contains("in flight"));

    for event in [two, one] {
        event.settle(Outcome::Delivered);
    }
    assert_eq!(first.await.unwrap().status, StatusCode::OK);
    assert_eq!(second.await.unwrap().status, StatusCode::OK);
    let (answer, _) = rig.exchange("/webhook", EVENT, Outcome::Delivered).await;
    assert_eq!(
        answer.status,
        StatusCode::OK,
        "what has ended is no longer in flight"
    );
}

#[tokio::test]
async fn bytes_in_flight_are_bounded() {
    let bytes = Size(60);
    let max_in_flight = InFlight {
        bytes,
        ..InFlight::default()
    };
    let mut rig = rig(Config {
        max_body: bytes,
        max_in_flight,
        ..Config::default()
    });
    let first = rig.post("/webhook", EVENT);
    let held = rig.inlet.receive().await.unwrap();
    let second = rig.post("/webhook", EVENT).await.unwrap();
    assert_eq!(second.status, StatusCode::SERVICE_UNAVAILABLE);
    drop(held);
    assert!(first.await.unwrap().body.contains("(lost)"));
}

#[tokio::test]
async fn what_is_announced_but_never_sent_takes_nothing_from_others() {
    let mut rig = rig(Config::default());
    let mut idle = Vec::new();
    for _ in 0..8 {
        let length = Config::default().max_body.bytes();
        let never = Body::from_stream(futures_util::stream::pending::<Result<Bytes, Infallible>>());
        let request = to("/webhook").header(CONTENT_LENGTH, length);
        let mut sending = Box::pin(send(rig.router.clone(), request, never));
        assert!((&mut sending).now_or_never().is_none());
        idle.push(sending);
    }
    let (answer, _) = rig.exchange("/webhook", EVENT, Outcome::Delivered).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.body);
}

#[tokio::test(start_paused = true)]
async fn what_takes_too_long_is_answered_503_or_408() {
    let mut rig = rig(Config::default());
    let started = Instant::now();
    let answer = rig.post("/webhook", EVENT);
    let held = rig.inlet.receive().await.unwrap();
    let answer = answer.await.unwrap();
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(answer.retry_after);
    assert_eq!(started.elapsed().as_secs(), 25);
    drop(held);

    let never = Body::from_stream(futures_util::stream::pending::<Result<Bytes, Infallible>>());
    let answer = send(rig.router.clone(), to("/webhook"), never).await;
    assert_eq!(answer.status, StatusCode::REQUEST_TIMEOUT);
}

#[tokio::test]
async fn a_request_that_nobody_waits_for_is_not_delivered() {
    let mut rig = rig(Config::default());
    let body = |name: &str| format!(r#"{{"event":"{name}","instance":"a"}}"#);
    // One batch lies in the pipeline, one waits to get in, and one behind that.
    let mut answers = Vec::new();
    for name in ["one", "two", "three", "four"] {
        answers.push(rig.post("/webhook", body(name)));
        tokio::task::yield_now().await;
    }
    answers.remove(2).abort();
    let mut names = Vec::new();
    for _ in 0..3 {
        let event = rig.inlet.receive().await.unwrap();
        names.push(event.name().to_owned());
        event.settle(Outcome::Delivered);
    }
    assert_eq!(names, ["one", "two", "four"]);
}

#[tokio::test]
async fn a_stopped_source_finishes_what_it_took_and_refuses_the_rest() {
    let mut rig = rig(Config::default());
    let taken = rig.post("/webhook", EVENT);
    let event = rig.inlet.receive().await.unwrap();
    rig.shutdown.start();
    rig.run.await.unwrap().unwrap();
    let refused = send(rig.router.clone(), to("/webhook"), EVENT).await;
    assert_eq!(refused.status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(refused.retry_after);
    event.settle(Outcome::Delivered);
    assert_eq!(taken.await.unwrap().status, StatusCode::OK);
}

#[test]
fn checks_what_a_type_cannot() {
    let problems = Webhook::check(&Config {
        path: "webhook".to_owned(),
        secret: Some(String::new()),
        secret_header: "no header".to_owned(),
        max_events: 0,
        max_in_flight: InFlight {
            requests: 0,
            bytes: Size(1),
        },
        timeout: Period::seconds(0),
        ..Config::default()
    });
    assert_eq!(problems.len(), 7, "{problems:#?}");
}
