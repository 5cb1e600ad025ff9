//! Retries, breakers, lanes, buffers on disk and dead letters, between a queue and a sink.

use std::collections::{HashMap, HashSet};
use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use tokio::time::Instant;

use super::parts::{buffer, input, number, source};
use crate::config::WhenFull;
use crate::delivery::{BatchPolicy, Delivery, Order};
use crate::journal::{self, Journal, Memory};
use crate::metrics::Metrics;
use crate::plugin::{Batch, Destination, Sink, SinkError, Source, SourceError};
use crate::topology::{Outlet, Part, Plan, Running, SinkPart};
use crate::{Event, Outcome, Report, Shutdown};

const FAR: Duration = Duration::from_hours(100);

/// What a sink does, and what came of it.
#[derive(Default)]
struct World {
    /// Events go to the destination of their number modulo this; 0: to the only one.
    destinations: usize,
    /// Those that fail.
    down: HashSet<String>,
    /// Those that never answer.
    silent: HashSet<String>,
    /// Numbers that are refused for good.
    refused: HashSet<usize>,
    /// What was delivered, when and where to.
    log: Vec<(String, usize, Instant)>,
    /// How often each destination was tried.
    attempts: HashMap<String, usize>,
    /// Sizes of batches.
    batches: Vec<usize>,
}

struct Scripted(Arc<Mutex<World>>);

#[async_trait]
impl Sink for Scripted {
    fn destinations(&self, event: &Event, out: &mut Vec<Destination>) {
        out.push(match self.0.lock().destinations {
            0 => Destination::default(),
            many => Destination::named(format!("d{}", number(event) % many)),
        });
    }

    async fn send(&self, batch: Batch<'_>) -> Result<(), SinkError> {
        let name = batch.destination().name().to_owned();
        let silent = {
            let mut world = self.0.lock();
            *world.attempts.entry(name.clone()).or_default() += 1;
            if world.down.contains(&name) {
                return Err(SinkError::overloaded("down"));
            }
            world.silent.contains(&name)
        };
        if silent {
            std::future::pending::<()>().await;
        }
        let mut world = self.0.lock();
        let refused: Vec<usize> = (0..batch.len())
            .filter(|&at| world.refused.contains(&number(&batch[at])))
            .collect();
        world.batches.push(batch.len());
        for (at, event) in batch.events().iter().enumerate() {
            if !refused.contains(&at) {
                let entry = (name.clone(), number(event), Instant::now());
                world.log.push(entry);
            }
        }
        if refused.is_empty() {
            return Ok(());
        }
        Err(SinkError::permanent("refused").only(refused))
    }
}

/// A source without events.
struct Idle;

#[async_trait]
impl Source for Idle {
    async fn run(self: Box<Self>, _: Outlet, shutdown: Shutdown) -> Result<(), SourceError> {
        shutdown.started().await;
        Ok(())
    }
}

fn scripted(world: &Arc<Mutex<World>>, delivery: Delivery) -> SinkPart {
    let again = Arc::clone(world);
    SinkPart {
        part: Part {
            id: "out".into(),
            built: Box::new(Scripted(Arc::clone(world))) as Box<dyn Sink>,
            rebuild: Box::new(move || Ok(Box::new(Scripted(Arc::clone(&again))))),
        },
        inputs: vec![input("in")],
        buffer: buffer(1000, WhenFull::Block),
        journal: None,
        delivery,
        required: true,
    }
}

fn one_by_one() -> Delivery {
    Delivery {
        order: Order::Instance,
        batch: BatchPolicy {
            max_events: NonZeroUsize::MIN,
            ..BatchPolicy::default()
        },
        ..Delivery::default()
    }
}

fn start(batches: Vec<Vec<usize>>, sink: SinkPart) -> (Running, super::parts::Receipts) {
    let mut plan = Plan::default();
    let (part, receipts) = source("in", batches);
    plan.sources.push(part);
    plan.sinks.push(sink);
    (plan.start(&Metrics::new()).unwrap(), receipts)
}

async fn drain(running: Running) -> Report {
    let by = Instant::now() + FAR;
    running.drain(by, by, &Shutdown::new()).await
}

async fn disk(folder: &Path) -> Arc<dyn Journal> {
    let options = journal::Options::default();
    journal::open(folder.join("journal"), options)
        .await
        .unwrap()
}

fn delivered_to(world: &Mutex<World>, name: &str) -> Vec<usize> {
    let world = world.lock();
    let own = world.log.iter().filter(|(to, ..)| to == name);
    own.map(|(_, number, _)| *number).collect()
}

/// Waits, in real time, for something that threads of their own have a part in.
async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    for _ in 0..2000 {
        if holds() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("never: {what}");
}

#[tokio::test(start_paused = true)]
async fn a_destination_that_is_down_delays_no_other_and_gets_everything_in_order() {
    let world = Arc::new(Mutex::new(World {
        destinations: 5,
        down: HashSet::from(["d3".to_owned()]),
        ..World::default()
    }));
    let mut sink = scripted(&world, one_by_one());
    sink.delivery.retry.attempts = u32::MAX;
    let begun = Instant::now();
    let (mut running, _) = start(vec![(0..100).collect()], sink);
    running.ended().await;
    tokio::time::sleep(Duration::from_mins(10)).await;
    let others: Vec<_> = world.lock().log.iter().map(|(_, _, at)| *at).collect();
    assert_eq!(others.len(), 80);
    assert!(
        others
            .iter()
            .all(|at| *at - begun < Duration::from_millis(1))
    );
    // Ten attempts, then one every half minute.
    let attempts = world.lock().attempts["d3"];
    assert!((20..=32).contains(&attempts), "{attempts}");

    world.lock().down.clear();
    let report = drain(running).await;
    assert_eq!(
        delivered_to(&world, "d3"),
        (3..100).step_by(5).collect::<Vec<_>>()
    );
    assert_eq!(report.line("out").unwrap().ended(Outcome::Delivered), 100);
}

#[tokio::test(start_paused = true)]
async fn an_attempt_without_an_answer_is_given_up_and_tried_again() {
    let world = Arc::new(Mutex::new(World {
        silent: HashSet::from([String::new()]),
        ..World::default()
    }));
    let mut sink = scripted(&world, one_by_one());
    sink.delivery.retry.attempts = 3;
    let begun = Instant::now();
    let (running, receipts) = start(vec![vec![1]], sink);
    let report = drain(running).await;
    let out = report.line("out").unwrap();
    assert_eq!(out.ended, [(Outcome::Failed, "retries_exhausted", 1)]);
    assert_eq!(world.lock().attempts[""], 3);
    assert!(begun.elapsed() >= Duration::from_secs(90));
    let receipt = receipts.lock().pop().unwrap();
    assert_eq!(receipt.await, Outcome::Failed);
}

#[tokio::test(start_paused = true)]
async fn a_batch_waits_for_others_and_goes_at_once_at_the_end() {
    let world = Arc::new(Mutex::new(World::default()));
    let delivery = Delivery {
        batch: BatchPolicy {
            max_events: NonZeroUsize::new(4).unwrap(),
            max_wait: Duration::from_hours(1),
            ..BatchPolicy::default()
        },
        ..Delivery::default()
    };
    let begun = Instant::now();
    let (running, _) = start(
        (0..10).map(|n| vec![n]).collect(),
        scripted(&world, delivery),
    );
    drain(running).await;
    assert_eq!(world.lock().batches, [4, 4, 2]);
    assert!(begun.elapsed() < Duration::from_secs(1));
}

#[tokio::test]
async fn what_a_buffer_on_disk_holds_is_delivered_by_the_next_process() {
    let folder = tempfile::tempdir().unwrap();
    let world = Arc::new(Mutex::new(World {
        destinations: 3,
        down: HashSet::from(["d1".to_owned()]),
        ..World::default()
    }));
    let mut sink = scripted(&world, one_by_one());
    sink.journal = Some(disk(folder.path()).await);
    let (mut running, receipts) = start(vec![(0..60).collect(), (60..90).collect()], sink);
    running.ended().await;
    let receipts = std::mem::take(&mut *receipts.lock());
    for receipt in receipts {
        assert_eq!(receipt.await, Outcome::Held);
    }
    eventually("the others have theirs", || world.lock().log.len() == 60).await;
    running.leave_backlogs();
    let report = drain(running).await;
    assert!(!report.cut, "what is on the disk need not be waited for");
    assert_eq!(report.abandoned(), 0);

    let world = Arc::new(Mutex::new(World {
        destinations: 3,
        ..World::default()
    }));
    let mut sink = scripted(&world, one_by_one());
    sink.journal = Some(disk(folder.path()).await);
    let (mut running, _) = start(Vec::new(), sink);
    running.ended().await;
    drain(running).await;
    let again = delivered_to(&world, "d1");
    assert_eq!(again, (1..90).step_by(3).collect::<Vec<_>>());
}

#[tokio::test(start_paused = true)]
async fn what_a_full_buffer_drops_is_counted() {
    let world = Arc::new(Mutex::new(World {
        down: HashSet::from([String::new()]),
        ..World::default()
    }));
    let delivery = Delivery {
        // One is tried, the rest waits in the journal.
        order: Order::Strict,
        ..one_by_one()
    };
    let mut sink = scripted(&world, delivery);
    sink.buffer = buffer(10_000, WhenFull::DropOldest);
    sink.delivery.retry.attempts = u32::MAX;
    sink.journal = Some(Arc::new(Memory::new(journal::Retention {
        bytes: 2_000,
        ..journal::Retention::default()
    })));
    let batches = (0..100).map(|n| (n * 50..(n + 1) * 50).collect());
    let (mut running, receipts) = start(batches.collect(), sink);
    running.ended().await;
    let receipts = std::mem::take(&mut *receipts.lock());
    for receipt in receipts {
        assert_eq!(receipt.await, Outcome::Held);
    }
    world.lock().down.clear();
    let report = drain(running).await;
    let out = report.line("out").unwrap();
    let (delivered, shed) = (out.ended(Outcome::Delivered), out.ended(Outcome::Shed));
    assert_eq!(delivered + shed, 5000, "{:?}", out.ended);
    assert!(delivered > 0 && shed > 1000, "{:?}", out.ended);
    let got = delivered_to(&world, "");
    assert!(got.is_sorted() && got.last() == Some(&4999), "{got:?}");
}

#[tokio::test]
async fn a_parked_destination_catches_up_in_order_and_others_get_nothing_twice() {
    let folder = tempfile::tempdir().unwrap();
    let world = Arc::new(Mutex::new(World {
        destinations: 4,
        down: HashSet::from(["d2".to_owned()]),
        ..World::default()
    }));
    let mut sink = scripted(&world, one_by_one());
    sink.buffer = buffer(64, WhenFull::Block);
    sink.delivery.retry.attempts = u32::MAX;
    sink.delivery.breaker.open = Duration::from_millis(50);
    sink.journal = Some(disk(folder.path()).await);
    let batches = (0..40).map(|n| (n * 50..(n + 1) * 50).collect());
    let (mut running, _) = start(batches.collect(), sink);
    running.ended().await;
    eventually("the others have theirs", || world.lock().log.len() >= 1500).await;
    assert!(delivered_to(&world, "d2").is_empty());
    world.lock().down.clear();
    eventually("the parked one has its own", || {
        world.lock().log.len() >= 2000
    })
    .await;
    let report = drain(running).await;
    assert_eq!(report.line("out").unwrap().ended(Outcome::Delivered), 2000);
    for destination in 0..4 {
        let expected: Vec<usize> = (destination..2000).step_by(4).collect();
        assert_eq!(delivered_to(&world, &format!("d{destination}")), expected);
    }
}

#[tokio::test]
async fn dead_letters_are_held_and_can_be_sent_again() {
    use crate::delivery::dead_letter::Folder;

    let folder = tempfile::tempdir().unwrap();
    let template = folder.path().join("dead-*.ndjson");
    let world = Arc::new(Mutex::new(World {
        refused: HashSet::from([3, 5]),
        ..World::default()
    }));
    let delivery = Delivery {
        dead_letter: Some(template.clone()),
        ..Delivery::default()
    };
    let (running, receipts) = start(vec![(0..8).collect()], scripted(&world, delivery.clone()));
    let report = drain(running).await;
    let out = report.line("out").unwrap();
    assert_eq!(
        out.ended,
        [
            (Outcome::Delivered, "", 6),
            (Outcome::Failed, "permanent", 2)
        ]
    );
    let receipt = receipts.lock().pop().unwrap();
    assert_eq!(receipt.await, Outcome::Held, "they are not lost");

    world.lock().refused.clear();
    let letters = Folder::new(&template, "out");
    assert_eq!(letters.send_again(|_| true).unwrap(), 2);
    let mut plan = Plan::default();
    plan.sources.push(Part {
        id: "in".into(),
        built: Box::new(Idle) as Box<dyn Source>,
        rebuild: Box::new(|| unreachable!("it does not fail")),
    });
    plan.sinks.push(scripted(&world, delivery));
    let running = plan.start(&Metrics::new()).unwrap();
    eventually("they are sent again", || world.lock().log.len() == 8).await;
    drain(running).await;
    assert_eq!(
        letters.inbox().unwrap().len() + letters.files().unwrap().len(),
        0
    );
}
