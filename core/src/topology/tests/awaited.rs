//! Async filters: order, time limits, panics, deadlines.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use tokio::time::Instant;

use super::parts::{Deed, Fate, Pace, filter, input, number, paced, sink, source};
use crate::metrics::Metrics;
use crate::plugin::{AsyncFilter, BoxError, BuildError, Limits, Verdict};
use crate::topology::{BuiltFilter, FilterPart, Part, Plan, Running};
use crate::{Event, Outcome, Report, Shutdown};

/// What the calls of a filter left behind.
#[derive(Default)]
struct Calls {
    starts: AtomicUsize,
    now: AtomicUsize,
    most: AtomicUsize,
}

/// Takes a millisecond less for each later event, and starts at the third attempt.
struct Counting(Arc<Calls>);

#[async_trait]
impl AsyncFilter for Counting {
    async fn start(&self) -> Result<(), BoxError> {
        match self.0.starts.fetch_add(1, Ordering::Relaxed) {
            0 => Err("not yet".into()),
            1 => panic!("not yet"),
            _ => Ok(()),
        }
    }

    async fn apply(&self, event: &Event) -> Verdict {
        let now = self.0.now.fetch_add(1, Ordering::Relaxed) + 1;
        self.0.most.fetch_max(now, Ordering::Relaxed);
        let wait = 100 - number(event) as u64;
        tokio::time::sleep(Duration::from_millis(wait)).await;
        self.0.now.fetch_sub(1, Ordering::Relaxed);
        match number(event) % 3 {
            0 => Verdict::Discard("third"),
            _ => Verdict::Pass,
        }
    }

    fn limits(&self) -> Limits {
        Limits {
            concurrency: 4.try_into().unwrap(),
            ..Limits::default()
        }
    }
}

/// Makes fifty of one, in two steps that take four fifths of its time.
struct Many;

#[async_trait]
impl AsyncFilter for Many {
    async fn apply(&self, event: &Event) -> Verdict {
        // Every fourth is done at once, so that others are under way when it is passed on.
        let steps = if number(event).is_multiple_of(4) {
            0
        } else {
            2
        };
        for _ in 0..steps {
            tokio::time::sleep(Duration::from_millis(40)).await;
        }
        Verdict::Emit((0..50).map(|_| (None, event.clone())).collect())
    }

    fn limits(&self) -> Limits {
        Limits {
            timeout: Duration::from_millis(100),
            ..Limits::default()
        }
    }
}

async fn drain(running: Running, within: Duration) -> Report {
    let by = Instant::now() + within;
    running.drain(by, by, &Shutdown::new()).await
}

async fn outcome(receipts: &super::parts::Receipts) -> Outcome {
    let receipt = receipts.lock().pop();
    receipt.unwrap().await
}

/// Twenty events through these filters, one behind the other, into one sink.
fn chain(filters: Vec<FilterPart>) -> (Plan, super::parts::Receipts, super::parts::Log) {
    let mut plan = Plan::default();
    let (part, receipts) = source("in", vec![(0..20).collect()]);
    plan.sources.push(part);
    let last = filters.last().map_or("in".into(), |it| it.part.id.clone());
    plan.filters = filters;
    let (out, log) = sink("out", Fate::Take, vec![input(&last)]);
    plan.sinks.push(out);
    (plan, receipts, log)
}

#[tokio::test(start_paused = true)]
async fn events_are_worked_on_at_once_and_leave_in_their_order() {
    let calls = Arc::new(Calls::default());
    let build = {
        let calls = Arc::clone(&calls);
        move || BuiltFilter::Async(Arc::new(Counting(Arc::clone(&calls))))
    };
    let counting = FilterPart {
        part: Part {
            id: "counting".into(),
            built: build(),
            rebuild: Box::new(move || Ok(build())),
        },
        inputs: vec![input("in")],
        ports: Vec::new(),
    };
    let behind = filter("behind", Deed::FailFifth, vec![input("counting")]);
    let (plan, receipts, log) = chain(vec![counting, behind]);
    let mut running = plan.start(&Metrics::new()).unwrap();
    running.drained().await;
    let report = drain(running, Duration::from_hours(1)).await;
    let numbers: Vec<_> = log.lock().iter().map(|(_, n)| *n).collect();
    assert_eq!(numbers, [1, 2, 4, 7, 8, 11, 13, 14, 16, 17, 19]);
    assert_eq!(calls.most.load(Ordering::Relaxed), 4);
    assert_eq!(calls.starts.load(Ordering::Relaxed), 3);
    let line = report.line("counting").unwrap();
    assert_eq!((line.received, line.sent), (20, 13));
    assert_eq!(line.ended, [(Outcome::Filtered, "third", 7)]);
    assert_eq!(report.line("behind").unwrap().received, 13);
    assert_eq!(outcome(&receipts).await, Outcome::Failed);
}

#[tokio::test(start_paused = true)]
async fn a_panic_and_a_timeout_fail_their_event_alone() {
    let panics = paced("panics", Deed::PanicSeventh, Pace::Async, vec![input("in")]);
    let stalls = paced(
        "stalls",
        Deed::StallSixth,
        Pace::Async,
        vec![input("panics")],
    );
    let (plan, receipts, log) = chain(vec![panics, stalls]);
    let metrics = Metrics::new();
    let report = drain(plan.start(&metrics).unwrap(), Duration::from_hours(1)).await;
    let numbers: Vec<_> = log.lock().iter().map(|(_, n)| *n).collect();
    let expected: Vec<_> = (0..20).filter(|n| n % 7 != 6 && n % 6 != 5).collect();
    assert_eq!(numbers, expected);
    let ended = |id: &str| report.line(id).unwrap().ended.clone();
    assert_eq!(ended("panics"), [(Outcome::Failed, "panic", 2)]);
    assert_eq!(ended("stalls"), [(Outcome::Failed, "timeout", 3)]);
    assert_eq!(outcome(&receipts).await, Outcome::Failed);
    assert!(
        metrics
            .encode()
            .contains("restarts_total{component=\"panics\"}")
    );
}

#[tokio::test(start_paused = true)]
async fn what_is_under_way_at_the_deadline_fails_and_is_counted() {
    let stalls = paced("stalls", Deed::StallSixth, Pace::Async, vec![input("in")]);
    let (plan, receipts, log) = chain(vec![stalls]);
    let mut running = plan.start(&Metrics::new()).unwrap();
    running.ended().await;
    let report = drain(running, Duration::from_secs(1)).await;
    assert!(report.cut);
    // The fifth holds up those behind it, up to its time limit, which is longer.
    assert_eq!(log.lock().len(), 5);
    let line = report.line("stalls").unwrap();
    assert_eq!((line.received, line.sent), (20, 5));
    assert_eq!(line.ended, [(Outcome::Failed, "deadline", 15)]);
    assert_eq!(outcome(&receipts).await, Outcome::Failed);
}

#[tokio::test(start_paused = true)]
async fn a_full_sink_holds_up_the_filter_and_loses_nothing() {
    let passes = paced("passes", Deed::Duplicate, Pace::Async, vec![input("in")]);
    let (mut plan, receipts, _) = chain(vec![passes]);
    plan.sinks.clear();
    let (slow, log) = sink("out", Fate::Slow, vec![input("passes")]);
    plan.sinks.push(slow);
    let report = drain(
        plan.start(&Metrics::new()).unwrap(),
        Duration::from_hours(1),
    )
    .await;
    assert!(!report.cut);
    assert_eq!(log.lock().len(), 40);
    assert!(log.lock().is_sorted_by_key(|(_, n)| *n));
    assert_eq!(outcome(&receipts).await, Outcome::Delivered);
}

#[tokio::test(start_paused = true)]
async fn calls_go_on_while_a_full_sink_holds_up_what_is_done() {
    let many = FilterPart {
        part: Part {
            id: "many".into(),
            built: BuiltFilter::Async(Arc::new(Many)),
            rebuild: Box::new(|| unreachable!("it does not fail")),
        },
        inputs: vec![input("in")],
        ports: Vec::new(),
    };
    let (mut plan, receipts, _) = chain(vec![many]);
    plan.sinks.clear();
    let (slow, log) = sink("out", Fate::Slow, vec![input("many")]);
    plan.sinks.push(slow);
    let report = drain(
        plan.start(&Metrics::new()).unwrap(),
        Duration::from_hours(1),
    )
    .await;
    assert_eq!(report.line("many").unwrap().ended, []);
    assert_eq!(log.lock().len(), 1000);
    assert_eq!(outcome(&receipts).await, Outcome::Delivered);
}

/// How a filter fails to start.
#[derive(Clone, Copy)]
enum Fails {
    AtOnce,
    Hangs,
}

#[async_trait]
impl AsyncFilter for Fails {
    async fn start(&self) -> Result<(), BoxError> {
        match self {
            Self::AtOnce => Err("there is no file".into()),
            Self::Hangs => std::future::pending().await,
        }
    }

    async fn apply(&self, _event: &Event) -> Verdict {
        unreachable!("it never starts")
    }
}

/// Twenty events through a filter whose first build may be another one.
fn failing(first: BuiltFilter, fails: Option<Fails>) -> (Plan, super::parts::Receipts) {
    let rebuild = move || match fails {
        Some(fails) => Ok(BuiltFilter::Async(Arc::new(fails))),
        None => Err(BuildError::new("there is no such file")),
    };
    let (plan, receipts, _) = chain(vec![FilterPart {
        part: Part {
            id: "fails".into(),
            built: first,
            rebuild: Box::new(rebuild),
        },
        inputs: vec![input("in")],
        ports: Vec::new(),
    }]);
    (plan, receipts)
}

#[tokio::test(start_paused = true)]
async fn a_filter_that_cannot_start_is_told_of_and_holds_up_no_stop() {
    let panics = || {
        paced("fails", Deed::PanicSeventh, Pace::Async, vec![])
            .part
            .built
    };
    let built = |fails| BuiltFilter::Async(Arc::new(fails));
    let limit = Limits::default().timeout;
    for (first, again, error, within, failed) in [
        (
            built(Fails::AtOnce),
            None,
            "there is no file",
            Duration::ZERO,
            vec![(Outcome::Failed, "not_started", 20)],
        ),
        (
            built(Fails::Hangs),
            None,
            "it takes long to start",
            limit,
            vec![(Outcome::Failed, "not_started", 20)],
        ),
        (
            panics(),
            Some(Fails::AtOnce),
            "there is no file",
            Duration::ZERO,
            vec![
                (Outcome::Failed, "not_started", 10),
                (Outcome::Failed, "panic", 1),
            ],
        ),
        (
            panics(),
            None,
            "there is no such file",
            Duration::ZERO,
            vec![
                (Outcome::Failed, "not_started", 10),
                (Outcome::Failed, "panic", 1),
            ],
        ),
    ] {
        let (plan, receipts) = failing(first, again);
        let metrics = Metrics::new();
        let mut running = plan.start(&metrics).unwrap();
        running.ended().await;
        // Long enough for some attempts.
        tokio::time::sleep(Duration::from_mins(2)).await;
        assert_eq!(metrics.down()["fails"], error);
        let down = r#"evows_component_down{component="fails"} 1"#;
        assert!(metrics.encode().contains(down));
        let begun = Instant::now();
        let report = drain(running, Duration::from_hours(1)).await;
        assert_eq!(begun.elapsed(), within);
        assert!(!report.cut);
        assert_eq!(report.line("fails").unwrap().ended, failed);
        assert_eq!(outcome(&receipts).await, Outcome::Failed);
    }
}

#[tokio::test(start_paused = true)]
async fn a_filter_that_starts_after_all_is_up() {
    let calls = Arc::new(Calls::default());
    let counting = BuiltFilter::Async(Arc::new(Counting(calls)));
    let (plan, _) = failing(counting, None);
    let metrics = Metrics::new();
    let mut running = plan.start(&metrics).unwrap();
    while metrics.down().is_empty() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    running.drained().await;
    assert!(metrics.down().is_empty());
    assert!(
        metrics
            .encode()
            .contains(r#"evows_component_down{component="fails"} 0"#)
    );
}
