//! jq programs in tests: one in a filter's place, and conditions.

use std::sync::Arc;
use std::time::Duration;

use super::diff::pretty;
use super::judge::json;
use crate::Event;
use crate::jq::{self, Mapping, Program};
use crate::plugin::{Emitter, Filter};

/// The time that a program may take for one event. A test is not a hot path.
const TIME: Duration = Duration::from_secs(1);

/// Passes on what a jq program yields, as the filter `map` does.
pub(super) struct Scripted(Mapping);

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
    pub(super) fn new(program: &Arc<Program>) -> Self {
        Self(Mapping::new(Arc::clone(program), TIME))
    }
}

impl Filter for Scripted {
    fn apply(&mut self, event: Event, out: &mut Emitter<'_>) {
        if let Err((event, failure)) = self.0.apply(event, out) {
            out.fail(event, failure.reason());
        }
    }
}
