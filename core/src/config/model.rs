//! A configuration that was read and checked.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Period, ServerConfig, Settings, Size};
use crate::delivery::DeliveryConfig;
use crate::hub::Retention;
use crate::journal::{self, Durability, Options};
use crate::registry::Registration;

/// A whole `evows.toml`, every plugin found and every key checked.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// `[server]`.
    pub server: Arc<ServerConfig>,
    /// `[hub]`.
    pub hub: Retention,
    /// `[history]`.
    pub history: HistoryConfig,
    /// `[lifecycle]`; the shipped one with its defaults when the section is missing.
    pub lifecycle: Component,
    /// `[transports.<id>]`, in the order of the file.
    pub transports: Vec<Component>,
    /// The graph.
    pub pipeline: Pipeline,
}

/// The graph of sources, filters and sinks: no cycle, no unknown input, at least one sink.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Pipeline {
    /// `[sources.<id>]`.
    pub sources: Vec<Component>,
    /// `[filters.<id>]`.
    pub filters: Vec<FilterNode>,
    /// `[sinks.<id>]`.
    pub sinks: Vec<SinkNode>,
}

/// A plugin under an id.
#[derive(Debug, Clone, PartialEq)]
pub struct Component {
    /// Its id: unique over the whole file, letters, digits, `_` and `-`.
    pub id: Arc<str>,
    /// Its plugin.
    pub plugin: &'static Registration,
    /// The plugin's own keys.
    pub settings: Settings,
}

/// A filter in the graph.
#[derive(Debug, Clone, PartialEq)]
pub struct FilterNode {
    /// The plugin under its id.
    pub component: Component,
    /// What it reads.
    pub inputs: Vec<Input>,
    /// Its named ports, in the order of their numbers.
    pub ports: Vec<String>,
}

/// A sink in the graph.
#[derive(Debug, Clone, PartialEq)]
pub struct SinkNode {
    /// The plugin under its id.
    pub component: Component,
    /// What it reads.
    pub inputs: Vec<Input>,
    /// The queue in front of it.
    pub buffer: BufferConfig,
    /// How it is delivered to, as far as the file says.
    pub delivery: DeliveryConfig,
    /// Whether a source acknowledges an event only once this sink has it.
    pub required: bool,
}

/// An edge's upper end: `"id"`, or `"id.port"`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Input {
    /// A source's or filter's id.
    pub id: Arc<str>,
    /// One of its named ports; `None` is the unnamed output.
    pub port: Option<String>,
}

/// What is kept for a sink that does not keep up: whichever limit is reached first makes it full.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct BufferConfig {
    /// Whether what waits is in memory, or on the disk, in `data_dir`: then a source's events are acknowledged
    /// once they are there, and are delivered whatever happens to the process or the sink.
    #[serde(rename = "type")]
    pub kind: BufferType,
    /// Events that it holds at most.
    pub events: usize,
    /// Bytes of events that it holds at most. One event larger than this still passes, alone.
    pub bytes: Size,
    /// What happens to an event that finds it full.
    pub when_full: WhenFull,
    /// Bytes on the disk at most, compressed; for `type = "disk"`.
    pub max_size: Size,
    /// When what is on the disk is safe from a crash of the machine, too; for `type = "disk"`.
    pub sync: SyncConfig,
}

/// Where a buffer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum BufferType {
    /// In memory: what is in it when the process dies is lost, and its sources were not told that it is safe.
    #[default]
    Memory,
    /// On the disk, behind a queue in memory.
    Disk,
}

/// When a journal's file is synced. The death of the process alone never loses what it has acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SyncConfig {
    /// Before anything is acknowledged; what comes at the same time is synced together.
    Always,
    /// Ten times a second: a crash of the machine loses less than that.
    #[default]
    Interval,
    /// When the system likes.
    Os,
}

/// `[history]`: what channels got, on the disk, so that positions and replay survive a restart. Whichever limit is reached
/// first drops the oldest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct HistoryConfig {
    /// Whether there is one.
    pub enabled: bool,
    /// Bytes on the disk at most, compressed.
    pub max_size: Size,
    /// Events at most.
    pub max_events: u64,
    /// Time that an event is kept at most.
    pub max_age: Period,
    /// When what is on the disk is safe from a crash of the machine, too.
    pub sync: SyncConfig,
}

/// What every channel retains for clients that come back: whichever limit is reached first drops the
/// oldest event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct HubConfig {
    /// Events that a channel keeps at most.
    pub events: usize,
    /// Bytes of events that a channel keeps at most.
    pub bytes: Size,
    /// Time that an event is kept at most.
    pub age: Period,
}

/// What a full queue does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum WhenFull {
    /// Makes whoever sends wait, up to the source: nothing is lost.
    #[default]
    Block,
    /// Sheds the oldest queued events.
    DropOldest,
    /// Sheds the new event.
    DropNewest,
    /// Sheds the new event and tells its source at once, which refuses it upstream (503).
    Reject,
}

// === impl BufferConfig ===

impl Default for BufferConfig {
    fn default() -> Self {
        Self {
            events: 10_000,
            bytes: Size::mib(64),
            when_full: WhenFull::Block,
            kind: BufferType::Memory,
            max_size: Size::mib(1024),
            sync: SyncConfig::Interval,
        }
    }
}

impl BufferConfig {
    /// How the journal of a buffer on disk works.
    pub(crate) fn journal(&self) -> Options {
        let full = match self.when_full {
            WhenFull::DropOldest => journal::WhenFull::DropOldest,
            WhenFull::Block | WhenFull::DropNewest | WhenFull::Reject => journal::WhenFull::Reject,
        };
        Options {
            durability: self.sync.into(),
            retention: journal::Retention {
                bytes: self.max_size.0,
                full,
                ..journal::Retention::default()
            },
        }
    }
}

// === impl SyncConfig ===

impl From<SyncConfig> for Durability {
    fn from(config: SyncConfig) -> Self {
        match config {
            SyncConfig::Always => Self::Always,
            SyncConfig::Interval => Self::default(),
            SyncConfig::Os => Self::Os,
        }
    }
}

// === impl HistoryConfig ===

impl Default for HistoryConfig {
    fn default() -> Self {
        Self {
            enabled: false,
            max_size: Size::mib(1024),
            max_events: 10_000_000,
            max_age: Period(Duration::from_hours(7 * 24)),
            sync: SyncConfig::Interval,
        }
    }
}

impl HistoryConfig {
    /// How its journal works.
    pub(crate) fn journal(&self) -> Options {
        Options {
            durability: self.sync.into(),
            retention: journal::Retention {
                bytes: self.max_size.0,
                records: self.max_events,
                age: self.max_age.0,
                full: journal::WhenFull::DropOldest,
            },
        }
    }
}

// === impl HubConfig ===

impl Default for HubConfig {
    fn default() -> Self {
        let Retention { events, bytes, age } = Retention::default();
        Self {
            events,
            bytes: Size(bytes as u64),
            age: Period(age),
        }
    }
}

impl From<HubConfig> for Retention {
    fn from(config: HubConfig) -> Self {
        Self {
            events: config.events,
            bytes: config.bytes.bytes(),
            age: config.age.0,
        }
    }
}

// === impl Input ===

impl Input {
    /// Reads `"id"` or `"id.port"`.
    pub fn parse(text: &str) -> Self {
        match text.split_once('.') {
            Some((id, port)) => Self {
                id: id.into(),
                port: Some(port.to_owned()),
            },
            None => Self {
                id: text.into(),
                port: None,
            },
        }
    }
}

impl fmt::Display for Input {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.id)?;
        self.port.iter().try_for_each(|port| write!(f, ".{port}"))
    }
}
