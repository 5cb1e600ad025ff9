//! Sets a pipeline up, puts events in, and lets the time pass.

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime};

use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, sleep_until, timeout_at};

use super::ends::{Fails, Open, Taker};
use super::observer::{Observed, ObservedAsync, Watched};
use super::record::{Recorder, Recording};
use crate::config::{
    Component, Config, ErrorKind, Feed, FilterNode, Input, Mock, Pipeline, SinkNode,
};
use crate::delivery::Jitter;
use crate::metrics::Metrics;
use crate::plugin::{BuildError, Environment, Shared, Sink, Source};
use crate::runtime::{self, StartError};
use crate::shutdown::{Report, Shutdown};
use crate::topology::{BuiltFilter, FilterPart, Outlet, Part, Plan, SinkPart};
use crate::{Event, EventId, Outcome, Receipt};

/// How long the last events are waited for when nobody says how long.
const PATIENCE: Duration = Duration::from_mins(1);

/// No run goes on for longer: clocks have an end.
const LONGEST: Duration = Duration::from_hours(24 * 365 * 100);

/// The smallest step of the clock. Before it moves, all is done that can be.
const STEP: Duration = Duration::from_millis(1);

/// When every run begins, in hours since 1970: 2026-01-01T00:00:00Z. Events are received then, or as much later as they are put in.
const BEGIN: Duration = Duration::from_hours(490_896);

/// What is to be run.
pub(crate) struct Rehearsal<'a> {
    pub(crate) config: &'a Config,
    pub(crate) environment: &'a Environment,
    pub(crate) mocks: &'a [Mock],
    /// In the order of their times.
    pub(crate) feeds: &'a [Feed],
    /// When the pipeline is stopped; when everything has ended without it.
    pub(crate) until: Option<Duration>,
    /// Whether events pass a filter that reaches out of the process; they fail there otherwise, as `not_mocked`.
    pub(crate) skips: bool,
}

/// What came of it.
#[derive(Debug)]
pub(crate) struct Run {
    /// Every step.
    pub(crate) recording: Recording,
    /// The counts of every component.
    pub(crate) report: Report,
    /// What was put in, in order.
    pub(crate) fed: Vec<Fed>,
}

/// An event that was put in.
#[derive(Debug)]
pub(crate) struct Fed {
    pub(crate) id: EventId,
    pub(crate) name: String,
    pub(crate) instance: String,
    /// Where it was put in.
    pub(crate) into: Arc<str>,
    pub(crate) at: Duration,
    /// The worst that became of it and its copies.
    pub(crate) outcome: Outcome,
}

/// A pipeline that is set up.
struct Scene {
    plan: Plan,
    outlets: mpsc::UnboundedReceiver<(Arc<str>, Outlet)>,
    ends: usize,
    recorder: Arc<Recorder>,
}

// === impl Run ===

impl Run {
    /// Whether anything failed, or was lost.
    pub(crate) fn has_failed(&self) -> bool {
        let mut ended = self.report.lines.iter().flat_map(|line| &line.ended);
        ended.any(|(outcome, _, _)| matches!(outcome, Outcome::Failed | Outcome::Lost))
    }
}

// === impl Rehearsal ===

impl Rehearsal<'_> {
    /// Runs it, on this thread, in virtual time.
    pub(crate) fn run(&self) -> io::Result<Result<Run, StartError>> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .start_paused(true)
            .build()?;
        let ran = runtime.block_on(self.drive());
        runtime.shutdown_background();
        Ok(ran)
    }

    async fn drive(&self) -> Result<Run, StartError> {
        let metrics = Metrics::new();
        let Scene {
            plan,
            mut outlets,
            ends,
            recorder,
        } = self.set_up()?;
        let running = plan.start(&metrics)?;
        let mut open = HashMap::new();
        while open.len() < ends {
            let next = outlets.recv().await;
            open.extend(next);
        }
        let start = Instant::now();
        let mut fed: Vec<(Fed, Receipt)> = Vec::with_capacity(self.feeds.len());
        for feed in self.feeds {
            // One after the other, so that each is through before the next, as far as it can be.
            sleep_until(start + feed.at.min(LONGEST)).await;
            fed.extend(put_in(feed, &mut open).await);
        }
        let mut fed = Box::pin(settle(fed));
        let mut settled = None;
        match self.until {
            Some(until) => sleep_until(start + until.min(LONGEST)).await,
            None => settled = timeout_at(Instant::now() + PATIENCE, &mut fed).await.ok(),
        }
        // What is due by now happens before the stop.
        sleep(STEP).await;
        recorder.stops();
        drop(open);
        let begun = Instant::now();
        let (sources_by, sinks_by) = runtime::stop_by(&self.config.server, begun);
        let force = Shutdown::new();
        let report = running.drain(sources_by, sinks_by, &force).await;
        let fed = match settled {
            Some(fed) => fed,
            None => fed.await,
        };
        Ok(Run {
            recording: recorder.take(),
            report,
            fed,
        })
    }

    /// Builds the filters, and puts other ends to them.
    fn set_up(&self) -> Result<Scene, StartError> {
        let (hand, outlets) = mpsc::unbounded_channel();
        let recorder = Arc::new(Recorder::new());
        let pipeline = self.mocked();
        let readers = readers(&pipeline);
        let mut plan = Plan::default();
        let shared = runtime::share_for(self.config, self.environment.clone())?;
        let mut open = |name: &Arc<str>, id: Arc<str>| {
            let (name, hand) = (Arc::clone(name), hand.clone());
            let make = move || -> Box<dyn Source> {
                let (name, hand) = (Arc::clone(&name), hand.clone());
                Box::new(Open { name, hand })
            };
            plan.sources.push(part(id, make));
        };
        for component in &pipeline.sources {
            open(&component.id, Arc::clone(&component.id));
        }
        let mut fed: Vec<&Arc<str>> = self.feeds.iter().map(|feed| &feed.into).collect();
        fed.sort();
        fed.dedup();
        for node in pipeline.filters {
            let id = Arc::clone(&node.component.id);
            let mut inputs = node.inputs.clone();
            if fed.contains(&&id) {
                // No id has a space in it.
                let door: Arc<str> = format!("into {id}").into();
                inputs.push(Input {
                    id: Arc::clone(&door),
                    port: None,
                });
                open(&id, door);
            }
            let read = readers.get(&id).map(Vec::as_slice).unwrap_or_default();
            let is_read = |port: Option<&String>| read.iter().any(|it| it.as_ref() == port);
            let outputs = std::iter::once(None).chain(node.ports.iter().map(Some));
            let watched = Arc::new(Watched {
                read: outputs.map(is_read).collect(),
                ports: node.ports.iter().map(|port| port.as_str().into()).collect(),
                id,
            });
            let ports = node.ports.clone();
            let part = self.filter(node, &shared)?;
            plan.filters.push(FilterPart {
                part: observed(part, &watched, &recorder, self.skips),
                inputs,
                ports,
            });
        }
        for node in pipeline.sinks {
            plan.sinks.push(self.sink(node, &recorder));
        }
        Ok(Scene {
            ends: plan.sources.len(),
            plan,
            outlets,
            recorder,
        })
    }

    /// The pipeline with the keys that filters have in this test.
    fn mocked(&self) -> Pipeline {
        let mut pipeline = self.config.pipeline.clone();
        for node in &mut pipeline.filters {
            if let Some(Mock::Settings(with)) = self.mock_of(&node.component) {
                node.clone_from(with);
            }
        }
        pipeline
    }

    /// What is in the place of this component.
    fn mock_of<'s>(&'s self, component: &Component) -> Option<&'s Mock> {
        let mut mocks = self.mocks.iter();
        mocks.find(|mock| *mock.id() == *component.id)
    }

    fn filter(
        &self,
        node: FilterNode,
        shared: &Arc<Shared>,
    ) -> Result<Part<BuiltFilter>, StartError> {
        match self.mock_of(&node.component).and_then(stand_in) {
            Some(part) => Ok(part),
            None => runtime::filter(node.component, shared),
        }
    }

    /// A sink that takes all, delivered to as the real one is, less the dead letters, which are files.
    fn sink(&self, node: SinkNode, recorder: &Arc<Recorder>) -> SinkPart {
        let component = &node.component;
        let delivery = component
            .plugin
            .delivery(&component.settings, self.environment);
        let mut delivery = delivery.with(&node.delivery);
        delivery.dead_letter = None;
        // The same waits each time.
        delivery.retry.jitter = Jitter::Around(0.0);
        let (times, error) = match self.mock_of(component) {
            Some(Mock::Fails(_, times, error)) => (*times, *error),
            _ => (0, ErrorKind::Transient),
        };
        let (fails, recorder) = (Fails::new(times, error), Arc::clone(recorder));
        let id = Arc::clone(&component.id);
        let taker = move || -> Box<dyn Sink> {
            Box::new(Taker {
                id: Arc::clone(&id),
                recorder: Arc::clone(&recorder),
                fails: fails.clone(),
            })
        };
        SinkPart {
            part: part(Arc::clone(&component.id), taker),
            inputs: node.inputs,
            buffer: node.buffer,
            journal: None,
            delivery,
            // So that an event is through when its receipt says so.
            required: true,
        }
    }
}

/// The filter that is in another's place.
fn stand_in(mock: &Mock) -> Option<Part<BuiltFilter>> {
    match mock {
        #[cfg(feature = "jq")]
        Mock::Program(id, program) => {
            let program = Arc::clone(program);
            let scripted =
                move || BuiltFilter::Inline(Box::new(super::program::Scripted::new(&program)));
            Some(part(Arc::clone(id), scripted))
        }
        Mock::Settings(_) | Mock::Fails(..) => None,
    }
}

/// A part that can always be built.
fn part<T: 'static>(id: Arc<str>, make: impl Fn() -> T + Send + 'static) -> Part<T> {
    Part {
        id,
        built: make(),
        rebuild: Box::new(move || Ok(make())),
    }
}

/// A filter that is watched, also when it is built again.
fn observed(
    part: Part<BuiltFilter>,
    watched: &Arc<Watched>,
    recorder: &Arc<Recorder>,
    skips: bool,
) -> Part<BuiltFilter> {
    let (watched, recorder) = (Arc::clone(watched), Arc::clone(recorder));
    let observe = move |filter: BuiltFilter| {
        let (watched, recorder) = (Arc::clone(&watched), Arc::clone(&recorder));
        match filter {
            BuiltFilter::Inline(filter) => {
                BuiltFilter::Inline(Box::new(Observed::new(filter, watched, recorder)))
            }
            BuiltFilter::Async(filter) => BuiltFilter::Async(Arc::new(ObservedAsync {
                filter,
                node: watched,
                recorder,
                skips,
                broken: OnceLock::new(),
            })),
        }
    };
    let mut rebuild = part.rebuild;
    Part {
        id: part.id,
        built: observe(part.built),
        rebuild: Box::new(move || rebuild().map(&observe) as Result<_, BuildError>),
    }
}

/// The outputs of each node that somebody reads.
fn readers(pipeline: &Pipeline) -> HashMap<Arc<str>, Vec<Option<String>>> {
    let mut readers: HashMap<Arc<str>, Vec<Option<String>>> = HashMap::new();
    let filters = pipeline.filters.iter().flat_map(|node| &node.inputs);
    let sinks = pipeline.sinks.iter().flat_map(|node| &node.inputs);
    for input in filters.chain(sinks) {
        let read = readers.entry(Arc::clone(&input.id)).or_default();
        read.push(input.port.clone());
    }
    readers
}

/// Puts an event in; nothing when its place or its envelope is none.
async fn put_in(feed: &Feed, open: &mut HashMap<Arc<str>, Outlet>) -> Option<(Fed, Receipt)> {
    let received_at = SystemTime::UNIX_EPOCH + BEGIN + feed.at.min(LONGEST);
    let envelope = bytes::Bytes::copy_from_slice(feed.envelope.as_bytes());
    let event = Event::parse(envelope, received_at).ok()?;
    let outlet = open.get_mut(&feed.into)?;
    let put = Fed {
        id: event.id(),
        name: event.name().to_owned(),
        instance: event.instance().to_owned(),
        into: Arc::clone(&feed.into),
        at: feed.at,
        outcome: Outcome::Lost,
    };
    Some((put, outlet.send_tracked(vec![event]).await))
}

/// Waits until each event has ended.
async fn settle(fed: Vec<(Fed, Receipt)>) -> Vec<Fed> {
    let mut settled = Vec::with_capacity(fed.len());
    for (fed, receipt) in fed {
        let outcome = receipt.await;
        settled.push(Fed { outcome, ..fed });
    }
    settled
}
