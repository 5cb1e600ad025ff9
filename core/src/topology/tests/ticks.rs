//! Ticks pause while there is nothing to do in them.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use tokio::time::{Instant, sleep};

use super::parts::{Deed, Fate, TAKE_OVERS, event, filter, input, number, sink};
use crate::metrics::Metrics;
use crate::plugin::{Emitter, Filter, Source, SourceError};
use crate::topology::{BuiltFilter, FilterPart, Outlet, Part, Plan};
use crate::{Event, Outcome, Shutdown};

const HOUR: Duration = Duration::from_hours(1);
const SECOND: Duration = Duration::from_secs(1);

/// What a filter did, from the start.
#[derive(Default)]
struct Diary {
    ticks: usize,
    let_go: Vec<(usize, Duration)>,
}

/// Holds each event until the next tick.
struct Sleepy {
    start: Instant,
    held: Vec<Event>,
    diary: Arc<Mutex<Diary>>,
}

impl Filter for Sleepy {
    fn apply(&mut self, event: Event, _: &mut Emitter<'_>) {
        self.held.push(event);
    }

    fn ticked(&mut self, out: &mut Emitter<'_>) {
        self.diary.lock().ticks += 1;
        for event in self.held.drain(..) {
            let entry = (number(&event), self.start.elapsed());
            self.diary.lock().let_go.push(entry);
            out.emit(event);
        }
    }

    fn tick(&self) -> Option<Duration> {
        Some(SECOND)
    }

    fn is_idle(&self) -> bool {
        self.held.is_empty()
    }
}

/// Two events, six hours and a bit apart, and six hours more.
struct Seldom;

#[async_trait]
impl Source for Seldom {
    async fn run(self: Box<Self>, mut outlet: Outlet, _: Shutdown) -> Result<(), SourceError> {
        for number in 0..2 {
            let receipt = outlet.send_tracked(vec![event("in", number)]).await;
            sleep(6 * HOUR + Duration::from_millis(300)).await;
            assert_eq!(receipt.await, Outcome::Delivered);
        }
        Ok(())
    }
}

fn sleepy(name: &str, reads: &str, diary: &Arc<Mutex<Diary>>) -> FilterPart {
    let diary = Arc::clone(diary);
    let start = Instant::now();
    let build = move || {
        BuiltFilter::Inline(Box::new(Sleepy {
            start,
            held: Vec::new(),
            diary: Arc::clone(&diary),
        }))
    };
    FilterPart {
        part: Part {
            id: name.into(),
            built: build(),
            rebuild: Box::new(move || Ok(build())),
        },
        inputs: vec![input(reads)],
        ports: Vec::new(),
    }
}

/// Two filters behind each other.
fn plan(first: FilterPart, second: FilterPart) -> Plan {
    let mut plan = Plan::default();
    plan.sources.push(Part {
        id: "in".into(),
        built: Box::new(Seldom) as Box<dyn Source>,
        rebuild: Box::new(|| unreachable!("the source does not fail")),
    });
    plan.filters.extend([first, second]);
    plan.sinks
        .push(sink("out", Fate::Take, vec![input("second")]).0);
    plan
}

#[tokio::test(start_paused = true)]
async fn filters_that_hold_nothing_are_not_ticked_and_those_that_do_are_at_the_same_times() {
    let diaries: [Arc<Mutex<Diary>>; 2] = std::array::from_fn(|_| Arc::default());
    let first = sleepy("first", "in", &diaries[0]);
    let plan = plan(first, sleepy("second", "first", &diaries[1]));
    let mut running = plan.start(&Metrics::new()).unwrap();
    running.ended().await;
    let later = Instant::now() + HOUR;
    running.drain(later, later, &Shutdown::new()).await;
    let [first, second] = diaries.map(|diary| std::mem::take(&mut *diary.lock()));
    assert_eq!(first.let_go, [(0, SECOND), (1, 6 * HOUR + SECOND)]);
    let (_, last) = second.let_go[1];
    assert!(last <= 6 * HOUR + 2 * SECOND, "{last:?}");
    assert!(
        first.ticks + second.ticks < 12,
        "{} and {}",
        first.ticks,
        second.ticks
    );
}

#[tokio::test(start_paused = true)]
async fn a_filter_that_is_replaced_is_ticked_as_it_asks_and_others_as_before() {
    let diaries: [Arc<Mutex<Diary>>; 2] = std::array::from_fn(|_| Arc::default());
    let passes = || filter("first", Deed::Pass, vec![input("in")]);
    let mut running = plan(passes(), sleepy("second", "first", &diaries[1]))
        .start(&Metrics::new())
        .unwrap();
    for _ in 0..10 {
        sleep(SECOND * 3 / 5).await;
        running.replace(passes().part, TAKE_OVERS).await;
    }
    assert_eq!(diaries[1].lock().let_go, [(0, SECOND)]);
    let ticks = sleepy("first", "in", &diaries[0]).part;
    running.replace(ticks, TAKE_OVERS).await;
    running.ended().await;
    let later = Instant::now() + HOUR;
    running.drain(later, later, &Shutdown::new()).await;
    let [first, second] = diaries.map(|diary| std::mem::take(&mut *diary.lock()));
    assert_eq!((first.let_go.len(), second.let_go.len()), (1, 2));
}
