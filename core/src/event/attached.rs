//! Attachments, and the placeholders that stand for them in the document.

use bytes::Bytes;
use serde_json::{Map, Value};

use super::Event;

// === impl Event ===

impl Event {
    /// Lets go of attachments whose placeholder is gone, and numbers the others anew, so that nothing of what was taken out of the
    /// document travels on.
    #[must_use]
    pub fn tidied(mut self) -> Self {
        if self.attachments().is_empty() {
            return self;
        }
        let mut kept = Vec::new();
        let mut attachments: Vec<_> = self.attachments().iter().cloned().map(Some).collect();
        self.edit(|document| {
            let values = document.values_mut();
            values.for_each(|value| renumber(value, &mut attachments, &mut kept));
        });
        self.with_attachments(kept)
    }
}

/// Each attachment has one place: a second one that names it is none any more, or it would name another attachment.
fn renumber(value: &mut Value, old: &mut [Option<Bytes>], kept: &mut Vec<Bytes>) {
    match value {
        Value::Array(items) => {
            let items = items.iter_mut();
            items.for_each(|item| renumber(item, old, kept));
        }
        Value::Object(members) => {
            match placeholder(members).and_then(|number| old.get_mut(number)) {
                Some(bytes) => match bytes.take() {
                    Some(bytes) => {
                        members.insert("num".to_owned(), kept.len().into());
                        kept.push(bytes);
                    }
                    None => {
                        members.insert("_placeholder".to_owned(), false.into());
                    }
                },
                None => members
                    .values_mut()
                    .for_each(|value| renumber(value, old, kept)),
            }
        }
        _ => {}
    }
}

/// The number of the attachment that `{"_placeholder":true,"num":n}` stands for.
pub fn placeholder(members: &Map<String, Value>) -> Option<usize> {
    let is_placeholder = members.len() == 2 && members.get("_placeholder")? == true;
    let number = members.get("num")?.as_u64()?;
    is_placeholder.then(|| usize::try_from(number).ok())?
}
