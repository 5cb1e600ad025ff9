//! Full queues, slow sinks, panics and deadlines.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use tokio::time::Instant;

use super::parts::{Deed, Fate, buffer, event, filter, input, sink, source};
use crate::config::WhenFull;
use crate::metrics::Metrics;
use crate::plugin::{Source, SourceError};
use crate::topology::{Outlet, Part, Plan, Running};
use crate::{Outcome, Receipt, Report, Shutdown};

const SOON: Duration = Duration::from_secs(5);
const FAR: Duration = Duration::from_hours(1);

async fn drain(running: Running, within: Duration) -> Report {
    let now = Instant::now();
    running
        .drain(now + within, now + within, &Shutdown::new())
        .await
}

async fn finish(plan: Plan) -> Report {
    let mut running = plan.start(&Metrics::new()).unwrap();
    running.ended().await;
    drain(running, FAR).await
}

async fn outcomes(receipts: &Mutex<Vec<Receipt>>) -> Vec<Outcome> {
    let receipts = std::mem::take(&mut *receipts.lock());
    let mut outcomes = Vec::new();
    for receipt in receipts {
        outcomes.push(receipt.await);
    }
    outcomes
}

/// Ten events at once into a slow sink with room for four.
async fn overfill(when_full: WhenFull) -> (Report, Vec<Outcome>, Vec<usize>) {
    let mut plan = Plan::default();
    let (part, receipts) = source("in", vec![(0..10).collect()]);
    plan.sources.push(part);
    let (mut slow, log) = sink("out", Fate::Slow, vec![input("in")]);
    slow.buffer = buffer(4, when_full);
    plan.sinks.push(slow);
    let report = finish(plan).await;
    let numbers = log.lock().iter().map(|(_, n)| *n).collect();
    (report, outcomes(&receipts).await, numbers)
}

#[tokio::test(start_paused = true)]
async fn each_policy_of_a_full_queue() {
    let (report, outcomes, numbers) = overfill(WhenFull::Block).await;
    assert_eq!(numbers, (0..10).collect::<Vec<_>>());
    assert_eq!(outcomes, [Outcome::Delivered]);
    assert_eq!(report.line("out").unwrap().ended(Outcome::Shed), 0);

    let (report, outcomes, numbers) = overfill(WhenFull::DropOldest).await;
    assert_eq!(numbers, [6, 7, 8, 9]);
    assert_eq!(outcomes, [Outcome::Shed]);
    let ended = &report.line("out").unwrap().ended;
    assert_eq!(
        *ended,
        [
            (Outcome::Delivered, "", 4),
            (Outcome::Shed, "drop_oldest", 6)
        ]
    );

    for (policy, reason) in [
        (WhenFull::DropNewest, "drop_newest"),
        (WhenFull::Reject, "reject"),
    ] {
        let (report, outcomes, numbers) = overfill(policy).await;
        assert_eq!(numbers, [0, 1, 2, 3]);
        assert_eq!(outcomes, [Outcome::Shed]);
        let ended = &report.line("out").unwrap().ended;
        assert_eq!(
            *ended,
            [(Outcome::Delivered, "", 4), (Outcome::Shed, reason, 6)]
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_dead_sink_beside_a_good_one() {
    let mut plan = Plan::default();
    let (part, receipts) = source("in", vec![vec![1], vec![2], vec![3]]);
    plan.sources.push(part);
    let (mut dead, _) = sink("dead", Fate::Dead, vec![input("in")]);
    dead.buffer = buffer(1, WhenFull::DropOldest);
    dead.required = false;
    let (good, log) = sink("good", Fate::Take, vec![input("in")]);
    plan.sinks.extend([dead, good]);
    let mut running = plan.start(&Metrics::new()).unwrap();
    running.ended().await;
    // Not required: the source's batches are delivered while the dead sink still tries.
    assert_eq!(outcomes(&receipts).await, [Outcome::Delivered; 3]);
    assert_eq!(log.lock().len(), 3);

    let report = drain(running, Duration::from_millis(1)).await;
    assert!(report.cut);
    let dead = report.line("dead").unwrap();
    assert_eq!(dead.received, 3);
    assert_eq!(dead.ended(Outcome::Delivered), 0);
    assert_eq!(dead.ended(Outcome::Shed) + dead.ended(Outcome::Failed), 3);
    assert!(report.abandoned() > 0);
}

#[tokio::test(start_paused = true)]
async fn a_deadline_frees_a_source_that_a_full_queue_holds() {
    let mut plan = Plan::default();
    let (part, _) = source("in", vec![(0..10).collect(), (10..20).collect()]);
    plan.sources.push(part);
    plan.sinks
        .push(sink("dead", Fate::Dead, vec![input("in")]).0);
    let running = plan.start(&Metrics::new()).unwrap();
    let begun = Instant::now();
    let report = drain(running, SOON).await;
    assert!(begun.elapsed() < SOON * 2);
    assert!(report.cut);
    // The source was still in its first batch.
    let dead = report.line("dead").unwrap();
    assert_eq!((dead.received, dead.ended(Outcome::Failed)), (10, 10));
    assert_eq!(report.abandoned(), 10);
}

#[tokio::test(start_paused = true)]
async fn a_sink_that_is_stopped_with_a_full_queue_is_drained() {
    let mut plan = Plan::default();
    let (part, receipts) = source("in", vec![vec![0], vec![1], vec![2]]);
    plan.sources.push(part);
    plan.sinks
        .push(sink("slow", Fate::Slow, vec![input("in")]).0);
    let running = plan.start(&Metrics::new()).unwrap();
    let report = drain(running, SOON).await;
    assert!(!report.cut);
    assert_eq!(report.line("slow").unwrap().ended(Outcome::Delivered), 3);
    assert_eq!(outcomes(&receipts).await, [Outcome::Delivered; 3]);
}

#[tokio::test(start_paused = true)]
async fn a_sink_that_never_starts_holds_nobody_up_without_work() {
    for (batches, cut) in [(vec![], false), (vec![vec![1]], true)] {
        let mut plan = Plan::default();
        plan.sources.push(source("in", batches).0);
        let (part, _) = sink("out", Fate::NeverStarts, vec![input("in")]);
        plan.sinks.push(part);
        let running = plan.start(&Metrics::new()).unwrap();
        let report = drain(running, SOON).await;
        assert_eq!((report.cut, report.abandoned()), (cut, u64::from(cut)));
    }
}

#[tokio::test(start_paused = true)]
async fn a_panic_in_a_sink_fails_its_batch_and_no_more() {
    let mut plan = Plan::default();
    let (part, receipts) = source("in", vec![vec![0, 1], vec![2, 3, 4], vec![5]]);
    plan.sources.push(part);
    let (mut part, log) = sink("out", Fate::PanicOnce, vec![input("in")]);
    part.buffer = buffer(2, WhenFull::Block);
    plan.sinks.push(part);
    let report = finish(plan).await;
    let line = report.line("out").unwrap();
    assert_eq!(
        line.ended,
        [(Outcome::Delivered, "", 4), (Outcome::Failed, "panic", 2)]
    );
    assert_eq!(log.lock().len(), 4);
    let expected = [Outcome::Failed, Outcome::Delivered, Outcome::Delivered];
    assert_eq!(outcomes(&receipts).await, expected);
}

#[tokio::test(start_paused = true)]
async fn a_panic_in_a_filter_fails_the_rest_of_its_batch_and_no_more() {
    let mut plan = Plan::default();
    let (part, receipts) = source("in", vec![(0..10).collect(), vec![10, 11]]);
    plan.sources.push(part);
    plan.filters
        .push(filter("shaky", Deed::PanicSeventh, vec![input("in")]));
    let (part, log) = sink("out", Fate::Take, vec![input("shaky")]);
    plan.sinks.push(part);
    let report = finish(plan).await;
    let line = report.line("shaky").unwrap();
    assert_eq!(line.ended, [(Outcome::Failed, "panic", 4)]);
    assert_eq!(log.lock().len(), 8);
    assert_eq!(
        outcomes(&receipts).await,
        [Outcome::Failed, Outcome::Delivered]
    );
}

/// Sends one event and fails, until its third life.
struct Mortal {
    lives: Arc<Mutex<usize>>,
}

#[async_trait]
impl Source for Mortal {
    async fn run(self: Box<Self>, mut outlet: Outlet, _: Shutdown) -> Result<(), SourceError> {
        let life = {
            let mut lives = self.lives.lock();
            *lives += 1;
            *lives
        };
        outlet.send(vec![event("in", life)]).await;
        match life {
            1 => Err(SourceError::new("gone")),
            2 => panic!("the source was told to"),
            _ => Ok(()),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_source_that_fails_is_built_again() {
    let mut plan = Plan::default();
    let lives = Arc::default();
    let build = move || {
        Box::new(Mortal {
            lives: Arc::clone(&lives),
        }) as Box<dyn Source>
    };
    plan.sources.push(Part {
        id: "in".into(),
        built: build(),
        rebuild: Box::new(move || Ok(build())),
    });
    let (part, log) = sink("out", Fate::Take, vec![input("in")]);
    plan.sinks.push(part);
    let metrics = Metrics::new();
    let mut running = plan.start(&metrics).unwrap();
    running.ended().await;
    drain(running, FAR).await;
    assert_eq!(log.lock().len(), 3);
    assert!(
        metrics
            .encode()
            .contains(r#"evows_component_restarts_total{component="in"} 2"#)
    );
}
