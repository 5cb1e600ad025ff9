//! A filter that a test has in another's place.

#[cfg(feature = "jq")]
use std::sync::Arc;
#[cfg(feature = "jq")]
use std::time::Duration;

#[cfg(feature = "jq")]
use crate::Event;
#[cfg(feature = "jq")]
use crate::jq::{self, Program, Val};
#[cfg(feature = "jq")]
use crate::plugin::{Emitter, Filter};

/// The time that a program may take for one event. A test is not a hot path.
#[cfg(feature = "jq")]
const TIME: Duration = Duration::from_secs(1);

/// Passes on what a jq program yields.
#[cfg(feature = "jq")]
pub(super) struct Scripted(pub(super) Arc<Program>);

// === impl Scripted ===

#[cfg(feature = "jq")]
impl Scripted {
    fn yields(&self, event: &Event) -> Result<Vec<Event>, &'static str> {
        let input = jq::read(event.envelope()).ok_or("not_json")?;
        let mut values: Vec<Val> = Vec::new();
        let run = self.0.run(input, TIME, |value| values.push(value));
        run.map_err(|_| "program_error")?;
        let made = values.iter().map(|value| {
            let mut json = Vec::new();
            jq::write(value, &mut json).map_err(|_| "not_an_envelope")?;
            let made = Event::parse(json.into(), event.received_at());
            made.map_err(|_| "not_an_envelope")
        });
        made.collect()
    }
}

#[cfg(feature = "jq")]
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
