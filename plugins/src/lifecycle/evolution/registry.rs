//! The instances in memory, and the one path on which they change.
//!
//! A change is written to the store, then to memory, then told to the watchers, and only then is its call
//! answered; one change at a time. Readers take a lock that writers hold for an instant, never over I/O.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use evows_core::Event;
use evows_core::access::Access;
use evows_core::hub::InvalidChannelName;
use evows_core::plugin::{Instance, Integration, LifecycleError, Watcher};
use parking_lot::{Mutex, RwLock};

use super::UnknownInstances;
use super::row::{Row, WEBHOOK, token};
use super::store::{Store, StoreError};

/// Every instance, and what it takes to change one.
pub(super) struct Registry {
    pub(super) access: Arc<Access>,
    pub(super) unknown: UnknownInstances,
    path: PathBuf,
    book: RwLock<Book>,
    /// `None` before the start and after the stop. Held while a change is made.
    store: tokio::sync::Mutex<Option<Arc<Store>>>,
    watchers: Mutex<Vec<Arc<dyn Watcher>>>,
}

/// The instances by name and by token.
#[derive(Default)]
struct Book {
    entries: HashMap<Arc<str>, Entry>,
    /// Names by a hash of their token, under a key that only this process has: a look-up takes as long
    /// whatever part of a token a guess got right. The token itself is then compared in constant time.
    tokens: HashMap<u64, Vec<Arc<str>>>,
    hasher: RandomState,
}

#[derive(Clone)]
pub(super) struct Entry {
    pub(super) row: Arc<Row>,
    instance: Arc<Instance>,
    /// An index into [`STATES`], one more; 0 while it is unknown. Outlives changes of the row.
    state: Arc<AtomicU8>,
}

/// The states that `connection.update` tells.
const STATES: [&str; 3] = ["open", "connecting", "close"];

/// Why a change is not made.
#[derive(Debug, thiserror::Error)]
pub(super) enum Refused {
    /// There is no such instance.
    #[error("The \"{0}\" instance does not exist")]
    Unknown(String),
    /// There is one already.
    #[error("This name \"{0}\" is already in use.")]
    NameTaken(String),
    /// The token opens something else already.
    #[error("This token is already in use.")]
    TokenTaken,
    /// No channel can have that name.
    #[error("The instance name {name:?} cannot be used: {reason}")]
    Name {
        /// The name.
        name: String,
        /// Why not.
        reason: InvalidChannelName,
    },
    /// The store is not open.
    #[error("the instance registry is not open: evows is starting or stopping")]
    Closed,
    /// The store did not take the change.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The task that made the change died.
    #[error("the change was interrupted")]
    Interrupted(#[from] tokio::task::JoinError),
}

// === impl Registry ===

impl Registry {
    pub(super) fn new(path: PathBuf, unknown: UnknownInstances, access: Arc<Access>) -> Self {
        Self {
            access,
            unknown,
            path,
            book: RwLock::default(),
            store: tokio::sync::Mutex::default(),
            watchers: Mutex::default(),
        }
    }

    pub(super) fn get(&self, name: &str) -> Option<Arc<Instance>> {
        let book = self.book.read();
        let entry = book.entries.get(name)?;
        Some(Arc::clone(&entry.instance))
    }

    pub(super) fn entry(&self, name: &str) -> Option<Entry> {
        self.book.read().entries.get(name).cloned()
    }

    /// Every entry, sorted by name.
    pub(super) fn entries(&self) -> Vec<Entry> {
        let mut entries: Vec<_> = self.book.read().entries.values().cloned().collect();
        entries.sort_by(|a, b| a.row.name.cmp(&b.row.name));
        entries
    }

    pub(super) fn all(&self) -> Vec<Arc<Instance>> {
        let entries = self.entries().into_iter();
        entries.map(|entry| entry.instance).collect()
    }

    pub(super) fn owner(&self, token: &str) -> Option<Arc<Instance>> {
        let book = self.book.read();
        let names = book.tokens.get(&book.hasher.hash_one(token))?;
        let owner = names.iter().find_map(|name| {
            let instance = &book.entries.get(name)?.instance;
            let owns = instance
                .token
                .as_ref()
                .is_some_and(|own| own.matches(token));
            owns.then_some(instance)
        });
        owner.cloned()
    }

    pub(super) fn watch(&self, watcher: Arc<dyn Watcher>) {
        self.watchers.lock().push(watcher);
    }

    pub(super) fn observe(&self, event: &Event) {
        if event.name() != "connection.update" {
            return;
        }
        let data = event.document().get("data");
        let told = data.and_then(|data| data.get("state")?.as_str());
        let known = STATES
            .iter()
            .zip(1..)
            .find(|(state, _)| told == Some(**state));
        if let Some((_, index)) = known
            && let Some(entry) = self.book.read().entries.get(event.instance())
        {
            entry.state.store(index, Ordering::Relaxed);
        }
    }

    /// Opens the store and restores every instance.
    pub(super) async fn start(&self) -> Result<(), LifecycleError> {
        let mut store = self.store.lock().await;
        let path = self.path.clone();
        let opened = tokio::task::spawn_blocking(move || Store::open(&path)).await;
        let (opened, rows) = opened.map_err(|error| {
            LifecycleError::with_source("the instance registry was not read to its end", error)
        })??;
        let mut book = Book::default();
        for row in rows {
            let name = Arc::clone(&row.name);
            let entry = Entry::new(row).map_err(|refused| {
                LifecycleError::with_source(
                    format!(
                        "the instance registry {} has an instance `{name}` that cannot be used: {refused}",
                        self.path.display()
                    ),
                    refused,
                )
            })?;
            book.insert(entry);
        }
        tracing::info!(instances = book.entries.len(), path = %self.path.display(), "restored the instances");
        *self.book.write() = book;
        *store = Some(Arc::new(opened));
        Ok(())
    }

    /// Closes the store, after the change that is being made.
    pub(super) async fn stop(&self) -> Result<(), LifecycleError> {
        let store = self.store.lock().await.take();
        let closed = tokio::task::spawn_blocking(move || drop(store)).await;
        closed.map_err(|error| {
            LifecycleError::with_source(
                format!("cannot close the instance registry {}", self.path.display()),
                error,
            )
        })
    }

    /// Applies a `set`, and makes the instance first if it is unknown and `create` is true.
    pub(super) async fn set(
        self: &Arc<Self>,
        name: String,
        change: impl FnOnce(&mut Row) + Send + 'static,
        create: bool,
    ) -> Result<Arc<Row>, Refused> {
        let registry = Arc::clone(self);
        // A task of its own: a client that hangs up must not leave memory behind the store.
        let task = tokio::spawn(async move {
            let store = registry.store.lock().await;
            let mut row = match registry.entry(&name) {
                Some(entry) => Row::clone(&entry.row),
                None if create => Row::new(&name, &token()),
                None => return Err(Refused::Unknown(name)),
            };
            change(&mut row);
            registry.put(store.as_ref(), row).await
        });
        task.await?
    }

    /// Switches an instance's own webhook off, if it is still set to what was seen. `true` when it was switched off.
    pub(super) async fn switch_off(
        self: &Arc<Self>,
        name: &str,
        seen: &Arc<Integration>,
    ) -> Result<bool, Refused> {
        if seen.kind != WEBHOOK {
            return Ok(false);
        }
        let (registry, name, seen) = (Arc::clone(self), name.to_owned(), Arc::clone(seen));
        let task = tokio::spawn(async move {
            let store = registry.store.lock().await;
            let Some(entry) = registry.entry(&name) else {
                return Ok(false);
            };
            if entry.instance.integration(WEBHOOK) != Some(&seen) {
                return Ok(false);
            }
            let mut row = Row::clone(&entry.row);
            row.switch_webhook_off();
            registry.put(store.as_ref(), row).await?;
            Ok(true)
        });
        task.await?
    }

    /// Adds a new instance.
    pub(super) async fn create(self: &Arc<Self>, row: Row) -> Result<Entry, Refused> {
        let registry = Arc::clone(self);
        let task = tokio::spawn(async move {
            let store = registry.store.lock().await;
            if registry.get(&row.name).is_some() {
                return Err(Refused::NameTaken(row.name.to_string()));
            }
            // A token with two owners would show one of them the other's events.
            if registry.owner(&row.token).is_some()
                || registry.access.identify(&row.token).is_some()
            {
                return Err(Refused::TokenTaken);
            }
            let row = registry.put(store.as_ref(), row).await?;
            let entry = registry.entry(&row.name);
            Ok(entry.expect("nothing changes while the store is locked"))
        });
        task.await?
    }

    /// Deletes an instance.
    pub(super) async fn delete(self: &Arc<Self>, name: String) -> Result<(), Refused> {
        let registry = Arc::clone(self);
        let task = tokio::spawn(async move {
            let store = registry.store.lock().await;
            let store = Arc::clone(store.as_ref().ok_or(Refused::Closed)?);
            let Some(entry) = registry.entry(&name) else {
                return Err(Refused::Unknown(name));
            };
            tokio::task::spawn_blocking(move || store.delete(&name)).await??;
            registry.book.write().remove(&entry);
            for watcher in registry.watchers.lock().iter() {
                watcher.removed(&entry.instance);
            }
            Ok(())
        });
        task.await?
    }

    /// Makes a row durable, then visible, then known to the watchers. The caller holds the store's lock.
    async fn put(&self, store: Option<&Arc<Store>>, row: Row) -> Result<Arc<Row>, Refused> {
        let store = Arc::clone(store.ok_or(Refused::Closed)?);
        let entry = Entry::new(row)?;
        let row = Arc::clone(&entry.row);
        tokio::task::spawn_blocking(move || store.put(&row)).await??;
        let (row, instance) = (Arc::clone(&entry.row), Arc::clone(&entry.instance));
        self.book.write().insert(entry);
        for watcher in self.watchers.lock().iter() {
            watcher.changed(&instance);
        }
        Ok(row)
    }
}

// === impl Book ===

impl Book {
    fn insert(&mut self, mut entry: Entry) {
        let name = Arc::clone(&entry.row.name);
        if let Some(old) = self.entries.get(&name) {
            entry.state = Arc::clone(&old.state);
        }
        let names = self.tokens.entry(self.hasher.hash_one(&*entry.row.token));
        let names = names.or_default();
        if !names.contains(&name) {
            names.push(Arc::clone(&name));
        }
        self.entries.insert(name, entry);
    }

    fn remove(&mut self, entry: &Entry) {
        self.entries.remove(&entry.row.name);
        let hash = self.hasher.hash_one(&*entry.row.token);
        if let Some(names) = self.tokens.get_mut(&hash) {
            names.retain(|name| *name != entry.row.name);
            if names.is_empty() {
                self.tokens.remove(&hash);
            }
        }
    }
}

// === impl Entry ===

impl Entry {
    fn new(row: Row) -> Result<Self, Refused> {
        let instance = row.instance().map_err(|reason| Refused::Name {
            name: row.name.to_string(),
            reason,
        })?;
        Ok(Self {
            row: Arc::new(row),
            instance: Arc::new(instance),
            state: Arc::default(),
        })
    }

    /// The state that the instance's last `connection.update` told.
    pub(super) fn state(&self) -> Option<&'static str> {
        let index = usize::from(self.state.load(Ordering::Relaxed));
        STATES.get(index.checked_sub(1)?).copied()
    }
}
