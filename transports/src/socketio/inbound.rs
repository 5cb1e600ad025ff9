//! What clients send, and who takes it.

use bytes::Bytes;
use serde_json::Value;

use super::packet::{ack_head, event_head};
use crate::clients::Client;
use crate::engineio::Outbox;

/// Takes what clients send. Called on the client's task: it must not block.
///
/// ```
/// use evows_transports::socketio::{Answer, Inbound, InboundEvent};
///
/// struct Echo;
///
/// impl Inbound for Echo {
///     fn event(&self, event: &InboundEvent<'_>, answer: &mut Answer<'_>) -> bool {
///         answer.emit(event.data, event.attachments);
///         answer.ack("[]", &[]);
///         true
///     }
/// }
/// ```
pub trait Inbound: Send + Sync + 'static {
    /// A client has joined a namespace. What is emitted here is the first that it receives there.
    fn joined(&self, _auth: Option<&Value>, _answer: &mut Answer<'_>) {}

    /// A client has sent an event. `false`: it is nobody's, and counted as ignored.
    fn event(&self, event: &InboundEvent<'_>, answer: &mut Answer<'_>) -> bool;
}

/// An event that a client has sent.
#[derive(Debug)]
pub struct InboundEvent<'a> {
    /// A JSON array: the name, then the arguments. Where an argument has bytes, it has `{"_placeholder":true,"num":n}`.
    pub data: &'a str,
    /// The bytes, by that number.
    pub attachments: &'a [Bytes],
}

/// Answers the client that joined or sent something.
#[derive(Debug)]
pub struct Answer<'a> {
    pub(super) namespace: &'a str,
    pub(super) client: &'a Client,
    pub(super) id: Option<u64>,
    pub(super) out: &'a mut Outbox,
}

/// Takes nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct Ignored;

// === impl InboundEvent ===

impl InboundEvent<'_> {
    /// Its name, and its arguments as JSON texts; `None` when the name is a number.
    pub fn parts(&self) -> Option<(String, Vec<&serde_json::value::RawValue>)> {
        let mut parts: Vec<&serde_json::value::RawValue> = serde_json::from_str(self.data).ok()?;
        let name = serde_json::from_str(parts.first()?.get()).ok()?;
        parts.remove(0);
        Some((name, parts))
    }
}

// === impl Answer ===

impl Answer<'_> {
    /// The namespace, with its slash.
    pub fn namespace(&self) -> &str {
        self.namespace
    }

    /// Who it is.
    pub fn client(&self) -> &Client {
        self.client
    }

    /// Emits an event to this client: a JSON array of its name and its arguments, with placeholders for `attachments`.
    pub fn emit(&mut self, data: &str, attachments: &[Bytes]) {
        let head = event_head(self.namespace, attachments.len());
        self.send(head, data, attachments);
    }

    /// Acknowledges the event with a JSON array of arguments, if it asked for that and was not acknowledged before.
    pub fn ack(&mut self, data: &str, attachments: &[Bytes]) {
        if let Some(id) = self.id.take() {
            let head = ack_head(self.namespace, attachments.len(), id);
            self.send(head, data, attachments);
        }
    }

    fn send(&mut self, head: String, data: &str, attachments: &[Bytes]) {
        self.out.text(&(head + data));
        for bytes in attachments {
            self.out.binary(bytes.clone());
        }
    }
}

// === impl Ignored ===

impl Inbound for Ignored {
    fn event(&self, _event: &InboundEvent<'_>, _answer: &mut Answer<'_>) -> bool {
        false
    }
}
