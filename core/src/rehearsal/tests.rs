//! Rehearsals of pipelines whose filter does all that a filter may do, and what it may not.

use std::path::Path;
use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;

use super::{Did, Rehearsal, Run, fate, judge};
use crate::config::{Case, Cases, Config};
use crate::plugin::{BuildContext, BuildError, Emitter, Environment, Filter, FilterPlugin};
use crate::{Event, Outcome, register_filter};

/// Does with an event what its name says.
#[derive(Default)]
struct Actor {
    held: Vec<Event>,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Keys {}

impl Filter for Actor {
    fn apply(&mut self, event: Event, out: &mut Emitter<'_>) {
        match event.name() {
            "panic" => panic!("it was asked to"),
            "forget" => drop(event),
            "hold" => self.held.push(event),
            "copy" => {
                out.emit_to(0, event.fork());
                out.emit(event);
            }
            "fail" => out.fail(event, "asked"),
            "discard" => out.discard(event, "asked"),
            _ => out.emit(event),
        }
    }

    fn ticked(&mut self, out: &mut Emitter<'_>) {
        self.flush(out);
    }

    fn tick(&self) -> Option<Duration> {
        Some(Duration::from_secs(10))
    }

    fn flush(&mut self, out: &mut Emitter<'_>) {
        self.held.drain(..).for_each(|event| out.emit(event));
    }
}

impl FilterPlugin for Actor {
    const NAME: &'static str = "actor";
    type Config = Keys;

    fn ports(_: &Keys) -> Vec<String> {
        vec!["copies".to_owned()]
    }

    fn build(_: Keys, _: &BuildContext) -> Result<Self, BuildError> {
        Ok(Self::default())
    }
}

register_filter!(
    Actor,
    summary = "A filter for rehearsals in tests.",
    example = "",
);

const PIPELINE: &str = "
[lifecycle]
type = 'double-lifecycle'
[sources.in]
type = 'double-source'
[filters.act]
type = 'actor'
inputs = ['in']
[filters.same]
type = 'double-filter'
inputs = ['act']
[sinks.out]
type = 'double-sink'
inputs = ['same']
";

/// The pipeline with this test, which puts events of these names into it.
fn load(names: &[&str], expects: &str) -> (Config, Case) {
    let events = names.iter();
    let events = events.map(|name| format!("{{ event = '{name}', instance = 'i' }}"));
    let events: Vec<String> = events.collect();
    let text = format!(
        "{PIPELINE}[[tests]]\nname = 'it'\n\
         inputs = [{{ into = 'in', events = [{}] }}]\n{expects}\n",
        events.join(", ")
    );
    let environment = Environment::default();
    let loaded = Config::load(&text, "evows.toml", &environment);
    let (config, _) = loaded.unwrap_or_else(|wrong| panic!("{wrong:?}"));
    let path = Path::new("evows.toml");
    let mut found = Cases::of_config(&text, path, Some(&config), &environment);
    assert!(found.diagnostics.is_empty(), "{:?}", found.diagnostics);
    (config, found.cases.remove(0))
}

fn rehearse(config: &Config, case: &Case) -> Run {
    let rehearsal = Rehearsal {
        config,
        environment: &Environment::default(),
        mocks: &case.mocks,
        feeds: &case.inputs,
        until: case.until,
        skips: false,
    };
    rehearsal.run().unwrap().unwrap()
}

fn failures(names: &[&str], expects: &str) -> Vec<String> {
    let (config, case) = load(names, expects);
    let run = rehearse(&config, &case);
    let failures = judge(&case, &run).into_iter();
    failures.map(|failure| failure.message).collect()
}

/// The steps of a run in short.
fn steps(run: &Run) -> Vec<String> {
    let steps = run.recording.steps.iter();
    let short = steps.map(|step| {
        let did = match &step.did {
            Did::In(_) => "in".to_owned(),
            Did::Out { port, unread, .. } => format!("out {port:?} {unread}"),
            Did::Discarded(reason) => format!("discarded {reason}"),
            Did::Failed(reason) => format!("failed {reason}"),
            Did::Held => "held".to_owned(),
            Did::Skipped => "skipped".to_owned(),
            Did::Delivered(event) => format!("delivered {}", event.name()),
            Did::Refused(_) => "refused".to_owned(),
        };
        format!("{} {} {did}", step.at.as_secs(), step.node)
    });
    short.collect()
}

#[test]
fn every_step_is_written_down_and_every_run_is_the_same() {
    let names = ["a", "copy", "hold", "discard", "fail"];
    let (config, case) = load(&names, "outputs = [{ from = 'out', count = 3 }]");
    let run = rehearse(&config, &case);
    assert_eq!(
        steps(&run),
        [
            "0 act in",
            "0 act out None false",
            "0 same in",
            "0 same out None false",
            "0 act in",
            "0 act out Some(\"copies\") true",
            "0 act out None false",
            "0 same in",
            "0 same out None false",
            "0 act in",
            "0 act held",
            "0 act in",
            "0 act discarded asked",
            "0 act in",
            "0 act failed asked",
            "0 out delivered a",
            "0 out delivered copy",
            "10 act out None false",
            "10 same in",
            "10 same out None false",
            "10 out delivered hold",
        ]
    );
    let fates: Vec<String> = run
        .fed
        .iter()
        .map(|fed| fate(run.recording.of(fed.id)))
        .collect();
    assert_eq!(
        fates,
        [
            "delivered to `out` at 0s",
            "passed on by `act.copies` at 0s, which nobody reads; delivered to `out` at 0s",
            "delivered to `out` at 10s",
            "discarded by `act` at 0s: asked",
            "failed in `act` at 0s: asked",
        ]
    );
    let outcomes: Vec<Outcome> = run.fed.iter().map(|fed| fed.outcome).collect();
    let (delivered, filtered) = (Outcome::Delivered, Outcome::Filtered);
    assert_eq!(
        outcomes,
        [delivered, filtered, delivered, filtered, Outcome::Failed]
    );
    for _ in 0..3 {
        assert_eq!(steps(&rehearse(&config, &case)), steps(&run));
    }
}

#[test]
fn a_filter_that_panics_fails_its_event_and_is_watched_again() {
    let (config, case) = load(&["panic", "a"], "outputs = [{ from = 'out', count = 1 }]");
    let run = rehearse(&config, &case);
    assert_eq!(
        steps(&run),
        [
            "0 act in",
            "0 act failed panic",
            "0 act in",
            "0 act out None false",
            "0 same in",
            "0 same out None false",
            "0 out delivered a",
        ]
    );
    let failures = judge(&case, &run);
    let [failure] = failures.as_slice() else {
        panic!("{failures:?}");
    };
    let message = "`act`: 1 event failed: panic, which the test does not expect";
    assert_eq!(failure.message, message);
}

#[test]
fn an_event_that_is_lost_fails_the_test() {
    let lost = failures(&["forget"], "outputs = [{ from = 'out', count = 0 }]");
    assert_eq!(lost.len(), 1, "{lost:?}");
    assert!(lost[0].contains("lost"), "{lost:?}");
}

#[test]
fn what_is_held_comes_out_at_the_stop_when_that_comes_first() {
    let held = failures(
        &["hold"],
        "until = '5s'\noutputs = [\n\
         { from = 'out', count = 0, when = 'running' },\n\
         { from = 'out', count = 1, when = 'stopping' },\n\
         { from = 'act', count = 1, by = '6s' },\n]",
    );
    assert!(held.is_empty(), "{held:?}");
    let held = failures(
        &["hold"],
        "outputs = [{ from = 'out', count = 1, when = 'stopping' }]",
    );
    let message = "`out` at the stop: 1 event wanted, 0 came out";
    assert_eq!(held, [message]);
}

#[test]
fn events_are_put_into_a_filter_beside_what_it_reads() {
    let (config, mut case) = load(&["a", "discard"], "outputs = [{ from = 'out', count = 1 }]");
    case.inputs[0].into = "same".into();
    let run = rehearse(&config, &case);
    let seen = [
        "0 act in",
        "0 act discarded asked",
        "0 same in",
        "0 same out None false",
        "0 out delivered a",
    ];
    let mut steps = steps(&run);
    // Two ways in are two tasks.
    steps.sort();
    let mut sorted = seen.map(str::to_owned);
    sorted.sort();
    assert_eq!(steps, sorted);
    assert!(judge(&case, &run).is_empty());
}

#[test]
fn ends_are_counted_by_place_and_reason() {
    let names = ["discard", "discard", "fail"];
    let fine = "discards = [{ from = 'act', reason = 'asked', count = 2 }]\n\
                failures = [{ from = 'act' }]";
    assert!(failures(&names, fine).is_empty());
    let wrong = "discards = [{ from = 'act', reason = 'other' }, { from = 'same' }]\n\
                 failures = [{ from = 'act', count = 2 }]";
    assert_eq!(
        failures(&names, wrong),
        [
            "`act`: at least one event discarded as other wanted, 2 discarded as asked",
            "`same`: at least one event discarded wanted, none was discarded",
            "`act`: 2 events failed wanted, 1 failed as asked",
        ]
    );
}

#[test]
fn what_was_let_go_of_at_the_stop_is_told_so() {
    let (config, case) = load(
        &["hold"],
        "until = '5s'\noutputs = [{ from = 'out', count = 1 }]",
    );
    let run = rehearse(&config, &case);
    let told = fate(run.recording.of(run.fed[0].id));
    assert_eq!(told, "delivered to `out` at the stop");
}

/// The fates of what was put in.
#[cfg(feature = "jq")]
fn fates(names: &[&str], expects: &str) -> Vec<String> {
    let (config, case) = load(names, expects);
    let run = rehearse(&config, &case);
    let fates = run.fed.iter().map(|fed| fate(run.recording.of(fed.id)));
    fates.collect()
}

#[cfg(feature = "jq")]
#[test]
fn what_was_made_of_an_event_and_its_copies_are_told_apart() {
    let expects = "outputs = [{ from = 'out', count = 1 }]\n\
                   mocks.act.program = '(.n = 1), (.n = 2)'\n\
                   mocks.same.program = 'select(.n == 1)'";
    let fate = "#1 delivered to `out` at 0s; #2 discarded by `same` at 0s: no_output";
    assert_eq!(fates(&["a"], expects), [fate]);
    let fails = "outputs = [{ from = 'out', count = 1 }]\nmocks.out.fails = 2";
    let told = fates(&["a"], fails);
    assert!(told[0].starts_with("refused by `out` at 0s ("), "{told:?}");
    assert!(
        told[0].contains("for the last time); delivered to `out` at "),
        "{told:?}"
    );
}

#[test]
fn an_event_that_comes_to_one_place_twice_is_counted_twice() {
    let (mut config, case) = load(&["a"], "outputs = [{ from = 'out', count = 2 }]");
    let act = crate::config::Input::parse("act");
    config.pipeline.sinks[0].inputs.push(act);
    let run = rehearse(&config, &case);
    let told = fate(run.recording.of(run.fed[0].id));
    assert_eq!(told, "delivered to `out` at 0s (2 times)");
}

#[test]
fn of_an_event_that_came_the_copies_that_did_not_are_told() {
    let (config, case) = load(&["copy"], "outputs = [{ from = 'out', count = 2 }]");
    let failures = judge(&case, &rehearse(&config, &case));
    assert_eq!(
        failures[0].fates,
        [
            "copy of i, put into `in` at 0s: passed on by `act.copies` at 0s, which nobody reads; delivered to `out` at 0s"
        ]
    );
}

#[cfg(feature = "jq")]
#[test]
fn a_program_in_a_filters_place_makes_events_with_ids_of_their_own() {
    let expects = "outputs = [{ from = 'out', count = 2 }]\n\
                   mocks = { act = { program = '., .' } }";
    let (config, case) = load(&["a"], expects);
    let run = rehearse(&config, &case);
    let delivered = run.recording.steps.iter();
    let ids = delivered.filter_map(|step| match &step.did {
        Did::Delivered(event) => Some(event.id()),
        _ => None,
    });
    let ids: Vec<_> = ids.collect();
    assert_eq!(ids.len(), 2);
    assert_ne!(ids[0], ids[1]);
    assert_eq!(ids[0], run.fed[0].id);
}
