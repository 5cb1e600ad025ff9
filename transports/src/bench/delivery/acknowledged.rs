//! Posts that are answered when their event is delivered, against posts that are answered when it is taken.
//!
//! With a buffer in memory, the latter go to a sink with `required = false`, for which no source waits; with one on disk, to a
//! required sink, for which a source waits until the event is stored. A turn lasts until all of it is delivered.

use std::rc::Rc;

use serde_json::{Value, json};
use tokio::time::Instant;

use super::super::packet::Protocol;
use super::super::server::Server;
use super::super::{Error, ratio};
use super::events::{Events, Inbox};
use super::receiver::Receiver;
use super::senders::Load;
use super::{Buffer, Options, Usage, instances, median, quotient, settle};

/// Events that wait in memory for a sink. Few, because with some sinks they count as delivered.
const QUEUE: u32 = 1_000;

/// Where events go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Sink {
    /// To an HTTP endpoint in this process; what arrives there is counted, until all of a turn is there.
    Webhook,
    /// Into a file; what is answered is counted.
    File,
    /// Nowhere; what is answered is counted.
    Blackhole,
}

/// One of the two that are compared: a source, a sink and an endpoint of its own.
struct Side {
    path: &'static str,
    events: Rc<Events>,
    inbox: Rc<Inbox>,
    receiver: Receiver,
    /// Events per second, of each turn.
    rates: Vec<f64>,
}

/// Runs it; the result is the report.
pub(super) async fn run(options: &Options) -> Result<Value, Error> {
    let buffer = options.buffer.unwrap_or(Buffer::Memory);
    let names = instances(options.instances.unwrap_or(256));
    let mut asked = Side::new("/asked?wait=delivered", names.len()).await?;
    let mut told = Side::new("/told", names.len()).await?;
    let pipeline = [("asked", &asked), ("told", &told)].map(|(name, side)| {
        let is_required = name == "asked" || buffer == Buffer::Disk;
        branch(
            name,
            options.sink,
            buffer,
            is_required,
            &side.receiver.url(),
        )
    });
    let pipeline = pipeline.concat();
    let server = Server::launch(options.folder()?, &pipeline, Protocol::default()).await?;
    let usage = Usage::start(&server)?;
    for turn in 0..options.turns {
        // Whoever comes first in one turn comes second in the next.
        let mut sides = [&mut asked, &mut told];
        sides.rotate_left(turn as usize % 2);
        for side in sides {
            side.take_turn(options, &server, &names).await;
        }
    }
    let mut used = json!({});
    usage.report(&mut used)?;
    server.close().await?;
    let missing = |side: &Side| match options.sink {
        Sink::Webhook => Some(side.inbox.missing(|_| true)),
        Sink::File | Sink::Blackhole => None,
    };
    let report = |side: &Side| {
        json!({
            "per_second": median(side.rates.clone()),
            "each_turn": side.rates,
            "accepted": side.events.accepted(),
            "refused_attempts": side.events.refused(),
            "missing": missing(side),
        })
    };
    Ok(json!({
        "sink": options.sink.as_str(),
        "buffer": buffer.as_str(),
        "in_flight": names.len(),
        "event_bytes": options.size,
        "turns": options.turns,
        "turn_seconds": options.seconds,
        "acknowledged_is": "?wait=delivered",
        "fire_and_forget_is": match buffer {
            Buffer::Memory => "answered when queued (required = false)",
            Buffer::Disk => "answered when stored",
        },
        "acknowledged": report(&asked),
        "fire_and_forget": report(&told),
        "acknowledged_to_fire_and_forget": quotient(median(asked.rates), median(told.rates)),
        "used": used,
    }))
}

/// A source and its sink.
fn branch(name: &str, sink: Sink, buffer: Buffer, is_required: bool, url: &str) -> String {
    let keys = match sink {
        Sink::Webhook => format!("url = \"{url}\"\ninstances = false\n"),
        Sink::File => format!("path = \"{name}.ndjson\"\n"),
        Sink::Blackhole => String::new(),
    };
    format!(
        "[sources.{name}]\ntype = \"webhook\"\npath = \"/{name}\"\n\
         [sinks.{name}-out]\ntype = \"{}\"\ninputs = [\"{name}\"]\nrequired = {is_required}\n\
         buffer = {{ type = \"{}\", events = {QUEUE} }}\n{keys}",
        sink.as_str(),
        buffer.as_str(),
    )
}

// === impl Sink ===

impl Sink {
    fn as_str(self) -> &'static str {
        match self {
            Self::Webhook => "webhook",
            Self::File => "file",
            Self::Blackhole => "blackhole",
        }
    }
}

// === impl Side ===

impl Side {
    async fn new(path: &'static str, instances: usize) -> Result<Self, Error> {
        let events = Events::new(instances);
        let inbox = Inbox::new(&events);
        let receiver = Receiver::start(&inbox).await?;
        Ok(Self {
            path,
            events,
            inbox,
            receiver,
            rates: Vec::new(),
        })
    }

    async fn take_turn(&mut self, options: &Options, server: &Server, names: &[String]) {
        let load = Load {
            server: server.address,
            path: self.path,
            instances: names,
            size: options.size,
            rate: None,
        };
        let (before, start) = (self.count(options.sink), Instant::now());
        let senders = load.start(&self.events);
        tokio::time::sleep(options.turn()).await;
        senders.stop().await;
        if options.sink == Sink::Webhook {
            // What is taken faster than it is delivered is paid for here.
            let has_all = || self.inbox.missing(|_| true) == 0;
            settle(has_all, || self.inbox.received()).await;
        }
        let events = self.count(options.sink) - before;
        let rate = ratio(events, 1) / start.elapsed().as_secs_f64();
        self.rates.push(rate.round());
    }

    fn count(&self, sink: Sink) -> u64 {
        match sink {
            Sink::Webhook => self.inbox.received(),
            Sink::File | Sink::Blackhole => self.events.accepted(),
        }
    }
}
