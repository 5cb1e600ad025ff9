//! Sources, filters and sinks whose every step is known.

use std::any::Any;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use parking_lot::Mutex;

use crate::config::{BufferConfig, Input, Size, WhenFull};
use crate::plugin::{
    AsyncFilter, Batch, Emitter, Filter, Sink, SinkError, Source, SourceError, Verdict,
};
use crate::registry::TakeOvers;
use crate::topology::{BuiltFilter, FilterPart, Outlet, Part, SinkPart};
use crate::{Event, Receipt, Shutdown};

/// What a sink got, in order: the source's name and the event's number.
pub(super) type Log = Arc<Mutex<Vec<(String, usize)>>>;

/// The receipts of a source's batches, in order.
pub(super) type Receipts = Arc<Mutex<Vec<Receipt>>>;

/// What a test filter does, by the number of the event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Deed {
    Pass,
    DiscardOdd,
    /// Spreads over the unnamed output and two ports.
    Spread,
    Duplicate,
    FailFifth,
    /// Holds three events before it lets go of them.
    Hold,
    PanicSeventh,
    /// An async filter takes forever over it; one that is not async passes it.
    StallSixth,
}

/// How a test filter runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pace {
    Inline,
    /// On a task of its own, taking a while that differs from event to event.
    Async,
}

/// What a test sink does, by the number of the event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    Take,
    RefuseFourth,
    /// Fails each batch once.
    Stumble,
    Slow,
    PanicOnce,
    Dead,
    NeverStarts,
}

/// A test filter takes over what another one holds, if it holds, too.
pub(super) const TAKE_OVERS: TakeOvers = TakeOvers {
    inline: |filter, before| {
        let (filter, before): (&mut dyn Any, &mut dyn Any) = (filter, before);
        if let (Some(filter), Some(before)) = (filter.downcast_mut(), before.downcast_mut()) {
            let (filter, before): (&mut Does, &mut Does) = (filter, before);
            if filter.deed == Deed::Hold {
                filter.held.append(&mut before.held);
            }
        }
    },
    awaited: |_, _| {},
};

pub(super) struct Numbers {
    pub(super) name: String,
    pub(super) batches: Vec<Vec<usize>>,
    pub(super) receipts: Receipts,
}

struct Does {
    deed: Deed,
    held: Vec<Event>,
}

/// The async filter that does the same.
struct Awaits(Deed);

struct Meets {
    fate: Fate,
    log: Log,
    stumbled: AtomicBool,
    panicked: Arc<Mutex<bool>>,
}

pub(super) fn event(source: &str, number: usize) -> Event {
    let envelope = number.to_string().into();
    Event::from_parts(source.into(), "i".into(), envelope, SystemTime::UNIX_EPOCH)
}

pub(super) fn number(event: &Event) -> usize {
    let text = std::str::from_utf8(event.envelope()).unwrap();
    text.parse().unwrap()
}

pub(super) fn source(name: &str, batches: Vec<Vec<usize>>) -> (Part<Box<dyn Source>>, Receipts) {
    let receipts = Receipts::default();
    let numbers = Numbers {
        name: name.to_owned(),
        batches,
        receipts: Arc::clone(&receipts),
    };
    let part = Part {
        id: name.into(),
        built: Box::new(numbers) as Box<dyn Source>,
        rebuild: Box::new(|| unreachable!("the source does not fail")),
    };
    (part, receipts)
}

pub(super) fn filter(name: &str, deed: Deed, inputs: Vec<Input>) -> FilterPart {
    paced(name, deed, Pace::Inline, inputs)
}

pub(super) fn paced(name: &str, deed: Deed, pace: Pace, inputs: Vec<Input>) -> FilterPart {
    let build = move || match pace {
        Pace::Inline => BuiltFilter::Inline(Box::new(Does {
            deed,
            held: Vec::new(),
        })),
        Pace::Async => BuiltFilter::Async(Arc::new(Awaits(deed))),
    };
    let ports = match deed {
        Deed::Spread => vec!["one".to_owned(), "two".to_owned()],
        _ => Vec::new(),
    };
    FilterPart {
        part: Part {
            id: name.into(),
            built: build(),
            rebuild: Box::new(move || Ok(build())),
        },
        inputs,
        ports,
    }
}

pub(super) fn sink(name: &str, fate: Fate, inputs: Vec<Input>) -> (SinkPart, Log) {
    let log = Log::default();
    let panicked = Arc::new(Mutex::new(false));
    let shared = Arc::clone(&log);
    let build = move || {
        Box::new(Meets {
            fate,
            log: Arc::clone(&shared),
            stumbled: AtomicBool::new(false),
            panicked: Arc::clone(&panicked),
        }) as Box<dyn Sink>
    };
    let part = Part {
        id: name.into(),
        built: build(),
        rebuild: Box::new(move || Ok(build())),
    };
    let sink = SinkPart {
        delivery: crate::delivery::Delivery::default(),
        journal: None,
        part,
        inputs,
        buffer: buffer(4, WhenFull::Block),
        required: true,
    };
    (sink, log)
}

pub(super) fn buffer(events: usize, when_full: WhenFull) -> BufferConfig {
    BufferConfig {
        events,
        bytes: Size::kib(64),
        when_full,
        ..BufferConfig::default()
    }
}

pub(super) fn input(id: &str) -> Input {
    Input {
        id: id.into(),
        port: None,
    }
}

// === impl Numbers ===

#[async_trait]
impl Source for Numbers {
    async fn run(self: Box<Self>, mut outlet: Outlet, _: Shutdown) -> Result<(), SourceError> {
        for batch in self.batches {
            let events = batch.into_iter().map(|n| event(&self.name, n)).collect();
            let receipt = outlet.send_tracked(events).await;
            self.receipts.lock().push(receipt);
        }
        Ok(())
    }
}

// === impl Does ===

impl Filter for Does {
    fn apply(&mut self, event: Event, out: &mut Emitter<'_>) {
        let n = number(&event);
        match self.deed {
            Deed::DiscardOdd if n % 2 == 1 => out.discard(event, "odd"),
            Deed::FailFifth if n.is_multiple_of(5) => out.fail(event, "fifth"),
            Deed::PanicSeventh if n % 7 == 6 => panic!("the filter was told to"),
            Deed::Spread if !n.is_multiple_of(3) => out.emit_to(n % 3 - 1, event),
            Deed::Duplicate => {
                out.emit(event.fork());
                out.emit(event);
            }
            Deed::Hold => {
                self.held.push(event);
                if self.held.len() == 3 {
                    self.flush(out);
                }
            }
            _ => out.emit(event),
        }
    }

    fn flush(&mut self, out: &mut Emitter<'_>) {
        self.held.drain(..).for_each(|event| out.emit(event));
    }
}

// === impl Awaits ===

#[async_trait]
impl AsyncFilter for Awaits {
    async fn apply(&self, event: &Event) -> Verdict {
        let n = number(event);
        if self.0 == Deed::StallSixth && n % 6 == 5 {
            std::future::pending::<()>().await;
        }
        // Later ones are often ready before earlier ones.
        let wait = (n * 7 % 5) as u64;
        tokio::time::sleep(Duration::from_millis(wait)).await;
        match self.0 {
            Deed::DiscardOdd if n % 2 == 1 => Verdict::Discard("odd"),
            Deed::FailFifth if n.is_multiple_of(5) => Verdict::Fail("fifth"),
            Deed::PanicSeventh if n % 7 == 6 => panic!("the filter was told to"),
            Deed::Spread if !n.is_multiple_of(3) => {
                Verdict::Emit(vec![(Some(n % 3 - 1), event.clone())])
            }
            Deed::Duplicate => Verdict::Emit(vec![(None, event.clone()), (None, event.clone())]),
            _ => Verdict::Pass,
        }
    }
}

// === impl Meets ===

#[async_trait]
impl Sink for Meets {
    async fn start(&self) -> Result<(), SinkError> {
        match self.fate {
            Fate::NeverStarts => Err(SinkError::disconnected("never")),
            _ => Ok(()),
        }
    }

    async fn send(&self, batch: Batch<'_>) -> Result<(), SinkError> {
        let mut refused = Vec::new();
        match self.fate {
            Fate::Stumble if !self.stumbled.swap(true, Ordering::Relaxed) => {
                return Err(SinkError::transient("stumbled"));
            }
            Fate::Stumble => self.stumbled.store(false, Ordering::Relaxed),
            Fate::Slow => tokio::time::sleep(Duration::from_millis(50)).await,
            Fate::PanicOnce if !std::mem::replace(&mut *self.panicked.lock(), true) => {
                panic!("the sink was told to")
            }
            Fate::Dead => return Err(SinkError::disconnected("dead")),
            _ => {}
        }
        for (index, event) in batch.iter().enumerate() {
            let n = number(event);
            if self.fate == Fate::RefuseFourth && n.is_multiple_of(4) {
                refused.push(index);
            } else {
                self.log.lock().push((event.name().to_owned(), n));
            }
        }
        if refused.is_empty() {
            Ok(())
        } else {
            Err(SinkError::permanent("refused").only(refused))
        }
    }
}
