//! Content in envelopes, in each of the dialects of contract 1.4.

use std::fmt::Write as _;

use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use bytes::Bytes;
use evows_core::Event;
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use super::names;
use crate::filters::attached;

/// The text that Evolution puts the content of a media message into.
pub(super) const BASE64: &str = "base64";

/// Padding is optional for many who write it.
const BASE64_ENGINE: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Texts that are content where they are base64.
const TEXTS: [&str; 5] = [
    "jpegThumbnail",
    "pngThumbnail",
    "thumbnail",
    "streamingSidecar",
    "scansSidecar",
];

/// The members inside of which there is content.
const MESSAGES: [&str; 4] = ["message", "editedMessage", "quotedMessage", "contextInfo"];

/// One step down from a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step {
    Member(String),
    Element(usize),
}

/// Content where it is.
pub(super) struct Found<'e> {
    pub(super) steps: Vec<Step>,
    form: Form<'e>,
    mimetype: Option<&'e str>,
}

/// How content is written.
enum Form<'e> {
    Text(&'e str),
    Numbers(Vec<&'e Value>),
    Attachment(&'e Bytes),
}

/// Content that has been read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Content {
    pub(super) bytes: Bytes,
    /// In hexadecimal digits.
    pub(super) sha256: String,
    pub(super) mimetype: String,
}

/// Text that is to be content and cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`base64` is no base64: {0}")]
pub(super) struct NotBase64(base64::DecodeError);

/// A walk through a document.
struct Walk<'e> {
    attachments: &'e [Bytes],
    more_than: usize,
    /// The way to where it is.
    steps: Vec<Step>,
    found: Vec<Found<'e>>,
}

/// The content of an event that is larger than so many bytes, in the order in which it is written.
pub(super) fn find(event: &Event, more_than: usize) -> Vec<Found<'_>> {
    let mut walk = Walk {
        attachments: event.attachments(),
        more_than,
        steps: vec![Step::Member("data".to_owned())],
        found: Vec::new(),
    };
    if let Some(data) = event.document().get("data") {
        walk.value(data, false);
    }
    walk.found
}

/// The value at the end of these steps.
pub(super) fn at<'d>(
    document: &'d mut Map<String, Value>,
    steps: &[Step],
) -> Option<&'d mut Value> {
    let (first, rest) = steps.split_first()?;
    let Step::Member(name) = first else {
        return None;
    };
    let first = document.get_mut(name)?;
    rest.iter().try_fold(first, |value, step| match step {
        Step::Member(name) => value.get_mut(name),
        Step::Element(index) => value.get_mut(index),
    })
}

/// Takes a value out. An element of an array becomes null, so that those behind it stay where they are.
pub(super) fn remove(document: &mut Map<String, Value>, steps: &[Step]) {
    match steps.split_last() {
        Some((Step::Member(name), steps)) => {
            if let Some(Value::Object(members)) = at(document, steps) {
                members.shift_remove(name);
            }
        }
        Some((Step::Element(_), _)) => replace(document, steps, Value::Null),
        None => {}
    }
}

/// Puts a value in the place of another one.
pub(super) fn replace(document: &mut Map<String, Value>, steps: &[Step], value: Value) {
    if let Some(place) = at(document, steps) {
        *place = value;
    }
}

// === impl Walk ===

impl<'e> Walk<'e> {
    fn value(&mut self, value: &'e Value, in_message: bool) {
        match value {
            Value::Array(items) => {
                for (index, item) in items.iter().enumerate() {
                    self.steps.push(Step::Element(index));
                    self.value(item, in_message);
                    self.steps.pop();
                }
            }
            Value::Object(members) => {
                if in_message && let Some(form) = self.bytes(members) {
                    self.add(form, None);
                    return;
                }
                for (name, value) in members {
                    self.steps.push(Step::Member(name.clone()));
                    match value {
                        Value::String(text) if in_message && name == BASE64 => {
                            self.add(Form::Text(text), mimetype(members));
                        }
                        Value::String(text) if in_message && TEXTS.contains(&&**name) => {
                            if decode(without_prefix(text).0).is_ok() {
                                self.add(Form::Text(text), None);
                            }
                        }
                        _ => self.value(value, in_message || MESSAGES.contains(&&**name)),
                    }
                    self.steps.pop();
                }
            }
            _ => {}
        }
    }

    fn add(&mut self, form: Form<'e>, mimetype: Option<&'e str>) {
        if form.size() > self.more_than {
            self.found.push(Found {
                steps: self.steps.clone(),
                form,
                mimetype,
            });
        }
    }

    /// The bytes that an object stands for.
    fn bytes(&self, members: &'e Map<String, Value>) -> Option<Form<'e>> {
        if let Some(number) = attached::number(members) {
            return self.attachments.get(number).map(Form::Attachment);
        }
        let is_buffer = members.len() == 2 && members.get("type")? == "Buffer";
        if is_buffer {
            let items = members.get("data")?.as_array()?;
            let is_bytes = items.iter().all(|item| byte(item).is_some());
            return is_bytes.then(|| Form::Numbers(items.iter().collect()));
        }
        indexed(members)
    }
}

/// The bytes of `{"0":1,"1":255}`.
fn indexed(members: &Map<String, Value>) -> Option<Form<'_>> {
    let mut index = String::new();
    for (at, (name, value)) in members.iter().enumerate() {
        index.clear();
        // Writing into a string does not fail.
        write!(index, "{at}").ok();
        if *name != index || byte(value).is_none() {
            return None;
        }
    }
    (!members.is_empty()).then(|| Form::Numbers(members.values().collect()))
}

fn byte(value: &Value) -> Option<u8> {
    u8::try_from(value.as_u64()?).ok()
}

/// The first `mimetype` inside of a message.
fn mimetype(members: &Map<String, Value>) -> Option<&str> {
    let own = members.get("mimetype").and_then(Value::as_str);
    own.or_else(|| {
        let mut below = members.values().filter_map(Value::as_object);
        below.find_map(mimetype)
    })
}

/// Decodes base64 as it is met with: in either alphabet, with or without padding, broken into lines or not.
fn decode(text: &str) -> Result<Vec<u8>, NotBase64> {
    BASE64_ENGINE.decode(text).or_else(|error| {
        let is_other = |byte: &u8| byte.is_ascii_whitespace() || matches!(byte, b'-' | b'_');
        if !text.as_bytes().iter().any(is_other) {
            return Err(NotBase64(error));
        }
        let solid = text.bytes().filter(|byte| !byte.is_ascii_whitespace());
        let solid: Vec<u8> = solid
            .map(|byte| match byte {
                b'-' => b'+',
                b'_' => b'/',
                other => other,
            })
            .collect();
        BASE64_ENGINE.decode(solid).map_err(NotBase64)
    })
}

/// What comes behind `data:image/png;base64,`, or all of it; and the type that stands there.
fn without_prefix(text: &str) -> (&str, Option<&str>) {
    let split = text
        .strip_prefix("data:")
        .and_then(|rest| rest.split_once(";base64,"));
    match split {
        Some((mimetype, text)) => (text, Some(mimetype)),
        None => (text, None),
    }
}

// === impl Form ===

impl Form<'_> {
    fn size(&self) -> usize {
        match self {
            Self::Text(text) => {
                let digits = without_prefix(text).0.bytes();
                let digits = digits.filter(|byte| !byte.is_ascii_whitespace() && *byte != b'=');
                let digits = digits.count();
                digits / 4 * 3 + (digits % 4).saturating_sub(1)
            }
            Self::Numbers(numbers) => numbers.len(),
            Self::Attachment(bytes) => bytes.len(),
        }
    }
}

// === impl Found ===

impl Found<'_> {
    /// Decodes and hashes it.
    pub(super) fn read(&self) -> Result<Content, NotBase64> {
        let (bytes, written): (Bytes, _) = match &self.form {
            Form::Text(text) => {
                let (text, mimetype) = without_prefix(text);
                (decode(text)?.into(), mimetype)
            }
            Form::Numbers(numbers) => {
                let bytes: Vec<u8> = numbers.iter().filter_map(|number| byte(number)).collect();
                (bytes.into(), None)
            }
            Form::Attachment(bytes) => ((*bytes).clone(), None),
        };
        let mimetype = self.mimetype.or(written);
        let mut sha256 = String::with_capacity(64);
        for byte in Sha256::digest(&bytes) {
            // Writing into a string does not fail.
            write!(sha256, "{byte:02x}").ok();
        }
        Ok(Content {
            sha256,
            mimetype: mimetype.unwrap_or_else(|| names::sniff(&bytes)).to_owned(),
            bytes,
        })
    }
}
