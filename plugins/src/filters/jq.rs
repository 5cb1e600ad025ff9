//! What filters with jq programs have in common.

use std::time::Duration;

use evows_core::Event;
use evows_core::config::{Period, Problem};
pub(super) use evows_core::jq::Failure;
use evows_core::jq::{Fault, Program, Reader, Val};
use evows_core::plugin::{BuildError, Emitter};

use super::fallback::Fallback;

pub(super) fn time_limit() -> Period {
    Period(Duration::from_millis(50))
}

/// What is wrong with a program, at its places.
pub(super) fn check(key: &str, text: &str) -> Vec<Problem> {
    let faults = Program::compile(text).err().unwrap_or_default();
    faults
        .into_iter()
        .map(|fault| problem(key, fault))
        .collect()
}

/// What is wrong with a condition.
pub(super) fn check_condition(key: &str, text: &str) -> Vec<Problem> {
    if Program::compile(text).is_ok_and(|program| program.assigns()) {
        let message = "the condition is an assignment, which holds for every event";
        let problem = Problem::new("bad-program", message).at_key(key);
        return vec![problem.within(0..text.len()).help("compare with `==`")];
    }
    check(key, text)
}

/// What is wrong with the time for one event.
pub(super) fn check_time(limit: Period) -> Option<Problem> {
    let problem = Problem::new(
        "invalid-value",
        "`time_limit` is 0: no program ends in no time",
    );
    let problem = problem.at_key("time_limit").help("such as \"50ms\"");
    limit.0.is_zero().then_some(problem)
}

pub(super) fn compile(key: &str, text: &str) -> Result<Program, BuildError> {
    Program::compile(text).map_err(|faults| {
        let problems = faults.into_iter().map(|fault| problem(key, fault));
        BuildError::Config(problems.collect())
    })
}

fn problem(key: &str, fault: Fault) -> Problem {
    Problem::new("bad-program", fault.message)
        .at_key(key)
        .within(fault.span)
        .help("write a jq program, as https://jqlang.org/manual/ has them")
}

/// Whether a condition holds.
pub(super) fn holds(
    condition: &Program,
    event: &Event,
    time: Duration,
    input: impl FnOnce() -> Result<Val, Failure>,
) -> Result<bool, Failure> {
    match condition.tells(event) {
        Some(holds) => Ok(holds),
        None => Ok(condition.holds(input()?, time)?),
    }
}

/// What a program sees of an event's envelope.
pub(super) fn input(reader: &Reader, event: &Event) -> Result<Val, Failure> {
    reader.read(event.envelope()).ok_or(Failure::Envelope)
}

/// Ends an event over which a program failed.
pub(super) fn end(on_error: Fallback, event: Event, failure: &Failure, out: &mut Emitter<'_>) {
    tracing::debug!(id = %event.id(), event = event.name(), %failure, "a program failed");
    let reason = failure.reason();
    match on_error {
        Fallback::Fail => out.fail(event, reason),
        Fallback::Discard => out.discard(event, reason),
        Fallback::Pass => out.emit(event),
    }
}
