//! From a body to its events.

use std::time::SystemTime;

use bytes::Bytes;
use evows_core::{EnvelopeError, Event, utf8_lossy};
use serde_json::value::RawValue;

/// Why a body is not a batch.
pub(super) enum Bad {
    TooMany,
    At { place: String, reason: String },
}

/// Splits a body into its events.
pub(super) fn parse(body: &Bytes, most: usize, now: SystemTime) -> Result<Vec<Event>, Bad> {
    let bad = |place: String, error: &EnvelopeError| Bad::At {
        place,
        reason: reason(error),
    };
    // The whole of it here, since the parts of a batch are looked for in text.
    let body = &utf8_lossy(body.clone());
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
                let envelope = part(body, element);
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
        let envelope = part(body, value);
        match Event::parse(envelope, now) {
            Ok(event) => batch.push(event),
            Err(_) if values.byte_offset() == body.len() && batch.is_empty() => {
                return Err(whole(single));
            }
            Err(error) => return Err(bad(&error, start)),
        }
    }
}

/// One envelope of a body: a slice of it when that is most of the body, else a copy. A slice keeps all of the body
/// alive, while queues and the hub count the envelope alone.
fn part(body: &Bytes, envelope: &RawValue) -> Bytes {
    let envelope = envelope.get().as_bytes();
    if envelope.len() > body.len() / 2 {
        body.slice_ref(envelope)
    } else {
        Bytes::copy_from_slice(envelope)
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

#[cfg(test)]
mod tests {
    use super::*;

    const EVENT: &str = r#"{"event":"call","instance":"loja1"}"#;

    /// For each event of a body whether it lies inside the body.
    fn slices(body: String) -> Vec<bool> {
        let body = Bytes::from(body);
        let parsed = parse(&body, 10, SystemTime::UNIX_EPOCH);
        let Ok(events) = parsed else {
            panic!("not a batch");
        };
        let events = events.iter();
        events
            .map(|event| body.as_ptr_range().contains(&event.envelope().as_ptr()))
            .collect()
    }

    #[test]
    fn an_event_does_not_keep_a_body_alive_that_is_much_larger() {
        let blanks = " ".repeat(1000);
        assert_eq!(slices(format!("[{blanks}{EVENT}]")), [false]);
        assert_eq!(slices(format!("{EVENT}{blanks}\n{EVENT}")), [false; 2]);
        assert_eq!(slices(format!("[{EVENT},{EVENT}]")), [false; 2]);
        assert_eq!(slices(format!("[{EVENT}]")), [true]);
        assert_eq!(slices(EVENT.to_owned()), [true]);
    }

    #[test]
    fn bytes_that_are_not_utf8_cost_nobody_an_event() {
        let event = b"{\"event\":\"call\",\"instance\":\"loja1\",\"data\":\"caf\xe9\"}".as_slice();
        for body in [
            event.to_vec(),
            [b"[", event, b"]"].concat(),
            [event, b"\n", event].concat(),
        ] {
            let Ok(events) = parse(&body.into(), 10, SystemTime::UNIX_EPOCH) else {
                panic!("not a batch");
            };
            assert!(
                events
                    .iter()
                    .all(|it| it.document()["data"] == "caf\u{fffd}")
            );
        }
    }
}
