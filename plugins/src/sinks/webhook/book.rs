//! Which events go to which instance's own webhook.

use std::collections::HashMap;
use std::sync::Arc;

use evows_core::Event;
use evows_core::names::{same_event, wire_name};
use evows_core::plugin::{Destination, Instances, Integration};
use parking_lot::RwLock;

use super::endpoint::{Endpoint, Unusable, is_http};

/// The kind of integration that is looked for.
const KIND: &str = "webhook";

/// What the names of the destinations of instances begin with.
const PREFIX: &str = "instance/";

/// The instances' webhooks. What is read from a row is kept until the row changes.
pub(super) struct Book {
    instances: Arc<dyn Instances>,
    /// Whether the headers of Evolution 2.4 are wanted.
    extra: bool,
    pages: RwLock<HashMap<Arc<str>, Arc<Page>>>,
}

/// What one instance is set to.
pub(super) struct Page {
    pub(super) set: Arc<Integration>,
    pub(super) endpoint: Result<Endpoint, Unusable>,
    destination: Destination,
    /// `None` when nothing is delivered.
    wanted: Option<Wanted>,
}

/// A list of events, read for being looked at often.
#[derive(Debug, Default)]
pub(super) struct Wanted {
    wire: Vec<&'static str>,
    others: Vec<String>,
}

// === impl Book ===

impl Book {
    pub(super) fn new(instances: Arc<dyn Instances>, extra: bool) -> Self {
        Self {
            instances,
            extra,
            pages: RwLock::default(),
        }
    }

    /// Where the event goes, if its instance is set to have it.
    pub(super) fn destination(&self, event: &Event) -> Option<Destination> {
        let page = self.page(event.instance())?;
        let wanted = page.wanted.as_ref()?;
        wanted.has(event.name()).then(|| page.destination.clone())
    }

    /// The instance behind a destination and its page, if its webhook is still set and enabled.
    pub(super) fn find<'a>(&self, destination: &'a str) -> Option<(&'a str, Arc<Page>)> {
        let instance = destination.strip_prefix(PREFIX)?;
        let page = self.page(instance)?;
        page.wanted.is_some().then_some((instance, page))
    }

    /// The URL that an instance is set to, enabled or not.
    pub(super) fn url(&self, instance: &str) -> Option<String> {
        let page = self.page(instance)?;
        let url = page.set.settings.get("url")?.as_str()?;
        (!url.is_empty()).then(|| url.to_owned())
    }

    fn page(&self, instance: &str) -> Option<Arc<Page>> {
        let known = self.instances.get(instance)?;
        let set = known.integration(KIND)?;
        if let Some(page) = self.pages.read().get(instance)
            && Arc::ptr_eq(&page.set, set)
        {
            return Some(Arc::clone(page));
        }
        let page = Arc::new(Page::new(instance, set, self.extra));
        let mut pages = self.pages.write();
        pages.insert(Arc::clone(&known.name), Arc::clone(&page));
        // Those of instances that are gone would stay for ever.
        if pages.len().is_power_of_two() {
            pages.retain(|name, _| self.instances.get(name).is_some());
        }
        Some(page)
    }
}

// === impl Page ===

impl Page {
    fn new(instance: &str, set: &Arc<Integration>, extra: bool) -> Self {
        let url = set.settings.get("url").and_then(|url| url.as_str());
        let is_on = set.subscription.enabled && url.is_some_and(is_http);
        Self {
            set: Arc::clone(set),
            endpoint: Endpoint::of_instance(set, extra),
            destination: Destination::named(format!("{PREFIX}{instance}")),
            wanted: is_on.then(|| Wanted::new(&set.subscription.events)),
        }
    }
}

// === impl Wanted ===

impl Wanted {
    pub(super) fn new(names: &[String]) -> Self {
        let mut wanted = Self::default();
        for name in names {
            match wire_name(name) {
                Some(wire) => wanted.wire.push(wire),
                None => wanted.others.push(name.clone()),
            }
        }
        wanted
    }

    pub(super) fn has(&self, event: &str) -> bool {
        self.wire.contains(&event) || self.others.iter().any(|name| same_event(name, event))
    }
}
