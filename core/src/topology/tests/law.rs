//! The conservation law, over random graphs whose filters are exchanged while events flow: what goes in comes out, once per
//! way, and ends as a model that shares no code with the topology says it does.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;
use tokio::time::Instant;

use super::parts::{Deed, Fate, Log, Pace, Receipts, TAKE_OVERS, paced, sink, source};
use crate::config::Input;
use crate::journal::{Memory, Retention};
use crate::metrics::Metrics;
use crate::registry::Kind;
use crate::topology::{Plan, Running};
use crate::{Outcome, Report};

/// A graph as drawn: readers pick among the outputs before them.
#[derive(Debug, Clone)]
struct Drawing {
    /// The batch sizes of each source.
    sources: Vec<Vec<usize>>,
    filters: Vec<(Deed, Pace, Vec<usize>)>,
    sinks: Vec<(Fate, Vec<usize>, bool, Keeping)>,
    swaps: Vec<Swap>,
}

/// A filter that is exchanged while events flow.
#[derive(Debug, Clone)]
struct Swap {
    filter: usize,
    after: When,
    /// What the new one does; the same without it.
    deed: Option<Deed>,
    /// Whether it is waited for before the next one.
    waits: bool,
}

#[derive(Debug, Clone, Copy)]
enum When {
    Turns(usize),
    Millis(u64),
}

/// What keeps a sink's events for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Keeping {
    Queue,
    /// A journal behind the queue.
    Journal,
    /// Dead letters for what it refuses.
    Letters,
    Both,
}

/// An output: a component's id and a port.
type Port = (String, Option<&'static str>);

/// What is to come out: events by component, outcome and reason.
type Ends = BTreeMap<(String, Outcome, &'static str), u64>;

struct Model<'a> {
    drawing: &'a Drawing,
    filter_inputs: Vec<Vec<Port>>,
    sink_inputs: Vec<Vec<Port>>,
    ends: Ends,
}

fn drawings() -> impl Strategy<Value = Drawing> {
    let deeds = proptest::sample::select(vec![
        Deed::Pass,
        Deed::DiscardOdd,
        Deed::Spread,
        Deed::Duplicate,
        Deed::FailFifth,
        Deed::Hold,
        Deed::PanicSeventh,
        Deed::StallSixth,
    ]);
    let paces = || proptest::sample::select(vec![Pace::Inline, Pace::Async]);
    let fates = proptest::sample::select(vec![
        Fate::Take,
        Fate::RefuseFourth,
        Fate::Stumble,
        Fate::Slow,
    ]);
    let picks = || proptest::collection::vec(0..100_usize, 1..4);
    let sources = proptest::collection::vec(proptest::collection::vec(0..12_usize, 0..6), 1..4);
    let filters = proptest::collection::vec((deeds, paces(), picks()), 0..6);
    let keepings = proptest::sample::select(vec![
        Keeping::Queue,
        Keeping::Journal,
        Keeping::Letters,
        Keeping::Both,
    ]);
    let sinks = proptest::collection::vec((fates, picks(), any::<bool>(), keepings), 1..4);
    let swaps = proptest::collection::vec(swaps(), 0..8);
    (sources, filters, sinks, swaps).prop_map(|(sources, filters, sinks, swaps)| Drawing {
        sources,
        filters,
        sinks,
        swaps,
    })
}

fn swaps() -> impl Strategy<Value = Swap> {
    // Deeds after which as much leaves a filter as comes in, and no port is missing.
    let others = proptest::sample::select(vec![
        Deed::Pass,
        Deed::DiscardOdd,
        Deed::FailFifth,
        Deed::Hold,
        Deed::PanicSeventh,
    ]);
    let deeds = proptest::option::weighted(0.2, others);
    let whens = prop_oneof![
        (0..12_usize).prop_map(When::Turns),
        (0..60_u64).prop_map(When::Millis)
    ];
    (0..100_usize, whens, deeds, any::<bool>()).prop_map(|(filter, after, deed, waits)| Swap {
        filter,
        after,
        deed,
        waits,
    })
}

// === impl Drawing ===

impl Drawing {
    /// The inputs of the filters and of the sinks, each once.
    fn inputs(&self) -> (Vec<Vec<Port>>, Vec<Vec<Port>>) {
        let mut outputs: Vec<Port> = (0..self.sources.len())
            .map(|source| (format!("source{source}"), None))
            .collect();
        let pick = |outputs: &[Port], picks: &[usize]| {
            let mut picked: Vec<Port> = Vec::new();
            for pick in picks {
                let output = outputs[pick % outputs.len()].clone();
                if !picked.contains(&output) {
                    picked.push(output);
                }
            }
            picked
        };
        let mut filters = Vec::new();
        for (index, (deed, _, picks)) in self.filters.iter().enumerate() {
            filters.push(pick(&outputs, picks));
            let id = format!("filter{index}");
            outputs.push((id.clone(), None));
            if *deed == Deed::Spread {
                outputs.push((id.clone(), Some("one")));
                outputs.push((id, Some("two")));
            }
        }
        let sinks = self
            .sinks
            .iter()
            .map(|(_, picks, ..)| pick(&outputs, picks));
        (filters, sinks.collect())
    }

    /// The numbers of each batch of a source.
    fn batches(&self, source: usize) -> Vec<Vec<usize>> {
        let mut next = 0;
        let sizes = self.sources[source].iter();
        sizes
            .map(|size| {
                next += size;
                (next - size..next).collect()
            })
            .collect()
    }

    fn plan(&self, folder: &Path) -> (Plan, Vec<Receipts>, Vec<Log>) {
        let input = |(id, port): &Port| Input {
            id: id.as_str().into(),
            port: port.map(str::to_owned),
        };
        let (filters, sinks) = self.inputs();
        let (mut plan, mut receipts, mut logs) = (Plan::default(), Vec::new(), Vec::new());
        for index in 0..self.sources.len() {
            let (part, its) = source(&format!("source{index}"), self.batches(index));
            plan.sources.push(part);
            receipts.push(its);
        }
        for (index, (inputs, (deed, pace, _))) in filters.iter().zip(&self.filters).enumerate() {
            let inputs = inputs.iter().map(input).collect();
            plan.filters
                .push(paced(&format!("filter{index}"), *deed, *pace, inputs));
        }
        let sinks = sinks.iter().zip(&self.sinks).enumerate();
        for (index, (inputs, (fate, _, required, keeping))) in sinks {
            let inputs = inputs.iter().map(input).collect();
            let (mut part, log) = sink(&format!("sink{index}"), *fate, inputs);
            part.required = *required;
            if matches!(keeping, Keeping::Journal | Keeping::Both) {
                part.journal = Some(Arc::new(Memory::new(Retention::default())));
            }
            if matches!(keeping, Keeping::Letters | Keeping::Both) {
                let template = folder.join(format!("sink{index}-*.ndjson"));
                part.delivery.dead_letter = Some(template);
            }
            plan.sinks.push(part);
            logs.push(log);
        }
        (plan, receipts, logs)
    }

    /// Whether a filter that runs inline does this.
    fn has(&self, deed: Deed) -> bool {
        let first = self.filters.iter().map(|(deed, pace, _)| (*deed, *pace));
        let later = self.swaps.iter().filter_map(|swap| self.swapped(swap));
        let later = later.map(|(_, deed, pace)| (deed, pace));
        first.chain(later).any(|it| it == (deed, Pace::Inline))
    }

    /// What the filter of a swap does from then on, if there is such a filter.
    fn swapped(&self, swap: &Swap) -> Option<(usize, Deed, Pace)> {
        let filter = swap.filter.checked_rem(self.filters.len())?;
        let (was, pace, _) = self.filters[filter];
        let deed = match swap.deed {
            Some(deed) if !matches!(was, Deed::Spread | Deed::Duplicate) => deed,
            _ => was,
        };
        Some((filter, deed, pace))
    }

    /// Whether filters do something else after a swap. Which events that meets is not known.
    fn changes(&self) -> bool {
        let mut swaps = self.swaps.iter().filter_map(|swap| self.swapped(swap));
        swaps.any(|(filter, deed, _)| self.filters[filter].0 != deed)
    }

    async fn swap_all(&self, running: &Running) {
        let mut waiting = Vec::new();
        for swap in &self.swaps {
            match swap.after {
                When::Turns(turns) => {
                    for _ in 0..turns {
                        tokio::task::yield_now().await;
                    }
                }
                When::Millis(ms) => tokio::time::sleep(Duration::from_millis(ms)).await,
            }
            let Some((filter, deed, pace)) = self.swapped(swap) else {
                continue;
            };
            let part = paced(&format!("filter{filter}"), deed, pace, Vec::new()).part;
            let done = running.replace(part, TAKE_OVERS);
            if swap.waits {
                done.await;
            } else {
                waiting.push(done);
            }
        }
        futures_util::future::join_all(waiting).await;
    }

    fn has_async(&self) -> bool {
        self.filters.iter().any(|(_, pace, _)| *pace == Pace::Async)
    }
}

// === impl Model ===

impl<'a> Model<'a> {
    fn new(drawing: &'a Drawing) -> Self {
        let (filter_inputs, sink_inputs) = drawing.inputs();
        Self {
            drawing,
            filter_inputs,
            sink_inputs,
            ends: Ends::new(),
        }
    }

    fn end(&mut self, component: &str, outcome: Outcome, reason: &'static str) -> Outcome {
        *self
            .ends
            .entry((component.to_owned(), outcome, reason))
            .or_default() += 1;
        outcome
    }

    /// The filters and sinks that read an output.
    fn readers(&self, port: &Port) -> (Vec<usize>, Vec<usize>) {
        let reading = |inputs: &[Vec<Port>]| {
            let all = inputs.iter().enumerate();
            all.filter(|(_, its)| its.contains(port))
                .map(|(i, _)| i)
                .collect()
        };
        (reading(&self.filter_inputs), reading(&self.sink_inputs))
    }

    /// Every sink behind a filter.
    fn behind(&self, filter: usize) -> Vec<usize> {
        let id = format!("filter{filter}");
        let mut sinks = Vec::new();
        for port in [None, Some("one"), Some("two")] {
            let (filters, direct) = self.readers(&(id.clone(), port));
            sinks.extend(direct);
            sinks.extend(filters.into_iter().flat_map(|other| self.behind(other)));
        }
        sinks
    }

    /// Sends an event out of a port; gives the worst end that its source hears of.
    fn leave(&mut self, port: &Port, n: usize) -> Outcome {
        let (filters, sinks) = self.readers(port);
        if filters.is_empty() && sinks.is_empty() {
            return self.end(&port.0, Outcome::Filtered, "unconnected");
        }
        let mut worst = Outcome::Delivered;
        for filter in filters {
            let end = self.enter(filter, n);
            let behind = self.behind(filter);
            if behind.is_empty() || behind.iter().any(|sink| self.drawing.sinks[*sink].2) {
                worst = worst.max(end);
            }
        }
        for sink in sinks {
            let (fate, _, required, keeping) = self.drawing.sinks[sink];
            let id = format!("sink{sink}");
            let end = if fate == Fate::RefuseFourth && n.is_multiple_of(4) {
                self.end(&id, Outcome::Failed, "permanent")
            } else {
                self.end(&id, Outcome::Delivered, "")
            };
            let heard = match (keeping, end) {
                (Keeping::Journal | Keeping::Both, _) | (Keeping::Letters, Outcome::Failed) => {
                    Outcome::Held
                }
                _ => end,
            };
            if required {
                worst = worst.max(heard);
            }
        }
        worst
    }

    fn enter(&mut self, filter: usize, n: usize) -> Outcome {
        let id = format!("filter{filter}");
        let unnamed = (id.clone(), None);
        let (deed, pace, _) = &self.drawing.filters[filter];
        let is_async = *pace == Pace::Async;
        match deed {
            Deed::PanicSeventh if is_async && n % 7 == 6 => self.end(&id, Outcome::Failed, "panic"),
            Deed::StallSixth if is_async && n % 6 == 5 => self.end(&id, Outcome::Failed, "timeout"),
            Deed::DiscardOdd if n % 2 == 1 => self.end(&id, Outcome::Filtered, "odd"),
            Deed::FailFifth if n.is_multiple_of(5) => self.end(&id, Outcome::Failed, "fifth"),
            Deed::Spread if n % 3 == 1 => self.leave(&(id, Some("one")), n),
            Deed::Spread if n % 3 == 2 => self.leave(&(id, Some("two")), n),
            Deed::Duplicate => self.leave(&unnamed, n).max(self.leave(&unnamed, n)),
            _ => self.leave(&unnamed, n),
        }
    }
}

async fn run(drawing: &Drawing, plan: Plan) -> Report {
    let mut running = plan.start(&Metrics::new()).unwrap();
    drawing.swap_all(&running).await;
    running.ended().await;
    let far = Instant::now() + Duration::from_hours(1);
    running.drain(far, far, &crate::Shutdown::new()).await
}

/// What each component took in came out of it.
fn check_components(drawing: &Drawing, report: &Report) -> Result<(), TestCaseError> {
    for line in &report.lines {
        let ended: u64 = line.ended.iter().map(|(_, _, events)| events).sum();
        let lost = line.ended(Outcome::Lost);
        prop_assert_eq!(lost, 0, "{}", line);
        let index = line.id.trim_start_matches(|c: char| c.is_alphabetic());
        let doubles = line.kind == Kind::Filter
            && drawing.filters[index.parse::<usize>().unwrap()].0 == Deed::Duplicate;
        let expected = line.received * if doubles { 2 } else { 1 };
        prop_assert_eq!(expected, line.sent + ended, "{}", line);
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_goes_in_comes_out(drawing in drawings()) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap();
        let folder = tempfile::tempdir().unwrap();
        let (plan, receipts, logs) = drawing.plan(folder.path());
        let report = runtime.block_on(run(&drawing, plan));
        prop_assert!(!report.cut);
        check_components(&drawing, &report)?;

        // One source is one segment, whatever the graph: then every sink sees its order.
        if drawing.sources.len() == 1 && !drawing.has(Deed::Hold) && !drawing.has_async() {
            for log in &logs {
                prop_assert!(log.lock().is_sorted_by_key(|(_, n)| *n), "{:?}", log.lock());
            }
        }

        let mut model = Model::new(&drawing);
        for (index, its) in receipts.into_iter().enumerate() {
            let its = std::mem::take(&mut *its.lock());
            for (batch, receipt) in drawing.batches(index).into_iter().zip(its) {
                let port = (format!("source{index}"), None);
                let ends = batch.into_iter().map(|n| model.leave(&port, n));
                let expected = ends.max().unwrap_or(Outcome::Delivered);
                let outcome = futures_util::FutureExt::now_or_never(receipt);
                prop_assert!(outcome.is_some(), "a batch has no outcome");
                // Which events a panic takes along depends on the batches, which the model does not know.
                if !drawing.has(Deed::PanicSeventh) && !drawing.changes() {
                    prop_assert_eq!(outcome, Some(expected));
                }
                prop_assert!(outcome != Some(Outcome::Lost));
            }
        }
        for (index, (fate, .., keeping)) in drawing.sinks.iter().enumerate() {
            let line = report.line(&format!("sink{index}")).unwrap();
            let mut letters = 0;
            for entry in std::fs::read_dir(folder.path()).unwrap() {
                let path = entry.unwrap().path();
                if path.file_name().unwrap().to_string_lossy().starts_with(&format!("sink{index}-")) {
                    letters += std::fs::read_to_string(path).unwrap().lines().count() as u64;
                }
            }
            let has_letters = matches!(keeping, Keeping::Letters | Keeping::Both);
            let failed = if has_letters { line.ended(Outcome::Failed) } else { 0 };
            prop_assert_eq!(letters, failed, "{:?} {}", fate, line);
        }
        if !drawing.has(Deed::PanicSeventh) && !drawing.changes() {
            let ends: Ends = report.lines.iter()
                .flat_map(|line| line.ended.iter().map(|(o, r, n)| ((line.id.to_string(), *o, *r), *n)))
                .collect();
            prop_assert_eq!(ends, model.ends);
        }
    }
}
