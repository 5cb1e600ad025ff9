//! What plugins do when they run.

use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::{Builder, Runtime};
use tokio::time::timeout;

use super::{Built, Plugins, is_snake_case};
use crate::config::Settings;
use crate::plugin::{AsyncFilter, Filter, Policy};
use crate::registry::{Kind, Registration};
use crate::testing::{
    AsyncFilterHarness, FilterHarness, STOPS_WITHIN, SomeInstances, SourceHarness, context, corpus,
    policy, sink,
};
use crate::topology::BuiltFilter;
use crate::{Event, Outcome};

/// How long a source may run before it is told to stop: it should be at work by then.
const AT_WORK: Duration = Duration::from_millis(100);

/// How often a source is tried that does not stop in time: a machine may be busy with something else for a second.
const TRIES: usize = 3;

/// A filter from its example ends every event of [`corpus`] exactly once, with ticks and a flush at the end. One that is async
/// is given them one by one, if it starts here.
pub fn filters(plugins: &Plugins) {
    plugins.of_kind(Kind::Filter).each(|plugin| {
        let ports = plugin.ports(&Settings::from_text(plugin.example));
        match filter(plugin)? {
            BuiltFilter::Inline(filter) => inline(FilterHarness::new(filter, ports)),
            BuiltFilter::Async(filter) => {
                let runtime = runtime()?;
                runtime.block_on(awaited(AsyncFilterHarness::new(filter, ports)))
            }
        }
    });
}

/// A filter that is exchanged for one with the same keys between events, as a reload of the configuration does it, ends every event of
/// [`corpus`] exactly once: what the new one does not take over, the one before lets go of in its flush. One that is async works on
/// if it starts here.
pub fn reloads(plugins: &Plugins) {
    plugins.of_kind(Kind::Filter).each(|plugin| {
        let ports = plugin.ports(&Settings::from_text(plugin.example));
        match filter(plugin)? {
            BuiltFilter::Inline(first) => exchanged(plugin, FilterHarness::new(first, ports)),
            BuiltFilter::Async(first) => {
                let harness = AsyncFilterHarness::new(first, ports);
                runtime()?.block_on(awaited_exchanged(plugin, harness))
            }
        }
    });
}

fn inline(mut harness: FilterHarness<Box<dyn Filter>>) -> Result<(), String> {
    for event in corpus() {
        harness.send(event);
    }
    harness.tick().tick().flush();
    is_sound(harness)
}

fn exchanged(
    plugin: &Registration,
    mut harness: FilterHarness<Box<dyn Filter>>,
) -> Result<(), String> {
    let take_over = plugin.take_over().inline;
    for (number, event) in corpus().into_iter().enumerate() {
        harness.send(event);
        // At times right after one that took over, and at times after a few events and a tick.
        if number % 4 == 3 {
            harness.tick();
        }
        if number % 4 > 1 {
            let BuiltFilter::Inline(next) = filter(plugin)? else {
                return Err("it is async at times".to_owned());
            };
            harness.exchange(next, |filter, before| {
                take_over(&mut **filter, &mut **before);
            });
        }
    }
    harness.tick().flush();
    is_sound(harness)
}

fn is_sound(mut harness: FilterHarness<Box<dyn Filter>>) -> Result<(), String> {
    are_labels(harness.discarded(), harness.failed())?;
    for event in harness.emitted() {
        agrees(&event)?;
    }
    harness.finish();
    Ok(())
}

async fn awaited(mut harness: AsyncFilterHarness<Arc<dyn AsyncFilter>>) -> Result<(), String> {
    if !starts(&**harness.filter()).await {
        return Ok(());
    }
    for event in corpus() {
        // What it would ask is nowhere near, and need not answer.
        timeout(AT_WORK, harness.send(event)).await.ok();
    }
    are_labels(harness.discarded(), harness.failed())?;
    harness.emitted().iter().try_for_each(agrees)
}

async fn awaited_exchanged(
    plugin: &Registration,
    mut harness: AsyncFilterHarness<Arc<dyn AsyncFilter>>,
) -> Result<(), String> {
    if !starts(&**harness.filter()).await {
        return Ok(());
    }
    for event in corpus().into_iter().take(8) {
        timeout(AT_WORK, harness.send(event)).await.ok();
        let BuiltFilter::Async(mut next) = filter(plugin)? else {
            return Err("it is async at times".to_owned());
        };
        let alone = Arc::get_mut(&mut next).ok_or("somebody else has it")?;
        (plugin.take_over().awaited)(alone, &**harness.filter());
        if !starts(&*next).await {
            return Err("it starts, but not when it has taken over".to_owned());
        }
        harness.exchange(next);
    }
    are_labels(harness.discarded(), harness.failed())?;
    harness.emitted().iter().try_for_each(agrees)
}

/// That it does not start here says nothing about what it does.
async fn starts(filter: &dyn AsyncFilter) -> bool {
    matches!(timeout(STOPS_WITHIN, filter.start()).await, Ok(Ok(())))
}

fn are_labels(
    discarded: Vec<(Event, &'static str)>,
    failed: Vec<(Event, &'static str)>,
) -> Result<(), String> {
    for (_, reason) in discarded.into_iter().chain(failed) {
        if !is_snake_case(reason) {
            return Err(format!("the reason {reason:?} is not in `snake_case`"));
        }
    }
    Ok(())
}

/// A source that is told to stop does, whatever it was doing; if it ends before, well or with an error, that is fine as well.
pub fn sources(plugins: &Plugins) {
    plugins.of_kind(Kind::Source).each(|plugin| {
        let mut late = None;
        for _ in 0..TRIES {
            let Built::Source(source) = built(plugin)? else {
                return Err("it is no source".to_owned());
            };
            let runtime = runtime()?;
            let stopped = runtime.block_on(async {
                let mut harness = SourceHarness::run(source);
                let at_work = async {
                    while let Some(event) = harness.receive().await {
                        event.settle(Outcome::Delivered);
                    }
                };
                timeout(AT_WORK, at_work).await.ok();
                harness.stops().await
            });
            // A read of the standard input may never end.
            runtime.shutdown_background();
            match stopped {
                Ok(_) => return Ok(()),
                Err(error) => late = Some(error),
            }
        }
        late.map_or(Ok(()), |late| Err(late.to_owned()))
    });
}

/// A sink that starts also stops, and no attempt at it may take forever unless it says so.
pub fn sinks(plugins: &Plugins) {
    plugins.of_kind(Kind::Sink).each(|plugin| {
        let cx = context(plugin.name);
        let keys = Settings::from_text(plugin.example);
        if plugin.delivery(&keys, cx.environment()).timeout.is_zero() {
            return Err("its delivery gives an attempt no time".to_owned());
        }
        let Built::Sink(built) = built(plugin)? else {
            return Err("it is no sink".to_owned());
        };
        let runtime = runtime()?;
        let stopped = runtime.block_on(sink::stops(&*built));
        runtime.shutdown_background();
        stopped.map_err(str::to_owned)
    });
}

/// A transport without clients drains in the time that it is given and a second.
pub fn transports(plugins: &Plugins) {
    plugins.of_kind(Kind::Transport).each(|plugin| {
        let runtime = runtime()?;
        let Built::Transport(transport) = runtime.block_on(async { built(plugin) })? else {
            return Err("it is no transport".to_owned());
        };
        let drained = runtime.block_on(async {
            // That it does not start here says nothing about how it stops.
            let started = timeout(STOPS_WITHIN, Arc::clone(&transport).start()).await;
            if !matches!(started, Ok(Ok(()))) {
                return Ok(());
            }
            let over = Duration::from_millis(50);
            let drained = timeout(over + STOPS_WITHIN, transport.drain(over)).await;
            match (drained, transport.clients()) {
                (Err(_), _) => Err("`drain` runs on though there are no clients".to_owned()),
                (_, 0) => Ok(()),
                (_, clients) => Err(format!("it has {clients} clients, and nobody came")),
            }
        });
        runtime.shutdown_background();
        drained
    });
}

/// A policy answers the same each time, adds each channel once, and takes none away.
pub fn policies(plugins: &Plugins) {
    plugins.of_kind(Kind::Policy).each(|plugin| {
        let Built::Policy(policy) = built(plugin)? else {
            return Err("it is no policy".to_owned());
        };
        let known = SomeInstances::default()
            .subscribed("loja1", true, &["MESSAGES_UPSERT", "CALL"])
            .unset("i");
        for instances in [SomeInstances::default(), known] {
            for event in corpus() {
                policy::routed(&*policy as &dyn Policy, &event, &instances)?;
            }
        }
        Ok(())
    });
}

fn built(plugin: &Registration) -> Result<Built, String> {
    Built::of(plugin, &context(plugin.name)).map_err(|error| error.to_string())
}

fn filter(plugin: &Registration) -> Result<BuiltFilter, String> {
    match built(plugin)? {
        Built::Filter(filter) => Ok(filter),
        _ => Err("it is no filter".to_owned()),
    }
}

fn runtime() -> Result<Runtime, String> {
    let runtime = Builder::new_current_thread().enable_all().build();
    runtime.map_err(|error| error.to_string())
}

/// Whether an event still is what its envelope says.
fn agrees(event: &Event) -> Result<(), String> {
    let text = || String::from_utf8_lossy(event.envelope()).into_owned();
    let read = Event::parse(event.envelope().clone(), event.received_at());
    let read =
        read.map_err(|error| format!("what it emits is no envelope: {error}: {}", text()))?;
    if (read.name(), read.instance()) == (event.name(), event.instance()) {
        return Ok(());
    }
    let (name, instance) = (event.name(), event.instance());
    Err(format!(
        "the event `{name}` of `{instance}` has another one's envelope: {}",
        text()
    ))
}
