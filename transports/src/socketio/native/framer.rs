//! What clients are sent for an event: made once for each kind of client.

use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use evows_core::hub::{Entry, Frame, Variant};

use super::Options;
use crate::clients::Clients;
use crate::socketio::Dialect;
use crate::socketio::binary::Payload;
use crate::socketio::packet::event_head;
use crate::socketio::reserved::Reserved;
use crate::stream::with_position;
use crate::ws::frame::{Header, Opcode};

/// Up to this many bytes an event is copied into its frame: the system writes one piece faster than three.
const SMALL: usize = 2048;

/// Frames events for one engine.
pub(super) struct Framer {
    dialect: Dialect,
    max_attachments: usize,
    reserved: Reserved,
    clients: Arc<Clients>,
    plain: Variant,
    argument: Variant,
    envelope: Variant,
}

/// Where a client finds an event's position.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// Nowhere: as Evolution sends events.
    Plain,
    /// In a last argument of its own, where stock clients look for it.
    Argument,
    /// In the envelope's last member, `_evows`.
    Envelope,
}

// === impl Framer ===

impl Framer {
    pub(super) fn new(options: &Options, clients: Arc<Clients>) -> Self {
        Self {
            dialect: options.dialect,
            max_attachments: options.max_attachments,
            reserved: Reserved::default(),
            clients,
            plain: Variant::unique(),
            argument: Variant::unique(),
            envelope: Variant::unique(),
        }
    }

    pub(super) fn variant(&self, form: Form) -> Variant {
        match form {
            Form::Plain => self.plain,
            Form::Argument => self.argument,
            Form::Envelope => self.envelope,
        }
    }

    /// The frames of one event in a namespace. Empty for an event that cannot be sent.
    pub(super) fn frame(&self, form: Form, namespace: &str, entry: &Entry) -> Frame {
        match self.try_frame(form, namespace, entry) {
            Ok(frame) => frame,
            Err(reason) => {
                self.clients.undelivered(reason);
                Frame::default()
            }
        }
    }

    fn try_frame(&self, form: Form, namespace: &str, entry: &Entry) -> Result<Frame, &'static str> {
        let event = &entry.event;
        if self.reserved.holds_back(event.name()) {
            return Err("reserved_name");
        }
        let payload = Payload::changed(event, self.dialect, self.max_attachments);
        let payload = payload.map_err(|error| {
            tracing::warn!(event = event.name(), %error, "cannot encode an event");
            "encoding"
        })?;
        // The envelope itself is shared with the log, and with every other frame of the event.
        let (body, attachments) = match payload {
            None => (event.envelope().clone(), Vec::new()),
            Some(payload) => payload.encoded(),
        };
        let (body, tail) = match form {
            Form::Plain => (body, Bytes::from_static(b"]")),
            Form::Argument => {
                let tail = format!(r#","{}"]"#, entry.position);
                (body, tail.into())
            }
            Form::Envelope => {
                let (body, tail) = with_position(body, entry);
                (body, (tail + "]").into())
            }
        };
        let name = serde_json::Value::from(event.name()).to_string();
        let head = format!("4{}[{name},", event_head(namespace, attachments.len()));
        let length = head.len() + body.len() + tail.len();
        let mut pieces = vec![framed(Opcode::Text, length, head.as_bytes()), body, tail];
        for bytes in attachments {
            pieces.push(framed(Opcode::Binary, bytes.len(), &[]));
            pieces.push(bytes);
        }
        if length <= SMALL {
            pieces = vec![pieces.concat().into()];
        }
        Ok(Frame::new(pieces))
    }
}

/// A frame's header and the first bytes of its payload, which is of `length` bytes.
fn framed(opcode: Opcode, length: usize, start: &[u8]) -> Bytes {
    let header = Header::new(opcode, length);
    let mut bytes = BytesMut::with_capacity(header.as_ref().len() + start.len());
    bytes.put_slice(header.as_ref());
    bytes.put_slice(start);
    bytes.freeze()
}
