//! Compares what came out with what a test wants.

use std::collections::HashSet;

use serde_json::Value;

use super::diff::{Style, arranged, contains, same, unified};
use super::drive::{Fed, Run};
use super::fate::{fate, is_dead_end, time};
use super::observer::NOT_MOCKED;
use super::record::Did;
use super::visible::visible;
use crate::config::{Case, End, Expected, Period, Wanted, When};
use crate::{Event, EventId, Outcome};

/// How many events are told of that did not get where they were wanted.
const TOLD: usize = 8;

/// Lines around a difference.
const CONTEXT: usize = 3;

/// One thing that a test wants and did not get.
#[derive(Debug, Clone, Default)]
pub(crate) struct Failure {
    /// What.
    pub(crate) message: String,
    /// What was wanted, and what came.
    pub(crate) values: Option<(Value, Value)>,
    /// Whether only some members were wanted.
    pub(crate) part: bool,
    /// Where events ended that did not come out there.
    pub(crate) fates: Vec<String>,
}

/// What a test wants and did not get.
pub(crate) fn judge(case: &Case, run: &Run) -> Vec<Failure> {
    let mut failures = Vec::new();
    for expected in &case.outputs {
        let got = came_out(run, expected);
        let place = place(expected);
        for wanted in &expected.wanted {
            // Where nothing came, another key says whether that is right.
            if got.is_empty() && expected.wanted.len() > 1 && is_condition(wanted) {
                continue;
            }
            failures.extend(compare(wanted, &got).map(|failure| Failure {
                message: format!("{place}: {}", failure.message),
                fates: others(run, &got),
                ..failure
            }));
        }
    }
    for end in &case.discards {
        let outcomes = [Outcome::Filtered, Outcome::Shed];
        failures.extend(compare_end(run, end, &outcomes, "discarded"));
    }
    for end in &case.failures {
        let outcomes = [Outcome::Failed, Outcome::Lost];
        failures.extend(compare_end(run, end, &outcomes, "failed"));
    }
    failures.extend(unexpected(case, run));
    for failure in &mut failures {
        // Names and errors have in them what was in the events.
        for text in std::iter::once(&mut failure.message).chain(&mut failure.fates) {
            *text = visible(text).into_owned();
        }
    }
    failures
}

/// What came out where a test looks.
fn came_out<'r>(run: &'r Run, expected: &Expected) -> Vec<&'r Event> {
    let from = &expected.from;
    let steps = run.recording.steps.iter();
    let steps = steps.filter(|step| {
        let in_time = expected.by.is_none_or(|by| step.at <= by);
        let in_phase = expected
            .when
            .is_none_or(|when| step.stopping == (when == When::Stopping));
        step.node == from.id && in_time && in_phase
    });
    let events = steps.filter_map(|step| match &step.did {
        Did::Out { port, event, .. } if port.as_deref() == from.port.as_deref() => Some(event),
        Did::Delivered(event) => Some(event),
        _ => None,
    });
    events.collect()
}

/// Where and when a test looks, in words.
fn place(expected: &Expected) -> String {
    let phase = match expected.when {
        None => "",
        Some(When::Running) => " before the stop",
        Some(When::Stopping) => " at the stop",
    };
    let by = expected.by.map(|by| format!(" by {}", Period(by)));
    format!("`{}`{phase}{}", expected.from, by.unwrap_or_default())
}

fn is_condition(wanted: &Wanted) -> bool {
    !matches!(
        wanted,
        Wanted::Events(_) | Wanted::Subset(_) | Wanted::Count(_)
    )
}

fn compare(wanted: &Wanted, came: &[&Event]) -> Option<Failure> {
    let (list, part) = match wanted {
        Wanted::Events(list) => (list, false),
        Wanted::Subset(list) => (list, true),
        Wanted::Count(count) => {
            return (came.len() != *count).then(|| Failure {
                message: format!("{} wanted, {} came out", events(*count), came.len()),
                ..Failure::default()
            });
        }
        #[cfg(feature = "jq")]
        Wanted::Condition(program) => {
            return super::program::condition(program, came).map(|message| Failure {
                message,
                ..Failure::default()
            });
        }
    };
    let values: Vec<Value> = came.iter().map(|event| json(event)).collect();
    let compare = if part { contains } else { same };
    let fits = |(value, wanted)| compare(value, wanted);
    let differs = values.iter().zip(list).position(|pair| !fits(pair));
    let message = match differs {
        _ if values.len() != list.len() => {
            format!("{} wanted, {} came out", events(list.len()), values.len())
        }
        Some(at) => format!("event {} of {} differs", at + 1, list.len()),
        None => return None,
    };
    let wanted = Value::Array(list.clone());
    Some(Failure {
        message,
        values: Some((wanted, Value::Array(values))),
        part,
        ..Failure::default()
    })
}

fn compare_end(run: &Run, end: &End, outcomes: &[Outcome], word: &str) -> Option<Failure> {
    let line = run.report.line(&end.from);
    let ended = line.into_iter().flat_map(|line| &line.ended);
    let ended: Vec<_> = ended
        .filter(|(outcome, _, _)| outcomes.contains(outcome))
        .collect();
    let fits = |reason: &str| end.reason.as_deref().is_none_or(|wanted| wanted == reason);
    let found = ended.iter().filter(|(_, reason, _)| fits(reason));
    let found: u64 = found.map(|(_, _, events)| events).sum();
    if end.count.map_or(found > 0, |count| count == found) {
        return None;
    }
    let wanted = match end.count {
        None => "at least one event".to_owned(),
        Some(count) => events(usize::try_from(count).unwrap_or(usize::MAX)),
    };
    let reason = end.reason.as_ref();
    let reason = reason.map(|reason| format!(" as {reason}"));
    let counts: Vec<String> = ended
        .iter()
        .map(|(_, reason, events)| format!("{events} {word} as {reason}"))
        .collect();
    let counts = match counts.as_slice() {
        [] => format!("none was {word}"),
        counts => counts.join(", "),
    };
    Some(Failure {
        message: format!(
            "`{}`: {wanted} {word}{} wanted, {counts}",
            end.from,
            reason.unwrap_or_default()
        ),
        fates: others(run, &[]),
        ..Failure::default()
    })
}

/// Failures that the test does not ask for.
fn unexpected(case: &Case, run: &Run) -> Vec<Failure> {
    let mut failures = Vec::new();
    for line in &run.report.lines {
        for (outcome, reason, count) in &line.ended {
            let is_expected = |end: &&End| {
                end.from == line.id && end.reason.as_deref().is_none_or(|it| it == *reason)
            };
            let bad = matches!(outcome, Outcome::Failed | Outcome::Lost);
            if !bad || case.failures.iter().any(|end| is_expected(&end)) {
                continue;
            }
            if *reason == NOT_MOCKED {
                let id = &line.id;
                failures.push(Failure {
                    message: format!("`{id}` is not asked, for it reaches out of the process: say what it makes of events, with `[tests.mocks.{id}]` and a `program`"),
                    ..Failure::default()
                });
                continue;
            }
            let what = match outcome {
                Outcome::Lost => "lost: a filter dropped it without a word".to_owned(),
                _ => format!("failed: {reason}"),
            };
            let many = events(usize::try_from(*count).unwrap_or(usize::MAX));
            failures.push(Failure {
                message: format!(
                    "`{}`: {many} {what}, which the test does not expect",
                    line.id
                ),
                ..Failure::default()
            });
        }
    }
    failures
}

/// Where the events ended that did not come out, and then those of which a copy did.
fn others(run: &Run, came: &[&Event]) -> Vec<String> {
    let came: HashSet<EventId> = came.iter().map(|event| event.id()).collect();
    let is_missing = |fed: &&Fed| !came.contains(&fed.id);
    let is_elsewhere = |fed: &&Fed| {
        let mut steps = run.recording.of(fed.id);
        !came.is_empty() && !is_missing(fed) && steps.any(|step| is_dead_end(&step.did))
    };
    let missing = run.fed.iter().filter(is_missing);
    let elsewhere = run.fed.iter().filter(is_elsewhere);
    let all: Vec<&Fed> = missing.chain(elsewhere).collect();
    let tell = |fed: &&Fed| {
        format!(
            "{} of {}, put into `{}` at {}: {}",
            fed.name,
            fed.instance,
            fed.into,
            time(fed.at),
            fate(run.recording.of(fed.id))
        )
    };
    let mut fates: Vec<String> = all.iter().take(TOLD).map(tell).collect();
    if all.len() > TOLD {
        fates.push(format!("and {} more", all.len() - TOLD));
    }
    fates
}

pub(super) fn json(event: &Event) -> Value {
    Value::Object(event.document().clone())
}

fn events(count: usize) -> String {
    match count {
        1 => "1 event".to_owned(),
        many => format!("{many} events"),
    }
}

// === impl Failure ===

impl Failure {
    /// What was wanted and what came, as lines with `-` and `+`.
    pub(crate) fn diff(&self, style: Style) -> String {
        let Some((wanted, came)) = &self.values else {
            return String::new();
        };
        let came = arranged(came, wanted, self.part);
        let lines = unified(wanted, &came, CONTEXT, style);
        format!("- wanted\n+ came out\n{lines}")
    }
}
