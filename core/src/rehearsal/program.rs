//! jq programs in tests: one in a filter's place, and conditions.

use std::sync::Arc;
use std::time::Duration;

use super::diff::pretty;
use super::judge::json;
use crate::Event;
use crate::jq::{self, Program, Val};
use crate::plugin::{Emitter, Filter};

/// The time that a program may take for one event. A test is not a hot path.
const TIME: Duration = Duration::from_secs(1);

/// Passes on what a jq program yields.
pub(super) struct Scripted(pub(super) Arc<Program>);

/// What is said when a condition does not hold for all that came; nothing when it does.
pub(super) fn condition(program: &Program, came: &[&Event]) -> Option<String> {
    if came.is_empty() {
        return Some("nothing came out that the condition could hold for".to_owned());
    }
    for (index, event) in came.iter().enumerate() {
        let input = jq::read(event.envelope());
        let held = input.map(|input| program.holds(input, TIME));
        let why = match held {
            Some(Ok(true)) => continue,
            Some(Ok(false)) => "does not hold".to_owned(),
            Some(Err(error)) => format!("ends with an error, {error},"),
            None => "cannot be asked".to_owned(),
        };
        let (at, all) = (index + 1, came.len());
        let envelope = pretty(&json(event));
        return Some(format!(
            "`{}` {why} for event {at} of {all}:\n{}",
            program.text(),
            envelope.trim_end()
        ));
    }
    None
}

// === impl Scripted ===

impl Scripted {
    fn yields(&self, event: &Event) -> Result<Vec<Event>, &'static str> {
        let input = jq::read(event.envelope()).ok_or("not_json")?;
        let mut values: Vec<Val> = Vec::new();
        let run = self.0.run(input, TIME, |value| values.push(value));
        run.map_err(|_| "program_error")?;
        let made = values.iter().map(|value| {
            let mut json = Vec::new();
            jq::write(value, &[], &mut json).map_err(|_| "not_an_envelope")?;
            let made = Event::parse(json.into(), event.received_at());
            made.map_err(|_| "not_an_envelope")
        });
        made.collect()
    }
}

impl Filter for Scripted {
    fn apply(&mut self, event: Event, out: &mut Emitter<'_>) {
        let mut made = match self.yields(&event) {
            Ok(made) => made,
            Err(reason) => return out.fail(event, reason),
        };
        let Some(last) = made.pop() else {
            return out.discard(event, "no_output");
        };
        for other in made {
            out.emit(event.fork().in_form_of(&other));
        }
        out.emit(event.in_form_of(&last));
    }
}
