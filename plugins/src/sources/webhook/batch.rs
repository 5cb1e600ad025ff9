//! From a body to its events.

use std::time::SystemTime;

use bytes::Bytes;
use evows_core::{EnvelopeError, Event};
use serde_json::value::RawValue;

/// Why a body is not a batch.
pub(super) enum Bad {
    TooMany,
    At { place: String, reason: String },
}

/// Splits a body into its events, each a slice of the body.
pub(super) fn parse(body: &Bytes, most: usize, now: SystemTime) -> Result<Vec<Event>, Bad> {
    let bad = |place: String, error: &EnvelopeError| Bad::At {
        place,
        reason: reason(error),
    };
    let first = body.iter().position(|byte| !byte.is_ascii_whitespace());
    match first.and_then(|at| body.get(at)) {
        None => Err(Bad::At {
            place: "the body".to_owned(),
            reason: "it is empty".to_owned(),
        }),
        Some(b'[') => {
            let elements: Vec<&RawValue> = serde_json::from_slice(body)
                .map_err(|error| bad("the body".to_owned(), &error.into()))?;
            if elements.len() > most {
                return Err(Bad::TooMany);
            }
            let parse = |(index, element): (usize, &&RawValue)| {
                let envelope = body.slice_ref(element.get().as_bytes());
                Event::parse(envelope, now).map_err(|error| bad(format!("element {index}"), &error))
            };
            elements.iter().enumerate().map(parse).collect()
        }
        Some(_) => match Event::parse(body.clone(), now) {
            Ok(event) => Ok(vec![event]),
            Err(single) => parse_lines(body, most, now, &single),
        },
    }
}

/// Reads one envelope after another. `single` says why the body is not one envelope.
fn parse_lines(
    body: &Bytes,
    most: usize,
    now: SystemTime,
    single: &EnvelopeError,
) -> Result<Vec<Event>, Bad> {
    let mut batch = Vec::new();
    let mut values = serde_json::Deserializer::from_slice(body).into_iter::<&RawValue>();
    loop {
        let bad = |error: &EnvelopeError, start: usize| {
            let rest = body.get(start..).unwrap_or_default();
            let blank = rest.iter().take_while(|byte| byte.is_ascii_whitespace());
            let before = body.get(..start + blank.count()).unwrap_or_default();
            let line = before.split(|byte| *byte == b'\n').count();
            Bad::At {
                place: format!("line {line}"),
                reason: reason(error),
            }
        };
        let start = values.byte_offset();
        let value = match values.next() {
            None => return Ok(batch),
            Some(Ok(value)) => value,
            Some(Err(_)) if batch.is_empty() => return Err(whole(single)),
            Some(Err(error)) => return Err(bad(&error.into(), start)),
        };
        if batch.len() == most {
            return Err(Bad::TooMany);
        }
        let envelope = body.slice_ref(value.get().as_bytes());
        match Event::parse(envelope, now) {
            Ok(event) => batch.push(event),
            Err(_) if values.byte_offset() == body.len() && batch.is_empty() => {
                return Err(whole(single));
            }
            Err(error) => return Err(bad(&error, start)),
        }
    }
}

fn whole(error: &EnvelopeError) -> Bad {
    Bad::At {
        place: "the body".to_owned(),
        reason: reason(error),
    }
}

/// The cause alone: the refusal says the rest.
fn reason(error: &EnvelopeError) -> String {
    match error {
        EnvelopeError::NotAnEnvelope(error) => error.to_string(),
        EnvelopeError::Empty(field) => format!("\"{field}\" is empty"),
    }
}
