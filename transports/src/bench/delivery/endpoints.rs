//! Many endpoints, a few of which fail.

use std::time::Duration;

use hdrhistogram::Histogram;
use serde_json::{Value, json};

use super::super::Error;
use super::super::packet::Protocol;
use super::super::process::Watched;
use super::super::server::Server;
use super::events::{Events, Inbox};
use super::receiver::{Failure, Receiver};
use super::senders::Load;
use super::{Buffer, Options, Usage, instances, median, milliseconds, quotient, settle};

/// Time before anything is measured.
const WARM_UP: Duration = Duration::from_secs(2);

/// Runs it; the result is the report.
pub(super) async fn run(options: &Options, count: u32) -> Result<Value, Error> {
    if options.dead >= count {
        let message = "`--dead` leaves no endpoint that is well";
        return Err(Error::Usage(message.to_owned()));
    }
    let failure = options.failure.unwrap_or(Failure::Silent);
    let buffer = options.buffer.unwrap_or(Buffer::Disk);
    let names = instances(count);
    let events = Events::new(names.len());
    let (others, dead) = (Inbox::new(&events), Inbox::new(&events));
    let mut receivers = Vec::new();
    for index in 0..count {
        let inbox = if index < options.dead { &dead } else { &others };
        receivers.push(Receiver::start(inbox).await?);
    }
    let failing = receivers.get(..options.dead as usize);
    let failing = failing.unwrap_or_default();
    let set = |failure| {
        for receiver in failing {
            receiver.set(failure);
        }
    };
    let is_failing = |instance: usize| instance < failing.len();
    let pipeline = pipeline(buffer);
    let server = Server::launch(options.folder()?, &pipeline, Protocol::default()).await?;
    for (name, receiver) in names.iter().zip(&receivers) {
        let url = receiver.url();
        let webhook = json!({"enabled": true, "url": url, "events": ["MESSAGES_UPSERT"]});
        let body = json!({ "webhook": webhook }).to_string();
        server.post(&format!("/webhook/set/{name}"), &body).await?;
    }
    let load = Load {
        server: server.address,
        path: "/webhook",
        instances: &names,
        size: options.size,
        rate: Some(options.rate()),
    };
    let senders = load.start(&events);
    let usage = Usage::start(&server)?;
    tokio::time::sleep(WARM_UP).await;
    let (mut well, mut ill) = (Vec::new(), Vec::new());
    // One event of each that fails may be on its way at any time.
    let under_way = 2 * failing.len() as u64;
    let mut came_back = true;
    for _ in 0..options.turns {
        others.take_latency();
        tokio::time::sleep(options.turn()).await;
        well.push(others.take_latency());
        set(Some(failure));
        tokio::time::sleep(options.turn()).await;
        ill.push(others.take_latency());
        set(None);
        let has_all = || dead.missing(is_failing) <= under_way;
        came_back &= settle(has_all, || dead.received()).await;
    }
    senders.stop().await;
    let missing = || dead.missing(is_failing) + others.missing(|it| !is_failing(it));
    settle(|| missing() == 0, || dead.received() + others.received()).await;

    let watched = server.watched();
    let mut report = json!({
        "endpoints": count,
        "dead": options.dead,
        "failure": failure.as_str(),
        "buffer": buffer.as_str(),
        "rate": options.rate(),
        "event_bytes": options.size,
        "turns": options.turns,
        "turn_seconds": options.seconds,
        "latency_ms_all_alive": turns(&well),
        "latency_ms_with_dead": turns(&ill),
        "with_dead_to_all_alive_p50": quotient(middle(&ill, 0.5), middle(&well, 0.5)),
        "with_dead_to_all_alive_p99": quotient(middle(&ill, 0.99), middle(&well, 0.99)),
        "posted": events.posted(),
        "accepted": events.accepted(),
        "refused_attempts": events.refused(),
        "missing": missing(),
        "duplicates": others.duplicates() + dead.duplicates(),
        "out_of_order": others.disorder() + dead.disorder(),
        "dead_came_back": came_back,
        "resident": watched.as_ref().map(Watched::resident).transpose()?,
    });
    usage.report(&mut report)?;
    server.close().await?;
    Ok(report)
}

/// From a webhook to what each instance is set to, which is on this machine.
fn pipeline(buffer: Buffer) -> String {
    format!(
        "[sources.in]\ntype = \"webhook\"\n\
         [sinks.hooks]\ntype = \"webhook\"\ninputs = [\"in\"]\nallow_cidrs = [\"127.0.0.0/8\"]\n\
         buffer = {{ type = \"{}\" }}\n\
         retry = {{ attempts = 0, initial = \"500ms\", max = \"5s\" }}\nbreaker = {{ open = \"5s\" }}\n",
        buffer.as_str()
    )
}

/// A quantile's median over all turns.
fn middle(turns: &[Histogram<u64>], quantile: f64) -> Option<f64> {
    median(turns.iter().map(|it| milliseconds(it, quantile)).collect())
}

fn turns(turns: &[Histogram<u64>]) -> Value {
    let each =
        |quantile| -> Vec<f64> { turns.iter().map(|it| milliseconds(it, quantile)).collect() };
    json!({
        "p50": middle(turns, 0.5),
        "p99": middle(turns, 0.99),
        "p50_each_turn": each(0.5),
        "p99_each_turn": each(0.99),
    })
}
