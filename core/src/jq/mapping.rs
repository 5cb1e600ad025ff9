//! Programs that make events of events.

use std::sync::Arc;
use std::time::Duration;

use super::{NotJson, Program, Reader, Rewritten, RunError, Val, write};
use crate::Event;
use crate::plugin::Emitter;

/// A program whose values are the envelopes of the events that come of one.
#[derive(Debug)]
pub struct Mapping {
    program: Arc<Program>,
    reader: Reader,
    time_limit: Duration,
    /// What the program yielded.
    values: Vec<Val>,
}

/// Why a program came to nothing.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// There was nothing to run it over.
    #[error("the envelope cannot be read")]
    Envelope,
    /// It ended early.
    #[error(transparent)]
    Run(#[from] RunError),
    /// It yields this, or more that begins so.
    #[error(
        "the program yields {0}, which is no envelope: it must be an object with the strings `event` and `instance`"
    )]
    NoEnvelope(String),
    /// It yields what cannot be written.
    #[error("the program yields what JSON does not have: {0}")]
    NotJson(#[from] NotJson),
}

// === impl Mapping ===

impl Mapping {
    /// One that may take so long for each event.
    pub fn new(program: impl Into<Arc<Program>>, time_limit: Duration) -> Self {
        let program = program.into();
        Self {
            reader: Reader::keeping(&program),
            program,
            time_limit,
            values: Vec::new(),
        }
    }

    /// Emits what becomes of an event, all of it, or gives the event back. The first of several is the event itself, others have ids
    /// that follow from its own; each keeps the attachments whose placeholders it has. Without a value the event is discarded
    /// as `no_output`.
    pub fn apply(&mut self, event: Event, out: &mut Emitter<'_>) -> Result<(), (Event, Failure)> {
        let left = match self.program.rewrites(&event, self.time_limit) {
            Ok(Rewritten::Envelope(envelope)) => {
                out.emit(event.with_envelope(envelope).tidied());
                return Ok(());
            }
            Ok(Rewritten::Nothing) => {
                out.discard(event, "no_output");
                return Ok(());
            }
            Ok(Rewritten::Unknown(left)) => left,
            Err(error) => return Err((event, error.into())),
        };
        let mut mapped = match self.map(&event, left) {
            Ok(mapped) => mapped,
            Err(failure) => return Err((event, failure)),
        };
        let Some(last) = mapped.pop() else {
            out.discard(event, "no_output");
            return Ok(());
        };
        let count = mapped.len();
        for (number, other) in mapped.into_iter().enumerate() {
            let event = event.fork().in_form_of(&other);
            out.emit(event.numbered(number).tidied());
        }
        out.emit(event.in_form_of(&last).numbered(count).tidied());
        Ok(())
    }

    /// What becomes of an event. All of it, or nothing.
    fn map(&mut self, event: &Event, time: Duration) -> Result<Vec<Event>, Failure> {
        let values = &mut self.values;
        values.clear();
        let input = self.reader.read(event.envelope());
        let input = input.ok_or(Failure::Envelope)?;
        let run = self.program.run(input, time, |value| {
            values.push(value);
        });
        run?;
        values.drain(..).map(|value| form(event, &value)).collect()
    }
}

// === impl Failure ===

impl Failure {
    /// Why the event failed, as metrics have it.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Envelope => "unreadable",
            Self::Run(RunError::Raised(_)) => "program_error",
            Self::Run(RunError::Exceeded(_)) => "program_limit",
            Self::NoEnvelope(_) | Self::NotJson(_) => "not_an_envelope",
        }
    }
}

/// An event with a value for its envelope, of which parts may be what was kept of this one.
fn form(event: &Event, value: &Val) -> Result<Event, Failure> {
    let field = |name: &str| {
        let Val::Obj(members) = value else {
            return None;
        };
        match members.get(&Val::from(name.to_owned())) {
            Some(Val::TStr(text)) if !text.is_empty() => str::from_utf8(text).ok().map(Arc::from),
            _ => None,
        }
    };
    let (read_from, mut envelope) = (event.envelope(), Vec::new());
    envelope.reserve(read_from.len());
    write(value, read_from, &mut envelope)?;
    let (Some(name), Some(instance)) = (field("event"), field("instance")) else {
        let mut text = String::from_utf8_lossy(&envelope).into_owned();
        text.truncate(text.floor_char_boundary(80));
        return Err(Failure::NoEnvelope(text));
    };
    let at = event.received_at();
    Ok(Event::from_parts(name, instance, envelope.into(), at))
}
