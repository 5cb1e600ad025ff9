//! Who may be served what: the keys of handshakes and of subscriptions, the same for every transport.

use std::net::IpAddr;
use std::sync::Arc;

use axum::http::HeaderMap;
use evows_core::access::{Access, Compat, Identity};
use evows_core::http::Peer;
use evows_core::hub::ChannelName;
use evows_core::plugin::Environment;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;

use crate::engineio::{Handshake, Refusal};
use crate::socketio::Gate;

/// Whether the handshake needs a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum HandshakeKey {
    /// Without a key in the query or in the header `apikey` the handshake is refused.
    Required,
    /// The key may come in `auth` when a namespace is joined.
    Deferred,
}

/// Which keys open what (contract 2.3).
pub(crate) struct Keys {
    access: Arc<Access>,
    deferred: bool,
    allowed: Allowed,
}

/// What is wrong with a handshake's key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum KeyError {
    Missing,
    Unknown,
}

/// Why a client may not follow a channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Denial {
    /// There is none of this name, as far as this key is concerned.
    Invalid,
    /// The client has shown no key.
    KeyRequired,
    /// Its key is nobody's, or not any more.
    KeyUnknown,
    /// Its key is for other channels.
    Forbidden,
    /// It follows as many as it may.
    TooMany,
}

/// The addresses that need no key: `WEBSOCKET_ALLOWED_HOSTS`.
#[derive(Debug, PartialEq, Eq)]
enum Allowed {
    Everybody,
    Listed(Vec<String>),
}

// === impl Keys ===

impl Keys {
    pub(crate) fn new(
        rule: Option<HandshakeKey>,
        access: Arc<Access>,
        environment: &Environment,
    ) -> Self {
        let compat = access.compat();
        let deferred = match rule {
            Some(rule) => rule == HandshakeKey::Deferred,
            None => compat == Compat::Strict,
        };
        let hosts = environment.get("WEBSOCKET_ALLOWED_HOSTS");
        if hosts.is_some() && compat == Compat::Strict {
            tracing::warn!(
                "WEBSOCKET_ALLOWED_HOSTS counts only under `server.compat = \"evolution\"`: every client needs a key"
            );
        }
        let allowed = Allowed::new(hosts, compat);
        Self {
            access,
            deferred,
            allowed,
        }
    }

    /// Whose key a handshake has; `Ok(None)` when it has none, and may bring one later. Allowed hosts need none where the
    /// request is one of Engine.IO, which `listed` says.
    pub(crate) fn identify(
        &self,
        listed: bool,
        query: Option<&str>,
        headers: &HeaderMap,
        peer: &Peer,
    ) -> Result<Option<Identity>, KeyError> {
        let header = headers.get("apikey").and_then(|value| value.to_str().ok());
        let mut keys = [query, header].into_iter().flatten();
        let key = keys.find(|key| !key.is_empty());
        match key {
            _ if listed && self.allowed.contains(peer.tcp.ip()) => Ok(Some(Identity::Global)),
            Some(key) => {
                let identity = self.access.identify(key);
                identity.map(Some).ok_or(KeyError::Unknown)
            }
            None if self.deferred => Ok(None),
            None => Err(KeyError::Missing),
        }
    }

    /// Whether a client may follow a channel now: with whose key it shook hands, or else with the key that it brings along.
    pub(crate) fn check(
        &self,
        identity: Option<&Identity>,
        brought: Option<&str>,
        channel: &ChannelName,
    ) -> Result<(), Denial> {
        let brought = brought.filter(|_| self.deferred && self.access.compat() == Compat::Strict);
        let identity = match (identity, brought) {
            // The key may have been revoked, and its instance's name given to another, since the handshake.
            (Some(identity), _) if self.access.stands(identity) => identity.clone(),
            (Some(_), _) => return Err(Denial::KeyUnknown),
            (None, Some(key)) => self.access.identify(key).ok_or(Denial::KeyUnknown)?,
            (None, None) => return Err(Denial::KeyRequired),
        };
        if self.access.may_follow(&identity, channel) {
            Ok(())
        } else if channel.is_root() {
            Err(Denial::Forbidden)
        } else {
            // To this key, the channels of other instances do not exist.
            Err(Denial::Invalid)
        }
    }
}

impl Gate for Keys {
    fn admit(&self, handshake: &Handshake<'_>) -> Result<Option<Identity>, Refusal> {
        let Handshake {
            headers, peer, key, ..
        } = handshake;
        Ok(self.identify(handshake.has_version, *key, headers, peer)?)
    }

    fn join(
        &self,
        identity: Option<&Identity>,
        auth: Option<&Value>,
        channel: &ChannelName,
    ) -> Result<(), Denial> {
        self.check(identity, auth.and_then(brought), channel)
    }
}

/// The key in an `auth` object.
pub(crate) fn brought(auth: &Value) -> Option<&str> {
    let key = auth.get("apikey").or_else(|| auth.get("token"));
    key.and_then(Value::as_str)
}

// === impl Denial ===

impl Denial {
    /// What the client is told: for an unknown namespace, what Node's server says.
    pub fn message(self) -> &'static str {
        match self {
            Self::Invalid => "Invalid namespace",
            Self::KeyRequired => "apiKey is required",
            Self::KeyUnknown => "Invalid global token",
            Self::Forbidden => "This key does not give access to this namespace",
            Self::TooMany => "Too many namespaces",
        }
    }

    /// The label of the counter.
    pub fn reason(self) -> &'static str {
        match self {
            Self::Invalid => "invalid_namespace",
            Self::KeyRequired => "key_required",
            Self::KeyUnknown => "key_unknown",
            Self::Forbidden => "namespace_forbidden",
            Self::TooMany => "too_many_namespaces",
        }
    }
}

// === impl Allowed ===

impl Allowed {
    /// Loopback by default, as in Evolution. Under strict rules nobody does without a key.
    fn new(variable: Option<&str>, compat: Compat) -> Self {
        let listed = |text: &str| {
            let hosts = text.split(',').map(|host| host.trim().to_owned());
            Self::Listed(hosts.filter(|host| !host.is_empty()).collect())
        };
        match (compat, variable.filter(|text| !text.is_empty())) {
            (Compat::Strict, _) => Self::Listed(Vec::new()),
            (Compat::Evolution, Some("*")) => Self::Everybody,
            (Compat::Evolution, Some(text)) => listed(text),
            (Compat::Evolution, None) => listed("127.0.0.1,::1,::ffff:127.0.0.1"),
        }
    }

    fn contains(&self, address: IpAddr) -> bool {
        let Self::Listed(hosts) = self else {
            return true;
        };
        if hosts.is_empty() {
            return false;
        }
        // Node on a dual-stack socket sees IPv4 peers as ::ffff:a.b.c.d, so either spelling may be listed.
        let plain = address.to_canonical().to_string();
        let mapped = format!("::ffff:{plain}");
        hosts.iter().any(|host| *host == plain || *host == mapped)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn allowed_hosts_follow_the_contract() {
        for variable in [None, Some("127.0.0.1"), Some("*")] {
            let strict = Allowed::new(variable, Compat::Strict);
            assert!(!strict.contains([127, 0, 0, 1].into()));
        }
        for (variable, address, expected) in [
            (None, "127.0.0.1", true),
            (Some(""), "::1", true),
            (None, "::ffff:127.0.0.1", true),
            (None, "10.0.0.1", false),
            (Some("*"), "10.0.0.1", true),
            (Some(" 10.0.0.1 , x"), "10.0.0.1", true),
            (Some("10.0.0.1"), "127.0.0.1", false),
            (Some("::ffff:10.0.0.1"), "10.0.0.1", true),
            (Some("10.0.0.0/8"), "10.0.0.1", false),
        ] {
            let allowed = Allowed::new(variable, Compat::Evolution);
            assert_eq!(
                allowed.contains(address.parse().unwrap()),
                expected,
                "{variable:?} {address}"
            );
        }
    }
}
