//! One client's session: the namespaces that it joined.

use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use evows_core::access::Identity;
use evows_core::hub::{Channel, ChannelName, Entry, Gap, Resume, Since, Start};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::framer::Form;
use super::recovery::Wish;
use super::{Denial, Shared};
use crate::clients::Client;
use crate::engineio::{Close, Driver, Message, Outbox, Session, Sid};
use crate::feed::{Batch, Feed, Following};
use crate::socketio::Recovery;
use crate::socketio::inbound::{Answer, InboundEvent};
use crate::socketio::packet::{self, Assembly, Packet};
use crate::stream;

/// CONNECTs that one client may have refused before it is closed.
const MOST_REFUSED: u8 = 20;
/// Attachments of one inbound event: what Node's parser takes.
const MOST_ATTACHMENTS: usize = 10;

/// One client's session. What a delivery needs comes first.
#[repr(C)]
pub(super) struct Member {
    feed: Feed<Form>,
    shared: Arc<Shared>,
    client: Arc<Client>,
    /// Whose key the handshake had; `None` when the key may still come in `auth`.
    identity: Option<Identity>,
    /// Whether it asked for recovery when it shook hands.
    recover: bool,
    /// Boxed: few clients ever send bytes.
    assembly: Option<Box<Assembly>>,
    join_by: Option<Instant>,
    refused: u8,
}

/// How a client joins.
struct Entrance {
    start: Start,
    pid: Option<String>,
    ready: Option<Resume>,
    form: Form,
}

/// Why a client does not join.
enum Refused {
    Denied(Denial),
    Since(String),
}

// === impl Member ===

impl Member {
    pub(super) fn new(
        shared: Arc<Shared>,
        client: Arc<Client>,
        identity: Option<Identity>,
        recover: bool,
    ) -> Self {
        let options = &shared.options;
        let time = match identity {
            Some(_) => options.connect_timeout,
            None => options
                .connect_timeout
                .min(options.connect_timeout_without_key),
        };
        Self {
            join_by: Some(Instant::now() + time),
            shared,
            client,
            identity,
            recover,
            feed: Feed::new(),
            assembly: None,
            refused: 0,
        }
    }

    fn packet(&mut self, text: &str, attachments: &[Bytes], out: &mut Outbox) -> Result<(), Close> {
        let packet = Packet::parse(text).map_err(|malformed| Close(malformed.reason()))?;
        let (Packet::Event { attachments: n, .. } | Packet::Ack { attachments: n, .. }) = packet
        else {
            return self.control(packet, out);
        };
        if n > attachments.len() {
            if n > MOST_ATTACHMENTS {
                return Err(Close("too_many_attachments"));
            }
            let most = self.shared.options.engineio.max_payload;
            let assembly = Assembly::new(text.to_owned(), n, most);
            self.assembly = Some(Box::new(assembly));
            return Ok(());
        }
        self.inbound(packet, attachments, out)
    }

    fn control(&mut self, packet: Packet<'_>, out: &mut Outbox) -> Result<(), Close> {
        match packet {
            Packet::Connect { namespace, auth } => self.connect(namespace, auth, out),
            Packet::Disconnect { namespace } => match self.feed.leave(namespace) {
                Some(_) => Ok(()),
                None => Err(Close("not_joined")),
            },
            Packet::Event { .. } | Packet::Ack { .. } => Ok(()),
        }
    }

    fn inbound(
        &mut self,
        packet: Packet<'_>,
        attachments: &[Bytes],
        out: &mut Outbox,
    ) -> Result<(), Close> {
        let (Packet::Event { namespace, .. } | Packet::Ack { namespace, .. }) = packet else {
            return Ok(());
        };
        // As in Node, which closes a client that speaks where it has not joined.
        if !self.feed.follows(namespace) {
            return Err(Close("not_joined"));
        }
        let Packet::Event { id, data, .. } = packet else {
            // Events of the hub ask for no acknowledgement.
            return Ok(());
        };
        let event = InboundEvent { data, attachments };
        let mut answer = Answer {
            namespace,
            client: &self.client,
            id,
            out,
        };
        if !self.shared.inbound.event(&event, &mut answer) {
            self.shared.clients.refuse("inbound_ignored");
        }
        Ok(())
    }

    fn connect(
        &mut self,
        namespace: &str,
        auth: Option<&str>,
        out: &mut Outbox,
    ) -> Result<(), Close> {
        if self.feed.follows(namespace) {
            return Err(Close("joined_twice"));
        }
        let auth: Option<Value> = auth.and_then(|auth| serde_json::from_str(auth).ok());
        let refused = match self.admit(namespace, auth.as_ref()) {
            Ok((channel, entrance)) => {
                self.join(&channel, entrance, out);
                let mut answer = Answer {
                    namespace,
                    client: &self.client,
                    id: None,
                    out,
                };
                self.shared.inbound.joined(auth.as_ref(), &mut answer);
                return Ok(());
            }
            Err(refused) => refused,
        };
        let (message, reason) = match &refused {
            Refused::Denied(denial) => (denial.message(), denial.reason()),
            Refused::Since(message) => (message.as_str(), "invalid_since"),
        };
        self.shared.clients.refuse(reason);
        out.text(&packet::connect_error(namespace, message));
        self.refused += 1;
        if self.refused > MOST_REFUSED {
            return Err(Close("refused_connects"));
        }
        Ok(())
    }

    fn admit(
        &self,
        namespace: &str,
        auth: Option<&Value>,
    ) -> Result<(Arc<Channel>, Entrance), Refused> {
        let channel = self.shared.hub.find(namespace);
        let name = match &channel {
            Some(channel) => Some(channel.name().clone()),
            None => namespace
                .strip_prefix('/')
                .and_then(|name| ChannelName::of_instance(name).ok()),
        };
        // The key first: without one, names that are there look like names that are not.
        let name = name.ok_or(Refused::Denied(Denial::Invalid))?;
        let gate = &self.shared.gate;
        gate.join(self.identity.as_ref(), auth, &name)
            .map_err(Refused::Denied)?;
        let channel = channel.ok_or(Refused::Denied(Denial::Invalid))?;
        if self.feed.list().len() >= self.shared.options.max_namespaces {
            return Err(Refused::Denied(Denial::TooMany));
        }
        let entrance = self.entrance(&channel, &Wish::new(auth))?;
        Ok((channel, entrance))
    }

    /// Where a client starts, and in which form it gets events.
    fn entrance(&self, channel: &Channel, wish: &Wish<'_>) -> Result<Entrance, Refused> {
        let recover = match self.shared.options.recovery {
            Recovery::Never => false,
            Recovery::Always => true,
            Recovery::OnRequest => self.recover || wish.recover,
        };
        let form = match (recover, wish.envelope) {
            (_, true) => Form::Envelope,
            (true, false) => Form::Argument,
            (false, false) => Form::Plain,
        };
        let signer = &self.shared.signer;
        if recover && let Some((resume, pid)) = wish.recovered(signer, channel) {
            return Ok(Entrance {
                start: Start::Resume(resume),
                pid: Some(pid.to_owned()),
                ready: wish.since.is_some().then_some(resume),
                form,
            });
        }
        let resume = match wish.since {
            None => Resume::at_head(channel.head()),
            Some(since) => {
                let since: Since = since.as_str().unwrap_or_default().parse().map_err(
                    |error: evows_core::hub::InvalidSince| Refused::Since(error.to_string()),
                )?;
                channel.resume(&since)
            }
        };
        Ok(Entrance {
            start: Start::Resume(resume),
            pid: recover.then(|| signer.sign(channel.name().as_str(), resume.from)),
            ready: wish.since.is_some().then_some(resume),
            form,
        })
    }

    fn join(&mut self, channel: &Arc<Channel>, entrance: Entrance, out: &mut Outbox) {
        let Entrance {
            start,
            pid,
            ready,
            form,
        } = entrance;
        let namespace = channel.name().as_str();
        // Not the session's id, which would let others speak for it.
        let sid = Sid::random().map(|sid| sid.to_string()).unwrap_or_default();
        let data = match pid {
            Some(pid) => format!(r#"{{"sid":"{sid}","pid":"{pid}"}}"#),
            None => format!(r#"{{"sid":"{sid}"}}"#),
        };
        out.text(&packet::connect(namespace, &data));
        if let Some(resume) = ready {
            let data = stream::ready(&resume);
            emit(out, namespace, "evows:ready", &data);
        }
        let variant = self.shared.framer.variant(form);
        self.feed.follow(channel.follow(start), variant, form);
        self.join_by = None;
    }
}

impl Session for Member {
    fn message(&mut self, message: Message<'_>, out: &mut Outbox) -> Result<(), Close> {
        match (message, self.assembly.take()) {
            (Message::Text(text), None) => self.packet(text, &[], out),
            (Message::Binary(bytes), Some(mut assembly)) => {
                let complete = assembly.add(bytes);
                if complete.map_err(|malformed| Close(malformed.reason()))? {
                    let (text, attachments) = assembly.into_parts();
                    return self.packet(&text, &attachments, out);
                }
                self.assembly = Some(assembly);
                Ok(())
            }
            (Message::Text(_), Some(_)) | (Message::Binary(_), None) => Err(Close("parse_error")),
        }
    }

    fn seat(&mut self, driver: &Driver) {
        self.feed.seat(driver);
    }

    fn poll_fill(
        &mut self,
        cx: &mut Context<'_>,
        batch: &mut Batch,
        out: &mut Outbox,
    ) -> Poll<Result<(), Close>> {
        let Shared { framer, slow, .. } = &*self.shared;
        let frame = |following: &Following<Form>, entry: &Entry| {
            framer.frame(following.about, following.name(), entry)
        };
        let tell = |following: &Following<Form>, gap| emit_gap(out, following.name(), &gap);
        self.feed.poll_fill(cx, batch, slow, frame, tell)
    }

    fn passed(&mut self, batch: &Batch, count: usize) {
        self.feed.passed(batch, count);
    }

    fn is_behind(&self) -> bool {
        self.feed.is_behind()
    }

    fn is_owed(&self) -> bool {
        self.feed.is_owed()
    }

    fn bytes_behind(&self) -> u64 {
        self.feed.bytes_behind()
    }

    fn is_overrun(&self) -> bool {
        self.feed.is_overrun()
    }

    fn lags(&mut self, out: &mut Outbox) -> Result<(), Close> {
        let tell = |following: &Following<Form>, gap| emit_gap(out, following.name(), &gap);
        self.feed.lags(&self.shared.slow, tell)
    }

    fn deadline(&self) -> Option<Instant> {
        self.join_by
    }

    fn expired(&mut self) -> Result<(), Close> {
        Err(Close("never_joined"))
    }
}

/// Tells a client of what it misses.
fn emit_gap(out: &mut Outbox, namespace: &str, gap: &Gap) {
    emit(out, namespace, "evows:gap", &json!(gap));
}

/// An event of evows itself.
fn emit(out: &mut Outbox, namespace: &str, name: &str, data: &Value) {
    let head = packet::event_head(namespace, 0);
    out.text(&format!(r#"{head}["{name}",{data}]"#));
}
