//! Filters that are exchanged while events flow, where that is not easy.

use std::time::Duration;

use async_trait::async_trait;
use futures_util::FutureExt;
use tokio::time::{Instant, sleep};

use super::parts::{
    Deed, Fate, Log, Pace, Receipts, TAKE_OVERS, event, filter, input, paced, sink, source,
};
use crate::metrics::Metrics;
use crate::plugin::{AsyncFilter, BoxError, BuildError, Source, SourceError, Verdict};
use crate::registry::TakeOvers;
use crate::topology::{BuiltFilter, FilterPart, Outlet, Part, Plan, Running};
use crate::{Event, Outcome, Report, Shutdown};

const SECOND: Duration = Duration::from_secs(1);

/// An event each second, twenty of them.
struct Trickle(Receipts);

#[async_trait]
impl Source for Trickle {
    async fn run(self: Box<Self>, mut outlet: Outlet, _: Shutdown) -> Result<(), SourceError> {
        for number in 0..20 {
            let receipt = outlet.send_tracked(vec![event("in", number)]).await;
            self.0.lock().push(receipt);
            sleep(SECOND).await;
        }
        Ok(())
    }
}

/// An async filter that never starts, or passes everything and panics when it is dropped.
enum Bad {
    NeverStarts,
    PanicsAtLast,
}

#[async_trait]
impl AsyncFilter for Bad {
    async fn start(&self) -> Result<(), BoxError> {
        match self {
            Self::NeverStarts => Err("there is no file".into()),
            Self::PanicsAtLast => Ok(()),
        }
    }

    async fn apply(&self, _: &Event) -> Verdict {
        Verdict::Pass
    }
}

impl Drop for Bad {
    fn drop(&mut self) {
        assert!(!matches!(self, Self::PanicsAtLast), "it was told to");
    }
}

fn part(built: impl Fn() -> BuiltFilter + Send + 'static) -> Part<BuiltFilter> {
    Part {
        id: "it".into(),
        built: built(),
        rebuild: Box::new(move || Ok(built())),
    }
}

fn bad(bad: fn() -> Bad) -> Part<BuiltFilter> {
    part(move || BuiltFilter::Async(std::sync::Arc::new(bad())))
}

fn another(deed: Deed, pace: Pace) -> Part<BuiltFilter> {
    paced("it", deed, pace, Vec::new()).part
}

/// A filter between a source that trickles and a sink.
fn trickle(part: Part<BuiltFilter>) -> (Running, Receipts, Log, Metrics) {
    let (mut plan, receipts, metrics) = (Plan::default(), Receipts::default(), Metrics::new());
    plan.sources.push(Part {
        id: "in".into(),
        built: Box::new(Trickle(receipts.clone())),
        rebuild: Box::new(|| unreachable!("the source does not fail")),
    });
    plan.filters.push(FilterPart {
        part,
        inputs: vec![input("in")],
        ports: Vec::new(),
    });
    let (out, log) = sink("out", Fate::Take, vec![input("it")]);
    plan.sinks.push(out);
    (plan.start(&metrics).unwrap(), receipts, log, metrics)
}

async fn finish(mut running: Running) -> Report {
    running.ended().await;
    let by = Instant::now() + Duration::from_hours(1);
    running.drain(by, by, &Shutdown::new()).await
}

fn numbers(log: &Log) -> Vec<usize> {
    log.lock().iter().map(|(_, number)| *number).collect()
}

#[tokio::test(start_paused = true)]
async fn one_that_waits_for_a_full_queue_does_not_hold_up_the_one_that_mends_it() {
    let mut plan = Plan::default();
    let (feed, receipts) = source("in", vec![(0..12_000).collect()]);
    plan.sources.push(feed);
    plan.filters
        .push(filter("first", Deed::Pass, vec![input("in")]));
    plan.filters.push(FilterPart {
        part: bad(|| Bad::NeverStarts),
        inputs: vec![input("first")],
        ports: Vec::new(),
    });
    let (out, log) = sink("out", Fate::Take, vec![input("it")]);
    plan.sinks.push(out);
    let metrics = Metrics::new();
    let running = plan.start(&metrics).unwrap();
    sleep(60 * SECOND).await;
    let first = filter("first", Deed::Pass, Vec::new()).part;
    let mut first = Box::pin(running.replace(first, TAKE_OVERS));
    assert!((&mut first).now_or_never().is_none(), "the queue is full");
    drop(running.replace(another(Deed::Pass, Pace::Async), TAKE_OVERS));
    first.await;
    assert!(metrics.down().is_empty());
    let report = finish(running).await;
    assert_eq!(report.line("it").unwrap().sent, 12_000);
    assert!(log.lock().is_sorted());
    let receipt = receipts.lock().pop().unwrap();
    assert_eq!(receipt.await, Outcome::Delivered);
}

#[tokio::test(start_paused = true)]
async fn one_that_could_not_be_built_again_is_up_when_it_is_replaced() {
    let mut broken = another(Deed::PanicSeventh, Pace::Inline);
    broken.rebuild = Box::new(|| Err(BuildError::new("gone")));
    let (running, _, log, metrics) = trickle(broken);
    sleep(8 * SECOND + SECOND / 2).await;
    assert_eq!(metrics.down()["it"], "gone");
    running
        .replace(another(Deed::Pass, Pace::Inline), TAKE_OVERS)
        .await;
    assert!(metrics.down().is_empty());
    let report = finish(running).await;
    assert!(report.line("it").unwrap().ended(Outcome::Failed) >= 2);
    assert!(numbers(&log).ends_with(&[9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19]));
}

#[tokio::test(start_paused = true)]
async fn the_one_before_works_on_while_another_one_cannot_start() {
    let (running, _, log, metrics) = trickle(another(Deed::Pass, Pace::Async));
    sleep(5 * SECOND + SECOND / 2).await;
    drop(running.replace(bad(|| Bad::NeverStarts), TAKE_OVERS));
    sleep(5 * SECOND).await;
    assert_eq!(numbers(&log), (0..11).collect::<Vec<_>>());
    assert!(metrics.down().is_empty(), "the one that works is not down");
    drop(running.replace(another(Deed::DiscardOdd, Pace::Async), TAKE_OVERS));
    let report = finish(running).await;
    assert_eq!(numbers(&log)[11..], [12, 14, 16, 18]);
    assert_eq!(report.line("it").unwrap().ended(Outcome::Filtered), 5);
}

#[tokio::test(start_paused = true)]
async fn one_that_panics_before_its_successor_has_started_makes_way() {
    let (running, receipts, log, metrics) = trickle(another(Deed::PanicSeventh, Pace::Async));
    sleep(SECOND / 2).await;
    drop(running.replace(bad(|| Bad::NeverStarts), TAKE_OVERS));
    sleep(8 * SECOND).await;
    assert_eq!(metrics.down()["it"], "there is no file");
    drop(running.replace(another(Deed::Pass, Pace::Async), TAKE_OVERS));
    finish(running).await;
    // Those that came meanwhile have waited.
    let expected: Vec<_> = (0..20).filter(|number| *number != 6).collect();
    assert_eq!(numbers(&log), expected);
    assert!(metrics.down().is_empty());
    let receipts = std::mem::take(&mut *receipts.lock());
    let outcomes = futures_util::future::join_all(receipts).await;
    assert_eq!(outcomes[6], Outcome::Failed);
}

#[tokio::test(start_paused = true)]
async fn panics_over_a_replacement_lose_nothing() {
    let panics = TakeOvers {
        inline: |filter, before| {
            (TAKE_OVERS.inline)(filter, before);
            panic!("it was told to");
        },
        awaited: |_, _| panic!("it was told to"),
    };
    for (first, second) in [
        (
            another(Deed::Hold, Pace::Inline),
            another(Deed::Hold, Pace::Inline),
        ),
        (bad(|| Bad::PanicsAtLast), another(Deed::Pass, Pace::Async)),
    ] {
        let (running, receipts, log, _) = trickle(first);
        sleep(SECOND + SECOND / 2).await;
        running.replace(second, panics).await;
        let report = finish(running).await;
        assert_eq!(numbers(&log), (0..20).collect::<Vec<_>>());
        assert_eq!(report.line("it").unwrap().ended, []);
        let receipts = std::mem::take(&mut *receipts.lock());
        let outcomes = futures_util::future::join_all(receipts).await;
        assert!(outcomes.iter().all(|it| *it == Outcome::Delivered));
    }
}
