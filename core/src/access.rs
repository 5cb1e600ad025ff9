//! Who may do what: the global key, the instances' tokens, and what they are bound to.

mod key;

use std::fmt;
use std::sync::{Arc, OnceLock};

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use subtle::ConstantTimeEq;

use crate::hub::ChannelName;
use crate::plugin::{Instance, Lifecycle};

pub(crate) use self::key::is_usable;
pub use self::key::{GlobalKey, KeyError, KeyOrigin, global_key};

/// A key or token. Compared in constant time, never printed.
#[derive(Clone)]
pub struct Secret(Arc<str>);

/// Whose rules apply.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    Default,
    serde::Serialize,
    serde::Deserialize,
    schemars::JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum Compat {
    /// A token sees only its own instance's channel.
    #[default]
    Strict,
    /// Evolution's own rules (contract 2.3): any token sees everything, allowed hosts need no key.
    Evolution,
}

/// Decides who may follow which channel and call which API.
#[derive(Default)]
pub struct Access {
    compat: Compat,
    global: OnceLock<Secret>,
    lifecycle: OnceLock<Arc<dyn Lifecycle>>,
}

/// Who a key belongs to.
#[derive(Debug, Clone)]
pub enum Identity {
    /// The operator: the global key, or an address that `WEBSOCKET_ALLOWED_HOSTS` lets in.
    Global,
    /// One instance.
    Instance(Arc<Instance>),
}

// === impl Secret ===

impl Secret {
    /// Wraps a key.
    pub fn new(text: impl Into<Arc<str>>) -> Self {
        Self(text.into())
    }

    /// Whether `candidate` is this key, in time that depends on the candidate's length alone.
    pub fn matches(&self, candidate: &str) -> bool {
        self.0.as_bytes().ct_eq(candidate.as_bytes()).into()
    }

    /// The key itself, for the few places that must show or store it.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[secret]")
    }
}

// === impl Access ===

impl Access {
    /// The rules of `compat`. The key and the lifecycle follow once they are known.
    pub fn new(compat: Compat) -> Self {
        Self {
            compat,
            ..Self::default()
        }
    }

    /// Whose rules apply.
    pub fn compat(&self) -> Compat {
        self.compat
    }

    /// Sets the global key, once.
    pub fn set_global(&self, key: Secret) {
        // A second call would be a second start in one process; the first key stays.
        drop(self.global.set(key));
    }

    /// A key for `purpose`, the same in every process that has the global key; `None` while that is not set.
    pub fn derive(&self, purpose: &str) -> Option<[u8; 32]> {
        let global = self.global.get()?;
        let mac = Hmac::<Sha256>::new_from_slice(global.reveal().as_bytes());
        let mut mac = mac.expect("HMAC takes keys of any length");
        mac.update(purpose.as_bytes());
        Some(mac.finalize().into_bytes().into())
    }

    /// Sets where tokens are looked up, once.
    pub fn set_lifecycle(&self, lifecycle: Arc<dyn Lifecycle>) {
        drop(self.lifecycle.set(lifecycle));
    }

    /// Whose key this is; `None` when it is nobody's.
    pub fn identify(&self, key: &str) -> Option<Identity> {
        if self.global.get().is_some_and(|global| global.matches(key)) {
            return Some(Identity::Global);
        }
        let owner = self.lifecycle.get()?.owner(key)?;
        Some(Identity::Instance(owner))
    }

    /// Whether `identity` is still somebody: its instance is there and has the token that it had.
    pub fn stands(&self, identity: &Identity) -> bool {
        let Identity::Instance(instance) = identity else {
            return true;
        };
        let lifecycle = self.lifecycle.get();
        let current = lifecycle.and_then(|lifecycle| lifecycle.get(&instance.name));
        current.is_some_and(|current| match (&current.token, &instance.token) {
            (Some(current), Some(token)) => current.matches(token.reveal()),
            _ => false,
        })
    }

    /// Whether `identity` may follow `channel`.
    pub fn may_follow(&self, identity: &Identity, channel: &ChannelName) -> bool {
        match identity {
            Identity::Global => true,
            Identity::Instance(instance) => {
                self.compat == Compat::Evolution || instance.channel == *channel
            }
        }
    }

    /// Whether `identity` may call the API of the instance `name`.
    pub fn may_manage(&self, identity: &Identity, name: &str) -> bool {
        match identity {
            Identity::Global => true,
            Identity::Instance(instance) => *instance.name == *name,
        }
    }
}
